// Queries and commands on jobs: what each is keyed by, how it is fetched, how often it may be asked again.
import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { api, body } from "./client";
import type { Verb } from "../job/actions";
import type { Job, JobWithSpec, Logs, TimelineEntry } from "./types";

const PAGE = 50;
const POINTS = 600;
const ENTRIES = 1000;

export const keys = {
  jobs: ["jobs"] as const,
  job: (id: string) => ["job", id] as const,
  metrics: (id: string) => ["metrics", id] as const,
  script: (id: string) => ["script", id] as const,
  placement: (id: string) => ["placement", id] as const,
  timeline: (id: string) => ["timeline", id] as const,
};

export const jobsQuery = infiniteQueryOptions({
  queryKey: keys.jobs,
  queryFn: async ({ pageParam, signal }) =>
    body(await api.GET("/api/v1/jobs", { params: { query: { limit: PAGE, ...(pageParam ? { cursor: pageParam } : {}) } }, signal })),
  initialPageParam: null as string | null,
  getNextPageParam: (page) => page.next_cursor ?? null,
});

export async function fetchJob(id: string, signal?: AbortSignal): Promise<JobWithSpec> {
  return body(await api.GET("/api/v1/jobs/{id}", { params: { path: { id } }, ...(signal ? { signal } : {}) }));
}

export const jobQuery = (id: string) => queryOptions({ queryKey: keys.job(id), queryFn: ({ signal }) => fetchJob(id, signal) });

/** `joined`: one line of each figure over all attempts; else each attempt has its own. */
export const metricsQuery = (id: string, joined: boolean) =>
  queryOptions({
    queryKey: [...keys.metrics(id), joined] as const,
    queryFn: async ({ signal }) =>
      body(await api.GET("/api/v1/jobs/{id}/metrics", { params: { path: { id }, query: { points: POINTS, joined } }, signal })),
    // What was known stays until the other view is there.
    placeholderData: keepPreviousData,
  });

export const scriptQuery = (id: string) =>
  queryOptions({
    queryKey: keys.script(id),
    queryFn: async ({ signal }) =>
      body(await api.GET("/api/v1/jobs/{id}/script", { params: { path: { id } }, parseAs: "text", signal })),
    // A job's script never changes once it is made.
    staleTime: Infinity,
  });

export const timelineQuery = (id: string) =>
  queryOptions({
    queryKey: keys.timeline(id),
    queryFn: async ({ signal }) => {
      const entries: TimelineEntry[] = [];
      let cursor: string | null | undefined = null;
      do {
        const query: { limit: number; cursor?: string } = { limit: ENTRIES, ...(cursor ? { cursor } : {}) };
        const page = body(await api.GET("/api/v1/jobs/{id}/timeline", { params: { path: { id }, query }, signal }));
        entries.push(...page.items);
        cursor = page.next_cursor;
      } while (cursor);
      return entries;
    },
  });

export interface PlacementRange {
  /** null: the newest attempt. */
  attempt: number | null;
  /** One node in full; null: all of them, without machines, plans and threads. */
  node: string | null;
}

export const placementQuery = (id: string, { attempt, node }: PlacementRange) =>
  queryOptions({
    queryKey: [...keys.placement(id), attempt, node] as const,
    queryFn: async ({ signal }) => {
      const query = { ...(attempt === null ? {} : { attempt }), ...(node === null ? { brief: true } : { node }) };
      return body(await api.GET("/api/v1/jobs/{id}/placement", { params: { path: { id }, query }, signal }));
    },
    // What was known stays until the other attempt's answer is there.
    placeholderData: keepPreviousData,
  });

export interface LogRange {
  /** In bytes; a negative one counts from the end. */
  offset: number;
  limit: number;
  /** null: the newest attempt. */
  attempt: number | null;
}

export async function fetchLog(id: string, { offset, limit, attempt }: LogRange, signal?: AbortSignal): Promise<Logs> {
  const query = { offset, limit, ...(attempt === null ? {} : { attempt }) };
  return body(await api.GET("/api/v1/jobs/{id}/logs", { params: { path: { id }, query }, ...(signal ? { signal } : {}) }));
}

export async function cancelJob(id: string): Promise<Job> {
  return body(await api.POST("/api/v1/jobs/{id}/cancel", { params: { path: { id } } }));
}

/** Asks for something that the service passes on to Slurm; the answer is how the job stands until then. */
export async function askOfJob(id: string, verb: Verb): Promise<Job> {
  const params = { params: { path: { id } } };
  if (verb === "hold") return body(await api.POST("/api/v1/jobs/{id}/hold", params));
  if (verb === "release") return body(await api.POST("/api/v1/jobs/{id}/release", params));
  return body(await api.POST("/api/v1/jobs/{id}/requeue", params));
}

/** Submits the job's spec again, exactly as it was; the answer is the new job. */
export async function rerunJob(id: string): Promise<Job> {
  return body(await api.POST("/api/v1/jobs/{id}/rerun", { params: { path: { id } } }));
}
