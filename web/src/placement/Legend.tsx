// What the colours, numbers and letters of the map mean, and what else the plan says of the node.
import type { NodePlacement } from "../api/types";
import { cpuWords } from "./cpus";
import { COLOURS } from "./CoreMap";
import type { Cpu } from "./map";
import { BOTH, cpusOf, FOREIGN, letterOf, ROLE_LETTERS, ROLE_NAMES, ROLES, SEVERAL, SPARE } from "./roles";

const OTHERS: [string, string][] = [
  [SEVERAL, "several communication threads"],
  [BOTH, "communication on a CPU of other work"],
];

export function Legend({ node, cpus }: { node: NodePlacement; cpus: readonly Cpu[] }) {
  const plans = node.placement?.ranks ?? [];
  const ranks = new Map(node.ranks.map(({ local_rank, rank }) => [local_rank, rank]));
  const used = ROLES.filter((role) => plans.some((plan) => cpusOf(plan, role).length > 0));
  const letters = new Set(cpus.map(({ uses }) => letterOf(uses.flatMap((use) => use.roles))));
  const loose = node.topology?.cards.filter((card) => card.numa == null).map((card) => card.name) ?? [];
  const offline = node.topology?.offline ?? [];
  return (
    <div className="legend">
      <ul>
        {plans.map(({ local_rank, numa, memory }) => (
          <li key={local_rank}>
            <span className={`cpu-sample compute of-rank-${local_rank % COLOURS}`}>{local_rank}</span> rank {ranks.get(local_rank) ?? local_rank}
            <span className="dim">
              {numa.length > 0 && ` NUMA ${numa.join(", ")}`}
              {memory.policy !== "local" && `, memory ${memory.policy} ${memory.domains.join(", ")}`}
            </span>
          </li>
        ))}
      </ul>
      <ul>
        {used.map((role) => (
          <li key={role}>
            <span className="mono letter">{ROLE_LETTERS[role]}</span> {ROLE_NAMES[role]}
          </li>
        ))}
        {OTHERS.filter(([letter]) => letters.has(letter)).map(([letter, name]) => (
          <li key={letter}>
            <span className="mono letter">{letter}</span> {name}
          </li>
        ))}
        {cpus.some((cpu) => cpu.spare) && (
          <li>
            <span className="mono letter">{SPARE}</span> spare
          </li>
        )}
        {cpus.some((cpu) => cpu.uses.length === 0 && !cpu.spare) && (
          <li>
            <span className="mono letter">{FOREIGN}</span> not given to this job
          </li>
        )}
        <li>
          <span className="cpu-sample deviates">
            <span className="cpu-flag">!</span>
          </span>{" "}
          a thread may run here that should not
        </li>
        <li>
          <span className="cpu-sample missed" /> the thread planned for it is elsewhere
        </li>
      </ul>
      {node.placement != null && (
        <p className="page-note">
          Communication CPUs by the policy “{node.placement.policy}”.
          {loose.length > 0 && ` Network cards of no NUMA domain: ${loose.join(", ")}.`}
          {offline.length > 0 && ` Offline: ${cpuWords(offline)}.`}
        </p>
      )}
      {(node.placement?.warnings ?? []).map((warning) => (
        <p key={warning} className="warn-text">
          {warning}
        </p>
      ))}
    </div>
  );
}
