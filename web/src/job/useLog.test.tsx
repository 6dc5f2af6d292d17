// @vitest-environment jsdom
// A log over a slow connection: nothing of it is cut off, and what failed comes again.
import { act, cleanup, renderHook } from "@testing-library/react";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { AGAIN_MS } from "../api/queries";
import { useLog } from "./useLog";

interface Asked {
  offset: string | null;
  signal: AbortSignal;
  answer: (text: string, offset: number, size: number) => Promise<void>;
  fail: (error: Error) => Promise<void>;
}

let asked: Asked[];

/** Lets so many milliseconds go by, and what was promised within them come true. */
async function pass(milliseconds: number): Promise<void> {
  await act(async () => {
    for (const part of [milliseconds, 1, 1, 1]) await vi.advanceTimersByTimeAsync(part);
  });
}

function hold(request: Request): Promise<Response> {
  return new Promise<Response>((resolve, reject) => {
    request.signal.addEventListener("abort", () => reject(new DOMException("cut off", "AbortError")));
    asked.push({
      offset: new URL(request.url).searchParams.get("offset"),
      signal: request.signal,
      answer: (text, offset, size) => {
        const piece = { attempt: 1, text, offset, next_offset: offset + text.length, size, files: [] };
        resolve(new Response(JSON.stringify(piece), { headers: { "content-type": "application/json" } }));
        return pass(1);
      },
      fail: (error) => {
        reject(error);
        return pass(1);
      },
    });
  });
}

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  vi.stubGlobal("fetch", hold);
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function follow(size: number | null) {
  const { result, rerender, unmount } = renderHook((props: { size: number | null }) => useLog("job", null, props.size), {
    initialProps: { size },
  });
  await pass(1);
  const grow = (to: number) => {
    rerender({ size: to });
    return pass(100);
  };
  return { result, grow, unmount, text: () => result.current.log.pieces.map((piece) => piece.text).join("") };
}

it("keeps one request while the log grows, then asks for the rest", async () => {
  const { grow, text, unmount } = await follow(4);
  for (const size of [8, 12, 16]) await grow(size);
  expect(asked.map(({ signal }) => signal.aborted)).toEqual([false]);
  await asked[0]?.answer("one\n", 0, 4);
  expect(text()).toBe("one\n");
  expect(asked.map(({ offset }) => offset)).toEqual(["-65536", "4"]);
  await asked[1]?.answer("two\nsix\nten\n", 4, 16);
  expect(text()).toBe("one\ntwo\nsix\nten\n");
  await grow(20);
  expect(asked).toHaveLength(3);
  unmount();
  expect(asked[2]?.signal.aborted).toBe(true);
});

it("does not ask for ever where an answer holds nothing new", async () => {
  const { grow } = await follow(9);
  await asked[0]?.answer("one\n", 0, 4);
  await asked[1]?.answer("", 4, 4);
  await pass(3 * AGAIN_MS);
  expect(asked).toHaveLength(2);
  await grow(10);
  expect(asked).toHaveLength(3);
});

it("tries again by itself after a failure", async () => {
  const { result, text } = await follow(null);
  await asked[0]?.fail(new TypeError("Failed to fetch"));
  expect(result.current.error).toBeInstanceOf(TypeError);
  expect(asked).toHaveLength(1);
  await pass(AGAIN_MS);
  expect(asked).toHaveLength(2);
  await asked[1]?.answer("one\n", 0, 4);
  expect([text(), result.current.error]).toEqual(["one\n", null]);
});
