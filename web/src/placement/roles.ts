// What a CPU may be planned for: its letter on the map and its name in words. The letters are those of the picture that
// `lockstep plan` draws in a terminal (slurm/lockstep_slurm/placement/picture.py).
import type { RankPlan } from "../api/types";

export const ROLES = ["compute", "horovod", "gloo", "exchange", "ccl", "loader"] as const;
export type Role = (typeof ROLES)[number];

export const ROLE_LETTERS: Record<Role, string> = {
  compute: "c",
  horovod: "H",
  gloo: "G",
  exchange: "X",
  ccl: "W",
  loader: "L",
};
export const SEVERAL = "+";
export const BOTH = "*";
export const SPARE = "-";
export const FOREIGN = ".";

/** The letter of a CPU that is planned for all of these. */
export function letterOf(roles: readonly Role[]): string {
  const [only, ...more] = new Set(roles);
  if (only === undefined) return "";
  if (more.length === 0) return ROLE_LETTERS[only];
  return roles.includes("compute") || roles.includes("loader") ? BOTH : SEVERAL;
}

export const ROLE_NAMES: Record<Role, string> = {
  compute: "compute",
  horovod: "Horovod’s background thread",
  gloo: "Gloo’s socket thread",
  exchange: "Lockstep’s exchange thread",
  ccl: "oneCCL’s workers",
  loader: "data loader",
};

/** The CPUs that a rank's plan gives a role. */
export function cpusOf(plan: RankPlan, role: Role): readonly number[] {
  if (role === "compute") return plan.compute;
  return role === "loader" ? plan.loader : plan.communication[role];
}
