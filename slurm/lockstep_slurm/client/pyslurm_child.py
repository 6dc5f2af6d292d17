"""The process that holds pyslurm: one JSON line is a question, one JSON line its answer.

``pyslurm_process`` starts this file by its path, isolated and without site packages, as ``FILE CHANNEL FOLDER``: the
number of a connected socket, and the folder that pyslurm is in. It needs nothing but the standard library and pyslurm,
and it is the only place that imports pyslurm (tried with 22.5.3 and 25.11.2).
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

# States that a job does not leave by itself. COMPLETING is none: it hides that a requeued job is pending again.
_OVER = (
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT".split()  # noqa: SIM905
)

# ESLURM_ALREADY_DONE of slurm_errno.h (22.05, 25.11).
_ALREADY_DONE = 2021


def main() -> None:
    """Answers until the other side closes the channel."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    # Last, so that nothing beside pyslurm can take the place of a standard module.
    sys.path.append(sys.argv[2])
    with channel, channel.makefile("rb") as questions:
        for line in questions:
            channel.sendall(json.dumps(_answer(json.loads(line))).encode() + b"\n")


def _answer(question: dict[str, Any]) -> dict[str, object]:
    """What is sent back: ``answer``, or ``error`` in words, ``by`` whom it was raised, and Slurm's ``number`` of it."""
    try:
        slurm = _pyslurm()
    except ImportError as error:
        return {"id": question["id"], "by": "import", "error": f"{error}"}
    try:
        return {"id": question["id"], "answer": _ANSWERS[question["ask"]](slurm, **question["of"])}
    except slurm.PyslurmError as error:
        return {"id": question["id"], "by": "slurm", "error": f"{error}", "number": getattr(error, "errno", None)}
    except (ValueError, TypeError, OverflowError) as error:
        # So pyslurm says that it cannot put something into a request, or read something of an answer.
        return {"id": question["id"], "by": "pyslurm", "error": f"{error}"}


def _pyslurm() -> ModuleType:
    first = "pyslurm" not in sys.modules
    slurm = import_module("pyslurm")
    # With PYSLURM_DISABLE_AUTO_INIT (25.11) the library is not set up by the import; 22.5 knows no such thing.
    if first and getattr(slurm, "_auto_init_disabled", False):
        slurm.slurm_init()
    return slurm


def _version(slurm: ModuleType) -> str:
    return str(slurm.__version__)


def _jobs(slurm: ModuleType, uid: int, names: list[str] | None) -> list[dict[str, object]]:
    found = []
    wanted = None if names is None else set(names)
    for job in slurm.Jobs.load().values():
        if job.user_id != uid:
            continue
        try:
            # The name "None" is read as none at all.
            called = job.name or "None"
        except UnicodeDecodeError:
            called = ""
        if wanted is not None and called not in wanted:
            continue
        found.append(
            {
                "id": job.id,
                "name": called,
                "state": job.state,
                "reason": job.state_reason,
                "nodes": job.allocated_nodes,
                "restarts": job.requeue_count,
                "exit_code": job.exit_code,
                "exit_signal": job.exit_code_signal,
                "submitted": job.submit_time,
                "started": job.start_time,
                "ended": job.end_time,
            }
        )
    return found


def _nodes(slurm: ModuleType) -> list[dict[str, object]]:
    return [
        {
            "name": node.name,
            "state": node.state,
            "cpus": node.effective_cpus or node.total_cpus,
            "allocated": node.allocated_cpus,
            "sockets": node.sockets,
            "cores_per_socket": node.cores_per_socket,
            "threads_per_core": node.threads_per_core,
            "memory": node.real_memory,
            "partitions": list(node.partitions),
            "reason": _reason(node),
        }
        for node in slurm.Nodes.load().values()
    ]


def _reason(node: Any) -> str | None:  # noqa: ANN401 - pyslurm's
    try:
        return node.reason  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        # An administrator's terminal need not speak UTF-8 (22.5.3): as the commands' output is read.
        return error.object.decode(errors="backslashreplace")


