// From the service's series to what a chart draws and says.
import { describe, expect, it } from "vitest";
import type { MetricSeries } from "../api/types";
import { makeAxis } from "./axis";
import { moreCharts, THROUGHPUT, USAGE } from "./catalog";
import { readings, said } from "./readout";
import { makeTable } from "./table";
import { runningMean } from "./trend";

function series(name: string, attempt: number, steps: number[], more: Partial<MetricSeries> = {}): MetricSeries {
  return {
    name,
    attempt,
    aggregate: "mean",
    kind: "step",
    step: steps,
    time: steps.map((step) => 1000 * attempt + step),
    value: steps.map((step) => step * 10),
    min: steps.map((step) => step * 10 - 1),
    max: steps.map((step) => step * 10 + 1),
    mean: null,
    weight: null,
    ranks: 2,
    parts: [{ attempt, first: 0, ranks: more.ranks ?? 2 }],
    ...more,
  };
}

const LOSS = { name: "loss", label: "training", color: "--a" };
const EVALUATION = { name: "evaluation_loss", label: "evaluation", color: "--b", sparse: true };

describe("the axis", () => {
  const attempts = [series("loss", 1, [1, 2, 3]), series("loss", 2, [3, 4, 5])];

  it("goes on over attempts by step, with a mark where the second begins", () => {
    const axis = makeAxis(attempts, "step");
    expect([axis.min, axis.max]).toEqual([1, 5]);
    expect(axis.boundaries).toEqual([{ attempt: 2, x: 3 }]);
  });

  it("leaves the time between attempts out of the running time", () => {
    const axis = makeAxis(attempts, "time");
    // Attempt 1 ran from 1001 to 1003, attempt 2 from 2003 to 2005.
    expect([axis.min, axis.max]).toEqual([0, 4]);
    expect(axis.boundaries).toEqual([{ attempt: 2, x: 2 }]);
    expect(axis.at(2, 4, 2004)).toBe(3);
  });

  it("takes each point of a line over attempts for its own attempt's", () => {
    const parts = [
      { attempt: 1, first: 0, ranks: 2 },
      { attempt: 2, first: 2, ranks: 4 },
    ];
    const line = series("loss", 2, [1, 2, 3, 4], { time: [1001, 1002, 2003, 2004], parts });
    const begun = [
      { attempt: 1, step: 1, resumed_from: null, done_again: 0 },
      { attempt: 2, step: 3, resumed_from: 2, done_again: 1 },
    ];
    expect(makeAxis([line], "step", begun)).toMatchObject({ min: 1, max: 4, boundaries: [{ attempt: 2, x: 3 }] });
    const time = makeAxis([line], "time", begun);
    expect([time.max, time.boundaries]).toEqual([2, [{ attempt: 2, x: 1 }]]);
    expect(makeTable([line], [LOSS], time).data[0]).toEqual([0, 1, 2]);
  });

  it("stands without any values", () => {
    expect(makeAxis([], "step").boundaries).toEqual([]);
    expect(makeAxis([series("loss", 1, [])], "time").max).toBe(0);
  });
});

