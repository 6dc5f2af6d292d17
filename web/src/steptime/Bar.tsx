// One rank's step as a bar. Each part has a pattern or a brightness of its own, so that no part is a hue alone.
import type { StepBar } from "../api/types";
import { percent, seconds } from "../format/numbers";
import { barWords, NAMES, segments } from "./parts";

/** A part narrower than this has no room for its name. */
const NAMED = 0.09;

export function Bar({ bar, room, named = false }: { bar: StepBar; room: number; named?: boolean }) {
  return (
    <div className={named ? "step-bar tall" : "step-bar"} role="img" aria-label={barWords(bar)} data-testid="step-bar" data-rank={bar.rank}>
      {segments(bar, room).map(({ name, seconds: part, share, width }) => (
        <span
          key={name}
          className={`step-part part-${name}`}
          style={{ width: `${width * 100}%` }}
          title={`${NAMES[name].long}: ${seconds(part)}, ${percent(share)}`}
          data-testid="step-part"
          data-part={name}
        >
          {named && width >= NAMED && <span className="part-name">{NAMES[name].short}</span>}
        </span>
      ))}
    </div>
  );
}
