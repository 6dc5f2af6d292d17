"""The outbox: each stored job is handed to Slurm, exactly once as far as anyone can tell.

A submit whose answer was lost may have happened, or may still happen. So an intent is stored before each call; while
one is outstanding the job is looked for by its name, and only submitted again held. The held copy is released after
two look-ups, ``lookup_seconds`` apart, found no other; if they did find one, the held copy is cancelled. A job that is
cancelled, or whose held copy Slurm refuses, while an answer is lost is looked for as long and once more before it ends:
what turns up until then is the job.

Jobs go in batches: the intents of a batch are stored in one transaction, then a few submits are under way at once (and
meanwhile the next batch is made ready), then all answers are stored in one. What of a batch was not sent, since Slurm
did not answer or wants no more, is taken back. All that is lost is looked for by one question. The whole machine is in
docs/decisions/0008.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from lockstep_service.auth.service import token_hash
from lockstep_service.boundary import Application
from lockstep_service.database import UNSTORABLE
from lockstep_service.dispatch import answers, sending, worklists
from lockstep_service.dispatch.brakes import EVERYTHING
from lockstep_service.dispatch.looking import look_for, pause
from lockstep_service.dispatch.outbox import group_of
from lockstep_service.dispatch.parallel import in_background, in_parallel
from lockstep_service.dispatch.preparing import prepare, refresh_reports
from lockstep_service.dispatch.storing import Change, later, store
from lockstep_service.jobs.service import BEFORE_SUBMIT
from lockstep_service.tables import JobRow
from lockstep_service.wire import now
from lockstep_slurm.client.protocol import (
    SlurmError,
    Submission,
)
from lockstep_slurm.errors import LockstepError

__all__ = ["refresh_reports", "submit_due", "take_turn"]

_log = logging.getLogger(__name__)
_ROUNDS = 8
"""Submits of a batch for each that is under way at once: so many intents are lost, and looked for, after a SIGKILL."""
_A_TURN = 256
"""Jobs of one turn at most, so that what is due meanwhile has its turn soon."""
_IDLE_SECONDS = 5.0
_LEAST_SECONDS = 0.05


@dataclass
class Turn:
    """What one turn did."""

    taken: int = 0
    """Jobs that are in Slurm's hands since."""
    moved: int = 0
    """Jobs of which anything was decided."""


@dataclass(frozen=True)
class _Ready:
    """Submits whose intents are stored: each of them is sent, or taken back."""

    batch: Sequence[sending.Outgoing]
    before: Mapping[str, tuple[datetime | None, bool]]
    """What each job's intent was before, and whether that was of a held copy."""
    hold: bool


def submit_due(app: Application) -> int:
    """Takes every job whose turn it is one step further; returns how many Slurm took."""
    return _Outbox(app).turn().taken


def take_turn(app: Application) -> tuple[int, float]:
    """The same; and seconds until the next turn."""
    turn = _Outbox(app).turn()
    brakes, moment = app.outbox.brakes, time.monotonic()
    if turn.moved and not brakes.left(EVERYTHING, moment):
        return turn.taken, 0.0  # there may be more; the next turn looks
    with app.database.reading() as session:
        at = worklists.next_submit(session, app.client.kind)
    if at is None:
        return turn.taken, _IDLE_SECONDS
    due = max(0.0, (at - now()).total_seconds())
    if due == 0:
        due = brakes.next_try(moment) or 0.0  # what is due, a brake holds
    due = max(due, brakes.left(EVERYTHING, moment))
    return turn.taken, min(_IDLE_SECONDS, max(_LEAST_SECONDS, due))


