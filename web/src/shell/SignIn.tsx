// The way in for somebody who came without a link that is good.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState, useSyncExternalStore, type SubmitEvent } from "react";
import { asProblem } from "../api/problem";
import { linkRefusal, onLinkFollowed, sessionQuery, signIn } from "../api/session";

export function SignIn() {
  const queries = useQueryClient();
  const [token, setToken] = useState("");
  const refusal = useSyncExternalStore(onLinkFollowed, linkRefusal);
  const entering = useMutation({
    mutationFn: (given: string) => signIn({ token: given }),
    onSuccess: () => queries.invalidateQueries({ queryKey: sessionQuery.queryKey }),
  });

  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    if (token.trim() !== "") entering.mutate(token.trim());
  };
  return (
    <form className="sign-in panel" onSubmit={submit} data-testid="sign-in">
      <h1>Sign in</h1>
      <p>
        On the machine that runs the service, <code>lockstep open</code> prints a link that lets one browser in, and{" "}
        <code>lockstep token</code> the token.
      </p>
      <label htmlFor="token">Token</label>
      <input
        id="token"
        type="password"
        autoComplete="current-password"
        spellCheck={false}
        value={token}
        onChange={(event) => setToken(event.target.value)}
        aria-invalid={entering.isError}
        aria-describedby="token-problem"
      />
      <p id="token-problem" className="field-problem" role="alert">
        {entering.isError ? asProblem(entering.error).detail : refusal}
      </p>
      <button type="submit" className="button strong" disabled={entering.isPending || token.trim() === ""}>
        {entering.isPending ? "Signing in…" : "Sign in"}
      </button>
    </form>
  );
}
