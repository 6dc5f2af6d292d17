"""Makes the tests' second Slurm: 24.11, from the next Debian release, in a folder that is a system of its own.

It is kept in ``$LOCKSTEP_CACHE`` (default ``~/.cache/lockstep``) as ``slurm/<version>-<digest of what decides it>/``,
once per machine. A folder of that name is whole: it is made beside it, tried, and renamed. Beside the system lies
``programs/``, with a ``slurmctld``, an ``sbatch`` and so on; first on PATH, it is this machine's Slurm. Each of them
runs the real program in a mount namespace of its own, in which ``/usr`` is that system's and (nearly) all else is this
machine's: paths, users and network are the same on both sides, and the mount ends with the process.

Standard library only, and no newer syntax than Python 3.8 reads, as the rest of the set-up.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from steps import run, say, stop
from system import install, program

VERSION = "24.11"
RELEASE = Path("/etc/os-release")
MACHINE, NEXT = "bookworm", "trixie"
"""Which release this machine must be, and the one after it, which has that Slurm."""
PACKAGES = (
    "munge,slurmctld,slurmd,slurm-client,tzdata,"
    # What this machine's Python, and torch in it, find in their own system.
    "libexpat1,libffi8,libssl3t64,libsqlite3-0,libbz2-1.0,liblzma5,libuuid1,zlib1g,libstdc++6,libgomp1"
)
PYTHON = ("usr/bin/python3.11", "usr/lib/python3.11", "usr/local")
"""This machine's Python, which is mounted for slurmd: the environments of its jobs were made with it."""
LINK = ("usr/bin/python3", "python3.11")
"""What the environments' own links lead to."""
PROGRAMS = (
    *("munged", "slurmctld", "slurmd"),
    *("sbatch", "squeue", "scontrol", "scancel", "sacct", "sinfo", "srun", "salloc", "sattach", "sacctmgr"),
)
NEEDS = [
    program("mmdebstrap", "mmdebstrap", "a second Slurm for the tests"),
    program("unshare", "util-linux", "a second Slurm for the tests"),
    program("mount", "mount", "a second Slurm for the tests"),
]
# With /usr go the links into it and the loader's list of what is in it: on a machine without Slurm of its own,
# /etc/alternatives knows no slurmctld.
WRAPPER = """\
#!/bin/sh
# Runs the program of this name from the Slurm beside this folder: in a mount namespace of its own, with its /usr.
exec /usr/bin/unshare --mount /bin/sh -c '
  if [ "$0" = slurmd ]; then
    for part in PYTHON; do
      if [ -e "/$part" ]; then /usr/bin/mount --no-mtab --bind "/$part" "$1/$part" || exit 127; fi
    done
  fi
  for part in etc/alternatives etc/ld.so.cache usr; do
    /usr/bin/mount --no-mtab --rbind "$1/$part" "/$part" || exit 127
  done
  shift
  for folder in /usr/bin /usr/sbin; do
    if [ -x "$folder/$0" ]; then exec "$folder/$0" "$@"; fi
  done
  echo "$0: not in this Slurm" >&2
  exit 127' "${0##*/}" "${0%/*}/../system" "$@"
""".replace("PYTHON", " ".join(PYTHON))


def home() -> Path:
    """Where this machine's second Slurm is, whether or not it has been made yet."""
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or Path.home() / ".cache" / "lockstep")
    decided_by = repr((VERSION, NEXT, PACKAGES, PROGRAMS, PYTHON, LINK, WRAPPER))
    return cache / "slurm" / f"{VERSION}-{hashlib.sha256(decided_by.encode()).hexdigest()[:12]}"


def programs() -> Path:
    """The folder with its programs, for PATH; it exists only if this machine has that Slurm."""
    return home() / "programs"


def why_not() -> str | None:
    """Why it cannot be made here, in words for a person; None where it can."""
    lines = RELEASE.read_text(encoding="utf-8").splitlines() if RELEASE.exists() else []
    if f"VERSION_CODENAME={MACHINE}" not in lines or "ID=debian" not in lines:
        return (
            f"Slurm {VERSION} for the tests is taken from the release after Debian 12 ({MACHINE}), "
            "from the mirror that a Debian 12 has in its package sources; this is another system"
        )
    if os.geteuid() != 0:
        return (
            f"Slurm {VERSION} for the tests lives in a system of its own, which only root can make and start; "
            "run the set-up and the tests as root"
        )
    return None


def mirror() -> str:
    """The address that this machine's own package sources have for its release."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {MACHINE}", "Created-By: Packages"]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        stop(
            f"no package source of this machine is for {MACHINE}, so there is no mirror to take Slurm {VERSION} from: "
            "see /etc/apt/sources.list and /etc/apt/sources.list.d/, then `apt-get update`"
        )
    return found[0]


def apt_options() -> list[str]:
    """This machine's proxy settings of apt, which mmdebstrap does not take over by itself."""
    lines = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [f"--aptopt={line}" for line in lines if line.startswith("Acquire::http") and "proxy" in line.lower()]


def make() -> None:
    """Makes it unless it is there; says why where it cannot be (the tests that need it are skipped then)."""
    reason = why_not()
    if reason is not None:
        say(reason)
        return
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two set-ups on one machine make it once: the second waits for the first
        if not target.exists():
            install(NEEDS)
            _make(target)


def _make(target: Path) -> None:
    """All of it, in a folder beside ``target`` that becomes it in one step; what an interrupted one left goes first."""
    partial = target.with_name(target.name + ".partial")
    if partial.exists():
        remove(partial)
    (partial / "programs").mkdir(parents=True)
    # mmdebstrap mounts /proc and more into the new system; in a namespace of its own they go with it, also if killed.
    argv = ["unshare", "--mount", "mmdebstrap", "--quiet", "--variant=minbase", "--include=" + PACKAGES, *apt_options()]
    hint = f"Does the mirror in /etc/apt have {NEXT}, and may mounts be made here (a container may need more rights)?"
    run(f"making Slurm {VERSION}", [*argv, NEXT, str(partial / "system"), mirror()], hint=hint)
    for part in PYTHON:  # what they are mounted on
        point = partial / "system" / part
        point.parent.mkdir(parents=True, exist_ok=True)
        if part.startswith("usr/bin/"):
            point.touch()
        else:
            point.mkdir(exist_ok=True)
    (partial / "system" / LINK[0]).symlink_to(LINK[1])
    for name in PROGRAMS:
        wrapper = partial / "programs" / name
        wrapper.write_text(WRAPPER, encoding="utf-8")
        wrapper.chmod(0o755)
    check(partial)
    partial.rename(target)


def check(folder: Path) -> None:
    """Ends the set-up where the programs in ``folder`` do not run, or are another Slurm than they should be."""
    argv = [str(folder / "programs" / "slurmctld"), "-V"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if not done.stdout.startswith(f"slurm-wlm {VERSION}."):
        stop(
            f"the Slurm from {NEXT} should be {VERSION}, and `{argv[0]} -V` says: {done.stdout}{done.stderr}"
            "Its programs need to mount a folder in a namespace of their own: root, in a container with that right."
        )


def remove(folder: Path) -> None:
    """Removes a half-made system, unless something is mounted in it: then a person has to look."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    # proc(5): the fifth field, in which blanks and the like are written as "\\040".
    points = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in lines]
    inside = [point for point in points if point.startswith(f"{folder.resolve()}/")]
    if inside:
        stop(f"{folder} is half made, and {inside[0]} is still mounted in it: `umount` that, then run this again")
    shutil.rmtree(folder)
