// Times as people read them. Moments come as RFC 3339 text, lengths in seconds.
import { formatDistanceStrict, intervalToDuration } from "date-fns";

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

/** "3 minutes ago"; a moment within the last seconds, or a clock a little ahead of ours, is "just now". */
export function ago(moment: string, now: number): string {
  const then = Date.parse(moment);
  if (now - then < 5000) return "just now";
  return `${formatDistanceStrict(then, now)} ago`;
}

/** The full date and time in the reader's own zone. */
export function exact(moment: string): string {
  return absolute.format(new Date(moment));
}

/** Hours, minutes and seconds in the reader's own zone. */
export function timeOfDay(moment: string): string {
  return clock.format(new Date(moment));
}

/** Two units are enough: 42 s · 3 min 05 s · 2 h 10 min · 1 d 4 h */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const { hours = 0, minutes = 0, seconds: rest = 0 } = intervalToDuration({ start: 0, end: (whole % 86_400) * 1000 });
  const days = Math.floor(whole / 86_400);
  const two = (value: number) => String(value).padStart(2, "0");
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${two(rest)} s`;
  return `${rest} s`;
}

/** Seconds from one moment to another, or to `now` (milliseconds) while it has not ended; null when it never started. */
export function elapsed(start: string | null | undefined, end: string | null | undefined, now: number): number | null {
  if (!start) return null;
  return Math.max(0, ((end ? Date.parse(end) : now) - Date.parse(start)) / 1000);
}
