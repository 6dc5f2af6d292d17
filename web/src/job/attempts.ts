// What is to be said of a line over several attempts.
import type { AttemptBegun } from "../api/types";
import { count, plural } from "../format/numbers";

/** Which steps the line leaves out; empty where it has nothing to leave out. */
export function doneAgain(begun: readonly AttemptBegun[]): string {
  const again = begun.reduce((sum, one) => sum + one.done_again, 0);
  if (again === 0) return "";
  return `${plural(again, "step")} of ${count(begun.length)} attempts had to be done again, and ${again === 1 ? "is" : "are"} drawn as done last. `;
}
