"""Where Horovod listens is read from Gloo's bytes, and only what is understood is judged."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_worker.listening import Announced, addresses, misplaced

ANNOUNCED = {
    0: Announced("n1", "eth0", frozenset({"10.0.0.1"})),
    1: Announced("n2", "ib0", frozenset({"10.0.0.2"})),
    2: Announced("n2", "ib0", frozenset({"10.0.0.2"})),
}


def gloo(*listed: str) -> bytes:
    """Addresses as Gloo lays them out in memory."""
    found = b""
    for address in listed:
        head = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 40123) + socket.inet_aton(address)
        # What is behind the address is whatever was in memory.
        found += head.ljust(128, b"\x7f") + struct.pack("=q", 3)
    return found


def test_addresses_are_read() -> None:
    assert addresses(gloo("10.0.0.1", "127.0.1.1")) == frozenset({"10.0.0.1", "127.0.1.1"})
    six = (
        struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 40123, 0) + socket.inet_pton(socket.AF_INET6, "fd00::2")
    )
    assert addresses(six.ljust(136, b"\0")) == frozenset({"fd00::2"})


@pytest.mark.parametrize("value", [b"", b"node1", gloo("10.0.0.1")[:-1], gloo("10.0.0.1") + b"x", bytes(136)])
def test_what_is_not_understood_is_not_judged(value: bytes) -> None:
    assert addresses(value) is None
    assert misplaced("global", "0", value, ANNOUNCED) is None


@given(st.binary(max_size=300), st.text(max_size=20), st.text(max_size=5))
def test_nothing_makes_it_fail(value: bytes, scope: str, key: str) -> None:
    assert addresses(value) is None or addresses(value)
    misplaced(scope, key, value, ANNOUNCED)


@pytest.mark.parametrize("scope", ["global", "global_process_set_hash_1f00c"])
def test_a_rank_that_listens_elsewhere_is_named_with_the_cure(scope: str) -> None:
    assert misplaced(scope, "1", gloo("10.0.0.2", "10.0.0.2"), ANNOUNCED) is None
    # Another node's address will not do among all ranks.
    for address in ("127.0.1.1", "10.0.0.1"):
        said = misplaced(scope, "1", gloo(address, address), ANNOUNCED)
        assert said is not None
        assert f"the Horovod of rank 1 on n2 listens at {address} in place of ib0 (10.0.0.2)" in said
        assert "`lockstep worker build`" in said


@pytest.mark.parametrize("scope", ["local_n2", "cross_0", "cross_0_process_set_hash_1f", "global_process_set_hash_2"])
def test_in_a_smaller_mesh_any_interface_of_the_job_will_do(scope: str) -> None:
    assert misplaced(scope, "0", gloo("10.0.0.2"), ANNOUNCED) is None
    assert misplaced(scope, "0", gloo("127.0.1.1"), ANNOUNCED) is not None


@pytest.mark.parametrize(("scope", "key"), [("mine", "0"), ("global", "rank_0"), ("global2", "0")])
def test_other_values_are_nobodys_business(scope: str, key: str) -> None:
    assert misplaced(scope, key, gloo("127.0.1.1"), ANNOUNCED) is None
