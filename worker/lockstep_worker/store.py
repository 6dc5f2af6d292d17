"""What the ranks have left at the rendezvous: values by scope and key, within bounds (standard library only).

The scopes are Horovod's (0.28.1): ``global``, ``local_<node>``, ``cross_<local rank>``, and those three again with
``_process_set_hash_<hash>`` behind them. In each, every member leaves its addresses under its rank in that scope,
waits for the others', and deletes its key once all have connected.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from lockstep_worker.errors import WorkerError

GLOO_ADDRESS = 136
"""Bytes of one address of Gloo's: a sockaddr_storage and a sequence number."""
KEYS_PER_RANK = 256
SPARE_BYTES = 64 << 20


class FullError(WorkerError):
    """No more keys or bytes are taken."""


def scope_sizes(tasks_by_node: Mapping[str, int]) -> dict[str, int]:
    """How many ranks each scope of the whole job has: those are known before anybody comes."""
    counts = list(tasks_by_node.values())
    sizes = {"global": sum(counts)}
    sizes.update({f"local_{node}": tasks for node, tasks in tasks_by_node.items()})
    for local_rank in range(max(counts)):
        sizes[f"cross_{local_rank}"] = sum(tasks > local_rank for tasks in counts)
    return sizes


class Store:
    """Values by (scope, key), for many threads."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._left: dict[str, set[str]] = {}
        self._values: dict[str, dict[str, bytes]] = {}
        self._awaited: dict[tuple[str, str], threading.Event] = {}
        self._lock = threading.Lock()
        self._keys = self._bytes = 0
        ranks = sizes["global"]
        self.value_limit = max(1 << 20, 2 * GLOO_ADDRESS * ranks)
        """Bytes of one value; the largest holds an address for every other rank."""
        self._most_keys = KEYS_PER_RANK * ranks + 1024
        # A mesh of all ranks leaves ranks^2 addresses; two of them are open at once, and some process sets.
        self._most_bytes = SPARE_BYTES + 8 * GLOO_ADDRESS * ranks * ranks

    def put(self, scope: str, key: str, value: bytes) -> None:
        """Keeps ``value``, in place of what was there. Raises ``FullError`` when that were too much."""
        with self._lock:
            old = self._values.get(scope, {}).get(key)
            keys = self._keys + (old is None)
            total = self._bytes + len(value) - len(old or b"")
            if keys > self._most_keys or total > self._most_bytes:
                raise FullError
            self._keys, self._bytes = keys, total
            self._values.setdefault(scope, {})[key] = value
            awaited = self._awaited.pop((scope, key), None)
        if awaited is not None:
            awaited.set()

    def get(self, scope: str, key: str, patience: float = 0.0) -> bytes | None:
        """The value, or None when there is none after ``patience`` seconds."""
        with self._lock:
            found = self._values.get(scope, {}).get(key)
            if found is not None or not patience or len(self._awaited) >= self._most_keys:
                return found
            awaited = self._awaited.setdefault((scope, key), threading.Event())
        awaited.wait(patience)
        return self.get(scope, key)

    def delete(self, scope: str, key: str) -> None:
        """A member takes its leave of a scope.

        A scope of the whole job is emptied when all its members have left, as Horovod's own server does it: a member
        that is slow may still ask for the addresses of one that has left. Of another scope nobody knows how many
        members it has: the key goes at once, and with the last of such keys all else there (the members' host names).
        """
        with self._lock:
            size = self._sizes.get(scope)
            if size is not None:
                left = self._left.setdefault(scope, set())
                left.add(key)
                if len(left) < size:
                    return
                del self._left[scope]
            else:
                found = self._values.get(scope, {})
                value = found.pop(key, None)
                if value is not None:
                    self._keys, self._bytes = self._keys - 1, self._bytes - len(value)
                if any(other.isdecimal() for other in found):
                    return
            emptied = self._values.pop(scope, {})
            self._keys -= len(emptied)
            self._bytes -= sum(map(len, emptied.values()))
