// Who is signed in; signing in with a token from the address bar or the form; signing out.
import { queryOptions } from "@tanstack/react-query";
import { api, body } from "./client";
import { Problem } from "./problem";

export const sessionQuery = queryOptions({
  queryKey: ["session"] as const,
  queryFn: async ({ signal }): Promise<{ user: string } | null> => {
    try {
      return body(await api.GET("/api/v1/session", { signal }));
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return null;
      throw error;
    }
  },
  staleTime: Infinity,
});

export async function signIn(token: string): Promise<void> {
  await api.POST("/api/v1/session", { body: { token } });
}

export async function signOut(): Promise<void> {
  await api.DELETE("/api/v1/session");
}

/** The token in `#token=...`, taken out of the address bar and of the history entry; null when there is none. */
export function takeToken(location: Location, history: History): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) return null;
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(history.state, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  return token;
}
