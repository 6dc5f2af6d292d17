// The canvas: made once per structure, fed with new data without losing a zoom, as wide as its place.
import { useEffect, useEffectEvent, useLayoutEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Axis } from "./axis";
import { makeOptions, type Look } from "./options";
import { useScheme } from "./palette";
import type { Table } from "./table";

interface Props {
  table: Table;
  axis: Axis;
  look: Look;
  height: number;
  onCursor: (index: number | null) => void;
}

function feed(plot: uPlot, { data }: Table): void {
  const { min, max } = plot.scales.x ?? {};
  const before = plot.data[0];
  const zoomed = min != null && max != null && before.length > 1 && (min > (before[0] ?? 0) || max < (before.at(-1) ?? 0));
  plot.setData(data, !zoomed);
  // Sets the same x range anew, so that the y range fits what has come into it.
  if (zoomed) plot.setScale("x", { min, max });
}

export function Plot({ table, axis, look, height, onCursor }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const scheme = useScheme();
  // A curve or an attempt more, another scale or other colours: only these need a new canvas.
  const structure = JSON.stringify([
    table.columns.map(({ curve, attempt, part }) => [curve.name, attempt, part]),
    axis.mode,
    look.log,
    scheme,
    height,
  ]);

  const tellCursor = useEffectEvent((index: number | null) => onCursor(index));
  const presentAxis = useEffectEvent(() => axis);
  const make = useEffectEvent((element: HTMLElement) => {
    const options = makeOptions(table, axis, look, { onCursor: (index) => tellCursor(index), axis: () => presentAxis() });
    return new uPlot({ ...options, width: element.clientWidth, height }, table.data, element);
  });

  useLayoutEffect(() => {
    const element = place.current;
    if (element === null) return undefined;
    const made = make(element);
    plot.current = made;
    // A canvas drawn before its font was there keeps the fallback's letters.
    void document.fonts.ready.then(() => {
      if (plot.current === made) made.redraw(false, true);
    });
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: made.height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [structure]);

  useEffect(() => {
    if (plot.current !== null && plot.current.data !== table.data) feed(plot.current, table);
  }, [table]);

  return <div ref={place} className="plot" />;
}
