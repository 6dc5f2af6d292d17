// Where a step's time goes: the median rank's step, what it is made of, and each rank's beneath it.
import type { StepTime as Found } from "../api/types";
import { plural, seconds } from "../format/numbers";
import { Bar } from "./Bar";
import { longest, mark, who } from "./parts";
import { PartTable } from "./PartTable";
import { RankParts } from "./RankParts";

export function StepTime({ found }: { found: Found }) {
  const room = longest(found);
  const { median, bars } = found;
  return (
    <section className="step-time panel" aria-labelledby="step-time-title" data-testid="step-time">
      <h2 id="step-time-title">
        Where a step’s time goes <span className="page-note">mean of the newest {plural(found.steps, "step report")}</span>
      </h2>
      {found.sentence != null && (
        <p className="step-sentence" data-testid="step-sentence">
          {found.sentence}
        </p>
      )}
      <p className="bar-title">
        {found.told > 1 && "Median: "}
        {who(median)} <strong className="num">{seconds(median.seconds)}</strong> <span className="dim">a step</span>
      </p>
      <Bar bar={median} room={room} named />
      <PartTable found={found} />
      {bars.length > 1 && (
        <>
          <ul className="rank-bars">
            {bars.map((bar) => {
              const marked = mark(found, bar);
              return (
                <li key={bar.rank}>
                  <span className="bar-of">
                    {who(bar)} {marked !== null && <span className={marked === "slowest" ? "chip warn" : "chip"}>{marked}</span>}
                  </span>
                  <Bar bar={bar} room={room} />
                  <span className="num right">{seconds(bar.seconds)}</span>
                </li>
              );
            })}
          </ul>
          {found.left_out > 0 && <p className="page-note">{plural(found.left_out, "rank")} between the fastest and the slowest ones are not drawn.</p>}
          <RankParts found={found} />
        </>
      )}
      {[found.untold, found.exchange].map((words) => words != null && <p key={words} className="page-note">{words}</p>)}
    </section>
  );
}
