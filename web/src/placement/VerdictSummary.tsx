// The verdict in words: one sentence on the whole, then one for everything that is not as it should be.
import { useMemo, useState, type ReactNode } from "react";
import type { JobPlacement, Verdicts } from "../api/types";
import { Prose } from "../ui/Prose";
import { VerdictBadge } from "./VerdictBadge";
import { counted, sentences, summary, whose, type Sentence } from "./words";

const FEW = 8;
const KINDS: Record<Sentence["kind"], string> = {
  deviation: "not as planned",
  grant: "what Slurm gave",
  degradation: "degraded",
};

interface Props {
  placement: JobPlacement;
  /** The job's own count; null for an attempt that is not its newest. */
  counts: Verdicts | null | undefined;
  children: ReactNode;
}

export function VerdictSummary({ placement, counts, children }: Props) {
  const [all, setAll] = useState(false);
  const told = useMemo(() => sentences(placement), [placement]);
  const shown = all ? told : told.slice(0, FEW);
  return (
    <div className="panel verdict-summary">
      <div className="verdict-line">
        <VerdictBadge result={placement.result} />
        <p role="status" data-testid="verdict-words">
          {summary(placement.result, counts ?? counted(placement))}
        </p>
        {children}
      </div>
      {shown.length > 0 && (
        <ul className="sentences">
          {shown.map((sentence) => (
            <li key={`${sentence.kind} ${sentence.node} ${sentence.text}`} className={sentence.kind} data-testid="sentence">
              <span className="sentence-of">
                <span className={sentence.kind === "degradation" ? "chip warn" : "chip bad"}>{KINDS[sentence.kind]}</span>{" "}
                <span className="mono">{whose(sentence)}</span>
              </span>
              <Prose text={sentence.text} />
            </li>
          ))}
        </ul>
      )}
      {told.length > FEW && (
        <button type="button" className="button small" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${told.length}`}
        </button>
      )}
    </div>
  );
}
