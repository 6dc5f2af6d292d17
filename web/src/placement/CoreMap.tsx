// The map of a node: a box per hardware thread, in its core, cache group, NUMA domain and socket. One stop for the Tab
// key; the arrow keys move within.
import { memo, useRef, type KeyboardEvent } from "react";
import { bytes } from "../format/numbers";
import type { Cpu, Domain, NodeMap } from "./map";
import { mark, spoken } from "./words";

/** Colours come again after so many ranks; the number in the box does not. */
export const COLOURS = 6;

interface Props {
  map: NodeMap;
  name: string;
  chosen: number;
  choose: (cpu: number) => void;
}

function look(cpu: Cpu): string {
  const [first] = cpu.uses;
  if (first === undefined) return cpu.spare ? "spare" : "foreign";
  const role = first.roles.includes("compute") ? "compute" : first.roles.includes("loader") ? "loader" : "communication";
  return `${role} of-rank-${first.localRank % COLOURS}`;
}

export function CoreMap({ map, name, chosen, choose }: Props) {
  const root = useRef<HTMLDivElement>(null);

  const onKeyDown = (event: KeyboardEvent) => {
    const at = map.cpus.findIndex(({ cpu }) => cpu === chosen);
    const steps: Record<string, number> = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: map.cpus.length - 1 };
    const to = steps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = map.cpus[to];
    if (next === undefined) return;
    choose(next.cpu);
    root.current?.querySelector<HTMLElement>(`[data-cpu="${next.cpu}"]`)?.focus();
  };

  return (
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions -- the boxes are buttons; their keys bubble up to here
    <div className="core-map" ref={root} onKeyDown={onKeyDown}>
      <p className="sr-only">The boxes below are the CPUs of {name}. Arrow keys go from one to the next.</p>
      {map.sockets.map(({ socket, domains }) => (
        <div key={socket} className="socket" role="group" aria-label={`Socket ${socket}`}>
          <h3>Socket {socket}</h3>
          <div className="domains">
            {domains.map((domain) => (
              <DomainBox key={domain.numa} domain={domain} chosen={chosen} choose={choose} />
            ))}
          </div>
        </div>
      ))}
      {map.bare.map(({ numa, memory }) => (
        <p key={numa} className="page-note">
          NUMA domain {numa}: {bytes(memory)} of memory, no cores
        </p>
      ))}
    </div>
  );
}

function DomainBox({ domain, chosen, choose }: { domain: Domain; chosen: number; choose: (cpu: number) => void }) {
  const { numa, memory, cards, groups } = domain;
  return (
    <div className="domain" role="group" aria-label={`NUMA domain ${numa}`}>
      <p className="domain-name">
        NUMA {numa}
        <span className="dim">
          {memory !== null && ` ${bytes(memory)}`}
          {cards.length > 0 && ` · ${cards.join(", ")}`}
        </span>
      </p>
      <div className="l3-groups">
        {groups.map(({ l3, cores }) => (
          <div key={l3} className="l3" role="group" aria-label={`Cores that share cache ${l3}`}>
            {cores.map((core) => (
              <div key={core[0]?.cpu} className="core">
                {core.map((cpu) => (
                  <Box key={cpu.cpu} cpu={cpu} chosen={cpu.cpu === chosen} choose={choose} />
                ))}
              </div>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

const Box = memo(function Box({ cpu, chosen, choose }: { cpu: Cpu; chosen: boolean; choose: (cpu: number) => void }) {
  const deviates = cpu.deviating.length > 0;
  const take = () => choose(cpu.cpu);
  return (
    <button
      type="button"
      className={`cpu ${look(cpu)}${deviates ? " deviates" : ""}${cpu.missed.length > 0 ? " missed" : ""}`}
      tabIndex={chosen ? 0 : -1}
      aria-label={spoken(cpu)}
      aria-current={chosen}
      data-testid="cpu"
      data-cpu={cpu.cpu}
      data-deviates={deviates}
      onFocus={take}
      onMouseEnter={take}
    >
      {mark(cpu)}
      {deviates && <span className="cpu-flag">!</span>}
    </button>
  );
});
