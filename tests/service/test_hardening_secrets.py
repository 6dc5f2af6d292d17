"""Where secrets are not: in arguments, in a job's environment, in what the service prints."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.lockstep import Lockstep, wait_for

SECRETS = {"AWS_SECRET_ACCESS_KEY": "geheim-1", "PGPASSWORD": "geheim-2", "LOCKSTEP_TEST_SECRET": "geheim-3"}
SCRIPT = """
import os, pathlib, sys, time
run = pathlib.Path(sys.argv[1])
(run / "environment").write_text("\\n".join(f"{name}={text}" for name, text in os.environ.items()))
(run / "ready").touch()
while not (run / "go").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Lockstep]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    found = Lockstep(home, None)
    found.environment |= SECRETS
    found.start("local")
    yield found
    found.kill(signal.SIGTERM)


def command_lines() -> str:
    """The arguments of every process on this machine, as everyone on it can read them."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return "\n".join(found)


def test_of_a_job_that_runs(ours: Lockstep, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "job.toml").write_text(
        f'[training]\nscript = "{tmp_path}/script.py"\narguments = ["{tmp_path}"]\n[resources]\ntime = "10"\n'
    )
    url = json.loads((ours.home / "service.json").read_text())["url"]
    guess = httpx.get(f"{url}/api/v1/jobs?token=geheim-4", headers={"Authorization": "Bearer geheim-5"})
    assert guess.status_code == 401
    job = ours.submit(example=str(tmp_path / "job.toml"))
    try:
        wait_for("the training to run", (tmp_path / "ready").exists, 120)
        run = Path(ours.job(job)["run_dir"])
        report = run / "report.json"
        job_token = json.loads(report.read_text())["token"]
        assert report.stat().st_mode & 0o777 == 0o600
        arguments = command_lines()
        environment = (tmp_path / "environment").read_text()
    finally:
        (tmp_path / "go").touch()
    assert str(tmp_path) in arguments, "this very training was to be seen"
    for secret in (ours.token, job_token, *SECRETS.values()):
        assert secret not in arguments
        assert secret not in environment
    assert "LOCKSTEP_TEST_SECRET" not in environment
    ours.until(job, {"ended well", "ended badly"})
    ours.kill(signal.SIGTERM)
    printed = (ours.home / "serve.log").read_text()
    assert job in printed, "the log tells of the requests for this job"
    for secret in (ours.token, job_token, *SECRETS.values(), "geheim-4", "geheim-5"):
        assert secret not in printed
    assert job_token not in (run / "job.sbatch").read_text() + (run / "spec.json").read_text()
    # Nobody but the user reads any of it.
    open_to_others = [path for path in run.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert open_to_others == []


def test_of_a_database_that_cannot_be_opened(ours: Lockstep) -> None:
    ours.kill(signal.SIGTERM)
    for address in ("postgresql://ada:geheim@127.0.0.1:1/lockstep", "mysql://ada:geheim@127.0.0.1/lockstep"):
        ours.environment["LOCKSTEP_DATABASE_URL"] = address
        done = ours.run("serve", "--port", "0", "--client", "local")
        assert done.returncode != 0
        assert "geheim" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr[-2000:]
        assert "LOCKSTEP_DATABASE_URL" in done.stderr


def test_a_password_in_an_argument_is_refused(ours: Lockstep) -> None:
    ours.kill(signal.SIGTERM)
    done = ours.run("serve", "--port", "0", "--database", "postgresql://ada:geheim@127.0.0.1:1/lockstep")
    assert done.returncode != 0
    assert "everyone on this machine" in done.stderr
    assert "LOCKSTEP_DATABASE_URL" in done.stderr
    assert "geheim" not in done.stderr
