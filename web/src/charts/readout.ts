// What the chart says in words at one place of its axis.
import { placeOf, type Curve, type Table } from "./table";

export interface Reading {
  curve: Curve;
  /** Where on the axis the value was reported: a curve with fewer points than others holds its last one. */
  x: number;
  /** null: told, and not a number. */
  value: number | null;
  min: number | null;
  max: number | null;
}

/** The value as words. A loss that has become NaN must not read as the last one that was a number. */
export function said(value: number | null, format: (value: number) => string): string {
  return value === null ? "not a number" : format(value);
}

/** One reading per curve at `index` (null: at the end), from the newest attempt that has begun there. */
export function readings(table: Table, index: number | null): Reading[] {
  const found = new Map<string, Reading>();
  table.columns.forEach(({ curve, attempt, part }, column) => {
    if (part !== "value") return;
    const place = placeOf(table, column, index ?? table.data[0].length - 1);
    const at = (of: number) => (place === null || of < 0 ? null : (table.data[of + 1]?.[place] ?? null));
    if (place === null) return;
    const beside = (wanted: "min" | "max") =>
      at(table.columns.findIndex((one) => one.curve === curve && one.attempt === attempt && one.part === wanted));
    found.set(curve.name, { curve, x: table.data[0][place] ?? 0, value: at(column), min: beside("min"), max: beside("max") });
  });
  return [...found.values()];
}
