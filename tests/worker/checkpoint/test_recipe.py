"""A built-in recipe that is saved: killed and started again, it comes to the same losses, bit for bit.

Over another transport too, whose plan it measures anew.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

from lockstep_worker.checkpoint.folder import names
from support.lockstep import wait_for
from support.ranks import Launched

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]
MLP = {"model": "digits-mlp", "data": "digits", "epochs": 12, "batch_size": 32, "seed": 3, "warmup_steps": 5}


def test_a_recipe_goes_on_in_the_middle_of_an_epoch(make_run: MakeRun, launch: Launch) -> None:
    whole = launch(make_run(**MLP), 2)
    assert whole.wait() == 0, whole.text
    run = make_run({"checkpoint": {"every_steps": 5}, "communication": {"transport": "tcp"}}, **MLP)
    first = launch(run, 2, None, "--local-id", "here")
    wait_for("a checkpoint", lambda: names(run / "checkpoints") or None)
    pid = wait_for(
        "rank 1", lambda: [one["values"]["pid"] for one in first.records("start") if one["rank"] == 1] or None
    )[0]
    os.kill(pid, signal.SIGKILL)
    assert first.wait() == 128 + signal.SIGKILL, first.text
    resumed_at = names(run / "checkpoints")[0].step
    spec = json.loads((run / "spec.json").read_text())
    spec["communication"]["transport"] = "horovod"
    (run / "spec.json").write_text(json.dumps(spec))
    second = launch(run, 2, None, "--local-id", "here", "--restart-count", "1")
    assert second.wait() == 0, second.text
    said = "the tuning was made with 2 ranks over tcp, and these are 2 over horovod; it is measured anew"
    assert second.text.count(said) == 1
    assert {one["values"]["transport"] for one in first.records("tuning")} == {"tcp"}
    assert {one["values"]["transport"] for one in second.records("tuning", 2)} == {"horovod"}

    def losses(launched: Launched, *attempts: int) -> dict[tuple[int, int], float]:
        records = [one for attempt in attempts for one in launched.records("step", attempt)]
        return {(one["rank"], one["step"]): one["values"]["loss"] for one in records}

    assert min(step for _, step in losses(second, 2)) == resumed_at + 1 > 1
    (resume,) = second.records("resume", 2)
    assert (resume["rank"], resume["step"], resume["values"]) == (0, resumed_at, {"saved_by": 1, "ranks": 2})
    assert first.records("resume") == []
    assert losses(second, 1, 2) == losses(whole, 1)
    digests = [
        {one["values"]["parameters_sha256"] for one in launched.records("end", attempt)}
        for launched, attempt in ((whole, 1), (second, 2))
    ]
    assert digests[0] == digests[1]
    assert [one["values"]["accuracy"] for one in second.records("evaluation", 2)][-1] == (
        whole.records("evaluation")[-1]["values"]["accuracy"]
    )


FAILS = """
from threading import Event
from torch import nn
from lockstep_worker.checkpoint import folder

failing, whole = Event(), folder.save

def late(*arguments):
    failing.wait(100)  # a disk that has it only once the training has failed
    return whole(*arguments)

class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.steps = nn.Linear(64, 10), 0

    def forward(self, images):
        self.steps += 1
        if self.steps == 6:
            failing.set()
            raise ArithmeticError("no more of it")
        return self.layer(images.flatten(1))

folder.save = late
"""


def test_what_was_being_saved_when_a_recipe_failed_is_still_saved(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILS)
    own = {"model": "failing:Fails", "model_path": str(tmp_path), "data": "digits", "batch_size": 8}
    run = make_run({"checkpoint": {"every_steps": 5}}, **own)
    launched = launch(run, 1)
    assert launched.wait() != 0
    assert "no more of it" in launched.text
    assert [name.step for name in names(run / "checkpoints")] == [5]
