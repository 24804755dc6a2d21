"""PostgreSQL at its worst: transactions undone, connections cut, restarts, crashes, and no connection to be had."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from jotgate.server.records import (
    Account,
    AccountChange,
    AccountChanged,
    AuditEvent,
    Code,
    Family,
    LogEntry,
    Revoked,
    Target,
)
from jotgate.server.rules.refresh import Ended, Outcome, Replayed, Rotated
from jotgate.server.secret import Secret
from jotgate.server.store import Approve, StoreBusy, StoreError
from jotgate.server.store.postgres import PostgresStore
from tests.server.store.support import PASSWORD_HASH
from tests.services import PostgresServer

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
if TYPE_CHECKING:
    Raw = asyncpg.Connection[asyncpg.Record]  # which takes no parameters at run time
Rotation = tuple[Outcome, Family | None, Account | None]

WITHIN_S = 60  # only a failing test waits so long; a crashed PostgreSQL may take a while to recover
FAR = 10**6


@pytest.fixture
def store(postgres_database: str) -> Iterator[PostgresStore]:
    store = PostgresStore(Secret(postgres_database))
    store.open()
    yield store
    store.close_now()


@pytest.fixture
async def session(store: PostgresStore, new_account: NewAccount, new_family: NewFamily) -> tuple[Account, Family]:
    """An account with one session."""
    account = new_account()
    family = new_family(account, idle_ends_at=FAR, ends_at=FAR)
    await store.add_account(account)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    return account, family


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[Raw]:
    """A connection of somebody else's to the same database."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def waits_for_a_lock(watcher: Raw, *, waiting: int = 1) -> None:
    """Return when so many wait for a lock in the watcher's database."""
    deadline = time.monotonic() + WITHIN_S
    asks = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE NOT granted AND datname = current_database()"
    )
    while await watcher.fetchval(asks) < waiting:
        assert time.monotonic() < deadline, "nobody waits"
        await asyncio.sleep(0.01)


# What the server undoes is done again


async def test_a_deadlock_with_somebody_elses_transaction_is_tried_again(
    store: PostgresStore,
    session: tuple[Account, Family],
    new_family: NewFamily,
    postgres_server: PostgresServer,
    postgres_database: str,
) -> None:
    account, family = session
    other = new_family(account, idle_ends_at=FAR, ends_at=FAR)
    await store.add_family(other, expected_hash=PASSWORD_HASH)
    deadlocks = postgres_server.said().count("deadlock detected")
    async with raw(postgres_database) as rival, raw(postgres_database) as watcher:
        await rival.execute("SET deadlock_timeout = '1h'")  # so that the server undoes the store's transaction
        await rival.execute("BEGIN")
        await rival.execute("SELECT 1 FROM jotgate_families WHERE id = $1 FOR UPDATE", other.id)
        changing = asyncio.ensure_future(change_password(store, account))
        await waits_for_a_lock(watcher)  # it has the account and wants the session, and here it is the other way round
        await rival.execute("SELECT 1 FROM jotgate_accounts WHERE id = $1 FOR UPDATE", account.id)
        await rival.execute("COMMIT")
        done = await changing
    assert postgres_server.said().count("deadlock detected") > deadlocks
    assert done is not None
    assert {entry.id for entry in done.entries} == {family.sid, other.sid}
    assert await store.revocations_after(0) == list(done.entries)  # once


