// Labels of an axis: one number of decimals for all, as few as tell neighbours apart.

/** The library's distances are 1, 2, 2.5 and 5 times a power of ten: a quarter of ten has a decimal more. */
function decimals(increment: number): number {
  const power = Math.floor(Math.log10(increment) + 1e-9);
  const quarter = Math.abs(increment / 10 ** power - 2.5) < 1e-6;
  return Math.min(8, Math.max(0, quarter ? 1 - power : -power));
}

/** 2.5M: with as many decimals of its own unit as tell neighbours apart. */
function compact(value: number, increment: number): string {
  const unit = 1000 ** Math.floor(Math.log10(Math.abs(value)) / 3 + 1e-9);
  return value.toLocaleString("en", { notation: "compact", maximumFractionDigits: decimals(increment / unit) });
}

/** `increment`: the distance between labels; on a logarithmic scale there is none, and null is given. */
export type Ticks = (values: readonly number[], increment: number | null) => string[];

function plainTick(value: number, increment: number | null): string {
  if (increment === null || (value !== 0 && Math.abs(value) < 1e-5)) return String(Number(value.toPrecision(3)));
  if (Math.abs(value) >= 1e6) return compact(value, increment);
  const digits = decimals(increment);
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const plainTicks: Ticks = (values, increment) => values.map((value) => plainTick(value, increment));

export const percentTicks: Ticks = (values, increment) =>
  values.map((value) => `${plainTick(value * 100, increment === null ? null : increment * 100)}\u202f%`);

const TIME_UNITS: [string, number][] = [
  ["s", 1],
  ["ms", 1e3],
  ["µs", 1e6],
];

const BYTE_UNITS: [string, number][] = [
  ["GB/s", 1e-9],
  ["MB/s", 1e-6],
  ["kB/s", 1e-3],
];

/** All labels in the unit that suits the largest, as `byteRate` has them. */
export const byteRateTicks: Ticks = (values, increment) => {
  const largest = Math.max(...values.map(Math.abs));
  const [unit, factor] = BYTE_UNITS.find(([, scale]) => largest * scale >= 1) ?? ["B/s", 1];
  return values.map((value) => `${plainTick(value * factor, increment === null ? null : increment * factor)} ${unit}`);
};

/** All labels in the unit that suits the largest. */
export const secondTicks: Ticks = (values, increment) => {
  const largest = Math.max(...values.map(Math.abs));
  const [unit, factor] = TIME_UNITS.find(([, scale]) => largest * scale >= 1) ?? ["µs", 1e6];
  return values.map((value) => `${plainTick(value * factor, increment === null ? null : increment * factor)} ${unit}`);
};

/** Running time like a clock's: 0:40 · 12:05 · 3:20:00 */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
