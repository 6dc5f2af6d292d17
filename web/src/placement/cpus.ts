// CPU numbers as Linux writes them: 0-3,8.

export function cpuList(cpus: readonly number[]): string {
  const sorted = [...new Set(cpus)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    const first = sorted[i] ?? 0;
    let last = first;
    while (sorted[i + 1] === last + 1) {
      last += 1;
      i += 1;
    }
    i += 1;
    parts.push(first === last ? String(first) : last === first + 1 ? `${first},${last}` : `${first}-${last}`);
  }
  return parts.join(",");
}

/** "CPU 3", "CPUs 0-3,8", "no CPU" */
export function cpuWords(cpus: readonly number[]): string {
  if (cpus.length === 0) return "no CPU";
  return `${cpus.length === 1 ? "CPU" : "CPUs"} ${cpuList(cpus)}`;
}
