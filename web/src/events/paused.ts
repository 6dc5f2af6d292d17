// What a hidden tab still asks for: its title is all that is seen of it, and must not be hours old.
import type { Connection } from "./stream";

// No retries: between two tries of a hidden tab the library waits until it is shown.
const PAUSED = { refetchInterval: 60_000, refetchIntervalInBackground: true, retry: false } as const;

/** Options of the query that gives a page its title, while the page's events are paused. */
export function whilePaused(connection: Connection): Partial<typeof PAUSED> {
  return connection === "paused" ? PAUSED : {};
}
