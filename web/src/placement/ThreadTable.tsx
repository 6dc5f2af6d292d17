// Every thread of a node, those that deviate first: the map's whole content as a table.
import { useState } from "react";
import type { NodePlacement } from "../api/types";
import { count, plural } from "../format/numbers";
import { cpuList } from "./cpus";

export function ThreadTable({ node }: { node: NodePlacement }) {
  const [open, setOpen] = useState(false);
  const threads = node.ranks.flatMap(({ rank, verdict }) => (verdict?.threads ?? []).map((thread) => ({ rank, thread })));
  const sorted = threads.toSorted((a, b) => Number(b.thread.deviation !== "") - Number(a.thread.deviation !== ""));
  const leftOut = node.ranks.reduce((sum, { verdict }) => sum + (verdict?.left_out ?? 0), 0);
  if (threads.length === 0) return null;
  return (
    <details className="threads" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary data-testid="threads">
        All {plural(threads.length, "thread")} of <span className="mono">{node.node}</span>
        {leftOut > 0 && `, and ${count(leftOut)} more that are as planned`}
      </summary>
      {open && (
        <div className="scroll panel">
          <table className="plain">
            <thead>
              <tr>
                <th scope="col" className="right">Rank</th>
                <th scope="col">Role</th>
                <th scope="col">Name</th>
                <th scope="col" className="right">Thread</th>
                <th scope="col">Planned</th>
                <th scope="col">Allowed</th>
                <th scope="col" className="right">Last ran on</th>
                <th scope="col">Deviation</th>
              </tr>
            </thead>
            <tbody>
              {sorted.map(({ rank, thread }) => (
                <tr key={`${rank} ${thread.tid}`} data-testid="thread-row">
                  <td className="right num">{rank}</td>
                  <td>{thread.role}</td>
                  <td className="mono">{thread.name}</td>
                  <td className="right num">{thread.tid}</td>
                  <td className="mono cpus">{cpuList(thread.planned)}</td>
                  <td className="mono cpus">{cpuList(thread.observed)}</td>
                  <td className="right num">{thread.last}</td>
                  <td className="thread-deviation">{thread.deviation}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </details>
  );
}
