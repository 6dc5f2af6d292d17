// The whole log as a file, fetched piece by piece.
import { useMutation } from "@tanstack/react-query";
import { fetchLog } from "../api/jobs";
import { asProblem } from "../api/problem";
import { bytes } from "../format/numbers";
import { download } from "../ui/download";

// The largest piece that the service gives at once is larger; this keeps each answer short.
const PIECE = 262_144;
// A page is no place for more than this; the file itself lies in the run directory.
const MOST = 64 * 1024 * 1024;

async function wholeLog(id: string, attempt: number | null): Promise<string> {
  const parts: string[] = [];
  let offset = 0;
  for (;;) {
    const piece = await fetchLog(id, { offset, limit: PIECE, attempt });
    parts.push(piece.text);
    if (piece.next_offset <= offset || piece.next_offset >= piece.size) return parts.join("");
    offset = piece.next_offset;
  }
}

export function DownloadLog({ id, name, attempt, size }: { id: string; name: string; attempt: number | null; size: number }) {
  const fetching = useMutation({
    mutationFn: () => wholeLog(id, attempt),
    onSuccess: (text) => download(`${name}.log`, text),
  });
  if (size > MOST) return <span className="dim">{bytes(size)}: read it in the run directory</span>;
  return (
    <>
      <button
        type="button"
        className="button quiet"
        disabled={size === 0 || fetching.isPending}
        onClick={() => fetching.mutate()}
      >
        {fetching.isPending ? "Fetching…" : "Download"}
      </button>
      {fetching.isError && (
        <span className="field-problem" role="alert">
          {asProblem(fetching.error).detail}
        </span>
      )}
    </>
  );
}
