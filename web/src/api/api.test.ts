// @vitest-environment jsdom
// Signing in by the address, and errors that a person can read.
import { MutationObserver, QueryObserver } from "@tanstack/react-query";
import { afterEach, describe, expect, it, vi } from "vitest";
import { asProblem, Problem, problemFrom } from "./problem";
import { AGAIN_MS, makeQueryClient } from "./queries";
import { sessionQuery, takeCode } from "./session";

afterEach(() => vi.useRealTimers());

describe("the code in the address", () => {
  const open = (address: string) => {
    window.history.replaceState(null, "", address);
    const code = takeCode(window.location, window.history);
    return { code, left: window.location.pathname + window.location.search + window.location.hash };
  };

  it("is taken and leaves nothing of itself behind", () => {
    expect(open("/jobs/7?tab=log#code=s3cr%2Bt")).toEqual({ code: "s3cr+t", left: "/jobs/7?tab=log" });
    expect(window.history.length).toBe(1);
  });

  it("leaves another fragment as it is", () => {
    expect(open("/#main")).toEqual({ code: null, left: "/#main" });
    expect(open("/#code=a&b=1")).toEqual({ code: "a", left: "/#b=1" });
  });
});

describe("a problem", () => {
  it("is read from RFC 9457's document", async () => {
    const document = {
      type: "about:blank",
      title: "No such job",
      status: 404,
      detail: "No job has the id x.",
      errors: [{ where: "path.id", message: "is unknown", value: "x" }, "noise"],
    };
    const problem = await problemFrom(new Response(JSON.stringify(document), { status: 404 }));
    expect(problem).toMatchObject({ status: 404, title: "No such job", detail: "No job has the id x." });
    expect(problem.errors).toEqual([{ where: "path.id", message: "is unknown" }]);
  });

  it("is a plain sentence where a proxy answered with a page", async () => {
    const problem = await problemFrom(new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
    expect(problem).toMatchObject({ status: 502, title: "The service answered 502", detail: "Bad Gateway" });
  });

  it("says that the service cannot be reached where there was no answer", () => {
    expect(asProblem(new TypeError("Failed to fetch"))).toMatchObject({ status: 0, title: "The service cannot be reached" });
    const known = new Problem(409, "Ended", "It has ended.");
    expect(asProblem(known)).toBe(known);
  });
});

describe("what failed", () => {
  /** Asks a question that is answered with `status` until `answered` is true. */
  const ask = (status: number) => {
    vi.useFakeTimers();
    const asked = { times: 0, answered: false };
    const question = new QueryObserver(makeQueryClient(), {
      queryKey: ["question"],
      queryFn: () => {
        asked.times += 1;
        return asked.answered ? Promise.resolve("there") : Promise.reject(new Problem(status, "Not now", "Later."));
      },
    });
    question.subscribe(() => undefined);
    return { asked, question };
  };

  it("is asked for again by itself, as the page says", async () => {
    const { asked, question } = ask(503);
    await vi.advanceTimersByTimeAsync(8000);
    expect(question.getCurrentResult().status).toBe("error");
    asked.answered = true;
    await vi.advanceTimersByTimeAsync(AGAIN_MS);
    expect(question.getCurrentResult().data).toBe("there");
    const { times } = asked;
    await vi.advanceTimersByTimeAsync(6 * AGAIN_MS);
    expect(asked.times).toBe(times);
    question.destroy();
  });

  it("is not asked for again where that is in vain", async () => {
    const { asked, question } = ask(404);
    await vi.advanceTimersByTimeAsync(6 * AGAIN_MS);
    expect(asked.times).toBe(1);
    question.destroy();
  });

  it("as nobody is signed in any more ends the session, of a command as of a question", async () => {
    const queries = makeQueryClient();
    queries.setQueryData([...sessionQuery.queryKey], { user: "ada" });
    const refused = new Problem(401, "Unauthenticated", "Nobody is signed in.");
    const command = new MutationObserver(queries, { mutationFn: () => Promise.reject(refused) });
    await expect(command.mutate()).rejects.toBe(refused);
    expect(queries.getQueryData(sessionQuery.queryKey)).toBeNull();
  });
});
