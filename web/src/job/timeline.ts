// From a job's timeline to what a page shows of it: a heading for each day, and how long each thing was in coming.
import type { TimelineEntry } from "../api/types";
import { duration } from "../format/times";

export type Tone = "good" | "bad" | "warn" | "plain";

const TONES: Partial<Record<TimelineEntry["kind"], Tone>> = {
  "ended well": "good",
  "ended badly": "bad",
  stale: "warn",
  unknown: "warn",
  requeued: "warn",
  "not saved": "warn",
};

export function tone(kind: TimelineEntry["kind"]): Tone {
  return TONES[kind] ?? "plain";
}

export interface TimelineLine {
  entry: TimelineEntry;
  /** How long after the entry before it; empty for the first, and where that is not worth a word. */
  after: string;
}

export interface TimelineDay {
  day: string;
  lines: TimelineLine[];
}

const WORTH_SECONDS = 5;
const dayName = new Intl.DateTimeFormat("en-GB", { dateStyle: "full" });

/** The entries under their days by the reader's own clock, in the order in which the service learnt of them. */
export function byDay(entries: readonly TimelineEntry[]): TimelineDay[] {
  const days: TimelineDay[] = [];
  entries.forEach((entry, index) => {
    const day = dayName.format(new Date(entry.time));
    const before = entries[index - 1];
    // A node's clock may be behind: then there is nothing to say.
    const seconds = before === undefined ? 0 : (Date.parse(entry.time) - Date.parse(before.time)) / 1000;
    const line = { entry, after: seconds >= WORTH_SECONDS ? duration(seconds) : "" };
    const last = days.at(-1);
    if (last?.day === day) last.lines.push(line);
    else days.push({ day, lines: [line] });
  });
  return days;
}
