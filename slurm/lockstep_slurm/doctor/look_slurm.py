"""Gathers the facts of the cluster through Slurm's own commands, at once and with deadlines."""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lockstep_slurm.client import scontrol
from lockstep_slurm.client.protocol import SlurmError
from lockstep_slurm.client.runner import Runner
from lockstep_slurm.client.squeue import EPOCH
from lockstep_slurm.doctor.cluster import Cluster, Limit, Node, Silence
from lockstep_slurm.filesystem import filesystem

T = TypeVar("T")
# Together below five seconds: one deadline for whether anybody answers, one for all the rest at once.
FIRST_SECONDS, REST_SECONDS = 3.5, 4.0
_LIMITS = ("MaxJobs", "MaxSubmit", "GrpJobs", "GrpSubmit")
_QOS_LIMITS = ("MaxJobsPU", "MaxSubmitPU", "GrpJobs", "GrpSubmit")


def look(slurm_conf: Path | None, runs: Path) -> Cluster | Silence:
    """The cluster's facts, or that nobody answered; raises nothing where Slurm is down."""
    first = Runner(slurm_conf, FIRST_SECONDS)
    try:
        settings = scontrol.configuration(first)
    except SlurmError as error:
        return Silence(str(error), _munge(first, slurm_conf))
    runner, unanswered = Runner(slurm_conf, REST_SECONDS), {}

    def ask(question: str, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except (SlurmError, ValueError) as error:
            unanswered[question] = str(error)
            return None

    user = _user()
    accounting = settings.get("AccountingStorageType", "").strip().endswith("slurmdbd")
    with ThreadPoolExecutor() as threads:
        nodes = threads.submit(ask, "scontrol show nodes", lambda: _nodes(runner))
        version = threads.submit(ask, "sinfo --version", lambda: runner.ask(["sinfo", "--version"]).strip())
        mpi = threads.submit(ask, "srun --mpi=list", lambda: mpi_types(_both(runner, ["srun", "--mpi=list"])))
        clocks = threads.submit(ask, "sdiag", lambda: _clocks(runner))
        cluster_name = settings.get("ClusterName", "").strip()
        limits = threads.submit(ask, "sacctmgr", lambda: _limits(runner, user, cluster_name) if accounting else None)
        login = threads.submit(_login_seconds)
        found_nodes, found_clocks, found_limits = nodes.result(), clocks.result(), limits.result()
        return Cluster(
            settings=settings,
            user=user,
            privileged=os.geteuid() == 0 or settings.get("SlurmUser", "").startswith(f"{user}("),
            runs=runs,
            runs_filesystem=filesystem(runs),
            own_names=_own_names(found_nodes or ()),
            nodes=found_nodes,
            client_version=version.result(),
            mpi=mpi.result(),
            controller_ahead=found_clocks[0] if found_clocks else None,
            controller_time=found_clocks[1] if found_clocks else None,
            accounts=found_limits[0] if found_limits else None,
            limits=found_limits[1] if found_limits else (),
            login_seconds=login.result(),
            unanswered=unanswered,
            reconcile_seconds=_seconds("LOCKSTEP_RECONCILE_LIMIT_SECONDS", 10.0),
            lookup_seconds=_seconds("LOCKSTEP_LOOKUP_SECONDS", None),
        )


def parse_nodes(out: str) -> tuple[Node, ...]:
    """The nodes of ``scontrol --oneliner show nodes`` with times as seconds since the epoch."""
    lines = [line for line in out.splitlines() if line.startswith("NodeName=")]
    return tuple(
        Node(
            name=node.name,
            state=node.state,
            flags=node.flags,
            reason=node.reason,
            host=_word(line, "NodeHostName") or node.name,
            address=_word(line, "NodeAddr") or node.name,
            started=int(started) if (started := _word(line, "SlurmdStartTime")).isdigit() else None,
        )
        for node, line in zip(scontrol.parse_nodes(out), lines, strict=True)
    )


def mpi_types(out: str) -> tuple[str, ...]:
    """The types of ``srun --mpi=list``: one a line after a heading (22.05: "MPI plugin types are...")."""
    heading, _, rest = out.partition("are...")
    if not rest:
        raise ValueError(f"no list of types in {heading[:200]!r}")
    lines = [line.strip() for line in rest.splitlines()]
    return tuple(sorted(line for line in lines if line and " " not in line))


def controller_clock(out: str, before: float, after: float) -> tuple[tuple[float, float], float]:
    """Bounds of the controller's clock less ours, and its time, of ``sdiag``, asked between ``before`` and ``after``.

    Its first line carries the controller's time in whole seconds: it may be anywhere in that second.
    """
    found = re.search(r"^sdiag output at .*\((\d+)\)$", out, re.MULTILINE)
    if found is None:
        raise ValueError(f"no time in sdiag's answer {out[:200]!r}")
    time_there = int(found[1])
    return (time_there - after, time_there + 1 - before), time_there


def parse_limits(associations: str, qos: str) -> tuple[tuple[str, ...], tuple[Limit, ...]]:
    """Accounts and limits of ``sacctmgr``'s two answers (see ``_limits``), fields parted by ``|``."""
    accounts, limits, own_qos = [], [], set()
    for line in associations.splitlines():
        account, names, *figures = line.split("|")
        accounts.append(account)
        own_qos |= set(names.split(","))
        limits += [Limit(f"account {account}", *pair) for pair in _set(_LIMITS, figures)]
    for line in qos.splitlines():
        name, *figures = line.split("|")
        if name in own_qos:
            limits += [Limit(f"QOS {name}", *pair) for pair in _set(_QOS_LIMITS, figures)]
    return tuple(dict.fromkeys(accounts)), tuple(dict.fromkeys(limits))


def _set(words: tuple[str, ...], figures: list[str]) -> list[tuple[str, int]]:
    return [(word, int(figure)) for word, figure in zip(words, figures, strict=True) if figure.isdigit()]


def _limits(runner: Runner, user: str, cluster: str) -> tuple[tuple[str, ...], tuple[Limit, ...]]:
    plain = ["sacctmgr", "--noheader", "--parsable2", "--readonly", "show"]
    which = [f"user={user}", *([f"cluster={cluster}"] if cluster else [])]
    fields = f"format=Account,QOS,{','.join(_LIMITS)}"
    associations = runner.ask([*plain, "associations", *which, fields])
    return parse_limits(associations, runner.ask([*plain, "qos", f"format=Name,{','.join(_QOS_LIMITS)}"]))


def _nodes(runner: Runner) -> tuple[Node, ...]:
    return parse_nodes(runner.ask(["scontrol", "--all", "--oneliner", "show", "nodes"], extra=EPOCH))


def _clocks(runner: Runner) -> tuple[tuple[float, float], float]:
    before = time.time()
    out = runner.ask(["sdiag"])
    return controller_clock(out, before, time.time())


def _both(runner: Runner, argv: list[str]) -> str:
    """What a command prints on either stream: srun writes its list of types to standard error in some versions."""
    answer = runner.run(argv)
    return answer.out + answer.err


def _word(line: str, key: str) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    return found[1] if found else ""


def _login_seconds() -> float | None:
    """Seconds until this user's login shell has read its profile and ended; None where that takes too long."""
    try:
        shell = pwd.getpwuid(os.geteuid()).pw_shell or "/bin/sh"
        started = time.monotonic()
        subprocess.run(
            [shell, "-l", "-c", ":"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=REST_SECONDS, check=False, cwd="/", start_new_session=True,
        )  # fmt: skip
    except (KeyError, OSError, subprocess.TimeoutExpired):
        return None
    return time.monotonic() - started


def _munge(runner: Runner, slurm_conf: Path | None) -> str | None:
    """Why munge makes no credential here, or None where it does, or cannot be asked."""
    conf = slurm_conf or os.environ.get("SLURM_CONF")
    text = Path(conf).read_text(errors="replace") if conf and os.access(conf, os.R_OK) else ""
    # A cluster may have a munged of its own.
    own = re.search(r"^AuthInfo\s*=.*\bsocket=([^,\s]+)", text, re.MULTILINE | re.IGNORECASE)
    if shutil.which("munge") is None:
        return None
    try:
        answer = runner.run(["munge", "--no-input", *(["--socket", own[1]] if own else [])])
    except SlurmError as error:
        return str(error)
    return None if answer.code == 0 else (answer.err.strip() or f"exit code {answer.code}")


def _own_names(nodes: tuple[Node, ...]) -> frozenset[str]:
    """This machine's names, and those of the nodes' addresses that are its own: only they can be bound to."""
    full = socket.gethostname()
    addresses = {node.address for node in nodes}
    return frozenset({full, full.partition(".")[0], *(address for address in addresses if _is_own(address))})


def _is_own(address: str) -> bool:
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    except ValueError:
        return False  # a name: resolving hundreds of them takes long, and NodeHostName is compared anyway
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _seconds(variable: str, otherwise: T) -> float | T:
    try:
        text = os.environ.get(variable)
        return float(text) if text else otherwise
    except ValueError:
        return otherwise  # the service refuses such a value at its start, in its own words
