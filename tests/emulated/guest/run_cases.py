"""Inside the emulated machine: runs each case's script through Slurm and sends what came of it, a line of JSON each.

    run_cases.py CASES RESULTS

Standard library only, with the machine's own Python.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SLURM = Path("/run/slurm")
LIMIT = 240
"""Seconds for one case."""


def main() -> None:
    """All of them, in order."""
    cases = json.loads(Path(sys.argv[1]).read_text())
    together = [case for case in cases if case.get("together")]
    with Path(sys.argv[2]).open("w") as results:
        for case in [*together, *(case for case in cases if case not in together)]:
            started = time.monotonic()
            try:
                if together:
                    # Those that share the machine are all in Slurm's queue at once, and run as it has room for them.
                    for other in together:
                        other["number"] = begin(other)
                    together = []
                answer = command(case) if case["kind"] == "command" else job(case)
            except Exception as error:
                answer = {"trouble": repr(error), "logs": logs()}
            line = {"case": case["id"], "seconds": round(time.monotonic() - started, 1), **answer}
            results.write(json.dumps(line) + "\n")
            results.flush()


def command(case: dict[str, Any]) -> dict[str, Any]:
    """One command on the machine itself."""
    done = subprocess.run(
        case["argv"], capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **case["environment"]}
    )
    return {"exit": done.returncode, "out": done.stdout, "log": done.stderr}


def begin(case: dict[str, Any]) -> str:
    """The case's script as a new job, and its number."""
    folder = Path("/run/cases") / case["folder"]
    folder.mkdir(parents=True)
    script = folder / "job.sbatch"
    script.write_text(case["script"])
    arguments = ["--parsable", "--output", str(folder / "log"), "--chdir", str(folder), str(script)]
    return run(["sbatch", *arguments], case["environment"]).strip()


def job(case: dict[str, Any]) -> dict[str, Any]:
    """One batch script: how it ended, its log, and what the ranks wrote about their placement."""
    with_settings(case["slurm"])
    state = wait_for(case.get("number") or begin(case))
    runs, folder = Path(case["runs"]), Path("/run/cases") / case["folder"]
    log = folder / "log"
    return {
        "exit": state,
        "log": log.read_text(errors="replace") if log.exists() else "",
        "placement": {path.stem: json.loads(path.read_text()) for path in runs.glob("*/placement/*/*.json")},
        "records": [one for one in records(runs) if one["kind"] in {"placement", "verdict"}],
    }


def wait_for(number: str) -> str:
    """How a job ended: ``STATE exit:signal``, from Slurm's completion records.

    Slurm's commands take a good part of an emulated machine, so they are not asked again and again.
    """
    ends = time.monotonic() + LIMIT
    completions = SLURM / "completions"
    while time.monotonic() < ends:
        for line in completions.read_text().splitlines() if completions.exists() else []:
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if words["JobId"] == number:
                return f"{words['JobState']} {words['ExitCode']}"
        time.sleep(0.1)
    run(["scancel", number])
    return f"LIMIT of {LIMIT} s"


def records(runs: Path) -> list[dict[str, Any]]:
    """What the ranks reported."""
    return [json.loads(line) for file in runs.glob("*/spool/*/*.jsonl") for line in file.read_text().splitlines()]


def with_settings(settings: dict[str, str]) -> None:
    """The node's slurmd with these lines of slurm.conf in place of its own; started anew where it has others."""
    conf, given = SLURM / "slurm.conf", SLURM / "slurm.conf.given"
    if not given.exists():
        given.write_text(conf.read_text())
    lines = [line for line in given.read_text().splitlines() if line.partition("=")[0] not in settings]
    wanted = "\n".join([*lines, *(f"{name}={value}" for name, value in settings.items())]) + "\n"
    if wanted == conf.read_text():
        return
    conf.write_text(wanted)
    pid = int((SLURM / "slurmd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    run(["slurmd", "-N", "emulated"])
    while run(["sinfo", "--noheader", "--format=%T"]).strip() != "idle":
        time.sleep(0.3)


def run(argv: list[str], environment: dict[str, str] | None = None) -> str:
    """A command's standard output; what it says otherwise is in the error."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def logs() -> str:
    """The ends of the daemons' logs."""
    return "\n".join(file.read_text(errors="replace")[-3000:] for file in (SLURM / "logs").iterdir())


if __name__ == "__main__":
    main()
