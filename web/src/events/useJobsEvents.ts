// Keeps the list of jobs fresh: a changed job is fetched alone, a new one brings the list again.
import { useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { fetchJob, jobsQuery, keys } from "../api/jobs";
import type { Job, JobsChanged } from "../api/types";
import type { Connection } from "./stream";
import { useEvents } from "./useEvents";
import { useThrottled } from "./useThrottled";

const REFRESH_MS = 1000;
// With more changes than this in one interval, one request for the list is cheaper than one for each.
const ONE_BY_ONE = 6;

export function useJobsEvents(): Connection {
  const queries = useQueryClient();
  const changed = useRef(new Set<string>());

  const patch = (job: Job) =>
    queries.setQueryData(jobsQuery.queryKey, (list) =>
      list && {
        ...list,
        pages: list.pages.map((page) => ({ ...page, items: page.items.map((old) => (old.id === job.id ? job : old)) })),
      },
    );
  const wholeList = () => queries.invalidateQueries({ queryKey: keys.jobs });

  const refresh = useThrottled(REFRESH_MS, async () => {
    const list = queries.getQueryData(jobsQuery.queryKey);
    const known = new Set(list?.pages.flatMap((page) => page.items.map((job) => job.id)));
    const ids = [...changed.current];
    changed.current.clear();
    if (ids.length > ONE_BY_ONE || ids.some((id) => !known.has(id))) return wholeList();
    try {
      for (const job of await Promise.all(ids.map((id) => fetchJob(id)))) patch(job);
    } catch {
      // Whatever went wrong with one of them, the list's own query shows it.
      return wholeList();
    }
  });

  return useEvents("/api/v1/events", {
    open: () => void wholeList(),
    jobs: (data) => {
      changed.current.add((data as JobsChanged).id);
      refresh();
    },
  });
}
