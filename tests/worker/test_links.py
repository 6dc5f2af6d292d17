"""Who lost whom: what a node concludes, and real watches in network namespaces whose links are cut and mended."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.cluster import Host, Network, network
from lockstep_worker import linkwatch
from lockstep_worker.errors import LinkError
from lockstep_worker.links import PATIENCE, PATIENCE_VARIABLE, End, Facts, conclusion, patience
from support import slurm
from support.lockstep import wait_for

SECONDS = 12
"""The shortest patience that there is."""
WITHIN = 150.0
"""Seconds within which a conclusion must come on a busy machine; some 20 to 30 on a quiet one, 60 where the kernel
remembers a gateway that was there a moment ago."""

OWN = End("h1", "h1lan", "10.1.2.1")
OTHER = End("h2", "h2fab0", "10.1.2.2")
MANY = tuple(End(f"n{number}", "ib0", f"10.1.2.{number}") for number in range(2, 8))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            Facts(OWN, (OTHER,), (), 60.0, carrier=False),
            "node h1 is cut off: its link (h1lan, 10.1.2.1) has no carrier, and no other node was heard for 60 s",
        ),
        (
            Facts(OWN, (OTHER,), (), 60.0, gateway="10.1.2.254", gateway_answers=False),
            (
                "node h1 is cut off: through its link (h1lan, 10.1.2.1) no other node was heard for 60 s, "
                "and its gateway 10.1.2.254 does not answer either"
            ),
        ),
        (
            Facts(OWN, (OTHER,), (), 60.0, controller_answers=False),
            (
                "node h1 is cut off: through its link (h1lan, 10.1.2.1) no other node was heard for 60 s, "
                "and Slurm's controller does not answer either"
            ),
        ),
        (
            Facts(OWN, (OTHER,), (), 60.0, gateway="10.1.2.254", gateway_answers=True),
            "node h2 has not been heard from by h1 for 60 s; its link (h2fab0, 10.1.2.2) or the node is down",
        ),
        (
            # A neighbour that is heard says more than a gateway that answers nobody.
            Facts(OWN, (OTHER,), ("h3",), 60.0, gateway="10.1.2.254", gateway_answers=False),
            "node h2 has not been heard from by h1 for 60 s; its link (h2fab0, 10.1.2.2) or the node is down",
        ),
        (
            Facts(OWN, (OTHER,), (), 60.0),
            (
                "nodes h1 and h2 have not heard from each other for 60 s; the link of h1 (h1lan, 10.1.2.1), "
                "that of h2 (h2fab0, 10.1.2.2) or one of the nodes is down"
            ),
        ),
        (
            Facts(OWN, MANY, ("h3",), 60.0),
            (
                "nodes n2 (ib0, 10.1.2.2), n3 (ib0, 10.1.2.3), n4 (ib0, 10.1.2.4) and 3 more have not been heard from "
                "by h1 for 60 s; their links or the nodes are down"
            ),
        ),
    ],
)
def test_the_sentence_names_the_node_whose_link_it_is(facts: Facts, said: str) -> None:
    assert conclusion(facts) == said


def test_the_patience_can_be_set_and_nonsense_is_refused_with_its_name() -> None:
    assert patience({}) == PATIENCE
    assert patience({PATIENCE_VARIABLE: "90"}) == 90.0
    assert patience({PATIENCE_VARIABLE: "0"}) == 0.0
    for wrong in ("5", "-1", "soon", "nan", "inf", ""):
        with pytest.raises(LinkError, match=f"{PATIENCE_VARIABLE} is '{wrong}'"):
            patience({PATIENCE_VARIABLE: wrong})


@pytest.fixture(scope="module")
def four() -> Iterator[Network]:
    """The network of four hosts, without any Slurm."""
    slurm.hosts_needed()
    parent = Path(tempfile.mkdtemp(prefix="lockstep-n-"))
    try:
        yield network.create(parent / "c", 4, None)
    finally:
        network.remove(parent / "c")
        shutil.rmtree(parent)


class Watches:
    """The watches of one job on some of the hosts, each with a process that stands for a rank's wrapper."""

    def __init__(self, run: Path, hosts: tuple[Host, ...]) -> None:
        self.run = run
        (run / "rendezvous").mkdir(parents=True)
        self.wrappers: dict[str, subprocess.Popen[bytes]] = {}
        self.watches: dict[str, subprocess.Popen[str]] = {}
        names = ",".join(host.node for host in hosts)
        for index, host in enumerate(hosts):
            folder = self.folder(host.node)
            folder.mkdir()
            self.wrappers[host.node] = subprocess.Popen(["sleep", "600"])
            rank = {"rank": index, "local_rank": 0, "pid": self.wrappers[host.node].pid}
            (folder / "0.json").write_text(json.dumps(rank))
            self.watches[host.node] = subprocess.Popen(
                [
                    *host.inside, sys.executable, "-m", "lockstep_worker.linkwatch", "--run", str(run),
                    "--attempt", "1", "--folder", str(folder), "--patience", str(SECONDS), "--nodes", names,
                    "--index", str(index), "--interface", host.interface, "--address", host.address,
                ],
                stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

    def folder(self, node: str) -> Path:
        return self.run / f"folder-{node}"

    def connected(self, hosts: tuple[Host, ...], count: int) -> None:
        """Waits until the watches of the hosts have so many connections in all, both ends counted."""

        def look() -> bool:
            ports = json.dumps(sorted(watch.pid for watch in self.watches.values()))
            shown = [subprocess.check_output([*host.inside, "ss", "-tnpH"], text=True) for host in hosts]
            pids = json.loads(ports)
            return sum(line.count("ESTAB") for out in shown for line in out.splitlines() if holds(line, pids)) >= count

        wait_for("the watches to be connected", look)

    def word(self, node: str) -> str | None:
        file = self.folder(node) / "link"
        return file.read_text() if file.exists() else None

    def words(self) -> dict[str, str]:
        """What every watch concluded, once each has."""

        def look() -> dict[str, str] | None:
            found = {node: self.word(node) for node in self.watches}
            whole = {node: word for node, word in found.items() if word is not None}
            return whole if len(whole) == len(found) else None

        return wait_for("a word from every watch", look, WITHIN)

    def close(self) -> None:
        for watch in self.watches.values():
            watch.send_signal(signal.SIGCONT)
            with watch:
                if watch.stdin is not None:
                    watch.stdin.close()
                if watch.poll() is None:
                    try:
                        watch.wait(20)
                    finally:
                        watch.kill()
        for wrapper in self.wrappers.values():
            wrapper.kill()
            wrapper.wait()


def holds(line: str, pids: list[int]) -> bool:
    return any(f"pid={pid}," in line for pid in pids)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Watches]]:
    """The watches that a test starts; each ends with it."""
    made: list[Watches] = []
    yield made
    for watches in made:
        watches.close()


