"""Probes are answered however many ask, and the database is asked once at a time."""

import asyncio
import gc

import pytest

from jotgate.server.flows.readiness import Readiness
from jotgate.server.store import StoreError


class Database:
    """Answers, or fails, when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.fault: Exception | None = None
        self.answers = asyncio.Event()

    async def ping(self) -> None:
        self.asked += 1
        await self.answers.wait()
        if self.fault is not None:
            raise self.fault


async def test_of_many_who_ask_at_once_one_asks_the_database() -> None:
    database = Database()
    readiness = Readiness(database.ping)
    many = [asyncio.create_task(readiness.check()) for _ in range(100)]
    await asyncio.sleep(0)
    database.answers.set()
    await asyncio.gather(*many)
    assert database.asked == 1
    await readiness.check()
    assert database.asked == 2, "what was so before says nothing of now"


async def test_all_who_asked_are_told_that_it_failed_and_the_next_one_asks_again() -> None:
    database = Database()
    database.fault = StoreError("away")
    database.answers.set()
    readiness = Readiness(database.ping)
    outcomes = await asyncio.gather(*(readiness.check() for _ in range(3)), return_exceptions=True)
    assert outcomes == [database.fault] * 3
    database.fault = None
    await readiness.check()


async def test_one_who_goes_away_takes_the_answer_from_nobody() -> None:
    database = Database()
    readiness = Readiness(database.ping)
    first, second = (asyncio.create_task(readiness.check()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    database.answers.set()
    await second
    assert database.asked == 1


def test_another_event_loop_asks_for_itself() -> None:
    async def ask() -> None:
        database.answers.set()
        await readiness.check()

    database = Database()
    readiness = Readiness(database.ping)
    for asked in (1, 2):
        asyncio.run(ask())
        assert database.asked == asked


async def test_an_answer_that_nobody_waits_for_any_more_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    database = Database()
    database.fault = StoreError("away")
    readiness = Readiness(database.ping)
    only = asyncio.create_task(readiness.check())
    await asyncio.sleep(0)
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    database.answers.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del readiness, only
    gc.collect()
    assert caplog.text == ""