class _Outbox:
    """One turn: every method ends with the database knowing where each of its jobs stands."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._state = app.outbox
        self._turn = Turn()

    def turn(self) -> Turn:
        brakes = self._state.brakes
        if brakes.left(EVERYTHING, time.monotonic()):
            return self._turn
        limit = None if brakes.any_group() else _A_TURN
        with self._app.database.reading() as session:
            due = worklists.to_submit(session, self._app.client.kind, now(), limit)
        if not due or (brakes.is_on(EVERYTHING) and not self._answers([one.id for one in due[:_A_TURN]])):
            return self._turn
        if outstanding := [one.id for one in due if one.outstanding][:_A_TURN]:
            taken, again = look_for(self._app, outstanding)
            self._turn.taken += taken
            # Those that are sent again count when they are answered: a brake may hold them, and no hurry moves that.
            self._turn.moved += len(outstanding) - len(again)
            if (ready := self._made_ready(self._unbraked(again), hold=True)) is not None:
                self._conclude(ready, sending.send(self._app, ready.batch))
        self._submit_all(self._batches([one for one in due if not one.outstanding]))
        return self._turn

    def _batches(self, due: Sequence[worklists.Due]) -> Iterator[list[str]]:
        """The jobs to be submitted, in batches: none that a brake holds, and of what it holds no more one to try."""
        brakes, size = self._state.brakes, self._app.settings.submit_parallel * _ROUNDS
        ended = time.monotonic() + _IDLE_SECONDS
        filtered = brakes.any_group()
        waiting = iter(self._let_through(due) if filtered else [one.id for one in due])
        while time.monotonic() < ended and not self._stopped():
            if brakes.any_group() and not filtered:
                return  # a group was refused meanwhile: which of these are of it, the next turn tells
            count = 1 if brakes.is_on(EVERYTHING) else size
            batch = [one for _, one in zip(range(count), waiting, strict=False)]
            if not batch:
                return
            yield batch

    def _stopped(self) -> bool:
        return self._state.closing or self._state.brakes.left(EVERYTHING, time.monotonic()) > 0

    def _let_through(self, due: Sequence[worklists.Due]) -> list[str]:
        """Those whose group no brake holds, and one of each group that may try; the others say why they wait.

        One that was refused for what may never pass tries last, lest it be the only one that ever tries.
        """
        ids = [one.id for one in sorted(due, key=lambda one: one.refused)]
        brakes, known, moment = self._state.brakes, self._state.groups, time.monotonic()
        groups = {one: known[one] for one in ids if one in known}
        unknown = [one for one in ids if one not in groups]
        for start in range(0, len(unknown), _A_TURN):
            with self._app.database.reading() as session:
                found = worklists.specs(session, unknown[start : start + _A_TURN])
            groups |= {one: group_of(spec) for one, spec in found.items()}
        self._state.groups = groups
        through, held, trying = [], [], set()
        for one in ids:
            group = groups.get(one)
            if not brakes.is_on(group) or (group not in trying and not brakes.left(group, moment)):
                trying.add(group)
                through.append(one)
            elif one not in known:
                held.append(one)
        for start in range(0, len(held), _A_TURN):
            self._explain(held[start : start + _A_TURN], lambda row: brakes.reason(groups.get(row.id)))
        return through

    def _unbraked(self, again: Sequence[str]) -> Sequence[str]:
        """Of lost jobs that are to be submitted again those that no brake holds, and one of each group that may try.

        The others are looked for again when the brake lets one through: until then no question would help them.
        """
        brakes, moment = self._state.brakes, time.monotonic()
        if not brakes.any_group():
            return again
        with self._app.database.reading() as session:
            specs = worklists.specs(session, again)
        through: list[str] = []
        trying: set[Hashable] = set()
        put_off: dict[str, Change] = {}
        for one in again:
            if one not in specs:
                continue  # removed in this moment
            group = group_of(specs[one])
            if left := brakes.left(group, moment):
                until = now() + timedelta(seconds=left)
                put_off[one] = partial(answers.put_off, until=until, why=brakes.reason(group))
            elif group not in trying or not brakes.is_on(group):
                trying.add(group)
                through.append(one)
        store(self._app, put_off)
        return through

    def _explain(self, ids: Sequence[str], why: Callable[[JobRow], str | None]) -> None:
        """Gives a reason to those that have none."""
        with self._app.database.reading() as session:
            silent = worklists.unexplained(session, ids)

        def explain(row: JobRow) -> None:
            row.reason = row.reason or why(row)

        store(self._app, dict.fromkeys(silent, explain))

    def _answers(self, ids: Sequence[str]) -> bool:
        """Whether Slurm answers again; if not, the jobs that wait for it say so."""
        try:
            self._app.client.ping()
        except SlurmError as error:
            why = f"Slurm does not answer ({error}); it is tried again"
            sending.put_on(self._app, EVERYTHING, why)
            self._explain(ids, lambda _row: why)
            return False
        return True

    # Submitting.

    def _submit_all(self, batches: Iterable[list[str]]) -> None:
        """Takes one batch after the other through Slurm; while one is under way, the next is made ready.

        Not while a brake is on: of what may be tried then, the answer to the last try tells.
        """
        under_way: tuple[_Ready, Callable[[], dict[str, sending.Answer]]] | None = None
        try:
            for ids in batches:
                # One that is to try what a brake holds was chosen while nothing was under way.
                send = sending.send if under_way is None else sending.send_unless_braked
                ready = self._made_ready(ids, hold=False)
                (before, answers_of), under_way = under_way or (None, None), None
                found = answers_of() if answers_of is not None else {}
                if ready is not None:
                    under_way = ready, in_background(partial(send, self._app, ready.batch))
                if before is not None:
                    self._conclude(before, found)
                if under_way is not None and self._state.brakes.any():
                    (before, answers_of), under_way = under_way, None
                    self._conclude(before, answers_of())
        finally:
            if under_way is not None:
                self._conclude(under_way[0], under_way[1]())

    def _made_ready(self, ids: Sequence[str], *, hold: bool) -> _Ready | None:
        """Has their files in place and stores their intents; None where there are none to be sent."""
        with self._app.database.reading() as session:
            rows = worklists.outgoing(session, ids)
        if not rows:
            return None
        url = self._app.url()
        made = in_parallel(partial(self._prepare, url=url, hold=hold), rows, self._app.settings.submit_parallel)
        ready = {row.id: one for row, one in zip(rows, made, strict=True) if not isinstance(one, str)}
        before: dict[str, tuple[datetime | None, bool]] = {}

        def intend(row: JobRow) -> None:
            if row.cancel_requested_at is not None and not hold:
                answers.end(row, BEFORE_SUBMIT, now())
                return
            if row.user_hold and row.submit_started_at is None:
                return  # held in this moment
            before[row.id] = (row.submit_started_at, row.held)
            answers.intend(row, now(), hold=hold)
            token = ready[row.id][1]
            row.token_hash = token_hash(token) if token is not None else row.token_hash

        broken = {row.id: later(self._app, one) for row, one in zip(rows, made, strict=True) if isinstance(one, str)}
        # What is not stored is not sent.
        stored = store(self._app, {row.id: broken.get(row.id, intend) for row in rows}) & before.keys()
        batch = [sending.Outgoing(row.id, group_of(row.spec), ready[row.id][0]) for row in rows if row.id in stored]
        self._turn.moved += len(broken)
        return _Ready(batch, before, hold)

    def _conclude(self, ready: _Ready, found: Mapping[str, sending.Answer]) -> None:
        """Stores the answers."""
        hold = ready.hold
        store(self._app, {one: self._answered(answer, ready.before[one], hold=hold) for one, answer in found.items()})
        if not hold:
            self._turn.taken += sum(isinstance(answer, sending.Taken) for answer in found.values())
        self._turn.moved += sum(not isinstance(answer, sending.NotSent) for answer in found.values())

    def _prepare(self, row: JobRow, *, url: str | None, hold: bool) -> tuple[Submission, str | None] | str:
        try:
            return prepare(row, url, hold=hold, umask=self._app.umask)
        except (LockstepError, OSError, *UNSTORABLE) as error:
            return f"It cannot be submitted yet: {error}"

    def _answered(self, answer: sending.Answer, before: tuple[datetime | None, bool], *, hold: bool) -> Change:
        """What the answer to a submit changes."""
        moment = now()
        match answer:
            case sending.Taken(slurm_id) if hold:
                return partial(answers.keep_held, slurm_id=slurm_id)
            case sending.Taken(slurm_id):
                return partial(answers.dispatch, slurm_id=slurm_id, moment=moment)
            case sending.NotSent(why):
                started_at, held = before
                return partial(answers.take_back, started_at=started_at, held=held, reason=why)
            case sending.Unanswered(why):
                return later(self._app, why)
            case sending.Refused(meaning, said, braked):
                settings, wait = self._app.settings, pause(self._app)
                return lambda row: answers.refuse(row, meaning, said, settings, moment, pause=wait, braked=braked)
