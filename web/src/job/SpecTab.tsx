// What the ranks follow: what was submitted, what the site filled in, and every default spelled out.
import type { JobWithSpec } from "../api/types";
import { CopyButton } from "../ui/CopyButton";

type Value = unknown;

function isSection(value: Value): value is Record<string, Value> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: Value): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "object" && Object.keys(value).length === 0) return "none";
  return typeof value === "string" ? value : JSON.stringify(value);
}

interface Props {
  spec: JobWithSpec["spec"];
  filled: readonly string[];
  runDir: string;
}

export function SpecTab({ spec, filled, runDir }: Props) {
  const entries = Object.entries(spec as Record<string, Value>);
  const plain = entries.filter(([, value]) => !isSection(value));
  const sections = entries.filter((entry): entry is [string, Record<string, Value>] => isSection(entry[1]));
  return (
    <section className="spec" data-testid="spec" aria-label="Spec">
      <div className="panel text-head">
        <span className="dim">Run directory</span> <span className="mono path">{runDir}</span>
        <CopyButton text={JSON.stringify(spec, null, 2)} label="the spec as JSON" />
      </div>
      <div className="spec-grid">
        <Section name="job" values={Object.fromEntries(plain)} filled={filled} />
        {sections.map(([name, values]) => (
          <Section key={name} name={name} values={values} filled={filled} />
        ))}
      </div>
    </section>
  );
}

function Section({ name, values, filled }: { name: string; values: Record<string, Value>; filled: readonly string[] }) {
  return (
    <section className="panel spec-section">
      <h3>{name}</h3>
      <dl>
        {Object.entries(values).map(([key, value]) => (
          <div key={key} className={value === null ? "unset" : undefined}>
            <dt>{key}</dt>
            <dd className="mono">
              {shown(value)}
              {filled.includes(`${name}.${key}`) && <span className="dim"> (from the site)</span>}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
