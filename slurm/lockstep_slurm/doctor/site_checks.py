"""Checks of the cluster as it runs: controller, nodes, clocks, limits, MPI types, folders, the login shell. Pure."""

from __future__ import annotations

import re

from lockstep_slurm.doctor.cluster import Cluster, Silence
from lockstep_slurm.doctor.finding import Answer, Check, note, ok, problem, warning
from lockstep_slurm.doctor.here import Here
from lockstep_slurm.filesystem import NETWORK

OLDEST_SLURM = (22, 5)
# munge (0.5) refuses a credential that is older or newer than 300 s by the reader's clock.
CLOCK_OFF, CLOCK_BROKEN = 5.0, 240.0
FEW_JOBS = 5
UNUSABLE = {"DOWN", "ERROR", "FAIL", "UNKNOWN"}
UNUSABLE_FLAGS = {"DRAIN", "NOT_RESPONDING", "FAIL", "MAINTENANCE"}
LOGIN_DEFAULT = 2


def controller(silence: Silence) -> Answer:
    """Why the controller does not answer."""
    cure = "is slurmctld up (`scontrol ping`), and does SLURM_CONF name the right cluster?"
    words = silence.words.lower()
    if "expired" in words or "rewound" in words:
        cure = "this machine's clock and the controller's differ by minutes: have both synchronised (chrony, ntp)"
    elif "slurm.conf" in words or "configuration" in words:
        cure = "say where the cluster's slurm.conf is: SLURM_CONF=/path/slurm.conf"
    elif silence.munge is not None:
        cure = f"munge does not work here ({silence.munge}): is munged running, with the cluster's key?"
    return problem(silence.words, cure)


def unknown(_here: Here) -> Answer:
    """That Slurm's commands are here, but no cluster."""
    return note(
        "no slurm.conf in Slurm's usual places, and SLURM_CONF is not set: jobs run on this machine alone",
        "SLURM_CONF=/path/slurm.conf, or `lockstep cluster up` for a Slurm on this machine",
    )


def answers(cluster: Cluster) -> Answer:
    """Whether Slurm answered every question."""
    if not cluster.unanswered:
        return ok(f"{cluster.text('ClusterName') or 'the controller'} answers")
    said = "; ".join(f"{question}: {words}" for question, words in cluster.unanswered.items())
    return note(f"not answered: {said}", "what depends on these answers was not checked")


def version(cluster: Cluster) -> Answer | None:
    """Whether this Slurm is one that Lockstep knows."""
    numbers = _numbers(cluster.text("SLURM_VERSION"))
    if numbers is None:
        return None
    found = f"Slurm {cluster.text('SLURM_VERSION')}"
    own = _numbers(cluster.client_version or "")
    if own is not None and own > numbers:
        return warning(
            f"{found}, and the commands here are newer: {cluster.client_version}", "use the cluster's own commands"
        )
    if numbers < OLDEST_SLURM:
        return warning(found, "Lockstep is tried with 22.05 and newer")
    return ok(found)


def nodes(cluster: Cluster) -> Answer | None:
    """Whether nodes can take jobs."""
    if cluster.nodes is None:
        return None
    if not cluster.nodes:
        return warning("Slurm shows no node", "is PrivateData=nodes set, or every node hidden from you?")
    bad = [node for node in cluster.nodes if node.state in UNUSABLE or UNUSABLE_FLAGS & set(node.flags)]
    if not bad:
        return ok(f"{len(cluster.nodes)} nodes, all usable")
    shown = ", ".join(f"{node.name} {node.state}{f' ({node.reason})' if node.reason else ''}" for node in bad[:3])
    found = f"{len(bad)} of {len(cluster.nodes)} nodes take no jobs: {shown}{', ...' if len(bad) > 3 else ''}"
    cure = "`sinfo -R` has every reason; the administrator returns them: scontrol update nodename=... state=resume"
    return problem(found, cure) if len(bad) == len(cluster.nodes) else note(found, cure)


def mpi(cluster: Cluster) -> Answer | None:
    """Which MPI types `srun` offers."""
    if cluster.mpi is None:
        return None
    found = f"srun --mpi={', '.join(cluster.mpi)}; by default {cluster.text('MpiDefault') or 'none'}"
    if any(kind.startswith(("pmix", "pmi2")) for kind in cluster.mpi):
        return ok(found)
    return note(
        found, 'Gloo needs none of them; for communication.backend = "mpi" ask for Slurm\'s pmix or pmi2 plugin'
    )


