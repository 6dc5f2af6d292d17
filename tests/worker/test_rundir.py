"""The run directory: made whole or not at all, found again by a requeue, read with what a later version adds."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from lockstep_slurm.job import rundir
from lockstep_slurm.job.identity import is_job_id, new_job_id
from lockstep_slurm.job.rundir import RunDirectoryError, make_run_directory
from lockstep_slurm.job.writing import write_whole
from support.ranks import base_environment


def test_it_is_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    job_id = new_job_id()
    run = make_run_directory(tmp_path / "runs", job_id, '{"name": "x"}', "#!/bin/bash\n", by_hand=False)
    assert run == tmp_path / "runs" / job_id
    assert rundir.begin_start(run) == run
    assert (run / "job.sbatch").read_text() == "#!/bin/bash\n"
    assert json.loads((run / "origin.json").read_text())["by_hand"] is False
    for path in (run, *run.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_system_that_takes_no_advice_and_writes_little_at_once_has_the_whole_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> NoReturn:
        raise OSError(errno.ENOSYS, "Function not implemented")

    write = os.write
    monkeypatch.setattr(os, "posix_fadvise", refused)
    monkeypatch.setattr(os, "write", lambda file, text: write(file, text[:7]))
    run = make_run_directory(tmp_path, new_job_id(), '{"name": "x"}', "#!/bin/bash\n# ä\n", by_hand=False)
    assert (run / "job.sbatch").read_text(encoding="utf-8") == "#!/bin/bash\n# ä\n"


def test_every_file_is_closed_whatever_the_file_server_says_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = os.close, []

    def over_quota(file: int) -> None:
        is_written = stat.S_ISREG(os.fstat(file).st_mode)
        close(file)
        if is_written:
            closed.append(file)
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", over_quota)
        with pytest.raises(RunDirectoryError, match="quota"):
            make_run_directory(tmp_path, new_job_id(), "{}", "#!/bin/bash\n", by_hand=False)
    assert len(closed) >= len({"spec.json", "job.sbatch", "origin.json"})
    assert list(tmp_path.iterdir()) == []


def test_of_two_makers_of_one_id_one_is_told(tmp_path: Path) -> None:
    job_id = new_job_id()

    def make(number: int) -> bool:
        try:
            make_run_directory(tmp_path, job_id, "{}", f"#!/bin/bash\n# {number}\n", by_hand=False)
        except RunDirectoryError as error:
            assert "there is one already" in str(error)
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(make, range(8))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [job_id]  # no partial folder is left


def test_an_id_that_could_leave_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a job id"):
        make_run_directory(tmp_path, "../elsewhere", "{}", "", by_hand=False)
    with pytest.raises(RunDirectoryError, match="cannot be a file's name"):
        rundir.spool_file(tmp_path, 1, "../../node1")


def test_a_folder_that_lacks_something_is_said_to(tmp_path: Path) -> None:
    run = make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=False)
    (run / "spec.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"it has no spec\.json"):
        rundir.begin_start(run)
    with pytest.raises(RunDirectoryError, match="not a folder"):
        rundir.begin_start(tmp_path / "absent")


def test_before_a_start_there_is_a_log_folder_alone_and_nothing_to_be_read(tmp_path: Path) -> None:
    run = make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=False)
    assert {path.name for path in run.iterdir() if path.is_dir()} == {"logs"}
    assert (rundir.read_claims(run), rundir.read_starts(run)) == ([], [])
    with pytest.raises(FileNotFoundError):
        rundir.read_claims(tmp_path / "absent")


def test_a_run_whose_claims_are_lost_begins_no_other_start(tmp_path: Path) -> None:
    run = rundir.begin_start(make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=False))
    assert rundir.newest_fence(run) == 0
    (run / "claims").rmdir()
    with pytest.raises(FileNotFoundError):
        rundir.newest_fence(run)  # as a rank that trains asks: it must not take the first fence for its own
    for _ in range(2):
        with pytest.raises(RunDirectoryError, match="has lost its folder claims"):
            rundir.begin_start(run)


def test_readers_ignore_keys_that_they_do_not_know(tmp_path: Path) -> None:
    run = make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=True)
    ended = rundir.Exit(1, 1, None, 9, 1, "node2", "rank 1 was ended", 5.0)
    write_whole(rundir.exit_file(run, 1), json.dumps({**json.loads(rundir.as_json(ended)), "of_a_later_version": 1}))
    assert rundir.read_exit(run, 1) == ended
    assert rundir.read_exit(run, 2) is None
    assert not ended.ok


def test_a_torn_claim_is_an_error_and_not_an_absence(tmp_path: Path) -> None:
    run = make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=True)
    rundir.claim_file(run, 1).write_text('{"attempt": 1')
    with pytest.raises(RunDirectoryError, match="not JSON"):
        rundir.read_claims(run)


@pytest.mark.parametrize(
    ("number", "change", "says"),
    [
        (2, {}, "no claim of attempt 2: it says attempt 1, fence 1"),
        (1, {"fence": 2}, "no claim of attempt 1: it says attempt 1, fence 2"),
        (1, {"attempt": [[1]]}, "it says attempt list, fence 1"),
        (1, {"nodes": 7}, "its nodes are no list but int"),
        (1, None, "nested too deeply"),
    ],
)
def test_a_claim_that_is_none_or_of_another_number_is_an_error_that_says_so(
    tmp_path: Path, number: int, change: dict[str, object] | None, says: str
) -> None:
    run = make_run_directory(tmp_path, new_job_id(), "{}", "", by_hand=True)
    claim = rundir.Claim(1, 1, 7, 0, "site", "node1", ("node1",), 1, "host", 1, 1.0)
    rundir.claim_file(run, 1).write_text(rundir.as_json(claim))
    assert rundir.read_claims(run) == [claim]
    text = "[" * 60_000 if change is None else json.dumps(json.loads(rundir.as_json(claim)) | change)
    rundir.claim_file(run, number).write_text(text)
    with pytest.raises(RunDirectoryError, match=re.escape(says)) as refused:
        rundir.read_claims(run)
    assert str(rundir.claim_file(run, number)) in str(refused.value)


class TestCommand:
    """``python -m lockstep_worker.rundir``, as the batch script calls it."""

    @pytest.fixture
    def script(self, tmp_path: Path) -> Path:
        path = tmp_path / "slurm_script"
        path.write_bytes(b"#!/bin/bash\n# as it ran: \xc3\xa9\n")
        return path

    def find(self, runs: Path, script: Path, *arguments: str, **slurm: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lockstep_worker.rundir", "--runs", str(runs), "--spec-file", "/dev/stdin",
             "--script", str(script), *arguments],
            input='{"training": {}}', capture_output=True, text=True, env=base_environment() | slurm, check=False,
        )  # fmt: skip

    def test_by_hand_each_start_makes_its_own(self, tmp_path: Path, script: Path) -> None:
        made = [self.find(tmp_path / "runs", script).stdout.strip() for _ in range(2)]
        assert made[0] != made[1]
        for path in map(Path, made):
            assert is_job_id(path.name)
            assert (path / "job.sbatch").read_bytes() == script.read_bytes()
            assert json.loads((path / "origin.json").read_text())["by_hand"] is True

    def test_a_requeue_keeps_it_and_a_reused_slurm_id_does_not(self, tmp_path: Path, script: Path) -> None:
        runs, slurm = tmp_path / "runs", {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "site"}
        first = self.find(runs, script, **slurm).stdout
        assert self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1").stdout == first
        assert self.find(runs, script, **slurm, SLURM_RESTART_COUNT="2").stdout == first
        reused = self.find(runs, script, **slurm, SLURM_RESTART_COUNT="0").stdout
        assert reused != first
        assert self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1").stdout == reused

    def test_a_note_of_another_scripts_run_is_of_an_earlier_job_of_that_number(
        self, tmp_path: Path, script: Path
    ) -> None:
        # Slurm set up anew begins with 1 again, and this job's first start ended before it had a folder.
        runs, slurm = tmp_path / "runs", {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "site"}
        old = self.find(runs, script, **slurm).stdout
        for longer in ("# another\n", "# another, and longer than before\n"):
            script.write_text(longer)
            new = self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1").stdout
            assert new != old
            assert Path(new.strip(), "job.sbatch").read_text() == longer
            assert self.find(runs, script, **slurm, SLURM_RESTART_COUNT="2").stdout == new

    def test_a_note_of_a_run_that_is_gone_is_named_with_its_cure(self, tmp_path: Path, script: Path) -> None:
        runs, slurm = tmp_path / "runs", {"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "site"}
        first = Path(self.find(runs, script, **slurm).stdout.strip())
        first.rename(tmp_path / "moved")
        found = self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1")
        assert found.returncode == 78
        note = runs / "by-slurm-id" / "site-17"
        assert f"{note} names the run {first.name}, and this node sees no {first / 'job.sbatch'}" in found.stderr
        note.unlink()
        assert self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1").returncode == 0

    @pytest.mark.parametrize("restarts", ["0", "1"])
    @pytest.mark.parametrize("what", ["written by others", "of another user", "a link"])
    def test_notes_that_another_user_may_have_made_are_not_followed(
        self, tmp_path: Path, script: Path, what: str, restarts: str
    ) -> None:
        runs, slurm = tmp_path / "runs", {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "site"}
        self.find(runs, script, **slurm)
        before, notes = set(runs.iterdir()), runs / "by-slurm-id"
        if what == "written by others":
            notes.chmod(0o777)
        elif what == "of another user":
            if os.geteuid() != 0:
                pytest.skip("needs root, to give a folder away")
            os.chown(notes, 12345, -1)
        else:
            notes.rename(tmp_path / "elsewhere").chmod(0o700)
            notes.symlink_to(tmp_path / "elsewhere")
        found = self.find(runs, script, **slurm, SLURM_RESTART_COUNT=restarts)
        assert (found.returncode, found.stdout) == (78, "")
        assert f"lockstep: {notes} " in found.stderr
        assert "remove it, or print the script with a folder for runs that only you may write to" in found.stderr
        assert set(runs.iterdir()) == before

    def test_a_note_in_the_folder_that_is_not_a_file_of_ones_own_is_not_followed(
        self, tmp_path: Path, script: Path
    ) -> None:
        runs, slurm = tmp_path / "runs", {"SLURM_JOB_ID": "12", "SLURM_CLUSTER_NAME": "site"}
        self.find(runs, script, **slurm)
        (runs / "by-slurm-id" / "site-12").chmod(0o666)
        found = self.find(runs, script, **slurm, SLURM_RESTART_COUNT="1")
        assert found.returncode == 78
        assert "site-12 may be written to by others (mode 0666)" in found.stderr

    def test_one_that_the_service_made_is_checked_and_gets_the_folders_of_a_start(
        self, tmp_path: Path, script: Path
    ) -> None:
        run = make_run_directory(tmp_path / "runs", new_job_id(), "{}", "", by_hand=False)
        for _ in range(2):  # a requeue finds them there
            assert self.find(tmp_path / "runs", script, "--run", str(run), SLURM_JOB_ID="3").stdout.strip() == str(run)
            assert {path.name for path in run.iterdir() if path.is_dir()} == {rundir.LOGS, *rundir.FOLDERS}
        absent = self.find(tmp_path / "runs", script, "--run", str(tmp_path / "nothing"))
        assert absent.returncode == 78
        assert "not a folder that this node can see" in absent.stderr
