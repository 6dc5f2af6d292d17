"""A run by hand out of a shell that is as unlucky as shells get: bound, hinted, and in a folder of traps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from support.lockstep import Lockstep, wait_for

LEFT_OVER = {
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_CPU_BIND_TYPE": "mask_cpu:",
    "SLURM_CPU_BIND_LIST": "0x1",
    "SLURM_CPU_BIND_VERBOSE": "quiet",
    "SLURM_MEM_BIND": "quiet,map_mem:7",
    "SLURM_HINT": "nomultithread",
    "SLURM_THREADS_PER_CORE": "1",
    "SLURM_DISTRIBUTION": "plane=1",
    "SLURM_NTASKS_PER_CORE": "1",
    "SRUN_CPUS_PER_TASK": "5",
    "SLURM_TRES_PER_TASK": "cpu=7",
    "SRUN_EXPORT_ENV": "NONE",
}
"""What a shell may have of another step's. sbatch hands it on with --export=ALL, and a set-up may bring it."""
TRAPS = (
    "sitecustomize.py",
    "json.py",
    "runpy.py",
    "pathlib.py",
    "argparse.py",
    "lockstep_worker/__init__.py",
    "lockstep_slurm/__init__.py",
)
SCRIPT = """\
import json, os, sys
import beside
print("RANK", json.dumps({"rank": os.environ["RANK"], "cpus": sorted(os.sched_getaffinity(0)), "path": sys.path[0]}))
"""


def lay_traps(folder: Path) -> Path:
    """A folder in which whoever imports from the current folder falls."""
    for name in TRAPS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('raise SystemExit("imported from the current folder: " + __file__)\n')
    return folder


def run_by_hand(ours: Lockstep, *settings: str) -> tuple[str, Path]:
    """The output of a job that such a shell submits, and the folder of its training's script."""
    traps, beside = lay_traps(ours.home / "traps"), ours.home / "beside"
    beside.mkdir()
    (beside / "script.py").write_text(SCRIPT)
    (beside / "beside.py").write_text("")
    # The last line leaves an empty part in the path, which stands for the current folder.
    setup = [f"export {name}='{value}'\n" for name, value in LEFT_OVER.items()] + [
        "export PYTHONPATH=/mine:${PYTHONPATH:-}\n"
    ]
    (beside / "setup.sh").write_text("".join(setup))
    spec = ours.home / "spec.toml"
    spec.write_text(
        f'[training]\nscript = "{beside}/script.py"\n[resources]\ntime = "5"\n'
        f'[environment]\nsetup_file = "{beside}/setup.sh"\n'
    )
    options = [word for setting in settings for word in ("--set", setting)]
    printed = ours.run("script", spec, "--python", sys.executable, *options)
    assert printed.returncode == 0, printed.stderr
    script = ours.home / "job.sbatch"
    script.write_text(printed.stdout)
    state, said = submitted(ours, traps, "output", str(script))
    assert state == "COMPLETED", said
    return said, beside


def submitted(ours: Lockstep, folder: Path, name: str, *arguments: str) -> tuple[str, str]:
    """How a job of sbatch's ended that the bound shell has submitted in this folder, and what it said."""
    output = ours.home / name
    done = subprocess.run(
        ["sbatch", "--parsable", "--export=ALL", f"--output={output}", *arguments],
        env=ours.environment | _bound(), cwd=folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    state = wait_for(f"job {done.stdout}to end", lambda: _ended(ours, done.stdout.strip()), 180)
    return state, output.read_text()


def _ended(ours: Lockstep, job: str) -> str | None:
    found = re.search(r"JobState=(\w+)", ours.command("scontrol", "show", "job", job))
    return None if found is None or found[1] in {"PENDING", "RUNNING", "COMPLETING"} else found[1]


def check(ours: Lockstep) -> None:
    """Two ranks on one whole node compute on a CPU each, and import what they would anywhere."""
    said, beside = run_by_hand(
        ours, "resources.exclusive=true", "placement.ranks_per_node=2", "placement.cpus_per_rank=1"
    )
    ranks = [json.loads(line) for line in re.findall(r"RANK (\{.*\})", said)]
    assert sorted((rank["rank"], rank["cpus"]) for rank in ranks) == [("0", [0]), ("1", [1])], said
    assert {rank["path"] for rank in ranks} == {str(beside)}, "a script finds what lies beside it, as ever"


def check_that_it_would_matter(ours: Lockstep) -> None:
    """The same binding left over for a plain srun puts both tasks on the first CPU."""
    wrap = "--wrap=srun grep Cpus_allowed_list /proc/self/status"
    _, said = submitted(ours, ours.home, "plain", "--exclusive", "--nodes=1", "--ntasks=2", wrap)
    assert said.split() == ["Cpus_allowed_list:", "0"] * 2


def _bound() -> dict[str, str]:
    """That part of it which sbatch itself does not take for options of its own."""
    return {name: text for name, text in LEFT_OVER.items() if name.startswith("SLURM_CPU_BIND")}
