// The parts of a job's page, as they stand in its address.

export const TABS = ["overview", "placement", "timeline", "attempts", "script", "log", "spec"] as const;
export type Tab = (typeof TABS)[number];

export const TAB_NAMES: Record<Tab, string> = {
  overview: "Overview",
  placement: "Placement",
  timeline: "Timeline",
  attempts: "Attempts",
  script: "Script",
  log: "Log",
  spec: "Spec",
};

export function tabFrom(value: unknown): Tab | undefined {
  return TABS.find((tab) => tab === value);
}
