"""What a build needs of a machine: compilers, an MPI, and memory for so many compilers at once."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from lockstep_slurm.horovod import machine
from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.target import Target

GB = 10**9
TARGET = Target(
    Path(sys.executable), (3, 11), "cpython-311", "linux-x86_64", "2.13.0+cpu", has_pip=True,
    headers=Path("/usr/include/python3.11"), has_headers=True,
)  # fmt: skip


def program(folder: Path, name: str, says: str) -> Path:
    """A program that prints one line."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)
    return folder / name


class TestJobs:
    @pytest.mark.parametrize(
        ("cpus", "memory", "jobs"), [(1, 64 * GB, 1), (8, 64 * GB, 8), (8, 10 * GB, 4), (64, 3 * GB, 1)]
    )
    def test_as_many_as_cores_and_memory_allow(self, cpus: int, memory: int, jobs: int) -> None:
        assert machine.jobs(cpus, memory) == jobs

    def test_too_little_memory_for_one_says_how_much_there_is_and_what_to_do(self) -> None:
        with pytest.raises(WheelError, match=r"2\.3 GB .*only 1\.9 GB.*--jobs 1"):
            machine.jobs(8, 1_900_000_000)

    def test_cores_are_those_of_this_process(self) -> None:
        assert machine.cpus() == len(os.sched_getaffinity(0))


class TestMemory:
    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        (tmp_path / "self").mkdir()
        (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\nSwapFree: 1000000 kB\n")
        (tmp_path / "self" / "cgroup").write_text("")
        return tmp_path

    def limit(self, folder: Path, names: tuple[str, str], limit: str, used: int, unused_pages: str) -> None:
        folder.mkdir(parents=True)
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{unused_pages}\n")

    def test_without_a_limit_it_is_what_the_kernel_and_the_swap_have(self, proc: Path, tmp_path: Path) -> None:
        assert machine.available_memory(proc, tmp_path / "none") == 9_000_000 * 1024

    def test_the_tightest_limit_above_this_process_counts_less_what_is_used(self, proc: Path, tmp_path: Path) -> None:
        (proc / "self" / "cgroup").write_text("0::/slurm/job_7\n")
        names, groups = ("memory.max", "memory.current"), tmp_path / "cgroup"
        self.limit(groups / "slurm", names, str(6 * GB), 3 * GB, "inactive_file 1000000000")
        self.limit(groups / "slurm" / "job_7", names, "max", GB, "inactive_file 0")
        assert machine.available_memory(proc, groups) == 4 * GB

    def test_version_1_of_cgroups_has_other_names(self, proc: Path, tmp_path: Path) -> None:
        (proc / "self" / "cgroup").write_text("5:cpuset:/x\n4:memory:/job\n")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        self.limit(tmp_path / "cgroup" / "memory" / "job", names, str(2 * GB), GB, "total_inactive_file 0")
        assert machine.available_memory(proc, tmp_path / "cgroup") == GB

    def test_of_this_machine_it_is_a_figure(self) -> None:
        assert machine.available_memory() > 0


class TestTools:
    @pytest.mark.skipif(
        shutil.which("g++") is None, reason="no compiler: the set-up found Horovod's wheel in its cache"
    )
    def test_this_machine_has_them(self) -> None:
        machine.check_tools(TARGET)

    def test_no_compiler_is_told_with_the_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CXX", raising=False)
        with pytest.raises(WheelError, match=r"g\+\+ and make and strip not found.*apt-get install g\+\+"):
            machine.check_tools(TARGET)

    def test_a_compiler_that_is_too_old_is_told_by_its_version(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = program(tmp_path, "old-g++", "g++ (GCC) 8.5.0")
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "g++ (GCC) 8.5.0" || exit 1\n')
        monkeypatch.setenv("CXX", str(old))
        with pytest.raises(WheelError, match=r"cannot do C\+\+20.*8\.5\.0.*module load"):
            machine.check_tools(TARGET)

    def test_missing_headers_are_told_with_the_package(self, tmp_path: Path) -> None:
        bare = Target(
            TARGET.python, (3, 11), "cpython-311", "linux-x86_64", "2.13.0", has_pip=True, headers=tmp_path,
            has_headers=False,
        )  # fmt: skip
        with pytest.raises(WheelError, match=r"Python\.h is missing.*python3\.11-dev"):
            machine.check_tools(bare)


class TestMpi:
    def test_none_is_none(self) -> None:
        assert machine.find_mpi("none") is None

    def test_mpicxx_on_path_has_to_be_open_mpis(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(WheelError, match=r"no mpicxx on PATH.*libopenmpi-dev"):
            machine.find_mpi("openmpi")
        program(tmp_path, "mpicxx", "mpicxx for MPICH version 4.0.2")
        with pytest.raises(WheelError, match=r"not Open MPI's: it says 'mpicxx for MPICH.*first on PATH"):
            machine.find_mpi("openmpi")

    def test_libraries_outside_the_systems_folders_are_for_the_run_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrapper = program(tmp_path, "mpicxx", "")
        wrapper.write_text(
            "#!/bin/sh\n[ $1 = --showme:version ] && echo 'mpicxx: Open MPI 5.0.1 (Language: C++)' && exit\n"
            "echo /opt/mpi/lib /usr/lib/x86_64-linux-gnu/openmpi/lib\n"
        )
        monkeypatch.setenv("PATH", str(tmp_path))
        assert machine.find_mpi("openmpi") == machine.Mpi("openmpi", wrapper, "Open MPI 5.0.1", ("/opt/mpi/lib",))


def test_what_the_shell_says_of_horovod_does_not_change_what_is_built() -> None:
    shell = {"PATH": "/bin", "HOROVOD_WITH_MPI": "1", "HOROVOD_WITHOUT_GLOO": "1", "LANG": "C"}
    built = machine.environment(shell, Path("/tools"), None, 3)
    assert "HOROVOD_WITH_MPI" not in built
    assert "HOROVOD_WITHOUT_GLOO" not in built
    assert (built["HOROVOD_WITHOUT_MPI"], built["MAKEFLAGS"], built["PATH"]) == ("1", "-j3", "/tools/bin:/bin")
    with_mpi = machine.environment(shell, Path("/tools"), machine.Mpi("openmpi", Path("/x"), "Open MPI"), 1)
    assert with_mpi["HOROVOD_WITH_MPI"] == "1"
    assert "HOROVOD_WITHOUT_MPI" not in with_mpi
