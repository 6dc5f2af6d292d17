"""Jobs in environments that Lockstep did not build, through the service and real Slurm; and a site's own words."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import environments
from support.lockstep import EXAMPLES, Lockstep, client
from support.modules import modules_needed, own_words, write_module

# Tells what it found around it, and learns something on all ranks, so that torch and Horovod are there and meet.
TRAINING = """
import json, os, sys
import horovod.torch as hvd
import torch
import lockstep

hvd.init()
total = hvd.allreduce(torch.ones(8), op=hvd.Sum)
assert total.tolist() == [hvd.size()] * 8
lockstep.report(kind="start", steps=1)
lockstep.report(step=1, loss=0.5, samples=8)
names = ("LOADEDMODULES", "VIRTUAL_ENV", "CONDA_PREFIX", "FROM_STATE", "FROM_ACTIVATE", "FROM_MODULE",
         "APPTAINER_CONTAINER", "PYTHONPATH", "SLURM_JOB_ID", "LOCKSTEP_LIBRARY")
if hvd.rank() == 0:
    found = {name: os.environ.get(name) for name in names}
    found |= {"python": sys.executable, "prefix": sys.prefix, "lockstep": lockstep.__file__, "argv": sys.argv[1:]}
    found["foreign"] = sorted({"pydantic", "fastapi"} & set(sys.modules))
    print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def lockstep(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lockstep]:
    """A Lockstep whose site has modules, a program for images, and rules of its own."""
    ours = Lockstep(tmp_path_factory.mktemp("home"), cluster.slurm_conf)
    opener = environments.opener(ours.home / "opener", ours.home / "opened")
    (ours.home / "train.py").write_text(TRAINING)
    (ours.home / "cluster.toml").write_text(
        f'[modules]\ninit = "source {modules_needed()}"\n[container]\nprogram = "{opener}"\n'
        '[network]\nports = "21000-21999"\n[defaults]\npartition = "main"\n'
        '[partitions.main]\naccounts = ["root", "physics"]\ntime = "1:00:00"\n'
        '[partitions.main.defaults]\ntime = "20"\n'
    )
    ours.start()
    try:
        yield ours
    finally:
        ours.kill(signal.SIGTERM)


def trained(ours: Lockstep, **environment: object) -> dict[str, Any]:
    """What the training found around it, once a job of two ranks in this environment has ended well."""
    found, job = run(ours, **environment)
    assert job["phase"] == "ended well", (job["reason"], ours.run("logs", job["id"]).stdout[-4000:])
    assert job["last"]["loss"] == 0.5
    assert found["foreign"] == []
    assert found["lockstep"].startswith(str(ours.home / "runs" / "library" / "lockstep-"))
    # Slurm's own variables are for the wrapper alone.
    assert (found["SLURM_JOB_ID"], found["LOCKSTEP_LIBRARY"]) == (None, None)
    return found


