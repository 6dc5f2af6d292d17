// How a job is spread: nodes times ranks on each.
import type { Job } from "../api/types";
import { plural } from "../format/numbers";

export interface Shape {
  /** "2 × 1" */
  short: string;
  /** "2 nodes × 1 rank" */
  long: string;
}

export function shape(job: Pick<Job, "nodes_requested" | "ranks">): Shape {
  const nodes = job.nodes_requested;
  const perNode = job.ranks / nodes;
  if (nodes < 1 || !Number.isInteger(perNode)) {
    return { short: String(job.ranks), long: plural(job.ranks, "rank") };
  }
  return { short: `${nodes} × ${perNode}`, long: `${plural(nodes, "node")} × ${plural(perNode, "rank")}` };
}
