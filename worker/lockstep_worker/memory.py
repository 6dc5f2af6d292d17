"""Where the kernel takes a rank's pages from: the policy that a training inherits (Linux; standard library only)."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from lockstep_slurm.placement import Memory

# The system calls' numbers, from Linux's tables (arch/*/kernel/syscalls, asm-generic/unistd.h): glibc has no wrapper.
_SET_MEMPOLICY = {
    "x86_64": 238,
    "aarch64": 237,
    "riscv64": 237,
    "loongarch64": 237,
    "ppc64le": 261,
    "ppc64": 261,
    "s390x": 270,
}
# linux/mempolicy.h
_DEFAULT, _PREFERRED, _BIND, _PREFERRED_MANY = 0, 1, 2, 5
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def policy(memory: Memory) -> Iterator[str | None]:
    """Within, this process and what it starts have this policy; then the kernel's default again.

    Yields a sentence where it could not be had: memory is then taken from where a thread runs, mostly the same.
    """
    failed = None if memory.policy == "local" else _set(memory)
    try:
        yield failed
    finally:
        if memory.policy != "local" and failed is None:
            _call(_DEFAULT, ())


def _set(memory: Memory) -> str | None:
    domains = ", ".join(map(str, memory.domains))
    what = f"memory of NUMA domain {domains} ({memory.policy}) was planned"
    if platform.machine() not in _SET_MEMPOLICY:
        return f"{what}, but how {platform.machine()} is asked for that is not known here"
    if memory.policy == "bind":
        error = _call(_BIND, memory.domains)
    elif len(memory.domains) == 1:
        error = _call(_PREFERRED, memory.domains)
    else:
        # Linux 5.15; before that a process prefers one domain.
        error = _call(_PREFERRED_MANY, memory.domains) and _call(_PREFERRED, memory.domains[:1])
    return None if error == 0 else f"{what}, but the kernel says: {os.strerror(error)}"


def _call(mode: int, domains: tuple[int, ...]) -> int:
    """``set_mempolicy``; returns 0 or errno."""
    bits = ctypes.sizeof(ctypes.c_ulong) * 8
    words = (ctypes.c_ulong * (max(domains, default=0) // bits + 1))()
    for domain in domains:
        words[domain // bits] |= 1 << domain % bits
    # The kernel reads one bit less than it is told (mm/mempolicy.c, get_nodes).
    number = _SET_MEMPOLICY[platform.machine()]
    done = _LIBC.syscall(
        ctypes.c_long(number),
        ctypes.c_long(mode),
        ctypes.byref(words) if domains else None,
        ctypes.c_ulong(len(words) * bits + 1 if domains else 0),
    )
    return 0 if done == 0 else ctypes.get_errno()
