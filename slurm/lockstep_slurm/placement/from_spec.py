"""``request_of``: what a spec asks of one node, in placement's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from lockstep_slurm.placement.request import Request, Threads


def request_of(
    spec: Mapping[str, Any],
    *,
    ranks: int,
    card: Optional[str] = None,  # noqa: UP045 - read by Python 3.9 on compute nodes
) -> Request:
    """What ``spec`` (as spec.json holds it; what it leaves out has the spec's own defaults) asks of a node.

    ``ranks`` are those on this node, ``card`` the network interface that they use, where it is known. Raises
    ``ValueError`` for a backend that there is not.
    """
    placement, communication = spec.get("placement", {}), spec.get("communication", {})
    wanted = placement.get("communication_cpus", "auto")
    return Request(
        ranks=ranks,
        threads=_threads(communication, 1 if exchange_of(spec) == "lockstep" else 0),
        communication_cpus=None if wanted == "auto" else int(wanted),
        policy=placement.get("policy", "last"),
        loader_cpus=placement.get("loader_cpus", 0),
        smt=placement.get("smt", False),
        memory=placement.get("memory", "auto"),
        degrade=placement.get("on_shortage", "fail") == "degrade",
        cpus_per_rank=placement.get("cpus_per_rank"),
        card=communication.get("interface") if card is None else card,
    )


def exchange_of(spec: Mapping[str, Any]) -> str:
    """``lockstep`` where a rank has an exchange thread of ours, else ``horovod``.

    A built-in recipe has one unless ``spec`` says otherwise, a script only where it says so.
    """
    said = spec.get("communication", {}).get("exchange")
    return str(said or ("lockstep" if spec.get("training", {}).get("model") else "horovod"))


def _threads(communication: Mapping[str, Any], exchange: int) -> Threads:
    """The communication threads of a rank: Horovod's own always, Gloo's where its controller or the exchange has it."""
    backend = communication.get("backend", "gloo")
    if backend == "gloo":
        return Threads(horovod=1, gloo=1, exchange=exchange)
    if backend == "mpi":
        return Threads(horovod=1, gloo=1 if communication.get("transport") == "gloo" else 0, exchange=exchange)
    if backend == "ccl":
        return Threads(horovod=1, gloo=1, exchange=exchange, ccl=communication.get("ccl_workers", 1))
    raise ValueError(f"communication.backend is {backend!r}, which is none of gloo, mpi and ccl")
