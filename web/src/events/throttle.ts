// A refresh that is asked for often and runs calmly: the first at once, the last never lost, never two at a time.

export interface Throttled {
  (): void;
  cancel: () => void;
}

/**
 * Runs `refresh` at most once per `interval` (milliseconds), and not before the run before it has ended: on a busy
 * machine an answer may take longer than the interval, and a refresh that cut off the one before it would never end.
 */
export function throttle(interval: number, refresh: () => Promise<unknown>): Throttled {
  let calls = 0;
  let running = false;
  let cancelled = false;

  const run = async (): Promise<void> => {
    const answered = calls;
    // A refresh tells of its own failure where its result is shown; here it only ends.
    await Promise.allSettled([refresh(), new Promise((later) => setTimeout(later, interval))]);
    running = false;
    if (calls > answered) start();
  };
  const start = () => {
    if (running || cancelled) return;
    running = true;
    void run();
  };
  const call = () => {
    calls += 1;
    start();
  };
  return Object.assign(call, {
    cancel: () => {
      cancelled = true;
    },
  });
}
