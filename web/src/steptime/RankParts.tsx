// The bars of the ranks as a table: for those who do not see them, and for exact figures.
import type { StepTime } from "../api/types";
import { percent, seconds, UNKNOWN } from "../format/numbers";
import { NAMES, segments } from "./parts";

export function RankParts({ found }: { found: StepTime }) {
  const names = found.median.parts.map((part) => part.name);
  return (
    <details className="rank-parts">
      <summary>These ranks as a table</summary>
      <div className="scroll">
        <table className="part-table">
          <thead>
            <tr>
              <th scope="col" className="right">Rank</th>
              <th scope="col">Node</th>
              <th scope="col" className="right">Step</th>
              {names.map((name) => (
                <th key={name} scope="col" className="right">
                  {NAMES[name].short}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {found.bars.map((bar) => {
              const parts = new Map(segments(bar, 1).map((part) => [part.name, part]));
              return (
                <tr key={bar.rank}>
                  <td className="right num">{bar.rank}</td>
                  <td className="mono">{bar.node ?? UNKNOWN}</td>
                  <td className="right num">{seconds(bar.seconds)}</td>
                  {names.map((name) => (
                    <td key={name} className="right num">
                      {seconds(parts.get(name)?.seconds ?? 0)} <span className="dim">{percent(parts.get(name)?.share ?? 0)}</span>
                    </td>
                  ))}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </details>
  );
}
