"""The process that holds pyslurm: its deadline, its deaths, what it gets of this process, and its end with it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.desk import until
from clients.stand_in import StandIn, is_gone, pid_of
from lockstep_slurm.client import PySlurmClient
from lockstep_slurm.client.protocol import SlurmUnavailableError
from lockstep_slurm.client.pyslurm_process import PySlurmImportError, PySlurmProcess


class TestNoAnswer:
    def test_one_that_hangs_is_ended_at_the_deadline_and_replaced(self, stand_in: StandIn) -> None:
        process = stand_in.process(timeout=2)
        process.ask("ping")
        first = pid_of(process)
        stand_in.ping_does("import time; time.sleep(300)")
        start = time.monotonic()
        with pytest.raises(SlurmUnavailableError, match="no answer within 2 s to ping"):
            process.ask("ping")
        assert time.monotonic() - start < 30
        assert is_gone(first)
        stand_in.ping_does("")
        process.ask("ping")
        assert process.pid != first
        process.close()

    def test_waiting_for_another_threads_question_counts(self, stand_in: StandIn) -> None:
        process = stand_in.process(timeout=3)
        process.ask("ping")
        asked = stand_in.folder / "asked"
        stand_in.ping_does(f"import time; open({str(asked)!r}, 'w').close(); time.sleep(300)")
        failures: list[SlurmUnavailableError] = []

        def ask() -> None:
            with pytest.raises(SlurmUnavailableError) as caught:
                process.ask("ping")
            failures.append(caught.value)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        start = time.monotonic()
        threads[0].start()
        until(asked.exists, "the first question")
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(60)
        # One after another they would take three times as long, and each start of a process besides.
        assert time.monotonic() - start < 9
        assert len(failures) == 3
        process.close()

    def test_a_question_that_waited_has_its_own_time_for_the_answer(self, stand_in: StandIn) -> None:
        process = stand_in.process(timeout=6)
        process.ask("ping")
        first = process.pid
        stand_in.ping_does("import time; time.sleep(4)")
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(process.ask, ["ping", "ping"])) == [None, None]
        assert process.pid == first
        process.close()

    def test_one_that_was_killed_between_questions_is_replaced(self, process: PySlurmProcess) -> None:
        process.ask("ping")
        first = pid_of(process)
        os.kill(first, signal.SIGKILL)
        until(lambda: Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "its end")
        process.ask("ping")
        assert process.pid != first
        assert is_gone(first)

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("import os; os.write(2, b'fatal: cannot find the moon\\n'); os._exit(1)", "ended with 1: fatal: .* moon"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
            ("raise RuntimeError('never foreseen')", "ended with 1: .*never foreseen"),
        ],
    )
    def test_one_that_dies_meanwhile_is_quoted_and_replaced(
        self, stand_in: StandIn, process: PySlurmProcess, code: str, words: str
    ) -> None:
        stand_in.ping_does(code)
        with pytest.raises(SlurmUnavailableError, match=words):
            process.ask("ping")
        stand_in.ping_does("")
        process.ask("ping")

    @pytest.mark.parametrize(
        "line",
        ["nonsense", "[]", "7", '{"id": 0, "answer": 1}', '{"id": 1}', '{"id": 1, "answer": 1, "error": ""}', "\\xff"],
    )
    def test_an_answer_that_cannot_be_read_is_none_and_nothing_of_it_is_left(
        self, stand_in: StandIn, process: PySlurmProcess, line: str
    ) -> None:
        stand_in.ping_does(f"import os, sys; os.write(int(sys.argv[1]), b'{line}\\n')")
        with pytest.raises(SlurmUnavailableError, match="could not be read"):
            process.ask("ping")
        stand_in.ping_does("")
        assert process.ask("version") == "25.11.2"

    def test_a_pyslurm_that_does_not_load_is_told_in_pythons_words(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        (stand_in.folder / "pyslurm" / "__init__.py").write_text("raise ImportError('libslurm.so.99: not there')")
        with pytest.raises(PySlurmImportError, match=r"libslurm\.so\.99"):
            process.ask("version")

    def test_a_missing_slurm_conf_is_unavailable_at_once(self, stand_in: StandIn, process: PySlurmProcess) -> None:
        stand_in.conf.unlink()
        with pytest.raises(SlurmUnavailableError, match=r"no slurm\.conf at"):
            process.ask("ping")
        assert process.pid is None


class TestWhatItGets:
    def test_it_gets_the_allow_list_and_nothing_else(
        self, stand_in: StandIn, process: PySlurmProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("SERVICE_SECRET", "SLURM_CLUSTERS", "SBATCH_PARTITION", "PYTHONPATH", "LD_PRELOAD_IT", "PMI_RANK"):
            monkeypatch.setenv(name, "never-to-be-seen")
        process.ask("ping")
        entries = Path(f"/proc/{pid_of(process)}/environ").read_text().split("\0")
        names = {entry.partition("=")[0] for entry in entries if entry}
        assert names <= {"PATH", "HOME", "USER", "LANG", "SLURM_CONF", "PYSLURM_DISABLE_AUTO_INIT"}
        assert f"SLURM_CONF={stand_in.conf}" in entries
        assert "PYSLURM_DISABLE_AUTO_INIT=1" in entries

    def test_it_has_no_file_of_this_process_but_its_channel(self, process: PySlurmProcess, tmp_path: Path) -> None:
        with (tmp_path / "secret").open("w"):
            process.ask("ping")
            files = [str(file.readlink()) for file in Path(f"/proc/{pid_of(process)}/fd").iterdir()]
        assert not any(file.endswith("secret") for file in files)
        assert sum(file.startswith("socket:") for file in files) == 1

    def test_nothing_beside_pyslurm_takes_the_place_of_a_standard_module(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        (stand_in.folder / "json.py").write_text("raise SystemExit('not the real json')")
        (stand_in.folder / "resource.py").write_text("raise SystemExit('not the real resource')")
        assert process.ask("version") == "25.11.2"

    def test_a_reason_that_pyslurm_cannot_decode_costs_no_node(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        with (stand_in.folder / "pyslurm" / "__init__.py").open("a") as module:
            module.write(
                "class Node:\n"
                "    name, state, effective_cpus, allocated_cpus, sockets = 'node1', 'IDLE+DRAIN', 4, 0, 1\n"
                "    cores_per_socket, threads_per_core, real_memory, partitions = 4, 1, 900, ['main']\n"
                "    reason = property(lambda self: b'd\\xe9f'.decode())\n"
                "class Nodes:\n"
                "    load = staticmethod(lambda: {'node1': Node()})\n"
            )
        (node,) = process.ask("nodes")
        assert (node["name"], node["reason"]) == ("node1", r"d\xe9f")

    def test_this_process_never_imports_pyslurm(self, process: PySlurmProcess) -> None:
        process.ask("ping")
        assert "pyslurm" not in sys.modules


class TestItsEnd:
    def test_it_ends_with_the_client(self, stand_in: StandIn) -> None:
        client = PySlurmClient(stand_in.conf, folder=stand_in.folder)
        client.ping()
        pid = pid_of(client.process)
        del client
        gc.collect()
        assert is_gone(pid)

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_it_ends_with_the_process_that_asks(self, stand_in: StandIn, how: signal.Signals) -> None:
        code = (
            "import sys, time; from pathlib import Path; from lockstep_slurm.client import PySlurmClient\n"
            "client = PySlurmClient(Path(sys.argv[1]), folder=Path(sys.argv[2])); client.ping()\n"
            "print(client.process.pid, flush=True); time.sleep(300)"
        )
        argv = [sys.executable, "-c", code, str(stand_in.conf), str(stand_in.folder)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
            assert asking.stdout is not None
            pid = int(asking.stdout.readline())
            asking.send_signal(how)
        until(lambda: is_gone(pid), "the end of pyslurm's process")
