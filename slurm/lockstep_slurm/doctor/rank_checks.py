"""Checks of the environment that ranks run in: torch, and a Horovod that was built for it. Pure."""

from __future__ import annotations

from lockstep_slurm.doctor.finding import Answer, Check, note, ok, problem, warning
from lockstep_slurm.doctor.ranks import NEEDED, NoPython, Ranks
from lockstep_slurm.extras import install
from lockstep_slurm.horovod.release import HOROVOD, INTERFACE, OLDEST_PYTHON


def build(ranks: Ranks) -> str:
    """The command that builds Horovod for this environment."""
    return f"lockstep worker build{'' if ranks.own else f' --python {ranks.python}'} --install"


def python(ranks: Ranks) -> Answer:
    """Whether this Python is new enough for a rank."""
    found = f"Python {ranks.version[0]}.{ranks.version[1]} ({ranks.python})"
    if ranks.version < OLDEST_PYTHON:
        return problem(found, f"make the environment with Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return ok(found)


def no_python(ranks: NoPython) -> Answer:
    """What follows when there is nothing to look into."""
    return problem(
        f"{ranks.python} does not run as a Python interpreter here: {ranks.why}",
        "give another --python or --venv; where compute nodes alone have it, run `lockstep doctor` on one of them",
    )


def packages(ranks: Ranks) -> Answer:
    """Whether what a rank imports is here."""
    missing = [name for name in ranks.missing if name in NEEDED]
    if missing:
        answer = problem if ranks.loaded else note
        where = "here" if ranks.own else f"into the environment of {ranks.python}"
        return answer(f"missing: {', '.join(missing)}", f"{install('worker')}, {where}, if ranks are to run in it")
    if ranks.missing:
        return note(
            f"missing: {', '.join(ranks.missing)}",
            "needed only by the built-in recipes; a script of your own may do without",
        )
    return ok("installed")


def torch(ranks: Ranks) -> Answer | None:
    """Whether torch is the CPU build."""
    if ranks.torch is None:
        return None  # `packages` says so
    if ranks.cuda_packages:
        return note(
            f"torch {ranks.torch} is the CUDA build ({ranks.cuda_packages} packages, several GB)",
            "it works; docs/set-up.md says how pip gets the CPU build",
        )
    return ok(f"torch {ranks.torch}")


def horovod(ranks: Ranks) -> Answer | None:
    """Whether Horovod is here and was built for this torch."""
    if ranks.horovod is None:
        if ranks.torch is None:
            return None
        answer = problem if ranks.loaded else warning
        return answer(
            "not installed", f"{build(ranks)} (about 5 minutes, once); docs/command-line.md: without a network"
        )
    found = f"Horovod {ranks.horovod.version} for torch {ranks.horovod.torch or 'unknown'}"
    if ranks.horovod.mpi is not None:
        found += f", with {ranks.horovod.mpi}"
    if ranks.torch is not None and ranks.horovod.torch not in {None, ranks.torch}:
        return problem(f"{found}, but torch {ranks.torch} is installed", f"build it again: {build(ranks)}")
    if ranks.horovod.version != HOROVOD:
        return warning(found, f"Lockstep is tried with {HOROVOD}: {build(ranks)}")
    return ok(found)


def interface(ranks: Ranks) -> Answer | None:
    """Whether this Horovod honours the network interface that it is told."""
    if ranks.horovod is None:
        return None
    if ranks.horovod.edits is None:
        return warning(
            "this Horovod was not built by `lockstep worker build`, so the mend is not known to be in it",
            f"{build(ranks)}; without the mend, nodes whose name resolves to another network hang or are slow",
        )
    if INTERFACE not in ranks.horovod.edits:
        edits = ", ".join(ranks.horovod.edits) or "none"
        return problem(f"built with these edits only: {edits}", f"build it again: {build(ranks)}")
    return ok("the mend is in it")


def loads(ranks: Ranks) -> Answer | None:
    """Whether torch and Horovod really load, where that was asked for."""
    if ranks.loaded is None or ranks.horovod is None:
        return None
    if ranks.loaded.error is not None:
        return problem(ranks.loaded.error, f"build Horovod for this environment: {build(ranks)}")
    if not ranks.loaded.gloo:
        return problem("it loads, but was built without Gloo", f"build it with Gloo: {build(ranks)}")
    return ok(f"it loads, with Gloo{' and MPI' if ranks.loaded.mpi else ''}")


def compilers(ranks: Ranks) -> Answer:
    """Whether Horovod could be built here for this environment."""
    missing = [name for name in ("g++", "make", "strip", "Python.h") if name not in ranks.tools]
    if not missing:
        return ok("g++, make, strip, Python.h")
    return note(
        f"missing: {', '.join(missing)}",
        "needed only to build Horovod: apt-get install g++ make python3-dev, or on a cluster: module load gcc",
    )


_PYTHON_WHY = "Wrapper, proof and reporter are written for Python 3.9 and newer."
NONE: tuple[Check[NoPython], ...] = (Check("ranks-python", _PYTHON_WHY, no_python),)
CHECKS: tuple[Check[Ranks], ...] = (
    Check("ranks-python", _PYTHON_WHY, python),
    Check("ranks-packages", "A rank needs them; a login node that only submits does not.", packages),
    Check("torch", "The training is torch's; Horovod's library fits exactly one build of it.", torch),
    Check("horovod", "The ranks exchange gradients through it.", horovod),
    Check(
        "horovod-interface",
        "The release ignores HOROVOD_GLOO_IFACE for every collective and binds to what the hostname resolves to.",
        interface,
    ),
    Check("horovod-loads", "A library that was built for another torch or MPI fails only when a rank loads it.", loads),
    Check("compilers", "Horovod is released as source only.", compilers),
)
