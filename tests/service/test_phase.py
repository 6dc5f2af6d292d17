"""The table from Slurm's words to a phase."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_service.jobs.phase import ENDED, NO_EXIT_RECORD, PHASES, by_exit, outcome, without_message
from lockstep_service.jobs.waiting import in_words
from lockstep_slurm.job.rundir import Exit

WELL = Exit(1, 1, 0, None, 0, "node1", None, 1764000000.0)
BADLY = Exit(1, 1, 3, None, 2, "node1", "It had enough.", 1764000000.0)
KILLED = Exit(1, 1, None, 9, 2, "node1", None, 1764000000.0)
exits = st.sampled_from([None, WELL, BADLY, KILLED])
flags = st.lists(st.sampled_from(["COMPLETING", "REQUEUED", "STAGE_OUT", "TOMORROW"]), max_size=2).map(tuple)


@given(
    st.text(st.characters(categories=["Lu"]), max_size=12).filter(lambda word: word not in PHASES),
    flags,
    exits,
    st.booleans(),
)
def test_a_word_that_is_not_known_means_unknown_and_never_failed(
    word: str, flags: tuple[str, ...], exit_: Exit | None, over: bool
) -> None:
    found = outcome(word, flags, None, exit_, grace_over=over)
    assert found.phase == "unknown"
    assert word in str(found.reason)


@given(st.sampled_from(sorted(PHASES)), flags, st.none() | st.text(), exits, st.booleans())
def test_only_an_exit_record_of_code_0_ends_well(
    state: str, flags: tuple[str, ...], told: str | None, exit_: Exit | None, over: bool
) -> None:
    found = outcome(state, flags, told, exit_, grace_over=over)
    assert found.phase != "ended well" or (state == "COMPLETED" and exit_ is WELL)
    assert not found.ended or PHASES[state] in ENDED
    assert found.phase != "ended badly" or found.reason
    if state == "NODE_FAIL" and not over:
        return  # Slurm may tell of the job before it tells of the node
    assert found.ended or not ("COMPLETING" not in flags and PHASES[state] == "ended badly" and "REQUEUED" not in flags)


def test_completed_with_no_exit_record_waits_a_little_and_is_then_a_failure_that_is_said_plainly() -> None:
    assert outcome("COMPLETED", (), None, None, grace_over=False).phase == "running"
    found = outcome("COMPLETED", (), None, None, grace_over=True)
    assert (found.phase, found.reason) == ("ended badly", NO_EXIT_RECORD)


def test_a_job_whose_node_failed_waits_a_little_for_the_nodes_name() -> None:
    assert outcome("NODE_FAIL", (), None, None, grace_over=False).phase == "running"
    found = outcome("NODE_FAIL", (), None, None, grace_over=False, failed_nodes=("h2 is DOWN (Not responding)",))
    assert (found.phase, found.reason) == (
        "ended badly", "A node failed under it: Slurm says h2 is DOWN (Not responding)"
    )  # fmt: skip
    assert outcome("NODE_FAIL", (), None, None, grace_over=True).ended


@pytest.mark.parametrize("state", [state for state, phase in PHASES.items() if phase == "ended badly"])
def test_slurms_bad_end_is_one_even_when_the_training_was_done(state: str) -> None:
    assert outcome(state, (), None, WELL, grace_over=True).phase == "ended badly"


def test_the_exit_records_own_words_are_the_reason() -> None:
    assert outcome("FAILED", (), None, BADLY, grace_over=True).reason == (
        "It had enough. (rank 2 on node1 ended with exit code 3)"
    )
    assert "signal 9" in str(by_exit(KILLED).reason)


@pytest.mark.parametrize(
    ("code", "signal", "message", "said"),
    [
        (2, None, "rank 0 on h1 ended with exit code 2; its last words are in the log", True),
        (None, 9, "rank 0 on h1 was ended by signal 9 (SIGKILL)", True),
        (2, None, "rank 0 on h1 ended with exit code 21", False),
        (2, None, "rank 0 on h10 ended with exit code 2", False),
        (66, None, "rank 0 on h1: there is no /data", False),
    ],
)
def test_which_rank_ended_how_is_said_once(code: int | None, signal: int | None, message: str, *, said: bool) -> None:
    how = f"exit code {code}" if signal is None else f"signal {signal}"
    found = outcome("FAILED", (), None, Exit(1, 1, code, signal, 0, "h1", message, 1764000000.0), grace_over=True)
    assert found.reason == (message if said else f"{message} (rank 0 on h1 ended with {how})")


def test_a_job_that_was_to_go_on_and_was_cancelled_in_the_queue_was_cancelled() -> None:
    stopped = Exit(1, 1, 85, None, 0, "node1", "It was told to stop.", 1764000000.0)
    assert outcome("CANCELLED", (), None, stopped, grace_over=True).reason == (
        "It was cancelled; its last attempt: It was told to stop. (rank 0 on node1 ended with exit code 85)"
    )
    assert str(outcome("FAILED", (), None, stopped, grace_over=True).reason).startswith("It was told to stop.")


def test_that_slurm_found_it_out_of_memory_is_not_hidden_by_a_plain_sigkill() -> None:
    found = outcome("OUT_OF_MEMORY", (), None, KILLED, grace_over=True)
    assert found.reason == (
        "It needed more memory than it was given; ask for more by resources.mem; "
        "Rank 2 on node1 ended with signal 9; its log has the last words"
    )


def test_a_requeue_waits_again() -> None:
    assert outcome("NODE_FAIL", ("REQUEUED",), "BeginTime", None, grace_over=True).phase == "waiting"


def test_why_it_waits_is_said_in_plain_words() -> None:
    assert outcome("PENDING", (), "Resources", None, grace_over=True).reason == in_words("Resources")


CUT = Exit(
    attempt=1, fence=1, code=69, signal=None, rank=0, node="h1", ended=1.0,
    message="node h2 has not been heard from by h1 for 60 s; its link (h2fab0, 10.1.2.2) or the node is down",
)  # fmt: skip


def test_while_slurm_waits_for_a_node_that_it_cannot_reach_the_reason_is_told_already() -> None:
    for state, flags in (("RUNNING", ()), ("FAILED", ("COMPLETING",))):
        found = outcome(state, flags, None, CUT, grace_over=False)
        assert found.phase == "running"
        assert found.reason == f"It is ending: {CUT.message} (rank 0 on h1 ended with exit code 69)"


def test_a_node_that_slurm_gave_up_is_named() -> None:
    down = ("h2 is DOWN (Not responding)",)
    found = outcome("NODE_FAIL", (), None, None, grace_over=True, failed_nodes=down)
    assert found.reason == "A node failed under it: Slurm says h2 is DOWN (Not responding)"
    found = outcome("NODE_FAIL", (), None, CUT, grace_over=True, failed_nodes=down)
    assert found.reason == (
        "A node failed under it: Slurm says h2 is DOWN (Not responding); "
        f"{CUT.message} (rank 0 on h1 ended with exit code 69)"
    )


def test_what_was_put_back_into_the_queue_says_why() -> None:
    found = outcome("PENDING", (), "BeginTime", CUT, grace_over=True, failed_nodes=("h2 is DOWN (Not responding)",))
    assert found.phase == "waiting"
    assert found.reason == (
        f"{in_words('BeginTime')}; its last attempt: {CUT.message} (rank 0 on h1 ended with exit code 69); "
        "of the nodes that it had, Slurm says h2 is DOWN (Not responding)"
    )


@pytest.mark.parametrize(
    ("reason", "message", "left"),
    [
        ("It ran out of memory", "It ran out of memory", ""),
        ("It is ending: no space left", "no space left", ""),
        ("Slurm says FAILED; no space left", "no space left", "Slurm says FAILED"),
        ("No rank came to an end", "No", "No rank came to an end"),  # another sentence, which begins alike
        ("It was put back; Item", "It", "It was put back; Item"),
    ],
)
def test_a_message_is_taken_out_of_a_reason_whole_or_not_at_all(reason: str, message: str, left: str) -> None:
    assert without_message(reason, message) == left
