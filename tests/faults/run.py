"""One run: everything is brought up, things go wrong by the schedule, and what is left is counted."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from faults import evidence
from faults.clients import Clients, Gate
from faults.evidence import Count
from faults.happened import Happened
from faults.schedule import Fault, Form, Schedule, schedule
from faults.service import Service
from faults.surroundings import Controller, Disk, SurroundingsError, write_submit_plugin
from lockstep_slurm.cluster import down, up

MESSAGE_TIMEOUT = 5
"""Seconds, Slurm's MessageTimeout: half of its default, so that many answers are lost in a short run."""
MIN_JOB_AGE = 10
"""Seconds for which Slurm remembers an ended job: with MaxJobCount as its limit, those count, too."""
WORKS = 0.05
"""Seconds that a training works."""
STUCK = 240.0
"""Seconds without an answer, a training or an end, after which a run is given up, and counted as it is."""
LOOK = 0.2
"""Seconds between two looks at how far the run is."""
LOOK_AT_LIST = 5.0
"""Seconds between two looks at the service's list, while not all have trained."""
PAGE = 200
LOST_ANSWER = re.compile(r"job (\S+): Slurm does not answer \(sbatch")
"""In the service's log."""
SECOND_COPY, CANCELLED_COPY = "a second copy is held", "A further copy of it"
"""In a job's timeline."""
BADLY = "ended badly"
REASONS = 5
"""Jobs that ended badly, whose reasons are told."""

Say = Callable[[float, str], None]
"""Told how far the run is (0 to 1), and what goes wrong just now."""


@dataclass(frozen=True)
class Result:
    """A run's figures."""

    seed: int
    form: Form
    count: Count
    happened: Happened
    tries: dict[str, int]
    """The clients' tries, by what came of them."""
    findings: list[str]
    """What was not as it should be, in words."""
    seconds: float
    folder: Path
    """Where everything is, if it was kept."""


