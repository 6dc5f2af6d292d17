// A verdict as a shape, a word and a colour, each enough on its own.
import type { ReactNode } from "react";
import type { Result } from "../api/types";

interface Look {
  className: string;
  word: string;
  shape: ReactNode;
}

// Drawn on 16 x 16, as the phases are.
export const LOOKS: Record<Result | "none", Look> = {
  "as planned": { className: "as-planned", word: "as planned", shape: <path d="m3 8.5 3.5 3.5L13 4.5" /> },
  degraded: { className: "degraded", word: "degraded", shape: <path d="M8 2.5 14 13H2Zm0 4v3m0 1.7v.01" /> },
  deviates: { className: "deviates", word: "deviates", shape: <path d="M8 2v8m0 3.2v.01" /> },
  none: { className: "none", word: "no verdict yet", shape: <path d="M3 8v.01M8 8v.01M13 8v.01" /> },
};

export function VerdictShape({ result }: { result: Result | null | undefined }) {
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true" className="verdict-shape">
      {LOOKS[result ?? "none"].shape}
    </svg>
  );
}

export function VerdictBadge({ result }: { result: Result | null | undefined }) {
  const { className, word } = LOOKS[result ?? "none"];
  return (
    <span className={`badge verdict ${className}`} data-testid="verdict" data-verdict={result ?? ""}>
      <VerdictShape result={result} />
      {word}
    </span>
  );
}
