"""Nodes that are hosts of their own: addresses, names, a link that is limited, cut and mended, and nothing left."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_slurm.cluster import ClusterError, ClusterInfo, Host, Network, down, link, network, status, up
from lockstep_slurm.cluster import processes as cluster_processes
from lockstep_slurm.cluster.hosts import POOLS, as_rate, bits_per_second, is_ours, plan
from lockstep_slurm.cluster.layout import Layout
from support import slurm as one_machine
from support.lockstep import wait_for
from support.slurm import run as slurm

RECEIVE = """
import socket, sys, time
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
received, started = 0, time.monotonic()
while chunk := connection.recv(1 << 20):
    received += len(chunk)
print(received * 8 / (time.monotonic() - started), flush=True)
"""
SEND = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
ends = time.monotonic() + float(sys.argv[3])
while time.monotonic() < ends:
    connection.sendall(bytes(65536))
"""
ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
while word := connection.recv(64):
    connection.sendall(word)
"""
# Each word of its input goes to the other side, and comes back before it is printed.
ASK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(64).decode(), end="", flush=True)
"""


@contextmanager
def on(host: Host, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program on this host; it is ended afterwards."""
    process = subprocess.Popen(
        [*host.inside, sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")


def measured(sender: Host, receiver: Host, seconds: float = 2.0) -> float:
    """Bits per second from one host to another over one TCP connection."""
    with on(receiver, RECEIVE, receiver.address) as server:
        port = line(server)
        with on(sender, SEND, receiver.address, port, str(seconds)) as client:
            client.wait(timeout=120)
        return float(line(server))


def net(info: ClusterInfo) -> Network:
    assert info.network is not None
    return info.network


def traces(of: Network) -> set[str]:
    """What there is of this network: interfaces on the machine's side, and namespaces."""
    own = {of.bridge, *(host.port for host in of.hosts), *(host.namespace for host in of.hosts)}
    there = {name for _, name in socket.if_nameindex()} | {entry.name for entry in Path("/run/netns").glob("*")}
    return own & there


@pytest.fixture
def hosts_folder(folder: Path) -> Path:
    """A folder for a cluster with hosts of the test's own."""
    one_machine.hosts_needed()
    return folder


def test_each_node_is_a_host_with_an_address_and_an_interface_name_of_its_own(hosts: ClusterInfo) -> None:
    assert hosts.nodes == ("h1", "h2")
    said = slurm(
        hosts, "srun", "-N2", "-n2", "sh", "-c", 'echo "$SLURMD_NODENAME $(ip -brief -4 address | tr "\\n" " ")"'
    )
    seen = {row.split()[0]: row.split()[1:] for row in said.splitlines()}
    for host in net(hosts).hosts:
        words = seen[host.node]
        assert any(word.startswith(f"{host.interface}@") for word in words)
        assert f"{host.address}/24" in words
        assert len([word for word in words if "@" in word]) == 1, "the loopback's and this one are all that it has"
    assert len({host.interface for host in net(hosts).hosts}) == 2
    assert len({host.address for host in net(hosts).hosts}) == 2


def test_a_job_on_one_host_starts_steps_on_both(hosts: ClusterInfo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slurm(hosts, "sbatch", "-N2", f"--output={out}", "--wrap=srun -N2 -n2 sh -c 'echo step on $SLURMD_NODENAME'")
    wait_for("both steps' words", lambda: out.exists() and len(out.read_text().splitlines()) == 2)
    assert sorted(out.read_text().splitlines()) == ["step on h1", "step on h2"]


def test_the_addresses_are_of_a_network_that_nothing_else_here_uses(hosts: ClusterInfo) -> None:
    subnet = ipaddress.ip_network(net(hosts).subnet)
    routes = json.loads(subprocess.check_output(["ip", "-json", "-4", "route", "show"]))
    others = [route for route in routes if route["dst"] != "default" and route.get("dev") != net(hosts).bridge]
    assert others
    assert not any(ipaddress.ip_network(route["dst"]).overlaps(subnet) for route in others)


def test_a_link_is_as_fast_as_it_is_told_to_be_in_both_directions(hosts: ClusterInfo) -> None:
    h1, h2 = net(hosts).hosts
    assert [one.rate for one in status(hosts.folder).links] == ["1gbit", "1gbit"]
    try:
        assert link(hosts.folder, "h2", rate="100mbit").rate == "100mbit"
        for sender, receiver in ((h1, h2), (h2, h1)):
            # On a busy machine one of them may get too little of a core; the limit holds for each.
            rates: list[float] = []
            while len(rates) < 3 and not any(rate > 50e6 for rate in rates):
                rates.append(measured(sender, receiver))
                assert rates[-1] < 100e6
            assert max(rates) > 50e6, rates
    finally:
        link(hosts.folder, "h2", rate="1gbit")


def test_a_cut_link_carries_nothing_and_a_mended_one_what_was_waiting(hosts: ClusterInfo) -> None:
    h1, h2 = net(hosts).hosts
    with on(h2, ECHO, h2.address) as server, on(h1, ASK, h2.address, line(server)) as client:
        say(client, "before")
        assert line(client) == "before"
        try:
            assert link(hosts.folder, "h2", on=False).state == "cut"
            assert [one.state for one in status(hosts.folder).links] == ["up", "cut"]
            shown = subprocess.check_output([*h2.inside, "ip", "link", "show", h2.interface], text=True)
            assert "NO-CARRIER" in shown
            say(client, "across the cut")
            assert not answers_within(client, 1.5)
        finally:
            assert link(hosts.folder, "h2", on=True).state == "up"
        assert line(client) == "across the cut"
    assert [one.rate for one in status(hosts.folder).links] == ["1gbit", "1gbit"], "a mended link keeps its limit"


def answers_within(process: subprocess.Popen[str], seconds: float) -> bool:
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], seconds)[0])


