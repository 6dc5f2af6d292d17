// Keeps one job's queries as fresh as the service's events.
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { jobQuery, keys } from "../api/jobs";
import type { Job, JobEvents } from "../api/types";
import type { Connection } from "./stream";
import { useEvents } from "./useEvents";
import { useThrottled } from "./useThrottled";

// A whole set of curves is some 100 kB; once a second looks continuous.
const REFRESH_MS = 1000;

export interface LiveJob {
  connection: Connection;
  /** Bytes the log has, as last heard; null before the first word of it. */
  logSize: number | null;
  /** True once everything of an ended job has arrived. */
  complete: boolean;
}

export function useJobEvents(id: string): LiveJob {
  const queries = useQueryClient();
  const [logSize, setLogSize] = useState<number | null>(null);
  const [complete, setComplete] = useState(false);
  const refreshMetrics = useThrottled(REFRESH_MS, () => queries.invalidateQueries({ queryKey: keys.metrics(id) }));
  const refreshTimeline = useThrottled(REFRESH_MS, () => queries.invalidateQueries({ queryKey: keys.timeline(id) }));

  const update = (change: Partial<Job>) =>
    queries.setQueryData(jobQuery(id).queryKey, (known) => (known ? { ...known, ...change } : known));

  const connection = useEvents(`/api/v1/jobs/${encodeURIComponent(id)}/events`, {
    open: () => void queries.invalidateQueries({ queryKey: keys.job(id) }),
    job: (data) => update(data as JobEvents["job"]),
    metrics: (data) => {
      update({ last: (data as JobEvents["metrics"]).last });
      refreshMetrics();
    },
    timeline: refreshTimeline,
    log: (data) => setLogSize((data as JobEvents["log"]).size),
    end: (data) => {
      update(data as JobEvents["end"]);
      // What is read late of an attempt that has ended changes a sentence, and adds none.
      refreshTimeline();
      refreshMetrics();
      setComplete(true);
    },
  });
  return { connection, logSize, complete };
}
