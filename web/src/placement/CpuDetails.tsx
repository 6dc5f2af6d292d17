// What one CPU was planned for, and which threads ran on it or should not be there.
import { cpuWords } from "./cpus";
import type { Cpu, SeenThread } from "./map";
import { plannedWords } from "./words";

export function CpuDetails({ cpu }: { cpu: Cpu }) {
  const others = cpu.ran.filter(({ thread }) => thread.deviation === "");
  return (
    <aside className="cpu-details" data-testid="cpu-details" aria-label={`CPU ${cpu.cpu}`}>
      <h3>
        CPU {cpu.cpu}{" "}
        <span className="page-note">
          socket {cpu.socket}, NUMA {cpu.numa}
        </span>
      </h3>
      <p>
        <span className="dim">Planned:</span> {plannedWords(cpu)}
      </p>
      {cpu.deviating.map((seen) => (
        <ThreadLines key={`${seen.rank} ${seen.thread.tid}`} seen={seen} />
      ))}
      {cpu.missed.map((seen) => (
        <div key={`${seen.rank} ${seen.thread.tid}`}>
          <p className="missing">Planned for it, and elsewhere:</p>
          <ThreadLines seen={seen} />
        </div>
      ))}
      {others.map((seen) => (
        <ThreadLines key={`${seen.rank} ${seen.thread.tid}`} seen={seen} />
      ))}
      {cpu.deviating.length + cpu.missed.length + others.length === 0 && <p className="dim">No thread was last seen on it.</p>}
    </aside>
  );
}

function ThreadLines({ seen: { rank, thread } }: { seen: SeenThread }) {
  return (
    <dl className={thread.deviation === "" ? "thread" : "thread deviates"}>
      <dt>
        <span className="mono">{thread.name}</span>{" "}
        <span className="dim">
          {thread.role} of rank {rank}, thread {thread.tid}
        </span>
      </dt>
      <dd>
        planned <span className="mono">{cpuWords(thread.planned)}</span>, allowed <span className="mono">{cpuWords(thread.observed)}</span>, last
        ran on <span className="mono">{cpuWords([thread.last])}</span>
      </dd>
      {thread.deviation !== "" && <dd className="thread-deviation">{thread.deviation}</dd>}
    </dl>
  );
}
