"""One rank from its claim to its exit record (standard library only; what it starts may import more)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.rundir import Claim, rendezvous_file
from lockstep_slurm.placement import PlacementError, RankPlacement, plan
from lockstep_worker import exit as exit_record
from lockstep_worker.addresses import address_of, interface_towards, meeting_address
from lockstep_worker.claim import claim, follow
from lockstep_worker.environment import Meeting, clean, training_environment
from lockstep_worker.errors import FencedError, WorkerError
from lockstep_worker.node import leave_folder, node_folder, publish_node, publish_rank, read_hosts
from lockstep_worker.processes import Helper, adopt_orphans, dies_with_parent, end_descendants
from lockstep_worker.waiting import until
from lockstep_worker.world import World

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SHIPPING_PATIENCE = 20.0
"""Seconds that a writer has to put away what it has, once the training has ended badly."""


CAUSE_PATIENCE = 3.0
"""Seconds that a rank with exit code 1 waits for another one that knows better why the attempt failed."""


class Rank:
    """One rank of one execution. ``run()`` does everything, and leaves no process behind."""

    def __init__(self, run: Path, world: World) -> None:
        self.run = run
        self.world = world
        self.spec: dict[str, Any] = json.loads((run / "spec.json").read_text(encoding="utf-8"))
        self._training: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._writer: Helper | None = None
        self._held: socket.socket | None = None
        self._rendezvous: Helper | None = None

    def execute(self) -> int:
        """Trains, and returns the exit code: the training's own, or 128 + the signal that ended it.

        Raises ``DuplicateError`` when another execution has the job. What fails between the claim and the training is
        written as the attempt's exit record before it is raised.
        """
        adopt_orphans()
        for number in FORWARDED:
            signal.signal(number, self._forward)
        own = claim(self.run, self.world) if self.world.rank == 0 else follow(self.run, self.world)
        folder = node_folder(self.run, own, self.world)
        returncode = 1
        try:
            returncode = self._train(own, folder)
        except (LockstepError, PlacementError, OSError) as error:
            code = error.code if isinstance(error, WorkerError) else 1
            self._record(own, code, f"rank {self.world.rank} on {self.world.node} could not start: {error}")
            raise
        except Interrupted as interrupted:
            self._record(own, -interrupted.number, None)
            returncode = -interrupted.number
        else:
            self._record(own, returncode, None)
        finally:
            self._ended = True
            self._end_helpers(ended_well=returncode == 0)
            leave_folder(folder, self.world)
        return returncode if returncode >= 0 else 128 - returncode

    def _train(self, own: Claim, folder: Path) -> int:
        """Everything from the plan to the training's end; returns ``subprocess``'s return code."""
        granted = sorted(os.sched_getaffinity(0))
        placement = self._place(granted)
        if placement.degraded is not None:
            print(f"lockstep: rank {self.world.rank}: {placement.degraded}", file=sys.stderr, flush=True)
        reports = folder / "socket"
        if self.world.local_rank == 0:
            self._start_writer(own, reports)
        publish_rank(folder, self.world, granted, placement)
        if self.world.local_rank == 0:
            publish_node(self.run, own, self.world, folder)
        meeting = self._meet(own) if self.world.size > 1 else None
        self._hold_writer(reports)
        environment = training_environment(
            os.environ,
            spec=self.spec,
            run=self.run,
            claim=own,
            world=self.world,
            placement=placement,
            socket=reports,
            meeting=meeting,
        )
        self._training = subprocess.Popen(
            self._command(),
            stdin=subprocess.DEVNULL,
            env=environment,
            preexec_fn=dies_with_parent(placement.compute),  # noqa: PLW1509 - this process has one thread
        )
        returncode = self._training.wait()
        if returncode == 1 and self.world.size > 1:
            self._hear_the_cause(own)
        end_descendants(spared=[helper.pid for helper in (self._writer, self._rendezvous) if helper is not None])
        return returncode

    def _place(self, granted: Sequence[int]) -> RankPlacement:
        """The CPUs of this rank: planned here, inside what it was really given.

        Under ``srun`` every rank has CPUs of its own; without Slurm, all ranks share this machine's.
        """
        wanted = self.spec.get("placement", {}).get("communication_cpus", "auto")
        communication = None if wanted == "auto" else int(wanted)
        if self.world.slurm_job_id is None:
            return plan(granted, self.world.local_size, communication, share=True)[self.world.local_rank]
        return plan(granted, 1, communication)[0]

    def _command(self) -> list[str]:
        training = self.spec["training"]
        if training.get("script"):
            return [sys.executable, training["script"], *training.get("arguments", [])]
        return [sys.executable, "-m", "lockstep_worker.training"]

    def _start_writer(self, own: Claim, path: Path) -> None:
        """Starts the node's writer; a node without one trains all the same, and its records are lost."""
        arguments = [
            "--run",
            str(self.run),
            "--attempt",
            str(own.attempt),
            "--node",
            self.world.node,
            "--socket",
            str(path),
        ]
        self._writer = Helper("lockstep_worker.writer", arguments, clean(os.environ), stdout=subprocess.PIPE)
        ready = self._writer.process.stdout
        if ready is None or ready.readline() != b"ready\n":
            print(
                "lockstep: the writer did not start, so nothing of this node is reported", file=sys.stderr, flush=True
            )

    def _hold_writer(self, path: Path) -> None:
        """Keeps the node's writer until this rank's training has ended, even one that first reports at its very end.

        The writer ends once local rank 0 is done and nobody is connected any more; so the wrapper is, and says nothing.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()  # a node without a writer trains all the same
        else:
            self._held = connection

    def _hear_the_cause(self, own: Claim) -> None:
        """Lets a rank with more to say be the first to say how the attempt ended.

        When one rank ends, Horovod makes the others raise an error, which Python turns into exit code 1; and the rank
        that was the cause ends last, since its own shutdown waits for them. So exit code 1 gives way for a moment.
        """
        ends = time.monotonic() + CAUSE_PATIENCE
        while time.monotonic() < ends and not exit_record.has_failed(self.run, own):
            time.sleep(0.1)

    def _meet(self, own: Claim) -> Meeting:
        """Where the ranks meet: rank 0 opens and publishes it once every node has come, the others wait for that."""
        configured = self.spec.get("communication", {}).get("interface")
        if self.world.rank == 0:
            hosts = read_hosts(self.run, own)
            address = address_of(configured) if configured else meeting_address(self.world.node, hosts)
            self._open_rendezvous(own, address)
        path = rendezvous_file(self.run, own.attempt)

        def published() -> Mapping[str, Any] | None:
            if self._rendezvous is not None:
                self._rendezvous.check()
            # A listing, because a network file system caches that a name is absent.
            if path.name not in os.listdir(path.parent):  # noqa: PTH208
                return None
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return document

        found = until(published, lambda: f"rank {self.world.rank} on {self.world.node} saw no rendezvous by rank 0")
        interface = configured or interface_towards(found["address"])
        return Meeting(found["address"], int(found["port"]), found["nonce"], interface)

    def _open_rendezvous(self, own: Claim, address: str) -> None:
        execution = {
            "slurm_job_id": self.world.slurm_job_id,
            "local_id": self.world.local_id,
            "restart_count": self.world.restart_count,
        }
        arguments = [
            *("--run", str(self.run), "--attempt", str(own.attempt), "--address", address),
            *("--hosts", json.dumps(list(zip(self.world.nodes, self.world.tasks_per_node)))),  # noqa: B905 - 3.9
            *("--execution", json.dumps(execution)),
        ]
        self._rendezvous = Helper("lockstep_worker.rendezvous", arguments, clean(os.environ), stdout=subprocess.DEVNULL)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        """A signal for this rank: the training's, while there is one; before it starts, the rank's end."""
        if self._training is not None and self._training.poll() is None:
            self._training.send_signal(number)
        elif not self._ended and self._training is None and number != signal.SIGUSR1:
            raise Interrupted(number)

    def _record(self, own: Claim, returncode: int, message: str | None) -> None:
        """Writes the exit record; a newer attempt or a file system that is away leaves a line in the log instead."""
        try:
            exit_record.record(self.run, own, self.world, returncode, message)
        except (FencedError, OSError) as error:
            print(f"lockstep: rank {self.world.rank}: no exit record: {error}", file=sys.stderr, flush=True)

    def _end_helpers(self, *, ended_well: bool) -> None:
        """Ends what this rank started beside the training: after a good end each waits for the ranks it serves."""
        end_descendants(spared=[helper.pid for helper in (self._writer, self._rendezvous) if helper is not None])
        if self._held is not None:
            self._held.close()
        if self._rendezvous is not None:
            self._rendezvous.end(finish=ended_well)
        if self._writer is not None:
            self._writer.end(finish=True, patience=None if ended_well else SHIPPING_PATIENCE)


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked this rank to end before it had begun to train
    """A signal came before there was a training to forward it to."""

    def __init__(self, number: int) -> None:
        super().__init__(exit_record.signal_name(number))
        self.number = number
