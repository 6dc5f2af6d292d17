// The global batch in words: how many samples a step has, and whose they are.
import type { JobWithSpec } from "../api/types";
import { count, plural } from "../format/numbers";

/** "64 = 2 ranks × 32, each in 4 parts"; null for a script, which makes its own batches. */
export function batch({ global_batch: whole, spec }: Pick<JobWithSpec, "global_batch" | "spec">): string | null {
  if (whole === null) return null;
  const { batch_size: each, accumulate } = spec.training;
  const ranks = whole / each;
  const parts = accumulate != null && accumulate > 1 ? `, each in ${accumulate} parts` : "";
  return `${count(whole)} = ${plural(ranks, "rank")} × ${count(each)}${parts}`;
}
