// "3 minutes ago", with the exact time where the pointer rests.
import { UNKNOWN } from "../format/numbers";
import { ago, exact } from "../format/times";
import { useNow } from "./useNow";

export function RelativeTime({ moment }: { moment: string | null | undefined }) {
  const now = useNow();
  if (!moment) return <span>{UNKNOWN}</span>;
  return (
    <time dateTime={moment} title={exact(moment)}>
      {ago(moment, now)}
    </time>
  );
}
