// A job's name, how it stands, where it runs, and what can be done to it.
import { Link } from "@tanstack/react-router";
import type { JobWithSpec } from "../api/types";
import type { Connection } from "../events/stream";
import { UNKNOWN } from "../format/numbers";
import { VerdictLink } from "../placement/VerdictLink";
import { Live } from "../ui/Live";
import { PhaseBadge, SlurmState } from "../ui/PhaseBadge";
import { Prose } from "../ui/Prose";
import { RelativeTime } from "../ui/RelativeTime";
import { batch } from "./batch";
import { CancelButton } from "./CancelButton";
import { JobActions } from "./JobActions";
import { isOver } from "./phase";
import { shape } from "./shape";

export function JobHeader({ job, connection }: { job: JobWithSpec; connection: Connection }) {
  const waitingFor = !isOver(job.phase) && job.reason;
  const global = batch(job);
  return (
    <header className="job-head">
      <div className="job-title">
        <nav aria-label="Breadcrumb" className="crumbs">
          <Link to="/">Jobs</Link>
        </nav>
        <h1>{job.name}</h1>
        <PhaseBadge phase={job.phase} />
        <SlurmState state={job.state} flags={job.flags} />
        {waitingFor && <span className="waiting-for"><Prose text={job.reason ?? ""} /></span>}
        <span className="job-actions">
          <Live connection={connection} />
          <JobActions job={job} />
          {!isOver(job.phase) && !job.by_hand && <CancelButton id={job.id} name={job.name} />}
        </span>
      </div>
      <dl className="facts">
        <Fact name={job.client === "local" ? "Ran" : "Slurm job"}>
          {job.client === "local" ? "without Slurm" : <span className="mono">{job.slurm_job_id ?? UNKNOWN}</span>}
        </Fact>
        <Fact name="Placement">
          {shape(job).long}
          <VerdictLink job={job} />
        </Fact>
        {global !== null && (
          <Fact name="Global batch">
            <span data-testid="global-batch">{global}</span>
          </Fact>
        )}
        {job.nodes.length > 0 && (
          <Fact name="On">
            <span className="mono nodes" title={job.nodes.join(", ")}>
              {job.nodes.join(", ")}
            </span>
          </Fact>
        )}
        {job.after && (
          <Fact name="After">
            <JobLink id={job.after} />, {job.after_any ? "whatever its end" : "if it ends well"}
          </Fact>
        )}
        {job.rerun_of && (
          <Fact name="Run again from">
            <JobLink id={job.rerun_of} />
          </Fact>
        )}
        <Fact name="Submitted">
          <RelativeTime moment={job.created_at} />
        </Fact>
        {job.started_at && (
          <Fact name="Started">
            <RelativeTime moment={job.started_at} />
          </Fact>
        )}
        {job.ended_at && (
          <Fact name="Ended">
            <RelativeTime moment={job.ended_at} />
          </Fact>
        )}
        <Fact name="Id">
          <span className="mono id">{job.id}</span>
        </Fact>
      </dl>
    </header>
  );
}

function JobLink({ id }: { id: string }) {
  return (
    <Link to="/jobs/$id" params={{ id }} className="mono">
      {id.slice(-12)}
    </Link>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
