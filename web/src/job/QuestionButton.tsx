// A button for what cannot be taken back: it asks first, and shows why it was refused.
import { useRef } from "react";
import { asProblem } from "../api/problem";
import type { Asked } from "./useAsked";

interface Words {
  label: string;
  title: string;
  text: string;
  keep: string;
  confirm: string;
  confirming: string;
}

export function QuestionButton({ words, asked, testId, danger = false }: { words: Words; asked: Asked; testId: string; danger?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  return (
    <>
      <button type="button" className="button" data-testid={testId} onClick={() => dialog.current?.showModal()}>
        {words.label}
      </button>
      <dialog ref={dialog} className="dialog" aria-labelledby={`${testId}-title`} onClose={() => asked.reset()}>
        <h2 id={`${testId}-title`}>{words.title}</h2>
        <p>{words.text}</p>
        {asked.isError && (
          <p className="field-problem" role="alert">
            {asProblem(asked.error).detail}
          </p>
        )}
        <div className="actions">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            {words.keep}
          </button>
          <button
            type="button"
            className={danger ? "button danger" : "button"}
            data-testid={`${testId}-confirm`}
            disabled={asked.isPending}
            onClick={() => asked.mutate(undefined, { onSuccess: () => dialog.current?.close() })}
          >
            {asked.isPending ? words.confirming : words.confirm}
          </button>
        </div>
      </dialog>
    </>
  );
}
