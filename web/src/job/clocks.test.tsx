// @vitest-environment jsdom
// Which clocks of a job's page run: those of what runs, and no others.
import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import type { Attempt, JobWithSpec } from "../api/types";
import { UNKNOWN } from "../format/numbers";
import { AttemptsTab } from "./AttemptsTab";
import { KeyFigures } from "./KeyFigures";

afterEach(cleanup);

const BEGUN = "2026-11-23T06:00:00.000Z";
const LATER = "2026-11-23T06:00:30.000Z";

describe("the time that has elapsed", () => {
  const shown = (job: Partial<JobWithSpec>) => {
    render(<KeyFigures job={{ ranks: 1, started_at: BEGUN, ended_at: null, last: {}, ...job } as JobWithSpec} metrics={undefined} />);
    return screen.getByTestId("figure-elapsed").textContent;
  };

  it("is not counted from a start before the job was put back into the queue", () => {
    expect(shown({ phase: "waiting" })).toBe(UNKNOWN);
  });

  it("is counted while it runs", () => {
    expect(shown({ phase: "running" })).not.toBe(UNKNOWN);
  });

  it("stands still when it has ended", () => {
    expect(shown({ phase: "ended badly", ended_at: LATER })).toBe("30 s");
  });
});

describe("an attempt", () => {
  const attempt = (number: number, more: Partial<Attempt> = {}): Attempt => ({
    number, slurm_job_id: 7, restart_count: number - 1, nodes: ["n1"], ranks: 1, started_at: BEGUN, ended_at: null,
    exit_code: null, exit_signal: null, message: null, ...more,
  });
  const lines = (...attempts: Attempt[]) => {
    render(<AttemptsTab attempts={attempts} begun={[]} />);
    const [lasted, end] = [-2, -1];
    return screen.getAllByTestId("attempt-row").map((row) => {
      const cells = [...row.querySelectorAll("td")].map((cell) => cell.textContent);
      return [cells.at(lasted), cells.at(end)];
    });
  };

  it("that ended without an exit record says so, and how long it lasted", () => {
    expect(lines(attempt(1, { ended_at: LATER }), attempt(2, { ended_at: LATER, exit_code: 0 }))).toEqual([
      ["30 s", "no exit record"],
      ["30 s", "exit code 0"],
    ]);
  });

  it("that a later one has followed does not run, though nothing is known of its end", () => {
    const [first, second] = lines(attempt(1), attempt(2));
    expect(first).toEqual([UNKNOWN, "no exit record"]);
    expect(second?.[0]).not.toBe(UNKNOWN);
    expect(second?.[1]).toBe(UNKNOWN);
  });
});
