"""Real ranks train on folders of the user: photographs, staged and loaded beside the training; bad ones end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep_slurm.job.file import read
from lockstep_worker.checkpoint.folder import names
from support.pictures import folder_of_pictures, truncate
from support.ranks import ROOT, Launched, processes_of

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]
SMALL: dict[str, Any] = {
    "model": "small:build",
    "model_path": str(ROOT / "examples" / "photographs"),
    "data": "images",
    "image_size": 32,
    "learning_rate": 0.02,
    "batch_size": 4,
    "seed": 1,
}


def digests(launched: Launched) -> set[str]:
    return {record["values"]["parameters_sha256"] for record in launched.records("end")}


def eventually(condition: Callable[[], Any], what: str) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def curve(launched: Launched) -> list[float]:
    return [record["values"]["loss"] for record in launched.records("step") + launched.records("evaluation")]


def test_the_photographs_example_trains_two_ranks_on_a_staged_copy(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    patches, disk = tmp_path / "patches", tmp_path / "disk"
    disk.mkdir()
    cut = ROOT / "examples" / "photographs" / "cut.py"
    done = subprocess.run([sys.executable, cut, patches], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("576 patches to train on and 160 held out"), done.stderr
    settings = [f"training.data_path={patches}", f"training.stage={disk}"]
    training = read(ROOT / "examples" / "photographs" / "photographs.toml", settings).training
    launched = launch(make_run(**training.model_dump(exclude_none=True)), 2)
    assert launched.wait(240) == 0, launched.text
    assert len(digests(launched)) == 1
    last = launched.records("evaluation")[-1]["values"]
    assert last["accuracy"] >= 0.9
    assert last["samples"] == 160
    (told,) = launched.records("data")
    assert (told["rank"], told["values"]["train"], told["values"]["classes"]) == (0, 576, 2)
    assert told["values"]["staged"].startswith(str(disk))
    staged = launched.records("staging")[-1]["values"]
    assert staged["copied_bytes"] == staged["total_bytes"] > 0
    assert staged["files"] == 736
    assert list(disk.iterdir()) == [], "its copy is gone"
    assert processes_of(launched.run) == []


def test_loaders_change_nothing_but_who_loads_and_a_broken_picture_is_counted(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.fail("a loader CPU beside a compute CPU takes two")
    folder = folder_of_pictures(tmp_path / "pictures", train=14, held_out=5)
    truncate(folder / "train" / "cat" / "003.jpg")
    truncate(folder / "validation" / "dog" / "003.jpg")
    training = {**SMALL, "data_path": str(folder), "broken_images": "skip", "epochs": 2}
    one_computes = {"communication_cpus": 1, "policy": "last"}
    # A rank alone connects to nobody, whatever would carry the gradients of several.
    own = launch(make_run({"placement": one_computes, "communication": {"transport": "tcp"}}, **training), 1)
    assert own.wait() == 0, own.text
    beside = launch(make_run({"placement": {"communication_cpus": 0, "loader_cpus": 1}}, **training), 1)
    assert beside.wait() == 0, beside.text
    starts = [one.records("start")[0]["values"]["compute_cpus"] for one in (own, beside)]
    assert [len(cpus) for cpus in starts] == [1, 1]
    assert curve(own) == curve(beside)
    assert digests(own) == digests(beside)
    for one in (own, beside):
        assert one.records("end")[0]["values"]["broken"] == 2
        assert [record["values"]["samples"] for record in one.records("evaluation")] == [9, 9]
        assert one.text.count("lockstep: skipped ") == 2
    assert {record["values"]["result"] for record in beside.records("verdict")} == {"as planned"}
    assert processes_of(beside.run) == []


def test_a_picture_that_is_broken_ends_the_training_of_all_ranks_by_its_name(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", train=8)
    truncate(folder / "train" / "dog" / "005.jpg")
    launched = launch(make_run(**SMALL, data_path=str(folder)), 2)
    assert launched.wait() == 66, launched.text
    assert "dog/005.jpg: cannot be decoded as a JPEG" in launched.text
    assert processes_of(launched.run) == []


def test_a_killed_rank_leaves_no_loader_and_more_ranks_go_on_behind_the_last_sample(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    folder = folder_of_pictures(tmp_path / "pictures", train=8)
    sections = {"placement": {"communication_cpus": 0, "loader_cpus": 1}, "checkpoint": {"every_steps": 3}}
    run = make_run(sections, **SMALL, data_path=str(folder), epochs=100_000)
    first = launch(run, 1, None, "--local-id", "here")
    eventually(lambda: names(run / "checkpoints") and first.records("start"), "no checkpoint")
    assert len(processes_of(run)) > 2
    os.kill(first.records("start")[0]["values"]["pid"], signal.SIGKILL)
    assert first.wait() == 128 + signal.SIGKILL, first.text
    eventually(lambda: processes_of(run) == [], "something is left")

    steps = names(run / "checkpoints")[0].step
    epoch, done = divmod(4 * steps, 16)
    second = launch(run, 2, None, "--local-id", "here", "--restart-count", "1")

    def epochs_of_rank_1() -> list[int]:
        records = second.records("step", 2)
        return [record["values"]["epoch"] for record in records if record["rank"] == 1]

    eventually(lambda: epoch + 3 in epochs_of_rank_1(), second.text)
    second.process.terminate()
    second.wait()
    assert epochs_of_rank_1().count(epoch + 1) == (16 - done) // 8, "on 2 ranks, behind what 1 rank had done"
    assert epochs_of_rank_1().count(epoch + 2) == 2
    assert min(record["step"] for record in second.records("step", 2)) == steps + 1
    eventually(lambda: processes_of(run) == [], "something is left")


def test_data_that_are_not_there_are_told_once_before_the_training(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    launched = launch(make_run(**SMALL, data_path=str(tmp_path / "nowhere")), 2)
    assert launched.wait() == 66, launched.text
    assert launched.text.count("nowhere/train: cannot be read: No such file or directory") == 1
    assert launched.records("step") == []


def test_a_gpt_learns_a_file_of_tokens_in_bfloat16_and_in_parts(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    for name, count in (("train.bin", 4001), ("validation.bin", 401)):
        (np.arange(count) * 7 % 16).astype(np.uint16).tofile(tmp_path / name)
    sizes = {"vocabulary": 16, "context": 10, "layers": 1, "heads": 2, "width": 16}
    launched = launch(
        make_run(model="gpt", data="tokens", data_path=str(tmp_path), gpt=sizes, optimizer="adamw", learning_rate=0.02,
                 batch_size=16, accumulate=4, precision="bf16", schedule="cosine", epochs=2),
        2,
    )  # fmt: skip
    assert launched.wait() == 0, launched.text
    (_, last) = launched.records("evaluation")
    assert last["values"]["accuracy"] > 0.9
    assert last["values"]["samples"] == 40
    assert len(digests(launched)) == 1