describe("the table", () => {
  it("draws the band of a sum on the scale of the job: times the ranks", () => {
    const one = series("samples_per_s", 1, [1], { aggregate: "sum", value: [300], min: [140], max: [160] });
    const table = makeTable([one], THROUGHPUT.curves, makeAxis([one], "step"));
    expect(table.data).toEqual([[1], [300], [280], [320]]);
    expect(table.columns.map((column) => column.part)).toEqual(["value", "min", "max"]);
  });

  it("draws it by each attempt's own ranks", () => {
    const parts = [
      { attempt: 1, first: 0, ranks: 1 },
      { attempt: 2, first: 1, ranks: 2 },
    ];
    const line = series("samples_per_s", 2, [1, 2], { aggregate: "sum", value: [150, 300], min: [150, 140], max: [150, 160], parts });
    expect(makeTable([line], THROUGHPUT.curves, makeAxis([line], "step")).data).toEqual([[1, 2], [150, 300], [150, 280], [150, 320]]);
  });

  it("draws the CPUs of the ranks as their mean, between the idlest and the busiest, in seconds of running", () => {
    const one = series("cpus", 1, [1, 2], { kind: "usage", value: [1.5, 2], min: [1, 2], max: [2, 2] });
    const table = makeTable([one], USAGE[0]?.curves ?? [], makeAxis([one], "time"));
    expect(table.data).toEqual([[0, 1], [1.5, 2], [1, 2], [2, 2]]);
  });

  it("has no band for one rank or for an evaluation", () => {
    const all = [series("loss", 1, [1], { ranks: 1 }), series("evaluation_loss", 1, [1], { kind: "evaluation" })];
    const table = makeTable(all, [LOSS, EVALUATION], makeAxis(all, "step"));
    expect(table.banded).toBe(false);
    expect(table.columns).toHaveLength(2);
  });

  it("keeps a value that was not a number as a gap", () => {
    const one = series("loss", 1, [1, 2, 3], { ranks: 1, value: [1, null, 3] });
    expect(makeTable([one], [LOSS], makeAxis([one], "step")).data[1]).toEqual([1, null, 3]);
  });

  it("puts the axis in order, whatever order the points came in", () => {
    const one = series("loss", 1, [3, 1, 2, 2], { ranks: 1, value: [30, 10, 20, 21] });
    expect(makeTable([one], [LOSS], makeAxis([one], "step")).data).toEqual([
      [1, 2, 3],
      [10, 21, 30],
    ]);
  });

  it("spans the whole axis even where its own curve does not", () => {
    const all = [series("loss", 1, [1, 9]), series("evaluation_loss", 1, [5], { kind: "evaluation" })];
    expect(makeTable(all, [EVALUATION], makeAxis(all, "step")).data[0]).toEqual([1, 5, 9]);
  });

  it("is empty without points", () => {
    expect(makeTable([], [LOSS], makeAxis([], "step"))).toMatchObject({ data: [[]], points: 0 });
  });
});

describe("the readout", () => {
  const all = [series("loss", 1, [1, 2, 3, 4]), series("evaluation_loss", 1, [2], { kind: "evaluation", value: [7] })];
  const table = makeTable(all, [LOSS, EVALUATION], makeAxis(all, "step"));

  it("gives the newest values and the ranks' spread", () => {
    expect(readings(table, null)).toMatchObject([
      { curve: LOSS, x: 4, value: 40, min: 39, max: 41 },
      { curve: EVALUATION, x: 2, value: 7, min: null, max: null },
    ]);
  });

  it("leaves out a curve that has not begun under the pointer", () => {
    expect(readings(table, 0)).toMatchObject([{ curve: LOSS, value: 10 }]);
  });

  it("says that a value is not a number, and not the last one that was", () => {
    const lost = [
      series("loss", 1, [1, 2, 3], { value: [1, null, null], min: [1, null, null], max: [1, null, null] }),
      series("evaluation_loss", 1, [2, 4], { kind: "evaluation", value: [7, 8] }),
    ];
    const both = makeTable(lost, [LOSS, EVALUATION], makeAxis(lost, "step"));
    // At the end the loss has no point of its own: step 4 is the evaluation's alone.
    expect(readings(both, null)).toMatchObject([{ curve: LOSS, x: 3, value: null }, { value: 8 }]);
    expect(readings(both, 1)).toMatchObject([{ x: 2, value: null }, { value: 7 }]);
    expect(readings(both, 0)).toMatchObject([{ x: 1, value: 1 }]);
    expect([said(null, String), said(0.5, String)]).toEqual(["not a number", "0.5"]);
  });

  it("follows the newest attempt where two lie over each other", () => {
    const two = [series("loss", 1, [1, 2, 3]), series("loss", 2, [2, 3], { value: [77, 88] })];
    const both = makeTable(two, [LOSS], makeAxis(two, "step"));
    expect(readings(both, 0)).toMatchObject([{ value: 10 }]);
    expect(readings(both, 1)).toMatchObject([{ value: 77 }]);
  });
});