def clock(cluster: Cluster) -> Answer | None:
    """Whether this machine's clock agrees with the controller's."""
    if cluster.controller_ahead is None:
        return None
    low, high = cluster.controller_ahead
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    found = f"the controller's clock is {low:+.1f} to {high:+.1f} s from this machine's"
    cure = "have both synchronised (chrony, ntp); times on a job's page come from several machines"
    if least >= CLOCK_BROKEN:
        return problem(found, cure)
    return warning(found, cure) if least >= CLOCK_OFF else ok(found)


def node_clocks(cluster: Cluster) -> Answer | None:
    """Whether a node's clock is ahead; one that is behind cannot be told from outside."""
    if cluster.controller_time is None or not cluster.nodes:
        return None
    now = cluster.controller_time
    ahead = {node.name: node.started - now for node in cluster.nodes if node.started and node.started - now > CLOCK_OFF}
    if not ahead:
        return ok("no slurmd says that it started in the future")
    worst = max(ahead, key=lambda name: ahead[name])
    found = f"{worst} says that its slurmd started {ahead[worst]:.0f} s in the future ({len(ahead)} nodes ahead)"
    return warning(found, "have the nodes' clocks synchronised; above 300 s munge refuses them")


def shared_runs(cluster: Cluster) -> Answer | None:
    """Whether the nodes see the run folders."""
    if not cluster.nodes:
        return None
    others = [node.name for node in cluster.nodes if not {node.host, node.address} & cluster.own_names]
    if not others:
        return ok("every node is this machine")
    found = f"{cluster.runs} is on {cluster.runs_filesystem}"
    if cluster.runs_filesystem in NETWORK:
        return ok(found)
    return warning(
        f"{found}, a file system of this machine's own, and {len(others)} nodes are other machines ({others[0]}, ...)",
        f"choose a shared folder: LOCKSTEP_RUNS=/shared/...; if the nodes see this one, `srun ls -d {cluster.runs}`",
    )


def limits(cluster: Cluster) -> Answer | None:
    """How many jobs this user may have."""
    if cluster.accounts is None:
        return None
    if not cluster.accounts and "associations" in cluster.words("AccountingStorageEnforce"):
        return problem(
            f"{cluster.user} has no account, and AccountingStorageEnforce asks for one",
            "ask to be added: every submit is refused",
        )
    if not cluster.limits:
        return ok(f"no limit on jobs; accounts: {', '.join(cluster.accounts) or 'none'}")
    least = min(cluster.limits, key=lambda limit: limit.jobs)
    found = ", ".join(f"{limit.word}={limit.jobs} ({limit.of})" for limit in cluster.limits[:6])
    cure = "beyond MaxSubmit a submit is refused and tried again later; beyond MaxJobs a job waits"
    if least.jobs == 0:
        return problem(
            found, f"{least.word}=0 of {least.of} lets nothing through: ask for more, or use another account or QOS"
        )
    return warning(found, cure) if least.jobs < FEW_JOBS else note(found, cure)


def login_shell(cluster: Cluster) -> Answer | None:
    """Whether Slurm can make a job's environment from the user's login shell in time."""
    allowed = cluster.seconds("GetEnvTimeout") or LOGIN_DEFAULT
    cure = (
        "make the profile quick (no module loads, no network); Slurm waits GetEnvTimeout for it, then goes on without"
    )
    if cluster.login_seconds is None:
        return warning(f"the login shell of {cluster.user} did not end by itself", cure)
    found = f"a login shell of {cluster.user} takes {cluster.login_seconds:.1f} s of {allowed} s (GetEnvTimeout)"
    return warning(found, cure) if cluster.login_seconds > allowed / 2 else ok(found)


def _numbers(text: str) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


SILENT: tuple[Check[Silence], ...] = (
    Check("controller", "Without an answer nothing can be submitted, and nothing is known of the cluster.", controller),
)
UNKNOWN: tuple[Check[Here], ...] = (
    Check("slurm-conf", "Slurm's commands find the cluster by its slurm.conf.", unknown),
)
CHECKS: tuple[Check[Cluster], ...] = (
    Check("answers", "A check needs the answers that it judges.", answers),
    Check("slurm-version", "Slurm's answers differ from version to version.", version),
    Check("nodes", "A job waits for ever for nodes that take none.", nodes),
    Check("mpi-types", "MPI ranks under srun meet each other through one of them.", mpi),
    Check("clock", "Slurm's credentials and a job's times depend on clocks that agree.", clock),
    Check("node-clocks", "A node whose clock is off spoils a job's times, and far off refuses every job.", node_clocks),
    Check("shared-runs", "Ranks write claims, logs and checkpoints there, on every node of a job.", shared_runs),
    Check("job-limits", "They say how many jobs the cluster takes from you.", limits),
    Check(
        "login-shell",
        "With --export=NONE Slurm makes the job's environment from a login shell, so that no secret leaks into it.",
        login_shell,
    ),
)
