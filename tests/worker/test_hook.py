"""The hook in a training: it sees every thread and moves what is ours to move, and a user's script notices nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep_slurm.job import library
from lockstep_worker import beat
from lockstep_worker.slices import slice_of
from support.hooked import FIRST, HOOK, SECOND, Train
from support.ranks import base_environment

SHOW = "import json, os, sys\nprint(json.dumps([sys.path, dict(os.environ), sys.argv, sorted(sys.flags)]))\n"


class TestAScriptNoticesNothing:
    def test_its_path_environment_and_arguments_are_as_without_it(self, train: Train, tmp_path: Path) -> None:
        found = train(SHOW, "--name", "a b", path="/mine::/other")
        alone = subprocess.run(
            [sys.executable, str(tmp_path / "script.py"), "--name", "a b"],
            env=base_environment() | {"PYTHONPATH": "/mine::/other", "OMP_NUM_THREADS": "2"},
            capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60,
        )  # fmt: skip
        assert json.loads(found.done.stdout) == json.loads(alone.stdout), found.done.stderr
        assert found.done.stderr == ""

    def test_without_a_path_of_its_own_it_has_none(self, train: Train) -> None:
        found = train(SHOW)
        path, environment, _, _ = json.loads(found.done.stdout)
        assert "PYTHONPATH" not in environment
        assert not [entry for entry in path if "hook" in entry]

    def test_an_error_of_its_own_is_told_as_without_it(self, train: Train, tmp_path: Path) -> None:
        found = train("def fails():\n    raise KeyError('mine')\nfails()\n")
        alone = subprocess.run(
            [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, cwd=tmp_path, check=False,
            env=base_environment(), timeout=60,
        )  # fmt: skip
        assert (found.done.returncode, found.done.stderr) == (1, alone.stderr)
        assert [(told["kind"], told["text"]) for told in found.why] == [("KeyError", "'mine'")]
        assert found.roles() == {"main": [f"{FIRST},{SECOND}" if SECOND != FIRST + 1 else f"{FIRST}-{SECOND}"]}

    def test_its_own_sitecustomize_is_loaded_and_is_the_one_that_is_imported(
        self, train: Train, tmp_path: Path
    ) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "sitecustomize.py").write_text("MINE = 'loaded'\n")
        found = train(
            "import sitecustomize\nprint(sitecustomize.MINE, sitecustomize.__file__)\n", path=str(tmp_path / "own")
        )
        assert found.done.stdout.split() == ["loaded", str(tmp_path / "own" / "sitecustomize.py")], found.done.stderr
        assert found.heard

    def test_an_error_in_its_sitecustomize_is_told_by_python_and_it_runs_on(self, train: Train, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "sitecustomize.py").write_text("import no_such_module\n")
        found = train("print('runs')\n", path=str(tmp_path / "own"))
        assert found.done.stdout == "runs\n"
        assert "Error in sitecustomize" in found.done.stderr
        assert "no_such_module" in found.done.stderr

    def test_its_children_know_nothing_of_it(self, train: Train) -> None:
        code = (
            "import subprocess, sys\n"
            'code = \'import os, sys; print("LOCKSTEP_HOOK" in os.environ, "lockstep_worker" in sys.modules)\'\n'
            "print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)\n"
        )
        found = train(code)
        assert found.done.stdout.split() == ["False", "False"]
        assert len(found.heard) == 1

    def test_a_process_that_the_wrapper_did_not_start_itself_is_left_alone(self, tmp_path: Path) -> None:
        environment = base_environment() | {"PYTHONPATH": HOOK, "LOCKSTEP_HOOK": f'{os.getpid()} {{"socket": 99}}'}
        shell = f"{sys.executable} -c 'import sys; print(\"lockstep_worker.inside\" in sys.modules)'; true"
        done = subprocess.run(
            ["sh", "-c", shell], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert (done.stdout, done.stderr) == ("False\n", "")

    def test_what_fails_of_ours_is_one_line_and_the_script_runs(self, train: Train) -> None:
        found = train("print('runs')\n", socket=987_654)
        assert found.done.stdout == "runs\n"
        assert found.done.stderr.count("\n") == 1
        assert found.done.stderr.startswith("lockstep: the threads of this rank are not seen")

    def test_processes_of_every_start_method_work_where_loaders_belong(self, train: Train) -> None:
        code = """
