// The one HTTP client, typed by the OpenAPI document; an unsuccessful answer is thrown as a Problem.
import createClient, { type Middleware } from "openapi-fetch";
import { problemFrom } from "./problem";
import type { paths } from "./schema";

const throwProblems: Middleware = {
  async onResponse({ response }) {
    if (!response.ok && response.status !== 304) throw await problemFrom(response);
    return undefined;
  },
};

// `fetch` is looked up at each call, so that a test can put its own in place.
export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: (request) => fetch(request) });
api.use(throwProblems);

/** The body of a successful answer. */
export function body<T>(answer: { data?: T }): T {
  if (answer.data === undefined) throw new Error("The service's answer was empty.");
  return answer.data;
}
