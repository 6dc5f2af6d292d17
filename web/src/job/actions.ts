// What can be asked of a job, by how it stands.
import type { Job } from "../api/types";
import { isOver } from "./phase";

export type Verb = "hold" | "release" | "requeue";
export type Action = Verb | "rerun";

/** What the page offers, besides cancelling; the service has the last word. */
export function actions(job: Pick<Job, "phase" | "held" | "by_hand">): Action[] {
  if (isOver(job.phase) || job.phase === "unknown") return ["rerun"];
  if (job.by_hand) return [];
  if (job.phase === "running") return ["requeue"];
  return [job.held ? "release" : "hold"];
}