import multiprocessing, os

def cpus(_):
    return sorted(os.sched_getaffinity(0))

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(method, *pool.map(cpus, [0])[0])
    print("parent", *cpus(0))
"""
        found = train(code)
        assert found.done.stdout.splitlines() == [
            f"fork {SECOND}", f"spawn {SECOND}", f"forkserver {SECOND}", f"parent {FIRST} {SECOND}"
        ], found.done.stderr  # fmt: skip


class TestWhatIsSeen:
    def test_horovods_threads_are_born_in_their_place_and_known_by_their_birth(self, train: Train) -> None:
        code = """
import json, os
import horovod.torch as hvd
from lockstep_worker import slices
hvd.init()
print(sorted(os.sched_getaffinity(0)))
print(json.dumps({thread: slices.slice_of(int(thread)) for thread in os.listdir("/proc/self/task")}))
"""
        found = train(code, variables={"HOROVOD_THREAD_AFFINITY": str(FIRST)})
        assert found.done.returncode == 0, found.done.stderr
        assert [one["when"] for one in found.heard] == ["init"]
        roles = found.roles()
        both = roles["main"][0]
        assert roles["horovod"] == [str(FIRST)]
        assert set(roles["gloo"]) == {str(SECOND)}
        assert roles["compute"] == [both]
        assert set(roles.get("imported", [both])) == {both}
        assert "unclassified" not in roles
        told, slices = map(json.loads, found.done.stdout.splitlines())
        assert told == [FIRST, SECOND], "the script's own mask is what it was"
        if (own := slice_of(os.getpid())) is not None:  # from Linux 6.12 on
            communicates = {"horovod": 100_000, "gloo": 100_000}
            for thread, role, *_ in found.heard[0]["threads"]:
                assert slices[str(thread)] == communicates.get(role, own), role
        assert found.heard[0]["variables"]["OMP_NUM_THREADS"] == "2"

    def test_a_pool_that_computed_before_is_known_by_what_it_does(self, train: Train) -> None:
        code = """
import torch
torch.ones(1 << 20).sum()
from horovod.torch import init, shutdown
init(); shutdown(); init()
"""
        found = train(code)
        assert found.done.returncode == 0, found.done.stderr
        assert len(found.heard) == 2
        for look in range(2):
            roles = found.roles(look)
            assert len(roles["compute"]) == 1
            assert len(roles["horovod"]) == 1
            assert set(roles["gloo"]) == {str(SECOND)}
            assert "unclassified" not in roles

    def test_an_init_in_another_thread_leaves_that_thread_and_the_main_one_where_they_were(self, train: Train) -> None:
        code = """
import os, threading
import torch
import horovod.torch as hvd
def run():
    hvd.init()
    print(sorted(os.sched_getaffinity(0)))
thread = threading.Thread(target=run)
thread.start(); thread.join()
print(sorted(os.sched_getaffinity(0)))
"""
        found = train(code)
        assert found.done.stdout.splitlines() == [str([FIRST, SECOND])] * 2, found.done.stderr
        roles = found.roles()
        assert set(roles["gloo"]) == {str(SECOND)}
        assert len(roles["unclassified"]) == 1, "Python's own thread, which called"

    def test_threads_bound_one_by_one_do_not_hand_their_cpu_on(self, train: Train) -> None:
        code = """
import multiprocessing, os
import horovod.torch as hvd
hvd.init()
def cpus(_):
    return sorted(os.sched_getaffinity(0))
