"""``scontrol``: hold, release and requeue; nodes, partitions, the configuration, and whether anybody answers."""

from __future__ import annotations

import re

from lockstep_slurm.client import values
from lockstep_slurm.client.protocol import SlurmNode, SlurmPartition, SlurmUnavailableError
from lockstep_slurm.client.runner import Runner, words

_SETTING = re.compile(r"^(\w+)\s*=\s?(.*)$", re.MULTILINE)
_BY = re.compile(r"\s*\[[^\[\]]*@[^\[\]]*\]$")


def change(runner: Runner, verb: str, job_id: int) -> None:
    """``uhold``, ``release`` or ``requeue`` of one job."""
    runner.ask(["scontrol", verb, str(job_id)])


def ping(runner: Runner) -> None:
    """Returns if the primary or a backup controller answers."""
    answer = runner.run(["scontrol", "ping"])
    if not re.search(r"\bis UP\b", answer.out):
        raise SlurmUnavailableError(f"scontrol ping: {words(answer)}")


def configuration(runner: Runner) -> dict[str, str]:
    """``scontrol show config`` as names and texts."""
    return dict(_SETTING.findall(runner.ask(["scontrol", "show", "config"])))


def nodes(runner: Runner) -> list[SlurmNode]:
    """Every node, hidden ones included."""
    return parse_nodes(runner.ask(["scontrol", "--all", "--oneliner", "show", "nodes"]))


def parse_nodes(out: str) -> list[SlurmNode]:
    """The nodes of ``scontrol --oneliner show nodes``."""
    return [_node(line) for line in out.splitlines() if line.startswith("NodeName=")]


def _node(line: str) -> SlurmNode:
    state, flags = values.node_state(_text(line, "State"))
    # Text that people write comes after the figures: the first match is never theirs.
    written = re.search(r" Reason=(.*)$", line)
    reason = _BY.sub("", written[1].rstrip()) if written else ""
    usable = _text(line, "CPUEfctv", _text(line, "CPUTot"))
    return SlurmNode(
        name=_text(line, "NodeName"),
        state=state,
        flags=flags,
        cpus=_figure(line, usable),
        sockets=_figure(line, _text(line, "Sockets", "1")),
        cores_per_socket=_figure(line, _text(line, "CoresPerSocket", "1")),
        threads_per_core=_figure(line, _text(line, "ThreadsPerCore", "1")),
        memory=_figure(line, _text(line, "RealMemory")),
        partitions=tuple(name for name in _text(line, "Partitions", "").split(",") if name),
        reason=values.words_or_none(reason),
    )


def partitions(runner: Runner) -> list[SlurmPartition]:
    """Every partition, hidden ones included."""
    return parse_partitions(runner.ask(["scontrol", "--all", "--oneliner", "show", "partition"]))


def parse_partitions(out: str) -> list[SlurmPartition]:
    """The partitions of ``scontrol --oneliner show partition``."""
    return [_partition(line) for line in out.splitlines() if line.startswith("PartitionName=")]


def _partition(line: str) -> SlurmPartition:
    limit = _text(line, "MaxTime", "UNLIMITED")
    return SlurmPartition(
        name=_text(line, "PartitionName"),
        state=_text(line, "State"),
        nodes=values.host_names(_text(line, "Nodes", "")),
        default=_text(line, "Default", "NO") == "YES",
        time_limit=None if limit == "UNLIMITED" else limit,
    )


def _text(line: str, key: str, otherwise: str | None = None) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    if found:
        return found[1]
    if otherwise is None:
        raise values.unreadable(f"no {key} in {line[:200]!r}")
    return otherwise


def _figure(line: str, text: str) -> int:
    if not text.isdigit():
        raise values.unreadable(f"{text!r} where a figure belongs, in {line[:200]!r}")
    return int(text)
