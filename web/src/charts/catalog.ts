// Which metric is drawn where: the ones every training has, and whatever else a script reports.
import type { MetricSeries } from "../api/types";
import { byteRate, figure, percent, seconds } from "../format/numbers";
import { byteRateTicks, percentTicks, plainTicks, secondTicks } from "../format/ticks";
import type { ChartSpec } from "./Chart";

export const THROUGHPUT: ChartSpec = {
  id: "throughput",
  title: "Throughput",
  unit: "samples/s",
  curves: [{ name: "samples_per_s", label: "all ranks", color: "--series-1", smooth: true }],
  format: (value) => figure(value),
  ticks: plainTicks,
  zero: true,
};

export const LOSS: ChartSpec = {
  id: "loss",
  title: "Loss",
  unit: "",
  curves: [
    { name: "loss", label: "training", color: "--series-2", smooth: true },
    { name: "evaluation_loss", label: "evaluation", color: "--series-3", sparse: true },
  ],
  format: (value) => figure(value),
  ticks: plainTicks,
  canLog: true,
};

const ACCURACY: ChartSpec = {
  id: "accuracy",
  title: "Accuracy",
  unit: "evaluation",
  curves: [{ name: "accuracy", label: "accuracy", color: "--series-4", sparse: true }],
  format: (value) => percent(value),
  ticks: percentTicks,
};

// Without exposed_s beside it, the name is of an older run, or a script's own, and means something else.
const UNDER_WAY = "communication_s";

const COMPUTING: ChartSpec = {
  id: "computing",
  title: "Computing",
  unit: "a step",
  curves: [
    { name: "forward_s", label: "forward", color: "--series-2", smooth: true },
    { name: "backward_s", label: "backward", color: "--series-4", smooth: true },
  ],
  format: seconds,
  ticks: secondTicks,
  zero: true,
};

const COMMUNICATION: ChartSpec = {
  id: "communication",
  title: "Communication",
  unit: "a step",
  curves: [
    { name: "exposed_s", label: "exposed", color: "--series-3", smooth: true },
    { name: UNDER_WAY, label: "under way", color: "--series-6", smooth: true },
  ],
  format: seconds,
  ticks: secondTicks,
  zero: true,
};

const STEP_TIME: ChartSpec = {
  id: "step-time",
  title: "Step time",
  unit: "",
  curves: [{ name: "seconds", label: "step", color: "--series-1", smooth: true }],
  format: seconds,
  ticks: secondTicks,
  zero: true,
};

const CPUS: ChartSpec = {
  id: "cpus",
  title: "CPUs in use",
  unit: "per rank",
  curves: [{ name: "cpus", label: "CPUs", color: "--series-1" }],
  format: (value) => figure(value),
  ticks: plainTicks,
  zero: true,
};

const NETWORK: ChartSpec = {
  id: "network",
  title: "Network",
  unit: "per node",
  curves: [
    { name: "received_bytes_per_s", label: "in", color: "--series-2" },
    { name: "sent_bytes_per_s", label: "out", color: "--series-3" },
  ],
  format: byteRate,
  ticks: byteRateTicks,
  zero: true,
};

/** What the ranks take, as the kernel counts it: by time, since their samples are no steps. */
export const USAGE = [CPUS, NETWORK];

/** Charts beneath the two main ones, when there is something in them. */
const SECONDARY = [ACCURACY, COMMUNICATION, COMPUTING, STEP_TIME];
// Bookkeeping of the built-in recipes: known from the spec, shown as progress, or in the bar of a step's time.
const NOT_DRAWN = new Set(["epoch", "samples", "evaluation_samples", "optimizer_s", "data_s", "waiting_s", "gradient_bytes"]);

function other(name: string): ChartSpec {
  return {
    id: name,
    title: name,
    unit: "",
    curves: [{ name, label: name, color: "--series-6" }],
    format: (value) => figure(value),
    ticks: plainTicks,
  };
}

const cache = new Map<string, ChartSpec>();

/** The charts beneath throughput and loss: known ones first, then a script's own values by name. */
export function moreCharts(series: readonly MetricSeries[]): ChartSpec[] {
  const names = new Set(series.filter((one) => one.step.length > 0).map((one) => one.name));
  const told = (name: string) => names.has(name) && (name !== UNDER_WAY || names.has("exposed_s"));
  const known = SECONDARY.filter((spec) => spec.curves.some((curve) => told(curve.name)));
  const drawn = new Set([THROUGHPUT, LOSS, ...known].flatMap((spec) => spec.curves.map((curve) => curve.name)));
  const rest = [...names].filter((name) => !drawn.has(name) && !NOT_DRAWN.has(name)).sort();
  return [
    ...known,
    ...rest.map((name) => {
      const spec = cache.get(name) ?? other(name);
      cache.set(name, spec);
      return spec;
    }),
  ];
}
