// The list says no more of running jobs than it knows.
import { expect, it } from "vitest";
import { running } from "./running";

it("counts them where all jobs are shown", () => {
  expect(running(3, 20, false)).toEqual({ title: "3 running", note: "3 running" });
  expect(running(0, 20, false)).toEqual({ title: "Jobs", note: "" });
});

it("says of what it counted them where there are more jobs than are shown", () => {
  expect(running(50, 50, true)).toEqual({ title: "50+ running", note: "50 of the 50 shown are running" });
  expect(running(1, 50, true).note).toBe("1 of the 50 shown is running");
  expect(running(0, 50, true)).toEqual({ title: "Jobs", note: "" });
});
