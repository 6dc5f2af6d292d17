// The log of an attempt, as it grows.
import { useState } from "react";
import type { Attempt } from "../api/types";
import { LogView } from "./LogView";

interface Props {
  id: string;
  name: string;
  attempts: readonly Attempt[];
  size: number | null;
}

export function LogTab({ id, name, attempts, size }: Props) {
  const [attempt, setAttempt] = useState<number | null>(null);
  return (
    // Another attempt's log is another text: a new key begins anew.
    <LogView key={`${attempt ?? "newest"} of ${attempts.length}`} id={id} name={name} attempt={attempt} size={size}>
      {attempts.length > 1 && (
        <label className="toggle">
          Attempt
          <select
            value={attempt ?? ""}
            onChange={(event) => setAttempt(event.target.value === "" ? null : Number(event.target.value))}
          >
            <option value="">newest</option>
            {attempts.map(({ number }) => (
              <option key={number} value={number}>
                {number}
              </option>
            ))}
          </select>
        </label>
      )}
    </LogView>
  );
}
