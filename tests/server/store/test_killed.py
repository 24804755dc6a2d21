"""A process that is killed with -9 while it writes: everything that it had confirmed is there afterwards.

The victim is a real process. It prints a line for each thing that the store confirmed, as soon as it did; the lines
that reached the pipe before the kill are what a client would have been promised.
"""

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jotgate.server.rules.refresh import Ended, Replayed, Rotated
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store.opening import make_store
from tests.services import PostgresServer

VICTIM = """
import asyncio, itertools, json, os, sys
from jotgate.server.records import Account, Family
from jotgate.server.rules.refresh import Rotated
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store.opening import make_store

life = sys.argv[2]

def confirmed(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def person(store, name):
    account = Account(
        id=f"{life}-{name}", email=f"{name}@life{life}.example", password_hash="x" * 90, scopes=(), created_at=1000
    )
    await store.add_account(account)
    confirmed(account=account.id)
    for n in itertools.count():
        family = Family(
            id=os.urandom(16), sid=f"{account.id}-{n}", account_id=account.id, client_id="web", scopes=(),
            mac_kid="kid", auth_time=1000, created_at=1000, seen_at=1000, idle_ends_at=9000, ends_at=9000,
        )
        await store.add_family(family, expected_hash=account.password_hash)
        confirmed(session=family.sid, generation=0)
        for generation in range(5):
            outcome, current, _ = await store.rotate(
                family.id, generation, now=1001, mac_kid="kid", idle_s=5000, until_s=360
            )
            assert isinstance(outcome, Rotated), outcome
            confirmed(session=family.sid, generation=current.generation)
        if n % 2:
            await store.end_family(family.id, now=1002, until_s=360)
            confirmed(ended=family.sid)

async def main():
    store = make_store(Settings(database_url=Secret(sys.argv[1])))
    store.open()
    async with asyncio.TaskGroup() as people:
        for n in range(40):
            people.create_task(person(store, f"person{n}"))

asyncio.run(main())
"""


def live_and_be_killed(url: str, life: int, confirmations: int) -> list[dict[str, Any]]:
    """Run a victim until it has confirmed so many things, kill it, and return all that it confirmed."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, url, str(life)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    with victim.stdout as lines:
        seen = [line for _, line in zip(range(confirmations), lines, strict=False)]
        victim.kill()
        seen += [line for line in lines if line.endswith(b"\n")]
    assert victim.wait() == -9
    assert len(seen) >= confirmations
    return [json.loads(line) for line in seen]


async def check_everything_confirmed_is_there(url: str, confirmed: list[dict[str, Any]]) -> None:
    store = make_store(Settings(database_url=Secret(url)))
    store.open()
    try:
        for what in confirmed:
            if "account" in what:
                assert await store.account_by_id(what["account"]) is not None
        ended = {what["ended"] for what in confirmed if "ended" in what}
        logged = {entry.id: entry for entry in await store.revocations_after(0)}
        assert ended <= set(logged)
        assert sorted(entry.seq for entry in logged.values()) == list(range(1, len(logged) + 1))
        generations = {what["session"]: what["generation"] for what in confirmed if "session" in what}
        for sid, generation in generations.items():
            family = await store.family_by_sid(sid)
            assert family is not None
            outcome, _, _ = await store.rotate(
                family.id, generation, now=1_003, mac_kid="kid", idle_s=5_000, until_s=360
            )
            if sid in logged:  # an end may have been committed just before the kill took the chance to confirm it
                assert family.ended_at is not None
                assert outcome == Ended()
            else:
                # So may a rotation: then the last confirmed token is the predecessor of one that never arrived.
                assert family.generation in (generation, generation + 1)
                assert isinstance(outcome, Rotated if family.generation == generation else Replayed)
    finally:
        await store.close()


def kill_and_check(url: str, lives: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  the moment of a kill is no secret
    for life in range(lives):
        confirmed = live_and_be_killed(url, life, chance.randrange(1, 1_500))
        asyncio.run(check_everything_confirmed_is_there(url, confirmed))


def kill_and_check_sqlite(path: Path, lives: int, seed: int) -> None:
    kill_and_check(f"sqlite:///{path}", lives, seed)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_nothing_confirmed_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    kill_and_check_sqlite(tmp_path / "jotgate.db", lives=5, seed=1)


def test_nothing_confirmed_is_lost_on_postgresql_when_the_process_is_killed(own_postgres: PostgresServer) -> None:
    kill_and_check(own_postgres.new_database(), lives=4, seed=1)


@pytest.mark.soak
def test_nothing_confirmed_is_lost_in_a_long_series_of_kills(tmp_path: Path, own_postgres: PostgresServer) -> None:
    for seed in range(10):
        kill_and_check_sqlite(tmp_path / f"{seed}.db", lives=20, seed=seed)
        kill_and_check(own_postgres.new_database(), lives=10, seed=seed)
