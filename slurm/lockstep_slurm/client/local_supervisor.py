"""Runs one job of the local queue to its end, in a process that outlives whoever started it, and says how it ended.

``python -m lockstep_slurm.client.local_supervisor FOLDER SLOTS ID RESTART`` returns at once when the job runs; the
supervisor itself goes on in the background. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path

from lockstep_slurm.client import local_files as files
from lockstep_slurm.client import processes
from lockstep_slurm.client.local_queue import LocalQueue

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL; Slurm's KillWait is 30 by default, and 5 in the one-machine cluster."""
_PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Claims the run, starts the script and leaves the background process to wait for it."""
    folder, slots, job_id, restart = Path(argv[0]), int(argv[1]), int(argv[2]), int(argv[3])
    ready, tell = os.pipe()
    if os.fork() != 0:
        os.close(tell)
        # Nothing is written: the pipe ends when the other side has claimed the run, or has died.
        os.read(ready, 1)
        return 0
    os.close(ready)
    os.setsid()
    # All processes of the job, also those that left its session, become ours when their parents end.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        _supervise(folder / "queue" / str(job_id), restart, tell)
    finally:
        LocalQueue(folder, slots).advance()
    return 0


def _supervise(folder: Path, restart: int, tell: int) -> None:
    myself = processes.identify(os.getpid())
    if myself is None:
        raise OSError("this process is not in /proc; is /proc mounted?")
    alarm = _listen()
    run = files.Run(time.time(), myself)
    record = folder / f"run-{restart}.json"
    claimed = files.claim(record, asdict(run))
    os.close(tell)
    found = files.read(folder)
    if not claimed or found is None:
        return
    end = folder / f"end-{restart}.json"
    if found.job.cancelled is not None or found.job.restarts != restart:
        files.write(end, asdict(files.End(time.time(), message="cancelled before it started")))
        return
    try:
        script = _start(found.job, folder / "script")
    except OSError as error:
        files.write(end, asdict(files.End(time.time(), code=1, message=f"could not be started: {error}")))
        return
    files.write(record, asdict(replace(run, leader=processes.identify(script.pid))))
    status = _wait(script.pid, alarm)
    # The script has been reaped here: its own object must not wait for its pid again.
    script.returncode = os.waitstatus_to_exitcode(status)
    code = script.returncode
    files.write(end, asdict(files.End(time.time(), *((code, None) if code >= 0 else (None, -code)))))


def _start(job: files.Job, script: Path) -> subprocess.Popen[bytes]:
    identity = {"LOCKSTEP_LOCAL_ID": str(job.id), "LOCKSTEP_RESTART_COUNT": str(job.restarts)}
    with Path(job.output).open("ab") as output:
        return subprocess.Popen(
            ["bash", str(script), *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=job.directory,
            env=job.environment | identity,
            start_new_session=True,
            umask=-1 if job.umask is None else job.umask,
        )


def _listen() -> int:
    """A pipe that gets the number of each SIGTERM and SIGCHLD; handlers, unlike masks, are not inherited by the job."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return read


def _wait(script: int, alarm: int) -> int:
    """The script's wait status, once it and all that it started have ended. SIGTERM ends them, after GRACE by force."""
    status: int | None = None
    kill_at: float | None = None
    while True:
        status, empty = _reap(script, status)
        if status is not None and empty:
            return status
        if status is not None and kill_at is None:
            # What a script leaves behind ends with it, as under Slurm's proctrack.
            kill_at = _terminate()
        left = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        if select.select([alarm], [], [], left)[0]:
            asked = {signal.SIGTERM, signal.SIGINT} & set(os.read(alarm, 4096))
            if asked and kill_at is None:
                kill_at = _terminate()
        elif kill_at is not None:
            processes.send_all(processes.descendants(os.getpid()), signal.SIGKILL)
            # Some may have been born since: look again soon.
            kill_at = time.monotonic() + 0.2


def _terminate() -> float:
    processes.send_all(processes.descendants(os.getpid()), signal.SIGTERM)
    return time.monotonic() + GRACE


def _reap(script: int, status: int | None) -> tuple[int | None, bool]:
    """Takes the children that have ended: the script's status if it was among them, and whether none is left."""
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, True
        if pid == 0:
            return status, False
        if pid == script:
            status = ended


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:  # the last word of a process that nobody waits for goes to the queue's log
        traceback.print_exc()
        sys.exit(1)
