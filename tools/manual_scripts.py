"""Makes the scripts of docs/manual-scripts, and the part of docs/manual-scripts.md that shows them.

    .venv/bin/python tools/manual_scripts.py

``lstopo`` (Debian: hwloc-nox) describes the machines. A test holds the files to what this makes.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.job import file as spec_file
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.standalone import describe, render_standalone
from lockstep_slurm.placement import Placement, Topology, from_xml, plan, request_of
from lockstep_slurm.placement.cpulist import compress

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "manual-scripts"
PAGE = DOCS / "manual-scripts.md"
BEGIN, END = "<!-- begin: made by tools/manual_scripts.py -->\n", "<!-- end -->\n"
# As a site might have it: Lockstep's packages in this Python, so that nothing else has to be on the nodes.
SITE = ScriptSite(python="/opt/lockstep/bin/python", runs="/scratch/me/runs")


@dataclass(frozen=True)
class Machine:
    """A kind of node, as lstopo can make one up."""

    name: str
    title: str
    synthetic: str
    remark: str

    @property
    def describing(self) -> list[str]:
        """The command that describes it."""
        return ["lstopo", "--input", self.synthetic, "--of", "xml"]


MACHINES = (
    Machine(
        "2x28-smt2",
        "2 x 28 cores, two hardware threads each",
        "pack:2 numa:1 core:28 pu:2(indexes=core)",
        "A rank on each socket. Its last core communicates, on both hardware threads; the second hardware threads of "
        "the others rest.",
    ),
    Machine(
        "2x64-8-domains",
        "2 x 64 cores, four NUMA domains per socket",
        "pack:2 numa:4 l3:2 core:8 pu:1",
        "A rank in each NUMA domain, with its memory there. Without a second hardware thread, each communication "
        "thread takes a core.",
    ),
    Machine(
        "1x64-smt4",
        "One socket of 64 cores, four hardware threads each",
        "pack:1 numa:1 core:64 pu:4(indexes=core)",
        'One rank, and each of its OpenMP threads on a core of its own (`threads = "cpu"`).',
    ),
    Machine(
        "4-ranks",
        "2 x 28 cores, four ranks",
        "pack:2 numa:1 core:28 pu:2(indexes=core)",
        "Two ranks on each socket. With the policy `sibling` all cores compute, and communication threads sit on "
        "second hardware threads.",
    ),
)


def made() -> dict[Path, str]:
    """Every file, with what has to be in it."""
    files: dict[Path, str] = {}
    sections = []
    for machine in MACHINES:
        spec = spec_file.read(FOLDER / f"{machine.name}.toml")
        xml = subprocess.run(machine.describing, capture_output=True, text=True, check=True).stdout
        topology = from_xml(xml)
        placement = plan(topology, topology.cpus, request_of(spec.model_dump(), ranks=spec.placement.ranks_per_node))
        files[FOLDER / f"{machine.name}-standalone.sbatch"] = render_standalone(spec, SITE, topology, placement)
        files[FOLDER / f"{machine.name}.sbatch"] = render(spec, SITE)
        sections.append(_section(machine, topology, placement))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    files[PAGE] = before + BEGIN + "\n".join(sections) + END + after
    return files


def _section(machine: Machine, topology: Topology, placement: Placement) -> str:
    rows = "\n".join(
        f"| {rank.local_rank} | {compress(rank.compute)} | {compress(rank.communication.cpus)} "
        f"| {compress(rank.numa)} |"
        for rank in placement.ranks
    )
    name, threads, ranks = machine.name, len(placement.ranks[0].compute), len(placement.ranks)
    each = f"{ranks} ranks per node of {threads} OpenMP threads each" if ranks > 1 else f"1 rank of {threads} threads"
    links = [
        f"The spec: [{name}.toml](manual-scripts/{name}.toml).",
        f"Without Lockstep on the nodes: [{name}-standalone.sbatch](manual-scripts/{name}-standalone.sbatch).",
        f"With it: [{name}.sbatch](manual-scripts/{name}.sbatch).",
    ]
    return f"""## {machine.title}
{describe(topology)}; {each}.
{machine.remark}

    lstopo --input "{machine.synthetic}" --of xml > node.xml
    lockstep script {name}.toml --standalone --topology node.xml --python {SITE.python} > {name}-standalone.sbatch

| local rank | computes on | communicates on | NUMA |
|---|---|---|---|
{rows}

{chr(10).join(links)}
"""


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
