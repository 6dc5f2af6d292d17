"""The command by itself: quick to start, light in what it imports, and plain about what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.lockstep import EXAMPLES, Lockstep


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_the_command_loads_nothing_heavy() -> None:
    done = python(
        "import sys, lockstep_slurm.cli.main\n"
        "heavy = {'torch', 'horovod', 'fastapi', 'sqlalchemy', 'uvicorn', 'lockstep_service', 'lockstep_worker'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_subcommand_whose_extra_is_missing_says_what_to_install() -> None:
    done = python(
        "import sys\n"
        "sys.modules['fastapi'] = None\n"
        "sys.argv = ['lockstep', 'serve']\n"
        "from lockstep_slurm.cli.main import main\n"
        "main()"
    )
    assert done.returncode == 1
    assert "pip install '.[service]' in a clone of Lockstep" in done.stderr
    assert "Traceback" not in done.stderr


def test_script_prints_the_script_alone(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    runs = tmp_path / "runs"
    done = ours.run("script", EXAMPLES / "digits.toml", "--set", "resources.nodes=3", "--runs", runs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=digits\n#SBATCH --nodes=3\n")
    assert f"\nlockstep_runs={runs}\n" in done.stdout
    assert done.stderr == ""


def test_a_script_for_a_folder_that_only_the_cluster_has_says_what_it_then_needs(tmp_path: Path) -> None:
    done = Lockstep(tmp_path, None).run("script", EXAMPLES / "digits.toml", "--runs", "/dev/null/runs")
    assert done.returncode == 0
    assert "/dev/null/runs/library: Not a directory" in done.stderr
    assert "has lockstep[worker] installed" in done.stderr
    assert "\nlockstep_runs=/dev/null/runs\n" in done.stdout
    assert "LOCKSTEP_LIBRARY" not in done.stdout


def test_an_unknown_subcommand_or_option_is_bad_input(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    assert ours.run("sumbit").returncode == 2
    assert ours.run("ls", "--jsn").returncode == 2
    assert ours.run("submit").returncode == 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--venv=/nonexistent", "/nonexistent has no bin/python; give the folder of a virtual environment"),
        ("--python=/nonexistent", "/nonexistent could not be run: No such file or directory"),
        ("--python=/bin/true", "/bin/true does not run as a Python interpreter"),
        ("--wheels=/nonexistent", "/nonexistent is no folder; give one that `pip download"),
    ],
)
def test_what_a_build_is_given_and_is_not_there_is_bad_input(tmp_path: Path, option: str, said: str) -> None:
    done = Lockstep(tmp_path, None).run("worker", "build", option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"lockstep: {said}")


def test_a_link_is_cut_or_mended_but_not_both(tmp_path: Path) -> None:
    done = Lockstep(tmp_path, None).run("cluster", "link", "h1", "--down", "--up")
    assert (done.returncode, done.stderr) == (2, "lockstep: --down cuts the link and --up mends it: say one of them\n")


@pytest.mark.parametrize("command", ["submit", "cluster up"])
def test_the_help_shows_a_value_only_where_one_follows(tmp_path: Path, command: str) -> None:
    done = Lockstep(tmp_path, None).run(*command.split(), "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "bool" not in done.stdout.lower()


def test_a_token_that_is_not_there_yet_is_said_plainly(tmp_path: Path) -> None:
    done = Lockstep(tmp_path, None).run("token")
    assert done.returncode == 1
    assert "lockstep serve" in done.stderr


def test_an_address_that_does_not_answer_is_exit_code_3(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    (tmp_path / "token").write_text("t\n")
    ours.environment["LOCKSTEP_URL"] = "http://127.0.0.1:9"
    done = ours.run("show", "x")
    assert done.returncode == 3
    assert "does not answer" in done.stderr


def test_a_script_that_is_not_there_is_noted_before_it_waits_in_a_queue(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "job.toml").write_text('[training]\nscript = "trian.py"\n')
    ours.environment["LOCKSTEP_URL"] = "http://127.0.0.1:9"
    noted = f"note: training.script: {tmp_path}/trian.py is not there as seen from here; the compute nodes need it\n"
    assert ours.run("submit", tmp_path / "job.toml").stderr.startswith(noted)
    (tmp_path / "trian.py").touch()
    assert "note:" not in ours.run("submit", tmp_path / "job.toml").stderr


def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    (tmp_path / "token").write_text("t\n")
    ours.environment["LOCKSTEP_URL"] = "login1:8080"
    done = ours.run("ls")
    assert done.returncode == 3
    assert "LOCKSTEP_URL is 'login1:8080', but has to begin with http:// or https://" in done.stderr


def test_a_service_that_is_set_wrongly_says_so_without_a_traceback(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    done = ours.run("serve", "--client", "local", "--port", "0", "--home", "/dev/null/home")
    assert done.returncode == 1
    assert done.stderr.startswith("lockstep: The service's folder /dev/null/home cannot be made: Not a directory. Set ")
    ours.environment["LOCKSTEP_SUBMIT_RATE"] = "many"
    done = ours.run("serve", "--client", "local", "--port", "0")
    assert done.returncode == 2
    assert done.stderr == (
        "lockstep: the service's settings: LOCKSTEP_SUBMIT_RATE: is 'many', but has to be a whole number\n"
    )


def test_the_only_cluster_of_a_home_needs_no_name(tmp_path: Path) -> None:
    ours = Lockstep(tmp_path, None)
    (tmp_path / "cluster" / "demo").mkdir(parents=True)
    (tmp_path / "cluster" / "demo" / "slurm.conf").touch()
    assert "Cluster 'demo' was not running." in ours.run("cluster", "down").stdout
    (tmp_path / "cluster" / "other").mkdir()
    (tmp_path / "cluster" / "other" / "slurm.conf").touch()
    done = ours.run("cluster", "down")
    assert done.returncode == 2
    assert "several clusters (demo, other)" in done.stderr
