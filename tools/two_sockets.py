"""A machine with two sockets for the tests: QEMU emulates it, so the kernel inside is a real one that binds threads.

    .venv/bin/python tools/two_sockets.py            boots it and gives a shell in it; ``exit`` ends it
    .venv/bin/python tools/two_sockets.py --no-smt   the same with 2 x 4 cores of one hardware thread

2 sockets x 2 cores x 2 hardware threads, 2 NUMA domains, a network card at the second of them. It needs no disk: its
root is this machine's own files (virtio-fs, read only, under a layer in memory), so every path means the same on both
sides, the environment in ``.venv`` with torch and Horovod too; over them lies the /usr of the tests' second Slurm
(second_slurm.py), with cgroup v2. What has to be made is a kernel with a small initramfs, kept in ``$LOCKSTEP_CACHE``
(default ``~/.cache/lockstep``) as ``machine/<digest of what decides it>/``, once per machine.

Standard library only, and no newer syntax than Python 3.8 reads, as the rest of the set-up.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import second_slurm
from steps import ROOT, run, say, stop
from system import Need, install, program

FILES = ROOT / "tools" / "emulated"
KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_console", "vmxnet3")
"""What the kernel needs to find its root, to hand out results, and for its card; with what these need themselves."""
FOLDERS = ("bin", "proc", "sys", "dev", "modules", "lower", "upper", "root")
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
QEMU = "qemu-system-x86_64"
NEEDS = [
    program(QEMU, "qemu-system-x86", "an emulated two-socket machine for the tests"),
    Need(VIRTIOFSD.exists, "qemu-system-common", "an emulated two-socket machine for the tests"),
]
CPU = "SandyBridge,-x2apic,-tsc-deadline,+fma,+f16c"
"""With ``max`` a guest sees no hardware threads; what is taken out TCG does not have (QEMU 7.2). Horovod's library is
built for AVX and the two added (0.28.1)."""
MEMORY = 1536
"""MiB of each NUMA domain."""


class Shape(NamedTuple):
    """Sockets, cores of each, hardware threads of each core; 8 CPUs in all: with 16 QEMU hangs now and then."""

    sockets: int
    cores: int
    threads: int

    @property
    def cpus(self) -> int:
        """Hardware threads of the machine."""
        return self.sockets * self.cores * self.threads


WITH_SMT = Shape(2, 2, 2)
WITHOUT_SMT = Shape(2, 4, 1)


def home() -> Path:
    """Where the kernel and its initramfs are, whether or not they have been made yet."""
    cache = Path(os.environ.get("LOCKSTEP_CACHE") or Path.home() / ".cache" / "lockstep")
    decided_by = repr((KERNEL, BUSYBOX, MODULES, FOLDERS)).encode() + (FILES / "init.sh").read_bytes()
    return cache / "machine" / hashlib.sha256(decided_by).hexdigest()[:12]


def why_not() -> str | None:
    """Why the machine cannot be emulated here, in words for a person; None where it can."""
    reason = second_slurm.why_not()
    return reason and f"an emulated two-socket machine runs the tests' second Slurm. {reason}"


def make() -> None:
    """Makes kernel and initramfs unless they are there; says why where they cannot be."""
    reason = why_not()
    if reason is not None:
        say(reason)
        return
    install(NEEDS)
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two set-ups on one machine make it once: the second waits for the first
        if not target.exists():
            _make(target)


def _make(target: Path) -> None:
    """The kernel as it is in the distribution's package, and an initramfs from its modules; nothing is installed."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(str(partial), ignore_errors=True)
    unpacked = partial / "unpacked"
    unpacked.mkdir(parents=True)
    depends = subprocess.run(["apt-cache", "depends", KERNEL], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        stop(f"apt knows no package {KERNEL}: `apt-get update`, and see /etc/apt/sources.list*")
    # As root: apt's own user may not write here.
    fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", found[1], BUSYBOX]
    hint = "Are the package sources in /etc/apt reachable from here, and fresh (`apt-get update`)?"
    run("a kernel for the emulated machine", fetch, cwd=partial, hint=hint)
    for package in sorted(partial.glob("*.deb")):
        run("unpacking " + package.name.split("_")[0], ["dpkg-deb", "--extract", str(package), str(unpacked)])
    (kernel,) = unpacked.glob("boot/vmlinuz-*")
    shutil.copyfile(str(kernel), str(partial / "vmlinuz"))
    modules = {file.stem.replace("-", "_"): file for file in unpacked.glob("lib/modules/*/kernel/**/*.ko")}
    order = needed(MODULES, modules)
    entries = [(name, 0o40755, b"") for name in FOLDERS]
    entries += [(f"modules/{name}.ko", 0o100644, modules[name].read_bytes()) for name in order]
    entries += [
        ("modules/order", 0o100644, " ".join(order).encode()),
        ("bin/busybox", 0o100755, (unpacked / "bin" / "busybox").read_bytes()),
        ("init", 0o100755, (FILES / "init.sh").read_bytes()),
    ]
    (partial / "initramfs").write_bytes(gzip.compress(archive(entries)))
    shutil.rmtree(str(unpacked))
    for package in partial.glob("*.deb"):
        package.unlink()
    partial.rename(target)


def needed(names: tuple[str, ...], modules: dict[str, Path]) -> list[str]:
    """These modules and what they depend on, each after what it needs, by the ``depends`` that each carries."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        if name not in modules:
            stop(f"the kernel of {KERNEL} has no module {name}; please report this")
        found = re.search(rb"\0depends=([^\0]*)\0", modules[name].read_bytes())
        for other in found[1].decode().split(",") if found else []:
            if other:
                add(other.replace("-", "_"))
        order.append(name)

    for name in names:
        add(name)
    return order


def archive(entries: list[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive in the form that the kernel unpacks (newc: Linux, buffer-format.rst); name, mode, content."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        out += b"\0" * (-len(out) % 4)
        out += content + b"\0" * (-len(content) % 4)
    return bytes(out)


def arguments(shape: Shape, folder: Path, *, console: str, one_thread: bool = False) -> list[str]:
    """QEMU's command line for this machine; ``folder`` has its sockets and files, ``console`` is a chardev.

    ``one_thread``: all CPUs are emulated in one thread, one after another.

    pxb-pcie: a PCI bridge that says in which NUMA domain it is; vmxnet3: of the cards in Debian's cloud kernel one
    whose device says so itself (a virtio card is behind a device of its own). Shared memory: virtiofsd reads there.
    """
    per_node = shape.cpus // shape.sockets
    accelerator = "tcg,thread=single" if one_thread else "tcg,thread=multi"
    argv = [QEMU, "-accel", accelerator, "-machine", "q35", "-cpu", CPU, "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-monitor", "none", "-chardev", console, "-serial", "chardev:console"]
    argv += ["-m", str(shape.sockets * MEMORY)]
    argv += ["-smp", f"{shape.cpus},sockets={shape.sockets},cores={shape.cores},threads={shape.threads}"]
    for node in range(shape.sockets):
        argv += ["-object", f"memory-backend-memfd,id=memory{node},size={MEMORY}M,share=on"]
        cpus = f"{node * per_node}-{(node + 1) * per_node - 1}"
        argv += ["-numa", f"node,nodeid={node},cpus={cpus},memdev=memory{node}"]
    argv += ["-chardev", f"socket,id=files,path={folder}/files.sock"]
    argv += ["-device", "vhost-user-fs-pci,chardev=files,tag=host"]
    argv += ["-chardev", f"file,id=results,path={folder}/results", "-device", "virtio-serial-pci"]
    argv += ["-device", "virtserialport,chardev=results,name=results"]
    argv += ["-device", "pxb-pcie,id=far,bus=pcie.0,bus_nr=128,numa_node=1"]
    argv += ["-device", "ioh3420,id=farport,bus=far,chassis=1,slot=1", "-device", "vmxnet3,bus=farport"]
    command = f"console=ttyS0 earlyprintk=ttyS0,115200 quiet panic=-1 mitigations=off lockstep.start={folder}/start.sh"
    return [*argv, "-kernel", str(home() / "vmlinuz"), "-initrd", str(home() / "initramfs"), "-append", command]


@contextlib.contextmanager
def booted(
    shape: Shape, folder: Path, program: Path, *, interactive: bool = False, one_thread: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """The machine's QEMU, running ``program`` as root once its Slurm is up, then off by itself; killed at the end.

    ``folder`` is an empty one with a short path (it has a socket). What ``program`` writes to /dev/vport1p1 is in
    ``folder``/results, the console in ``folder``/console, but on this terminal where ``interactive``.
    """
    start = (FILES / "start.sh").read_text(encoding="utf-8")
    system = second_slurm.home() / "system"
    settings = f"SYSTEM={system}\nPYTHON='{' '.join(second_slurm.PYTHON)}'\nFILES={FILES}\nTHREADS={shape.threads}\n"
    (folder / "start.sh").write_text(f"{settings}PROGRAM={program}\n{start}", encoding="utf-8")
    # In its own words: chroot is the sandbox that also works in a container; without a log it needs no syslog, for
    # whose socket its own filter of system calls kills it (7.2).
    files = [str(VIRTIOFSD), f"--socket-path={folder}/files.sock", "-f", "-o", "source=/", "-o", "sandbox=chroot"]
    files += ["-o", "cache=always"]
    console = "stdio,id=console" if interactive else f"file,id=console,path={folder}/console"
    with contextlib.ExitStack() as ends, (folder / "files.log").open("wb") as log:
        server = ends.enter_context(_ended(subprocess.Popen(files, stdin=subprocess.DEVNULL, stdout=log, stderr=log)))
        _wait_for(folder / "files.sock", server, folder / "files.log")
        own = None if interactive else subprocess.DEVNULL
        words = None if interactive else log
        argv = arguments(shape, folder, console=console, one_thread=one_thread)
        yield ends.enter_context(_ended(subprocess.Popen(argv, stdin=own, stdout=words, stderr=words)))


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process, and at the end none."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 30
    while not path.exists():
        if process.poll() is not None or time.monotonic() > ends:
            stop(f"{VIRTIOFSD} does not serve this machine's files: {log.read_text(errors='replace')}")
        time.sleep(0.05)


def main() -> None:
    """A shell in the machine."""
    if os.geteuid() != 0 or why_not() is not None:
        stop(why_not() or "only root can emulate it: it has this machine's files")
    second_slurm.make()
    make()
    shape = WITHOUT_SMT if "--no-smt" in sys.argv[1:] else WITH_SMT
    with tempfile.TemporaryDirectory(prefix="lockstep-machine-") as name:
        shell = Path(name) / "shell"
        shell.write_text("#!/bin/bash\nexec setsid --ctty bash --login -i < /dev/ttyS0 > /dev/ttyS0 2>&1\n")
        shell.chmod(0o755)
        with booted(shape, Path(name), shell, interactive=True) as machine:
            machine.wait()


if __name__ == "__main__":
    main()
