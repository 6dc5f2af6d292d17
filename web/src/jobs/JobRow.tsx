// One job of the list.
import { Link } from "@tanstack/react-router";
import { memo } from "react";
import type { Job } from "../api/types";
import { count, figure, percent } from "../format/numbers";
import { shape } from "../job/shape";
import { PhaseBadge, SlurmState } from "../ui/PhaseBadge";
import { Prose } from "../ui/Prose";
import { ProgressBar } from "../ui/ProgressBar";
import { RelativeTime } from "../ui/RelativeTime";

export const JobRow = memo(function JobRow({ job }: { job: Job }) {
  const { last } = job;
  return (
    <tr data-testid="job-row" data-job-id={job.id} data-phase={job.phase}>
      <td className="cell-name">
        <Link to="/jobs/$id" params={{ id: job.id }} className="row-link">
          {job.name}
        </Link>
        <span className="sub">
          {job.client !== "local" && job.slurm_job_id != null && <span>Slurm {job.slurm_job_id}</span>}
          {job.by_hand && <span className="chip">by hand</span>}
          {job.client === "local" && <span className="chip">without Slurm</span>}
          {job.attempts.length > 1 && <span className="chip">attempt {job.attempts.length}</span>}
          {job.stale_since && <span className="chip warn">stale</span>}
        </span>
      </td>
      <td className="cell-phase">
        <span className="phase-line">
          <PhaseBadge phase={job.phase} />
          <SlurmState state={job.state} flags={job.flags} />
        </span>
        {job.reason && (
          <span className="reason" title={job.reason}>
            <Prose text={job.reason} />
          </span>
        )}
      </td>
      <td className="right num cell-shape" data-label="Nodes × ranks">
        {shape(job).short}
      </td>
      <td className="cell-steps num" data-label="Steps">
        {last.step != null && last.steps != null && last.steps > 0 && (
          <>
            <ProgressBar done={last.step} total={last.steps} label={`Steps of ${job.name}`} />
            <span className="steps-text">
              {count(last.step)}
              <span className="dim"> / {count(last.steps)}</span>
            </span>
          </>
        )}
        {last.step != null && last.steps == null && <span className="steps-text">{count(last.step)}</span>}
      </td>
      <td className="right num cell-figure" data-label="Samples/s" data-testid="row-samples-per-s">
        {figure(last.samples_per_s)}
      </td>
      <td className="right num cell-figure" data-label="Loss" data-testid="row-loss">
        {figure(last.loss)}
      </td>
      <td className="right num cell-figure" data-label="Accuracy" data-testid="row-accuracy">
        {percent(last.accuracy)}
      </td>
      <td className="right num age" data-label="Submitted">
        <RelativeTime moment={job.created_at} />
      </td>
    </tr>
  );
});
