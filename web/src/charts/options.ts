// How a chart is drawn: thin lines, a band across ranks, quiet axes, a mark where an attempt begins.
import uPlot from "uplot";
import { count } from "../format/numbers";
import { clock, type Ticks } from "../format/ticks";
import type { Axis } from "./axis";
import { color, translucent } from "./palette";
import type { Table } from "./table";

export interface Look {
  /** A label on the y axis. */
  ticks: Ticks;
  log: boolean;
  /** Keep zero in sight. */
  zero: boolean;
}

export interface Hooks {
  onCursor: (index: number | null) => void;
  /** Where attempts begin, asked at each drawing, since it changes while a job runs. */
  axis: () => Axis;
}

const FONT = '11px "Inter Variable", system-ui, sans-serif';
const SYNC = "lockstep";
const MOST_POINTS = 60;
// Distances between labels: whole steps, and times that a clock would show.
const STEPS = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800];
// eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- the library has its enumeration for types alone
const LOGARITHMIC = 3 as uPlot.Scale.Distr.Logarithmic;

/** Whether the points in sight are few enough to be drawn as such. */
function fewIn(plot: uPlot, index: number, first: number, last: number): boolean {
  let count = 0;
  for (let place = first; place <= last; place += 1) if (plot.data[index]?.[place] != null) count += 1;
  return count <= MOST_POINTS;
}

function series(table: Table): uPlot.Series[] {
  return table.columns.map(({ curve, attempt, part }) => {
    const label = `${curve.label} ${part}`;
    if (part === "min" || part === "max") return { label, stroke: "transparent", width: 0, points: { show: false } };
    const newest = Math.max(...table.columns.filter((one) => one.curve === curve).map((one) => one.attempt));
    // Earlier attempts stand back, and so do single values where a running mean leads the eye.
    const trended = part === "value" && table.columns.some((one) => one.curve === curve && one.attempt === attempt && one.part === "trend");
    const strength = (attempt === newest ? 1 : 0.6) * (trended ? 0.4 : 1);
    return {
      label,
      stroke: strength === 1 ? color(curve.color) : translucent(curve.color, strength),
      width: trended ? 1 : 1.6,
      points: { show: curve.sparse ? fewIn : false, size: 5, fill: color(curve.color), width: 0 },
    };
  });
}

function bands(table: Table): uPlot.Band[] {
  return table.columns.flatMap(({ curve, part }, index) =>
    // The columns of a curve stand as value, min, max; uPlot's series count from 1.
    part === "max" ? [{ series: [index + 1, index] as [number, number], fill: translucent(curve.color, 0.16) }] : [],
  );
}

function powersOfTen(_plot: uPlot, places: number[]): (number | null)[] {
  return places.map((y) => (Number.isInteger(Math.round(Math.log10(y) * 1e9) / 1e9) ? y : null));
}

function drawBoundaries(plot: uPlot, axis: Axis): void {
  const { ctx, bbox } = plot;
  const pixel = uPlot.pxRatio;
  ctx.save();
  ctx.strokeStyle = color("--ink-3");
  ctx.fillStyle = color("--ink-2");
  ctx.font = FONT.replace("11px", `${11 * pixel}px`);
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  ctx.lineWidth = pixel;
  ctx.setLineDash([3 * pixel, 3 * pixel]);
  let labelled = -Infinity;
  for (const { attempt, x } of axis.boundaries) {
    const at = Math.round(plot.valToPos(x, "x", true)) + 0.5;
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
    const label = `attempt ${attempt}`;
    const width = ctx.measureText(label).width;
    const right = at + 5 * pixel + width <= bbox.left + bbox.width;
    const left = right ? at + 5 * pixel : at - 5 * pixel - width;
    // Of marks that stand close, those that have room are named.
    if (left < labelled) continue;
    ctx.fillText(label, left, bbox.top + 2 * pixel);
    labelled = left + width + 6 * pixel;
  }
  ctx.restore();
}

export function makeOptions(table: Table, axis: Axis, look: Look, hooks: Hooks): Omit<uPlot.Options, "width" | "height"> {
  const quiet = { stroke: color("--ink-2"), font: FONT, grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false } };
  return {
    legend: { show: false },
    padding: [10, 12, 0, 0],
    cursor: {
      sync: { key: `${SYNC}-${axis.mode}`, scales: ["x", null] },
      // Only the value itself is marked under the pointer.
      points: { size: (_plot, index) => (table.columns[index - 1]?.part === "value" ? 7 : 0) },
      drag: { x: true, y: false },
      y: false,
    },
    scales: {
      x: { time: false },
      y: look.log
        ? { distr: LOGARITHMIC }
        : { range: (_plot, min, max) => (look.zero ? [Math.min(0, min), max * 1.08 || 1] : uPlot.rangeNum(min, max === min ? min + 1 : max, 0.08, true)) },
    },
    axes: [
      {
        ...quiet,
        size: 22,
        space: 70,
        incrs: axis.mode === "step" ? STEPS : SECONDS,
        values: (_plot, places) => places.map(axis.mode === "step" ? count : clock),
      },
      {
        ...quiet,
        size: 58,
        ...(look.log ? { grid: { ...quiet.grid, filter: powersOfTen } } : {}),
        space: 34,
        // On a logarithmic scale the library gives null for the places it leaves without a label.
        values: (_plot, places: (number | null)[], _axis, _space, increment) =>
          look.log ? places.map((y) => (y === null ? "" : look.ticks([y], null).join(""))) : look.ticks(places as number[], increment),
      },
    ],
    series: [{}, ...series(table)],
    bands: bands(table),
    hooks: {
      draw: [(plot) => drawBoundaries(plot, hooks.axis())],
      setCursor: [(plot) => hooks.onCursor(plot.cursor.left === undefined || plot.cursor.left < 0 ? null : (plot.cursor.idx ?? null))],
    },
  };
}
