"""What ranks leave at the rendezvous: found until its scope is done with, and never more than there is room for."""

from __future__ import annotations

import threading
import time

import pytest

from lockstep_worker.store import FullError, Store, scope_sizes

SIZES = scope_sizes({"node1": 2, "node2": 1})


def test_the_scopes_of_a_job_have_their_sizes() -> None:
    assert SIZES == {"global": 3, "local_node1": 2, "local_node2": 1, "cross_0": 2, "cross_1": 1}


def test_a_scope_of_the_job_stays_until_its_last_member_leaves() -> None:
    store = Store(SIZES)
    for rank in ("0", "1", "2"):
        store.put("global", rank, b"address")
    for rank in ("0", "0", "2"):  # one that leaves twice counts once
        store.delete("global", rank)
    assert store.get("global", "0") == b"address"
    store.put("local_node1", "0", b"local")
    store.delete("global", "1")
    assert store.get("global", "0") is None
    assert store.get("local_node1", "0") == b"local"


def test_a_scope_can_be_used_again() -> None:
    store = Store(SIZES)
    for value in (b"first", b"second"):
        store.put("cross_0", "0", value)
        assert store.get("cross_0", "0") == value
        store.delete("cross_0", "0")
        assert store.get("cross_0", "0") == value
        store.delete("cross_0", "1")
        assert store.get("cross_0", "0") is None


def test_a_process_sets_scope_is_gone_with_its_last_address() -> None:
    store = Store(SIZES)
    for key in ("0", "1", "rank_0", "rank_1"):
        store.put("global_process_set_hash_1f", key, b"x")
    store.delete("global_process_set_hash_1f", "0")
    assert store.get("global_process_set_hash_1f", "0") is None
    assert store.get("global_process_set_hash_1f", "rank_0") == b"x"
    store.delete("global_process_set_hash_1f", "1")
    assert store.get("global_process_set_hash_1f", "rank_0") is None


def test_what_is_waited_for_is_there_as_soon_as_it_comes() -> None:
    store = Store(SIZES)
    threading.Timer(0.2, store.put, ("global", "0", b"late")).start()
    began = time.monotonic()
    assert store.get("global", "0", patience=60) == b"late"
    assert time.monotonic() - began < 30
    assert store.get("global", "1", patience=0.01) is None


def fill(store: Store, scope: str, count: int, value: bytes) -> None:
    for number in range(count):
        store.put(scope, str(number), value)


def test_there_is_an_end_to_what_it_takes() -> None:
    store = Store(SIZES)
    value = b"x" * (1 << 20)
    with pytest.raises(FullError):
        fill(store, "flood", 1000, value)
    store.put("flood", "0", b"smaller")  # what is there may be replaced
    with pytest.raises(FullError):
        fill(store, "keys", 100_000, b"")
    for number in range(1000):
        store.delete("flood", str(number))
    for number in range(100_000):
        store.delete("keys", str(number))
    store.put("global", "0", value)
    assert store.get("global", "0") == value
