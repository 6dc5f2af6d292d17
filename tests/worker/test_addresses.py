"""Where ranks meet: the loopback address on one machine, else an address that routes to the others."""

from __future__ import annotations

import ipaddress

import pytest

from lockstep_worker.addresses import (
    Host,
    Interface,
    address_of,
    interface_towards,
    interfaces,
    meeting_address,
    this_host,
)
from lockstep_worker.errors import MeetingError


def test_nodes_that_are_one_machine_meet_on_loopback() -> None:
    here = this_host()
    assert Host.parse(here.document()) == here
    assert meeting_address("node1", {"node1": here, "node2": this_host()}) == "127.0.0.1"
    assert interface_towards("127.0.0.1") == "lo"


def test_nodes_that_are_machines_meet_on_the_network_that_they_share() -> None:
    here = this_host()
    # A bridge of containers that has the same address on every machine is no way to the other one.
    bridge = Interface("docker0", "172.31.255.1/16")
    own = [found for found in interfaces() if not ipaddress.ip_address(found.address).is_loopback]
    if not own:  # this machine has no network at all
        other = Host("other", (Interface("net0", "192.0.2.77/24"),))
        with pytest.raises(MeetingError, match="no route"):
            meeting_address("node1", {"node1": here, "node2": other})
        return
    network = ipaddress.IPv4Interface(own[0].network).network
    neighbour = next(address for address in network if str(address) not in {found.address for found in own})
    far = Interface("far0", "203.0.113.9/24")
    other = Host("other", (bridge, far, Interface("other-name", f"{neighbour}/{network.prefixlen}")))
    met = meeting_address("node1", {"node1": Host(here.machine, (*here.interfaces, bridge)), "node2": other})
    assert met == own[0].address
    assert interface_towards(met) in {own[0].name, "lo"}


def test_a_node_without_an_address_is_named() -> None:
    other = Host("other", (Interface("lo", "127.0.0.1/8"),))
    with pytest.raises(MeetingError, match="node2 has no IPv4 address of its own"):
        meeting_address("node1", {"node1": this_host(), "node2": other})


def test_an_interface_that_is_not_there_is_told_with_those_that_are() -> None:
    assert address_of("lo") == "127.0.0.1"
    with pytest.raises(MeetingError, match=r"no interface 'ib7' .*lo"):
        address_of("ib7")
