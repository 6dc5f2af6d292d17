// An address that leads nowhere.
import { Link } from "@tanstack/react-router";

export function NotFound() {
  return (
    <section className="notice" data-testid="not-found">
      <h1>There is no such page</h1>
      <p>The address may have been cut short.</p>
      <Link to="/" className="button">
        All jobs
      </Link>
    </section>
  );
}
