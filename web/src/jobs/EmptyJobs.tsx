// The first thing a new user sees: what to type.
import { CopyButton } from "../ui/CopyButton";

const COMMAND = "lockstep submit examples/digits.toml --watch";

export function EmptyJobs() {
  return (
    <section className="notice empty" data-testid="empty">
      <h2>No jobs yet</h2>
      <p>Submit a first training from a terminal; it appears here at once.</p>
      <div className="command">
        <code>{COMMAND}</code>
        <CopyButton text={COMMAND} label="the command" />
      </div>
    </section>
  );
}