def test_down_leaves_nothing_of_it_and_touches_no_other_cluster(hosts_folder: Path) -> None:
    one, two = up("same", 1, hosts_folder, hosts=True), up("same", 2, hosts_folder.with_name("d"), hosts=True)
    assert traces(net(one)) == {net(one).bridge, net(one).hosts[0].port, net(one).hosts[0].namespace}
    assert net(one).subnet != net(two).subnet
    assert down(one.folder)
    assert traces(net(one)) == set()
    assert len(traces(net(two))) == 5
    assert sorted(slurm(two, "srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME").split()) == ["h1", "h2"]


def test_what_a_crash_left_is_gone_after_the_next_up(hosts_folder: Path) -> None:
    first = up("one", 2, hosts_folder, hosts=True)
    killed = cluster_processes.daemons(Layout.of(hosts_folder))
    for process in killed.values():
        process.send(signal.SIGKILL)
    wait_for("all daemons to be dead", lambda: not any(process.alive() for process in killed.values()))
    (hosts_folder / "cluster.json").unlink()
    assert len(traces(net(first))) == 5
    second = up("one", 1, hosts_folder, hosts=True)
    assert traces(net(first)) == traces(net(second))
    assert len(traces(net(second))) == 3


def test_down_finds_them_even_without_the_folder(hosts_folder: Path) -> None:
    info = up("one", 1, hosts_folder, hosts=True)
    for process in cluster_processes.daemons(Layout.of(hosts_folder)).values():
        process.send(signal.SIGKILL)
    shutil.rmtree(hosts_folder)
    assert down(hosts_folder)
    assert traces(net(info)) == set()
    assert not down(hosts_folder)


def test_an_up_that_fails_leaves_no_network(hosts_folder: Path) -> None:
    with pytest.raises(ClusterError, match="NoSuchWord"):
        up("one", 2, hosts_folder, hosts=True, overrides={"NoSuchWord": "1"})
    own = network.digest(hosts_folder)
    assert not any(is_ours(name, own) for _, name in socket.if_nameindex())
    assert not list(Path("/run/netns").glob(f"*{own}*"))


def test_a_link_that_somebody_took_away_is_noticed_and_mended_by_the_next_up(hosts_folder: Path) -> None:
    info = up("one", 2, hosts_folder, hosts=True)
    subprocess.run(["ip", "link", "delete", net(info).hosts[1].port], check=True)
    found = status(hosts_folder)
    assert found.problems == ("The link of h2 is gone.",)
    assert [one.state for one in found.links] == ["up", "missing"]
    assert not up("one", 2, hosts_folder, hosts=True).already_running
    assert status(hosts_folder).running


def test_a_running_cluster_of_another_kind_is_refused_with_the_cure(hosts_folder: Path) -> None:
    assert not up("one", 1, hosts_folder, hosts=True, link="1gbit").already_running
    assert up("one", 1, hosts_folder, hosts=True, link="1gbit").already_running
    with pytest.raises(
        ClusterError, match=r"runs with 1 hosts on links of 1gbit, not 1 nodes\..*cluster down --name one"
    ):
        up("one", 1, hosts_folder)


def test_nodes_that_are_no_hosts_have_no_links(cluster: ClusterInfo) -> None:
    with pytest.raises(ClusterError, match="no hosts"):
        link(cluster.folder, "node1", on=False)
    assert status(cluster.folder).links == ()


