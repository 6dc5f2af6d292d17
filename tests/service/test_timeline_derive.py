"""From a change of a job's row to sentences: which, in which order, and whatever changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import hypothesis.strategies as st
from hypothesis import given

from lockstep_service.jobs.phase import ENDED as ENDED_PHASES
from lockstep_service.jobs.schemas import Phase
from lockstep_service.timeline.derive import derive
from lockstep_service.timeline.entry import LONGEST_TEXT, Kind, sentence
from lockstep_service.timeline.facts import AttemptFacts, Facts

THEN = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return THEN + timedelta(seconds=seconds)


ACCEPTED = Facts(created_at=at(0), changed_at=at(0), phase="accepted", ranks=4)
WAITING = ACCEPTED._replace(changed_at=at(1), phase="waiting", dispatched_at=at(1), slurm_job_id=12, state="PENDING")
FIRST = AttemptFacts(1, ranks=4, nodes=("node1", "node2"), started_at=at(6))
RUNNING = WAITING._replace(
    changed_at=at(9), phase="running", state="RUNNING", slurm_nodes=("node1", "node2"), started_at=at(5),
    attempts=(FIRST,),
)  # fmt: skip
EXITED = FIRST._replace(ended_at=at(60), exit_code=0)
ENDED = RUNNING._replace(
    changed_at=at(63), phase="ended well", state="COMPLETED", ended_at=at(61), attempts=(EXITED,)
)  # fmt: skip


def told(before: Facts | None, after: Facts) -> list[str]:
    return [entry.text for entry in derive(before, after)]


class TestDerive:
    def test_a_job_from_its_submission_to_its_end(self) -> None:
        entries = [
            entry
            for before, after in ((None, ACCEPTED), (ACCEPTED, WAITING), (WAITING, RUNNING), (RUNNING, ENDED))
            for entry in derive(before, after)
        ]
        assert [(entry.kind, (entry.time - THEN).seconds, entry.attempt, entry.text) for entry in entries] == [
            ("stored", 0, None, "It was stored."),
            ("dispatched", 1, None, "Slurm took it as job 12."),
            ("started", 5, None, "Slurm started it on node1, node2."),
            ("attempt", 6, 1, "Attempt 1 began with 4 ranks on node1, node2."),
            ("exit", 60, 1, "Attempt 1 ended with exit code 0."),
            ("ended well", 61, None, "It ended well."),
        ]

    def test_what_was_seen_in_one_look_is_told_in_the_order_in_which_it_happened(self) -> None:
        assert [entry.kind for entry in derive(ACCEPTED, ENDED)] == [
            "dispatched",
            "started",
            "attempt",
            "exit",
            "ended well",
        ]

    def test_nothing_is_told_of_what_stayed_the_same(self) -> None:
        for facts in (ACCEPTED, WAITING, RUNNING, ENDED):
            assert derive(facts, facts._replace(changed_at=at(999))) == []

    def test_why_it_waits(self) -> None:
        word = WAITING._replace(reason="Resources")
        assert told(WAITING, word) == ["It waits; Slurm's word for why is Resources."]
        plain = WAITING._replace(reason="It waits for nodes to become free", slurm_reason="Resources")
        assert told(word, plain) == ["It waits for nodes to become free (Slurm: Resources)."]
        assert told(plain, plain._replace(reason=None)) == []

    def test_what_happens_on_the_way_to_slurm(self) -> None:
        trouble = ACCEPTED._replace(reason="Slurm does not answer (connection timed out); it is tried again")
        assert told(ACCEPTED, trouble) == ["Slurm does not answer (connection timed out); it is tried again."]
        refused = trouble._replace(phase="ended badly", reason="Slurm refused it: Invalid account", ended_at=at(8))
        assert told(trouble, refused) == ["It ended badly: Slurm refused it: Invalid account."]

    def test_what_its_owner_asked_for(self) -> None:
        held = RUNNING._replace(user_hold=True)
        assert told(RUNNING, held) == ["Its owner holds it back."]
        assert told(held, RUNNING) == ["Its owner holds it back no longer."]
        assert told(held, ENDED._replace(attempts=RUNNING.attempts)) == ["It ended well."]
        assert told(RUNNING, RUNNING._replace(wanted="requeue")) == [
            "Its owner asked for it to be put back into the queue."
        ]
        cancelled = RUNNING._replace(cancel_requested_at=at(20))
        assert told(RUNNING, cancelled) == ["Its owner asked for its end."]
        assert told(cancelled, cancelled._replace(cancel_sent_at=at(21))) == ["Slurm was asked to end it."]

    def test_a_hold_that_slurm_refuses_is_not_its_owners_change_of_mind(self) -> None:
        held = WAITING._replace(user_hold=True, wanted="hold")
        refused = WAITING._replace(reason="Slurm did not hold it: Access denied")
        assert told(held, refused) == ["Slurm did not hold it: Access denied."]
        assert told(held, WAITING) == ["Its owner holds it back no longer."]

    def test_where_it_came_from_and_what_it_waits_for(self) -> None:
        assert told(None, ACCEPTED._replace(rerun_of="A")) == ["It was stored, as a rerun of job A."]
        assert told(None, ACCEPTED._replace(follows="B")) == ["It was stored; it waits until job B has ended well."]
        assert told(None, ACCEPTED._replace(follows="B", follows_any=True, user_hold=True)) == [
            "It was stored; it waits until job B has ended.", "Its owner holds it back.",
        ]  # fmt: skip

    def test_a_requeue_has_two_attempts(self) -> None:
        failed = FIRST._replace(ended_at=at(30), exit_signal=9, message="The link to node2 broke")
        back = RUNNING._replace(
            phase="waiting", state="PENDING", reason="BeginTime; its last attempt: signal 9",
            attempts=(failed,), slurm_nodes=(), changed_at=at(31),
        )  # fmt: skip
        assert told(RUNNING, back) == [
            "Attempt 1 ended with signal 9: The link to node2 broke.",
            "Slurm put it back into the queue: BeginTime; its last attempt: signal 9.",
        ]
        second = AttemptFacts(2, ranks=4, nodes=("node3",), started_at=at(91))
        again = RUNNING._replace(started_at=at(90), slurm_nodes=("node3",), attempts=(failed, second))
        starts = ["Slurm started it again on node3.", "Attempt 2 began with 4 ranks on node3."]
        assert told(back, again) == starts
        # Slurm was quicker than our next look at it.
        assert told(RUNNING, again) == ["Attempt 1 ended with signal 9: The link to node2 broke.", *starts]

    def test_why_an_attempt_ended_is_said_once_where_it_ended(self) -> None:
        why = "rank 0 on node1 ended with exit code 1 (KeyError: 'depth'); its last words are in the log"
        failed = FIRST._replace(ended_at=at(8), exit_code=1, message=why)
        ending = RUNNING._replace(reason=f"It is ending: {why}", attempts=(failed,))
        over = ending._replace(phase="ended badly", state="FAILED", reason=why, ended_at=at(9))
        exited = f"Attempt 1 ended with exit code 1: {why}."
        assert told(RUNNING, ending) == [exited]
        assert told(ending, over) == ["It ended badly, as attempt 1 did."]
        assert told(RUNNING, over) == [exited, "It ended badly, as attempt 1 did."]
        limit = "It reached its time limit; ask for more by resources.time"
        late = over._replace(state="TIMEOUT", reason=f"{limit}; its last attempt: {why}")
        assert told(ending, late) == [f"It ended badly: i{limit[1:]}."]

    def test_which_rank_ended_stays_where_only_the_job_tells_it(self) -> None:
        failed = FIRST._replace(ended_at=at(8), exit_code=3, message="No such data")
        where = "rank 2 on node2 ended with exit code 3"
        over = RUNNING._replace(phase="ended badly", reason=f"No such data ({where})", attempts=(failed,))
        assert told(RUNNING, over)[1:] == [f"It ended badly: {where}."]
        back = over._replace(phase="waiting", reason=f"BeginTime; its last attempt: No such data ({where})")
        assert told(RUNNING, back)[1:] == [f"Slurm put it back into the queue: BeginTime; its last attempt: {where}."]

    def test_while_it_waits_to_go_on_slurms_words_come_alone(self) -> None:
        failed = FIRST._replace(ended_at=at(8), exit_signal=9, message="The link to node2 broke")
        waits = RUNNING._replace(
            phase="waiting", reason="BeginTime; its last attempt: The link to node2 broke", attempts=(failed,)
        )
        word = waits._replace(reason="Priority; its last attempt: The link to node2 broke")
        assert told(waits, word) == ["It waits; Slurm's word for why is Priority."]

    def test_the_verdict_when_every_rank_has_said_something(self) -> None:
        def heard(**results: int) -> Facts:
            named = {name.replace("_", " "): count for name, count in results.items()}
            return RUNNING._replace(verdicts={"attempt": 1, "results": named, "revision": 3})

        assert told(RUNNING, heard(as_planned=3)) == []
        assert told(heard(as_planned=3), heard(as_planned=4)) == ["The threads of all 4 ranks sit as planned."]
        assert told(heard(as_planned=4), heard(as_planned=4)) == []
        (entry,) = derive(heard(as_planned=4), heard(as_planned=3, deviates=1))
        assert (entry.kind, entry.attempt) == ("verdict", 1)
        assert entry.text == "Threads of 1 of 4 ranks do not sit where they were planned."
        assert told(RUNNING, heard(degraded=4)) == [
            "The threads of all 4 ranks sit as planned, by a plan that names what it could not do."
        ]

    def test_slurms_silence_and_its_return(self) -> None:
        stale = RUNNING._replace(stale_since=at(20))
        (entry,) = derive(RUNNING, stale)
        assert (entry.kind, entry.time) == ("stale", at(20))
        assert [entry.kind for entry in derive(stale, ENDED._replace(stale_since=None))] == [
            "answered",
            "exit",
            "ended well",
        ]

    def test_what_is_not_known_is_said_so(self) -> None:
        lost = RUNNING._replace(phase="unknown", reason="Slurm has no word of it any more")
        assert told(RUNNING, lost) == ["How it stands is not known: Slurm has no word of it any more."]
        assert told(lost, RUNNING) == ["It is known to run."]

    def test_a_suspension(self) -> None:
        suspended = RUNNING._replace(state="SUSPENDED")
        assert told(RUNNING, suspended) == ["Slurm suspended it."]
        assert told(suspended, RUNNING) == ["Slurm let it go on."]

    def test_a_job_that_was_cancelled_in_the_queue_was_never_started(self) -> None:
        over = WAITING._replace(
        phase="ended badly", state="CANCELLED", started_at=at(8), ended_at=at(8),
            reason="It was cancelled on request",
        )  # fmt: skip
        assert told(WAITING, over) == ["It ended badly: it was cancelled on request."]

    def test_without_slurm_it_is_not_slurm_that_is_named(self) -> None:
        here = ACCEPTED._replace(client="local")
        texts = told(here, ENDED._replace(client="local"))
        assert texts[:2] == [
            "This machine's own queue took it as job 12.",
            "This machine's own queue started it on node1, node2.",
        ]

    def test_many_nodes_are_counted(self) -> None:
        many = tuple(f"n{number}" for number in range(100))
        (text, *_) = told(WAITING, RUNNING._replace(slurm_nodes=many))
        assert text == "Slurm started it on n0, n1, n2, n3, n4, n5 and 94 more nodes."

    def test_a_sentence_is_one_line_of_printable_text(self) -> None:
        assert sentence("a\n\x1b[31mb\0 ") == "a [31mb."
        assert sentence("Why?") == "Why?"
        assert len(sentence("x" * 5000)) == LONGEST_TEXT


moments = st.none() | st.integers(0, 10_000).map(at)
words = st.none() | st.sampled_from(["Resources", "It is ending", "a\nb\0c", "x" * 3000])
attempts = st.lists(
    st.builds(
        AttemptFacts, number=st.just(1), nodes=st.just(("n1",)), started_at=moments, ended_at=moments,
        exit_code=st.none() | st.integers(0, 255), exit_signal=st.none() | st.just(9), message=words,
    ),
    max_size=3,
).map(lambda found: tuple(one._replace(number=index + 1) for index, one in enumerate(found)))  # fmt: skip
anything = st.builds(
    Facts, created_at=st.just(at(0)), changed_at=st.integers(0, 10_000).map(at), phase=st.sampled_from(get_args(Phase)),
    client=st.sampled_from(["command", "local"]), by_hand=st.booleans(), rerun_of=words, follows=words,
    dispatched_at=moments, user_hold=st.booleans(), wanted=st.sampled_from([None, "hold", "release", "requeue"]),
    cancel_requested_at=moments, cancel_sent_at=moments, slurm_job_id=st.none() | st.integers(1, 99),
    state=st.sampled_from([None, "PENDING", "RUNNING", "SUSPENDED"]), reason=words, slurm_reason=words,
    started_at=moments, ended_at=moments, stale_since=moments, attempts=attempts,
    verdicts=st.just({}) | st.just({"attempt": 1, "results": {"as planned": 1}, "revision": 1}),
)  # fmt: skip


class TestWhateverChanges:
    @given(before=anything | st.none(), after=anything)
    def test_every_sentence_is_a_presentable_line_of_a_known_kind_with_a_time(
        self, before: Facts | None, after: Facts
    ) -> None:
        for entry in derive(before, after):
            assert entry.text.isprintable()
            assert 2 < len(entry.text) <= LONGEST_TEXT
            assert entry.text.endswith((".", "…"))
            assert entry.kind in get_args(Kind)
            assert entry.time >= THEN

    @given(before=anything, after=anything)
    def test_an_end_is_told_once_and_only_of_a_job_that_ended(self, before: Facts, after: Facts) -> None:
        ends = [entry.kind for entry in derive(before, after) if entry.kind in ENDED_PHASES]
        assert ends == ([after.phase] if after.phase in ENDED_PHASES and after.phase != before.phase else [])

    @given(facts=anything, seconds=st.integers(0, 9999))
    def test_time_alone_tells_nothing(self, facts: Facts, seconds: int) -> None:
        assert derive(facts, facts._replace(changed_at=at(seconds))) == []