def watching(started: list[Watches], run: Path, *hosts: Host) -> Watches:
    """Watches that are all connected: to the first one, and each to its successor."""
    made = Watches(run, hosts)
    started.append(made)
    edges = (len(hosts) - 1) + max(0, len(hosts) - 2)
    made.connected(hosts, 2 * edges)
    return made


def switched(host: Host, *, on: bool) -> None:
    """Its plug is pulled, or put back."""
    subprocess.run(["ip", "link", "set", host.port, "up" if on else "down"], check=True)


@contextmanager
def broken_switch(four: Network, host: Host) -> Iterator[None]:
    """Meanwhile its port is on a bridge that is off: what is sent gets lost, while the carrier stays."""
    nowhere = f"{four.bridge[:-2]}h99"
    subprocess.run(["ip", "link", "add", nowhere, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "link", "set", host.port, "master", nowhere], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "set", host.port, "master", four.bridge], check=True)
        subprocess.run(["ip", "link", "delete", nowhere], check=True)


def test_when_a_node_is_cut_off_all_that_watch_it_name_it_and_it_names_itself(
    four: Network, started: list[Watches], tmp_path: Path
) -> None:
    h3 = four.host("h3")
    watches = watching(started, tmp_path / "run", *four.hosts)
    try:
        switched(h3, on=False)
        words = watches.words()
    finally:
        switched(h3, on=True)
    others = {words[node] for node in ("h1", "h2", "h4")}
    link = f"({h3.interface}, {h3.address})"
    assert others == {
        f"node h3 has not been heard from by {node} for 12 s; its link {link} or the node is down"
        for node in ("h1", "h2", "h4")
    }
    assert words["h3"] == f"node h3 is cut off: its link {link} has no carrier, and no other node was heard for 12 s"
    for node, watch in watches.watches.items():
        assert watch.wait(30) == 69
        assert watches.wrappers[node].wait(30) == -signal.SIGUSR2, "its ranks are told"
        assert watch.stderr is not None
        assert watch.stderr.read() == f"lockstep: {words[node]}\n"


def test_when_the_first_node_is_cut_off_the_others_hear_each_other_and_name_it(
    four: Network, started: list[Watches], tmp_path: Path
) -> None:
    watches = watching(started, tmp_path / "run", *four.hosts)
    with broken_switch(four, four.host("h1")):
        words = watches.words()
    assert all(words[node].startswith(f"node h1 has not been heard from by {node}") for node in ("h2", "h3", "h4"))
    assert words["h1"].startswith("node h1 is cut off")
    assert f"its gateway {four.address} does not answer either" in words["h1"]


