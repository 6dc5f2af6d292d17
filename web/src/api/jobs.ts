// Queries and commands on jobs: what each is keyed by, how it is fetched, how often it may be asked again.
import { infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import { api, body } from "./client";
import type { Job, JobWithSpec, Logs } from "./types";

const PAGE = 50;
const POINTS = 600;

export const keys = {
  jobs: ["jobs"] as const,
  job: (id: string) => ["job", id] as const,
  metrics: (id: string) => ["metrics", id] as const,
  script: (id: string) => ["script", id] as const,
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

export const metricsQuery = (id: string) =>
  queryOptions({
    queryKey: keys.metrics(id),
    queryFn: async ({ signal }) =>
      body(await api.GET("/api/v1/jobs/{id}/metrics", { params: { path: { id }, query: { points: POINTS } }, signal })),
  });

export const scriptQuery = (id: string) =>
  queryOptions({
    queryKey: keys.script(id),
    queryFn: async ({ signal }) =>
      body(await api.GET("/api/v1/jobs/{id}/script", { params: { path: { id } }, parseAs: "text", signal })),
    // A job's script never changes once it is made.
    staleTime: Infinity,
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