def test_the_command_shows_cuts_and_mends_links(lockstep_home: Path) -> None:
    one_machine.hosts_needed()
    try:
        told = json.loads(command("up", "--nodes", "1", "--hosts", "--link", "1gbit", "--json").stdout)
        assert told["network"]["hosts"][0]["interface"] == "h1lan"
        cut = json.loads(command("link", "h1", "--down", "--rate", "200mbit", "--json").stdout)
        assert (cut["node"], cut["state"], cut["rate"]) == ("h1", "cut", "200mbit")
        shown = command("status").stdout
        assert "cut" in shown
        assert "200mbit" in shown
        assert json.loads(command("link", "h1", "--up", "--json").stdout)["state"] == "up"
        assert json.loads(command("link", "h1", "--json").stdout)["rate"] == "200mbit"
        assert "no host 'h2', only h1" in command("link", "h2", "--up").stderr
        assert "say one of them" in command("link", "h1", "--up", "--down").stderr
    finally:
        command("down")
    assert "No cluster runs" in command("link", "h1", "--up").stderr


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``lockstep cluster`` as a person runs it."""
    argv = [sys.executable, "-m", "lockstep_slurm.cli.main", "cluster", *arguments]
    return subprocess.run(argv, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--link", "1gbit"], "say --hosts as well"),
        (["--hosts", "--link", "fast"], "'fast' is not a link's rate"),
        (["--hosts", "--link", "0mbit"], "'0mbit' is not a link's rate"),
    ],
)
def test_bad_input_is_told_in_words_and_makes_nothing(lockstep_home: Path, arguments: list[str], said: str) -> None:
    done = command("up", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(lockstep_home.iterdir()) == []


def test_without_iproute2_its_package_is_named(hosts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "search", lambda: str(hosts_folder))
    with pytest.raises(ClusterError, match=r"ip is not installed.*apt-get install.*iproute2"):
        up("one", 1, hosts_folder, hosts=True)


def test_where_namespaces_are_not_allowed_it_says_what_a_container_needs(hosts_folder: Path) -> None:
    code = "import pathlib, sys; from lockstep_slurm.cluster import up; up('o', 1, pathlib.Path(sys.argv[1]), hosts=1)"
    argv = ["setpriv", "--bounding-set=-sys_admin,-net_admin", sys.executable, "-c", code, str(hosts_folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ClusterError: `ip " in done.stderr
    assert "CAP_SYS_ADMIN and CAP_NET_ADMIN" in done.stderr
    assert not any(is_ours(name, network.digest(hosts_folder)) for _, name in socket.if_nameindex())


digests = st.integers(0, 2**32 - 1).map(lambda number: f"{number:08x}")
networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)).map(
    lambda pair: ipaddress.IPv4Network(pair, strict=False)
)


@given(digests, st.integers(1, 64), st.lists(networks, max_size=8))
def test_a_plan_uses_no_network_that_is_taken_and_no_name_twice(
    digest: str, nodes: int, taken: list[ipaddress.IPv4Network]
) -> None:
    try:
        made = plan(digest, nodes, None, taken)
    except ClusterError:
        assert all(any(pool.overlaps(network) for network in taken) for pool in POOLS)
        return
    subnet = ipaddress.IPv4Network(made.subnet)
    assert any(subnet.subnet_of(pool) for pool in POOLS)
    assert not any(subnet.overlaps(network) for network in taken)
    addresses = [made.address, *(host.address for host in made.hosts)]
    assert len(set(addresses)) == nodes + 1
    assert all(ipaddress.IPv4Address(address) in subnet for address in addresses)
    for names in ([made.bridge, *(host.port for host in made.hosts)], [host.interface for host in made.hosts]):
        assert len(set(names)) == len(names)
        assert all(len(name) <= 15 for name in names), "Linux cuts longer names of interfaces"
    assert all(is_ours(name, digest) for name in (made.bridge, *(host.port for host in made.hosts)))


def test_where_every_private_network_is_taken_it_says_so() -> None:
    with pytest.raises(ClusterError, match="No private network is left"):
        plan("00000000", 2, None, [ipaddress.IPv4Network("0.0.0.0/1"), ipaddress.IPv4Network("128.0.0.0/1")])


def test_other_interfaces_are_not_ours() -> None:
    for name in ("lo", "eth0", "ls1234567", "ls12345678", "ls12345678br0", "ls12345679br", "ls12345678hx", "docker0"):
        assert not is_ours(name, "12345678")


@given(st.integers(1, 999_999), st.sampled_from(["kbit", "mbit", "gbit"]))
def test_a_rate_means_the_same_after_it_was_told_by_tc(number: int, unit: str) -> None:
    bits = bits_per_second(f"{number}{unit}")
    assert bits_per_second(as_rate(bits)) == bits
