"""Two hosts of one machine, each a network namespace with one CPU and one rank, and the link between them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from benchmarks.exposing.cases import Case
from benchmarks.side_by_side.arms import LEAKING, MALLOC, PATIENCE
from lockstep_slurm.cluster import Host, Network, network
from lockstep_slurm.errors import LockstepError

ANSWER_WITHIN = 900.0
"""Seconds: the longest question is to make the 67 steps behind the comparison, of some 4 s each (VGG-16)."""
MASTER_PORT = 29400
"""Of torch's store, on the first host: nobody else is there."""
FASTEST = 1e11
"""Bits per second; what takes longer than wanted at such a rate is not slow for want of a faster one."""
TOLERANCE = 0.01
"""How far communication alone may be from what was wanted."""
TRIES = 5


class MeasureError(LockstepError):
    """A rank that did not come up or did not go on; the message has the last words of its log."""


class Ranks:
    """The two ranks of a case. Every question is asked of both at once."""

    def __init__(self, case: Case, hosts: Network, cpus: tuple[int, int], folder: Path, rendezvous: int) -> None:
        self._hosts = hosts.hosts
        self._logs = [folder / f"rank-{number}.log" for number in range(2)]
        self._processes = []
        for number, host in enumerate(self._hosts):
            with self._logs[number].open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        ["taskset", "-c", str(cpus[number]), *host.inside, sys.executable,
                         "-m", "benchmarks.exposing.rank", json.dumps(case.document())],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=Path(__file__).parents[2],
                        env=variables(number, host, hosts, rendezvous),
                    )
                )  # fmt: skip
        try:
            self.cpus = [answer["cpus"] for answer in self._answers()]
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **what: object) -> list[dict[str, Any]]:
        """The answers of the ranks to ``rank``'s question. Raises ``MeasureError``."""
        for process in self._processes:
            pipe = process.stdin
            assert pipe is not None
            pipe.write(json.dumps({"do": do, **what}).encode() + b"\n")
            pipe.flush()
        return self._answers()

    def turn(self, kind: str, warm: int, steps: int) -> dict[str, Any]:
        """A turn of one contender: seconds of a step on the slower rank, CPU seconds by thread as the mean, and the
        larger share of a CPU that programs of others had.
        """  # noqa: D205
        return together(self.ask("turn", kind=kind, warm=warm, steps=steps))

    def limit(self, rate: str) -> None:
        """Gives both links this rate, in both directions."""
        for host in self._hosts:
            network.set_link(host, rate=rate)

    def alone(self) -> dict[str, Any]:
        """All gradients averaged while nothing computes: as ``turn``; and how many bytes that are."""
        answers = self.ask("alone")
        return {**together(answers), "bytes": answers[0]["bytes"]}

    def close(self) -> None:
        """Leaves no process behind."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _answers(self) -> list[dict[str, Any]]:
        deadline = time.monotonic() + ANSWER_WITHIN
        return [self._answer(number, deadline) for number in range(len(self._processes))]

    def _answer(self, number: int, deadline: float) -> dict[str, Any]:
        pipe: IO[bytes] | None = self._processes[number].stdout
        assert pipe is not None
        while not select.select([pipe], [], [], 0.5)[0]:
            for other, process in enumerate(self._processes):
                if process.poll() not in (None, 0):
                    raise MeasureError(self._last_words(other))
            if time.monotonic() > deadline:
                raise MeasureError(f"no answer within {ANSWER_WITHIN:.0f} s: {self._last_words(number)}")
        line = pipe.readline()
        if not line:
            raise MeasureError(self._last_words(number))
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self, number: int) -> str:
        code = self._processes[number].poll()
        ended = "is still there" if code is None else f"ended with code {code}"
        return f"rank {number} {ended}: {self._logs[number].read_text(errors='replace')[-2000:]}"


def together(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Both ranks' answer as one."""
    return {
        "seconds": max(one["seconds"] for one in answers),
        "foreign": max(one.get("foreign", 0.0) for one in answers),
        "cpu": {name: sum(one["cpu"][name] for one in answers) / len(answers) for name in answers[0]["cpu"]},
    }


@contextlib.contextmanager
def started(case: Case, folder: Path, cpus: tuple[int, int]) -> Iterator[Ranks]:
    """Both hosts with the case's ranks on them, ready to train; the link between them has no limit at first."""
    with contextlib.ExitStack() as stack:
        network.check()
        stack.callback(network.remove, folder)
        hosts = network.create(folder, 2, None)
        for host in hosts.hosts:
            # Linux's default, which a machine may have changed: BBR paces its packets by a timer for each.
            control = ["ip", "route", "change", hosts.subnet, "dev", host.interface, "congctl", "cubic"]
            subprocess.run([*host.inside, *control], check=True)
        port = stack.enter_context(meeting_point(hosts))
        ranks = Ranks(case, hosts, cpus, folder, port)
        stack.callback(ranks.close)
        yield ranks


@contextlib.contextmanager
def meeting_point(hosts: Network) -> Iterator[int]:
    """Horovod's own rendezvous on this machine's side of the hosts' network; its port."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    names = [host.node for host in hosts.hosts]
    server = RendezvousHTTPServer((hosts.address, 0), RendezvousHandler, 0)
    server.init(get_host_assignments(parse_hosts(",".join(f"{name}:1" for name in names)), len(names)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def variables(number: int, host: Host, hosts: Network, rendezvous: int) -> Mapping[str, str]:
    """A rank's environment: Horovod's and torch's own defaults, but for where the ranks meet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith((*LEAKING, "GLOO_"))}
    return {
        **kept,
        **MALLOC,
        "OMP_NUM_THREADS": "1",
        "HOROVOD_RANK": str(number), "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "1",
        "HOROVOD_CROSS_RANK": str(number), "HOROVOD_CROSS_SIZE": "2", "HOROVOD_HOSTNAME": host.node,
        "HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo", "HOROVOD_GLOO_IFACE": host.interface,
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": hosts.address, "HOROVOD_GLOO_RENDEZVOUS_PORT": str(rendezvous),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(PATIENCE),
        "GLOO_SOCKET_IFNAME": host.interface, "MASTER_ADDR": hosts.hosts[0].address, "MASTER_PORT": str(MASTER_PORT),
    }  # fmt: skip


def calibrate(ranks: Ranks, wanted: float) -> tuple[str, dict[str, Any]]:
    """Limits the link so that communication alone takes ``wanted`` seconds; the rate, and what it takes then."""
    bits = min(ranks.alone()["bytes"] * 8 / wanted, FASTEST)
    best: tuple[str, dict[str, Any]] | None = None
    for _ in range(TRIES):
        rate = as_rate(bits)
        ranks.limit(rate)
        ranks.alone()  # TCP finds the new rate
        tries = sorted((ranks.alone() for _ in range(3)), key=lambda one: float(one["seconds"]))
        found = tries[1]
        if best is None or abs(found["seconds"] - wanted) < abs(best[1]["seconds"] - wanted):
            best = rate, found
        if abs(found["seconds"] - wanted) <= TOLERANCE * wanted:
            break
        bits = min(bits * found["seconds"] / wanted, FASTEST)
    assert best is not None
    ranks.limit(best[0])
    return best


def as_rate(bits: float) -> str:
    """Bits per second as tc takes it, three digits at least."""
    return f"{round(bits / 1e3)}kbit" if bits < 999e6 else f"{round(bits / 1e6)}mbit"