def test_two_nodes_know_by_their_gateway_whose_link_it_is(
    four: Network, started: list[Watches], tmp_path: Path
) -> None:
    h1, h2 = four.host("h1"), four.host("h2")
    watches = watching(started, tmp_path / "run", h1, h2)
    # Its kernel knows the gateway from just before the cut, and takes that for valid for up to 45 s.
    known = [sys.executable, "-c", "import socket, sys; socket.socket().connect_ex((sys.argv[1], 9))", four.address]
    subprocess.run([*h2.inside, *known], check=True)
    with broken_switch(four, h2):
        words = watches.words()
    assert words["h1"].startswith("node h2 has not been heard from by h1 for 12 s")
    assert words["h2"].startswith("node h2 is cut off: through its link")


def test_nobody_is_given_up_who_was_stopped_or_has_ended_or_was_cut_off_for_a_moment(
    four: Network, started: list[Watches], tmp_path: Path
) -> None:
    h1, h2, h3, h4 = four.hosts
    stopped = watching(started, tmp_path / "stopped", h1, h3)
    suspended = watching(started, tmp_path / "suspended", h1, h4)
    killed = watching(started, tmp_path / "killed", h1, h3)
    ended = watching(started, tmp_path / "ended", h3, h4)
    moment = watching(started, tmp_path / "moment", h1, h2)
    stopped.watches["h3"].send_signal(signal.SIGSTOP)
    for watch in suspended.watches.values():
        watch.send_signal(signal.SIGSTOP)
    killed.watches["h3"].kill()
    stdin = ended.watches["h3"].stdin
    assert stdin is not None
    stdin.close()
    assert ended.watches["h3"].wait(30) == 0
    switched(h2, on=False)
    # No condition can be waited for: what is tested is that during this time nothing happens.
    time.sleep(SECONDS / 2)
    switched(h2, on=True)
    time.sleep(SECONDS * 1.5)
    for watch in (*suspended.watches.values(), stopped.watches["h3"]):
        watch.send_signal(signal.SIGCONT)
    time.sleep(4)
    running = {
        name: {node for node, watch in group.watches.items() if watch.poll() is None}
        for name, group in (
            ("stopped", stopped),
            ("suspended", suspended),
            ("killed", killed),
            ("ended", ended),
            ("moment", moment),
        )
    }
    assert running == {
        "stopped": {"h1", "h3"},
        "suspended": {"h1", "h4"},
        "killed": {"h1"},
        "ended": {"h4"},
        "moment": {"h1", "h2"},
    }
    assert [group.word(node) for group in started for node in group.watches] == [None] * 10


@pytest.mark.parametrize("first", [True, False], ids=["the first connection", "a later one"])
@pytest.mark.parametrize(
    ("error", "given_up"),
    [(TimeoutError(), True), (OSError(errno.EHOSTUNREACH, "No route to host"), True),
     (OSError(errno.EMFILE, "Too many open files"), False), (OSError(errno.EADDRNOTAVAIL, "No address"), False)],
    ids=["no answer", "unreachable", "no descriptor here", "no port here"],
)  # fmt: skip
def test_only_a_node_that_was_heard_can_fall_silent_and_not_for_what_this_host_is_short_of(
    error: Exception,
    given_up: bool,
    first: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(linkwatch, "SECOND_LOOK", 0.2)
    options = argparse.Namespace(
        run=tmp_path, attempt=1, patience=1.0, nodes="h1,h2", index=0, interface="lo", address="127.0.0.1"
    )

    async def refused(*_: Any) -> Any:
        raise error

    async def connected() -> bool:
        with socket.socket() as listening:
            watch = linkwatch.Watch(options, listening)
            monkeypatch.setattr(watch, "_open", refused)
            with pytest.raises(linkwatch.Gone):
                await (watch._connect_first if first else watch._connect_again)(OTHER, 1)
            return watch.sentence.done()

    assert asyncio.run(connected()) == (given_up and not first)
    assert ("not watched" in capsys.readouterr().err) == (first or not given_up)


def test_a_stranger_learns_nothing_and_changes_nothing(four: Network, started: list[Watches], tmp_path: Path) -> None:
    h1, h2 = four.host("h1"), four.host("h2")
    watches = watching(started, tmp_path / "run", h1, h2)
    published = tmp_path / "run" / "rendezvous" / "1-links.json"
    assert published.stat().st_mode & 0o077 == 0
    where = json.loads(published.read_text())
    code = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as connection:
    connection.sendall(sys.argv[3].encode() + b"\\n")
    print(connection.recv(100))
"""
    hello = {"nonce": "guessed", "node": "h2", "interface": "x", "address": h2.address, "port": 1}
    for word in (json.dumps(hello), "[]", "not json", json.dumps({"nonce": where["nonce"], "node": "h9"})):
        said = subprocess.check_output(
            [*h2.inside, sys.executable, "-c", code, where["address"], str(where["port"]), word], text=True
        )
        assert said == "b''\n"
    assert all(watch.poll() is None for watch in watches.watches.values())