def _partitions(slurm: ModuleType) -> list[dict[str, object]]:
    return [
        {
            "name": one.name,
            "state": one.state,
            "nodes": one.nodes,
            "default": one.is_default,
            # Minutes, or a word where there is no limit.
            "minutes": one.max_time if isinstance(one.max_time, int) else None,
        }
        for one in slurm.Partitions.load().values()
    ]


def _submit(
    slurm: ModuleType, fields: dict[str, Any], limits: list[str], *, bootstrap: bool, umask: int | None = None
) -> int:
    # The library adds every SLURM_* of this process, which is SLURM_CONF alone, as with sbatch.
    fields["environment"] |= _as_sbatch_tells(limits, umask)
    if _made_for(slurm) >= (25, 11):
        fields["environment"] |= _as_later_sbatch_tells(fields, bootstrap=bootstrap)
    # Without types pyslurm asks for all (25.11.2); what is true and yields none is the default, as with sbatch.
    return int(slurm.JobSubmitDescription(profile_types=iter(()), **fields).submit())


def _made_for(slurm: ModuleType) -> tuple[int, ...]:
    return tuple(int(part) for part in _version(slurm).split(".")[:2])


def _as_sbatch_tells(limits: list[str], umask: int | None) -> dict[str, str]:
    """What sbatch tells of the process that submits, and slurmd gives to the job: priority, umask, limits."""
    if umask is None:
        umask = os.umask(0o077)
        os.umask(umask)
    told = {
        "SLURM_PRIO_PROCESS": str(os.getpriority(os.PRIO_PROCESS, 0)),
        "SLURM_UMASK": f"{umask:04o}",
        "SLURM_SUBMIT_HOST": socket.gethostname(),
    }
    for name in limits:
        soft, _ = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        # Slurm writes "unlimited" as the figure that the C library has for it.
        told[f"SLURM_RLIMIT_{name}"] = str(soft if soft != resource.RLIM_INFINITY else 2**64 - 1)
    return told


def _as_later_sbatch_tells(fields: dict[str, Any], *, bootstrap: bool) -> dict[str, str]:
    """What sbatch of 25.11 adds: CPUs per task once more, and how an mpirun in the job starts its processes."""
    told = dict.fromkeys(("OMPI_MCA_plm_slurm_args", "PRTE_MCA_plm_slurm_args"), "--external-launcher")
    if bootstrap:
        told |= {
            "HYDRA_BOOTSTRAP": "slurm",
            "HYDRA_LAUNCHER_EXTRA_ARGS": "--external-launcher",
            "I_MPI_HYDRA_BOOTSTRAP": "slurm",
            "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS": "--external-launcher",
        }
    if "cpus_per_task" in fields:
        told["SLURM_TRES_PER_TASK"] = f"cpu={fields['cpus_per_task']}"
    return told


def _cancel(slurm: ModuleType, job_id: int) -> None:
    # Job.cancel is silent for a job that Slurm does not know; the look raises.
    if slurm.Job.load(job_id).state in _OVER:
        return
    try:
        slurm.Job(job_id).cancel()
    except slurm.RPCError as error:
        # It may have ended in this moment; and Job.cancel asks errno, which an earlier failure has set, even after
        # a success (22.5.3).
        state = slurm.Job.load(job_id).state
        if state not in _OVER and not (state == "COMPLETING" and error.errno == _ALREADY_DONE):
            raise


def _hold(slurm: ModuleType, job_id: int) -> None:
    # As `scontrol hold`; hold(mode="user") writes through a null pointer (25.11.2).
    slurm.Job(job_id).hold()


def _release(slurm: ModuleType, job_id: int) -> None:
    slurm.Job(job_id).release()


def _requeue(slurm: ModuleType, job_id: int) -> None:
    slurm.Job(job_id).requeue()


def _ping(slurm: ModuleType) -> None:
    # 22.5.3 has no ping; the controller that is in charge answers this, a backup as well.
    slurm.slurmctld.Config.load()


_ANSWERS: dict[str, Callable[..., object]] = {
    "version": _version,
    "jobs": _jobs,
    "nodes": _nodes,
    "partitions": _partitions,
    "submit": _submit,
    "cancel": _cancel,
    "hold": _hold,
    "release": _release,
    "requeue": _requeue,
    "ping": _ping,
}

if __name__ == "__main__":
    main()
