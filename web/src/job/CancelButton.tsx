// Cancelling, with a question first: it cannot be taken back.
import { cancelJob } from "../api/jobs";
import { QuestionButton } from "./QuestionButton";
import { useAsked } from "./useAsked";

export function CancelButton({ id, name }: { id: string; name: string }) {
  const words = {
    label: "Cancel job",
    title: `Cancel “${name}”?`,
    text: "Its ranks are ended now. What it has reported and saved stays.",
    keep: "Keep it running",
    confirm: "Cancel the job",
    confirming: "Cancelling…",
  };
  return <QuestionButton words={words} asked={useAsked(id, cancelJob)} testId="cancel" danger />;
}
