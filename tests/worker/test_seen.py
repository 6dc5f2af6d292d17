"""What the kernel's files say of a process is read from where each kind of cgroup has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep_worker.seen import cpuset, is_ending, memory


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/slurm/job/step\n", {"slurm/job/step/cpuset.cpus.effective": "0-3\n"}, "0-3"),
        # The controller is on for the job, and not for the step and the task in it.
        ("0::/slurm/job/step/task_0\n", {"slurm/job/cpuset.cpus.effective": "0-3\n"}, "0-3"),
        ("0::/a\n", {"cpuset.cpus.effective": "0-7\n"}, "0-7"),
        ("3:cpuset:/slurm\n0::/\n", {"cpuset/slurm/cpuset.effective_cpus": "1\n"}, "1"),
        ("3:cpuset:/slurm\n0::/\n", {"cpuset/slurm/cpuset.cpus": "1\n"}, "1"),
        ("4:memory:/\n0::/a/b\n", {}, ""),
    ],
)
def test_the_cpuset_is_the_nearest_groups(tmp_path: Path, membership: str, files: dict[str, str], cpus: str) -> None:
    for name, text in (files | {"proc/7/cgroup": membership}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpuset(7, tmp_path / "proc", tmp_path) == cpus
    assert cpuset(8, tmp_path / "proc", tmp_path) == ""


def test_one_that_has_ended_tells_no_memory_policy_of_its_own() -> None:
    code = "import sys; print('here', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert not is_ending(process.pid)
        assert memory(process.pid)[0] == "default"
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet forgotten
        assert is_ending(process.pid)
        assert memory(process.pid)[0] == ""
    assert is_ending(process.pid)
