// One mark per node; the chosen one's map is below. With many nodes only the mark, with few their names as well.
import type { NodePlacement } from "../api/types";
import { plural } from "../format/numbers";
import { LOOKS, VerdictShape } from "./VerdictBadge";

const NAMED = 24;

interface Props {
  nodes: readonly NodePlacement[];
  chosen: string;
  choose: (node: string) => void;
}

export function NodeStrip({ nodes, chosen, choose }: Props) {
  const named = nodes.length <= NAMED;
  return (
    <div className={named ? "node-strip" : "node-strip compact"} role="group" aria-label={`${plural(nodes.length, "node")}, one to look at`}>
      {nodes.map(({ node, result, ranks }) => {
        // One that deviates need not wait for the others of its node.
        const shown = result ?? (ranks.some(({ verdict }) => verdict?.result === "deviates") ? "deviates" : null);
        const { className, word } = LOOKS[shown ?? "none"];
        return (
          <button
            key={node}
            type="button"
            className={`node-mark verdict ${className}`}
            aria-pressed={node === chosen}
            aria-label={`${node}: ${word}`}
            title={`${node}: ${word}`}
            data-testid="node-mark"
            data-node={node}
            data-result={shown ?? ""}
            onClick={() => choose(node)}
          >
            <VerdictShape result={shown} />
            {named && <span className="mono">{node}</span>}
          </button>
        );
      })}
    </div>
  );
}
