// The browser's tab says how far the job is.
import type { Job } from "../api/types";
import { percent } from "../format/numbers";
import { useTitle } from "../shell/useTitle";

export function jobTitle(job: Job | undefined): string {
  if (job === undefined) return "";
  const { step, steps } = job.last;
  const how = job.phase === "running" && step != null && steps ? percent(step / steps, 0) : job.phase;
  return `${how} ${job.name}`;
}

export function useJobTitle(job: Job | undefined): void {
  useTitle(jobTitle(job));
}
