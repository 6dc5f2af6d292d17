// What a job's page works out from what the service says.
import { describe, expect, it } from "vitest";
import type { JobWithSpec, Logs, MetricSeries, TimelineEntry } from "../api/types";
import { append, asShown, EMPTY, endOf, full, MOST, PIECE, prepend, startOf, type LogWindow } from "./log";
import { actions } from "./actions";
import { doneAgain } from "./attempts";
import { batch } from "./batch";
import { remaining } from "./remaining";
import { shape } from "./shape";
import { tabFrom } from "./tabs";
import { byDay, tone } from "./timeline";

function piece(offset: number, text: string, size = offset + text.length): Logs {
  return { attempt: 1, text, offset, next_offset: offset + text.length, size, files: ["job-12.log"] };
}

const shown = (log: LogWindow) => log.pieces.map(({ text }) => text).join("");

describe("the log's window", () => {
  it("grows at its end", () => {
    const log = append(append(EMPTY, piece(0, "one\n")), piece(4, "two\n"));
    expect(shown(log)).toBe("one\ntwo\n");
    expect(log.pieces).toHaveLength(1);
  });

  it("takes nothing twice and leaves no hole", () => {
    const log = append(EMPTY, piece(0, "one\n"));
    expect(append(log, piece(0, "one\n"))).toBe(log);
    expect(append(log, piece(9, "later\n"))).toBe(log);
    expect(prepend(log, piece(0, "one\n"))).toBe(log);
  });

  it("grows at its start when earlier lines are asked for", () => {
    const log = prepend(append(EMPTY, piece(4, "two\n", 8)), piece(0, "one\n"));
    expect(shown(log)).toBe("one\ntwo\n");
    expect([startOf(log), endOf(log), log.size]).toEqual([0, 8, 8]);
  });

  it("never holds more than its bound, however long the log is", () => {
    let log = EMPTY;
    for (let offset = 0; offset < 3 * MOST; offset += PIECE) log = append(log, piece(offset, "x".repeat(PIECE)));
    expect(endOf(log)).toBe(3 * MOST);
    expect(endOf(log) - startOf(log)).toBe(MOST);
    expect(full(log)).toBe(true);
  });

  it("is shown as a terminal would: no colours, an overwritten line in its last state", () => {
    expect(asShown("\u001b[31mred\u001b[0m\n10 %\r50 %\r100 %\ndone\r\n")).toBe("red\n100 %\ndone\n");
  });
});

describe("the time that is left", () => {
  const steps = (attempt: number, from: number, pace: number): MetricSeries => {
    const step = Array.from({ length: 10 }, (_, index) => from + index);
    const none = step.map(() => null);
    const time = step.map((_, index) => index * pace);
    return { name: "loss", attempt, aggregate: "mean", kind: "step", step, time, value: none, min: none, max: none, mean: null, weight: null, ranks: 1, parts: [{ attempt, first: 0, ranks: 1 }] };
  };

  it("follows the pace of the newest attempt", () => {
    expect(remaining([steps(1, 1, 100), steps(2, 11, 0.5)], 120)).toBeCloseTo(50);
  });

  it("leaves out how long it waited between two attempts", () => {
    const line = steps(2, 1, 1);
    const time = line.step.map((_, index) => (index < 5 ? index : 1000 + index));
    const parts = [
      { attempt: 1, first: 0, ranks: 1 },
      { attempt: 2, first: 5, ranks: 1 },
    ];
    expect(remaining([{ ...line, time, parts }], 20)).toBeCloseTo(10);
  });

  it("is not guessed where too little is known", () => {
    expect(remaining([], 100)).toBeNull();
    expect(remaining([steps(1, 1, 1)], null)).toBeNull();
  });

  it("is never negative", () => {
    expect(remaining([steps(1, 1, 1)], 5)).toBe(0);
  });
});

