"""What a build needs of the machine: compilers, an MPI, and memory and cores for so many compilers at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.target import Target

# Measured with gcc 12 and torch 2.13: one compiler process takes up to 2.3 GB.
BYTES_PER_COMPILER = 2_300_000_000
_APT = "on Debian or Ubuntu: apt-get install g++ make python3-dev"
_MODULE = "on a cluster a compiler is often a module: module load gcc"


@dataclass(frozen=True)
class Mpi:
    """An MPI to build against."""

    kind: str
    wrapper: Path
    """Its C++ compiler wrapper."""
    version: str
    """What the wrapper says that it is: ``Open MPI 4.1.4``."""
    folders: tuple[str, ...] = ()
    """Where its libraries lie, for the run path; empty where the system finds them anyway."""


def compiler() -> str:
    """The C++ compiler: ``$CXX``, as CMake takes it, or g++."""
    return os.environ.get("CXX") or "g++"


def check_tools(target: Target) -> None:
    """``WheelError`` where a compiler, make, strip or Python's headers are missing, or C++20 is beyond the compiler."""
    missing = [name for name in (compiler(), "make", "strip") if shutil.which(name) is None]
    if missing:
        raise WheelError(f"{' and '.join(missing)} not found on PATH; building needs a compiler. {_APT}; {_MODULE}")
    if not target.has_headers:
        raise WheelError(
            f"{target.headers}/Python.h is missing, the headers of {target.python}; on Debian or Ubuntu: "
            f"apt-get install python{target.version[0]}.{target.version[1]}-dev"
        )
    probe = ["-std=c++20", "-x", "c++", "-fsyntax-only", "-"]
    done = subprocess.run(
        [compiler(), *probe], input="#include <concepts>\n#include <version>\n#include <span>\nint main() {}\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        version = _first_line([compiler(), "--version"])
        raise WheelError(
            f"the compiler cannot do C++20, which torch's headers need: {version}. {_MODULE}/12, or set CXX"
        )


def find_mpi(kind: str) -> Mpi | None:
    """The MPI that ``mpicxx`` on PATH belongs to; None for ``none``. ``WheelError`` where it is not this kind.

    Only that name: CMake looks for it beside ``mpiexec``, and would find another MPI's in spite of any other wrapper.
    """
    if kind == "none":
        return None
    path = shutil.which("mpicxx")
    said = _first_line([path, "--showme:version"]) if path is not None else ""
    found = re.search(r"Open MPI [0-9.]+", said)
    if path is None or found is None:
        what = "there is no mpicxx on PATH" if path is None else f"{path} is not Open MPI's: it says {said!r}"
        raise WheelError(
            f"no Open MPI to build against: {what}. On Debian or Ubuntu: apt-get install openmpi-bin libopenmpi-dev; "
            "on a cluster load its module; where several are installed, put Open MPI's first on PATH"
        )
    folders = _first_line([path, "--showme:libdirs"]).split()
    outside = tuple(folder for folder in folders if not folder.startswith(("/usr/lib", "/lib")))
    return Mpi(kind, Path(path), found[0], outside)


def jobs(cpus: int, available: int) -> int:
    """How many compilers to run at once with this many CPUs and bytes of memory; ``WheelError`` for less than one."""
    if available < BYTES_PER_COMPILER:
        raise WheelError(
            f"a compiler needs up to {BYTES_PER_COMPILER / 1e9:.1f} GB of memory here, and only "
            f"{available / 1e9:.1f} GB are free; free some, build on a larger node, or try all the same with --jobs 1"
        )
    return max(1, min(cpus, available // BYTES_PER_COMPILER))


def cpus() -> int:
    """How many CPUs this process may use: its own set, not the machine's."""
    return len(os.sched_getaffinity(0))


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that new processes can have: the kernel's estimate and free swap, or less where a cgroup limits us."""
    lines = (proc / "meminfo").read_text().splitlines()
    info = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    free = info["MemAvailable"] + info["SwapFree"]
    return min([free, *_cgroup_free((proc / "self" / "cgroup").read_text(), cgroups)])


def _cgroup_free(own: str, cgroups: Path) -> list[int]:
    """What each limit above this process leaves, in bytes; version 2 and version 1 of cgroups."""
    found = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, used, cache = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        folder = root / path.lstrip("/")
        for level in (folder, *folder.parents):
            if not level.is_relative_to(root):
                break
            try:
                limited, taken = (level / limit).read_text().strip(), int((level / used).read_text())
                statistics = (level / "memory.stat").read_text()
            except OSError:
                continue  # the root of version 2 has no limit, and a container may not show what is above it
            if limited.isdecimal():
                # File pages that nobody uses count as taken, and are given back when memory is asked for.
                unused = re.search(rf"^{cache} (\d+)$", statistics, re.MULTILINE)
                found.append(max(0, int(limited) - taken + (int(unused[1]) if unused else 0)))
    return found


def environment(base: Mapping[str, str], tools: Path, mpi: Mpi | None, at_once: int) -> dict[str, str]:
    """The environment of the build: what Horovod's own set-up reads."""
    # A HOROVOD_* of the shell's would change what is built, and not under which name it is kept.
    return {
        **{name: value for name, value in base.items() if not name.startswith("HOROVOD_")},
        "PATH": f"{tools / 'bin'}:{base.get('PATH', os.defpath)}",
        "PYTHONPATH": str(tools),
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI" if mpi is None else "HOROVOD_WITH_MPI": "1",
        "MAKEFLAGS": f"-j{at_once}",
    }


def _first_line(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return ((done.stdout.strip() or done.stderr.strip()).splitlines() or [""])[0]
