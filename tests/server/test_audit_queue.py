"""Refusals are audited without a flood of them filling the database, and without one hiding another."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jotgate.core.errors import SettingsError
from jotgate.server import Settings
from jotgate.server.audit_queue import (
    CAPACITY,
    LINES_A_WINDOW,
    LINES_AN_ACCOUNT,
    WINDOW_S,
    AuditQueue,
    settings_picture,
)
from jotgate.server.log import get_log
from jotgate.server.records import AuditEvent, AuditName
from jotgate.server.secret import Secret
from jotgate.server.store import Store, StoreError
from jotgate.server.store.sqlite import SqliteStore

NOW = 1_795_000_000


class Bench:
    """A queue, the database that it writes to, and clocks that stand still until a test moves them."""

    def __init__(self, folder: Path, settings: dict[str, object] | None = None) -> None:
        self.ticks = 0.0
        self.store = SqliteStore(folder / "jotgate.db")
        self.store.open()
        self.queue = self.another(settings)

    def another(self, settings: dict[str, object] | None = None) -> AuditQueue:
        return AuditQueue(settings=settings, clock=lambda: NOW, monotonic=lambda: self.ticks, log=get_log("json"))

    def fail(self, times: int, *, account: str = "", event: AuditName = "login_failed") -> None:
        for _ in range(times):
            self.queue.put(AuditEvent(at=NOW, event=event, actor="anonymous", account_id=account))

    async def lines(self) -> list[AuditEvent]:
        return await self.store.audit_after(0, limit=100_000)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.store.close_now()


class Away(SqliteStore):
    """A database that cannot be reached."""

    async def add_audit(self, events: Sequence[AuditEvent]) -> None:
        raise StoreError("away")


async def test_a_flood_is_written_as_few_lines_and_one_that_counts_the_rest(bench: Bench) -> None:
    bench.fail(100_000)
    await bench.queue.write(bench.store)
    assert len(await bench.lines()) == LINES_A_WINDOW
    bench.ticks += WINDOW_S
    await bench.queue.write(bench.store)
    *each, rest = await bench.lines()
    assert {line.detail for line in each} == {""}
    assert (rest.event, rest.actor, json.loads(rest.detail)) == (
        "login_failed",
        "server",
        {"omitted": 100_000 - LINES_A_WINDOW, "known_accounts": False},
    )


async def test_hours_of_a_flood_stay_bounded(bench: Bench) -> None:
    minutes = 120
    for _ in range(minutes):
        bench.fail(500)
        bench.fail(500, account="a")
        bench.fail(500, account="a", event="password_change_refused")
        await bench.queue.write(bench.store)
        bench.ticks += WINDOW_S
    await bench.queue.write(bench.store)
    # Of each kind with the line that counts the rest, and for the one account a few besides.
    assert len(await bench.lines()) <= minutes * (3 * (LINES_A_WINDOW + 1) + 2 * LINES_AN_ACCOUNT)


async def test_made_up_addresses_do_not_hide_guesses_at_an_account(bench: Bench) -> None:
    bench.fail(10_000)
    bench.fail(1, account="the-target")
    bench.fail(1, account="the-target", event="password_change_refused")
    await bench.queue.write(bench.store)
    assert [line.event for line in await bench.lines() if line.account_id == "the-target"] == [
        "login_failed",
        "password_change_refused",
    ]


async def test_what_comes_while_the_database_is_away_is_kept_up_to_a_bound_and_the_rest_told(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    away: Store = Away(tmp_path / "other.db")
    put = 0
    while put < CAPACITY + 300:
        bench.fail(LINES_A_WINDOW)
        put += LINES_A_WINDOW
        with pytest.raises(StoreError):
            await bench.queue.write(away)
        bench.ticks += WINDOW_S
    bench.fail(0)
    await bench.queue.write(bench.store)
    assert len(await bench.lines()) == CAPACITY
    told = [json.loads(each.getMessage()) for each in caplog.records if each.name == "jotgate"]
    assert sum(each["count"] for each in told if each["event"] == "audit_dropped") == put - CAPACITY


async def test_at_the_end_everything_is_written_or_what_is_lost_is_told(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.fail(LINES_A_WINDOW + 5)
    await bench.queue.write(bench.store, everything=True)
    bench.queue.give_up()
    assert json.loads((await bench.lines())[-1].detail)["omitted"] == 5
    assert not [each for each in caplog.records if each.name == "jotgate"]
    bench.fail(LINES_A_WINDOW + 5)
    with pytest.raises(StoreError):
        await bench.queue.write(Away(tmp_path / "other.db"))
    bench.queue.give_up()
    (told,) = [json.loads(each.getMessage()) for each in caplog.records if each.name == "jotgate"]
    assert (told["event"], told["count"]) == ("audit_dropped", LINES_A_WINDOW + 5)


# Settings

MASTER = "A" * 43
SECRET_URL = "postgresql://jotgate:hunter2hunter2@db.example/jotgate"


def with_secrets(**changes: object) -> Settings:
    given: dict[str, Any] = {
        "data_dir": Path("/srv/jotgate"),
        "master_key": Secret(MASTER),
        "database_url": Secret(SECRET_URL),
        "redis_url": Secret("redis://:hunter2hunter2@redis.example/0"),
        "verifier_tokens": (Secret("hunter2" * 6), Secret("hunter2" * 7)),
    }
    return Settings(**(given | changes))


def test_of_secrets_only_whether_they_are_set_is_told() -> None:
    settings = with_secrets()
    shown = settings_picture(settings)
    assert set(shown) == set(Settings.__struct_fields__)
    text = json.dumps(shown)
    for secret in (MASTER, "hunter2", "db.example"):
        assert secret not in text
    assert (shown["master_key"], shown["master_key_previous"]) == ("(set)", None)
    assert shown["verifier_tokens"] == "(2 set)"
    # Nothing is made of a secret: two values look alike.
    assert settings_picture(with_secrets(master_key=Secret("B" * 42 + "A"))) == shown


def test_a_change_behind_the_cut_of_a_long_value_is_a_change() -> None:
    many = tuple(f"scope-{n}" for n in range(100))
    one, other = (settings_picture(with_secrets(default_scopes=(*many, last)))["default_scopes"] for last in "ab")
    assert isinstance(one, str)
    assert len(one) < 200
    assert one != other


async def test_settings_are_told_at_a_start_when_they_are_others_than_the_last(bench: Bench) -> None:
    first = settings_picture(with_secrets())
    second = settings_picture(with_secrets(session_idle_s=3_600, master_key=None))
    for picture in (first, first, second, second, first):
        queue = bench.another(picture)
        for _ in range(2):
            await queue.write(bench.store)
    told = [json.loads(line.detail) for line in await bench.lines()]
    assert [each["changed"] for each in told] == [
        [],
        ["master_key", "session_idle_s"],
        ["master_key", "session_idle_s"],
    ]
    assert told[1]["settings"]["session_idle_s"] == 3_600


@pytest.mark.parametrize("keep_s", [0, 86_399, 315_360_001])
def test_the_trail_is_kept_for_a_day_at_least_and_ten_years_at_most(keep_s: int) -> None:
    with pytest.raises(SettingsError, match="audit_keep_s must be from 86400 to 315360000"):
        Settings(audit_keep_s=keep_s)
