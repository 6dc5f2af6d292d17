// The figures a person looks at first, like the face of an instrument.
import type { JobWithSpec, Metrics } from "../api/types";
import { count, figure, percent, UNKNOWN } from "../format/numbers";
import { duration, elapsed } from "../format/times";
import { ProgressBar } from "../ui/ProgressBar";
import { useNow } from "../ui/useNow";
import { DataLine } from "./DataLine";
import { isOver } from "./phase";
import { remaining } from "./remaining";

export function KeyFigures({ job, metrics }: { job: JobWithSpec; metrics: Metrics | undefined }) {
  const now = useNow();
  const { last } = job;
  // A job that was put back into the queue still has its last start, and does not run.
  const ticks = job.phase === "running";
  const ran = ticks || isOver(job.phase) ? elapsed(job.started_at, ticks ? null : (job.ended_at ?? last.time), now) : null;
  const left = job.phase === "running" && metrics ? remaining(metrics.series, last.steps ?? null) : null;
  return (
    <section className="figures panel" aria-label="Key figures">
      <div className="figure-row">
        <Figure id="samples-per-s" name={throughputName(job)} value={figure(last.samples_per_s)} unit="samples/s" />
        <Figure id="loss" name="Loss" value={figure(last.loss)} />
        <Figure id="accuracy" name="Accuracy" value={percent(last.accuracy)} />
        <Figure id="exposed" name="Exposed communication" value={percent(last.exposed_share)} unit="of step time" />
        <Figure id="cpus" name="CPUs in use" value={figure(last.cpus)} unit="per rank" />
        <Figure id="elapsed" name="Elapsed" value={ran === null ? UNKNOWN : duration(ran)} />
      </div>
      {last.step != null && (
        <div className="step-line">
          {last.steps != null && last.steps > 0 && <ProgressBar done={last.step} total={last.steps} label="Steps done" />}
          <span className="num" data-testid="figure-step" data-step={last.step}>
            step {count(last.step)}
            {last.steps != null && <span className="dim"> of {count(last.steps)}</span>}
            {last.epoch != null && <span className="dim"> · epoch {count(last.epoch)}</span>}
            {left !== null && <span className="dim"> · about {duration(left)} left</span>}
          </span>
        </div>
      )}
      {metrics?.data != null && <DataLine data={metrics.data} />}
    </section>
  );
}

/** Says whose it is where not every rank told one: a script may print it on its first rank only. */
function throughputName({ last, ranks }: JobWithSpec): string {
  const told = last.samples_per_s_ranks;
  return told == null || told === ranks ? "Throughput" : `Throughput, ${told} of ${ranks} ranks`;
}

function Figure({ id, name, value, unit }: { id: string; name: string; value: string; unit?: string }) {
  return (
    <dl className="figure">
      <dt>{name}</dt>
      <dd data-testid={`figure-${id}`}>
        {value}
        {unit && value !== UNKNOWN && <span className="unit"> {unit}</span>}
      </dd>
    </dl>
  );
}
