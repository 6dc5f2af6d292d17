"""The faults: what is done to a running training of two nodes, and what is true of it afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults.worker import reading
from faults.worker.evidence import Found, Wanted
from faults.worker.surroundings import Job, Machines, until
from lockstep_slurm.cluster import link
from lockstep_slurm.job.rundir import newest_fence
from support import disks

STEPS = 200
PACE = 0.05
"""Seconds that a step takes at least: slow enough to be hit in the middle of a training."""
SLURMD_TIMEOUT = 20
"""Seconds, for the fault that is about it; Slurm's own default is 300."""
DISK = "1m"
"""Of a checkpoint folder that becomes full: room for three checkpoints of this training, and no more than half a one
beside the filler."""
ROOM = 64 * 1024
"""Bytes that are left free: a save begins well, and fails in the middle."""


@dataclass(frozen=True)
class Form:
    """How long faults last that have a length, in seconds."""

    cut: float = 60.0
    stopped: float = 60.0


FULL = Form()
QUICK = Form(cut=10.0, stopped=3.0)


@dataclass(frozen=True)
class Case:
    """One fault."""

    name: str
    fault: str
    wanted: Wanted
    perform: Callable[[Machines, Form], Found]
    nodes: int = 2
    """Hosts that it needs."""


def _again(job: Job, restarts: int = 1) -> None:
    """Asks Slurm by hand to run an ended job once more, and waits for its end: it goes on from what was saved."""
    until("the requeue", lambda: job.on.slurm("scontrol", "requeue", job.number) is not None)
    job.goes_on(restarts)
    job.ends()


def _killed(pick: Callable[[Job], Callable[[], None]]) -> Callable[[Machines, Form], Found]:
    """A case in which something is killed, by which the job ends; then it is requeued by hand."""

    def perform(on: Machines, _form: Form) -> Found:
        job = Job(on, "killed", steps=STEPS, pace=PACE)
        job.trains()
        strike = pick(job)
        saved = job.saved()
        strike()
        state = job.ends()
        service = reading.shown(job)
        _again(job)
        return reading.found(job, slurm_state=state, service=service, saved=saved, again=True)

    return perform


def _rank(job: Job) -> Callable[[], None]:
    process = job.training(1)
    return lambda: process.send(signal.SIGKILL)


def _launcher(job: Job) -> Callable[[], None]:
    process = job.launcher(1)
    return lambda: process.send(signal.SIGKILL)


def _scancel(job: Job) -> Callable[[], None]:
    def cancel() -> None:
        until("scancel", lambda: job.on.slurm("scancel", job.number) is not None)

    return cancel


def _to_its_end(job: Job, saved: int, *notes: str) -> Found:
    state = job.ends()
    return reading.found(job, slurm_state=state, service=reading.shown(job), saved=saved, notes=notes)


def _writer(on: Machines, _form: Form) -> Found:
    job = Job(on, "writer", steps=STEPS, pace=PACE)
    job.trains()
    saved = job.saved()
    job.writer(job.claim().nodes[1]).send(signal.SIGKILL)
    return _to_its_end(job, saved)


def _writer_stopped(on: Machines, form: Form) -> Found:
    job = Job(on, "stopped", steps=STEPS + int(form.stopped / PACE), pace=PACE)
    job.trains()
    saved, writer = job.saved(), job.writer(job.claim().nodes[1])
    writer.send(signal.SIGSTOP)
    made = job.made()
    try:
        time.sleep(form.stopped)  # a time and not a condition: these seconds are what is tried
        during = job.made() - made
    finally:
        writer.send(signal.SIGCONT)
    # A quarter of what it makes on a quiet machine: a training that waited for its writer would make none.
    wanted = int(form.stopped / PACE / 4)
    notes = [] if during >= wanted else [f"the training made {during} steps meanwhile, not {wanted}"]
    return _to_its_end(job, saved, *notes)


def _slurmd(on: Machines, _form: Form) -> Found:
    job = Job(on, "slurmd", steps=STEPS, pace=0.5)
    job.trains()
    nodes = job.claim().nodes
    old, saved = job.training(0), job.saved()
    on.set("SlurmdTimeout", str(SLURMD_TIMEOUT))
    try:
        for node in nodes:
            daemon = on.node_daemon(node)
            if daemon is not None:
                daemon.send(signal.SIGKILL)
        job.goes_on(1)
        until("the second attempt's claim", lambda: newest_fence(job.run) == 2)
        lives = old.alive()
        until("the old training to be ended by the fence", lambda: not old.alive())
        state = job.ends()
        service = reading.shown(job)
    finally:
        on.set("SlurmdTimeout", "300")
        for node in nodes:
            if on.node_daemon(node) is None:
                on.start_node(node)
    notes = (
        []
        if lives
        else ["the old training was gone when the new attempt was claimed, so that this shows nothing of the fence"]
    )
    return reading.found(job, slurm_state=state, service=service, saved=saved, notes=tuple(notes))


