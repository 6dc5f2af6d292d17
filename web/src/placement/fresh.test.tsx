// @vitest-environment jsdom
// A placement over a slow connection: a verdict after the other does not cut its answer off.
import { QueryClientProvider } from "@tanstack/react-query";
import { act, cleanup, render, screen } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { makeQueryClient } from "../api/queries";
import type { JobWithSpec } from "../api/types";
import { PlacementTab } from "./PlacementTab";

beforeEach(() => vi.useFakeTimers());

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

function job(revision: number): JobWithSpec {
  return { id: "job", attempts: [], verdicts: { as_planned: 0, degraded: 0, deviates: 0, ranks: 4, revision } } as unknown as JobWithSpec;
}

async function pass(milliseconds: number): Promise<void> {
  await act(async () => {
    for (const part of [milliseconds, 1, 1, 1]) await vi.advanceTimersByTimeAsync(part);
  });
}

it("is asked for once at a time, and once more for all that came meanwhile", async () => {
  const asked: { signal: AbortSignal; answer: () => void }[] = [];
  const text = JSON.stringify({ attempt: 1, result: null, nodes: [] });
  vi.stubGlobal("fetch", (request: Request) =>
    new Promise<Response>((resolve) => {
      const answer = () => resolve(new Response(text, { headers: { "content-type": "application/json" } }));
      asked.push({ signal: request.signal, answer });
    }),
  );
  const queries = makeQueryClient();
  const page = (revision: number) => (
    <QueryClientProvider client={queries}>
      <PlacementTab job={job(revision)} />
    </QueryClientProvider>
  );
  const { rerender } = render(page(1));
  for (const revision of [2, 3, 4, 5]) {
    rerender(page(revision));
    await pass(700);
  }
  expect(asked.map(({ signal }) => signal.aborted)).toEqual([false]);
  asked[0]?.answer();
  await pass(1500);
  expect(screen.getByTestId("placement")).toBeTruthy();
  expect(asked.map(({ signal }) => signal.aborted)).toEqual([false, false]);
});
