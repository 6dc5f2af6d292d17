"""One rank that ends badly under srun takes the others along at once, and it is the one that is told as the cause."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockstep_slurm.job.rundir import read_exit
from support.lockstep import Lockstep, wait_for
from support.ranks import processes_of

SCRIPT = """
import os, sys, time
from pathlib import Path
mine = Path(os.environ["LOCKSTEP_RUN"], "logs", "there-" + os.environ["RANK"])
mine.touch()
while not all((mine.parent / f"there-{rank}").exists() for rank in range(2)):
    time.sleep(0.05)
if os.environ["RANK"] == "1":
    BAD_END
time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("bad_end", "code", "signal"),
    [("sys.exit(42)", 42, None), ("os.kill(os.getpid(), 9)", None, 9)],
)
def test_every_rank_ends_and_the_first_to_fail_is_recorded(
    lockstep_without_service: Lockstep, bad_end: str, code: int | None, signal: int | None
) -> None:
    ours = lockstep_without_service
    script = ours.home / "bad.py"
    script.write_text(SCRIPT.replace("BAD_END", bad_end))
    spec = ours.home / "bad.toml"
    spec.write_text(
        f'[training]\nscript = "{script}"\n[resources]\nnodes = 2\nrequeue = false\n[placement]\nranks_per_node = 1\n'
    )
    printed = ours.run("script", spec)
    assert printed.returncode == 0, printed.stderr
    batch = ours.home / "bad.sbatch"
    batch.write_text(printed.stdout)
    number = ours.command("sbatch", "--parsable", str(batch)).strip()

    def ended() -> str | None:
        found = re.search(r"JobState=(\w+)", ours.command("scontrol", "show", "job", number))
        assert found
        return found[1] if found[1] not in {"PENDING", "RUNNING", "COMPLETING"} else None

    assert wait_for("the job to end", ended, 120) == "FAILED"
    output = (ours.home / f"slurm-{number}.out").read_text()
    found = re.search(r"run directory (\S+)", output)
    assert found, output
    run = Path(found[1])
    record = read_exit(run, 1)
    assert record is not None
    assert (record.code, record.signal, record.rank, record.node) == (code, signal, 1, "node2"), output
    assert wait_for("every process of the job to end", lambda: not processes_of(run), 60)
