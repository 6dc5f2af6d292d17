// Whether what is on the page is fresh: live, or trying to reach the service again.
import type { Connection } from "../events/stream";

const WORDS: Record<Connection, string> = {
  connecting: "Connecting…",
  live: "Live",
  lost: "Reconnecting…",
  paused: "Paused",
  closed: "Complete",
};

export function Live({ connection }: { connection: Connection }) {
  return (
    <span className={`live is-${connection}`} role="status" data-testid="connection" data-connection={connection}>
      <span className="live-dot" aria-hidden="true" />
      {WORDS[connection]}
    </span>
  );
}
