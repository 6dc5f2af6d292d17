// What can be asked of a job besides its end: holding, releasing, requeueing, and running it again.
import { useMutation } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { askOfJob, rerunJob } from "../api/jobs";
import { asProblem } from "../api/problem";
import type { Job } from "../api/types";
import { actions, type Verb } from "./actions";
import { QuestionButton } from "./QuestionButton";
import { useAsked } from "./useAsked";

export function JobActions({ job }: { job: Job }) {
  const offered = actions(job);
  return (
    <>
      {job.wanted && (
        <span className="waiting-for" data-testid="wanted">
          {job.wanted} is passed on to Slurm…
        </span>
      )}
      {offered.includes("hold") && <AskButton id={job.id} verb="hold" label="Hold" />}
      {offered.includes("release") && <AskButton id={job.id} verb="release" label="Release" />}
      {offered.includes("requeue") && <RequeueButton job={job} />}
      {offered.includes("rerun") && <RerunButton id={job.id} />}
    </>
  );
}

function AskButton({ id, verb, label }: { id: string; verb: Verb; label: string }) {
  const asked = useAsked(id, (of) => askOfJob(of, verb));
  return (
    <>
      <Refusal error={asked.error} />
      <button type="button" className="button" data-testid={verb} disabled={asked.isPending} onClick={() => asked.mutate()}>
        {label}
      </button>
    </>
  );
}

function RequeueButton({ job }: { job: Job }) {
  const words = {
    label: "Requeue",
    title: `Put “${job.name}” back into the queue?`,
    text: "Its ranks are ended now, and Slurm starts it again when its turn comes: after about two minutes at the earliest.",
    keep: "Keep it running",
    confirm: "Requeue the job",
    confirming: "Requeueing…",
  };
  return <QuestionButton words={words} asked={useAsked(job.id, (id) => askOfJob(id, "requeue"))} testId="requeue" />;
}

function RerunButton({ id }: { id: string }) {
  const navigate = useNavigate();
  const again = useMutation({
    mutationFn: () => rerunJob(id),
    onSuccess: (job) => navigate({ to: "/jobs/$id", params: { id: job.id } }),
  });
  return (
    <>
      <Refusal error={again.error} />
      <button type="button" className="button" data-testid="rerun" disabled={again.isPending} onClick={() => again.mutate()}>
        {again.isPending ? "Submitting…" : "Run again"}
      </button>
    </>
  );
}

function Refusal({ error }: { error: Error | null }) {
  return (
    error && (
      <span className="field-problem" role="alert">
        {asProblem(error).detail}
      </span>
    )
  );
}
