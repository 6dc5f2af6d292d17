// How many jobs run, as far as the rows that are shown tell: older ones may run as well.

export interface Running {
  /** For the browser's tab. */
  title: string;
  /** Beside the heading; empty where there is nothing to say. */
  note: string;
}

/** `more`: whether there are jobs that are not shown. */
export function running(count: number, shown: number, more: boolean): Running {
  if (count === 0) return { title: "Jobs", note: "" };
  if (!more) return { title: `${count} running`, note: `${count} running` };
  return { title: `${count}+ running`, note: `${count} of the ${shown} shown ${count === 1 ? "is" : "are"} running` };
}
