"""Real ranks, interrupted and started again: every loss and every bit as if nothing had happened."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import read_exit, stopped_file
from support.ranks import ROOT, Launched
from support.trainings import wait_for

SCRIPT = Path(__file__).with_name("saved.py")
STEPS = 24
MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]
Losses = dict[tuple[int, int], float]


def losses(launched: Launched, attempt: int) -> Losses:
    """By rank and step."""
    return {(one["rank"], one["step"]): one["values"]["loss"] for one in launched.records("step", attempt)}


def digests(launched: Launched, attempt: int) -> dict[int, str]:
    """Of all that a rank's model has at the end, by rank."""
    return {one["rank"]: one["values"]["parameters_sha256"] for one in launched.records("end", attempt)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Filled by the first test: the losses and digests of a run from start to end, on stock Horovod."""
    return {}


class TestTwoRanks:
    def train(
        self, run: Path, launch: Launch, *arguments: str, restart: int = 0, kind: str = "lockstep"
    ) -> tuple[int, Launched]:
        spec = (run / "spec.json").read_text()
        (run / "spec.json").write_text(spec.replace('"arguments":[]', f'"arguments":{self.words(kind, *arguments)}'))
        launched = launch(run, 2, None, "--local-id", "here", "--restart-count", str(restart))
        code = launched.wait()
        (run / "spec.json").write_text(spec)
        return code, launched

    @staticmethod
    def words(*words: str) -> str:
        return "[" + ",".join(f'"{word}"' for word in (words[0], str(STEPS), *words[1:])) + "]"

    @pytest.fixture
    def run(self, make_run: MakeRun) -> Path:
        return make_run({"checkpoint": {}}, script=str(SCRIPT))

    @pytest.fixture
    def reference(self, run: Path, make_run: MakeRun, launch: Launch, uninterrupted: dict[str, Any]) -> dict[str, Any]:
        if not uninterrupted:
            run = make_run({"checkpoint": {"keep": 9}}, script=str(SCRIPT))
            code, launched = self.train(run, launch, kind="horovod")
            assert code == 0, launched.text
            uninterrupted.update(losses=losses(launched, 1), digests=digests(launched, 1), run=run)
            assert len(uninterrupted["losses"]) == 2 * STEPS
        return uninterrupted

    def test_killed_then_told_that_its_time_is_over_it_comes_to_the_same_end(
        self, run: Path, launch: Launch, reference: dict[str, Any]
    ) -> None:
        code, launched = self.train(run, launch, "--die-at", "13", "1", "SIGKILL")
        assert code == 128 + 9, launched.text
        # Only rank 1 hears the signal; both stop behind the same step, and save it.
        code, launched = self.train(run, launch, "--tell-at", "16", "1", "SIGUSR1", restart=1)
        assert code == 85, launched.text
        ended = read_exit(run, 2)
        assert ended is not None
        assert (ended.code, ended.rank) == (85, 0)
        assert ended.message is not None
        stopped = max(step for _, step in losses(launched, 2))
        assert f"has saved step {stopped}" in ended.message
        assert stopped in {17, 18}, "the step in which it was told, or the one behind it"
        code, launched = self.train(run, launch, restart=2)
        assert code == 0, launched.text
        first, second, third = (losses(launched, attempt) for attempt in (1, 2, 3))
        assert {step for _, step in second} == set(range(11, stopped + 1)), "from the last step that was saved"
        assert {step for _, step in third} == set(range(stopped + 1, STEPS + 1))
        assert {**first, **second, **third} == reference["losses"]
        assert {place: first[place] for place in first.keys() & second.keys()}.items() <= second.items()
        assert digests(launched, 3) == reference["digests"]
        saved = [one["values"] for one in launched.records("checkpoint", 2)]
        assert all(one["bytes"] > 1000 and one["held_s"] > 0 and one["seconds"] > 0 for one in saved)
        assert [one["step"] for one in launched.records("checkpoint", 2)] == [15, stopped]
        assert sorted(file.name for file in (run / "checkpoints").iterdir()) == [
            "step-000000020-attempt-3.lockstep", "step-000000024-attempt-3.lockstep",
        ]  # fmt: skip

    def test_a_new_job_on_stock_horovod_goes_on_from_a_step_of_another_to_the_same_end(
        self, make_run: MakeRun, launch: Launch, reference: dict[str, Any]
    ) -> None:
        origin = {"resume_from": str(reference["run"]), "resume_step": 10}
        code, launched = self.train(make_run({"checkpoint": origin}, script=str(SCRIPT)), launch, kind="horovod")
        assert code == 0, launched.text
        assert (
            f"goes on from the checkpoint of step 10, saved by attempt 1 of job {reference['run'].name}"
            in launched.text
        )
        made = losses(launched, 1)
        assert {step for _, step in made} == set(range(11, STEPS + 1))
        assert made.items() <= reference["losses"].items()
        assert digests(launched, 1) == reference["digests"]

    def test_one_on_torch_alone_that_somebody_ends_has_saved_first(
        self, run: Path, launch: Launch, reference: dict[str, Any]
    ) -> None:
        code, launched = self.train(run, launch, "--tell-at", "12", "0", "SIGTERM", kind="ddp")
        assert code == 128 + 15, launched.text
        ended = read_exit(run, 1)
        assert ended is not None
        assert (ended.code, ended.signal) == (None, 15)
        stopped = max(step for _, step in losses(launched, 1))
        assert ended.message is not None
        assert f"up to step {stopped} is saved" in ended.message
        assert not list((run / "exit").glob(stopped_file(run, 0, 0).name.replace("0-0", "*")))
        code, launched = self.train(run, launch, restart=1, kind="ddp")
        assert code == 0, launched.text
        assert {**losses(launched, 1), **losses(launched, 2)} == reference["losses"]
        assert min(step for _, step in losses(launched, 2)) == stopped + 1
        assert digests(launched, 2) == reference["digests"]


def test_the_example_of_a_users_own_script_goes_on_as_if_it_had_never_been_told_to_stop(
    make_run: MakeRun, launch: Launch
) -> None:
    example = {"script": str(ROOT / "examples" / "custom" / "train.py"), "arguments": ["--epochs", "30"]}
    whole, told = (make_run({"checkpoint": {}}, **example) for _ in range(2))
    launched = launch(whole, 2)
    assert launched.wait() == 0, launched.text
    expected = losses(launched, 1)
    launched = launch(told, 2, None, "--local-id", "here", "--restart-count", "0")
    wait_for(lambda: launched.records("step"), 120, "its first step was not recorded")
    launched.process.send_signal(signal.SIGUSR1)
    assert launched.wait() == 85, launched.text
    first = losses(launched, 1)
    launched = launch(told, 2, None, "--local-id", "here", "--restart-count", "1")
    assert launched.wait() == 0, launched.text
    second = losses(launched, 2)
    assert first
    assert second
    assert not first.keys() & second.keys()
    assert first | second == expected
