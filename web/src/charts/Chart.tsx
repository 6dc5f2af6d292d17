// One chart with its heading and its readout: the value under the pointer, or else the newest.
import { useMemo, useState } from "react";
import type { MetricSeries } from "../api/types";
import { count } from "../format/numbers";
import { clock, type Ticks } from "../format/ticks";
import type { Axis } from "./axis";
import { Plot } from "./Plot";
import { readings, said, type Reading } from "./readout";
import { makeTable, type Curve } from "./table";

export interface ChartSpec {
  /** Part of `data-testid="chart-..."`. */
  id: string;
  title: string;
  unit: string;
  curves: readonly Curve[];
  format: (value: number) => string;
  ticks: Ticks;
  zero?: boolean;
  canLog?: boolean;
}

interface Props {
  spec: ChartSpec;
  series: readonly MetricSeries[];
  axis: Axis;
  height: number;
}

export function Chart({ spec, series, axis, height }: Props) {
  const [index, setIndex] = useState<number | null>(null);
  const [log, setLog] = useState(false);
  const table = useMemo(() => makeTable(series, spec.curves, axis), [series, spec.curves, axis]);
  const positive = useMemo(
    () => table.data.slice(1).every((column) => Array.from(column).every((value) => value == null || value > 0)),
    [table],
  );
  const shown = readings(table, index);
  const newest = readings(table, null);
  const x = shown.length === 0 ? undefined : Math.max(...shown.map((reading) => reading.x));
  const where = x === undefined ? "" : axis.mode === "step" ? `step ${count(x)}` : clock(x);
  const look = { ticks: spec.ticks, log: log && positive, zero: spec.zero ?? false };

  return (
    <figure className="chart panel" data-testid={`chart-${spec.id}`} data-points={table.points}>
      <figcaption>
        <h3>
          {spec.title}
          {spec.unit && <span className="unit"> {spec.unit}</span>}
        </h3>
        {spec.canLog && positive && (
          <button type="button" className="button quiet small" aria-pressed={log} onClick={() => setLog(!log)}>
            log
          </button>
        )}
        <div className={index === null ? "readout" : "readout held"}>
          {shown.map((reading) => (
            <ReadingView key={reading.curve.name} reading={reading} format={spec.format} named={spec.curves.length > 1} />
          ))}
          <span className="where">{where}</span>
        </div>
      </figcaption>
      {table.points === 0 ? (
        <p className="no-points">No values yet</p>
      ) : (
        <div role="img" aria-label={`${spec.title}: ${newest.map((one) => `${one.curve.label} ${said(one.value, spec.format)}`).join(", ")} now`}>
          <Plot table={table} axis={axis} look={look} height={height} onCursor={setIndex} />
        </div>
      )}
    </figure>
  );
}

function ReadingView({ reading, format, named }: { reading: Reading; format: (value: number) => string; named: boolean }) {
  const { curve, value, min, max } = reading;
  return (
    <span className="reading">
      <span className={curve.sparse ? "key dotted" : "key"} style={{ color: `var(${curve.color})` }} aria-hidden="true" />
      {named && <span className="dim">{curve.label}</span>} <strong>{said(value, format)}</strong>
      {min !== null && max !== null && min < max && (
        <span className="dim range">
          {format(min)} – {format(max)}
        </span>
      )}
    </span>
  );
}