def run(ours: Lockstep, **environment: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for a job that may end as it likes, and the job."""
    spec = {
        "name": "around",
        "training": {"script": str(ours.home / "train.py"), "arguments": ["a b", "$(x)"]},
        "resources": {"nodes": 2, "time": "10"},
        "environment": environment,
    }
    with client(ours) as api:
        job = ours.until(api.post("/jobs", json=spec).raise_for_status().json()["id"], {"ended well", "ended badly"})
    lines = [line for line in ours.run("logs", job["id"]).stdout.splitlines() if "FOUND " in line]
    return (json.loads(lines[0].partition("FOUND ")[2]) if lines else {}), job


def test_a_virtual_environment_without_lockstep(lockstep: Lockstep, packages: Path, tmp_path: Path) -> None:
    venv = environments.virtual_environment(tmp_path / "venv", packages)
    python = venv / "bin" / "python"
    assert environments.imports(python, "torch")
    assert not any(environments.imports(python, name) for name in ("lockstep", "lockstep_worker", "lockstep_slurm"))
    found = trained(lockstep, venv=str(venv), variables={"PYTHONPATH": "/of/the/spec"})
    assert (found["python"], found["VIRTUAL_ENV"]) == (str(python), str(venv))
    assert found["PYTHONPATH"] == ":".join([str(next(lockstep.home.glob("runs/library/*.zip"))), "/of/the/spec"])
    assert found["argv"] == ["a b", "$(x)"]


def test_a_built_in_recipe_trains_there_too(lockstep: Lockstep, packages: Path, tmp_path: Path) -> None:
    venv = environments.virtual_environment(tmp_path / "venv", packages)
    # Another version of Lockstep, as an old `pip install lockstep` leaves one, must not be what trains.
    (site,) = venv.glob("lib/python3.*/site-packages")
    for name in ("lockstep", "lockstep_worker", "lockstep_slurm"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("raise ImportError('an old Lockstep')\n")
    job = lockstep.submit(f'environment.venv="{venv}"', "training.epochs=2")
    ended = lockstep.until(job, {"ended well", "ended badly"})
    assert ended["phase"] == "ended well", (ended["reason"], lockstep.run("logs", job).stdout[-4000:])


def test_a_conda_prefix(lockstep: Lockstep, packages: Path, tmp_path: Path) -> None:
    prefix = environments.conda_prefix(tmp_path / "conda", packages)
    python = prefix / "bin" / "python"
    assert environments.imports(python, "torch")
    assert not environments.imports(python, "lockstep")
    found = trained(lockstep, conda=str(prefix))
    assert (found["python"], found["prefix"], found["CONDA_PREFIX"]) == (str(python), str(prefix), str(prefix))
    assert (found["FROM_STATE"], found["FROM_ACTIVATE"]) == ("1", str(prefix))


def test_modules(lockstep: Lockstep, packages: Path, tmp_path: Path) -> None:
    venv = environments.virtual_environment(tmp_path / "venv", packages)
    write_module(tmp_path / "m" / "compiler" / "12", 'setenv FROM_MODULE "compiler"')
    write_module(tmp_path / "m" / "science" / "1.0", 'prereq compiler\nprepend-path PYTHONPATH "/of/a/module"')
    found = trained(lockstep, venv=str(venv), module_use=[str(tmp_path / "m")], modules=["compiler", "science/1.0"])
    assert (found["LOADEDMODULES"], found["FROM_MODULE"]) == ("compiler/12:science/1.0", "compiler")
    assert found["PYTHONPATH"].endswith(".zip:/of/a/module")


def test_a_container(lockstep: Lockstep, packages: Path, tmp_path: Path) -> None:
    image = environments.conda_prefix(tmp_path / "image", packages)
    found = trained(lockstep, container={"image": str(image), "python": "python", "binds": [f"{tmp_path}:/mnt:ro"]})
    assert (found["APPTAINER_CONTAINER"], found["python"]) == (str(image), f"{image}/bin/python")
    assert found["PYTHONPATH"].endswith(".zip:/of/the/image")
    opened = (lockstep.home / "opened").read_text().splitlines()
    launches = [line for line in opened if "lockstep_worker.launch" in line]
    assert len(launches) == 2, "one for each rank"
    assert all(f"--bind {tmp_path}:/mnt:ro" in line and line.startswith("exec ") for line in launches)
    # The script that Slurm spools is on the first node alone, so only what runs there may want to see it.
    assert not [line for line in launches if "slurm_script" in line]
    assert [line for line in opened if "lockstep_worker.rundir" in line and "slurm_script" in line]


def test_an_unknown_module_ends_the_job_with_the_module_systems_own_words(lockstep: Lockstep) -> None:
    words = own_words(modules_needed(), "nosuch/1.0")
    _, job = run(lockstep, modules=["nosuch/1.0"])
    assert (job["phase"], job["state"], job["attempts"]) == ("ended badly", "FAILED", [])
    assert words in job["reason"]
    assert words in lockstep.run("show", job["id"]).stdout.replace("\n", " ")
    assert lockstep.run("watch", job["id"]).returncode == 1


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"venv": "/no/such/venv"}, "there is no Python at /no/such/venv/bin/python on node"),
        ({"setup_file": "/no/such/setup.sh"}, "environment.setup_file /no/such/setup.sh failed with 1 on node"),
        ({"container": {"image": "/no/such.sif"}}, "environment.container.image: there is no /no/such.sif on node"),
    ],
)
def test_what_is_not_there_is_told_on_the_page(lockstep: Lockstep, environment: dict[str, Any], words: str) -> None:
    _, job = run(lockstep, **environment)
    assert job["phase"] == "ended badly"
    assert words in job["reason"]


def test_a_site_fills_in_and_refuses_before_anything_is_stored(lockstep: Lockstep, tmp_path: Path) -> None:
    before = lockstep.json("ls")
    for setting, words in (
        ("resources.account=chess", "does not allow; it allows physics, root"),
        ('resources.time="2:00:00"', "partition 'main' allows at most '1:00:00'"),
        ("resources.partition=gpu", "does not offer; it has main"),
    ):
        for command in ("submit", "script"):
            done = lockstep.run(command, EXAMPLES / "digits.toml", "--set", setting)
            assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert lockstep.json("ls") == before
    spec = {"training": {"model": "digits-mlp", "data": "digits"}, "resources": {"begin": "now+1hours"}}
    with client(lockstep) as api:
        job = api.post("/jobs", json=spec).raise_for_status().json()
        script = api.get(f"/jobs/{job['id']}/script").text
    try:
        assert (job["spec"]["resources"]["time"], job["filled"]) == ("20", ["resources.partition", "resources.time"])
        assert "#SBATCH --time=20\n" in script
        assert " --ports 21000-21999" in script
        lockstep.until(job["id"], {"waiting"})
        assert json.loads((Path(job["run_dir"]) / "spec.json").read_text())["resources"]["time"] == "20"
    finally:
        assert lockstep.run("cancel", job["id"]).returncode == 0


def test_a_site_that_cannot_be_read_keeps_the_service_from_starting(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text("[partition.main]\n")
    done = Lockstep(tmp_path, cluster.slurm_conf).run("serve", "--port", "0")
    assert done.returncode == 2
    assert "cluster.toml: partition: is not a key that exists here" in done.stderr
