"""Checks of this machine: the parts of Lockstep, Slurm's commands, the folders, the shell. Pure."""

from __future__ import annotations

from lockstep_slurm.doctor.finding import Answer, Check, note, ok, problem, warning
from lockstep_slurm.doctor.here import SLURM_COMMANDS, Here
from lockstep_slurm.extras import install
from lockstep_slurm.filesystem import NETWORK

OLDEST_PYTHON = (3, 11)
GIGABYTE = 1_000_000_000
LITTLE, VERY_LITTLE = 20 * GIGABYTE, GIGABYTE
FEW_FILES = 10_000


def python(here: Here) -> Answer:
    """Whether the command's own Python is new enough."""
    found = f"Python {here.python[0]}.{here.python[1]} ({here.executable})"
    if here.python < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return problem(found, f"use Python {needed} or newer for the command and the service; ranks may have 3.9")
    return ok(found)


def service(here: Here) -> Answer:
    """Whether ``lockstep serve`` can start here."""
    return _extra(here, "service", "needed only where `lockstep serve` runs")


def postgres(here: Here) -> Answer:
    """Whether the service can use PostgreSQL."""
    return _extra(here, "postgres", "needed only for a service on PostgreSQL")


def pyslurm(here: Here) -> Answer:
    """Whether the faster Slurm client can be used."""
    return _extra(here, "pyslurm", "optional, and for Slurm 25.11 only: Slurm's own commands do the same")


def _extra(here: Here, extra: str, when: str) -> Answer:
    missing = here.missing[extra]
    if not missing:
        return ok("installed")
    return note(f"missing: {', '.join(missing)}", f"{install(extra)} ({when})")


def slurm_commands(here: Here) -> Answer:
    """Whether Slurm's client commands are on PATH."""
    missing = [name for name in SLURM_COMMANDS if name not in here.programs]
    if not missing:
        return ok(", ".join(SLURM_COMMANDS))
    cure = "install slurm-client (Debian, Ubuntu) or slurm (Red Hat), or work on a login node"
    if len(missing) == len(SLURM_COMMANDS):
        return note("no Slurm on this machine: jobs run on it alone (`lockstep serve --client local`)", cure)
    return problem(f"{', '.join(missing)} not on PATH", cure)


def topology(here: Here) -> Answer:
    """Whether a person can look at the machine's topology."""
    missing = [
        name
        for name, there in (
            ("hwloc", here.programs & {"lstopo", "hwloc-ls"}),
            ("numactl", here.programs & {"numactl"}),
        )
        if not there
    ]
    if not missing:
        return ok("hwloc, numactl")
    return note(
        f"{' and '.join(missing)} not installed", f"optional; Debian, Ubuntu: apt-get install {' '.join(missing)}"
    )


def iproute2(here: Here) -> Answer:
    """Whether the one-machine cluster can have several hosts."""
    if "ip" in here.programs:
        return ok("ip")
    return note("no `ip` on PATH", "needed only by `lockstep cluster up --hosts`: apt-get install iproute2")


def runs_folder(here: Here) -> Answer:
    """Whether run folders can be made."""
    if here.runs_error is not None:
        return problem(f"{here.runs}: {here.runs_error}", "choose a folder that you can write: LOCKSTEP_RUNS or --runs")
    return ok(f"{here.runs} can be written")


def space(here: Here) -> Answer:
    """Whether there is room for checkpoints and records."""
    found = f"{here.runs_free / GIGABYTE:,.1f} GB free in {here.runs}"
    cure = "make room, or choose another folder with LOCKSTEP_RUNS; checkpoints take most of it"
    if here.runs_free < VERY_LITTLE:
        return problem(found, cure)
    if here.runs_free_files is not None and here.runs_free_files < FEW_FILES:
        return warning(f"only {here.runs_free_files} more files fit in {here.runs}", "remove files (a quota of inodes)")
    return warning(found, cure) if here.runs_free < LITTLE else ok(found)


def database(here: Here) -> Answer | None:
    """Whether SQLite would lie on a network file system."""
    if here.own_database:
        return None
    if here.home_filesystem in NETWORK:
        return problem(
            f"{here.home} is on {here.home_filesystem}, and the service's SQLite database lies there by default",
            "set LOCKSTEP_DATABASE_URL to sqlite:////a/local/disk/lockstep.db or to a PostgreSQL database; "
            "without one `lockstep serve` refuses to start",
        )
    return ok(f"{here.home} is on {here.home_filesystem}")


def locale(here: Here) -> Answer:
    """Whether text is UTF-8 here."""
    if here.locale_error is not None:
        return warning(here.locale_error, "set LANG=C.UTF-8, which every system has")
    if here.encoding.lower().replace("-", "") != "utf8":
        return warning(f"the shell's encoding is {here.encoding}", "set LANG=C.UTF-8")
    return ok(here.encoding)


def shell(here: Here) -> Answer:
    """Whether the shell has variables that change Slurm's commands."""
    if not here.variables:
        return ok("no SBATCH_*, SRUN_* or SLURM_CPU_BIND*")
    return warning(
        f"set in this shell: {', '.join(here.variables)}",
        f"unset {' '.join(here.variables)}, or look where your profile sets them",
    )


CHECKS: tuple[Check[Here], ...] = (
    Check("python", "The command and the service are written for Python 3.11 and newer.", python),
    Check("service", "Without this extra there is no `lockstep serve` here.", service),
    Check("postgres", "Without this extra the service keeps its data in SQLite.", postgres),
    Check(
        "pyslurm", "With this extra the service talks to slurmctld without starting a process per question.", pyslurm
    ),
    Check("slurm-commands", "Jobs reach Slurm, and answers come back, through its own commands.", slurm_commands),
    Check(
        "topology-tools",
        "They show a machine's sockets and memory domains to a person who checks a placement.",
        topology,
    ),
    Check("iproute2", "The one-machine cluster makes its network namespaces with `ip`.", iproute2),
    Check("run-folder", "Each job has a folder of its own under it, made before Slurm hears of the job.", runs_folder),
    Check(
        "disk-space", "A full disk costs checkpoints and records, and a job that cannot write its claim ends.", space
    ),
    Check(
        "sqlite-filesystem", "SQLite's locks cannot be trusted on a network file system: the database breaks.", database
    ),
    Check("locale", "Names and logs that are not ASCII are garbled, and rank output with them.", locale),
    Check(
        "shell-variables",
        "SBATCH_* and SRUN_* win over the script's own header when it is run by hand, and a leaked SLURM_CPU_BIND has "
        "bound whole fleets to the wrong cores.",
        shell,
    ),
)
