// One continuous axis under all attempts of a job: steps, or the time that the ranks really ran.
import type { AttemptBegun, MetricSeries } from "../api/types";

export type AxisMode = "step" | "time";

export interface Boundary {
  attempt: number;
  x: number;
}

export interface Axis {
  mode: AxisMode;
  min: number;
  max: number;
  /** Where the second and later attempts begin. */
  boundaries: Boundary[];
  /** A point's place on the axis: a step, or seconds of running time (waiting in the queue between attempts left out). */
  at: (attempt: number, step: number, time: number) => number;
}

interface Extent {
  attempt: number;
  firstStep: number;
  lastStep: number;
  firstTime: number;
  lastTime: number;
}

/** By point of a series, which part of it that is: an attempt, and how many ranks it stands for. */
export function partsOf({ step, attempt, ranks, parts }: MetricSeries): { attempt: number; ranks: number }[] {
  let part = -1;
  return step.map((_, index) => {
    while (index >= (parts[part + 1]?.first ?? Infinity)) part += 1;
    return parts[part] ?? { attempt, ranks };
  });
}

function extents(series: readonly MetricSeries[]): Extent[] {
  const found = new Map<number, Extent>();
  for (const one of series) {
    const parts = partsOf(one);
    for (const [index, at] of one.step.entries()) {
      const moment = one.time[index];
      const attempt = parts[index]?.attempt;
      if (moment === undefined || attempt === undefined) continue;
      const known = found.get(attempt);
      if (known === undefined) {
        found.set(attempt, { attempt, firstStep: at, lastStep: at, firstTime: moment, lastTime: moment });
        continue;
      }
      known.firstStep = Math.min(known.firstStep, at);
      known.lastStep = Math.max(known.lastStep, at);
      known.firstTime = Math.min(known.firstTime, moment);
      known.lastTime = Math.max(known.lastTime, moment);
    }
  }
  return [...found.values()].sort((a, b) => a.attempt - b.attempt);
}

/** `begun`: where attempts began, as the service tells it; without, by the first point of each. */
export function makeAxis(series: readonly MetricSeries[], mode: AxisMode, begun?: readonly AttemptBegun[]): Axis {
  const attempts = extents(series);
  if (mode === "step") {
    return {
      mode,
      min: attempts.length === 0 ? 0 : Math.min(...attempts.map((one) => one.firstStep)),
      max: attempts.length === 0 ? 1 : Math.max(...attempts.map((one) => one.lastStep)),
      boundaries: (begun ?? attempts.map(({ attempt, firstStep }) => ({ attempt, step: firstStep })))
        .slice(1)
        .map(({ attempt, step }) => ({ attempt, x: step })),
      at: (_attempt, step) => step,
    };
  }
  // Each attempt begins where the one before it ended.
  const begins = new Map<number, number>();
  let ran = 0;
  for (const one of attempts) {
    begins.set(one.attempt, ran - one.firstTime);
    ran += one.lastTime - one.firstTime;
  }
  return {
    mode,
    min: 0,
    max: ran,
    boundaries: attempts.slice(1).map((one) => ({ attempt: one.attempt, x: one.firstTime + (begins.get(one.attempt) ?? 0) })),
    at: (attempt, _step, time) => time + (begins.get(attempt) ?? 0),
  };
}
