"""A rank that hangs ends the job with its stacks and a reason; what only takes long does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockstep_slurm.job.rundir import Claim, read_exit
from lockstep_worker import sentences, stacks
from lockstep_worker.errors import HangError
from lockstep_worker.stacks import COMPUTING, EVALUATING, LOADING, SAVING, SILENT, UNTOLD, WAITING, main_thread, state
from lockstep_worker.watchdog import Standing, Watchdog, limit_of, slowest
from lockstep_worker.world import from_slurm
from support.ranks import ROOT, processes_of, task
from support.trainings import Launch, MakeRun, wait_for

HANGS = """
import os, threading, torch
import horovod.torch as hvd
import lockstep

def stuck():
    threading.Event().wait()

hvd.init()
for step in range(1, 1000):
    hvd.allreduce(torch.ones(1), name="gradient")
    lockstep.report(step=step, loss=1.0)
    if step == 4 and hvd.rank() == 1:
        stuck()
"""
EVALUATES = """
import os, time
from pathlib import Path
import lockstep

def evaluate():
    while not any("the job goes on" in log.read_text() for log in Path(os.environ["LOCKSTEP_RUN"], "logs").iterdir()):
        time.sleep(0.1)

for step in range(1, 4):
    lockstep.report(step=step, loss=1.0)
evaluate()
"""


THREADS = """
import sys, threading
from pathlib import Path
from lockstep_worker import stacks

def evaluate():
    print("evaluates", flush=True), sys.stdin.read()  # one line: it may be asked before print() has returned

file = stacks.listen(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
evaluate()
"""
STEPS = """
import sys
from pathlib import Path
from lockstep_worker import stacks
from lockstep_worker.beat import Beat

file = stacks.listen(Path(sys.argv[1]))
beat = Beat(Path(sys.argv[1]).with_suffix(".beat"))
beat.reported("step", 1)
print("step", flush=True)
for _ in sys.stdin:
    beat.reported("step", None)
    print("step", flush=True)
"""
Child = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def child() -> Iterator[Child]:
    """``child(code, *arguments)``: a Python that has printed its first line."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", code, *map(str, arguments)]
        children.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert children[-1].stdout is not None
        assert children[-1].stdout.readline()
        return children[-1]

    yield start
    for one in children:
        one.kill()
        one.communicate()


