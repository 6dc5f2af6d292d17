// The colours of a canvas: it cannot read custom properties by itself, so they are looked up, and again when the
// system turns light or dark.
import { useSyncExternalStore } from "react";

const dark = "(prefers-color-scheme: dark)";

function subscribe(listener: () => void): () => void {
  const query = window.matchMedia(dark);
  query.addEventListener("change", listener);
  return () => query.removeEventListener("change", listener);
}

/** "light" or "dark"; a component that uses it draws again when that changes. */
export function useScheme(): "light" | "dark" {
  return useSyncExternalStore(subscribe, () => (window.matchMedia(dark).matches ? "dark" : "light"));
}

export function color(property: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(property).trim();
}

/** The same colour, `alpha` (0 to 1) opaque. */
export function translucent(property: string, alpha: number): string {
  return `color-mix(in srgb, ${color(property)} ${alpha * 100}%, transparent)`;
}
