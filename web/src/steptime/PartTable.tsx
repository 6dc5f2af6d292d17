// The legend of the bars, which is their table as well: each part of the median rank's step, and its range over all ranks.
import type { StepTime } from "../api/types";
import { percent, seconds } from "../format/numbers";
import { NAMES, segments } from "./parts";

export function PartTable({ found }: { found: StepTime }) {
  const shares = new Map(segments(found.median, 1).map(({ name, share }) => [name, share]));
  const several = found.told > 1;
  return (
    <div className="scroll">
      <table className="part-table">
        <thead>
          <tr>
            <th scope="col">Part</th>
            <th scope="col" className="right">{several ? "Median rank" : "Time"}</th>
            <th scope="col" className="right">Share</th>
            {several && <th scope="col" className="right">All ranks: lowest</th>}
            {several && <th scope="col" className="right">median</th>}
            {several && <th scope="col" className="right">highest</th>}
          </tr>
        </thead>
        <tbody>
          {found.median.parts.map(({ name, seconds: part }) => {
            const over = found.spread.find((one) => one.name === name);
            return (
              <tr key={name} data-testid="part-row" data-part={name}>
                <th scope="row">
                  <span className={`part-sample part-${name}`} aria-hidden="true" /> {NAMES[name].long}
                </th>
                <td className="right num">{seconds(part)}</td>
                <td className="right num">{percent(shares.get(name) ?? 0)}</td>
                {several && <td className="right num">{seconds(over?.low)}</td>}
                {several && <td className="right num">{seconds(over?.median)}</td>}
                {several && <td className="right num">{seconds(over?.high)}</td>}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
