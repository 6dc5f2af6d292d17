"""What is made of pyslurm's answers: values, Slurm's no, and the words that mean that nobody answered."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.stand_in import StandIn, is_gone, pid_of
from lockstep_slurm.client.protocol import (
    SlurmError,
    SlurmRateLimitedError,
    SlurmRefusedError,
    SlurmUnavailableError,
    SlurmUnknownJobError,
)
from lockstep_slurm.client.pyslurm_process import PySlurmProcess
from lockstep_slurm.client.refusals import meaning
from lockstep_slurm.client.runner import is_no_answer

NO_ANSWER = [
    "Unexpected message received", "Communication connection failure", "Message send failure",
    "Message receive failure", "Communication shutdown failure", "Incompatible versions of client and server code",
    "I/O stream version number error", "Protocol authentication error", "Insane message length",
    "Can't find an address, check slurm.conf", "Unexpected missing socket error", "Received zero length message",
    "Received message length < 0", "Failed to send entire message", "Header lengths are longer than data received",
    "Socket timed out on send/recv operation", "Zero Bytes were transmitted or received",
    "Invalid authentication credential", "Failed to open authentication public key",
    "Failed to connect to authentication agent", "Bad argument to plugin function", "Memory management error",
    "Authentication credential invalid", "Cannot unpack credential", "Authentication does not apply to request",
    "Invalid job credential", "Job credential expired", "Job credential revoked", "Job credential replayed",
    "Error generating job credential",
]  # fmt: skip


@pytest.mark.parametrize("words", NO_ANSWER)
def test_words_of_the_way_to_slurm_are_no_answer_of_a_command_either(words: str) -> None:
    assert is_no_answer(f"sbatch: error: Batch job submission failed: {words}")


class TestCancel:
    def test_a_requeued_job_that_is_completing_is_cancelled(self, stand_in: StandIn, process: PySlurmProcess) -> None:
        stand_in.job_is("COMPLETING")
        sent = stand_in.folder / "sent"
        stand_in.ping_does(f"open({str(sent)!r}, 'w').close()")
        process.ask("cancel", job_id=1)
        assert sent.exists()

    def test_one_that_slurm_says_is_done_is_no_error(self, stand_in: StandIn, process: PySlurmProcess) -> None:
        stand_in.job_is("COMPLETING")
        stand_in.ping_does("raise RPCError('Job/step already completing or completed', 2021)")
        process.ask("cancel", job_id=1)

    def test_another_no_for_a_completing_job_is_told(self, stand_in: StandIn, process: PySlurmProcess) -> None:
        stand_in.job_is("COMPLETING")
        stand_in.ping_does("raise RPCError('Access/permission denied', 2002)")
        with pytest.raises(SlurmRefusedError, match="denied"):
            process.ask("cancel", job_id=1)


class TestAnswers:
    def test_one_process_answers_one_question_after_another(self, process: PySlurmProcess) -> None:
        assert process.pid is None
        assert process.ask("version") == "25.11.2"
        first = process.pid
        assert process.ask("ping") is None
        assert process.pid == first

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            ("Unable to contact slurm controller (connect failure)", SlurmUnavailableError),
            ("Socket timed out on send/recv operation", SlurmUnavailableError),
            ("Invalid job id specified", SlurmUnknownJobError),
            ("Invalid partition name specified", SlurmRefusedError),
        ],
    )
    def test_slurms_words_are_sorted_as_those_of_its_commands(
        self, stand_in: StandIn, process: PySlurmProcess, words: str, kind: type[SlurmError]
    ) -> None:
        stand_in.ping_does(f"raise RPCError({words!r})")
        with pytest.raises(kind) as caught:
            process.ask("ping")
        assert type(caught.value) is kind
        assert words in str(caught.value)

    @pytest.mark.parametrize("number", [0, -1, 2, 11, None, 1000, 1999, 5000, 6999])
    def test_words_that_need_not_be_slurms_are_no_answer(
        self, stand_in: StandIn, process: PySlurmProcess, number: int | None
    ) -> None:
        stand_in.ping_does(f"raise RPCError('Success', {number})")
        with pytest.raises(SlurmUnavailableError, match="Success"):
            process.ask("ping")

    def test_where_slurm_is_asked_too_often_a_submit_was_refused_and_anything_else_was_not_answered(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        # The number is of the way to Slurm; but it says that Slurm has done nothing.
        stand_in.ping_does("raise RPCError('Rate limit exceeded, please retry later', 1805)")
        with pytest.raises(SlurmRefusedError, match="later") as refused:
            process.ask("submit", fields={"environment": {}}, limits=[], bootstrap=True)
        assert meaning(str(refused.value)) == "cluster"
        first = pid_of(process)
        with pytest.raises(SlurmRateLimitedError):
            process.ask("ping")
        assert process.pid == first  # a new one would ask Slurm more

    def test_what_pyslurm_cannot_put_into_a_description_is_refused(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        stand_in.ping_does("raise ValueError('Invalid Time Specification: soon.')")
        with pytest.raises(SlurmRefusedError, match="soon"):
            process.ask("submit", fields={"environment": {}}, limits=[], bootstrap=True)

    def test_what_pyslurm_cannot_read_of_an_answer_is_no_answer(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        stand_in.ping_does("b'\\xff'.decode()")
        with pytest.raises(SlurmUnavailableError, match="decode"):
            process.ask("ping")

    def test_after_no_answer_the_next_question_is_another_processes(
        self, stand_in: StandIn, process: PySlurmProcess
    ) -> None:
        # slurm.conf may have changed meanwhile, and pyslurm reads it once.
        process.ask("ping")
        first = pid_of(process)
        stand_in.ping_does("raise RPCError('Zero Bytes were transmitted or received')")
        with pytest.raises(SlurmUnavailableError):
            process.ask("ping")
        assert is_gone(first)
        assert process.ask("version") == "25.11.2"

    def test_many_threads_each_get_their_own_answer(self, process: PySlurmProcess) -> None:
        def ask(_: int) -> list[object]:
            return [process.ask(what) for _ in range(50) for what in ("version", "ping")]

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(8), timeout=60))
        assert answers == [["25.11.2", None] * 50] * 8