with multiprocessing.Pool(1) as pool:
    print(pool.map(cpus, [0])[0], cpus(0))
"""
        bound = {"OMP_PROC_BIND": "close", "OMP_PLACES": f"{{{FIRST}}},{{{SECOND}}}"}
        found = train(code, variables=bound, workers_on=[FIRST, SECOND])
        roles = found.roles()
        assert (roles["main"], roles["compute"]) == ([str(FIRST)], [str(SECOND)]), found.done.stderr
        assert set(roles["gloo"]) == {str(SECOND)}
        assert found.done.stdout.strip() == f"[{FIRST}, {SECOND}] [{FIRST}]"

    def test_loaders_are_seen_after_the_first_steps(self, train: Train) -> None:
        code = """
import torch
from torch.utils.data import DataLoader, TensorDataset
model = torch.nn.Linear(400, 400)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for (batch,) in DataLoader(TensorDataset(torch.randn(40, 400)), batch_size=4, num_workers=2):
    optimizer.zero_grad(); model(batch).sum().backward(); optimizer.step()
print(torch.get_num_interop_threads())
"""
        found = train(code, variables={"LOCKSTEP_INTEROP_THREADS": "1"})
        assert found.done.returncode == 0, found.done.stderr
        (look,) = found.heard
        assert look["when"] == "steps"
        assert len(look["workers"]) == 2
        assert "compute" in found.roles()
        assert found.done.stdout.split()[-1] == "1"

    def test_a_script_that_sets_torchs_inter_op_threads_itself_has_its_way(self, train: Train) -> None:
        code = """
import torch
import horovod.torch as hvd
hvd.init()
torch.set_num_interop_threads(2)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
for _ in range(4):
    optimizer.step()
print(torch.get_num_interop_threads())
"""
        found = train(code, variables={"LOCKSTEP_INTEROP_THREADS": "1"})
        assert (found.done.stdout, found.done.returncode) == ("2\n", 0), found.done.stderr
        assert [one["when"] for one in found.heard] == ["init", "steps"]

    def test_a_script_with_steps_of_its_own_is_seen_by_what_it_reports(self, train: Train) -> None:
        found = train("from lockstep import report\nfor step in range(1, 9): report(step=step, loss=1.0)\n")
        assert [one["when"] for one in found.heard] == ["steps"]

    def test_one_that_goes_on_is_looked_at_after_steps_of_its_own(self, train: Train) -> None:
        code = """
import torch
import lockstep
from torch.utils.data import DataLoader, TensorDataset
lockstep.report(kind="resume", step=100)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
for (batch,) in DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=4, num_workers=2):
    optimizer.step()
"""
        found = train(code)
        assert found.done.returncode == 0, found.done.stderr
        assert [(look["when"], len(look["workers"])) for look in found.heard] == [("steps", 2)]

    @pytest.mark.parametrize(
        ("before", "says"),
        [
            ("", "lockstep.evaluated(3)"),
            ("state = lockstep.checkpoint.of(model=__import__('torch').nn.Linear(1, 1))", "state.evaluated(0.5)"),
        ],
    )
    def test_an_evaluation_that_this_rank_does_not_report_is_no_step_of_its_heartbeat(
        self, train: Train, tmp_path: Path, before: str, says: str
    ) -> None:
        code = f"""
from types import SimpleNamespace
import lockstep
from lockstep_worker import beat
{before}
now = 100.0
beat.time = SimpleNamespace(monotonic=lambda: now)
for step in (1, 2, 3):
    now += 2.0
    lockstep.report(step=step)
