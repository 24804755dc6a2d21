"""The follower: what any process commits to the log counts in this one, and goes on to the feed in its order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jotgate.core.feed import Message, parse_event, parse_snapshot
from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocation
from jotgate.keygen import generate_key
from jotgate.server import live
from jotgate.server.feed import HEARTBEAT_S, Feed, Position
from jotgate.server.keys import REVOCATION_LIFE_S, KeyRing
from jotgate.server.live import Follower, LiveState
from jotgate.server.log import get_log
from jotgate.server.records import AuditEvent, Target, TargetRefused
from jotgate.server.sealing import MasterKey
from jotgate.server.settings import Settings
from jotgate.server.store.sqlite import SqliteStore

ISSUER = "https://auth.example.com"
KEY = generate_key("ES256")
KEYS = KeySet([KEY.public])
ACCESS = [generate_key("ES256").public for _ in range(2)]
NOW = 1_800_000_000
WITHIN_S = 15.0
KEEP_AUDIT_S = 10 * 86_400


@dataclass
class Process:
    """What one server process has of it, with a clock for heartbeats that tests set."""

    path: Path
    log_id: str
    ticks: float = 0.0
    now: int = NOW
    ahead_s: int = 0  # by how much the wall clock is wrong
    store: SqliteStore = field(init=False)
    live: LiveState = field(init=False)
    feed: Feed = field(init=False)
    keys: KeyRing = field(init=False)
    follower: Follower = field(init=False)

    def __post_init__(self) -> None:
        self.store = SqliteStore(self.path)
        self.store.open()
        head = self.store.attend(self.log_id)
        self.keys = KeyRing(
            self.store,
            MasterKey(bytes(32)),
            Settings(data_dir=self.path.parent),
            clock=lambda: self.now + self.ahead_s,
            monotonic=lambda: self.now,
            random=os.urandom,
            log=get_log(),
        )
        self.keys.open()
        self.live = LiveState(KeySet(ACCESS), monotonic=lambda: self.ticks)
        self.feed = Feed(
            KEY,
            issuer=ISSUER,
            entries=self.live.entries,
            keep_s=REVOCATION_LIFE_S,
            connections=10,
            connections_per_address=10,
            clock=lambda: self.now,
            monotonic=lambda: self.ticks,
        )
        self.follower = Follower(
            self.live,
            self.feed,
            self.store,
            head,
            self.keys,
            clock=lambda: self.now + self.ahead_s,
            random=lambda count: b"r" * count,
            monotonic=lambda: self.ticks,
            audit_keep_s=KEEP_AUDIT_S,
        )
        self.follower.wait_caught_up(WITHIN_S)

    def revoke(self, *jtis: str) -> None:
        """Log tokens as revoked, as another process does that tells nobody."""
        for jti in jtis:
            asyncio.run(self.store.revoke(Target("token", jti), clock=lambda: self.now, until_s=REVOCATION_LIFE_S))

    def known(self) -> set[str]:
        return {name for each in self.live.entries() for name in each.ids}

    def events(self, since: Position) -> list[Message]:
        blocks = self.feed.since(since).decode("ascii").split("\n\n")[:-2]  # without the heartbeat made for the answer
        return [parse_event(block.rpartition("data: ")[2], KEYS, ISSUER) for block in blocks]

    def close(self) -> None:
        self.follower.stop()
        self.store.close_now()


Begin = Callable[..., Process]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start a process on the test's database."""
    begun: list[Process] = []

    def one(log_id: str = "first", **fields: int) -> Process:
        begun.append(Process(tmp_path / "jotgate.db", log_id, **fields))
        return begun[-1]

    yield one
    for process in begun:
        process.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_another_process_logs_counts_here_and_is_published_in_order(begin: Begin) -> None:
    here, there = begin(), begin("second")
    assert here.feed.head == there.feed.head == Position("first", 0)
    there.revoke("a", "b")
    here.revoke("c")
    until(lambda: here.known() == there.known() == {"a", "b", "c"})
    until(lambda: here.feed.head == there.feed.head == Position("first", 3))
    for process in (here, there):
        told = process.events(Position("first", 0))
        assert [message.prev for message in told] == [0, *(message.seq for message in told[:-1])]
        assert [name for message in told for each in message.revocations for name in each.ids] == ["a", "b", "c"]


def test_a_long_log_is_read_in_pages_at_the_start(begin: Begin) -> None:
    first = begin()
    many = tuple(f"{n:022}" for n in range(1_300))
    asyncio.run(first.store.log_again([Revocation("session", many)], now=NOW, until_s=REVOCATION_LIFE_S))
    later = begin("second")
    assert later.known() == set(many)
    told = later.events(Position("first", 0))
    assert [(message.prev, message.seq) for message in told if message.revocations] == [
        (0, 500),
        (500, 1_000),
        (1_000, 1_300),
    ]
    position, raw = later.feed.snapshot()
    assert position == Position("first", 1_300)
    assert {name for each in parse_snapshot(raw, KEYS, ISSUER).revocations for name in each.ids} == set(many)


