// A window on one log: how much of it is shown, whether it is followed, and the text.
import { useLayoutEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { bytes } from "../format/numbers";
import { CopyButton } from "../ui/CopyButton";
import { ErrorView } from "../ui/ErrorView";
import { DownloadLog } from "./DownloadLog";
import { asShown, full, MOST, startOf, type LogWindow } from "./log";
import { LogPiece } from "./LogPiece";
import { useLog } from "./useLog";

interface Props {
  id: string;
  name: string;
  attempt: number | null;
  size: number | null;
  /** More controls, such as the choice of the attempt. */
  children?: ReactNode;
}

// Within so many pixels of its end, a reader is taken to be at the end.
const NEAR = 24;

function shownPart(log: LogWindow): string {
  return startOf(log) > 0 ? `the last ${bytes(log.size - startOf(log))} of ${bytes(log.size)}` : bytes(log.size);
}

export function LogView({ id, name, attempt, size, children }: Props) {
  const { log, loading, error, earlier, retry } = useLog(id, attempt, size);
  const [follow, setFollow] = useState(true);
  const box = useRef<HTMLPreElement>(null);
  const whole = useMemo(() => asShown(log.pieces.map((piece) => piece.text).join("")), [log.pieces]);

  useLayoutEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [follow, log]);

  const onScroll = () => {
    const element = box.current;
    if (element) setFollow(element.scrollHeight - element.scrollTop - element.clientHeight < NEAR);
  };
  return (
    <section className="panel text-panel" aria-label="Log">
      <div className="text-head">
        <span className="dim num">{shownPart(log)}</span>
        {children}
        <label className="toggle">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.target.checked)} data-testid="follow" />
          Follow
        </label>
        <CopyButton text={whole} label="what is shown of the log" />
        <DownloadLog id={id} name={name} attempt={attempt} size={log.size} />
      </div>
      {error !== null && <ErrorView error={error} retry={retry} />}
      {loading && <p className="quiet-note">Reading the log…</p>}
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a region that scrolls must be reachable by keyboard */}
      <pre ref={box} className="text log" data-testid="log" role="log" aria-live="off" tabIndex={0} onScroll={onScroll}>
        {startOf(log) > 0 && !full(log) && (
          <button type="button" className="button quiet earlier" onClick={earlier}>
            Show earlier lines
          </button>
        )}
        {startOf(log) > 0 && full(log) && (
          <span className="dim">{`This page holds ${bytes(MOST)} of the log; download it for the rest.\n`}</span>
        )}
        {log.pieces.map((piece) => (
          <LogPiece key={piece.offset} text={piece.text} />
        ))}
        {!loading && log.size === 0 && <span className="dim">Nothing has been written yet.</span>}
      </pre>
    </section>
  );
}
