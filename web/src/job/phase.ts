// What a phase means for a page.
import type { Phase } from "../api/types";

/** Whether nothing more will happen to the job. */
export function isOver(phase: Phase): boolean {
  return phase === "ended well" || phase === "ended badly";
}
