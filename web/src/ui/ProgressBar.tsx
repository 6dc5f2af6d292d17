// How far a training is: a native progress element, so that it is announced as one.
import { count, percent } from "../format/numbers";

export function ProgressBar({ done, total, label }: { done: number; total: number; label: string }) {
  return (
    <progress className="progress" value={Math.min(done, total)} max={total} aria-label={label}>
      {count(done)} of {count(total)} ({percent(done / total, 0)})
    </progress>
  );
}
