// The batch script that ran, byte for byte.
import { useQuery } from "@tanstack/react-query";
import { scriptQuery } from "../api/jobs";
import { CopyButton } from "../ui/CopyButton";
import { download } from "../ui/download";
import { ErrorView } from "../ui/ErrorView";

export function ScriptTab({ id, name }: { id: string; name: string }) {
  const script = useQuery(scriptQuery(id));
  if (script.isPending) return <p className="quiet-note">Reading the script…</p>;
  if (script.isError) return <ErrorView error={script.error} retry={() => void script.refetch()} />;
  const text = script.data;
  return (
    <section className="panel text-panel" aria-label="Script">
      <div className="text-head">
        <span className="mono dim">job.sbatch</span>
        <CopyButton text={text} label="the script" />
        <button type="button" className="button quiet" onClick={() => download(`${name}.sbatch`, text)}>
          Download
        </button>
      </div>
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a region that scrolls must be reachable by keyboard */}
      <pre className="text numbered" data-testid="script" tabIndex={0}>
        {text.replace(/\n$/, "").split("\n").map((line, index) => (
          <span key={index} className={line.startsWith("#") ? "line comment" : "line"}>
            {line + "\n"}
          </span>
        ))}
      </pre>
    </section>
  );
}
