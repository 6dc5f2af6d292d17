// Every Slurm execution of the job.
import type { Attempt } from "../api/types";
import { plural, UNKNOWN } from "../format/numbers";
import { duration, elapsed } from "../format/times";
import { RelativeTime } from "../ui/RelativeTime";
import { useNow } from "../ui/useNow";

function ending(attempt: Attempt): string {
  if (attempt.exit_signal != null) return `signal ${attempt.exit_signal}`;
  if (attempt.exit_code != null) return `exit code ${attempt.exit_code}`;
  return attempt.ended_at ? "no exit record" : UNKNOWN;
}

export function AttemptsTab({ attempts }: { attempts: readonly Attempt[] }) {
  const now = useNow();
  if (attempts.length === 0) {
    return <p className="quiet-note">No attempt yet: one begins when the job&apos;s first rank claims it on a node.</p>;
  }
  return (
    <div className="scroll panel">
      <table className="plain" data-testid="attempts">
        <thead>
          <tr>
            <th scope="col" className="right">Attempt</th>
            <th scope="col" className="right">Slurm job</th>
            <th scope="col" className="right">Restarts</th>
            <th scope="col">Nodes</th>
            <th scope="col">Started</th>
            <th scope="col" className="right">Lasted</th>
            <th scope="col">End</th>
          </tr>
        </thead>
        <tbody>
          {attempts.map((attempt) => {
            const lasted = elapsed(attempt.started_at, attempt.ended_at, now);
            return (
              <tr key={attempt.number} data-testid="attempt-row">
                <td className="right num">{attempt.number}</td>
                <td className="right num mono">{attempt.slurm_job_id ?? UNKNOWN}</td>
                <td className="right num">{attempt.restart_count}</td>
                <td>
                  <span className="mono">{attempt.nodes.join(", ")}</span>{" "}
                  <span className="dim">{plural(attempt.ranks, "rank")}</span>
                </td>
                <td>
                  <RelativeTime moment={attempt.started_at} />
                </td>
                <td className="right num">{lasted === null ? UNKNOWN : duration(lasted)}</td>
                <td>
                  {ending(attempt)}
                  {attempt.message && <span className="reason">{attempt.message}</span>}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
