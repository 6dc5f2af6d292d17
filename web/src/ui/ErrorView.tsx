// An error as a person can use it: what, why, and a way on.
import type { ReactNode } from "react";
import { asProblem, passing, Problem } from "../api/problem";
import { Prose } from "./Prose";

interface Props {
  error: unknown;
  retry?: () => void;
  children?: ReactNode;
}

/** Whether it is an answer that is asked for again without being told to: no fault of the page itself. */
function comesAgain(error: unknown): boolean {
  return passing(error) && (error instanceof Problem || error instanceof TypeError);
}

export function ErrorView({ error, retry, children }: Props) {
  const problem = asProblem(error);
  return (
    <section className="notice bad" role="alert" data-testid="error">
      <h2>{problem.title}</h2>
      <p>
        <Prose text={problem.detail} />
        {comesAgain(error) && " This page tries again by itself."}
      </p>
      {problem.errors.length > 0 && (
        <ul>
          {problem.errors.map(({ where, message }) => (
            <li key={where + message}>
              <code>{where}</code> <Prose text={message} />
            </li>
          ))}
        </ul>
      )}
      <div className="actions">
        {retry && problem.status !== 404 && (
          <button type="button" className="button" onClick={retry}>
            Try again
          </button>
        )}
        {children}
      </div>
    </section>
  );
}
