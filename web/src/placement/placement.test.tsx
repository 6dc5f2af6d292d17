// @vitest-environment jsdom
// From what ranks tell of their threads to a map and to sentences that a person can act on.
import { cleanup, render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { JobPlacement, NodePlacement, ThreadVerdict, Verdicts } from "../api/types";
import { CoreMap } from "./CoreMap";
import { CpuDetails } from "./CpuDetails";
import { cpuList, cpuWords } from "./cpus";
import { nodeMap } from "./map";
import { letterOf } from "./roles";
import { ThreadTable } from "./ThreadTable";
import { LOOKS, VerdictBadge } from "./VerdictBadge";
import { VerdictSummary } from "./VerdictSummary";
import { counted, mark, sentences, spoken, summary, whose } from "./words";

afterEach(cleanup);

const SENTENCE = "Horovod’s thread may run on CPUs 0,1, planned was CPU 3";

function thread(role: string, planned: number[], observed = planned, deviation = ""): ThreadVerdict {
  return { tid: 100 + (planned[0] ?? 0), role, name: "python3", planned, observed, last: observed[0] ?? 0, deviation };
}

/** Two sockets of two cores of two threads, numbered as Intel does; a rank on each, the second one's Horovod astray. */
function node(over: Partial<NodePlacement> = {}): NodePlacement {
  const core = (cpus: number[], socket: number) => ({ cpus, socket, numa: socket, l3: socket });
  const plan = (local_rank: number, first: number) => ({
    local_rank,
    compute: [first],
    communication: { horovod: [first + 1], gloo: [first + 1], exchange: [], ccl: [] },
    loader: [first + 4],
    numa: [local_rank],
    memory: { policy: "local", domains: [] },
    degraded: [],
  });
  const verdict = (rank: number, threads: ThreadVerdict[]) => {
    const deviations = threads.flatMap(({ deviation }) => (deviation ? [deviation] : []));
    const result = deviations.length > 0 ? ("deviates" as const) : ("as planned" as const);
    return { rank, local_rank: rank % 2, node: "node2", when: "init", result, threads, left_out: 0, deviations, degradations: [] };
  };
  return {
    node: "node2",
    result: "deviates",
    topology: {
      cores: [core([0, 4], 0), core([1, 5], 0), core([2, 6], 1), core([3, 7], 1)],
      numa: [0, 1, 2].map((number) => ({ number, memory: 2 ** 30, distances: [] })),
      cards: [{ name: "eth0", numa: 1 }],
      offline: [],
      name: "",
    },
    placement: { ranks: [plan(0, 0), plan(1, 2)], spare: [5, 7], warnings: [], policy: "last" },
    grant: [],
    ranks: [
      { rank: 2, local_rank: 0, granted: [0, 1, 4, 5], verdict: verdict(2, [thread("main", [0]), thread("horovod", [1])]) },
      { rank: 3, local_rank: 1, granted: [2, 3, 6, 7], verdict: verdict(3, [thread("main", [2]), thread("horovod", [3], [0, 1], SENTENCE)]) },
    ],
    ...over,
  };
}

function at(cpu: number, of = node()) {
  const found = nodeMap(of).cpus.find((one) => one.cpu === cpu);
  if (found === undefined) throw new Error(`no CPU ${cpu}`);
  return found;
}

it("CPUs are written as Linux writes them", () => {
  expect(cpuList([3, 0, 1, 2, 8, 2])).toBe("0-3,8");
  expect(cpuList([1, 2])).toBe("1,2");
  expect([cpuWords([]), cpuWords([7]), cpuWords([1, 7])]).toEqual(["no CPU", "CPU 7", "CPUs 1,7"]);
});

describe("the map", () => {
  it("has sockets, NUMA domains and cores in the machine's order, and domains of memory alone beside them", () => {
    const map = nodeMap(node());
    expect(map.sockets.map(({ domains }) => domains.map(({ numa, cards }) => [numa, cards]))).toEqual([[[0, []]], [[1, ["eth0"]]]]);
    expect(map.cpus.map(({ cpu }) => cpu)).toEqual([0, 4, 1, 5, 2, 6, 3, 7]);
    expect(map.bare.map(({ numa }) => numa)).toEqual([2]);
  });

  it("says of each CPU whose it is and what for", () => {
    expect([0, 1, 4, 5].map((cpu) => mark(at(cpu)))).toEqual(["0c", "0+", "0L", "-"]);
    expect(spoken(at(3))).toContain("CPU 3, rank 3: Horovod’s background thread, Gloo’s socket thread");
    expect(spoken(at(5))).toBe("CPU 5, spare: planned for nothing");
  });

  it("has a letter for a CPU that serves more than one purpose, as the terminal's picture has", () => {
    expect(letterOf(["horovod"])).toBe("H");
    expect(letterOf(["horovod", "gloo"])).toBe("+");
    expect(letterOf(["compute", "gloo"])).toBe("*");
    const shared = node().placement?.ranks.map((plan) => ({ ...plan, compute: [0] })) ?? [];
    expect(mark(at(0, node({ placement: { ranks: shared, spare: [], warnings: [], policy: "none" } })))).toBe("0…c");
  });

  it("tells CPUs of others from spare ones", () => {
    const part = node({ placement: { ...node().placement, spare: [] } as NodePlacement["placement"] });
    const other = { ...part, ranks: part.ranks.map((rank) => ({ ...rank, granted: rank.granted.filter((cpu) => cpu !== 5) })) };
    expect([at(5, other).granted, spoken(at(5, other))]).toEqual([false, "CPU 5, not given to this job"]);
  });

  it("marks where a thread runs that should not, and where it is missed", () => {
    const map = nodeMap(node());
    expect(map.cpus.filter(({ deviating }) => deviating.length > 0).map(({ cpu }) => cpu)).toEqual([0, 1]);
    expect(map.cpus.filter(({ missed }) => missed.length > 0).map(({ cpu }) => cpu)).toEqual([3]);
    expect(spoken(at(0))).toContain(SENTENCE);
  });

  it("marks a thread that ran elsewhere though its mask is right, and one that may not use all of its CPUs", () => {
    const ran = { ...thread("gloo", [3], [3], "ran on CPU 2"), last: 2 };
    const less = thread("main", [2, 3], [2], "may not run on CPU 3");
    for (const [seen, where] of [[ran, [2]], [less, [2]]] as const) {
      const [first, second] = node().ranks;
      if (first === undefined || second?.verdict == null) throw new Error("no ranks");
      const of = node({ ranks: [first, { ...second, verdict: { ...second.verdict, threads: [seen] } }] });
      expect(nodeMap(of).cpus.filter(({ deviating }) => deviating.length > 0).map(({ cpu }) => cpu)).toEqual(where);
    }
  });

  it("is empty where a node has not told its machine", () => {
    expect(nodeMap(node({ topology: null, placement: null })).cpus).toEqual([]);
  });

  function Shown({ of = node() }: { of?: NodePlacement }) {
    const map = nodeMap(of);
    const [chosen, setChosen] = useState(0);
    return (
      <>
        <CoreMap map={map} name="node2" chosen={chosen} choose={setChosen} />
        <CpuDetails cpu={map.cpus.find(({ cpu }) => cpu === chosen) ?? at(0)} />
        <ThreadTable node={of} />
      </>
    );
  }

  it("is one stop for the Tab key and walked by arrows, with the CPU's threads beside it", async () => {
    render(<Shown />);
    await userEvent.tab();
    expect(document.activeElement?.getAttribute("data-cpu")).toBe("0");
    expect(screen.getByTestId("cpu-details").textContent).toContain(SENTENCE);
    await userEvent.keyboard("{ArrowRight}{ArrowRight}{ArrowRight}");
    expect(document.activeElement?.getAttribute("data-cpu")).toBe("5");
    await userEvent.keyboard("{End}{ArrowRight}");
    expect(document.activeElement?.getAttribute("data-cpu")).toBe("7");
    await userEvent.hover(screen.getByRole("button", { name: /^CPU 3,/ }));
    expect(screen.getByTestId("cpu-details").textContent).toContain("allowed CPUs 0,1, last ran on CPU 0");
    await userEvent.tab();
    expect(document.activeElement?.tagName).toBe("SUMMARY");
  });

  it("needs no colour for a deviation", () => {
    render(<Shown />);
    const box = screen.getByRole("button", { name: /^CPU 0,/ });
    expect(within(box).getByText("!")).toBeTruthy();
    expect(box.getAttribute("data-deviates")).toBe("true");
    expect(screen.getByRole("group", { name: "NUMA domain 1" })).toBeTruthy();
  });

  it("shows a thread's name as the text that it is", async () => {
    const nasty = '<img src=x onerror="alert(1)">';
    const [first, second] = node().ranks;
    if (first?.verdict == null || second === undefined) throw new Error("no ranks");
    const named = { ...first, verdict: { ...first.verdict, threads: [{ ...thread("main", [0]), name: nasty, deviation: nasty }] } };
    const { container } = render(<Shown of={node({ ranks: [named, second] })} />);
    await userEvent.click(screen.getByText(/All 3 threads of/));
    expect(container.querySelector("img")).toBeNull();
    expect(container.textContent.split(nasty).length).toBeGreaterThan(4);
    expect(screen.getAllByTestId("thread-row")[0]?.textContent).toContain(nasty);
  });
});

describe("the verdict", () => {
  const job = (over: Partial<JobPlacement> = {}): JobPlacement => ({ attempt: 1, result: "deviates", nodes: [node()], ...over });
  const counts = (over: Partial<Verdicts>): Verdicts => ({ as_planned: 0, degraded: 0, deviates: 0, ranks: 4, revision: 1, ...over });

  it("has a word and a shape of its own, so that its colour is not needed", () => {
    const { container } = render(([null, "as planned", "degraded", "deviates"] as const).map((one) => <VerdictBadge key={one} result={one} />));
    const shapes = [...container.querySelectorAll("path")].map((path) => path.getAttribute("d"));
    expect(new Set(shapes).size).toBe(4);
    for (const { word } of Object.values(LOOKS)) expect(screen.getByText(word)).toBeTruthy();
  });

  it("says how many ranks of how many", () => {
    expect(summary(null, null)).toContain("No rank has said yet");
    expect(summary("as planned", counts({ as_planned: 4 }))).toBe("Every thread of all 4 ranks sits where it was planned.");
    expect(summary("as planned", counts({ as_planned: 1, ranks: 1 }))).toBe("Every thread of the rank sits where it was planned.");
    expect(summary("degraded", counts({ as_planned: 2, degraded: 2 }))).toContain("the plan of 2 of 4 ranks");
    expect(summary("deviates", counts({ as_planned: 3, deviates: 1 }))).toContain("1 of 4 ranks do not");
    expect(summary(null, counts({ as_planned: 2 }))).toContain("2 of 4 ranks have said where their threads sit; none");
    expect(summary(null, counts({ deviates: 1 }))).toContain("of 1 of them they are not as planned");
    expect(summary(null, counts({}))).toContain("The plan is known");
    expect(counted(job())).toMatchObject({ as_planned: 1, deviates: 1, ranks: 2 });
  });

  it("has a sentence for everything that is wrong, once per node, the worst first", () => {
    const ranks = node().ranks.map((rank) => ({ ...rank, verdict: rank.verdict ? { ...rank.verdict, degradations: ["one core for everything"] } : null }));
    const found = sentences(job({ nodes: [node({ ranks, grant: ["nothing was bound", SENTENCE] })] }));
    expect(found.map((one) => [one.kind, whose(one), one.text])).toEqual([
      ["deviation", "node2, rank 3", SENTENCE],
      ["grant", "node2", "nothing was bound"],
      ["degradation", "node2, ranks 2, 3", "one core for everything"],
    ]);
  });

  it("shows many sentences when they are asked for", async () => {
    const grant = Array.from({ length: 30 }, (_, index) => `wrong ${index}`);
    render(<VerdictSummary placement={job({ nodes: [node({ grant })] })} counts={counts({ deviates: 4 })}>{null}</VerdictSummary>);
    expect(screen.getAllByTestId("sentence")).toHaveLength(8);
    await userEvent.click(screen.getByRole("button", { name: "Show all 31" }));
    expect(screen.getAllByTestId("sentence")).toHaveLength(31);
  });
});
