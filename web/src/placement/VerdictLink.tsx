// The verdict in a job's head, leading to the map; nothing before a rank has said something.
import { Link } from "@tanstack/react-router";
import type { Job } from "../api/types";
import { VerdictBadge } from "./VerdictBadge";

export function VerdictLink({ job }: { job: Job }) {
  if (job.verdicts == null) return null;
  return (
    <Link to="/jobs/$id" params={{ id: job.id }} search={{ tab: "placement" }} className="verdict-link" resetScroll={false}>
      <VerdictBadge result={job.verdict} />
    </Link>
  );
}
