// A window on a log that may be larger than a page should hold: pieces in order, the far end let go.
import type { Logs } from "../api/types";

export interface Piece {
  offset: number;
  end: number;
  text: string;
}

export interface LogWindow {
  pieces: Piece[];
  /** Of the log, in bytes, as last heard. */
  size: number;
}

export const EMPTY: LogWindow = { pieces: [], size: 0 };
/** Bytes asked for at once. */
export const PIECE = 65_536;
/** Bytes on the page at once. */
export const MOST = 8 * PIECE;

export function startOf(log: LogWindow): number {
  return log.pieces[0]?.offset ?? 0;
}

export function endOf(log: LogWindow): number {
  return log.pieces.at(-1)?.end ?? 0;
}

function held(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, piece) => sum + piece.end - piece.offset, 0);
}

/** Adds what was fetched after the window's end; small pieces join the last, the oldest go when there are too many. */
export function append(log: LogWindow, { offset, next_offset: end, text, size }: Logs): LogWindow {
  if (log.pieces.length > 0 && offset !== endOf(log)) return log;
  const pieces = [...log.pieces];
  const last = pieces.at(-1);
  if (end > offset) {
    if (last && end - last.offset <= PIECE) pieces[pieces.length - 1] = { offset: last.offset, end, text: last.text + text };
    else pieces.push({ offset, end, text });
  }
  while (pieces.length > 1 && held(pieces) > MOST) pieces.shift();
  return { pieces, size: Math.max(size, end) };
}

/** Adds what was fetched before the window's start. */
export function prepend(log: LogWindow, { offset, next_offset: end, text }: Logs): LogWindow {
  if (end !== startOf(log) || end === offset) return log;
  return { ...log, pieces: [{ offset, end, text }, ...log.pieces] };
}

export function full(log: LogWindow): boolean {
  return held(log.pieces) >= MOST;
}

/** What a terminal would show: no colour sequences, and of a line that was written over only its last state. */
export function asShown(text: string): string {
  return (
    text
      // eslint-disable-next-line no-control-regex -- the escape character is what starts a colour sequence
      .replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "")
      .replace(/\r\n/g, "\n")
      .replace(/^.*\r(?=[^\n])/gm, "")
  );
}
