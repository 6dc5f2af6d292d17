"""Placements and verdicts as ranks report them, made of the real values: for the service's and the page's tests."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import (
    STOPPED,
    Claim,
    Exit,
    as_json,
    claim_file,
    exit_file,
    make_run_directory,
    spool_file,
)
from lockstep_slurm.job.writing import write_whole
from lockstep_slurm.placement import (
    Card,
    Communication,
    Core,
    Memory,
    NumaDomain,
    Placement,
    RankPlacement,
    ThreadVerdict,
    Topology,
    Verdict,
)

Json = dict[str, Any]


def machine(
    *, sockets: int = 2, numa_per_socket: int = 1, l3_per_numa: int = 1, cores_per_l3: int = 4, smt: int = 2
) -> Topology:
    """A machine that numbers its CPUs as Intel's firmware does: first threads of all cores, then the second ones."""
    count = sockets * numa_per_socket * l3_per_numa * cores_per_l3
    domains = sockets * numa_per_socket
    return Topology(
        cores=tuple(
            Core(
                cpus=tuple(core + thread * count for thread in range(smt)),
                socket=core * sockets // count,
                numa=core * domains // count,
                l3=core // cores_per_l3,
            )
            for core in range(count)
        ),
        numa=tuple(NumaDomain(number, 64 << 30) for number in range(domains)),
        cards=(Card("eth0", domains - 1),),
    )


def shares(topology: Topology, ranks: int, *, degraded: str = "") -> Placement:
    """Equal shares of whole cores; a rank's last core serves Horovod's and Gloo's threads, its first one a loader."""
    each = len(topology.cores) // ranks
    plans = []
    for rank in range(ranks):
        cores = topology.cores[rank * each : (rank + 1) * each]
        plans.append(
            RankPlacement(
                local_rank=rank,
                compute=tuple(core.cpus[0] for core in cores[:-1]),
                communication=Communication(horovod=(cores[-1].cpus[0],), gloo=(cores[-1].cpus[-1],)),
                loader=tuple(core.cpus[-1] for core in cores[:1]) if len(cores[0].cpus) > 1 else (),
                numa=tuple(dict.fromkeys(core.numa for core in cores)),
                memory=Memory("preferred", tuple(dict.fromkeys(core.numa for core in cores))),
                degraded=(degraded,) if degraded else (),
            )
        )
    used = {cpu for plan in plans for cpu in plan.cpus}
    return Placement(tuple(plans), spare=tuple(cpu for cpu in topology.cpus if cpu not in used))


def verdict(
    plan: RankPlacement, *, rank: int, node: str, when: str = "init", moved: Mapping[str, Sequence[int]] | None = None
) -> Verdict:
    """A rank's verdict: every thread as planned, but for the roles in ``moved``, which were seen on those CPUs."""
    planned = [("main", plan.compute)] + [("compute", (cpu,)) for cpu in plan.compute[1:]]
    planned += [(role, cpus) for role, cpus in vars(plan.communication).items() if cpus]
    planned += [("loader", plan.loader)] if plan.loader else []
    threads = []
    for number, (role, cpus) in enumerate(planned):
        seen = tuple((moved or {}).get(role, cpus))
        sentence = "" if seen == cpus else f"{role} may run on {list(seen)}, planned was {list(cpus)}"
        threads.append(ThreadVerdict(1000 * (rank + 1) + number, role, "python3", cpus, seen, seen[0], sentence))
    deviations = tuple(thread.deviation for thread in threads if thread.deviation)
    result = "deviates" if deviations else "degraded" if plan.degraded else "as planned"
    return Verdict(rank, plan.local_rank, node, when, result, tuple(threads), deviations, plan.degraded)


