// From what a node told to what is drawn of it: sockets, NUMA domains, caches, cores and hardware threads. Pure.
import type { NodePlacement, ThreadVerdict } from "../api/types";
import { cpusOf, ROLES, type Role } from "./roles";

export interface Use {
  rank: number;
  localRank: number;
  roles: Role[];
}

export interface SeenThread {
  rank: number;
  thread: ThreadVerdict;
}

export interface Cpu {
  cpu: number;
  socket: number;
  numa: number;
  /** By which ranks it was planned to be used, and for what; more than one only where ranks must share. */
  uses: Use[];
  /** The step was given it. */
  granted: boolean;
  /** Given, and planned for nothing. */
  spare: boolean;
  /** Threads that last ran here. */
  ran: SeenThread[];
  /** Threads that may run here, or did, and should not. */
  deviating: SeenThread[];
  /** Threads that were planned for it and may not run here. */
  missed: SeenThread[];
}

export interface Group {
  l3: number;
  cores: Cpu[][];
}
export interface Domain {
  numa: number;
  memory: number | null;
  cards: string[];
  groups: Group[];
}
export interface Socket {
  socket: number;
  domains: Domain[];
}
export interface NodeMap {
  sockets: Socket[];
  /** Domains of memory alone. */
  bare: { numa: number; memory: number }[];
  /** Every CPU in the order in which it is drawn. */
  cpus: Cpu[];
}

/** Where a thread that deviates may run, or did run, and should not; where that is nowhere, where it does run. */
export function astray(thread: ThreadVerdict): number[] {
  const planned = new Set(thread.planned);
  const strange = [...new Set([...thread.observed, thread.last])].filter((cpu) => !planned.has(cpu));
  return strange.length > 0 ? strange : thread.observed;
}

/** Where a thread that deviates was planned and may not run. */
function missing(thread: ThreadVerdict): number[] {
  return thread.planned.filter((cpu) => !thread.observed.includes(cpu));
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let found = map.get(key);
  if (found === undefined) {
    found = make();
    map.set(key, found);
  }
  return found;
}

function usesByCpu(node: NodePlacement): Map<number, Use[]> {
  const ranks = new Map(node.ranks.map(({ local_rank, rank }) => [local_rank, rank]));
  const found = new Map<number, Use[]>();
  for (const plan of node.placement?.ranks ?? []) {
    for (const role of ROLES) {
      for (const cpu of new Set(cpusOf(plan, role))) {
        const uses = entry(found, cpu, () => []);
        const known = uses.find((use) => use.localRank === plan.local_rank);
        if (known) known.roles.push(role);
        else uses.push({ rank: ranks.get(plan.local_rank) ?? plan.local_rank, localRank: plan.local_rank, roles: [role] });
      }
    }
  }
  return found;
}

export function nodeMap(node: NodePlacement): NodeMap {
  const { topology } = node;
  if (topology == null) return { sockets: [], bare: [], cpus: [] };
  const uses = usesByCpu(node);
  const spare = new Set(node.placement?.spare);
  const granted = new Set(node.ranks.flatMap((rank) => rank.granted));
  const ran = new Map<number, SeenThread[]>();
  const deviating = new Map<number, SeenThread[]>();
  const missed = new Map<number, SeenThread[]>();
  for (const { rank, verdict } of node.ranks) {
    for (const thread of verdict?.threads ?? []) {
      entry(ran, thread.last, () => []).push({ rank, thread });
      if (thread.deviation === "") continue;
      for (const cpu of astray(thread)) entry(deviating, cpu, () => []).push({ rank, thread });
      for (const cpu of missing(thread)) entry(missed, cpu, () => []).push({ rank, thread });
    }
  }

  const sockets = new Map<number, Map<number, Map<number, Cpu[][]>>>();
  for (const core of topology.cores) {
    const domains = entry(sockets, core.socket, () => new Map<number, Map<number, Cpu[][]>>());
    const groups = entry(domains, core.numa, () => new Map<number, Cpu[][]>());
    const made = core.cpus.map((cpu) => ({
      cpu,
      socket: core.socket,
      numa: core.numa,
      uses: uses.get(cpu) ?? [],
      granted: granted.has(cpu) || uses.has(cpu) || spare.has(cpu),
      spare: spare.has(cpu),
      ran: ran.get(cpu) ?? [],
      deviating: deviating.get(cpu) ?? [],
      missed: missed.get(cpu) ?? [],
    }));
    entry(groups, core.l3, () => []).push(made);
  }
  const withCores = new Set(topology.cores.map((core) => core.numa));
  const memory = new Map(topology.numa.map((domain) => [domain.number, domain.memory]));
  return {
    sockets: [...sockets].map(([socket, domains]) => ({
      socket,
      domains: [...domains].map(([numa, groups]) => ({
        numa,
        memory: memory.get(numa) ?? null,
        cards: topology.cards.filter((card) => card.numa === numa).map((card) => card.name),
        groups: [...groups].map(([l3, cores]) => ({ l3, cores })),
      })),
    })),
    bare: topology.numa.filter((domain) => !withCores.has(domain.number)).map(({ number, memory: size }) => ({ numa: number, memory: size })),
    // As drawn: a domain's cores together, whatever order the machine counts them in.
    cpus: [...sockets.values()].flatMap((domains) => [...domains.values()].flatMap((groups) => [...groups.values()].flat(2))),
  };
}
