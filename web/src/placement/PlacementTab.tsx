// Where the ranks of an attempt were planned to sit, and where the kernel says that their threads do.
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { keys, placementQuery } from "../api/jobs";
import type { JobPlacement, JobWithSpec } from "../api/types";
import { useThrottled } from "../events/useThrottled";
import { ErrorView } from "../ui/ErrorView";
import { StaleNote } from "../ui/StaleNote";
import { NodeStrip } from "./NodeStrip";
import { NodeView } from "./NodeView";
import { VerdictSummary } from "./VerdictSummary";

// Each rank's verdict is a new revision: what came of them is asked for calmly.
const REFRESH_MS = 1000;

/** The node to show first: the first one where something is wrong. */
function firstNode({ nodes }: JobPlacement): string | null {
  const worst = nodes.find(({ result, ranks }) => result === "deviates" || ranks.some(({ verdict }) => verdict?.result === "deviates"));
  return (worst ?? nodes.find((node) => node.result === "degraded") ?? nodes[0])?.node ?? null;
}

export function PlacementTab({ job }: { job: JobWithSpec }) {
  const [attempt, setAttempt] = useState<number | null>(null);
  const [chosen, setChosen] = useState<string | null>(null);
  const revision = job.verdicts?.revision ?? 0;
  const all = useQuery(placementQuery(job.id, { attempt, node: null }));
  const queries = useQueryClient();
  const refresh = useThrottled(REFRESH_MS, () => queries.invalidateQueries({ queryKey: keys.placement(job.id) }));
  useEffect(refresh, [refresh, revision]);

  if (all.data === undefined) {
    if (all.isError) return <ErrorView error={all.error} retry={() => void all.refetch()} />;
    return <p className="quiet-note">Reading the placement…</p>;
  }
  const { nodes } = all.data;
  const node = nodes.some((one) => one.node === chosen) ? chosen : firstNode(all.data);
  return (
    <section className="placement" data-testid="placement" aria-label="Placement">
      <StaleNote what="The placement" of={all} />
      <VerdictSummary placement={all.data} counts={attempt === null ? job.verdicts : null}>
        {job.attempts.length > 1 && (
          <label className="toggle">
            Attempt
            <select
              value={attempt ?? ""}
              onChange={(event) => setAttempt(event.target.value === "" ? null : Number(event.target.value))}
            >
              <option value="">newest</option>
              {job.attempts.map(({ number }) => (
                <option key={number} value={number}>
                  {number}
                </option>
              ))}
            </select>
          </label>
        )}
      </VerdictSummary>
      {nodes.length > 1 && node !== null && <NodeStrip nodes={nodes} chosen={node} choose={setChosen} />}
      {node !== null && <NodeView key={node} id={job.id} attempt={attempt} node={node} />}
    </section>
  );
}
