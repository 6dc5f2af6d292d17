// The verdict in sentences: how many ranks sit where they were planned, and what does not.
import type { JobPlacement, Result, Verdicts } from "../api/types";
import { count, plural } from "../format/numbers";
import { cpuWords } from "./cpus";
import type { Cpu, Use } from "./map";
import { FOREIGN, letterOf, ROLE_NAMES, SPARE } from "./roles";

/** One sentence on the whole job. */
export function summary(result: Result | null | undefined, counts: Verdicts | null | undefined): string {
  if (counts == null) return "No rank has said yet where its threads sit: each does once its communication library has started.";
  const { ranks } = counts;
  const heard = counts.as_planned + counts.degraded + counts.deviates;
  const of = `of ${plural(ranks, "rank")}`;
  if (result === "as planned") return ranks === 1 ? "Every thread of the rank sits where it was planned." : `Every thread of all ${count(ranks)} ranks sits where it was planned.`;
  if (result === "degraded") return `Every thread sits where it was planned; the plan of ${count(counts.degraded)} ${of} could not do all that was asked for.`;
  if (result === "deviates") return `Threads of ${count(counts.deviates)} ${of} do not sit where they were planned.`;
  if (heard === 0) return "The plan is known; no rank has said yet where its threads sit.";
  const sofar = counts.deviates > 0 ? `of ${count(counts.deviates)} of them they are not as planned` : "none of them deviates";
  return `${count(heard)} ${of} have said where their threads sit; ${sofar}.`;
}

export interface Sentence {
  kind: "deviation" | "grant" | "degradation";
  node: string;
  /** Empty: the node as a whole. */
  ranks: number[];
  text: string;
}

/** All that is not as it should be, the worst first; one that many ranks of a node say is there once. */
export function sentences(placement: JobPlacement): Sentence[] {
  const told = (kind: "deviation" | "degradation") =>
    placement.nodes.flatMap((node) => {
      const found = new Map<string, Sentence>();
      for (const { rank, verdict } of node.ranks) {
        for (const said of (kind === "deviation" ? verdict?.deviations : verdict?.degradations) ?? []) {
          // In a log a sentence has to say whose it is; here that is said once for all that have the same to say.
          const whose = `rank ${rank} on ${node.node}: `;
          const text = said.startsWith(whose) ? said.slice(whose.length) : said;
          const known = found.get(text);
          if (known) known.ranks.push(rank);
          else found.set(text, { kind, node: node.node, ranks: [rank], text });
        }
      }
      return [...found.values()];
    });
  const deviations = told("deviation");
  // Ranks that deviate by what Slurm gave say so themselves.
  const said = new Set(deviations.map(({ node, text }) => `${node}: ${text}`));
  const grants = placement.nodes.flatMap((node) =>
    node.grant.map((text): Sentence => ({ kind: "grant", node: node.node, ranks: [], text })),
  );
  return [...deviations, ...grants.filter(({ node, text }) => !said.has(`${node}: ${text}`)), ...told("degradation")];
}

export function whose({ node, ranks }: Sentence): string {
  if (ranks.length === 0) return node;
  return `${node}, ${ranks.length === 1 ? "rank" : "ranks"} ${ranks.join(", ")}`;
}

/** What stands in a CPU's box: whose it is (the local rank) and what for. */
export function mark({ uses, spare }: Cpu): string {
  const [first, ...others] = uses;
  if (first === undefined) return spare ? SPARE : FOREIGN;
  const letter = letterOf(uses.flatMap((use) => use.roles));
  return `${first.localRank}${others.length > 0 ? "…" : ""}${letter}`;
}

export function useWords({ rank, roles }: Use): string {
  return `rank ${rank}: ${roles.map((role) => ROLE_NAMES[role]).join(", ")}`;
}

/** What was planned for a CPU. */
export function plannedWords(cpu: Cpu): string {
  if (cpu.uses.length > 0) return cpu.uses.map(useWords).join("; ");
  return cpu.spare ? "spare: planned for nothing" : "not given to this job";
}

/** A CPU for who hears it and does not see it. */
export function spoken(cpu: Cpu): string {
  const deviations = cpu.deviating.map(({ rank, thread }) => `rank ${rank} deviates: ${thread.deviation}`);
  const missed = cpu.missed.map(({ rank, thread }) => `the ${thread.role} thread of rank ${rank} is elsewhere`);
  return [`${cpuWords([cpu.cpu])}, ${plannedWords(cpu)}`, ...deviations, ...missed].join(". ");
}

/** The count of an attempt, from what its ranks said. */
export function counted(placement: JobPlacement): Verdicts | null {
  if (placement.nodes.length === 0) return null;
  const ranks = placement.nodes.flatMap((node) => node.ranks);
  const number = (result: Result) => ranks.filter(({ verdict }) => verdict?.result === result).length;
  return { as_planned: number("as planned"), degraded: number("degraded"), deviates: number("deviates"), ranks: ranks.length, revision: 0 };
}
