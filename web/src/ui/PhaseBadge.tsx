// A job's phase as a shape, a word and a colour, each enough on its own.
import type { ReactNode } from "react";
import type { Phase } from "../api/types";

interface Look {
  className: string;
  shape: ReactNode;
}

// Drawn on 16 x 16, stroked with the badge's own colour.
const LOOKS: Record<Phase, Look> = {
  accepted: { className: "accepted", shape: <circle cx="8" cy="8" r="5.5" /> },
  waiting: { className: "waiting", shape: <path d="M8 4.5V8l2.5 1.5M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2Z" /> },
  running: { className: "running", shape: <path className="filled" d="M5 3v10l8-5Z" /> },
  "ended well": { className: "ended-well", shape: <path d="m3 8.5 3.5 3.5L13 4.5" /> },
  "ended badly": { className: "ended-badly", shape: <path d="M5.5 2h5L14 5.5v5L10.5 14h-5L2 10.5v-5ZM6 6l4 4m0-4-4 4" /> },
  unknown: { className: "unknown", shape: <path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.7.4-1.1.8-1.1 1.6v.2M8 13v.01" /> },
};

export function PhaseBadge({ phase }: { phase: Phase }) {
  const { className, shape } = LOOKS[phase];
  return (
    <span className={`badge ${className}`} data-testid="phase-badge" data-phase={phase}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {shape}
      </svg>
      {phase}
    </span>
  );
}

/** Slurm's own word for the state, with its flags, verbatim. */
export function SlurmState({ state, flags }: { state: string | null | undefined; flags: readonly string[] }) {
  if (!state) return null;
  return (
    <span className="slurm-state" title="What Slurm says, in its own words" data-testid="slurm-state">
      {[state, ...flags].join("+")}
    </span>
  );
}
