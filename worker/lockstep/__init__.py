"""What a training script imports of Lockstep: standard library only (Python >= 3.9), imports no torch by itself.

    import lockstep
    lockstep.report(step=step, loss=loss.item(), samples=len(batch))
    lockstep.evaluated(step)
    optimizer = lockstep.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    lockstep.report(step=step, **optimizer.take_statistics())
    with lockstep.checkpoint.of(model=model, optimizer=optimizer) as state:
        for step in state.steps(1000):
            ...

Run outside Lockstep, the same script says so once on standard error and trains on. ``DistributedOptimizer`` and
``checkpoint`` need torch, and import it when they are first asked for.
"""

from __future__ import annotations

import atexit
import importlib
import os
import sys

from lockstep.reporter import Reporter, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lockstep import checkpoint
    from lockstep_worker.gradients.optimizer import DistributedOptimizer
    from lockstep_worker.statistics import Statistics

__all__ = ["DistributedOptimizer", "Statistics", "Value", "checkpoint", "evaluated", "report"]

_reporter: Reporter | None = None


def report(*, step: int | None = None, kind: str = "step", **values: Value) -> None:
    """Reports what this rank has just done; returns at once, whatever the writer, the disk or the service do.

    ``step`` is the number of steps completed so far (1 after the first). ``values`` are numbers, texts, or lists of
    numbers; an array or tensor is taken as its list, and anything else as its text. The names that a dashboard knows,
    with their units (seconds, samples), are in docs/records.md; ``seconds`` since the last step that was reported,
    and from ``samples``, those of one step, the ``samples_per_s``, are filled in where a script does not tell them
    itself. A ``start`` record with the rank's node and CPUs goes before the first report by itself;
    ``report(kind="start", steps=...)`` adds how many steps are planned.

    Never raises and never waits: what cannot be sent soon is dropped and counted in a ``gap`` record.
    """
    global _reporter  # noqa: PLW0603 - one connection per process, made at the first report
    if _reporter is None:
        _reporter = _connect()
    _reporter.report(step, kind, values)


def evaluated(step: int | None = None) -> None:
    """Says that what this rank did since its last step was an evaluation, whose time is not the next step's.

    For all ranks that evaluate: ``report(kind="evaluation")`` says the same, but for the one rank that reports, and
    ``State.evaluated`` of ``lockstep.checkpoint`` for all. It makes no record. ``step`` is the number of steps
    completed so far; a script that does not report every step has to tell it.
    """
    if _reporter is not None:
        _reporter.evaluated(step)


def __getattr__(name: str) -> object:
    """What not every script needs, at its first use; the optimizer imports torch."""
    if name == "DistributedOptimizer":
        from lockstep_worker.gradients.optimizer import DistributedOptimizer

        return DistributedOptimizer
    if name == "Statistics":
        from lockstep_worker.statistics import Statistics

        return Statistics
    if name == "checkpoint":
        return importlib.import_module("lockstep.checkpoint")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _connect() -> Reporter:
    """The reporter of this process; one without a writer to reach drops everything."""
    socket = os.environ.get("LOCKSTEP_SOCKET")
    if socket is None:
        print("lockstep: not started by Lockstep, so reports are dropped", file=sys.stderr)
        return Reporter(None, rank=0, start={})
    environment = os.environ.get
    reporter = Reporter(
        socket,
        rank=int(environment("RANK", "0")),
        start={
            "node": environment("HOROVOD_HOSTNAME", ""),
            "local_rank": int(environment("LOCAL_RANK", "0")),
            "pid": os.getpid(),
            "size": int(environment("WORLD_SIZE", "1")),
            "compute_cpus": _cpus(environment("LOCKSTEP_COMPUTE_CPUS", "")),
            "communication_cpus": _cpus(environment("LOCKSTEP_COMMUNICATION_CPUS", "")),
        },
    )
    atexit.register(reporter.close)
    return reporter


def _cpus(text: str) -> list[float]:
    return [int(part) for part in text.split(",") if part]


def _forget_after_fork() -> None:
    """A forked child (a loader's worker) must not speak on its parent's connection; it makes its own if it reports."""
    global _reporter  # noqa: PLW0603
    if _reporter is not None:
        # What is queued is the parent's to send: a child that ends like a program would send it once more.
        atexit.unregister(_reporter.close)
    _reporter = None


os.register_at_fork(after_in_child=_forget_after_fork)
