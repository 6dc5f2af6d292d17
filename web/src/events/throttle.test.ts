// A refresh that is asked for often runs calmly.
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { throttle } from "./throttle";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

it("runs at once, then at most once per interval, and the last call is never lost", async () => {
  const refresh = vi.fn(() => Promise.resolve());
  const call = throttle(1000, refresh);
  call();
  call();
  call();
  expect(refresh).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(1000);
  expect(refresh).toHaveBeenCalledTimes(2);
  await vi.advanceTimersByTimeAsync(5000);
  expect(refresh).toHaveBeenCalledTimes(2);
});

it("waits for a slow answer instead of asking over it, so that it always ends", async () => {
  let running = 0;
  let ended = 0;
  const call = throttle(1000, async () => {
    running += 1;
    expect(running).toBe(1);
    await new Promise((answered) => setTimeout(answered, 3500));
    running -= 1;
    ended += 1;
  });
  const asking = setInterval(call, 200);
  await vi.advanceTimersByTimeAsync(15_000);
  clearInterval(asking);
  expect(ended).toBe(4);
});

it("goes on after a refresh that failed", async () => {
  const refresh = vi.fn(() => Promise.reject(new Error("away")));
  const call = throttle(1000, refresh);
  call();
  await vi.advanceTimersByTimeAsync(1000);
  call();
  expect(refresh).toHaveBeenCalledTimes(2);
});

it("runs no more once it is cancelled", async () => {
  const refresh = vi.fn(() => Promise.resolve());
  const call = throttle(1000, refresh);
  call();
  call();
  call.cancel();
  await vi.advanceTimersByTimeAsync(5000);
  call();
  expect(refresh).toHaveBeenCalledTimes(1);
});