@dataclass
class Run:
    """The parts of one run, and how far it is."""

    form: Form
    seed: int
    folder: Path
    service: Service
    controller: Controller
    disk: Disk
    gate: Gate
    clients: Clients
    say: Say
    happened: Happened = field(default_factory=Happened)
    trouble: list[str] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    """The reasons of the jobs that ended badly."""
    trained: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def ledger(self) -> Path:
        """The trainings' own."""
        return self.folder / "ledger"

    def progress(self) -> float:
        """Which part of all submissions has trained: others are on their way whenever something goes wrong."""
        return self.trained / self.form.submissions

    def do(self, plan: Schedule) -> None:
        """Lets everything go wrong, until all submissions have ended or nothing moves any more."""
        lanes = [
            threading.Thread(target=self._lane, args=(faults,), name=name, daemon=True)
            for name, faults in (("kills", plan.kills), ("surroundings", plan.surroundings))
        ]
        self.clients.start()
        for lane in lanes:
            lane.start()
        self._watch()
        for lane in lanes:
            lane.join(timeout=STUCK)
            if lane.is_alive():
                self.trouble.append(f"the lane of {lane.name} did not come to its end")
        self.happened.kills, self.happened.ended_by_itself = self.service.killed, self.service.ended
        self.happened.refused_by_limit = self.controller.refused
        self.happened.turned_away = self.controller.turned_away
        lost = LOST_ANSWER.findall(self.service.log.read_text(errors="replace"))
        self.happened.lost_answers = len(lost)
        self.happened.happened_all_the_same = sum(self._had_happened(job_id) for job_id in set(lost))

    def _watch(self) -> None:
        """Follows the ledger and, less often, the service's list."""
        moved, before, ended, looked = time.monotonic(), -1, 0, 0.0
        while True:
            text = self.ledger.read_text() if self.ledger.exists() else ""
            self.trained = len({line.split()[1] for line in text.splitlines() if line.startswith("end ")})
            self.gate.trained(self.trained)
            if self.trained == self.form.submissions or time.monotonic() - looked > LOOK_AT_LIST:
                looked = time.monotonic()
                ended = sum(phase.startswith("ended") for phase in self.jobs().values())
                if ended >= self.form.submissions:
                    # A run in which something was lost comes to its end, too; what was to go wrong later does not.
                    self.over.set()
                    return
            now = self.clients.answered + self.trained + ended
            if now != before:
                moved, before = time.monotonic(), now
            elif time.monotonic() - moved > STUCK:
                self.trouble.append(f"nothing moved for {STUCK:.0f} s; {self.trained} had trained")
                self.over.set()
                return
            self.say(self.progress(), "")
            time.sleep(LOOK)

    def jobs(self) -> dict[str, str]:
        """Every job of the service's list with its phase; empty while it does not answer."""
        found: dict[str, str] = {}
        cursor: str | None = None
        headers = {"Authorization": f"Bearer {self.service.token}"}
        try:
            with httpx.Client(headers=headers, timeout=60) as http:
                while True:
                    parameters: dict[str, Any] = {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
                    answer = http.get(f"{self.service.url}/api/v1/jobs", params=parameters)
                    if answer.status_code != 200:
                        return {}
                    page = answer.json()
                    found |= {job["id"]: job["phase"] for job in page["items"]}
                    self.why |= {job["id"]: str(job["reason"]) for job in page["items"] if job["phase"] == BADLY}
                    cursor = page["next_cursor"]
                    if cursor is None:
                        return found
        except httpx.TransportError:
            return {}

    def _had_happened(self, job_id: str) -> bool:
        """Whether the first copy became the job, by its timeline: there was no second, or that was cancelled."""
        headers = {"Authorization": f"Bearer {self.service.token}"}
        answer = httpx.get(f"{self.service.url}/api/v1/jobs/{job_id}/timeline", headers=headers, timeout=60)
        said = answer.raise_for_status().text
        return SECOND_COPY not in said or CANCELLED_COPY in said

    def reasons(self) -> list[str]:
        """In words, why jobs ended badly: of the first few."""
        return [f"job {job_id} ended badly: {why}" for job_id, why in list(self.why.items())[:REASONS]]

    def _lane(self, faults: tuple[Fault, ...]) -> None:
        try:
            for fault in faults:
                if not self._reached(fault.at):
                    return
                time.sleep(fault.delay)
                self.say(self.progress(), fault.kind)
                self._do(fault)
        except Exception as error:  # a thread's end would otherwise pass for a run in which less went wrong
            self.trouble.append(f"{threading.current_thread().name}: {error!r}")
            self.over.set()

    def _reached(self, part: float) -> bool:
        """Waits for this part of the run; False when it is over before."""
        while not self.over.is_set():
            if self.progress() >= part:
                return True
            time.sleep(0.02)
        return False

    def _do(self, fault: Fault) -> None:
        if fault.kind == "kill":
            while not self.service.kill() and not self.over.is_set():
                time.sleep(0.02)
            return
        if fault.kill_after is not None:
            threading.Timer(fault.kill_after, self.service.kill).start()
        {
            "terminate": self._terminate,
            "stop": self._stop,
            "disk": self._fill,
            "limit": self._limit,
            "full table": self._full_table,
        }[fault.kind](fault)

    def _terminate(self, fault: Fault) -> None:
        self.controller.terminate()
        self.gate.more(self.form.burst)
        time.sleep(fault.seconds)
        self.controller.start()
        self.happened.terminations += 1

    def _stop(self, fault: Fault) -> None:
        with self.controller.stopped():
            self.gate.more(self.form.burst)
            time.sleep(fault.seconds)
        self.happened.stops += 1

    def _fill(self, fault: Fault) -> None:
        """The disk is full until clients and the service have met it."""
        refused = self._failed()
        self.disk.fill()
        try:
            self.gate.more(self.form.burst)
            time.sleep(fault.seconds)
            deadline = time.monotonic() + 60
            while self._failed() == refused and self.clients.answered < self.form.submissions:
                if time.monotonic() > deadline:
                    raise SurroundingsError("the disk was full for a minute, and no submission was refused")
                self.disk.fill()
                self.gate.more(self.form.burst)
                time.sleep(0.2)
        finally:
            self.disk.empty()
        self.happened.full_disks += 1

    def _failed(self) -> int:
        """How often the service said that it cannot, or ended by itself: without a free byte it cannot even start."""
        tries = dict(self.clients.answers.tries)
        return self.service.ended + sum(number for what, number in tries.items() if what.startswith("5"))

    def _limit(self, fault: Fault) -> None:
        before = self.controller.refused
        self.controller.limit(self.form.limit)
        try:
            self._until(fault, lambda: self.controller.refused > before)
        finally:
            self.controller.limit(None)

    def _full_table(self, fault: Fault) -> None:
        before = self.controller.turned_away
        self.controller.terminate()
        self.controller.start(most_jobs=self.form.limit)
        try:
            self._until(fault, lambda: self.controller.turned_away > before)
        finally:
            self.controller.terminate()
            self.controller.start()
        self.happened.terminations += 2
        self.happened.full_tables += 1

    def _until(self, fault: Fault, met: Callable[[], bool]) -> None:
        """Lets more come, until the part of the run is done at which the fault ends, and a submit has ``met`` it."""
        self.gate.more(self.form.burst)
        while not self.over.is_set() and (self.progress() < fault.until or not met()):
            if self.progress() >= fault.until:
                self.gate.more(self.form.burst)
            time.sleep(0.1)


@contextlib.contextmanager
def brought_up(form: Form, seed: int, say: Say, *, keep: bool, client: str = "command") -> Iterator[Run]:
    """Everything that a run needs, in a folder of its own; taken away at the end, but for the folder with ``keep``."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-faults-"))
    disk = Disk(folder / "disk")
    cluster = folder / "c"
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: None if keep else shutil.rmtree(folder))
        cluster.mkdir(mode=0o700)
        write_submit_plugin(cluster)
        stack.callback(down, cluster)
        info = up(
            "faults",
            2,
            cluster,
            min_job_age=MIN_JOB_AGE,
            overrides={
                "MessageTimeout": str(MESSAGE_TIMEOUT),
                "JobSubmitPlugins": "lua",
                # Its controller is started again with other limits, of which the nodes need not hear.
                "DebugFlags": "NO_CONF_HASH",
                "PartitionName": "crowd Nodes=node1,node2 OverSubscribe=FORCE:4 MaxTime=INFINITE State=UP",
            },
        )
        disk.mount()
        stack.callback(disk.unmount)
        stack.callback(lambda: shutil.copytree(disk.folder, folder / "database") if keep else None)
        service = Service(
            folder / "home",
            info.slurm_conf,
            client,
            {
                "LOCKSTEP_DATABASE_URL": f"sqlite:///{disk.database}",
                "LOCKSTEP_LOOKUP_SECONDS": str(2 * MESSAGE_TIMEOUT),
                "LOCKSTEP_SUBMIT_RETRY_LIMIT_SECONDS": "5",
                "LOCKSTEP_PYTHON": sys.executable,
            },
        )
        service.start()
        stack.callback(service.stop)
        _answers(service)
        gate = Gate(form.outstanding)
        script = Path(__file__).with_name("training.py")

        def spec(number: int) -> dict[str, Any]:
            arguments = [str(folder / "ledger"), str(number), str(WORKS)]
            return {
                "name": f"n{number}",
                "training": {"script": str(script), "arguments": arguments},
                "resources": {"partition": "crowd", "time": "0:30:00"},
            }

        clients = Clients(service.url, service.token, seed=seed, count=form.submissions, gate=gate, spec=spec)
        yield Run(form, seed, folder, service, Controller(info), disk, gate, clients, say)


def perform(form: Form, seed: int, say: Say = lambda _part, _what: None, *, keep: bool = False) -> Result:
    """A whole run, and its count."""
    began = time.monotonic()
    with brought_up(form, seed, say, keep=keep) as run:
        run.do(schedule(seed, form, message_timeout=MESSAGE_TIMEOUT))
        _quiet(run)
        counted = evidence.count(
            form.submissions,
            answered=run.clients.answers.ids,
            jobs=run.jobs(),
            ledger=run.ledger.read_text() if run.ledger.exists() else "",
            completed=run.controller.completions.read_text(),
        )
        answers = run.clients.answers
        return Result(
            seed=seed,
            form=form,
            count=counted,
            happened=run.happened,
            tries=dict(sorted(answers.tries.items())),
            findings=[
                *run.trouble,
                *answers.findings,
                *counted.findings,
                *run.reasons(),
                *run.happened.findings(form),
            ],
            seconds=time.monotonic() - began,
            folder=run.folder,
        )


def _answers(service: Service) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{service.url}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise SurroundingsError(f"the service was not ready within 120 s; {service.log} says why")


def _quiet(run: Run) -> None:
    """Waits until nothing is in Slurm's queue: copies that are held have to be cancelled, too."""
    deadline = time.monotonic() + STUCK
    while left := run.controller.queued():
        if time.monotonic() > deadline:
            run.trouble.append(f"{len(left)} jobs stayed in Slurm's queue, {left[0]} among them")
            return
        time.sleep(LOOK)


def possible() -> str | None:
    """Why no run is possible here; None where one is."""
    return None if os.geteuid() == 0 else "a one-machine Slurm, and a disk that fills up, need root"
