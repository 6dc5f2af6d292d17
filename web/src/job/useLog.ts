// Follows a job's log: its last part first, then whatever grows, and earlier parts when asked.
import { useCallback, useEffect, useState } from "react";
import { fetchLog } from "../api/jobs";
import { append, EMPTY, endOf, PIECE, prepend, startOf, type LogWindow } from "./log";

export interface FollowedLog {
  log: LogWindow;
  loading: boolean;
  error: unknown;
  earlier: () => void;
  retry: () => void;
}

/** `size`: what the service's `log` events say, in bytes; null before the first. `attempt` null: the newest. */
export function useLog(id: string, attempt: number | null, size: number | null): FollowedLog {
  const [log, setLog] = useState<LogWindow>(EMPTY);
  const [error, setError] = useState<unknown>(null);
  const [read, setRead] = useState(false);
  const [tries, setTries] = useState(0);
  const end = endOf(log);
  const behind = !read || (attempt === null && size !== null && size > end) || log.size > end;

  useEffect(() => {
    if (!behind) return undefined;
    const abort = new AbortController();
    fetchLog(id, { offset: read ? end : -PIECE, limit: PIECE, attempt }, abort.signal).then(
      (piece) => {
        setError(null);
        setRead(true);
        setLog((known) => append(known, piece));
      },
      (failure: unknown) => {
        if (!abort.signal.aborted) setError(failure);
      },
    );
    return () => abort.abort();
    // `size` is here so that a word of new text asks again although the last answer held nothing new.
  }, [id, attempt, behind, end, read, size, tries]);

  const start = startOf(log);
  const earlier = useCallback(() => {
    const from = Math.max(0, start - PIECE);
    fetchLog(id, { offset: from, limit: start - from, attempt }).then((piece) => setLog((known) => prepend(known, piece)), setError);
  }, [id, attempt, start]);

  const retry = useCallback(() => {
    setError(null);
    setTries((count) => count + 1);
  }, []);
  return { log, loading: !read && error === null, error, earlier, retry };
}