now += 1000.0
{says}
now += 2.0
lockstep.report(step=4)
"""
        found = train(code, standing=str(tmp_path / "0"))
        assert found.done.returncode == 0, found.done.stderr
        beats = beat.read(tmp_path / "0.beat")
        assert beats is not None
        assert (beats.steps, beats.last, beats.longest) == (4, 1108.0, 2.0)

    def test_a_forked_child_may_compute_with_torch(self, train: Train) -> None:
        # GNU's OpenMP hangs there when its parent has had a parallel region, which here only the hook had.
        code = """
import multiprocessing
import torch
import horovod.torch as hvd
hvd.init()
def total(_):
    return torch.ones(1 << 20).sum().item()
with multiprocessing.Pool(1) as pool:
    print(pool.map_async(total, [0]).get(60))
"""
        found = train(code)
        assert found.done.stdout == "[1048576.0]\n", found.done.stderr

    def test_a_child_of_os_fork_may_compute_as_well(self, train: Train) -> None:
        code = """
import os, signal
import torch
import horovod.torch as hvd
hvd.init()
if (child := os.fork()) == 0:
    signal.alarm(60)
    os._exit(0 if torch.ones(1 << 20).sum().item() == 1 << 20 else 3)
print(os.waitpid(child, 0)[1])
"""
        found = train(code)
        assert found.done.stdout == "0\n", found.done.stderr

    def test_oneccls_workers_are_those_born_until_the_first_collective_is_done_whichever_it_is(
        self, train: Train
    ) -> None:
        # Threads of the C library's stand for oneCCL's: what matters is whose call ends the time of their births.
        code = """
import ctypes
import torch
import horovod.torch as hvd
libc = ctypes.CDLL(None)
def thread():
    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
hvd.init()
model = torch.nn.Linear(4, 4)
thread()
hvd.broadcast_parameters(model.state_dict(), root_rank=0)
thread()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    model(torch.ones(2, 4)).sum().backward(); optimizer.step()
"""
        found = train(code, backend="ccl")
        assert found.done.returncode == 0, found.done.stderr
        assert [look["when"] for look in found.heard] == ["init", "steps"]
        assert len(found.roles(1)["ccl"]) == 1
        assert len(found.roles(1)["unclassified"]) == 1

    def test_torchs_own_gloo_is_born_in_its_place(self, train: Train) -> None:
        code = """
import torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.new_group([0])
import gc; dist.destroy_process_group(); gc.collect()
"""
        found = train(code)
        assert found.done.returncode == 0, found.done.stderr
        (look,) = found.heard
        assert (look["when"], look["libraries"]) == ("init", ["torch"])
        assert set(found.roles()["gloo"]) == {str(SECOND)}

    def test_a_look_at_a_hundred_threads_takes_no_time_worth_the_name(self, train: Train) -> None:
        code = """
import threading, time
from lockstep_worker import seen
go = threading.Event()
threads = [threading.Thread(target=go.wait) for _ in range(100)]
for thread in threads: thread.start()
def took():
    began = time.process_time()
    assert len(list(seen.threads())) == 101
    return time.process_time() - began
print(min(took() for _ in range(5)))
go.set()
"""
        found = train(code)
        assert float(found.done.stdout) < 0.02, found.done.stderr


def test_it_works_from_the_library_and_with_the_oldest_python_here(train: Train, tmp_path: Path) -> None:
    # 3.9 where there is one; tests/worker/test_independence.py holds all modules to its syntax everywhere.
    python = next(map(str, Path.home().glob(".pyenv/versions/3.9.*/bin/python3.9")), sys.executable)
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    zipped = library.provide(tmp_path / "runs")
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=120)
    code = "import sys, sitecustomize\nprint(sys.version_info[:2], sitecustomize.__name__, sys.path[1:2])\n"
    found = train(
        code, hook=f"{zipped}/lockstep_worker/hook", path=str(zipped), python=str(tmp_path / "venv/bin/python")
    )
    assert found.done.stdout.split("\n")[0] == f"{version} sitecustomize ['{zipped}']", found.done.stderr
    assert [one["when"] for one in found.heard] == ["steps"]
