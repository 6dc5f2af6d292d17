// How long a training still takes, from the pace of its recent steps.
import type { MetricSeries } from "../api/types";

const RECENT = 60;

/** Seconds until step `steps`, at the pace of the newest attempt's recent points; null where too little is known. */
export function remaining(series: readonly MetricSeries[], steps: number | null): number | null {
  if (steps === null) return null;
  const newest = series
    .filter((one) => one.kind === "step" && one.step.length > 2)
    .reduce<MetricSeries | null>((best, one) => (best === null || one.attempt > best.attempt ? one : best), null);
  if (newest === null) return null;
  const last = newest.step.length - 1;
  // Between two attempts it waited in the queue, which is no pace.
  const first = Math.max(newest.parts.at(-1)?.first ?? 0, last - RECENT);
  const [fromStep, toStep, from, to] = [newest.step[first], newest.step[last], newest.time[first], newest.time[last]];
  if (fromStep == null || toStep == null || from === undefined || to === undefined || toStep <= fromStep) return null;
  return Math.max(0, (steps - toStep) * ((to - from) / (toStep - fromStep)));
}
