// The ranks side by side, so that a slow one stands out.
import type { RankFigures } from "../api/types";
import { byteRate, count, figure, percent, UNKNOWN } from "../format/numbers";
import { RelativeTime } from "../ui/RelativeTime";

// A rank this much below the median is worth a look; runs of equal ranks vary by a few percent.
const SLOW = 0.9;

function median(values: number[]): number | null {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle];
  if (upper === undefined) return null;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? upper)) / 2;
}

export function RankTable({ ranks }: { ranks: readonly RankFigures[] }) {
  if (ranks.length === 0) return null;
  const typical = median(ranks.flatMap((rank) => rank.samples_per_s ?? []));
  const fastest = Math.max(...ranks.map((rank) => rank.samples_per_s ?? 0));
  return (
    <section className="ranks" aria-labelledby="ranks-title">
      <h2 id="ranks-title">Ranks</h2>
      <div className="scroll panel">
        <table className="plain" data-testid="ranks">
          <thead>
            <tr>
              <th scope="col" className="right">Rank</th>
              <th scope="col">Node</th>
              <th scope="col" className="right">Step</th>
              <th scope="col">Samples/s</th>
              <th scope="col" className="right">Loss</th>
              <th scope="col" className="right">Exposed communication</th>
              <th scope="col" className="right">CPUs in use</th>
              <th scope="col" className="right">Node’s network, in / out</th>
              <th scope="col" className="right">Reports dropped</th>
              <th scope="col" className="right">Last heard</th>
            </tr>
          </thead>
          <tbody>
            {ranks.map((rank) => {
              const speed = rank.samples_per_s ?? null;
              const slow = speed !== null && typical !== null && speed < SLOW * typical;
              return (
                <tr key={rank.rank} data-testid="rank-row">
                  <td className="right num">{rank.rank}</td>
                  <td className="mono">{rank.node ?? UNKNOWN}</td>
                  <td className="right num">{count(rank.step)}</td>
                  <td className="num speed">
                    <span className="speed-text">{figure(speed)}</span>
                    <meter value={speed ?? 0} max={fastest || 1} aria-label={`Speed of rank ${rank.rank} beside the fastest`} />
                    {slow && <span className="chip warn">slow</span>}
                  </td>
                  <td className="right num">{figure(rank.loss)}</td>
                  <td className="right num">{percent(rank.exposed_share)}</td>
                  <td className="right num">{figure(rank.cpus)}</td>
                  <td className="right num">
                    {rank.received_bytes_per_s != null && `${byteRate(rank.received_bytes_per_s)} / ${byteRate(rank.sent_bytes_per_s)}`}
                  </td>
                  <td className="right num">{rank.dropped > 0 ? <span className="warn-text">{count(rank.dropped)}</span> : "0"}</td>
                  <td className="right">
                    <RelativeTime moment={rank.last_time == null ? null : new Date(rank.last_time * 1000).toISOString()} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}
