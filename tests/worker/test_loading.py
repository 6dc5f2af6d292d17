"""Loader processes: the same batches bit for bit, on their own CPUs, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lockstep_worker import data
from lockstep_worker.data.images import Images
from lockstep_worker.data.loading import AHEAD, Feed, Loaders, Request
from lockstep_worker.errors import DataError, LoaderError
from lockstep_worker.recipe import GPTSizes, Recipe
from support.pictures import folder_of_pictures, truncate

CPUS = sorted(os.sched_getaffinity(0))
REQUESTS = [
    *[Request(torch.randperm(12)[: 5 + step % 2], epoch=step) for step in range(7)],
    Request(torch.tensor([4, 0, 3]), held_out=True),
    Request(torch.tensor([1])),
]


def all_of(samples: data.DataSet, loaders: int, requests: list[Request]) -> list[tuple[Tensor, Tensor]]:
    with Feed(samples, (CPUS * 3)[:loaders], rows=8) as feed:
        return [(inputs.clone(), targets.clone()) for inputs, targets in feed.batches(requests)]


def eventually(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(folder_of_pictures(tmp_path / "pictures"), size=32, seed=5)


@pytest.mark.parametrize("loaders", [1, 3])
def test_batches_are_bit_for_bit_what_the_rank_itself_would_load(images: Images, loaders: int) -> None:
    for own, loaded in zip(all_of(images, 0, REQUESTS), all_of(images, loaders, REQUESTS), strict=True):
        assert torch.equal(own[0], loaded[0])
        assert torch.equal(own[1], loaded[1])


@pytest.mark.parametrize("name", ["digits", "synthetic-imagenet", "synthetic-tokens"])
def test_every_kind_of_data_can_be_loaded_so(name: str) -> None:
    recipe = Recipe("any", name, batch_size=4, image_size=32, gpt=GPTSizes(vocabulary=50, context=9))
    samples = data.load(recipe, 1)
    for own, loaded in zip(all_of(samples, 0, REQUESTS), all_of(samples, 2, REQUESTS), strict=True):
        assert own[0].dtype == loaded[0].dtype
        assert torch.equal(own[0], loaded[0])
        assert torch.equal(own[1], loaded[1])


def test_loaders_sit_on_their_cpus_have_no_connection_of_the_ranks_and_end_with_it(images: Images) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loaders = Loaders(images, CPUS[-1:], rows=8)
        (process,) = loaders._processes
        assert len(list(loaders.batches(REQUESTS))) == len(REQUESTS)
        assert os.sched_getaffinity(process.pid) == set(CPUS[-1:])
        theirs.close()
        assert ours.recv(1) == b"", "the loader holds the other end"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(process.pid, number)  # as Slurm tells every process of a step
    assert len(list(loaders.batches(REQUESTS))) == len(REQUESTS)
    loaders.close()
    assert process.exitcode == 0
    loaders.close()


def test_whoever_stops_in_the_middle_gets_the_right_batches_the_next_time(images: Images) -> None:
    with Feed(images, CPUS[:1] * 2, rows=8) as feed:
        begun = feed.batches(REQUESTS)
        next(begun)
        del begun
        (only,) = feed.batches([REQUESTS[1]])
        assert torch.equal(only[0], REQUESTS[1].of(images)[0])


def test_batches_are_loaded_ahead_and_no_further_than_there_is_memory(images: Images) -> None:
    asked: list[int] = []

    def requests() -> Iterator[Request]:
        for step in range(20):
            asked.append(step)
            yield Request(torch.tensor([step % 12]))

    with Feed(images, CPUS[:1], rows=1) as feed:
        for step, _ in enumerate(feed.batches(requests())):
            assert len(asked) == min(20, step + AHEAD + 1)


def test_what_cannot_be_read_is_told_where_its_turn_comes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of_pictures(tmp_path)
    truncate(folder / "train" / "dog" / "000.jpg")
    truncate(folder / "validation" / "dog" / "001.jpg")
    requests = [Request(torch.tensor([0, 1])), Request(torch.tensor([2, 6, 3, 4])), Request(torch.tensor([1]))]
    with Feed(Images(folder, size=32, seed=5), CPUS[:1] * 2, rows=8) as feed:
        batches = feed.batches(requests)
        assert len(next(batches)[1]) == 2
        with pytest.raises(DataError, match=r"dog/000\.jpg: cannot be decoded"):
            next(batches)
    skipping = Images(folder, size=32, seed=5, skip_broken=True)
    requests.append(Request(torch.arange(6), held_out=True))
    loaded = all_of(skipping, 2, requests)
    assert [len(targets) for _, targets in loaded] == [2, 4, 1, 5]
    assert loaded[1][1].tolist() == [0, 1, 0, 0]
    assert loaded[3][1].tolist() == [0, 0, 0, 1, 1]
    assert sorted(Path(path).parts[-3] for path in skipping.broken.found) == ["train", "validation"]
    assert capfd.readouterr().err.count("lockstep: skipped ") == 2
    own = all_of(Images(folder, size=32, seed=5, skip_broken=True), 0, requests)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(own, loaded, strict=True))


def test_a_loader_that_is_killed_is_told_and_the_others_end(images: Images) -> None:
    loaders = Loaders(images, CPUS[:1] * 2, rows=8)
    pids = [process.pid for process in loaders._processes]
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(LoaderError, match=rf"loader process {pids[1]} has ended with signal SIGKILL; if the node ran"):
        list(loaders.batches(REQUESTS))
    loaders.close()
    assert not any(map(is_there, pids))


def test_a_fault_in_the_data_sets_own_code_comes_with_its_traceback() -> None:
    samples = data.load(Recipe("any", "digits"), 1)
    with pytest.raises(LoaderError, match=r"(?s)in train_batch.*IndexError"), Feed(samples, CPUS[:1], rows=8) as feed:
        list(feed.batches([Request(torch.tensor([5000]))]))


ENDLESS = """
import sys, time, torch
from pathlib import Path
from lockstep_worker.data.images import Images
from lockstep_worker.data.loading import Loaders, Request
loaders = Loaders(Images(Path(sys.argv[1]), size=32, seed=5), [int(sys.argv[2])] * 2, rows=8)
print(*[process.pid for process in loaders._processes], flush=True)
list(loaders.batches(Request(torch.arange(8)) for _ in iter(int, 1)))
"""


def test_no_loader_outlives_a_rank_that_is_killed(tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path)
    command = [sys.executable, "-c", ENDLESS, str(folder), str(CPUS[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        pids = [int(pid) for pid in rank.stdout.readline().split()]
        assert len(pids) == 2
        rank.kill()
    eventually(lambda: not any(map(is_there, pids)), "a loader is left")
