// From what the service says of a step's time to widths and words.
import type { PartName, StepBar, StepTime } from "../api/types";
import { percent, seconds } from "../format/numbers";

/** In the legend, and where there is little room. */
export const NAMES: Record<PartName, { long: string; short: string }> = {
  forward: { long: "Forward pass", short: "forward" },
  backward: { long: "Backward pass", short: "backward" },
  optimizer: { long: "Optimizer", short: "optimizer" },
  data: { long: "Data", short: "data" },
  exposed: { long: "Exposed communication", short: "exposed" },
  transfer: { long: "Exposed: transfer", short: "transfer" },
  waiting: { long: "Exposed: waiting for a slower rank", short: "waiting" },
  other: { long: "Other", short: "other" },
  untold: { long: "Not told apart", short: "not told apart" },
};

export interface Segment {
  name: PartName;
  seconds: number;
  /** Of its own step, 0 to 1. */
  share: number;
  /** Of the room that the longest bar fills, 0 to 1. */
  width: number;
}

/** How long the bar is, in seconds: its step, or its parts where clocks made them a little more. */
function length({ seconds: whole, parts }: StepBar): number {
  return Math.max(whole, parts.reduce((sum, part) => sum + part.seconds, 0));
}

/** The longest of all bars, in seconds: what fills the room. */
export function longest({ median, bars }: StepTime): number {
  return Math.max(...[median, ...bars].map(length));
}

/** What is drawn of a bar, from left to right, without what would not be seen. */
export function segments(bar: StepBar, room: number): Segment[] {
  const whole = length(bar);
  return bar.parts
    .filter((part) => part.seconds > 0)
    .map((part) => ({ ...part, share: part.seconds / whole, width: part.seconds / room }));
}

export function who({ rank, node }: StepBar): string {
  return node == null ? `rank ${rank}` : `rank ${rank} on ${node}`;
}

/** A bar for those who do not see it. */
export function barWords(bar: StepBar): string {
  const parts = segments(bar, 1).map(({ name, seconds: part, share }) => `${NAMES[name].long} ${seconds(part)} (${percent(share)})`);
  return `${who(bar)}, ${seconds(bar.seconds)} a step: ${parts.join(", ")}`;
}

/** What stands beside a rank's bar: that it is the slowest one, or, where not all are drawn, the fastest. */
export function mark(found: StepTime, bar: StepBar): "slowest" | "fastest" | null {
  if (bar.rank === found.slowest) return "slowest";
  return found.left_out > 0 && bar === found.bars[0] ? "fastest" : null;
}