def _cut(*variables: str) -> Callable[[Machines, Form], Found]:
    def perform(on: Machines, form: Form) -> Found:
        job = Job(on, "link", steps=STEPS, pace=PACE, variables=variables)
        job.trains()
        saved, node = job.saved(), job.claim().nodes[1]
        link(on.cluster.folder, node, on=False)
        try:
            time.sleep(form.cut)  # a time and not a condition: these seconds are what is tried
        finally:
            link(on.cluster.folder, node, on=True)
        return _to_its_end(job, saved)

    return perform


def _service_away(on: Machines, _form: Form) -> Found:
    job = Job(on, "away", steps=STEPS, pace=PACE)
    on.lockstep.kill()
    try:
        job.trains()
        saved = job.saved()
        state = job.ends()
    finally:
        on.lockstep.start()
    return reading.found(job, slurm_state=state, service=reading.shown(job), saved=saved)


def _requeued_without_service(on: Machines, _form: Form) -> Found:
    job = Job(on, "requeued", steps=STEPS, pace=PACE)
    on.lockstep.kill()
    try:
        job.trains()
        saved = job.saved()
        until("the requeue", lambda: on.slurm("scontrol", "requeue", job.number) is not None)
        job.goes_on(1)
        state = job.ends()
    finally:
        on.lockstep.start()
    return reading.found(job, slurm_state=state, service=reading.shown(job), saved=saved)


def _disk(on: Machines, _form: Form) -> Found:
    with disks.small(on.folder / "small", DISK) as disk:
        job = Job(on, "disk", steps=STEPS, pace=PACE, folder=disk)
        job.trains()
        filler = disks.fill(disk, ROOM)
        saved = job.saved()
        until("a save to fail", lambda: reading.failed_saves(job))
        filler.unlink()
        newest = job.saved()
        until("a save behind that", lambda: job.saved() > newest)
        return _to_its_end(job, saved)


def _time_limit(on: Machines, _form: Form) -> Found:
    # Slurm signals 45 s before the limit, 30 s early or late; the training would take longer than its limit.
    job = Job(on, "limit", steps=STEPS, pace=0.7, time_limit="0:02:00", signal_seconds=45)
    job.trains()
    saved = job.saved()
    job.goes_on(1)
    until("its second start to end", lambda: job.slurm("JobState") == "COMPLETED" or job.slurm("Restarts") == "2")
    if job.slurm("JobState") != "COMPLETED":
        job.goes_on(2)  # on a slow machine, or told early, two starts do not make all steps
    return _to_its_end(job, saved)


def _preempted(on: Machines, _form: Form) -> Found:
    job = Job(on, "preempted", steps=STEPS, pace=PACE)
    job.trains()
    saved = job.saved()
    nodes = ",".join(job.claim().nodes)
    other = on.slurm(
        "sbatch", "--parsable", "--partition=urgent", "--exclusive", f"--nodelist={nodes}", "--output=/dev/null",
        "--wrap=true",
    )  # fmt: skip
    job.goes_on(1)
    show = ("scontrol", "show", "job", (other or "").strip())
    until("the urgent job to end", lambda: "COMPLETED" in (on.slurm(*show) or ""))
    return _to_its_end(job, saved)


WELL = Wanted("COMPLETED", 1)
GOES_ON = Wanted("COMPLETED", 2)
CASES = (
    Case("rank", "SIGKILL of a rank", Wanted("FAILED", 1, r"rank 1 on h\d+ .*SIGKILL"), _killed(_rank)),
    Case("launcher", "SIGKILL of a rank's launcher", Wanted("FAILED", 1, r"."), _killed(_launcher)),
    Case("writer", "SIGKILL of a node's writer", WELL, _writer),
    Case("slurmd", f"SIGKILL of both nodes' slurmd, SlurmdTimeout {SLURMD_TIMEOUT} s", GOES_ON, _slurmd, nodes=4),
    Case("link", "a link cut for a minute, LOCKSTEP_LINK_PATIENCE=180", WELL, _cut("LOCKSTEP_LINK_PATIENCE=180")),
    Case("service", "the service away for the whole job", WELL, _service_away),
    Case("disk", "the checkpoints' disk full during a save", WELL, _disk),
    Case("stopped", "SIGSTOP of a node's writer for a minute", WELL, _writer_stopped),
    Case("scancel", "scancel (SIGTERM)", Wanted("CANCELLED", 1, r"SIGTERM.* is saved"), _killed(_scancel)),
    Case("limit", "the time limit", Wanted("COMPLETED", 2, more=True), _time_limit),
    Case("preempted", "preemption by a job of higher priority", GOES_ON, _preempted),
    Case("requeued", "scontrol requeue, the service stopped throughout", GOES_ON, _requeued_without_service),
)
