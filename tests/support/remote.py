"""A file system whose server can lose it or stop answering: FUSE, spoken here, so that the kernel's answers are real.

Files are in this process's memory. ``lose()``: handles from before answer ESTALE, as NFS does when its server has lost
a file, until they are opened anew. ``holding()``: nothing is answered.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# linux/fuse.h, protocol 7.31
LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 9, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, CREATE, INTERRUPT, BATCH_FORGET = 20, 25, 26, 27, 28, 29, 35, 36, 42
_BYTES = 1 << 16
_DIRECT = 1
_SIZE = 1 << 3
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Node:
    """A file, or a folder with ``names``."""

    names: dict[str, int] | None = None
    data: bytearray = field(default_factory=bytearray)


class Remote:
    """The server; one thread."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._nodes = {1: Node({})}
        self._opened: set[int] = set()
        self._handles = 0
        self._answers = threading.Event()
        self._answers.set()
        self.asked = threading.Event()
        """Set when something is asked while nothing is answered."""
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def lose(self) -> None:
        """Handles that are open now are stale from here on."""
        self._opened.clear()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Within, nothing is answered."""
        self.asked.clear()
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _BYTES + 8192)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.EBADF):
                    return  # unmounted
                continue
            _, operation, unique, node = struct.unpack_from("=IIQQ", request)
            if operation in (FORGET, BATCH_FORGET, INTERRUPT):
                continue
            if not self._answers.is_set():
                self.asked.set()
                self._answers.wait()
            try:
                number, body = 0, self._answer(operation, node, request[40:])
            except OSError as error:
                number, body = error.errno or errno.EIO, b""
            try:
                os.write(self._device, struct.pack("=IiQ", 16 + len(body), -number, unique) + body)
            except OSError:
                continue  # who asked has been killed

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == INIT:
            return struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 16, 12, _BYTES, 1, 0, 0, 0)
        here = self._nodes[node]
        if operation in (LOOKUP, MKDIR, CREATE):
            return self._named(operation, here, body)
        if operation in (READ, WRITE, FSYNC):
            return self._handled(operation, here, body)
        if operation == SETATTR and struct.unpack_from("=I", body)[0] & _SIZE:
            del here.data[struct.unpack_from("=Q", body, 16)[0] :]
        answers: dict[int, Callable[[], bytes]] = {
            OPEN: self._open,
            OPENDIR: self._open,
            GETATTR: lambda: struct.pack("=QII", 0, 0, 0) + self._attributes(node),
            SETATTR: lambda: struct.pack("=QII", 0, 0, 0) + self._attributes(node),
            READDIR: lambda: self._entries(here, struct.unpack_from("=QQ", body)[1]),
            STATFS: lambda: struct.pack("=QQQQQIIII24x", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0),
            **dict.fromkeys((FLUSH, RELEASE, RELEASEDIR), lambda: b""),
        }
        if operation not in answers:
            raise OSError(errno.ENOSYS, "not needed here")
        return answers[operation]()

    def _handled(self, operation: int, here: Node, body: bytes) -> bytes:
        """What is asked of an open file."""
        if struct.unpack_from("=Q", body)[0] not in self._opened:
            raise OSError(errno.ESTALE, "lost")
        if operation == FSYNC:
            return b""
        _, offset, size = struct.unpack_from("=QQI", body)
        if operation == READ:
            return bytes(here.data[offset : offset + size])
        here.data[offset : offset + size] = body[40 : 40 + size]
        return struct.pack("=II", size, 0)

    def _named(self, operation: int, folder: Node, body: bytes) -> bytes:
        name = body[{LOOKUP: 0, MKDIR: 8, CREATE: 16}[operation] :].partition(b"\0")[0].decode()
        assert folder.names is not None
        if operation != LOOKUP:
            number = folder.names[name] = len(self._nodes) + 1
            self._nodes[number] = Node({} if operation == MKDIR else None)
        elif name not in folder.names:
            raise OSError(errno.ENOENT, name)
        number = folder.names[name]
        entry = struct.pack("=QQQQII", number, 0, 0, 0, 0, 0) + self._attributes(number)
        return entry + (self._open() if operation == CREATE else b"")

    def _open(self) -> bytes:
        self._handles += 1
        self._opened.add(self._handles)
        return struct.pack("=QII", self._handles, _DIRECT, 0)

    def _attributes(self, number: int) -> bytes:
        node = self._nodes[number]
        mode = stat.S_IFREG | 0o600 if node.names is None else stat.S_IFDIR | 0o700
        size = len(node.data)
        return struct.pack("=QQQQQQIIIIIIIIII", number, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    @staticmethod
    def _entries(folder: Node, offset: int) -> bytes:
        found = b""
        for place, (name, number) in enumerate((folder.names or {}).items(), 1):
            if place > offset:
                text = name.encode()
                entry = struct.pack("=QQII", number, place, len(text), 0) + text
                found += entry + bytes(-len(entry) % 8)
        return found


@contextmanager
def mounted(folder: Path) -> Iterator[Remote]:
    """``folder``, which exists, as such a file system."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"this machine has no FUSE: {error}")
    options = f"fd={device},rootmode=40700,user_id=0,group_id=0,allow_other"
    if _LIBC.mount(b"remote", os.fsencode(folder), b"fuse", 0, options.encode()) != 0:
        os.close(device)
        pytest.skip(f"this machine mounts no FUSE: {os.strerror(ctypes.get_errno())}")
    remote = Remote(device)
    remote.thread.start()
    try:
        yield remote
    finally:
        subprocess.run(["umount", "--force", "--lazy", str(folder)], check=True)
        remote.thread.join(10)
        os.close(device)
