"""Compute nodes from which there is no way to the service: curves live through the files, and no record is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx

from support.lockstep import Lockstep, client, spool, wait_for
from support.namespaces import cabled

SCRIPT = """
import os, sys, time
import lockstep
gate = sys.argv[1]
step = 0
while not os.path.exists(gate) or step < 50:
    step += 1
    lockstep.report(step=step, loss=1 / step)
    time.sleep(0.02)
"""


def steps(api: httpx.Client, job_id: str) -> list[int] | None:
    """The steps of the loss's curve."""
    found = api.get(f"/jobs/{job_id}/metrics").raise_for_status().json()["series"]
    return next((one["step"] for one in found if one["name"] == "loss"), None)


def longer(curve: Callable[[], list[int] | None], than: list[int]) -> bool:
    return len(curve() or ()) > len(than)


def same(curve: Callable[[], list[int] | None], wanted: list[int]) -> bool:
    return curve() == wanted


def test_curves_are_live_through_the_files(tmp_path: Path) -> None:
    script, python = tmp_path / "train.py", tmp_path / "python"
    gates: list[Path] = []
    script.write_text(SCRIPT)
    ours = Lockstep(tmp_path / "home", None)
    ours.home.mkdir()
    with cabled() as (node, _):
        # The ranks run as on another machine: its own network, the same files.
        python.write_text(f'#!/bin/sh\nexec {" ".join(node.prefix)} {sys.executable} "$@"\n')
        python.chmod(0o755)
        ours.environment["LOCKSTEP_PYTHON"] = str(python)
        ours.start("local")
        try:
            with client(ours) as api:
                for transport in ("auto", "files"):
                    gate = tmp_path / transport
                    gates.append(gate)
                    spec = {
                        "name": transport,
                        "training": {"script": str(script), "arguments": [str(gate)]},
                        "report": {"transport": transport},
                    }
                    job_id = api.post("/jobs", json=spec).raise_for_status().json()["id"]

                    curve = partial(steps, api, job_id)
                    first = wait_for("a first piece of the curve", curve, 90)
                    wait_for("it to grow", partial(longer, curve, first))
                    assert ours.job(job_id)["phase"] == "running"
                    gate.touch()
                    ended = ours.until(job_id, {"ended well", "ended badly"})
                    assert (ended["phase"], ended["reason"]) == ("ended well", None)
                    told = [one["step"] for one in spool(Path(ended["run_dir"])) if one["kind"] == "step"]
                    wait_for("the last record", partial(same, curve, told))
                    said = "\n".join(file.read_text() for file in Path(ended["run_dir"]).glob("logs/*"))
                    # One tried in vain and says so, the other did not try, and had no token to try with.
                    assert (Path(ended["run_dir"]) / "report.json").exists() == (transport == "auto")
                    assert ("the service did not take all records" in said) == (transport == "auto")
        finally:
            for gate in gates:
                gate.touch()  # whatever happened, the training ends
            ours.kill()
