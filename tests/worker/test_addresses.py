"""Where ranks meet: the loopback address on one machine, else an address that routes to the others."""

from __future__ import annotations

import ipaddress
import json
import subprocess

import pytest

from lockstep_worker.addresses import (
    Host,
    Interface,
    chosen_interfaces,
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


def two(first: str, second: str) -> dict[str, Host]:
    """Two machines with these interfaces, each ``name address/prefix, ...``."""

    def host(machine: str, text: str) -> Host:
        return Host(machine, tuple(Interface(*one.split()) for one in text.split(", ")))

    return {"n1": host("a", first), "n2": host("b", second)}


def names(chosen: dict[str, Interface] | None) -> dict[str, str]:
    assert chosen is not None
    return {node: found.name for node, found in chosen.items()}


def choose(hosts: dict[str, Host], *subnets: str, interface: str | None = None) -> dict[str, Interface] | None:
    return chosen_interfaces(hosts, interface=interface, subnets=subnets, required=False)


APART = two("lo 127.0.0.1/8, eth0 192.0.2.1/24, ib0 10.1.0.1/16", "lo 127.0.0.1/8, ens3 192.0.2.2/24, ibs5 10.1.0.2/16")


def test_each_node_takes_its_own_interface_in_the_subnet() -> None:
    assert names(choose(APART, "10.1.0.0/16")) == {"n1": "ib0", "n2": "ibs5"}
    assert names(choose(APART, "192.0.2.0/24")) == {"n1": "eth0", "n2": "ens3"}


def test_the_first_subnet_that_every_node_is_in_wins() -> None:
    assert names(choose(APART, "10.9.0.0/16", "10.1.0.0/16", "192.0.2.0/24")) == {"n1": "ib0", "n2": "ibs5"}
    one_without = two("eth0 192.0.2.1/24, ib0 10.1.0.1/16", "ens3 192.0.2.2/24")
    assert names(choose(one_without, "10.1.0.0/16", "192.0.2.0/24")) == {"n1": "eth0", "n2": "ens3"}


def test_no_subnet_leaves_the_choice_to_the_routes() -> None:
    assert choose(APART) is None


def test_a_node_outside_of_every_subnet_is_named_with_what_it_has_and_what_to_set() -> None:
    with pytest.raises(MeetingError) as caught:
        choose(APART, "10.9.0.0/16")
    said = str(caught.value)
    assert "n1 has no interface in 10.9.0.0/16 (it has lo 127.0.0.1/8, eth0 192.0.2.1/24, ib0 10.1.0.1/16)" in said
    assert "communication.subnet" in said


def test_machines_never_meet_on_loopback_but_one_machine_may() -> None:
    with pytest.raises(MeetingError, match=r"n1 has no interface in 127\.0\.0\.0/8"):
        choose(APART, "127.0.0.0/8")
    with pytest.raises(MeetingError, match="n1 has no interface 'lo'"):
        choose(APART, interface="lo")
    alone = {"n1": APART["n1"], "n2": APART["n1"]}
    assert names(choose(alone, "127.0.0.0/8")) == {"n1": "lo", "n2": "lo"}


def test_a_sites_subnets_bind_no_job_that_stays_on_one_machine() -> None:
    alone = {"n1": APART["n1"]}
    assert choose(alone, "10.9.0.0/16") is None
    with pytest.raises(MeetingError, match=r"n1 has no interface in 10\.9"):
        chosen_interfaces(alone, interface=None, subnets=["10.9.0.0/16"], required=True)


def test_an_interface_that_a_node_lacks_is_told_with_those_that_it_has() -> None:
    assert names(choose(two("eth0 192.0.2.1/24", "eth0 192.0.2.2/24"), interface="eth0"))["n2"] == "eth0"
    with pytest.raises(MeetingError, match=r"n2 has no interface 'eth0' .*ens3 192\.0\.2\.2/24"):
        choose(APART, interface="eth0")


def test_only_the_first_address_of_an_interface_counts_since_gloo_takes_that() -> None:
    hosts = two("eth0 192.0.2.1/24, eth0 10.1.0.1/16", "eth0 192.0.2.2/24, eth0 10.1.0.2/16")
    with pytest.raises(MeetingError, match=r"no interface in 10\.1\.0\.0/16"):
        choose(hosts, "10.1.0.0/16")


def test_the_kernels_own_list_is_told() -> None:
    listed = subprocess.run(["ip", "-j", "-4", "addr", "show", "up"], capture_output=True, check=True).stdout
    expected = {
        (info.get("label", link["ifname"]), f"{info['local']}/{info['prefixlen']}")
        for link in json.loads(listed)
        for info in link.get("addr_info", [])
    }
    assert {(found.name, found.network) for found in interfaces()} == expected
    assert expected
