"""What the hook does inside a rank's training: it sees threads being born, has them born in their place, and looks.

Standard library only; the training's own torch and Horovod, once it has them. What it sees goes to the rank's wrapper
(``proof``), which compares. An error of ours is a line in the log, never one of the training's.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from lockstep_worker import births, imports, seen, slices, stacks
from lockstep_worker.beat import Beat
from lockstep_worker.sentences import Words

STEPS = 3
"""Optimizer steps (or reported ones) after which threads are looked at again: loaders and pools are there by then."""
LOOKS = 16
"""Times at most that a process is looked at: an elastic training starts its communication again and again."""
FIRST_REGION = 1 << 18
"""Elements for which torch wakes all threads of its pool (2.13: from 32,768, however many of them get any)."""
WORKS_WITHIN = 0.02
"""Seconds in which a pool that is older than that region has to show that it works: some ticks of the kernel's."""
VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_NUM", "OPENBLAS_", "CCL_WORKER", "HOROVOD_THREAD", "I_MPI_PIN")
"""Beginnings of the variables that placement works by."""


class Inside:
    """One training process's eyes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._rank: int = settings["rank"]
        self._backend: str = settings["backend"]
        self._born_on: Sequence[int] = settings["born_on"]
        self._workers_on: Sequence[int] = settings["workers_on"]
        self._socket = socket.socket(fileno=settings["socket"])
        self._socket.set_inheritable(False)
        self._pid = os.getpid()
        self._steps = 0
        self._reported = 0
        self._looks = 0
        self._looked_at_steps = False
        self._region_ran = False
        self._hooked: Any = None
        self._libraries: list[str] = []
        self._lock = threading.RLock()
        self._beat: Beat | None = None
        if (standing := settings.get("standing")) is not None:
            try:
                self._stacks = stacks.listen(Path(f"{standing}.stacks"))
                self._beat = Beat(Path(f"{standing}.beat"))
            except OSError as error:
                self._complain("nobody watches over its steps", error)

    def watch(self) -> None:
        """Watches for what is imported; all else follows from that."""
        watcher = imports.Watcher(self._complain)
        for name in ("numpy", "torch", "horovod.torch"):
            watcher.watch(name, around=lambda: births.BIRTHS.during("imported"))
        watcher.watch("torch.optim.optimizer", after=self._watch_steps)
        watcher.watch("torch.distributed.distributed_c10d", after=self._wrap_torch)
        watcher.watch("horovod.common.basics", after=self._wrap_horovod)
        watcher.watch("multiprocessing.util", after=self._wrap_workers)
        watcher.watch("lockstep", after=self._watch_reports)
        sys.meta_path.insert(0, watcher)
        self._watch_errors()
        atexit.register(self._at_the_end)
        os.register_at_fork(after_in_child=self._leave)

    def _watch_errors(self) -> None:
        """What ends the script is told to the wrapper as well, whose exit record says why."""
        before = sys.excepthook

        @functools.wraps(before)
        def raised(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self.tell_why(error)
            before(kind, error, trace)

        sys.excepthook = raised

    def tell_why(self, error: BaseException) -> None:
        """Tells the wrapper what ends this training."""
        if os.getpid() == self._pid:
            with contextlib.suppress(Exception):  # it ends as it does, whether that is told or not
                self._tell({"why": Words.of(error).document()})

    def _wrap_horovod(self, module: ModuleType) -> None:
        basics: Any = module.HorovodBasics
        # Horovod 0.28.1: its own thread first, then, made by that, Gloo's (one for each of its meshes) or MPI's.
        roles = ("horovod", "gloo" if self._backend != "mpi" else births.UNKNOWN)
        basics.init = self._around(basics.init, *roles, library="horovod")
        if self._backend == "ccl":
            # oneCCL starts its workers when the first collective makes a communicator.
            basics.init = self._with_first_collective(basics.init)

    def _with_first_collective(self, init: Callable[..., Any]) -> Callable[..., Any]:
        """After ``init``, what is born until the first collective is done are oneCCL's workers."""

        @functools.wraps(init)
        def begun(*arguments: object, **named: object) -> object:
            result = init(*arguments, **named)
            operations: Any = sys.modules.get("horovod.torch.mpi_ops")
            if operations is not None:
                born = contextlib.ExitStack()
                born.enter_context(births.BIRTHS.during("ccl"))
                synchronize = operations.synchronize
                # Horovod's optimizer, its broadcasts and the package itself have taken it by name.
                modules = [module for name, module in list(sys.modules.items()) if name.startswith("horovod.torch")]
                having: list[Any] = [one for one in modules if getattr(one, "synchronize", None) is synchronize]

                @functools.wraps(synchronize)
                def first(*arguments: object, **named: object) -> object:
                    for one in having:
                        one.synchronize = synchronize
                    with imports.Safely(lambda: born, "after a collective", self._complain):
                        return synchronize(*arguments, **named)

                for one in having:
                    one.synchronize = first
            return result

        return begun

    def _wrap_torch(self, module: ModuleType) -> None:
        any_module: Any = module
        any_module.init_process_group = self._around(any_module.init_process_group, "gloo", library="torch")
        any_module.new_group = self._around(any_module.new_group, "gloo", look=False)

    def _around(
        self, call: Callable[..., Any], *roles: str, look: bool = True, library: str | None = None
    ) -> Callable[..., Any]:
        """``call``, whose threads are born where communication belongs; then a look at all of them.

        ``library`` is the one that ``call`` starts.
        """

        @functools.wraps(call)
        def wrapped(*arguments: object, **named: object) -> object:
            with imports.Safely(
                functools.partial(self._births, roles, region=look), f"around {call.__name__}", self._complain
            ):
                result = call(*arguments, **named)
            if library is not None and library not in self._libraries:
                self._libraries.append(library)
            if look:
                self.look("init")
            return result

        return wrapped

    @contextlib.contextmanager
    def _births(self, roles: Sequence[str], *, region: bool = True) -> Iterator[None]:
        """Births on the communication CPUs, with a short slice: a thread begins with mask and slice of its maker.

        Without ``region`` who computes is not found out before: trainings make hundreds of groups, at 20 ms each.
        """
        if os.getpid() != self._pid:
            yield  # a forked child has places of its own
            return
        if region:
            self._run_a_region()
        before = os.sched_getaffinity(0)
        with births.BIRTHS.during(*roles), slices.shortened():
            if self._born_on:
                os.sched_setaffinity(0, self._born_on)
            try:
                yield
            finally:
                # What it was, and not what was planned: whatever bound this thread otherwise has to be seen.
                if self._born_on:
                    os.sched_setaffinity(0, before)

    def _run_a_region(self) -> None:
        """A parallel region of torch's: what is born in it, or works in it, are the threads that compute.

        Not as soon as torch is imported: GNU's OpenMP hangs in a forked child whose parent has used it.
        """
        torch: Any = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "ones") or threading.current_thread() is not threading.main_thread():
            return
        unknown = {tid: _worked(tid) for tid in births.BIRTHS.unknown()}
        self._region_ran = True
        ends = time.monotonic() + WORKS_WITHIN
        while True:
            with births.BIRTHS.during("compute"):
                torch.ones(FIRST_REGION, dtype=torch.float32, device="cpu").sum()
            # The pool of a script that computed before is older than this region, but works in it. The kernel counts
            # what a thread works at its ticks, or when it gives up its CPU.
            worked = [tid for tid, before in unknown.items() if _worked(tid) != before]
            births.BIRTHS.give(worked, "compute")
            if len(worked) == len(unknown) or time.monotonic() >= ends:
                return

    def _watch_steps(self, module: ModuleType) -> None:
        register = getattr(module, "register_optimizer_step_post_hook", None)
        if register is not None:
            self._hooked = register(lambda *_: self._stepped())

    def _stepped(self) -> None:
        self._steps += 1
        if self._steps >= STEPS:
            if self._hooked is not None:
                self._hooked.remove()
                self._hooked = None
            self._look_at_steps()

    def _watch_reports(self, module: ModuleType) -> None:
        any_module: Any = module
        report = any_module.report

        @functools.wraps(report)
        def reported(*arguments: object, **named: object) -> None:
            report(*arguments, **named)
            kind = named.get("kind", "step")
            if self._beat is not None:
                self._beat.reported(kind, named.get("step"))
            # Not by the step's number: a training that goes on from step 1000 says so before it has made any.
            if kind == "step":
                self._reported += 1
                if self._reported >= STEPS:
                    self._look_at_steps()

        any_module.report = reported
        evaluated = any_module.evaluated

        @functools.wraps(evaluated)
        def has_evaluated(*arguments: object, **named: object) -> None:
            evaluated(*arguments, **named)
            if self._beat is not None:
                self._beat.reported("evaluation", None)

        any_module.evaluated = has_evaluated

    def _look_at_steps(self) -> None:
        if not self._looked_at_steps and os.getpid() == self._pid:
            self._looked_at_steps = True
            try:
                if births.BIRTHS.unknown():
                    self._run_a_region()
                self._inter_op()
            except Exception as error:
                self._complain("after the first steps", error)
            self.look("steps")

    def _inter_op(self) -> None:
        """Torch's pool for operations side by side, small; not before the script had its say, for it counts once."""
        torch: Any = sys.modules.get("torch")
        number = os.environ.get("LOCKSTEP_INTEROP_THREADS", "")
        if torch is not None and number.isdecimal():
            with contextlib.suppress(RuntimeError):  # the script has set it, or used it
                torch.set_num_interop_threads(int(number))

    def _wrap_workers(self, module: ModuleType) -> None:
        """Processes of ``multiprocessing`` begin where loaders belong, not where their parent happens to be bound."""
        util: Any = module
        util.register_after_fork(self, Inside._became_a_worker)
        spawn = util.spawnv_passfds

        @functools.wraps(spawn)
        def spawned(*arguments: object, **named: object) -> object:
            with imports.Safely(self._on_workers_cpus, "around the start of a process", self._complain):
                return spawn(*arguments, **named)

        util.spawnv_passfds = spawned

    @contextlib.contextmanager
    def _on_workers_cpus(self) -> Iterator[None]:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._workers_on)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def _became_a_worker(self) -> None:
        """In a forked worker, before its own code runs."""
        try:
            os.sched_setaffinity(0, self._workers_on)
        except Exception as error:
            self._complain("in a forked worker", error)

    def look(self, when: str) -> None:
        """Tells the wrapper how each thread may run, and how it was born. Takes some 30 µs per thread."""
        if os.getpid() != self._pid:
            return  # a forked child, in which the lock may be held for ever
        try:
            with self._lock:
                if self._looks >= LOOKS:
                    return
                self._looks += 1
                role = births.BIRTHS.role
                found = [(one.tid, role(one.tid, one.start), one) for one in seen.threads()]
                told = {
                    "when": when,
                    "threads": [[tid, what, one.name, one.cpus, one.last] for tid, what, one in found],
                    "births": {str(tid): [one.start, what] for tid, what, one in found if what != births.UNKNOWN},
                    "workers": self._workers(),
                    "libraries": self._libraries,
                    "variables": {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)},
                }
                self._tell(told)
        except Exception as error:
            self._complain("a look at the threads", error)

    def _workers(self) -> list[int]:
        """The ids of the living processes of ``multiprocessing``, without asking it to look after them."""
        module: Any = sys.modules.get("multiprocessing.process")
        children = list(getattr(module, "_children", ())) if module is not None else []
        return [child.pid for child in children if child.pid is not None]

    def _at_the_end(self) -> None:
        """A script that never communicated nor made steps is looked at while it is still there."""
        if self._looks == 0:
            self.look("steps")

    def _leave(self) -> None:
        """In any forked child, ``os.fork``'s too: its threads are its own."""
        self._socket.close()
        torch: Any = sys.modules.get("torch")
        if self._region_ran and torch is not None:
            # One that computed with several threads would hang (GNU's OpenMP), for the region that was ours.
            try:
                torch.set_num_threads(1)
            except Exception as error:
                self._complain("in a forked child", error)

    def _tell(self, told: dict[str, Any]) -> None:
        self._socket.send(json.dumps(told, separators=(",", ":")).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _complain(self, what: str, error: BaseException) -> None:
        sentence = f"{what}: {error!r}"
        print(f"lockstep: rank {self._rank}: {sentence}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            self._tell({"trouble": sentence})


def _worked(tid: int) -> bytes:
    """What the kernel counted of a thread's work so far; nothing where it does not count that."""
    try:
        return Path(f"/proc/self/task/{tid}/schedstat").read_bytes()
    except OSError:
        return b""  # or it has ended


_eyes: Inside | None = None


def begin(settings: str) -> None:
    """Opens the eyes of this process, by what the wrapper says (``proof.Proof.settings``)."""
    global _eyes  # noqa: PLW0603 - one a process
    _eyes = Inside(json.loads(settings))
    _eyes.watch()


def tell_why(error: BaseException) -> None:
    """For a training that ends itself by an exit code: its wrapper's exit record then says why."""
    if _eyes is not None:
        _eyes.tell_why(error)
