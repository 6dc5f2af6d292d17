// Every Slurm execution of the job.
import type { Attempt, AttemptBegun } from "../api/types";
import { count, plural, UNKNOWN } from "../format/numbers";
import { duration, elapsed } from "../format/times";
import { RelativeTime } from "../ui/RelativeTime";
import { useNow } from "../ui/useNow";

function ending(attempt: Attempt, over: boolean): string {
  if (attempt.exit_signal != null) return `signal ${attempt.exit_signal}`;
  if (attempt.exit_code != null) return `exit code ${attempt.exit_code}`;
  return over ? "no exit record" : UNKNOWN;
}

/** With which step it began, and why there; empty before it has done one. */
function beginning(begun: AttemptBegun | undefined): string {
  if (begun === undefined) return "";
  const { step, resumed_from: from, done_again: again } = begun;
  const where = from === null ? `began with step ${count(step)}` : `went on from step ${count(from)}`;
  return again > 0 ? `${where}; ${plural(again, "step")} to do again` : where;
}

interface Props {
  attempts: readonly Attempt[];
  begun: readonly AttemptBegun[];
}

export function AttemptsTab({ attempts, begun }: Props) {
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
            <th scope="col">Steps</th>
            <th scope="col" className="right">Lasted</th>
            <th scope="col">End</th>
          </tr>
        </thead>
        <tbody>
          {attempts.map((attempt, index) => {
            // One that a later one has followed is over, whether or not anything is known of its end.
            const over = attempt.ended_at !== null || index < attempts.length - 1;
            const lasted = over && attempt.ended_at === null ? null : elapsed(attempt.started_at, attempt.ended_at, now);
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
                <td>{beginning(begun.find((one) => one.attempt === attempt.number))}</td>
                <td className="right num">{lasted === null ? UNKNOWN : duration(lasted)}</td>
                <td>
                  {ending(attempt, over)}
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
