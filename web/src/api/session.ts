// Who is signed in; signing in with a link's code or with the token; signing out.
import { queryOptions } from "@tanstack/react-query";
import { api, body } from "./client";
import { asProblem, Problem } from "./problem";

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

export async function signIn(by: { token: string } | { code: string }): Promise<void> {
  await api.POST("/api/v1/session", { body: by });
}

export async function signOut(): Promise<void> {
  await api.DELETE("/api/v1/session");
}

/** The code in `#code=...`, taken out of the address bar and of the history entry; null when there is none. */
export function takeCode(location: Location, history: History): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const code = fragment.get("code");
  if (code === null) return null;
  fragment.delete("code");
  const rest = fragment.toString();
  history.replaceState(history.state, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  return code;
}

let refusal: string | null = null;
const watching = new Set<() => void>();

/** Signs in by a link's code; why that failed is kept for the sign-in form. */
export async function followLink(code: string): Promise<void> {
  try {
    await signIn({ code });
    refusal = null;
  } catch (error) {
    refusal = asProblem(error).detail;
  }
  watching.forEach((tell) => tell());
}

/** Follows each link that is put into the address bar of this open page; `followed` is called after it let somebody in or not. */
export function followPastedLinks(followed: () => void): void {
  // With another fragment alone, a browser loads no page anew.
  window.addEventListener("hashchange", () => {
    const code = takeCode(window.location, window.history);
    if (code !== null) void followLink(code).then(followed);
  });
}

/** Why the link that brought somebody here did not let them in; null where it did, or there was none. */
export const linkRefusal = (): string | null => refusal;

/** Calls `tell` whenever a link was followed; what it returns ends that. */
export function onLinkFollowed(tell: () => void): () => void {
  watching.add(tell);
  return () => watching.delete(tell);
}