def test_what_has_long_run_out_is_not_read_at_the_start_and_what_a_jump_might_hide_is(begin: Begin) -> None:
    first = begin()
    first.revoke("old")
    first.now += 3_600
    first.revoke("young")
    first.close()
    hour_later = begin("second", now=NOW + REVOCATION_LIFE_S + 3_600)  # the clock may be ahead by an hour
    assert hour_later.known() == {"old", "young"}
    hour_later.close()
    assert begin("third", now=NOW + REVOCATION_LIFE_S + 3_701).known() == {"young"}


def test_entries_stay_for_their_life_whatever_the_wall_clock_does(begin: Begin) -> None:
    process = begin()
    process.revoke("a")
    until(lambda: process.known() == {"a"})
    process.now += 36_000
    process.ticks += REVOCATION_LIFE_S - 1
    process.live.tidy()
    assert process.known() == {"a"}
    process.ticks += 1
    process.live.tidy()
    assert process.known() == set()


def test_heartbeats_come_every_five_seconds_and_only_while_the_log_can_be_read(begin: Begin) -> None:
    process = begin()

    def beats() -> int:
        return sum(frame.prev == frame.seq for frame in process.feed._ring)

    until(lambda: beats() == 1)
    process.ticks += HEARTBEAT_S
    until(lambda: beats() == 2)
    process.store.close_now()
    process.ticks += HEARTBEAT_S
    until(lambda: process.follower._silent)
    assert beats() == 2
    process.store.open()
    until(lambda: beats() == 3)


def put_back(path: Path, seq: int, log_id: str | None = None) -> None:
    """Do to the log what restoring an older copy does."""
    with closing(sqlite3.connect(path, timeout=10)) as database, database:
        database.execute("DELETE FROM jotgate_revocations WHERE seq > ?", (seq,))
        database.execute("UPDATE jotgate_revocation_head SET seq = ?", (seq,))
        if log_id is not None:
            database.execute("UPDATE jotgate_revocation_head SET log_id = ?", (log_id,))


