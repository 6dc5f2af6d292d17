"""What a training prints: unchanged in the log, searched beside it, and never in the training's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep_worker.patterns import LONGEST_LINE, Lines
from support.lockstep import wait_for
from support.ranks import Left, base_environment, processes_of, task

MakeRun = Callable[..., Path]
THROUGHPUT = {"throughput": r"([0-9.]+) img/sec"}
CATASTROPHE = r"^(?:a+)+([0-9])$"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a script and returns its path."""

    def write(text: str) -> str:
        file = tmp_path / "script.py"
        file.write_text(text)
        return str(file)

    return write


def steps(left: Left, rank: int = 0) -> list[dict[str, Any]]:
    return [record["values"] for record in left.records("step") if record["rank"] == rank]


def bytes_printed(run: Path, *, merged: bool = False) -> tuple[int, bytes, bytes]:
    """Runs one rank with pipes of the test's own: exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), "--local-ranks", "1", "--local-rank", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merged else subprocess.PIPE, timeout=120, check=False,
        env=base_environment(),
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr or b""


class TestLines:
    def test_newlines_and_carriage_returns_end_a_line_wherever_the_chunks_are_cut(self) -> None:
        text = b"one\r\ntwo\rthree\n\nfour"
        for cut in range(len(text)):
            lines = Lines()
            found = [*lines.feed(text[:cut]), *lines.feed(text[cut:]), *lines.rest()]
            assert found == [b"one", b"two", b"three", b"four"]

    def test_a_line_that_does_not_end_takes_no_more_memory_than_one(self) -> None:
        lines = Lines()
        for _ in range(1000):
            assert list(lines.feed(b"x" * 1000)) == []
        assert list(lines.feed(b"\nnext\n")) == [b"x" * LONGEST_LINE, b"next"]

    def test_what_surrounds_a_loss_is_no_line(self) -> None:
        lines = Lines()
        assert list(lines.feed(b"whole\nloss=0.")) == [b"whole"]
        lines.lose(within=True)
        assert list(lines.feed(b"5 of the next\nwhole again\nloss=0.")) == [b"whole again"]
        lines.lose(within=False)
        assert list(lines.feed(b"whole\n")) == [b"whole"]


def test_the_log_has_every_byte_and_the_records_every_figure(make_run: MakeRun, script: Any) -> None:
    text = (
        "import os, sys\n"
        "os.write(1, bytes(range(256)) * 300)\n"
        "os.write(1, b'\\nIter #0: 12.5 img/sec per CPU\\r\\nIter #1: 13.5 img/sec per CPU\\r')\n"
        "os.write(1, b'Iter #2: 14.5 img/sec without an end')\n"
        "os.write(2, b'\\rloss=\\xff0.5\\r')\n"
    )
    run = make_run(script=script(text), patterns={**THROUGHPUT, "loss": r"loss=\D?([0-9.]+)"})
    code, out, err = bytes_printed(run)
    assert code == 0, err
    end = b"\nIter #0: 12.5 img/sec per CPU\r\nIter #1: 13.5 img/sec per CPU\rIter #2: 14.5 img/sec without an end"
    assert out == bytes(range(256)) * 300 + end
    assert err == b"\rloss=\xff0.5\r"
    found = Left(run)
    assert [one["samples_per_s"] for one in steps(found) if "samples_per_s" in one] == [12.5, 13.5, 14.5]
    assert [one["loss"] for one in steps(found) if "loss" in one] == [0.5]
    assert [record["step"] for record in found.records("step")] == list(range(1, len(steps(found)) + 1))
    assert "seconds" not in steps(found)[-1], "a line that is found is no step that was timed"


def test_the_order_of_both_outputs_stays_where_they_are_one_file(make_run: MakeRun, script: Any) -> None:
    text = "import os\nfor i in range(2000):\n    os.write(1 + i % 2, b'%d\\n' % i)\n"
    code, out, _ = bytes_printed(make_run(script=script(text), patterns=THROUGHPUT), merged=True)
    assert code == 0
    assert out == b"".join(b"%d\n" % i for i in range(2000))


def test_figures_of_one_line_and_of_lines_beside_each_other_are_one_step(make_run: MakeRun, script: Any) -> None:
    text = (
        "for i in range(1, 4):\n"
        "    print(f'{i}00 img/sec loss={i}')\n"
        "    print(f'norm={i}')\n"
        "print('held-out: 0.75 right')\n"
        "print('400 img/sec', flush=True)\n"
    )
    patterns = {**THROUGHPUT, "loss": r"loss=(\S+)", "norm": r"norm=(\S+)", "accuracy": r"out: ([0-9.]+)"}
    run = make_run(script=script(text), patterns=patterns)
    assert bytes_printed(run)[0] == 0
    found = Left(run)
    whole = [{"samples_per_s": 100.0 * i, "loss": float(i), "norm": float(i)} for i in range(1, 4)]
    assert steps(found) == [*whole, {"samples_per_s": 400.0}]
    (evaluation,) = found.records("evaluation")
    assert (evaluation["step"], evaluation["values"]) == (3, {"accuracy": 0.75})


def test_without_patterns_the_training_writes_to_the_log_itself(make_run: MakeRun, script: Any) -> None:
    text = "import os\nprint('same' if os.fstat(1).st_ino == int(os.environ['LOG']) else 'other')\n"
    for patterns, says in (({}, "same"), (THROUGHPUT, "other")):
        run = make_run(script=script(text), patterns=patterns)
        log = run / "logs" / "own.log"
        with log.open("wb") as out:
            subprocess.run(
                [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), "--local-ranks", "1",
                 "--local-rank", "0"],
                stdout=out, stderr=out, timeout=120, check=True,
                env=base_environment() | {"LOG": str(os.fstat(out.fileno()).st_ino)},
            )  # fmt: skip
        assert log.read_text() == f"{says}\n"


def test_a_catastrophic_pattern_costs_its_figures_and_no_time_of_the_training(make_run: MakeRun, script: Any) -> None:
    # Each line takes the pattern minutes; the training prints more of them than fit into any pipe, by the clock.
    text = (
        "import time\n"
        "began = time.monotonic()\n"
        "for i in range(20_000):\n"
        "    print('a' * 60)\n"
        "print('1.5 img/sec')\n"
        "print('printing took', time.monotonic() - began)\n"
    )
    run = make_run(script=script(text), patterns={"bad": CATASTROPHE, **THROUGHPUT})
    began = time.monotonic()
    code, out, err = bytes_printed(run)
    assert code == 0
    assert time.monotonic() - began < 60
    assert out.count(b"a" * 60 + b"\n") == 20_000
    assert float(out.split()[-1]) < 20, "the training waited for the search"
    assert b"training.patterns.bad took over 0.1 s on each of 3 lines" in err
    assert b"training.patterns.throughput" not in err


def test_a_search_that_falls_behind_counts_what_it_did_not_see(make_run: MakeRun, script: Any) -> None:
    text = "import sys\nfor i in range(300_000):\n    sys.stdout.write('%d img/sec\\n' % i)\nsys.stdout.flush()\n"
    # Stopped before the flood, so that it is behind for certain.
    stop = (
        "import os, signal, time\n"
        "from pathlib import Path\n"
        "def searching():\n"
        "    for folder in Path('/proc').glob('[0-9]*'):\n"
        "        try:\n"
        "            words = (folder / 'cmdline').read_bytes().split(b'\\0')\n"
        "            parent = int((folder / 'stat').read_text().rpartition(')')[2].split()[1])\n"
        "        except OSError:\n"
        "            continue\n"
        "        if b'lockstep_worker.patterns' in words and parent == os.getppid():\n"
        "            return int(folder.name)\n"
        "while (found := searching()) is None:\n"
        "    time.sleep(0.02)\n"
        "os.kill(found, signal.SIGSTOP)\n"
    )
    go_on = (
        "os.kill(found, signal.SIGCONT)\n"
        "spools = Path(os.environ['LOCKSTEP_RUN']) / 'spool'\n"
        "while not any(b'\"samples_per_s\":0.5' in file.read_bytes() for file in spools.glob('*/*')):\n"
        "    print('0.5 img/sec')\n"
        "    time.sleep(0.05)\n"
    )
    run = make_run(script=script(stop + text + go_on), patterns=THROUGHPUT)
    code, out, _ = bytes_printed(run)
    assert code == 0
    lines = out.count(b"\n")
    assert lines > 300_000
    found = Left(run)
    lost = sum(record["values"]["dropped"] for record in found.records("gap"))
    assert lost > 0
    # A line that is cut by a loss is neither searched nor among those that were lost whole.
    assert lines - 10 <= len(steps(found)) + lost <= lines + 10
    assert steps(found)[-1] == {"samples_per_s": 0.5}


def test_a_figure_that_is_no_number_is_said_once(make_run: MakeRun, script: Any) -> None:
    run = make_run(
        script=script("for i in range(3): print('speed: fast', flush=True)\n"), patterns={"x": r"speed: (\w+)"}
    )
    code, _, err = bytes_printed(run)
    assert code == 0
    assert err.count(b"training.patterns.x found 'fast', which is no number") == 1


def test_a_log_that_nobody_reads_ends_the_training_as_it_would_without_us(make_run: MakeRun, script: Any) -> None:
    run = make_run(script=script("while True: print('x' * 1000)\n"), patterns=THROUGHPUT)
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), "--local-ranks", "1", "--local-rank", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=base_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(100_000)
    process.stdout.close()
    assert process.wait(60) != 0
    assert processes_of(run) == []


def test_a_wrapper_that_is_killed_leaves_nobody_writing_into_its_pipe(make_run: MakeRun, script: Any) -> None:
    text = "import subprocess, sys\nsubprocess.Popen(['yes', sys.argv[0]])\nwhile True: print('x' * 1000)\n"
    run = make_run(script=script(text), patterns=THROUGHPUT)
    process = subprocess.Popen(
        [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run), "--local-ranks", "1", "--local-rank", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=base_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(100_000)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait(20)
    wait_for("all processes of the run to end", lambda: processes_of(run) == [], 60)


def test_under_a_launcher_without_labels_each_whole_line_says_its_rank(make_run: MakeRun, script: Any) -> None:
    text = "import os\nfor piece in (b'one', b' line\\n', b'two\\nthree', b'\\nno end'):\n    os.write(1, piece)\n"
    text += "os.write(2, b'y' * 100_000)\n"
    run = make_run({"resources": {"nodes": 1}}, script=script(text))
    variables = task(0, nodes=1) | {
        "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "lockstep_worker.launch", "--run", str(run)],
        capture_output=True, timeout=120, check=False, env=base_environment() | variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"0: one line\n0: two\n0: three\n0: no end\n"
    assert b"".join(line.removeprefix(b"0: ") for line in done.stderr.splitlines()) == b"y" * 100_000
