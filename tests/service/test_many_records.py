"""What one body of records may cost: work and memory that grow with the records, and no faster, up to limits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, overload

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.metrics import figures as module
from lockstep_service.metrics import repository
from lockstep_service.metrics.curve import Curve
from lockstep_service.metrics.figures import MOST_CURVES, ROOM, Figures
from lockstep_service.metrics.record import Record
from lockstep_service.metrics.stretch import LEAST, Stretch, parts

Json = dict[str, Any]


def step(seq: int, number: int, *, attempt: int = 1, rank: int = 0, **values: Any) -> Record:
    return Record(attempt, rank, seq, 1e9 + seq, "step", number, values or {"loss": 0.5})


class Counted(Sequence[Record]):
    """Records that know how often one of them was looked at."""

    def __init__(self, records: list[Record]) -> None:
        self.records, self.looks = records, 0

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | Sequence[Record]:
        found = self.records[place]
        self.looks += len(found) if isinstance(found, list) else 1
        return found

    def __iter__(self) -> Iterator[Record]:
        for one in self.records:
            self.looks += 1
            yield one


class CountedDict(dict[Any, Any]):
    """A dict that knows how many of its items were gone through."""

    looks = 0

    def items(self) -> Any:
        self.looks += len(self)
        return super().items()


class LongestCurve(Curve):
    """A curve that notes how many points any of its kind had when a value was put into it."""

    longest = 0

    def put(self, step: int, rank: int, value: float, time: float, *, late: bool) -> None:
        super().put(step, rank, value, time, late=late)
        LongestCurve.longest = max(LongestCurve.longest, len(self))


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> type[LongestCurve]:
    LongestCurve.longest = 0
    monkeypatch.setattr(module, "Curve", LongestCurve)
    return LongestCurve


class TestWork:
    def test_records_of_ranks_in_turns_are_looked_at_a_few_times_each(self) -> None:
        records = Counted([step(seq, seq, rank=rank) for seq in range(1, 501) for rank in (0, 1)])
        assert [part for part in parts(records) if isinstance(part, Stretch)] == []
        assert records.looks <= 5 * len(records)

    def test_a_new_figure_is_not_looked_for_among_all_attempts(self) -> None:
        figures = Figures()
        named = figures._named = CountedDict()
        figures.take([step(1, 1, attempt=attempt) for attempt in range(1, 301)])
        assert (len(figures.curves), named.looks) == (300, 0)

    @pytest.mark.parametrize("together", [1, 2 * LEAST], ids=["one by one", "in stretches"])
    def test_steps_that_go_back_find_a_curve_of_bounded_length(
        self, together: int, longest: type[LongestCurve]
    ) -> None:
        count = 3 * ROOM
        steps = [first + more for first in range(10 * count, 10 * count - count, -together) for more in range(together)]
        heights = {seq: float(seq % 7) for seq in range(1, len(steps) + 1)} | {5000: 50.0, count - 5: -50.0}
        figures = Figures()
        taken = figures.take([step(seq, number, loss=heights[seq]) for seq, number in enumerate(steps, 1)])
        assert all(taken)
        assert longest.longest <= 2 * ROOM + 1
        (found,) = figures.series(10_000)
        assert min(value for value in found.min if value is not None) == -50.0
        assert max(value for value in found.max if value is not None) == 50.0

    def test_steps_that_go_on_and_a_rank_that_is_a_little_behind_narrow_nothing(
        self, longest: type[LongestCurve]
    ) -> None:
        figures = Figures()
        figures.take([step(seq, seq - 2 * rank, rank=rank) for seq in range(3, ROOM) for rank in (0, 1)])
        (curve,) = figures.curves
        assert (len(curve), curve.settled) == (ROOM - 1, None)


class TestLimits:
    def test_curves_of_one_attempt_and_of_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_CURVES_IN_ALL", 5)
        figures = Figures()
        assert all(figures.take([step(1, 1, attempt=attempt, a=1.0, b=2.0) for attempt in range(1, 5)]))
        assert [(curve.attempt, curve.name) for curve in figures.curves] == [
            (1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a"),
        ]  # fmt: skip
        assert figures.take([step(2, 2, attempt=1, a=3.0)]) == [True]
        assert len(figures.curves[0]) == 2

    def test_what_was_stored_counts_as_well(self) -> None:
        figures = Figures()
        values: Json = {f"norm_{number}": 0.5 for number in range(MOST_CURVES - 1)}
        figures.take([step(1, 1, **values)])
        whole, curves = figures.stored()
        again = Figures.of(0, whole, [curves[number] for number in sorted(curves)])
        again.take([step(2, 2, one_more=0.5, one_too_many=0.5)])
        assert len(again.curves) == MOST_CURVES
        assert again.curves[-1].name == "one_more"

    def test_ranks_over_all_attempts(
        self,
        app: Application,
        browser: TestClient,
        job: Json,
        job_token: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(module, "MOST_RANKS", 3)

        def post(*places: tuple[int, int, int]) -> Json:
            lines = [
                {"v": 1, "attempt": attempt, "rank": rank, "seq": seq, "time": 1764000000, "kind": "step", "step": seq,
                 "values": {"loss": 0.5}}
                for attempt, rank, seq in places
            ]  # fmt: skip
            answer = browser.post(
                f"/api/v1/jobs/{job['id']}/records",
                content=b"".join(json.dumps(one).encode() + b"\n" for one in lines),
                headers={"Authorization": f"Bearer {job_token}"},
            )
            found: Json = answer.raise_for_status().json()["acknowledged"]
            return found

        assert post((1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 1, 1), (3, 0, 1)) == {
            "1/0": 1, "1/1": 1, "2/0": 1, "2/1": 0, "3/0": 0,
        }  # fmt: skip
        # In a stretch as well; and whom there was room for goes on.
        more = [(2, 1, seq) for seq in range(1, 2 * LEAST)]
        assert post(*more, (2, 0, 2)) == {"2/0": 2, "2/1": 0}
        with app.database.reading() as session:
            stored = [(one.attempt, one.rank, one.seq) for one in repository.records(session, job["id"])]
        assert stored == [(1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 0, 2)]
        (said,) = [one.getMessage() for one in caplog.records if "further ones are not stored" in one.getMessage()]
        assert f"job {job['id']} has records of 3 ranks" in said
