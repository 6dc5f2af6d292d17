// One job: how it stands, its curves, and everything behind them.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { jobQuery, metricsQuery } from "../api/jobs";
import { whilePaused } from "../events/paused";
import { useJobEvents } from "../events/useJobEvents";
import { PlacementTab } from "../placement/PlacementTab";
import { ErrorView } from "../ui/ErrorView";
import { AttemptsTab } from "./AttemptsTab";
import { Banners } from "./Banners";
import { JobHeader } from "./JobHeader";
import { KeyFigures } from "./KeyFigures";
import { LogTab } from "./LogTab";
import { OverviewTab } from "./OverviewTab";
import { ScriptTab } from "./ScriptTab";
import { SpecTab } from "./SpecTab";
import { TabBar } from "./TabBar";
import type { Tab } from "./tabs";
import { TimelineTab } from "./TimelineTab";
import { useJobTitle } from "./useJobTitle";

export function JobPage({ id, tab }: { id: string; tab: Tab }) {
  const { connection, logSize, complete } = useJobEvents(id);
  const job = useQuery({ ...jobQuery(id), ...whilePaused(connection) });
  const [joined, setJoined] = useState(true);
  const metrics = useQuery(metricsQuery(id, joined));
  useJobTitle(job.data);

  if (job.isPending) return <p className="quiet-note">Reading the job…</p>;
  if (job.data === undefined) {
    return (
      <ErrorView error={job.error} retry={() => void job.refetch()}>
        <Link to="/" className="button">
          All jobs
        </Link>
      </ErrorView>
    );
  }
  return (
    <article className="job" data-testid="job" data-job-id={id} data-complete={complete}>
      <JobHeader job={job.data} connection={connection} />
      <Banners job={job.data} connection={connection} tab={tab} />
      <KeyFigures job={job.data} metrics={metrics.data} />
      <TabBar id={id} attempts={job.data.attempts.length} />
      {tab === "overview" && <OverviewTab job={job.data} metrics={metrics} joined={joined} onJoined={setJoined} />}
      {tab === "placement" && <PlacementTab job={job.data} />}
      {tab === "timeline" && <TimelineTab id={id} />}
      {tab === "attempts" && <AttemptsTab attempts={job.data.attempts} begun={metrics.data?.attempts ?? []} />}
      {tab === "script" && <ScriptTab id={id} name={job.data.name} />}
      {tab === "log" && <LogTab id={id} name={job.data.name} attempts={job.data.attempts} size={logSize} />}
      {tab === "spec" && <SpecTab spec={job.data.spec} filled={job.data.filled} runDir={job.data.run_dir} />}
    </article>
  );
}
