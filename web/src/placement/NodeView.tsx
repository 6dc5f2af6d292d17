// One node: its map, what the CPU under the pointer is for, and all of its threads.
import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { placementQuery } from "../api/jobs";
import { ErrorView } from "../ui/ErrorView";
import { StaleNote } from "../ui/StaleNote";
import { CoreMap } from "./CoreMap";
import { CpuDetails } from "./CpuDetails";
import { Legend } from "./Legend";
import { nodeMap } from "./map";
import { ThreadTable } from "./ThreadTable";

interface Props {
  id: string;
  attempt: number | null;
  node: string;
}

export function NodeView({ id, attempt, node: name }: Props) {
  const query = useQuery(placementQuery(id, { attempt, node: name }));
  const node = query.data?.nodes[0];
  const map = useMemo(() => (node ? nodeMap(node) : null), [node]);
  const [chosen, setChosen] = useState<number | null>(null);

  if (node === undefined || map === null) {
    if (query.isError) return <ErrorView error={query.error} retry={() => void query.refetch()} />;
    return <p className="quiet-note">Reading {name}…</p>;
  }
  const first = map.cpus.find((cpu) => cpu.deviating.length > 0) ?? map.cpus[0];
  const looked = map.cpus.find((cpu) => cpu.cpu === chosen) ?? first;
  return (
    <>
      <StaleNote what={name} of={query} />
      {looked === undefined ? (
        <p className="quiet-note">{name} has not told its machine and its plan.</p>
      ) : (
        <div className="panel core-panel" data-testid="core-map" data-node={name}>
          <h2>
            <span className="mono">{name}</span> <span className="page-note">core map: a box per CPU, as Linux numbers it</span>
          </h2>
          <Legend node={node} cpus={map.cpus} />
          <div className="core-sides">
            <CoreMap map={map} name={name} chosen={looked.cpu} choose={setChosen} />
            <CpuDetails cpu={looked} />
          </div>
        </div>
      )}
      <ThreadTable node={node} />
    </>
  );
}