def test_the_rank_that_the_others_wait_for_is_named_with_its_stacks(
    make_run: MakeRun, launch: Launch, tmp_path: Path
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    run = make_run(script=str(script), hang_minutes=0.1)
    first, second = (launch(run, slurm=task(rank)) for rank in range(2))
    assert second.wait(240) == HangError.code, first.text + second.text
    first.wait(240)
    ended = read_exit(run, 1)
    assert ended is not None
    assert (ended.code, ended.rank, ended.node) == (HangError.code, 1, "node2")
    assert (ended.message or "").startswith("rank 1 on node2 has hung: no rank has finished a step for ")
    assert ", and the others wait for it in step 5, in stuck (hangs.py, line 7); " in (ended.message or "")
    assert (ended.message or "").endswith("; its stacks are in the log; nothing was saved")
    assert "in stuck" in second.text
    assert "lockstep: stacks of rank 1: thread " in second.text, "and its threads as the kernel sees them"
    assert processes_of(run) == []


def test_an_evaluation_may_take_as_long_as_it_likes(make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "evaluates.py"
    script.write_text(EVALUATES)
    run = make_run(script=str(script), hang_minutes=0.01)
    launched = launch(run, slurm=task(0, nodes=1))
    assert launched.wait(120) == 0, launched.text
    assert "rank 0 on node1 evaluates, in evaluate (evaluates.py, line " in launched.text


def test_only_what_is_known_to_evaluate_and_save_is_watched_by_itself() -> None:
    assert limit_of({"training": {"model": "resnet50"}}) == 15 * 60
    assert limit_of({"training": {"script": "/a.py"}}) == 0
    assert limit_of({"training": {"script": "/a.py", "hang_minutes": 30.0}}) == 1800
    assert limit_of({"training": {"model": "resnet50", "hang_minutes": 0}}) == 0


def standing(rank: int, state: str, steps: int = 7) -> Standing:
    return Standing(rank, f"h{rank}", 0, steps, state, "here", 900.0)


@pytest.mark.parametrize(
    ("ranks", "found"),
    [
        ([standing(0, WAITING), standing(1, COMPUTING), standing(2, WAITING)], 1),
        ([standing(0, COMPUTING, 8), standing(1, SILENT, 7), standing(2, WAITING, 6)], 1),
        ([standing(0, WAITING, 8), standing(1, WAITING, 7)], 1),
        ([standing(0, COMPUTING), standing(1, EVALUATING)], None),
        ([standing(0, WAITING), standing(1, LOADING)], None),
        ([standing(0, WAITING), standing(1, SAVING)], None),
        ([standing(0, COMPUTING), standing(1, UNTOLD)], None),
    ],
)
def test_the_slowest_rank_does_not_wait_and_nobody_is_ended_where_one_may_take_long(
    ranks: list[Standing], found: int | None
) -> None:
    slow, _ = slowest(ranks)
    assert (slow.rank if slow is not None else None) == found


@pytest.mark.parametrize(
    ("innermost", "found"),
    [
        (["/v/horovod/torch/mpi_ops.py, synchronize"], WAITING),
        (["/usr/lib/threading.py, wait", "/v/lockstep_worker/gradients/reducer.py, wait"], WAITING),
        (["/v/lockstep_worker/checkpoint/ranks.py, end_sum", "/v/lockstep_worker/checkpoint/state.py, _done"], WAITING),
        (["/usr/lib/threading.py, join", "/v/lockstep_worker/checkpoint/saver.py, wait"], SAVING),
        (["/v/torch/serialization.py, save", "/home/me/train.py, keep"], SAVING),
        (["/v/horovod/torch/mpi_ops.py, synchronize", "/v/lockstep_worker/training.py, evaluate"], EVALUATING),
        (["/usr/lib/selectors.py, select", "/v/torch/utils/data/dataloader.py, _get_data"], LOADING),
        (["/home/me/train.py, forward"], COMPUTING),
        ([], SILENT),
    ],
)
def test_where_a_rank_is_follows_from_its_stack(innermost: list[str], found: str) -> None:
    lines = [f'  File "{one.split(", ")[0]}", line 7 in {one.split(", ")[1]}' for one in innermost]
    text = "\n".join(
        [
            "Thread 0x00007f0000000001 (most recent call first):",
            '  File "/v/lockstep_worker/data/loading.py", line 1 in other',
            "",
            "Current thread 0x00007f0000000002 (most recent call first):",
            *lines,
        ]
    )
    assert state(main_thread(text)) == found


@pytest.mark.parametrize(("threads", "found"), [(80, EVALUATING), (120, UNTOLD)])
def test_the_main_thread_is_told_among_many_and_nobody_is_judged_where_python_leaves_it_out(
    child: Child, tmp_path: Path, threads: int, found: str
) -> None:
    file = tmp_path / "0.stacks"
    trains = child(THREADS, file, threads)
    frames = main_thread(stacks.ask(trains.pid, file))
    assert file.stat().st_size > 20_000
    assert state(frames) == found
    assert stacks.place(frames) == ("evaluate (<string>, line 7)" if frames else "")


def test_stacks_of_which_the_main_threads_beginning_is_cut_off_tell_nothing_of_it() -> None:
    assert state(main_thread('py", line 1 in evaluate\n  File "/home/me/train.py", line 7 in main')) == UNTOLD


def test_a_word_that_cannot_be_withdrawn_at_once_is_withdrawn_later(
    child: Child, make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(model="digits-mlp", data="digits")
    (run / "rendezvous").mkdir(exist_ok=True)
    trains = child(STEPS, tmp_path / "0.stacks")
    # Of two nodes the second: it leaves its word, and judges nobody.
    world = from_slurm(task(1))
    own = Claim(1, 1, 7, 0, "site", "node1", world.nodes, 2, "here", os.getpid(), 0.0)
    word = run / "rendezvous" / "1.still.node2.json"
    watchdog = Watchdog(run, own, world, tmp_path, limit=0.2)
    watchdog.start()
    try:
        wait_for(word.is_file, 30, "no word that the rank stands still")
        while not word.is_dir():  # which unlink() does not remove; the watchdog may just leave its word once more
            word.unlink(missing_ok=True)
            try:
                word.mkdir()
            except FileExistsError:
                continue
        assert trains.stdin is not None
        trains.stdin.write("a step\n")
        trains.stdin.flush()
        said: list[str] = []

        def complains() -> bool:
            said.append(capsys.readouterr().err)
            return "ranks go on, and the word that they stand still is not removed yet: " in "".join(said)

        wait_for(complains, 30, "it does not say that it cannot take back its word")
        word.rmdir()
        word.write_text("{}")
        wait_for(lambda: not word.exists(), 30, "the word is still there")
    finally:
        watchdog.stop()
    assert str(word) in "".join(said)


def test_the_threads_of_a_process_are_told_by_name_and_by_what_they_wait_for() -> None:
    assert any(
        line.startswith(f"thread {os.getpid()} ") and ": state R" in line for line in stacks.threads(os.getpid())
    )
    assert not stacks.is_stopped(os.getpid())


def test_the_documents_sentences_are_the_codes() -> None:
    text = (ROOT / "docs" / "what-went-wrong.md").read_text()
    hung = sentences.hung(
        "rank 3 on h2", step=1201, seconds=900, where="load (train.py, line 33)", others_wait=True, saved=1150
    )
    goes_on = sentences.goes_on("rank 3 on h2", LOADING, "load (train.py, line 33)", 900)
    untold = sentences.goes_on("rank 3 on h2", UNTOLD, "", 900)
    assert [one for one in (hung, goes_on, untold) if f"`{one}`" not in text] == []