def test_a_database_put_back_under_a_running_process_gets_a_new_log_and_what_it_lost(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    process = begin()
    process.revoke("a", "b", "c")
    until(lambda: process.feed.head.seq == 3)
    put_back(process.path, 1)
    until(lambda: process.feed.head.log_id != "first" and process.feed.head.seq == 3)
    log = asyncio.run(process.store.revocations_after(0))
    assert {entry.id for entry in log} == {"a", "b", "c"} == process.known()
    assert asyncio.run(process.store.head()).log_id == process.feed.head.log_id
    told = [json.loads(record.getMessage())["event"] for record in caplog.records if record.name == "jotgate"]
    assert [each for each in told if not each.startswith("key_")] == ["database_restored", "revocations_logged_again"]


def test_a_database_put_back_is_noticed_although_its_log_has_grown_to_the_old_length_since(begin: Begin) -> None:
    process, other = begin(), begin("second")
    process.revoke("a", "b", "c")
    until(lambda: process.feed.head.seq == other.feed.head.seq == 3)
    with closing(sqlite3.connect(process.path, timeout=10)) as database, database:  # nobody looks in between
        database.execute("DELETE FROM jotgate_revocations WHERE seq > 1")
        database.execute(
            "INSERT INTO jotgate_revocations (seq, kind, id, at, until)"
            " SELECT seq + n, kind, 'new' || n, at, until FROM jotgate_revocations, (SELECT 1 AS n UNION SELECT 2)"
        )
    everything = {"a", "b", "c", "new1", "new2"}
    until(lambda: process.known() == other.known() == everything)
    until(lambda: process.feed.head == other.feed.head and process.feed.head.seq >= 5)
    assert process.feed.head.log_id not in ("first", "second")
    assert {entry.id for entry in asyncio.run(process.store.revocations_after(0))} == everything


def test_an_entry_that_was_read_last_and_is_deleted_when_it_is_dead_makes_no_other_log(begin: Begin) -> None:
    process = begin()
    process.revoke("a", "b")
    until(lambda: process.feed.head.seq == 2)
    with closing(sqlite3.connect(process.path, timeout=10)) as database, database:
        database.execute("DELETE FROM jotgate_revocations")
    process.revoke("c")
    until(lambda: process.known() == {"a", "b", "c"})
    until(lambda: process.feed.head.seq >= 3)
    assert process.feed.head == Position("first", 3)


def test_what_a_restored_database_lost_is_logged_again_although_that_fails_at_first(
    begin: Begin,
) -> None:
    process = begin()
    process.revoke("a", "b", "c")
    until(lambda: process.feed.head.seq == 3)
    with closing(sqlite3.connect(process.path, timeout=10)) as database, database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON jotgate_revocations BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    put_back(process.path, 1)
    until(lambda: process.follower._silent)
    with closing(sqlite3.connect(process.path, timeout=10)) as database, database:
        database.execute("DROP TRIGGER full")
    until(lambda: {entry.id for entry in asyncio.run(process.store.revocations_after(0))} == {"a", "b", "c"})
    until(lambda: process.feed.head.seq == 3)


@pytest.mark.parametrize("name", ["", "x" * 257, "\udcff", "a\0b", "a\n"])
def test_no_id_is_revoked_that_the_feed_could_not_tell(name: str) -> None:
    with pytest.raises(TargetRefused):
        Target("client", name)


def test_another_processs_new_log_is_followed_without_making_a_third(begin: Begin) -> None:
    process = begin()
    process.revoke("a", "b")
    until(lambda: process.feed.head.seq == 2)
    put_back(process.path, 2, log_id="renewed")
    until(lambda: process.feed.head == Position("renewed", 2))
    assert process.known() == {"a", "b"}
    assert len(asyncio.run(process.store.revocations_after(0))) == 2


def test_the_log_goes_on_where_another_process_takes_part_and_begins_anew_where_none_does(begin: Begin) -> None:
    first = begin("first")
    second = begin("second")
    first.close()
    third = begin("third")
    assert second.feed.head.log_id == third.feed.head.log_id == "first"
    second.close()
    third.close()
    assert begin("fourth").feed.head.log_id == "fourth"


def test_a_revoked_key_leaves_the_key_set_at_once(begin: Begin) -> None:
    process = begin()
    assert len(process.live.snapshot().keys) == 2
    process.live.revoke([Revocation("key", (ACCESS[0].kid,))])
    assert [key.kid for key in process.live.snapshot().keys] == [ACCESS[1].kid]


def test_listeners_hear_what_is_new_once_and_one_that_fails_harms_nobody(begin: Begin) -> None:
    process = begin()
    heard: list[Revocation] = []

    def fail(_: object) -> None:
        raise RuntimeError

    process.live.subscribe(fail)
    unsubscribe = process.live.subscribe(heard.extend)
    for _ in range(2):
        process.live.revoke([Revocation("token", ("a",))])
    assert heard == [Revocation("token", ("a",))]
    unsubscribe()
    unsubscribe()
    process.live.revoke([Revocation("token", ("b",))])
    assert len(heard) == 1


def test_sessions_long_dead_are_swept_away(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    from jotgate.server import live as module

    monkeypatch.setattr(module, "_SWEEP_EVERY_S", 0.01)
    process = begin()
    with closing(sqlite3.connect(process.path, timeout=10)) as database, database:
        database.execute(
            "INSERT INTO jotgate_accounts VALUES ('me', 'a@b.example', 'a@b.example', 'x', '', 1, NULL, 0, '', 0)"
        )
        for n in range(500):
            ends = NOW - 90_000 if n % 2 else NOW + 1
            database.execute(
                "INSERT INTO jotgate_families (id, sid, account_id, client_id, scopes, generation, mac_kid, retired, "
                "confirmed, auth_time, created_at, seen_at, idle_ends_at, ends_at) "
                "VALUES (?, ?, 'me', 'web', '', 0, 'k', '[]', 0, 1, 1, 1, ?, ?)",
                (n.to_bytes(16), f"sid{n}", ends, ends),
            )

    def left() -> int:
        with closing(sqlite3.connect(process.path, timeout=10)) as database:
            count: int = database.execute("SELECT count(*) FROM jotgate_families").fetchone()[0]
            return count

    until(lambda: left() == 250)


def test_a_clock_that_jumps_deletes_nothing_of_the_audit_trail(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_SWEEP_EVERY_S", 0.01)
    process = begin()
    line = AuditEvent(at=NOW, event="login", actor="account")
    asyncio.run(process.store.add_audit([line]))
    process.revoke("a-token")

    def left() -> tuple[int, int]:
        async def count() -> tuple[int, int]:
            lines = await process.store.audit_after(0, limit=10, event="login")
            return len(lines), len(await process.store.revocations_after(0))

        return asyncio.run(count())

    process.ahead_s = KEEP_AUDIT_S + 3 * 86_400
    until(lambda: left() == (1, 0))  # it has been swept, by the clock that is wrong
    process.ahead_s = 0
    process.now += KEEP_AUDIT_S + 3 * 86_400
    until(lambda: left() == (0, 0))
