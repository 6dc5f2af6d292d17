"""The environment that a script makes for its ranks, in real bash and with the distribution's own modules.

Where a rank's Python would be stands a script that prints what reaches it; real Pythons are in tests/end_to_end.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep_slurm.job.bootstrap import BOOT
from lockstep_slurm.job.identity import new_job_id
from lockstep_slurm.job.rundir import make_run_directory, read_starts
from lockstep_slurm.job.script import ScriptSite, render
from lockstep_slurm.job.spec import JobSpec
from support.lockstep import wait_for
from support.modules import modules_needed, own_words, write_module

# Parts of paths: any text on one line but a slash, and no name of the folder itself.
names = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/\u2028\u2029"), min_size=1, max_size=40
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


class Trial:
    """A run directory, and a script that is started for it as the service starts one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_directory = make_run_directory(folder, new_job_id(), "{}", "#!/bin/bash\n", by_hand=False)
        self.python = self.program(
            "python",
            "[[ $2 == *import\\ lockstep* ]] && exit 0\n"
            f'[[ $3 == lockstep_worker.rundir ]] && {{ cat > /dev/null; echo "{self.run_directory}"; exit; }}\n'
            f'env -0 > "{folder}/environment"\n',
        )

    def program(self, name: str, text: str) -> Path:
        """A program made of bash."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/bash\n{text}")
        file.chmod(0o755)
        return file

    def script(self, environment: dict[str, Any], *, training: dict[str, Any] | None = None, **site: Any) -> Path:
        """The script of a spec with this environment, on a site that has these lines."""
        spec = JobSpec.model_validate(
            {"training": training or {"model": "digits-cnn", "data": "digits"}, "environment": environment}
        )
        file = self.folder / "job.sbatch"
        file.write_text(render(spec, ScriptSite(**{"python": str(self.python), "runs": str(self.folder)} | site)))
        return file

    def run(self, environment: dict[str, Any], **more: Any) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        return subprocess.run(
            ["bash", self.script(environment, **more), self.run_directory],
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, capture_output=True, text=True, timeout=60,
            cwd=self.folder,
        )  # fmt: skip

    @property
    def seen(self) -> dict[str, str]:
        """The environment that reached the ranks."""
        return dict(pair.split("=", 1) for pair in (self.folder / "environment").read_text().split("\0") if pair)

    def stopped(self, done: subprocess.CompletedProcess[str]) -> str:
        """Why it came to no rank, as the job's page tells it; the script must have ended so, and said it in its log."""
        assert done.returncode == 78, done.stderr
        assert not (self.folder / "environment").exists()
        (start,) = read_starts(self.run_directory)
        assert (start.slurm_job_id, start.restart_count) == (0, 0)
        assert "lockstep: " in done.stderr
        return start.message


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, kind=st.sampled_from(["venv", "conda", "container"]))
def test_paths_are_data_whatever_they_are_called(
    name: str, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trial = Trial(tmp_path_factory.mktemp("trial"))
    place = trial.folder / "odd" / name
    python = trial.program(f"odd/{name}/bin/python", trial.python.read_text().partition("\n")[2])
    setup = place / "set up.sh"
    setup.write_text('export SOURCED="$BASH_SOURCE"\n')
    environment: dict[str, Any] = {"setup_file": str(setup), kind: str(place)}
    if kind == "container":
        fake = trial.program(
            "apptainer",
            f'printf "%s\\0" "$@" > "{trial.folder}/argv"\n'
            f'while [[ $1 != python3 ]]; do shift; done\nshift\nexec {shlex.quote(str(python))} "$@"\n',
        )
        environment["container"] = {"image": str(place), "binds": [f"{place}:/mnt"]}
        done = trial.run(environment, apptainer=str(fake), training={"script": f"{place}/train.py"})
    else:
        done = trial.run(environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert trial.seen["SOURCED"] == str(setup)
    if kind == "container":
        argv = (trial.folder / "argv").read_text().split("\0")
        assert [
            argv[argv.index("exec") + 1 : argv.index(f"{place}:/mnt")].count(str(place)),
            argv.count(str(place)),
        ] == [1, 2]
    else:
        assert trial.seen[{"venv": "VIRTUAL_ENV", "conda": "CONDA_PREFIX"}[kind]] == str(place)
        assert trial.seen["PATH"].startswith(f"{place}/bin:")


class TestModules:
    def test_they_are_loaded_in_order_after_a_purge(self, trial: Trial, tmp_path: Path) -> None:
        init = modules_needed()
        write_module(tmp_path / "site" / "sites-own", 'setenv SITES_OWN "1"')
        write_module(tmp_path / "m" / "compiler" / "12.2", 'prepend-path ORDER "compiler"')
        write_module(tmp_path / "m" / "mpi" / "4.1", 'prereq "compiler"\nprepend-path ORDER "mpi"')
        done = trial.run(
            {"module_use": [str(tmp_path / "m")], "modules": ["compiler", "mpi/4.1"]},
            module_init=f"source {init}\nmodule use {tmp_path / 'site'}\nmodule load sites-own",
        )
        assert done.returncode == 0, done.stderr
        assert trial.seen["LOADEDMODULES"].split(":") == ["compiler/12.2", "mpi/4.1"]
        assert trial.seen["ORDER"] == "mpi:compiler"
        assert "SITES_OWN" not in trial.seen

    def test_a_purge_does_not_take_slurms_commands_away(self, trial: Trial) -> None:
        trial.program("slurm/bin/srun", f'env -0 > "{trial.folder}/environment"\n')
        purging = f"""PATH={trial.folder}/slurm/bin:/usr/bin:/bin
module() {{ case $1 in purge) PATH=/usr/local/bin:/bin ;; load) LOADEDMODULES=$2 ;; esac; }}"""
        # No srun but that one.
        (trial.folder / "bin").mkdir()
        for name in ("mktemp", "cat", "tr", "head", "rm", "uname", "realpath", "env", "tee", "bash"):
            (trial.folder / "bin" / name).symlink_to(f"/usr/bin/{name}")
        init = purging.replace("/usr/local/bin:/bin", f"{trial.folder}/bin")
        done = trial.run({"modules": ["a"]}, module_init=init)
        assert done.returncode == 0, done.stderr
        assert trial.seen["PATH"] == f"{trial.folder}/bin:{trial.folder}/slurm/bin"

    def test_an_unknown_one_ends_the_job_with_the_module_systems_own_words(self, trial: Trial, tmp_path: Path) -> None:
        init = modules_needed()
        done = trial.run({"modules": ["nosuch/1.0"]}, module_init=f"source {init}")
        words = trial.stopped(done)
        assert "`module load nosuch/1.0`" in words
        assert own_words(init, "nosuch/1.0") in words

    def test_one_that_fails_ends_it_too(self, trial: Trial, tmp_path: Path) -> None:
        init = modules_needed()
        write_module(tmp_path / "m" / "broken", 'error "needs a licence"')
        done = trial.run({"module_use": [str(tmp_path / "m")], "modules": ["broken"]}, module_init=f"source {init}")
        assert "needs a licence" in trial.stopped(done)

    def test_without_a_line_of_the_sites_the_usual_places_are_tried(self, trial: Trial, tmp_path: Path) -> None:
        modules_needed()
        write_module(tmp_path / "m" / "one", 'setenv ONE "1"')
        done = trial.run({"module_use": [str(tmp_path / "m")], "modules": ["one"]})
        assert done.returncode == 0, done.stderr
        assert trial.seen["ONE"] == "1"

    def test_a_module_system_that_returns_0_for_an_error_is_not_believed(self, trial: Trial) -> None:
        # As C modules 3.2 do; `is-loaded` they do not know.
        old = """module() {
  case $1:$2 in
    load:good) export LOADEDMODULES=good/7 ;;
    load:alias) export LOADEDMODULES=$LOADEDMODULES:other/7 ;;
    load:*) echo "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for '$2'" >&2 ;;
    is-loaded:*) echo "ModuleCmd:ERROR: unrecognized" >&2; return 1 ;;
  esac
  return 0
}"""
        done = trial.run({"modules": ["good", "alias"]}, module_init=old)
        assert done.returncode == 0, done.stderr
        (trial.folder / "environment").unlink()
        words = trial.stopped(trial.run({"modules": ["good", "nosuch"]}, module_init=old))
        assert "ERROR:105: Unable to locate a modulefile for 'nosuch'" in words

    def test_a_site_without_modules_says_who_can_change_that(self, trial: Trial) -> None:
        words = trial.stopped(trial.run({"modules": ["a"]}, module_init=":"))
        assert "no `module` command" in words
        assert "modules.init" in words

    def test_a_folder_that_is_not_there_is_named(self, trial: Trial) -> None:
        words = trial.stopped(trial.run({"module_use": ["/no/where"]}, module_init="module() { :; }"))
        assert "environment.module_use: /no/where is no folder" in words

    def test_what_a_module_says_is_data_on_the_page(self, trial: Trial) -> None:
        shout = r"module() { [[ $1 != load ]] || { printf '\e[31mred\e[0m\r\nand \a <b>bold</b>' >&2; return 1; }; }"
        words = trial.stopped(trial.run({"modules": ["x"]}, module_init=shout))
        assert words.endswith("failed: red and <b>bold</b>")

    def test_what_a_module_says_is_cut(self, trial: Trial) -> None:
        flood = "module() { [[ $1 != load ]] || { head -c 100000 /dev/zero | tr '\\0' x >&2; return 1; }; }"
        assert len(trial.stopped(trial.run({"modules": ["x"]}, module_init=flood))) == 2000


class TestSetUp:
    def test_one_that_fails_is_told(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "setup.sh").write_text("return 3\n")
        words = trial.stopped(trial.run({"setup_file": str(tmp_path / "setup.sh")}))
        assert f"environment.setup_file {tmp_path}/setup.sh failed with 3 on " in words

    def test_one_that_ends_the_shell_is_told(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "setup.sh").write_text("exit 4\n")
        words = trial.stopped(trial.run({"setup_file": str(tmp_path / "setup.sh")}))
        assert f"environment.setup_file {tmp_path}/setup.sh ended the script with exit code 4" in words

    def test_so_is_a_line_of_the_sites(self, trial: Trial) -> None:
        words = trial.stopped(trial.run({"modules": ["a"]}, module_init="exit 5"))
        assert "modules.init of the site's cluster.toml ended the script with exit code 5" in words

    def test_a_trap_of_its_own_stays(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "setup.sh").write_text(f"trap 'touch {tmp_path}/cleaned' EXIT\n")
        done = trial.run({"setup_file": str(tmp_path / "setup.sh")})
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "cleaned").exists()

    def test_a_cancel_meanwhile_is_not_told_as_its_failure(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "setup.sh").write_text(f"touch {tmp_path}/begun\nwhile :; do read -t 0.1 < /dev/zero; done\n")
        process = subprocess.Popen(
            ["bash", trial.script({"setup_file": str(tmp_path / "setup.sh")}), trial.run_directory],
            env={"PATH": "/usr/bin:/bin"}, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_for("the set-up", (tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in {-signal.SIGTERM, 128 + signal.SIGTERM}
        assert read_starts(trial.run_directory) == []


class TestPython:
    def test_one_that_is_not_there(self, trial: Trial) -> None:
        words = trial.stopped(trial.run({"venv": "/no/where"}))
        assert "there is no Python at /no/where/bin/python on " in words

    def test_one_that_is_too_old(self, trial: Trial, tmp_path: Path) -> None:
        # A real interpreter that takes itself for an old one: not every machine has one.
        trial.program(
            "old/bin/python",
            f"exec {sys.executable} -c 'import sys; sys.version_info = (3, 6, 8)\nexec(sys.argv[1])' \"$2\"\n",
        )
        words = trial.stopped(trial.run({"venv": str(tmp_path / "old")}))
        assert "it is Python 3.6, and ranks need 3.9 or newer" in words

    def test_one_without_the_worker(self, trial: Trial, tmp_path: Path) -> None:
        trial.program("bare/bin/python", f'exec {sys.executable} -I -S "$@"\n')
        words = trial.stopped(trial.run({"venv": str(tmp_path / "bare")}))
        assert "cannot import lockstep_worker" in words
        assert "install lockstep[worker] there" in words

    def test_a_library_that_is_gone(self, trial: Trial, tmp_path: Path) -> None:
        words = trial.stopped(trial.run({}, library=f"{tmp_path}/gone.zip"))
        assert f"{tmp_path}/gone.zip, which ranks import, cannot be read" in words

    def test_the_library_comes_first_and_the_users_own_path_stays(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "setup.sh").write_text("export PYTHONPATH=/from/setup\n")
        (tmp_path / "l.zip").touch()
        trial.run({"setup_file": str(tmp_path / "setup.sh")}, library=f"{tmp_path}/l.zip")
        assert trial.seen["PYTHONPATH"] == f"{tmp_path}/l.zip:/from/setup"
        trial.run({"variables": {"PYTHONPATH": "/from/spec"}}, library=f"{tmp_path}/l.zip")
        assert trial.seen["PYTHONPATH"] == f"{tmp_path}/l.zip:/from/spec"
        trial.run({}, library=f"{tmp_path}/l.zip")
        assert trial.seen["PYTHONPATH"] == f"{tmp_path}/l.zip"


def test_a_conda_prefix_is_activated(trial: Trial, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    trial.program("prefix/bin/python", f'[[ $1 == -I ]] && exec {sys.executable} "$@"\nexec {trial.python} "$@"\n')
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "state").write_text('{"env_vars": {"KEPT": "a b\'$(x)", "GONE": "***unset***", "0": "x"}}')
    (prefix / "etc" / "conda" / "activate.d").mkdir(parents=True)
    (prefix / "etc" / "conda" / "activate.d" / "mkl.sh").write_text('export FROM_ACTIVATE="$CONDA_PREFIX $unset"\n')
    done = trial.run({"conda": str(prefix)})
    assert (done.returncode, done.stderr) == (0, "")
    assert trial.seen["CONDA_PREFIX"] == str(prefix)
    assert trial.seen["PATH"] == f"{prefix}/bin:/usr/bin:/bin"
    assert trial.seen["KEPT"] == "a b'$(x)"
    assert trial.seen["FROM_ACTIVATE"] == f"{prefix} "
    assert not {"GONE", "0", "LD_LIBRARY_PATH"} & set(trial.seen)


class TestContainer:
    def test_the_program_that_opens_it_stands_before_its_python(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "image.sif").touch()
        (tmp_path / "l.zip").touch()
        # Gives its last arguments to a shell, as the real one does inside; an image may bring a PYTHONPATH of its own.
        trial.program(
            "bin/apptainer",
            f'printf "%s\\n" "$@" > "{tmp_path}/argv"\nwhile [[ $1 != *.sif ]]; do shift; done; shift\n'
            'export PYTHONPATH=/of/the/image PATH="$PATH"\nexec "$@"\n',
        )
        done = trial.run(
            {
                "container": {
                    "image": f"{tmp_path}/image.sif",
                    "binds": ["/data:/mnt:ro"],
                    "python": str(trial.python),
                },
                "variables": {"APPTAINER_CLEANENV": "1"},
            },
            training={"script": "/project/train.py"},
            container_init=f"PATH={tmp_path}/bin:$PATH",
            library=f"{tmp_path}/l.zip",
        )
        assert (done.returncode, done.stderr) == (0, "")
        argv = (tmp_path / "argv").read_text()
        assert argv.startswith("exec\n--bind\n")
        binds = {
            line for line, before in zip(argv.split("\n")[1:], argv.split("\n"), strict=False) if before == "--bind"
        }
        assert binds == {
            str(tmp_path), "/tmp", str(trial.run_directory), f"{tmp_path}/l.zip",
            "/project", "/data:/mnt:ro",
        }  # fmt: skip
        assert argv.endswith(f"\n-c\n{BOOT}\nlockstep_worker.launch\n--run\n{trial.run_directory}\n--local-ranks\n1\n")
        assert trial.seen["PYTHONPATH"] == f"{tmp_path}/l.zip:/of/the/image"
        assert "APPTAINER_CLEANENV" not in trial.seen

    def test_it_sees_the_folders_of_data_and_model(self) -> None:
        training = {
            "model": "mine:build",
            "model_path": "/mine",
            "data": "images",
            "data_path": "/my data",
            "stage": "/l",
        }
        container = {"image": "/image.sif", "binds": ["/more"]}
        spec = JobSpec.model_validate({"training": training, "environment": {"container": container}})
        lines = render(spec, ScriptSite(python="/python", runs="/runs")).splitlines()
        said = [line.partition("--bind ")[2] for line in lines if line.startswith("lockstep_binds+=(--bind ")]
        assert said[-4:] == ["/mine)", "'/my data')", "/l)", "/more)"]

    def test_no_program_to_open_it(self, trial: Trial, tmp_path: Path) -> None:
        (tmp_path / "image.sif").touch()
        words = trial.stopped(trial.run({"container": {"image": f"{tmp_path}/image.sif"}}, apptainer="/no/apptainer"))
        assert "there is no /no/apptainer on " in words
        assert "container.init" in words

    def test_no_image(self, trial: Trial) -> None:
        words = trial.stopped(trial.run({"container": {"image": "/no/image.sif"}}, apptainer="true"))
        assert "there is no /no/image.sif" in words


def test_a_restart_of_a_slurm_job_is_told_by_its_name(trial: Trial) -> None:
    script = trial.script({"venv": "/no/where"})
    environment = os.environ | {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "2", "SLURMD_NODENAME": "node9"}
    done = subprocess.run(["bash", script, trial.run_directory], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 78
    (start,) = read_starts(trial.run_directory)
    assert (start.slurm_job_id, start.restart_count) == (17, 2)
    assert "on node9" in start.message


def test_a_folder_that_is_no_run_directory_is_left_as_it_is(trial: Trial, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    done = subprocess.run(["bash", trial.script({"venv": "/no/where"}), other], capture_output=True, timeout=60)
    assert done.returncode == 78
    assert list(other.iterdir()) == []
