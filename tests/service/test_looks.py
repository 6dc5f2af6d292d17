"""Looks at a job, shared: fresh enough for each reader, and few however many readers there are."""

from __future__ import annotations

import asyncio
import time

import pytest

from lockstep_service.events.looks import Looks


def test_readers_that_may_have_the_same_look_share_it() -> None:
    looked: list[int | None] = []

    def look(before: int | None) -> int:
        looked.append(before)
        return len(looked)

    async def read() -> list[int]:
        looks: Looks[int] = Looks(60)
        since = time.monotonic()
        return list(await asyncio.gather(*(looks.at("a job", since, look) for _ in range(500))))

    assert asyncio.run(read()) == [1] * 500
    assert looked == [None]


def test_what_was_seen_before_a_change_is_not_given_to_who_was_told_of_it() -> None:
    stored = ["before"]

    async def read() -> list[str]:
        looks: Looks[str] = Looks(60)
        found = [await looks.at("a job", 0, lambda _before: stored[0])]
        stored[0] = "after"
        found.append(await looks.at("a job", 0, lambda _before: stored[0]))
        return [*found, await looks.at("a job", time.monotonic(), lambda _before: stored[0])]

    assert asyncio.run(read()) == ["before", "before", "after"]


def test_a_look_is_told_what_the_last_one_found_and_fails_for_nobody_else() -> None:
    told: list[str | None] = []

    def good(before: str | None) -> str:
        told.append(before)
        return "found"

    def bad(before: str | None) -> str:
        told.append(before)
        raise OSError("no database")

    async def read() -> None:
        looks: Looks[str] = Looks(0)
        await looks.at("a job", 0, good)
        with pytest.raises(OSError, match="no database"):
            await looks.at("a job", time.monotonic(), bad)
        await looks.at("a job", time.monotonic(), good)

    asyncio.run(read())
    assert told == [None, "found", None]


def test_a_reader_that_goes_away_takes_the_look_from_nobody() -> None:
    async def read() -> str:
        looks: Looks[str] = Looks(60)

        def look(_before: str | None) -> str:
            time.sleep(0.2)
            return "found"

        since = time.monotonic()
        leaving = asyncio.create_task(looks.at("a job", since, look))
        staying = asyncio.create_task(looks.at("a job", since, look))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(read()) == "found"


def test_nothing_is_kept_of_a_job_that_nobody_follows() -> None:
    async def read() -> tuple[int, int]:
        looks: Looks[str] = Looks(60)
        with looks.following("a job"):
            await looks.at("a job", 0, lambda _before: "found")
            during = len(looks)
        return during, len(looks)

    assert asyncio.run(read()) == (1, 0)
