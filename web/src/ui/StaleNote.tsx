// Beside what is shown of an answer that could not be had again: since when it is old.
import type { UseQueryResult } from "@tanstack/react-query";
import { asProblem } from "../api/problem";
import { timeOfDay } from "../format/times";

interface Props {
  /** "The curves" */
  what: string;
  of: Pick<UseQueryResult, "isRefetchError" | "dataUpdatedAt" | "error">;
}

export function StaleNote({ what, of }: Props) {
  if (!of.isRefetchError) return null;
  return (
    <p className="stale-note" role="status" data-testid="stale-note">
      {what} could not be read again since {timeOfDay(new Date(of.dataUpdatedAt).toISOString())}: {asProblem(of.error).title}.
    </p>
  );
}
