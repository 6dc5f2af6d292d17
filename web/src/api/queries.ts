// The one query client: what is tried again, and what happens when the session has ended.
import { MutationCache, QueryCache, QueryClient } from "@tanstack/react-query";
import { passing, Problem } from "./problem";
import { sessionQuery } from "./session";

/** After so long what could not be read is asked for again, though nobody does anything. */
export const AGAIN_MS = 10_000;

export function makeQueryClient(): QueryClient {
  const onError = (error: Error) => {
    if (error instanceof Problem && error.status === 401) client.setQueryData(sessionQuery.queryKey, null);
  };
  const client = new QueryClient({
    queryCache: new QueryCache({ onError }),
    mutationCache: new MutationCache({ onError }),
    defaultOptions: {
      queries: {
        // Events say when something changed.
        staleTime: 10_000,
        retry: (failures, error) => failures < 3 && passing(error),
        refetchInterval: ({ state }) => (state.status === "error" && passing(state.error) ? AGAIN_MS : false),
        // A service on this very machine is there without any network.
        networkMode: "always",
      },
      mutations: { networkMode: "always" },
    },
  });
  return client;
}
