// Cancelling, with a question first: it cannot be taken back.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef } from "react";
import { cancelJob, jobQuery } from "../api/jobs";
import { asProblem } from "../api/problem";

export function CancelButton({ id, name }: { id: string; name: string }) {
  const queries = useQueryClient();
  const dialog = useRef<HTMLDialogElement>(null);
  const cancelling = useMutation({
    mutationFn: () => cancelJob(id),
    onSuccess: (job) => {
      queries.setQueryData(jobQuery(id).queryKey, (known) => (known ? { ...known, ...job } : known));
      dialog.current?.close();
    },
  });

  return (
    <>
      <button type="button" className="button" data-testid="cancel" onClick={() => dialog.current?.showModal()}>
        Cancel job
      </button>
      <dialog ref={dialog} className="dialog" aria-labelledby="cancel-title" onClose={() => cancelling.reset()}>
        <h2 id="cancel-title">Cancel “{name}”?</h2>
        <p>Its ranks are ended now. What it has reported and saved stays.</p>
        {cancelling.isError && (
          <p className="field-problem" role="alert">
            {asProblem(cancelling.error).detail}
          </p>
        )}
        <div className="actions">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            Keep it running
          </button>
          <button
            type="button"
            className="button danger"
            data-testid="cancel-confirm"
            disabled={cancelling.isPending}
            onClick={() => cancelling.mutate()}
          >
            {cancelling.isPending ? "Cancelling…" : "Cancel the job"}
          </button>
        </div>
      </dialog>
    </>
  );
}