def placement_values(
    node: str, topology: Topology, placement: Placement, first_rank: int, grant: Sequence[str] = (), attempt: int = 1
) -> Json:
    """The values of a node's ``placement`` record."""
    document = {
        "version": 2,
        "attempt": attempt,
        "node": node,
        "ranks": [
            {
                "rank": first_rank + plan.local_rank,
                "local_rank": plan.local_rank,
                "pid": 1000 * (first_rank + plan.local_rank + 1),
                "granted": list(topology.cpus),
            }
            for plan in placement.ranks
        ],
        "topology": topology.document(),
        "placement": placement.document(),
        "grant": list(grant),
    }
    return {"node": node, "document": json.dumps(document)}


def verdict_values(found: Verdict) -> Json:
    """The values of a rank's ``verdict`` record."""
    return {
        "node": found.node,
        "local_rank": found.local_rank,
        "when": found.when,
        "result": found.result,
        "deviations": len(found.deviations),
        "document": json.dumps(found.document()),
    }


class RunOnNodes:
    """A run by hand on nodes of two ranks each that lives as long as this process does, without any rank."""

    def __init__(self, runs: Path, topology: Topology, nodes: int = 2) -> None:
        self.topology = topology
        self.plan = shares(topology, 2)
        self.nodes = tuple(f"node{number + 1}" for number in range(nodes))
        spec = {"name": "placed", "training": {"model": "digits-mlp", "data": "digits", "epochs": 2}}
        self.run = make_run_directory(runs, new_job_id(), json.dumps(spec), "#!/bin/bash\n", by_hand=True)
        self.attempt = 0
        self._seqs: dict[tuple[int, int], int] = {}
        self.begin()

    def begin(self, *, lost: bool = False) -> None:
        """The next attempt is claimed, and what is told from here on is told of it; then the one before has ended.

        ``lost``: as on a node that failed, without an exit record.
        """
        before = self.attempt
        self.attempt += 1
        claim = Claim(
            attempt=self.attempt, fence=self.attempt, slurm_job_id=None, restart_count=before, cluster="site",
            node=self.nodes[0], nodes=self.nodes, ranks=2 * len(self.nodes), host=socket.gethostname(), pid=os.getpid(),
            claimed=time.time(), local_id="l",
        )  # fmt: skip
        write_whole(claim_file(self.run, self.attempt), as_json(claim))
        if before and not lost:
            self._end(before, Exit(before, before, STOPPED, None, 0, self.nodes[0], "told to stop", time.time()))

    def tell(self, rank: int, kind: str, values: Json, step: int | None = None) -> None:
        """A record of this rank in its node's spool."""
        attempt = self.attempt
        seq = self._seqs[attempt, rank] = self._seqs.get((attempt, rank), 0) + 1
        record = {"v": 1, "attempt": attempt, "rank": rank, "seq": seq, "time": time.time(), "kind": kind, "step": step}
        file = spool_file(self.run, attempt, self.nodes[rank // 2])
        file.parent.mkdir(exist_ok=True)
        with file.open("a") as opened:
            opened.write(json.dumps(record | {"values": values}) + "\n")

    def tell_plan(self, node: int, grant: Sequence[str] = ()) -> None:
        """The node's placement, as its first rank tells it."""
        values = placement_values(self.nodes[node], self.topology, self.plan, 2 * node, grant)
        self.tell(2 * node, "placement", values)

    def tell_verdict(self, rank: int, moved: Mapping[str, Sequence[int]] | None = None) -> Verdict:
        """The rank's verdict."""
        found = verdict(self.plan.ranks[rank % 2], rank=rank, node=self.nodes[rank // 2], moved=moved)
        self.tell(rank, "verdict", verdict_values(found))
        return found

    def end(self, code: int = 0) -> None:
        """The run's end, with this exit code, so that nothing more is looked for."""
        self._end(self.attempt, Exit(self.attempt, self.attempt, code, None, 0, self.nodes[0], None, time.time()))

    def _end(self, attempt: int, ended: Exit) -> None:
        claim = claim_file(self.run, attempt)
        write_whole(claim, json.dumps(json.loads(claim.read_text()) | {"pid": 2**22 + 1}))
        write_whole(exit_file(self.run, attempt), as_json(ended))
