"""The emulated two-socket machine of the tests: what is run in it, and what came of it.

A test names its case by the fixture's ``of(case)``; one boot of a shape runs the cases of all tests that were chosen,
one after another, and each test waits for its own.
"""

from __future__ import annotations

import compileall
import json
import re
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import two_sockets
from two_sockets import WITH_SMT, WITHOUT_SMT, Shape

from lockstep_slurm.job.library import provide
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec

HERE = Path(__file__).parents[1] / "emulated"
STANDIN = {
    "native.py": "native.py",
    "torch_package.py": "torch/__init__.py",
    "optimizer.py": "torch/optim/optimizer.py",
    "basics.py": "horovod/common/basics.py",
    "horovod_torch.py": "horovod/torch/__init__.py",
}
"""Where the files of the stand-in go; under their own names they would be taken for the real packages here."""
SILENCE = 300.0
"""Seconds without a result after which a machine counts as hung (QEMU, with several CPUs on a busy machine)."""
TO_BOOT = 200.0
"""The same, until its Slurm is up: 10 s on a quiet machine; some boots hang before the first process."""
BOOTS = 4
"""In a row that may come to nothing; from the third on QEMU emulates all CPUs in one thread: half as fast, no races."""
RESULTS = "/dev/vport1p1"


@dataclass(frozen=True)
class Case:
    """One thing to be run in the machine."""

    id: str
    """A sentence, which is the test's name as well."""
    spec: dict[str, Any] = field(default_factory=dict)
    """The job's, as a TOML file has it; empty: ``argv``."""
    argv: tuple[str, ...] = ()
    real: bool = False
    """With the tests' own torch and Horovod, not with the stand-in."""
    together: bool = False
    """Shares the machine with the other cases that say so: they are in Slurm's queue at the same time."""
    slurm: tuple[tuple[str, str], ...] = ()
    """Lines of slurm.conf in place of the machine's."""
    environment: tuple[tuple[str, str], ...] = ()
    """What the submitting shell has set."""
    by_hand: str = ""
    """In place of the script's srun and its options: what somebody else would have written."""
    shape: Shape = WITH_SMT


@dataclass
class Result:
    """What came of a case."""

    exit: str | int
    log: str
    seconds: float
    out: str = ""
    placement: dict[str, Any] = field(default_factory=dict)
    """placement/<attempt>/<node>.json by node."""
    records: list[dict[str, Any]] = field(default_factory=list)

    def verdicts(self, when: str) -> list[dict[str, Any]]:
        """The verdicts of that moment, by rank."""
        found = {
            one["rank"]: json.loads(one["values"]["document"])
            for one in self.records
            if one["kind"] == "verdict" and one["values"]["when"] == when
        }
        return [found[rank] for rank in sorted(found)]


def needed() -> None:
    """Skips the test where the machine cannot be emulated, and says what is missing."""
    reason = two_sockets.why_not()
    if reason is not None:
        pytest.skip(reason)
    if not two_sockets.home().is_dir() or any(not need.there() for need in two_sockets.NEEDS):
        pytest.skip("the emulated machine's kernel is not there: `make setup` makes it")


