// Numbers as people read them, with their units. A value that is not known is a dash.

export const UNKNOWN = "–";

type Maybe = number | null | undefined;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const percents = new Map<number, Intl.NumberFormat>();

function known(value: Maybe): value is number {
  return value !== null && value !== undefined && Number.isFinite(value);
}

/** 12,345 */
export function count(value: Maybe): string {
  return known(value) ? grouped.format(value) : UNKNOWN;
}

/** Figures that matter and no more: 5,120 · 98.6 · 3.21 · 0.0034 · 1.2e-7 */
export function figure(value: Maybe, digits = 3): string {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0";
  // The form is chosen by what will be read: 999.7 is shown as 1,000.
  const size = Math.abs(Number(value.toPrecision(digits)));
  if (size >= 10 ** digits) return Math.abs(value) < 1e9 ? grouped.format(value) : value.toExponential(digits - 1);
  if (size < 1e-4) return value.toExponential(digits - 1);
  return value.toPrecision(digits);
}

/** A share of one as a percentage: 97.8 % */
export function percent(value: Maybe, digits = 1): string {
  if (!known(value)) return UNKNOWN;
  let format = percents.get(digits);
  if (format === undefined) {
    format = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits });
    percents.set(digits, format);
  }
  return format.format(value).replace("%", "\u202f%");
}

/** Seconds in the unit that suits them: 3.20 ms · 1.40 s */
export function seconds(value: Maybe): string {
  if (!known(value)) return UNKNOWN;
  if (value === 0) return "0 s";
  if (value < 1e-3) return `${figure(value * 1e6)} µs`;
  if (value < 1) return `${figure(value * 1e3)} ms`;
  return `${figure(value)} s`;
}

/** Bytes in binary units: 64.0 KiB */
export function bytes(value: Maybe): string {
  if (!known(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? grouped.format(rest) : figure(rest)} ${units[unit] ?? ""}`;
}

/** Bytes per second in decimal units, as network links are sold: 12.5 MB/s */
export function byteRate(value: Maybe): string {
  if (!known(value)) return UNKNOWN;
  const units = ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"];
  let unit = 0;
  let rest = value;
  while (Math.abs(rest) >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${figure(rest)} ${units[unit] ?? ""}`;
}

/** "1 node", "2 nodes" */
export function plural(value: number, noun: string): string {
  return `${grouped.format(value)} ${noun}${value === 1 ? "" : "s"}`;
}
