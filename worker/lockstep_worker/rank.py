"""One rank from its claim to its exit record (standard library only; what it starts may import more)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.bootstrap import python_module
from lockstep_slurm.job.rundir import STOPPED, Claim
from lockstep_slurm.placement import PlacementError, RankPlacement, TopologyError
from lockstep_worker import exit as exit_record
from lockstep_worker import links, memory, sentences, shortage
from lockstep_worker.beside import HOLD_EVERY, Beside
from lockstep_worker.claim import claim, follow
from lockstep_worker.environment import Meeting, for_mpi, training_environment
from lockstep_worker.errors import DataError, FencedError, HangError, LinkError, MismatchError, WorkerError, WorldError
from lockstep_worker.meeting import ANY_NETWORK, MeetingPlace, Network
from lockstep_worker.node import leave_folder, node_folder
from lockstep_worker.output import Output
from lockstep_worker.placing import Placed, bind, place, publish
from lockstep_worker.processes import adopt_orphans, dies_with_parent, end_descendants
from lockstep_worker.proof import Proof
from lockstep_worker.sampling import begins, ended, started
from lockstep_worker.sentences import Words
from lockstep_worker.stopping import Stopping
from lockstep_worker.usage import cpu_seconds_of_children
from lockstep_worker.watchdog import Watchdog, limit_of, word
from lockstep_worker.world import World

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
CAUSE_PATIENCE = 3.0
"""Seconds that a rank waits for another one that knows better why the attempt failed."""
PERHAPS_A_CONSEQUENCE = frozenset({1, DataError.code, -signal.SIGABRT, -signal.SIGSEGV})
"""Return codes of a training that may have ended because another rank did."""


class Rank:
    """One rank of one execution. ``run()`` does everything, and leaves no process behind."""

    def __init__(self, run: Path, world: World, network: Network = ANY_NETWORK) -> None:
        self.run = run
        self.world = world
        self.network = network
        self.spec: dict[str, Any] = json.loads((run / "spec.json").read_text(encoding="utf-8"))
        self._training: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._beside = Beside(run, world)
        self._stopping = Stopping(run, world, self.spec)
        self._finding: str | None = None
        self._folder: Path | None = None
        self._cut: str | None = None
        self._mismatch: str | None = None
        self._kills = shortage.Kills(None, None)

    def execute(self) -> int:
        """Trains, and returns the exit code: the training's own, or 128 + the signal that ended it.

        It is 0 where the training was told to stop and has saved, too: a launcher would end the others for any other.
        Raises ``DuplicateError`` when another execution has the job. What fails between the claim and the training is
        written as the attempt's exit record before it is raised.
        """
        adopt_orphans()
        for number in FORWARDED:
            signal.signal(number, self._forward)
        own = claim(self.run, self.world) if self.world.rank == 0 else follow(self.run, self.world)
        folder = self._folder = node_folder(self.run, own, self.world)
        signal.signal(links.LOST, self._lost)
        returncode = 1
        try:
            returncode = self._train(own, folder)
        except (LockstepError, PlacementError, TopologyError, OSError) as error:
            code = error.code if isinstance(error, WorkerError) else 1
            self._record(own, code, f"rank {self.world.rank} on {self.world.node} could not start: {error}")
            raise
        except Interrupted as interrupted:
            self._record(own, -interrupted.number, None)
            returncode = -interrupted.number
        else:
            self._record(own, returncode, self._finding)
        finally:
            self._ended = True
            self._beside.end(ended_well=returncode == 0 or self._stopping.goes_on)
            leave_folder(folder, self.world)
            if self._cut is not None and returncode != 0:
                links.end_step(self.run, self.world)
        if self._stopping.goes_on:
            return 0
        return returncode if returncode >= 0 else 128 - returncode

    def _train(self, own: Claim, folder: Path) -> int:
        """Everything from the plan to the training's end; returns ``subprocess``'s return code."""
        placed = self._place(own, folder)
        reports = folder / "socket"
        if self.world.local_rank == 0:
            self._beside.start_writer(own, reports)
        self._beside.place = MeetingPlace(self.run, own, self.world, self.spec, self.network)
        meeting = self._beside.place.meet()
        self._beside.hold_writer(reports)
        self._beside.watch = links.start(self.run, own, self.world, folder, meeting=meeting, ports=self.network.ports)
        patterns = self.spec["training"].get("patterns")
        if patterns or not self.world.labelled:
            self._beside.output = Output(b"" if self.world.labelled else b"%d: " % self.world.rank)
        before = cpu_seconds_of_children()
        self._kills = shortage.counted()
        proof = Proof(self.world, placed, self.spec, self._beside.tell, self._misplaced)
        if self.world.local_rank == 0:
            proof.tell_placement(placed.document(own, self.world))
        training = self._start(own, placed, reports, meeting, proof)
        self._beside.search(self._searching(patterns, reports, placed.own) if patterns else None)
        counted = meeting.interface if self.world.size > 1 and self.world.local_rank == 0 else None
        own_pid, rank, beginning = os.getpid(), self.world.rank, begins(counted)
        self._beside.tell_started(
            lambda: started(rank=rank, pid=own_pid, spared=self._beside.pids(), beginning=beginning)
        )
        if self._cut is not None:
            self._end_training()  # before there was a training to end
        signal.signal(signal.SIGCHLD, lambda *_: self._beside.look_after_writer(reports))
        self._beside.look_after_writer(reports)  # it may have died before
        # Its local rank 0 starts another one; nothing tells the wrappers of the node's other ranks of that.
        signal.signal(signal.SIGALRM, lambda *_: self._beside.hold_on())
        signal.setitimer(signal.ITIMER_REAL, HOLD_EVERY, HOLD_EVERY)
        watchdog = self._watchdog(own, folder)
        try:
            returncode = training.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if watchdog is not None:
                watchdog.stop()
        proof.finish()
        returncode = self._why(own, returncode, proof.why)
        end_descendants(spared=self._beside.pids())
        self._beside.tell(ended(cpu_seconds_of_children() - before), "the use of CPUs")
        return returncode

    def _watchdog(self, own: Claim, folder: Path) -> Watchdog | None:
        """The node's, beside its local rank 0."""
        limit = limit_of(self.spec)
        if self.world.local_rank != 0 or not limit:
            return None
        watchdog = Watchdog(self.run, own, self.world, folder, limit)
        watchdog.start()
        return watchdog

    def _place(self, own: Claim, folder: Path) -> Placed:
        """The node's plan, published by its local rank 0; this process then leaves the CPUs that compute."""
        placed = place(folder, self.world, self.spec, os.environ)
        bind(placed.own, self.world.node)
        if self.world.local_rank == 0:
            publish(self.run, own, self.world, placed)
        said = [*placed.own.degraded]
        if self.world.local_rank == 0:
            said += [*placed.placement.warnings, *placed.grant]
        for sentence in said:
            print(f"lockstep: rank {self.world.rank}: {sentence}", file=sys.stderr, flush=True)
        os.sched_setaffinity(0, placed.helpers or placed.granted)
        return placed

    def _start(
        self, own: Claim, placed: Placed, reports: Path, meeting: Meeting, proof: Proof
    ) -> subprocess.Popen[bytes]:
        """Starts the training on its compute CPUs."""
        environment = training_environment(
            os.environ,
            spec=self.spec,
            run=self.run,
            claim=own,
            world=self.world,
            placed=placed,
            socket=reports,
            meeting=meeting,
            hook=proof.settings(os.getpid(), reports.parent),
        )
        environment.update(self._stopping.variables(reports.parent, placed))
        output = self._beside.output
        with memory.policy(placed.own.memory) as failed:
            if failed is not None:
                print(f"lockstep: rank {self.world.rank}: {failed}", file=sys.stderr, flush=True)
            self._training = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=None if output is None else output.stdout,
                stderr=None if output is None else output.stderr,
                env=environment,
                pass_fds=[*self._inherited(), proof.theirs],
                preexec_fn=dies_with_parent(  # noqa: PLW1509 - this process has one thread
                    placed.own.compute, ignoring=self._stopping.ignored()
                ),
            )
        proof.start(self._training.pid)
        return self._training

    def _why(self, own: Claim, returncode: int, words: Words | None) -> int:
        """What is to be said of how the training ended: another code than its own where we ended it."""
        place = self._beside.place
        if self._cut is not None and returncode != 0:
            returncode, self._finding = LinkError.code, self._cut
        elif returncode == -signal.SIGKILL and (hung := self._hung()) is not None:
            returncode, self._finding = HangError.code, hung
        elif self._mismatch is not None and returncode != 0:
            returncode, self._finding = MismatchError.code, self._mismatch
        elif returncode in {STOPPED, 128 + signal.SIGTERM}:
            returncode, self._finding = self._stopping.outcome(own, returncode)
        # Where the rendezvous refused it, Horovod 0.28.1 aborts. A rank that was told to end has no time to ask.
        elif (returncode > 0 or returncode == -signal.SIGABRT) and place is not None:
            self._finding = place.finding()
        if returncode not in {0, STOPPED} and self._finding is None:
            self._finding = self._shortage(returncode, words)
        if returncode in PERHAPS_A_CONSEQUENCE and self.world.size > 1 and self._finding is None:
            self._hear_the_cause(own)
        if self._finding is None and words is not None and returncode > 0:
            self._finding = exit_record.raised(self.world, returncode, words)
        return returncode

    def _hung(self) -> str | None:
        return word(self._folder, self.world) if self._folder is not None else None

    def _shortage(self, returncode: int, words: Words | None) -> str | None:
        """The cause, where the training or the kernel's counters know it."""
        who = f"rank {self.world.rank} on {self.world.node}"
        if returncode > 0:
            return words.sentence(who) if words is not None and words.knows_why else None
        if returncode != -signal.SIGKILL:
            return None
        after = shortage.counted()
        more = shortage.risen(self._kills, after)
        if more["cgroup"]:
            return sentences.killed_for_memory(who, after.limit)
        return sentences.maybe_killed_for_memory(who, self.world.node) if more["node"] else None

    def _misplaced(self, sentence: str) -> None:
        """The verdict says that a thread does not sit as planned, and the spec wants the training to end by that."""
        self._mismatch = sentence
        self._end_training()

    def _end_training(self) -> None:
        if self._training is not None:
            self._training.kill()

    def _inherited(self) -> list[int]:
        """The descriptors that the training needs: under MPI, the one by which Slurm's PMI-2 speaks to it."""
        if self.spec.get("communication", {}).get("backend", "gloo") != "mpi":
            return []
        if self.world.size > 1 and not for_mpi(os.environ):
            raise WorldError(
                "communication.backend is mpi, but nothing speaks to this rank that starts MPI's processes: name a "
                "type of `srun --mpi=list`, such as pmix, as communication.mpi, or mpirun; without Slurm, use gloo"
            )
        number = os.environ.get("PMI_FD", "")
        return [int(number)] if number.isdecimal() else []

    def _searching(self, patterns: Mapping[str, str], reports: Path, placement: RankPlacement) -> dict[str, Any]:
        """What the process that searches the output has to know; ``start`` as ``lockstep.report`` would tell it."""
        start = {
            "node": self.world.node,
            "local_rank": self.world.local_rank,
            "pid": None if self._training is None else self._training.pid,
            "size": self.world.size,
            "compute_cpus": list(placement.compute),
            "communication_cpus": list(placement.communication.cpus),
        }
        return {"socket": str(reports), "rank": self.world.rank, "start": start, "patterns": patterns}

    def _command(self) -> list[str]:
        training = self.spec["training"]
        if training.get("script"):
            return [sys.executable, training["script"], *training.get("arguments", [])]
        return python_module("lockstep_worker.training")

    def _hear_the_cause(self, own: Claim) -> None:
        """Lets a rank with more to say be the first to say how the attempt ended.

        When one rank ends, Horovod makes the others raise an error, which Python turns into exit code 1; and the rank
        that was the cause ends last, since its own shutdown waits for them. Over Open MPI they crash (4.1.4). So what
        may be the consequence of another rank's end gives way for a moment.
        """
        ends = time.monotonic() + CAUSE_PATIENCE
        while time.monotonic() < ends and not exit_record.has_failed(self.run, own):
            time.sleep(0.1)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        """A signal for this rank: the training's, while there is one; before it starts, the rank's end."""
        self._stopping.note(number)
        if self._training is not None and self._training.poll() is None:
            self._training.send_signal(number)
        elif not self._ended and self._training is None and number != signal.SIGUSR1:
            raise Interrupted(number)

    def _record(self, own: Claim, returncode: int, message: str | None) -> None:
        """Writes the exit record; a newer attempt or a file system that is away leaves a line in the log instead."""
        try:
            exit_record.record(self.run, own, self.world, returncode, message, goes_on=self._stopping.goes_on)
        except (FencedError, OSError) as error:
            print(f"lockstep: rank {self.world.rank}: no exit record: {error}", file=sys.stderr, flush=True)

    def _lost(self, number: int, frame: FrameType | None) -> None:
        """The node's watch says that a link is cut: Horovod would wait for 300 s, so the training ends now."""
        self._cut = links.word(self._folder) if self._folder is not None else None
        if self._cut is None:
            self._forward(number, frame)
        elif self._training is not None and self._training.poll() is None:
            self._end_training()


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked this rank to end before it had begun to train
    """A signal came before there was a training to forward it to."""

    def __init__(self, number: int) -> None:
        super().__init__(exit_record.signal_name(number))
        self.number = number