class Machine:
    """One shape of the machine, and the cases that it runs: all at the first question, in one boot."""

    def __init__(self, cases: Sequence[Case], ends: ExitStack) -> None:
        self._cases = list(cases)
        self._results: dict[str, dict[str, Any]] = {}
        self._ends = ends
        self._qemu: Any = None
        self._folder = Path()
        self._boots = 0
        """Since the last result."""
        self._heard_at = 0.0
        self.others: list[Machine] = []

    def of(self, case: Case) -> Result:
        """What came of ``case``; fails the test with the machine's last words where nothing did."""
        while case.id not in self._results:
            if self._qemu is None:
                self._boot()
            ended = self._qemu.poll() is not None
            self._read()
            if case.id not in self._results and (ended or self._hangs()):
                self._again("ended" if ended else "has said nothing for minutes")
            time.sleep(0.1)
        answer = self._results[case.id]
        if "trouble" in answer:
            pytest.fail(f"{answer['trouble']}\n{answer['logs']}\n{self._console()}")
        return Result(**{name: value for name, value in answer.items() if name != "case"})

    def finish(self) -> None:
        """Lets a machine that has been booted come to its end: two at once would be in each other's way."""
        while self._qemu is not None and self._qemu.poll() is None and not self._hangs():
            self._read()
            time.sleep(0.1)

    def _boot(self) -> None:
        for other in self.others:
            other.finish()
        self._boots += 1
        left = [case for case in self._cases if case.id not in self._results]
        self._folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="lockstep-machine-")))
        write_standin(self._folder / "standin")
        library = provide(self._folder)
        unpack(library, self._folder / "library")
        cases = self._folder / "cases.json"
        cases.write_text(json.dumps([described(case, self._folder, library) for case in left]))
        program = self._folder / "program"
        program.write_text(f"#!/bin/sh\nexec /usr/bin/python3 {HERE}/guest/run_cases.py {cases} {RESULTS}\n")
        program.chmod(0o755)
        booted = two_sockets.booted(left[0].shape, self._folder, program, one_thread=self._boots > BOOTS // 2)
        self._qemu = self._ends.enter_context(booted)
        self._heard_at = time.monotonic()

    def _read(self) -> None:
        file = self._folder / "results"
        whole, _, _ = (file.read_text() if file.exists() else "").rpartition("\n")
        for answer in map(json.loads, whole.splitlines()):
            if answer["case"] not in self._results:
                self._results[answer["case"]] = answer
                self._heard_at = time.monotonic()
                self._boots = 1

    def _hangs(self) -> bool:
        """Whether it has given no result for too long."""
        silent = time.monotonic() - self._heard_at
        return silent > SILENCE or (silent > TO_BOOT and "lockstep: up" not in self._console())

    def _again(self, what: str) -> None:
        """A machine that hangs or ended early is killed, and booted again for what is left."""
        self._qemu.kill()
        words = (
            f"the emulated machine {what} after {len(self._results)} of {len(self._cases)} cases, boot {self._boots}; "
            f"QEMU's exit code {self._qemu.wait()}, its and virtiofsd's words: {self._words('files.log')}\n"
            f"Its console:\n{self._console()}"
        )
        if self._boots >= BOOTS:
            pytest.fail(words)
        warnings.warn(words, stacklevel=2)
        self._qemu = None

    def _console(self) -> str:
        return self._words("console")

    def _words(self, name: str) -> str:
        file = self._folder / name
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""


def write_standin(folder: Path) -> None:
    """The packages that stand for torch and Horovod, for PYTHONPATH."""
    for name, target in STANDIN.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "standin" / name, folder / target)
    for package in ("horovod", "horovod/common"):
        (folder / package / "__init__.py").touch()
    (folder / "torch" / "optim" / "__init__.py").write_text("from torch.optim.optimizer import SGD\n")


def unpack(library: Path, folder: Path) -> None:
    """The library's files with what Python makes of them: out of the zip, each process compiles them, for seconds."""
    with zipfile.ZipFile(library) as zipped:
        zipped.extractall(folder)
    assert compileall.compile_dir(folder, quiet=1)


def described(case: Case, folder: Path, library: Path) -> dict[str, Any]:
    """A case as the machine takes it."""
    common = {"id": case.id, "environment": dict(case.environment)}
    if not case.spec:
        argv = [word.replace("{bin}", str(Path(sys.executable).parent)) for word in case.argv]
        return {**common, "kind": "command", "argv": argv, "environment": {"PYTHONPATH": str(folder / "library")}}
    name = re.sub("[^a-z0-9]+", "-", case.id.lower())
    runs = f"/run/runs/{name}"
    spec = dict(case.spec)
    spec["training"] = {
        "script": str(HERE / "trainings" / ("small.py" if case.real else "steps.py")),
        **spec.get("training", {}),
    }
    if not case.real:
        variables = {"PYTHONPATH": str(folder / "standin"), **spec.get("environment", {}).get("variables", {})}
        spec["environment"] = {"variables": variables}
    # The stand-in needs nothing but a Python: the system's own has neither Lockstep nor torch.
    python, used = (sys.executable, library) if case.real else ("/usr/bin/python3", folder / "library")
    site = ScriptSite(python=python, runs=runs, library=str(used))
    script = render(JobSpec.model_validate(spec), site)
    if case.by_hand:
        script, count = re.subn(
            r'^ +SLURM_EXIT_ERROR=\S+ srun .*?(?="\$\{lockstep_python\[@\]\}")',
            lambda _: case.by_hand,
            script,
            flags=re.DOTALL | re.MULTILINE,
        )
        assert count == 1, script
    return {
        **common, "kind": "script", "script": script, "runs": runs, "folder": name, "together": case.together,
        "slurm": dict(case.slurm),
    }  # fmt: skip


@contextmanager
def machines(cases: Sequence[Case]) -> Iterator[dict[Shape, Machine]]:
    """A machine of each shape that these cases need; none is booted before a test asks."""
    with ExitStack() as ends:
        found = {
            shape: Machine([case for case in cases if case.shape == shape], ends) for shape in (WITH_SMT, WITHOUT_SMT)
        }
        for machine in found.values():
            machine.others = [other for other in found.values() if other is not machine]
        yield found