async def undo_some(url: str, times: int) -> None:
    """Have the server refuse so many changes of sessions as if they could not be serialised with others."""
    async with raw(url) as connection:
        await connection.execute(
            f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER undo BEFORE UPDATE ON jotgate_families FOR EACH ROW EXECUTE FUNCTION undo();
            """
        )


async def test_a_serialization_failure_is_tried_again_and_happens_once(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    _, family = session
    await undo_some(postgres_database, 2)
    outcome, _, _ = await store.rotate(family.id, 0, now=1_100, mac_kid="second", idle_s=500, until_s=360)
    assert isinstance(outcome, Rotated)
    assert await store.family_by_id(family.id) == outcome.family
    assert await store.end_family(family.id, now=1_101, until_s=360) is True
    assert [entry.seq for entry in await store.revocations_after(0)] == [1]


async def test_what_the_server_undoes_every_time_is_told_as_busy_and_has_changed_nothing(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    _, family = session
    await undo_some(postgres_database, 1_000)
    before = await store.family_by_id(family.id)
    began = time.monotonic()
    with pytest.raises(StoreBusy, match="40001"):
        await store.end_family(family.id, now=1_101, until_s=360)
    assert time.monotonic() - began < 10
    assert await store.family_by_id(family.id) == before
    assert await store.revocations_after(0) == []
    await store.ping()


# Who begins first may commit last


async def test_a_revocation_that_begins_first_and_commits_last_comes_last_in_the_log(
    store: PostgresStore, session: tuple[Account, Family], new_family: NewFamily, postgres_database: str
) -> None:
    account, slow = session
    quick = new_family(account)
    await store.add_family(quick, expected_hash=PASSWORD_HASH)
    other = PostgresStore(Secret(postgres_database))
    other.open()
    async with raw(postgres_database) as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM jotgate_families WHERE id = $1 FOR UPDATE", slow.id)
        first = asyncio.ensure_future(store.revoke(Target("session", slow.sid), clock=lambda: 1_100, until_s=360))
        await waits_for_a_lock(holder)
        await other.end_family(quick.id, now=1_101, until_s=360)
        between = await other.revocations_after(0)
        await holder.execute("ROLLBACK")
    done = await first
    await other.close()
    assert [(entry.seq, entry.id) for entry in between] == [(1, quick.sid)]
    assert await store.revocations_after(between[-1].seq) == list(done.entries)
    assert [(entry.seq, entry.id) for entry in done.entries] == [(2, slow.sid)]


async def test_nobody_gets_a_number_behind_one_that_is_not_committed_yet(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    """The entry is written and numbered, and its transaction hangs: no later number may be seen before it."""
    _, family = session
    other = PostgresStore(Secret(postgres_database))
    other.open()
    revoke = Target("client", "cli")
    await store.revoke(revoke, clock=lambda: 1_050, until_s=360)
    async with raw(postgres_database) as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM jotgate_cuts FOR UPDATE")
        first = asyncio.ensure_future(store.revoke(revoke, clock=lambda: 1_100, until_s=360))
        await waits_for_a_lock(holder)
        second = asyncio.ensure_future(other.end_family(family.id, now=1_101, until_s=360))
        seen = await other.revocations_after(0)
        while len(await holder.fetch("SELECT 1 FROM pg_locks WHERE NOT granted")) < 2:
            seen = await other.revocations_after(0)
        assert not second.done()
        await holder.execute("ROLLBACK")
    await asyncio.gather(first, second)
    await other.close()
    assert [entry.seq for entry in seen] == [1]
    log: list[LogEntry] = await store.revocations_after(seen[-1].seq)
    assert [(entry.seq, entry.id) for entry in log] == [(2, "cli"), (3, family.sid)]


# A password changes in the middle of a login


async def test_a_login_waits_for_a_change_of_password_that_is_not_committed_yet_and_is_refused(
    store: PostgresStore, session: tuple[Account, Family], new_family: NewFamily, postgres_database: str
) -> None:
    account, mine = session
    other, late = new_family(account), new_family(account)
    await store.add_family(other, expected_hash=PASSWORD_HASH)
    async with raw(postgres_database) as holder, raw(postgres_database) as watcher:
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM jotgate_families WHERE id = $1 FOR UPDATE", other.id)
        changing = asyncio.ensure_future(change_password(store, account))
        await waits_for_a_lock(watcher)  # the account has its new password, and its sessions are being ended
        beginning = asyncio.ensure_future(store.add_family(late, expected_hash=PASSWORD_HASH))
        await waits_for_a_lock(watcher, waiting=2)
        await holder.execute("ROLLBACK")
        done, began = await asyncio.gather(changing, beginning)
    assert done is not None
    assert {entry.id for entry in done.entries} == {mine.sid, other.sid}
    assert began is False
    assert await store.family_by_id(late.id) is None


async def test_a_change_of_password_waits_for_a_login_that_is_not_committed_yet_and_ends_it(
    store: PostgresStore, session: tuple[Account, Family], new_family: NewFamily, postgres_database: str
) -> None:
    account, mine = session
    early = new_family(account)
    async with raw(postgres_database) as holder, raw(postgres_database) as watcher:
        await holder.execute(
            """
            CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
            CREATE TRIGGER hang AFTER INSERT ON jotgate_families FOR EACH ROW EXECUTE FUNCTION hang();
            """
        )
        await holder.execute("BEGIN; SELECT pg_advisory_xact_lock(7)")
        beginning = asyncio.ensure_future(store.add_family(early, expected_hash=PASSWORD_HASH))
        await waits_for_a_lock(watcher)  # the session is written, and nobody else sees it
        changing = asyncio.ensure_future(change_password(store, account))
        await waits_for_a_lock(watcher, waiting=2)
        await holder.execute("ROLLBACK")
        began, done = await asyncio.gather(beginning, changing)
    assert began is True
    assert done is not None
    assert {entry.id for entry in done.entries} == {mine.sid, early.sid}
    ended = await store.family_by_id(early.id)
    assert ended is not None
    assert ended.ended_at == 1_100


async def change_password(store: PostgresStore, account: Account) -> Revoked | None:
    return await store.set_password(
        account.id,
        expected_hash=account.password_hash,
        expected_version=0,
        password_hash="new",
        now=1_100,
        until_s=360,
    )


# Connections that are cut


class Load:
    """Clients that sign up, log in, refresh and log out until they are told to stop, and remember what was confirmed.

    What raised may have happened or not: nobody was promised it. Anything but a `StoreError` fails the test.
    """

    def __init__(self, store: PostgresStore, new_account: NewAccount, new_family: NewFamily) -> None:
        self._store = store
        self._new_account = new_account
        self._new_family = new_family
        self._stop = False
        self._changed = asyncio.Condition()
        self.confirmed: list[tuple[Family, int, bool]] = []  # session, generation, whether it was ended
        self.faults: list[StoreError] = []

    async def run(self, clients: int = 6) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def goes_on(self, more: int = 20) -> None:
        """Return when so many more sessions have been confirmed."""
        async with asyncio.timeout(WITHIN_S), self._changed:
            goal = len(self.confirmed) + more
            await self._changed.wait_for(lambda: len(self.confirmed) >= goal)

    def stop(self) -> None:
        self._stop = True

    async def _client(self) -> None:
        while not self._stop:
            account = self._new_account()
            family = self._new_family(account, idle_ends_at=FAR, ends_at=FAR)
            generation, ended, begun = 0, False, False
            try:
                await self._store.add_account(account)
                await self._store.add_family(family, expected_hash=PASSWORD_HASH)
                begun = True
                for _ in range(3):
                    outcome, _, _ = await self._store.rotate(
                        family.id, generation, now=1_100, mac_kid="second", idle_s=FAR, until_s=360
                    )
                    # A cut after the COMMIT: the store looks again, and finds what it did itself.
                    assert isinstance(outcome, Rotated | Replayed)
                    generation += 1
                    assert outcome.family.generation == generation
                ended = await self._store.end_family(family.id, now=1_101, until_s=360)
                assert ended
            except StoreError as fault:
                self.faults.append(fault)
                await asyncio.sleep(0.01)
            if begun:
                async with self._changed:
                    self.confirmed.append((family, generation, ended))
                    self._changed.notify_all()

    async def check_nothing_is_lost(self) -> None:
        log = {entry.id for entry in await self._store.revocations_after(0, limit=10**6)}
        for family, generation, ended in self.confirmed:
            kept = await self._store.family_by_id(family.id)
            assert kept is not None
            assert kept.generation >= generation
            assert (kept.ended_at is not None) == (family.sid in log)
            if ended:
                assert kept.ended_at == 1_101
                assert (await self._store.rotate(family.id, 3, now=1_102, mac_kid="x", idle_s=1, until_s=1))[
                    0
                ] == Ended()
        seqs = [entry.seq for entry in await self._store.revocations_after(0, limit=10**6)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_connections_that_are_cut_under_load_lose_nothing_confirmed(
    store: PostgresStore, new_account: NewAccount, new_family: NewFamily, postgres_database: str
) -> None:
    load = Load(store, new_account, new_family)
    running = asyncio.ensure_future(load.run())
    cut = 0
    async with raw(postgres_database) as killer:
        for _ in range(15):
            await load.goes_on(4)
            cut += await killer.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    await load.goes_on()
    load.stop()
    await running
    assert cut > 15
    await load.check_nothing_is_lost()


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize("how", [PostgresServer.restart, PostgresServer.crash])
async def test_a_server_that_restarts_under_load_loses_nothing_confirmed(
    own_postgres: PostgresServer,
    new_account: NewAccount,
    new_family: NewFamily,
    how: Callable[[PostgresServer], None],
    times: int,
) -> None:
    store = PostgresStore(Secret(own_postgres.new_database()))
    store.open()
    load = Load(store, new_account, new_family)
    running = asyncio.ensure_future(load.run())
    for _ in range(times):
        await load.goes_on(10)
        await asyncio.to_thread(how, own_postgres)
        if how is PostgresServer.crash:
            await asyncio.to_thread(own_postgres.start)
    await load.goes_on(10)
    load.stop()
    await running
    await load.check_nothing_is_lost()
    await store.close()


async def test_while_the_server_is_away_everything_is_refused_in_bounded_time_and_comes_back_by_itself(
    own_postgres: PostgresServer, new_account: NewAccount
) -> None:
    store = PostgresStore(Secret(own_postgres.new_database()))
    store.open()
    account = new_account()
    await store.add_account(account)
    await asyncio.to_thread(own_postgres.stop)
    began = time.monotonic()
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.account_by_id(account.id)
    with pytest.raises(StoreError, match="cannot be reached"):
        await store.ping()
    assert time.monotonic() - began < 10
    await asyncio.to_thread(own_postgres.start)
    assert await store.account_by_id(account.id) == account
    await store.close()


# No connection to be had


async def test_when_all_connections_are_taken_the_others_are_told_so_in_bounded_time(
    postgres_database: str, new_account: NewAccount, new_family: NewFamily
) -> None:
    store = PostgresStore(Secret(postgres_database), connections=2, wait_s=0.5)
    store.open()
    account = new_account()
    family = new_family(account)
    await store.add_account(account)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    pool = await store._pool()
    async with pool.connection(), pool.connection():  # for longer than anybody waits
        began = time.monotonic()
        told = await asyncio.gather(
            store.end_family(family.id, now=1_100, until_s=360),
            *(store.account_by_id(account.id) for _ in range(20)),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 5
    assert {type(each) for each in told} == {StoreBusy}
    assert await store.account_by_id(account.id) == account
    assert await store.revocations_after(0) == []  # who was told "busy" finds that nothing happened
    await store.close()


async def test_a_server_that_takes_no_more_connections_is_busy(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    name = postgres_database.rpartition("/")[2]
    postgres_server.query("CREATE ROLE limited LOGIN")
    postgres_server.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited", database=name)
    store = PostgresStore(Secret(postgres_server.url_of(name, user="limited")))
    store.open()
    postgres_server.query("ALTER ROLE limited CONNECTION LIMIT 0")
    began = time.monotonic()
    with pytest.raises(StoreBusy, match="53300"):
        await store.head()
    assert time.monotonic() - began < 10
    postgres_server.query("ALTER ROLE limited CONNECTION LIMIT -1")
    assert (await store.head()).seq == 0
    await store.close()


async def test_a_lock_that_somebody_holds_too_long_is_busy_and_harms_nothing(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    account, family = session
    hasty = PostgresStore(Secret(postgres_database), wait_s=0.5)
    hasty.open()
    async with raw(postgres_database) as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM jotgate_revocation_head FOR UPDATE")
        with pytest.raises(StoreBusy):
            await hasty.revoke(Target("account", account.id), clock=lambda: 1_100, until_s=360)
        await holder.execute("ROLLBACK")
    kept = await store.family_by_id(family.id)
    assert kept is not None
    assert kept.ended_at is None
    done: Revoked = await hasty.revoke(Target("account", account.id), clock=lambda: 1_100, until_s=360)
    assert [entry.seq for entry in done.entries] == [1]
    await hasty.close()


# A refresh reads, decides, and swaps: what comes in between


def meanwhile(url: str, change: Callable[[PostgresStore], Coroutine[Any, Any, object]]) -> Approve:
    """What a refresh calls when it has read and decided: has another process commit a change then, once."""
    done: list[Family] = []

    async def elsewhere() -> None:
        store = PostgresStore(Secret(url))
        await asyncio.to_thread(store.open)
        await change(store)
        await store.close()

    def approve(family: Family, account: Account) -> None:
        if not done:
            done.append(family)
            with ThreadPoolExecutor(1) as other:
                other.submit(lambda: asyncio.run(elsewhere())).result(WITHIN_S)

    return approve


def step_on(store: PostgresStore, family: Family, approve: Approve | None = None) -> Coroutine[Any, Any, Rotation]:
    """Present generation 0."""
    return store.rotate(family.id, 0, now=2_000, mac_kid="k", idle_s=1_000, until_s=3_720, approve=approve)


@pytest.mark.parametrize("kind", ["all", "client", "account", "session"])
async def test_a_session_that_ends_between_the_reading_and_the_swap_of_a_refresh_stays_ended(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str, kind: str
) -> None:
    account, family = session
    ids = {"all": "", "client": family.client_id, "account": account.id, "session": family.sid}
    target = Target(kind, ids[kind])  # type: ignore[arg-type] # one of those that there are
    approve = meanwhile(postgres_database, lambda other: other.revoke(target, clock=lambda: 2_000, until_s=3_720))
    outcome, _, _ = await step_on(store, family, approve)
    assert outcome == Ended()
    now = await store.family_by_id(family.id)
    assert now is not None
    assert (now.generation, now.ended_at) == (0, 2_000)


async def test_the_swap_of_a_refresh_waits_for_an_end_of_all_sessions_that_is_not_committed_yet(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    _, family = session
    async with raw(postgres_database) as ending, raw(postgres_database) as watcher:
        await ending.execute("BEGIN; SELECT pg_advisory_xact_lock({}, {})".format(*store._opened().sessions_lock))
        refreshing = asyncio.create_task(step_on(store, family))
        await waits_for_a_lock(watcher)  # it has read the session as one that lives
        await ending.execute("INSERT INTO jotgate_cuts (kind, id, seq, at) VALUES ('all', '', 99, 1999)")
        await ending.execute("COMMIT")
        outcome, _, _ = await refreshing
    assert outcome == Ended()


async def test_a_refresh_that_comes_first_between_the_reading_and_the_swap_has_its_token_given_to_both(
    store: PostgresStore, session: tuple[Account, Family], postgres_database: str
) -> None:
    _, family = session
    approve = meanwhile(postgres_database, lambda other: step_on(other, family))
    outcome, now, _ = await step_on(store, family, approve)
    assert isinstance(outcome, Replayed)
    assert now == await store.family_by_id(family.id)
    assert now is not None
    assert now.generation == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_a_connection_that_is_lost_in_the_swap_costs_nobody_the_session(
    store: PostgresStore,
    session: tuple[Account, Family],
    postgres_server: PostgresServer,
    postgres_database: str,
    commits: bool,
) -> None:
    """Whether the swap was done or not: the caller gets the token that counts."""
    _, family = session
    name = postgres_database.rpartition("/")[2]
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'SELECT jotgate_advance_family%'"
    async with raw(postgres_database) as holder:
        await holder.execute("BEGIN")
        await holder.execute("SELECT FROM jotgate_families WHERE id = $1 FOR UPDATE", family.id)
        refreshing = asyncio.create_task(step_on(store, family))
        await waits_for_a_lock(holder)
        [row] = postgres_server.query(waiting + " AND wait_event_type = 'Lock'", name)
        postgres_server.query("SELECT pg_terminate_backend($1)", row["pid"])
        if commits:  # as if the swap had been done before the answer was lost
            step = "UPDATE jotgate_families SET generation = 1, mac_kid = 'k', retired = '[[0,2000]]' WHERE id = $1"
            await holder.execute(step, family.id)
        await holder.execute("COMMIT")
    outcome, now, _ = await refreshing
    assert isinstance(outcome, Replayed if commits else Rotated)
    assert now == await store.family_by_id(family.id)
    assert now is not None
    assert now.generation == 1


async def test_a_refresh_takes_two_round_trips_and_a_login_one(
    store: PostgresStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)
    family = new_family(account, idle_ends_at=FAR, ends_at=FAR)
    asked: list[str] = []
    async with (await store._pool()).connection() as connection:
        connection.add_query_logger(lambda query: asked.append(query.query))  # kept with the connection in the pool
    told = AuditEvent(at=1_000, event="login", actor="account", account_id=account.id, sid=family.sid)
    await store.add_family(family, expected_hash=PASSWORD_HASH, audit=told)
    await asyncio.sleep(0)  # the driver tells a little later
    assert len(asked) == 1
    await step_on(store, family)
    await asyncio.sleep(0)
    assert len(asked) == 3


async def test_links_of_one_sign_up_that_are_used_at_once_wait_for_each_other_in_no_circle(
    store: PostgresStore, new_account: NewAccount, postgres_database: str
) -> None:
    for number in range(10):
        email = f"person{number}@example.com"
        pending = [
            Code(hash=f"{number} {link}".encode(), purpose="signup", email=email, created_at=1_000, expires_at=2_000)
            for link in range(4)
        ]
        await store.queue(codes=pending)

        async def use(code: Code, email: str = email) -> AccountChanged | None:
            made = AccountChange(account=new_account(email=email), void=("signup",))
            return await store.use_code(code.hash, lambda *_: made, now=1_100, until_s=360)

        assert sum(done is not None for done in await asyncio.gather(*map(use, pending))) == 1
    async with raw(postgres_database) as connection:
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        counted = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert await connection.fetchval(counted) == 0
