// Puts a text on the clipboard and says whether it got there.
import { useEffect, useState } from "react";

type Outcome = "idle" | "copied" | "refused";
const WORDS: Record<Outcome, string> = { idle: "Copy", copied: "Copied", refused: "Not allowed by the browser" };

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [outcome, setOutcome] = useState<Outcome>("idle");

  useEffect(() => {
    if (outcome === "idle") return undefined;
    const timer = setTimeout(() => setOutcome("idle"), 2000);
    return () => clearTimeout(timer);
  }, [outcome]);

  const copy = () => {
    // Without HTTPS or localhost a browser offers no clipboard at all.
    const clipboard = (navigator as { clipboard?: Clipboard }).clipboard;
    if (clipboard === undefined) {
      setOutcome("refused");
      return;
    }
    clipboard.writeText(text).then(
      () => setOutcome("copied"),
      () => setOutcome("refused"),
    );
  };
  return (
    <button type="button" className="button quiet" onClick={copy} aria-label={`Copy ${label}`}>
      <span aria-live="polite">{WORDS[outcome]}</span>
    </button>
  );
}
