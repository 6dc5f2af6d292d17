// @vitest-environment jsdom
// From what the service says of a step's time to bars, widths and words.
import { cleanup, render, screen, within } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import type { PartName, StepBar, StepTime as Found } from "../api/types";
import { barWords, longest, mark, segments } from "./parts";
import { StepTime } from "./StepTime";

afterEach(cleanup);

function bar(rank: number, seconds: number, parts: Partial<Record<PartName, number>>): StepBar {
  const told = Object.entries(parts).map(([name, part]) => ({ name: name as PartName, seconds: part }));
  return { rank, node: "n1", seconds, parts: told };
}

const FIRST = bar(0, 0.1, { forward: 0.03, backward: 0.05, transfer: 0, waiting: 0.02, other: 0 });
const SECOND = bar(1, 0.2, { forward: 0.1, backward: 0.1, transfer: 0, waiting: 0, other: 0 });

function found(more: Partial<Found> = {}): Found {
  return {
    attempt: 1,
    steps: 20,
    told: 2,
    ranks: 2,
    median: FIRST,
    bars: [FIRST, SECOND],
    left_out: 0,
    slowest: 1,
    spread: [{ name: "forward", low: 0.03, median: 0.065, high: 0.1 }],
    sentence: "Rank 1 on n1 is slowest.",
    untold: null,
    exchange: "Communication alone: 118 MB/s.",
    ...more,
  };
}

describe("a bar", () => {
  it("is as long as its step beside the longest one, and its parts as wide as they take", () => {
    expect(longest(found())).toBeCloseTo(0.2);
    const widths = segments(FIRST, 0.2).map(({ name, share, width }) => [name, Math.round(share * 100), Math.round(width * 100)]);
    expect(widths).toEqual([["forward", 30, 15], ["backward", 50, 25], ["waiting", 20, 10]]);
  });

  it("never leaves its room, though clocks made its parts longer than its step", () => {
    const odd = bar(0, 0.1, { forward: 0.1, waiting: 0.1 });
    const room = longest(found({ median: odd, bars: [odd] }));
    expect(segments(odd, room).reduce((sum, part) => sum + part.width, 0)).toBeCloseTo(1);
    expect(segments(odd, room).map(({ share }) => share)).toEqual([0.5, 0.5]);
  });

  it("is a sentence for who does not see it", () => {
    expect(barWords(FIRST).replaceAll("\u202f", " ")).toBe(
      "rank 0 on n1, 100 ms a step: Forward pass 30.0 ms (30.0 %), Backward pass 50.0 ms (50.0 %), Exposed: waiting for a slower rank 20.0 ms (20.0 %)",
    );
  });

  it("says which is slowest, and which is fastest where not all are drawn", () => {
    expect([mark(found(), FIRST), mark(found(), SECOND)]).toEqual([null, "slowest"]);
    expect(mark(found({ left_out: 3 }), FIRST)).toBe("fastest");
  });
});

describe("where a step's time goes", () => {
  it("has the median rank's bar on top, a thin one per rank, and both as tables", () => {
    render(<StepTime found={found()} />);
    expect(screen.getAllByTestId("step-bar").map((one) => one.dataset.rank)).toEqual(["0", "0", "1"]);
    const row = screen.getAllByTestId("part-row")[0];
    const cells = row === undefined ? [] : within(row).getAllByRole("cell");
    expect(cells.map((cell) => cell.textContent.replace("\u202f", " "))).toEqual(["30.0 ms", "30.0 %", "30.0 ms", "65.0 ms", "100 ms"]);
    expect(screen.getByText("These ranks as a table")).toBeTruthy();
    expect(screen.getByText("Communication alone: 118 MB/s.")).toBeTruthy();
  });

  it("of one rank is that rank's alone, with what is not told", () => {
    const only = bar(0, 0.1, { exposed: 0.02, untold: 0.08 });
    render(<StepTime found={found({ told: 1, ranks: 1, median: only, bars: [only], slowest: null, sentence: null, spread: [], untold: "Not told: data." })} />);
    expect(screen.getAllByTestId("step-bar")).toHaveLength(1);
    expect(screen.queryByTestId("step-sentence")).toBeNull();
    expect(screen.getByText("Not told: data.")).toBeTruthy();
    expect(screen.queryByText(/Median/)).toBeNull();
  });
});