describe("the charts beneath", () => {
  it("are those with values: the known ones first, then a script's own by name", () => {
    const all = ["zeta", "accuracy", "loss", "epoch", "alpha", "exposed_s", "waiting_s"].map((name) => series(name, 1, [1]));
    expect(moreCharts([...all, series("seconds", 1, [])]).map((spec) => spec.id)).toEqual([
      "accuracy",
      "communication",
      "alpha",
      "zeta",
    ]);
  });

  it("take communication_s for the time under way only beside exposed_s: it meant something else before", () => {
    const old = series("communication_s", 1, [1]);
    expect(moreCharts([old]).map(({ id, title }) => [id, title])).toEqual([["communication_s", "communication_s"]]);
    expect(moreCharts([old, series("exposed_s", 1, [1])]).map(({ id }) => id)).toEqual(["communication"]);
  });
});

describe("the running mean", () => {
  const wave = Array.from({ length: 200 }, (_, index) => (index % 2 === 0 ? 90 : 110));

  it("calms what jumps, to its end, and does not lag behind", () => {
    const calm = runningMean(wave) ?? [];
    expect(Math.max(...calm.slice(5).map((value) => Math.abs((value ?? 0) - 100)))).toBeLessThan(4);
    const line = wave.map((_, index) => index * 2);
    expect(runningMean(line)?.slice(0, -5)).toEqual(line.slice(0, -5));
  });

  it("leaves a gap where a value was not a number, and none around it", () => {
    const calm = runningMean(wave.map((value, index) => (index === 100 ? null : value))) ?? [];
    expect(calm[100]).toBeNull();
    expect(calm.filter((value) => value === null)).toHaveLength(1);
  });

  it("is not drawn over a few points", () => {
    expect(runningMean(wave.slice(0, 20))).toBeNull();
  });

  describe("of a curve that has only its lowest and highest points", () => {
    const steps = wave.map((_, index) => index + 1);
    const extremes = { ranks: 1, value: wave.map((_, index) => (index % 2 === 0 ? 20 : 100)) };
    const trendOf = (more: Partial<MetricSeries>) => {
      const one = series("samples_per_s", 1, steps, { ...extremes, ...more });
      const table = makeTable([one], THROUGHPUT.curves, makeAxis([one], "step"));
      const column = table.columns.findIndex(({ part }) => part === "trend");
      return column < 0 ? null : Array.from(table.data[column + 1] ?? []);
    };

    it("follows the means over all steps, and not the points", () => {
      const trend = trendOf({ mean: wave.map(() => 93), weight: wave.map(() => 6) });
      expect(trend).toHaveLength(wave.length);
      for (const value of trend ?? []) expect(value).toBeCloseTo(93);
    });

    it("counts each by how many steps it is over", () => {
      const trend = trendOf({ mean: wave.map((_, index) => (index % 2 === 0 ? 20 : 100)), weight: wave.map((_, index) => (index % 2 === 0 ? 1 : 11)) });
      expect(trend?.[100]).toBeGreaterThan(90);
    });

    it("is left out where the means are not known", () => {
      expect(trendOf({ mean: wave.map(() => null), weight: wave.map(() => 0) })).toBeNull();
      const trend = trendOf({ mean: wave.map((_, index) => (index < 100 ? null : 93)), weight: wave.map((_, index) => (index < 100 ? 0 : 6)) });
      expect(trend?.slice(0, 100).every((value) => value === null)).toBe(true);
      for (const value of trend?.slice(100) ?? []) expect(value).toBeCloseTo(93);
    });
  });
});
