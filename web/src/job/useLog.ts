// Follows a job's log: its last part first, then whatever grows, and earlier parts when asked.
import { useEffect, useEffectEvent, useRef, useState } from "react";
import { fetchLog } from "../api/jobs";
import { passing } from "../api/problem";
import { AGAIN_MS } from "../api/queries";
import { useThrottled } from "../events/useThrottled";
import { append, EMPTY, endOf, PIECE, prepend, startOf, type LogWindow } from "./log";

export interface FollowedLog {
  log: LogWindow;
  loading: boolean;
  error: unknown;
  earlier: () => void;
  retry: () => void;
}

interface Failure {
  error: unknown;
  of: "newer" | "earlier";
}

/**
 * `size`: what the service's `log` events say, in bytes; null before the first. `attempt` null: the newest.
 * For one log as long as the component is shown: another attempt's is another component's.
 */
export function useLog(id: string, attempt: number | null, size: number | null): FollowedLog {
  const [log, setLog] = useState<LogWindow | null>(null);
  const [failure, setFailure] = useState<Failure | null>(null);
  // What has been read, although it may not be on the page yet: the next piece begins where it ends.
  const held = useRef<LogWindow | null>(null);
  const leaving = useRef<AbortSignal | undefined>(undefined);

  const fetchPiece = async (of: Failure["of"], offset: number, limit: number) => {
    const signal = leaving.current;
    try {
      const piece = await fetchLog(id, { offset, limit, attempt }, signal);
      held.current = (of === "newer" ? append : prepend)(held.current ?? EMPTY, piece);
      setLog(held.current);
      setFailure((known) => (known?.of === of ? null : known));
    } catch (error) {
      if (signal?.aborted !== true) setFailure({ error, of });
    }
  };

  // One piece at a time, each to its end: a log that grows faster than its pieces come must not cut them off.
  const follow = useThrottled(0, async () => {
    if (held.current === null) return fetchPiece("newer", -PIECE, PIECE);
    const from = endOf(held.current);
    const grew = attempt === null && size !== null && size > from;
    if (grew || held.current.size > from) return fetchPiece("newer", from, PIECE);
  });

  useEffect(() => {
    const gone = new AbortController();
    leaving.current = gone.signal;
    return () => gone.abort();
  }, []);

  const end = endOf(log ?? EMPTY);
  const told = log?.size ?? 0;
  // `size` is here so that a word of new text asks again although the last answer held nothing new.
  useEffect(follow, [follow, end, told, size]);

  const earlier = () => {
    const start = startOf(held.current ?? EMPTY);
    const from = Math.max(0, start - PIECE);
    void fetchPiece("earlier", from, start - from);
  };
  const retry = () => (failure?.of === "earlier" ? earlier() : follow());
  const again = useEffectEvent(retry);

  useEffect(() => {
    if (failure === null || !passing(failure.error)) return undefined;
    const timer = setTimeout(() => again(), AGAIN_MS);
    return () => clearTimeout(timer);
  }, [failure]);

  return { log: log ?? EMPTY, loading: log === null && failure === null, error: failure?.error ?? null, earlier, retry };
}
