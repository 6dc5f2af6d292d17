// One piece of a log; the pieces before the growing one are not touched again.
import { memo } from "react";
import { asShown } from "./log";

export const LogPiece = memo(function LogPiece({ text }: { text: string }) {
  return <span>{asShown(text)}</span>;
});