describe("the global batch", () => {
  const of = (global_batch: number | null, training: object) => batch({ global_batch, spec: { training } as JobWithSpec["spec"] });

  it("is told with whose it is", () => {
    expect(of(64, { batch_size: 32 })).toBe("64 = 2 ranks × 32");
    expect(of(32, { batch_size: 32, accumulate: 4 })).toBe("32 = 1 rank × 32, each in 4 parts");
  });

  it("is not known of a script", () => {
    expect(of(null, { batch_size: 32 })).toBeNull();
  });
});

it("a line over attempts tells how much of it was done again", () => {
  const begun = (attempt: number, again: number) => ({ attempt, step: 1, resumed_from: null, done_again: again });
  expect(doneAgain([begun(1, 0), begun(2, 0)])).toBe("");
  expect(doneAgain([begun(1, 0), begun(2, 4), begun(3, 9)])).toBe("13 steps of 3 attempts had to be done again, and are drawn as done last. ");
});

describe("a job's shape", () => {
  it("is nodes times ranks on each", () => {
    expect(shape({ nodes_requested: 2, ranks: 8 })).toEqual({ short: "2 × 4", long: "2 nodes × 4 ranks" });
  });

  it("is the ranks alone where they are not spread evenly", () => {
    expect(shape({ nodes_requested: 2, ranks: 3 })).toEqual({ short: "3", long: "3 ranks" });
    expect(shape({ nodes_requested: 0, ranks: 1 }).long).toBe("1 rank");
  });
});

describe("a job's timeline", () => {
  const entry = (id: number, time: string, kind: TimelineEntry["kind"] = "remark"): TimelineEntry => ({ id, time, kind, attempt: null, text: "x." });

  it("has a heading for each day and says how long a thing was in coming", () => {
    // At noon, so that the day is the same in most of the world.
    const days = byDay([entry(1, "2026-11-23T12:00:00Z"), entry(2, "2026-11-23T12:00:02Z"), entry(3, "2026-11-23T12:03:07Z"), entry(4, "2026-11-25T12:03:07Z")]);
    expect(days.map(({ lines }) => lines.map(({ after }) => after))).toEqual([["", "", "3 min 05 s"], ["2 d 0 h"]]);
  });

  it("keeps the order in which things were learnt, though a node's clock is behind", () => {
    const days = byDay([entry(1, "2026-11-23T12:00:00Z"), entry(2, "2026-11-23T11:59:00Z"), entry(3, "2026-11-23T12:00:00Z")]);
    expect(days.flatMap(({ lines }) => lines.map((line) => [line.entry.id, line.after]))).toEqual([[1, ""], [2, ""], [3, "1 min 00 s"]]);
  });

  it("marks its end", () => {
    expect([tone("ended well"), tone("ended badly"), tone("stale"), tone("attempt")]).toEqual(["good", "bad", "warn", "plain"]);
  });
});

it("an address names only tabs that there are", () => {
  expect([tabFrom("log"), tabFrom("../etc"), tabFrom(3)]).toEqual(["log", undefined, undefined]);
});

describe("what can be asked of a job", () => {
  const job = { phase: "waiting", held: false, by_hand: false } as const;

  it("is what makes sense as it stands", () => {
    expect(actions(job)).toEqual(["hold"]);
    expect(actions({ ...job, phase: "accepted" })).toEqual(["hold"]);
    expect(actions({ ...job, held: true })).toEqual(["release"]);
    expect(actions({ ...job, phase: "running" })).toEqual(["requeue"]);
    for (const phase of ["ended well", "ended badly", "unknown"] as const) expect(actions({ ...job, phase })).toEqual(["rerun"]);
  });

  it("is nothing that Slurm would have to be told of a run by hand", () => {
    for (const phase of ["accepted", "waiting", "running"] as const) expect(actions({ ...job, phase, by_hand: true })).toEqual([]);
    expect(actions({ ...job, phase: "ended well", by_hand: true })).toEqual(["rerun"]);
  });
});
