// The frame around every page; without a session, the way in.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet } from "@tanstack/react-router";
import { asProblem } from "../api/problem";
import { sessionQuery, signOut } from "../api/session";
import { ErrorView } from "../ui/ErrorView";
import { Prose } from "../ui/Prose";
import { Mark } from "./Mark";
import { SignIn } from "./SignIn";

export function Shell() {
  const queries = useQueryClient();
  const session = useQuery(sessionQuery);

  const leaving = useMutation({
    mutationFn: signOut,
    onSuccess: () => {
      queries.setQueryData(sessionQuery.queryKey, null);
      // What the next person must not see. The session's own query stays: this frame watches it.
      queries.removeQueries({ predicate: (query) => query.queryKey[0] !== sessionQuery.queryKey[0] });
    },
  });
  return (
    <>
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <Link to="/" className="home" aria-label="Lockstep: all jobs">
          <Mark /> Lockstep
        </Link>
        {session.data && (
          <div className="who">
            <span>{session.data.user}</span>
            <button type="button" className="button quiet" disabled={leaving.isPending} onClick={() => leaving.mutate()}>
              Sign out
            </button>
          </div>
        )}
      </header>
      <main id="main" tabIndex={-1}>
        {session.isPending && <p className="quiet-note">Opening…</p>}
        {session.isError && <ErrorView error={session.error} retry={() => void session.refetch()} />}
        {session.data && leaving.isError && <StillIn error={leaving.error} />}
        {session.data === null && <SignIn />}
        {session.data && <Outlet />}
      </main>
    </>
  );
}

function StillIn({ error }: { error: Error }) {
  const { title, detail } = asProblem(error);
  return (
    <div className="banner bad" role="alert" data-testid="still-signed-in">
      <strong>You are still signed in.</strong> {title}. <Prose text={detail} />
    </div>
  );
}
