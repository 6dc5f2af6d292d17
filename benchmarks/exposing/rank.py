"""One rank: makes the contenders, and lets that one train whose turn it is, as standard input says, a JSON line a time.

    {"do": "turn", "kind", "warm", "steps"}    -> {"seconds", "cpu", "foreign"}: of the timed steps; CPU by thread
    {"do": "alone"}                            -> {"seconds", "cpu", "bytes"}: all gradients averaged, and nothing else
    {"do": "layers"}                           -> {"layers": [...]}: of one step without communication
    {"do": "state", "kind"}                    -> {"steps", "losses", "digest", "tuning"}: as it is now
    {"do": "end"}                              -> {}

``python -m benchmarks.exposing.rank CASE`` with the case as JSON, on two ranks, each under the variables of both
Horovod and torch.distributed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.exposing.cases import BY_HOROVOD, OURS, PLAIN, Case
from benchmarks.exposing.contenders import make
from lockstep_worker import slices

LOOK = 0.001
"""Seconds between two looks at what is exchanged alone: as long as Horovod's cycle."""


class Rank:
    """The contenders of one process, and its threads."""

    def __init__(self, case: Case) -> None:
        import horovod.torch as hvd

        torch.set_num_threads(1)
        before = threads()
        hvd.init()
        self._horovods = threads() - before
        dist.init_process_group("gloo", rank=hvd.rank(), world_size=hvd.size())
        self._hvd = hvd
        self._contenders = make(case, hvd.rank())

    def turn(self, kind: str, warm: int, steps: int) -> dict[str, Any]:
        """Some steps. The first ones of a turn are not timed: ours has nothing on its way before the very first."""
        contender = self._contenders[kind]
        with self._horovods_threads(kind):
            dist.barrier()
            for _ in range(warm):
                contender.step()
            busy, cpu, began = busy_seconds(), self._cpu(), time.perf_counter()
            for _ in range(steps):
                contender.step()
            seconds, after, busy = time.perf_counter() - began, self._cpu(), busy_seconds() - busy
            contender.rest()
        own = sum(after.values()) - sum(cpu.values())
        return {
            "seconds": seconds / steps,
            "cpu": {name: (after[name] - cpu[name]) / steps for name in after},
            "foreign": max(0.0, busy - own) / seconds,
        }

    def layers(self) -> dict[str, Any]:
        """What is known of each parameter without communication."""
        with self._horovods_threads(PLAIN):
            dist.barrier()
            return {"layers": self._contenders[PLAIN].layers()}

    def alone(self) -> dict[str, Any]:
        """Averages all gradients by Horovod while nothing computes; of whom nobody needs them any more."""
        gradients = self._contenders[PLAIN].gradients()
        dist.barrier()
        cpu, began = self._cpu(), time.perf_counter()
        handles = [
            self._hvd.allreduce_async_(one, name=f"alone.{number}", op=self._hvd.Average)
            for number, one in enumerate(gradients)
        ]
        while not all(map(self._hvd.poll, handles)):
            time.sleep(LOOK)
        seconds, after = time.perf_counter() - began, self._cpu()
        for handle in handles:
            self._hvd.synchronize(handle)
        return {
            "seconds": seconds,
            "cpu": {name: after[name] - cpu[name] for name in after},
            "bytes": sum(one.numel() * one.element_size() for one in gradients),
        }

    def state(self, kind: str) -> dict[str, Any]:
        """What has come of a training by now."""
        one = self._contenders[kind]
        return {"steps": len(one.losses), "losses": one.losses, "digest": one.digest(), "tuning": one.tuning()}

    @contextmanager
    def _horovods_threads(self, kind: str) -> Iterator[None]:
        """Within it Horovod's threads run as they would if this contender were alone.

        Where they have no part, in a training over torch's process group, they get what nobody else wants of the CPU:
        they look for work every millisecond, and nobody would have them there. In ours they have short slices, as the
        hook of a job gives them to them.
        """
        policy = os.SCHED_OTHER if kind in BY_HOROVOD else os.SCHED_IDLE
        for thread in self._horovods:
            os.sched_setscheduler(thread, policy, os.sched_param(0))
        try:
            with slices.shortened(*self._horovods) if kind == OURS else nullcontext():
                yield
        finally:
            for thread in self._horovods:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))

    def _cpu(self) -> dict[str, float]:
        """CPU seconds so far: of the thread that trains, of our exchange threads, of Horovod's, of all others."""
        ours = {one.native_id for one in threading.enumerate() if one.name == "lockstep-exchange"}
        found = {"training": 0.0, "exchange": 0.0, "horovod": 0.0, "others": 0.0}
        for thread in threads():
            try:
                # Of a thread that runs, the file has what was known at the last tick: of a short step, nothing.
                seconds = (
                    time.thread_time()
                    if thread == threading.get_native_id()
                    else int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) / 1e9
                )
            except FileNotFoundError:
                continue  # it has ended since
            name = "training" if thread == os.getpid() else "exchange" if thread in ours else "others"
            found["horovod" if thread in self._horovods else name] += seconds
        return found


def busy_seconds() -> float:
    """What all processes together have had of this rank's CPU so far; interrupts, which the network makes, apart."""
    names = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    ticks = sum(int(one) for line in lines if line[0] in names for one in line[1:4])  # user, nice, system
    return ticks / os.sysconf("SC_CLK_TCK")


def threads() -> set[int]:
    """The ids of this process's threads."""
    return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}


def main() -> None:
    """Serves until it is told to end."""
    # What anybody prints goes to the log; the answers alone go where the benchmark reads.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    found = json.loads(sys.argv[1])
    found |= {"gpt": tuple(map(tuple, found["gpt"])), "contenders": tuple(found["contenders"])}
    rank = Rank(Case(**found))

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    doing: dict[str, Callable[..., dict[str, Any]]] = {
        "turn": rank.turn, "alone": rank.alone, "layers": rank.layers, "state": rank.state,
    }  # fmt: skip
    tell({"cpus": sorted(os.sched_getaffinity(0))})
    for line in sys.stdin:
        asked = json.loads(line)
        do = asked.pop("do")
        if do == "end":
            break
        tell(doing[do](**asked))
    dist.barrier()
    tell({})
    # Neither library's end is a part of what is measured, and each has its own way to wait for the other rank.
    os._exit(0)


if __name__ == "__main__":
    main()
