// From the API's series to the columns that the chart library draws.
import uPlot from "uplot";
import type { MetricSeries } from "../api/types";
import { partsOf, type Axis } from "./axis";
import { runningMean } from "./trend";

/** What one curve of a chart is: a metric and how it looks. */
export interface Curve {
  name: string;
  label: string;
  /** A custom property of styles/tokens.css. */
  color: string;
  /** Few and far between, such as evaluations: drawn with its points. */
  sparse?: boolean;
  /** Restless from step to step: drawn faintly, with a running mean over it. */
  smooth?: boolean;
}

export interface Column {
  curve: Curve;
  /** Of a line over all attempts, the newest. */
  attempt: number;
  part: "value" | "min" | "max" | "trend";
}

export interface Table {
  data: uPlot.AlignedData;
  /** What each of `data`'s columns is; `data[0]` is the axis, so column i is `data[i + 1]`. */
  columns: Column[];
  /** Whether some curve has ranks that differ, so that there is a band to draw. */
  banded: boolean;
  points: number;
}

type Values = (number | null)[];

/**
 * The ranks' smallest and largest value on the scale of the curve. Of a sum, that is what the job would do if every rank
 * were as slow, or as fast, as that one.
 */
function spread(series: MetricSeries): { min: Values; max: Values } | null {
  const parts = partsOf(series);
  if (parts.every(({ ranks }) => ranks < 2) || series.kind === "evaluation") return null;
  const scaled = (values: Values) =>
    values.map((value, index) => (value === null ? null : value * (series.aggregate === "sum" ? (parts[index]?.ranks ?? 1) : 1)));
  return { min: scaled(series.min), max: scaled(series.max) };
}

/** Puts the places in order and keeps the last of equals: the library searches them by halves. */
function ordered(xs: number[], columns: Values[]): uPlot.AlignedData {
  const order = xs.map((_, index) => index).sort((a, b) => (xs[a] ?? 0) - (xs[b] ?? 0) || a - b);
  const kept = order.filter((index, place) => {
    const next = order[place + 1];
    return next === undefined || xs[next] !== xs[index];
  });
  return [kept.map((index) => xs[index] ?? 0), ...columns.map((column) => kept.map((index) => column[index] ?? null))];
}

export function makeTable(series: readonly MetricSeries[], curves: readonly Curve[], axis: Axis): Table {
  const columns: Column[] = [];
  const tables: uPlot.AlignedData[] = [];
  let points = 0;
  let banded = false;
  for (const curve of curves) {
    const own = series.filter((one) => one.name === curve.name && one.step.length > 0).sort((a, b) => a.attempt - b.attempt);
    for (const one of own) {
      const { attempt } = one;
      const parts = partsOf(one);
      const xs = one.step.map((step, index) => axis.at(parts[index]?.attempt ?? attempt, step, one.time[index] ?? 0));
      const band = spread(one);
      columns.push({ curve, attempt, part: "value" });
      if (band) {
        banded = true;
        columns.push({ curve, attempt, part: "min" }, { curve, attempt, part: "max" });
      }
      const means = one.mean && one.weight ? { mean: one.mean, weight: one.weight } : null;
      const trend = curve.smooth ? runningMean(one.value, means) : null;
      if (trend) columns.push({ curve, attempt, part: "trend" });
      tables.push(ordered(xs, [one.value, ...(band ? [band.min, band.max] : []), ...(trend ? [trend] : [])]));
      points += one.step.length;
    }
  }
  if (points === 0) return { data: [[]], columns, banded, points };
  // Both ends of the axis, without values, so that all charts of a job show the same stretch of it.
  return { data: uPlot.join([...tables, [[axis.min, axis.max]]]), columns, banded, points };
}

/**
 * Where something was told of a column for an index: there, or at the nearest place before; null when it has not begun.
 * What was told may be null, no number; where other columns alone have a place, joining left it undefined.
 */
export function placeOf(table: Table, column: number, index: number): number | null {
  const values = table.data[column + 1];
  for (let place = Math.min(index, (values?.length ?? 0) - 1); place >= 0; place -= 1) {
    if (values?.[place] !== undefined) return place;
  }
  return null;
}
