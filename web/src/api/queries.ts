// The one query client: what is tried again, and what happens when the session has ended.
import { QueryCache, QueryClient } from "@tanstack/react-query";
import { Problem } from "./problem";
import { sessionQuery } from "./session";

function worthTrying(failures: number, error: Error): boolean {
  // A 4xx says that asking again is in vain; a restart or a lost connection passes.
  return failures < 3 && !(error instanceof Problem && error.status >= 400 && error.status < 500);
}

export function makeQueryClient(): QueryClient {
  const client = new QueryClient({
    queryCache: new QueryCache({
      onError: (error) => {
        if (error instanceof Problem && error.status === 401) client.setQueryData(sessionQuery.queryKey, null);
      },
    }),
    defaultOptions: {
      // Events say when something changed. "always": a service on this very machine is there without any network.
      queries: { staleTime: 10_000, retry: worthTrying, networkMode: "always" },
      mutations: { networkMode: "always" },
    },
  });
  return client;
}
