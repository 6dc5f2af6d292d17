// The curves of a job and its ranks.
import type { UseQueryResult } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import type { JobWithSpec, Metrics } from "../api/types";
import { makeAxis, type AxisMode } from "../charts/axis";
import { LOSS, moreCharts, THROUGHPUT, USAGE } from "../charts/catalog";
import { Chart } from "../charts/Chart";
import { StepTime } from "../steptime/StepTime";
import { ErrorView } from "../ui/ErrorView";
import { StaleNote } from "../ui/StaleNote";
import { isOver } from "./phase";
import { doneAgain } from "./attempts";
import { RankTable } from "./RankTable";
import { Switch } from "../ui/Switch";

const TALL = 260;
const LOW = 160;
const VIEWS: [boolean, string][] = [
  [true, "One line"],
  [false, "By attempt"],
];
const MODES: [AxisMode, string][] = [
  ["step", "Steps"],
  ["time", "Running time"],
];

interface Props {
  job: JobWithSpec;
  metrics: UseQueryResult<Metrics>;
  /** Whether the curves are one line over all attempts. */
  joined: boolean;
  onJoined: (joined: boolean) => void;
}

export function OverviewTab({ job, metrics, joined, onJoined }: Props) {
  const [mode, setMode] = useState<AxisMode>("step");
  const all = metrics.data?.series;
  const series = useMemo(() => all?.filter((one) => one.kind !== "usage"), [all]);
  const usage = useMemo(() => all?.filter((one) => one.kind === "usage" && one.step.length > 0) ?? [], [all]);
  const clock = useMemo(() => makeAxis(usage, "time"), [usage]);
  const begun = metrics.data?.attempts;
  const axis = useMemo(() => makeAxis(series ?? [], mode, begun), [series, mode, begun]);
  const more = useMemo(() => moreCharts(series ?? []), [series]);

  if (series === undefined) {
    if (metrics.isError) return <ErrorView error={metrics.error} retry={() => void metrics.refetch()} />;
    return <p className="quiet-note">Reading the curves…</p>;
  }
  const used = USAGE.filter((spec) => spec.curves.some((curve) => usage.some((one) => one.name === curve.name)));
  const charts = used.length > 0 && (
    <section className="usage" aria-labelledby="usage-title">
      <h2 id="usage-title">
        CPUs and network <span className="page-note">by running time, as the kernel counts them</span>
      </h2>
      <div className="charts more-charts">
        {used.map((spec) => (
          <Chart key={spec.id} spec={spec} series={usage} axis={clock} height={LOW} />
        ))}
      </div>
    </section>
  );
  if (series.every((one) => one.step.length === 0)) {
    return (
      <>
        <StaleNote what="The curves" of={metrics} />
        <p className="quiet-note" data-testid="no-metrics">
          {isOver(job.phase)
            ? "The job reported no values. Its log may say why."
            : "Throughput and loss appear here with the first steps of the training."}
          {job.spec.training.script != null &&
            " Figures that a script only prints are read where training.patterns says how they look."}
        </p>
        {charts}
        {used.length > 0 && <RankTable ranks={metrics.data?.by_rank ?? []} />}
      </>
    );
  }
  return (
    <>
      <StaleNote what="The curves" of={metrics} />
      <div className="chart-bar">
        <Switch name="Horizontal axis" choices={MODES} chosen={mode} onChoice={setMode} />
        {begun !== undefined && begun.length > 1 && <Switch name="Attempts" choices={VIEWS} chosen={joined} onChoice={onJoined} />}
        <span className="page-note" data-testid="chart-note">
          {begun !== undefined && joined && doneAgain(begun)}
          {job.ranks > 1 && "Band: lowest to highest rank (throughput: times the ranks). "}
          Strong line: running mean. Drag to zoom; double-click for all.
        </span>
      </div>
      <div className="charts">
        <Chart spec={THROUGHPUT} series={series} axis={axis} height={TALL} />
        <Chart spec={LOSS} series={series} axis={axis} height={TALL} />
      </div>
      {metrics.data?.step_time != null && <StepTime found={metrics.data.step_time} />}
      {more.length > 0 && (
        <div className="charts more-charts">
          {more.map((spec) => (
            <Chart key={spec.id} spec={spec} series={series} axis={axis} height={LOW} />
          ))}
        </div>
      )}
      {charts}
      <RankTable ranks={metrics.data?.by_rank ?? []} />
    </>
  );
}
