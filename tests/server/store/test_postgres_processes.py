"""The PostgreSQL store in its process: event loops that end, forks, the watch, and what its sessions insist on.

Between the store and the server stands a pipe where a test wants to cut or stop what passes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jotgate.server.records import Account, LogHead, Target
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy, StoreError, postgres_watch
from jotgate.server.store.postgres import PostgresStore
from jotgate.server.store.postgres_pool import LOCK_S, Connection, as_store_error, is_lost
from tests.services import PASSWORD, PostgresServer

NewAccount = Callable[..., Account]

WITHIN_S = 30  # only a failing test waits so long
CONNECTED = "SELECT pid FROM pg_stat_activity WHERE application_name = 'jotgate' AND datname = $1"
SHARES = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND pid <> $1"


@pytest.fixture
def store(postgres_database: str) -> Iterator[PostgresStore]:
    store = PostgresStore(Secret(postgres_database))
    store.open()
    yield store
    store.close_now()


@pytest.fixture
def connected(postgres_server: PostgresServer, postgres_database: str) -> Callable[[], list[int]]:
    """The server processes that jotgate's connections to the test's database have right now."""

    def ask() -> list[int]:
        return [row["pid"] for row in postgres_server.query(CONNECTED, postgres_database.rpartition("/")[2])]

    return ask


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What every session insists on


async def test_confirmed_is_durable_whatever_the_database_has_as_its_default(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    name = postgres_database.rpartition("/")[2]
    for setting in ("synchronous_commit = off", "default_transaction_isolation = 'serializable'", "lock_timeout = 0"):
        postgres_server.query(f"ALTER DATABASE {name} SET {setting}")
    store = PostgresStore(Secret(f"{postgres_database}?synchronous_commit=off"))
    store.open()

    async def settings(connection: Connection) -> list[object]:
        names = ("synchronous_commit", "transaction_isolation", "lock_timeout", "statement_timeout")
        return [await connection.fetchval(f"SHOW {name}") for name in names]

    assert await store._transaction("BEGIN", settings) == ["on", "read committed", "7s", "10s"]
    await store.close()


async def test_a_process_that_is_stopped_in_a_transaction_does_not_hold_the_others_up_for_ever(
    store: PostgresStore,
) -> None:
    async def idle_timeout(connection: Connection) -> tuple[object, object]:
        show = "SELECT setting::int FROM pg_settings WHERE name = $1"
        return (
            await connection.fetchval(show, "idle_in_transaction_session_timeout"),
            await connection.fetchval(show, "lock_timeout"),
        )

    idle_ms, lock_ms = await store._transaction("BEGIN", idle_timeout)
    assert isinstance(idle_ms, int)
    assert isinstance(lock_ms, int)
    assert 0 < idle_ms < lock_ms  # who waits outlasts who sleeps


# Event loops and forks


def test_the_connections_of_a_loop_end_with_it(
    store: PostgresStore, connected: Callable[[], list[int]], new_account: NewAccount
) -> None:
    for _ in range(3):

        async def use() -> None:
            account = new_account()
            await asyncio.gather(*(store.account_by_id("nobody") for _ in range(20)))
            await store.add_account(account)
            assert 1 <= len(await asyncio.to_thread(connected)) <= 8

        asyncio.run(use())
        wait_until(lambda: connected() == [])


def test_a_closed_store_leaves_no_connection_and_no_lock(
    store: PostgresStore, connected: Callable[[], list[int]]
) -> None:
    store.attend("one")
    asyncio.run(store.wait_changed(0.01))
    assert connected()
    store.close_now()
    wait_until(lambda: connected() == [])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_parent_and_child_both_go_on_with_a_store_that_was_used_before_a_fork(postgres_database: str) -> None:
    program = """
        import asyncio, contextlib, os, socket, sys, warnings
        from jotgate.server.records import Account
        from jotgate.server.secret import Secret
        from jotgate.server.store.postgres import PostgresStore
        warnings.simplefilter("ignore", DeprecationWarning)  # that Python 3.12 warns of forking threads is the point

        store = PostgresStore(Secret(sys.argv[1]))

        async def add(name, count):
            async def one(n):
                account_id = f"{name}{n}"
                await store.add_account(
                    Account(id=account_id, email=account_id + "@example.com", password_hash="", scopes=(), created_at=1)
                )
                assert await store.account_by_id(account_id) is not None
            await asyncio.gather(*(one(n) for n in range(count)))

        def connections():
            count = 0
            for descriptor in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as each:
                    count += each.family == socket.AF_INET
            return count

        store.open()
        head = store.attend("log")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(add("before", 50))
        assert connections() > 1
        children = []
        for child in range(3):
            pid = os.fork()
            if not pid:
                try:
                    assert connections() == 0  # let go of, or the server would not notice the parent's end
                    store.open()  # already is
                    asyncio.run(add(f"child{child}-", 50))
                    assert store.attend("another") == head  # the parent takes part
                    store.close_now()
                    os._exit(0)
                except BaseException as error:
                    os.write(2, repr(error).encode())
                    os._exit(1)
            children.append(pid)
            loop.run_until_complete(add(f"parent{child}-", 50))
        for pid in children:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(len(loop.run_until_complete(store.list_accounts(limit=1000))))
        loop.run_until_complete(store.close())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), postgres_database],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["350"]


# The watch


def test_a_watch_that_lost_its_connection_takes_part_again_and_hears_again(
    store: PostgresStore, postgres_server: PostgresServer, postgres_database: str, connected: Callable[[], list[int]]
) -> None:
    name = postgres_database.rpartition("/")[2]
    assert store.attend("one") == LogHead("one", 0)
    for n in range(3):
        (before,) = connected()
        postgres_server.query("SELECT pg_terminate_backend($1)", before)

        def shares(lost: int = before) -> bool:
            return [row["count"] for row in postgres_server.query(SHARES, lost, database=name)] == [1]

        wait_until(shares)
        other = PostgresStore(Secret(postgres_database))
        other.open()
        assert other.attend(f"not-alone-{n}").log_id == "one"

        async def hears(writer: PostgresStore = other, jti: str = f"jti-{n}") -> float:
            while True:  # until what was told of the new connection has been heard
                began = time.monotonic()
                await store.wait_changed(0.3)
                if time.monotonic() - began > 0.25:
                    break
            waiting = asyncio.ensure_future(store.wait_changed(WITHIN_S))
            await asyncio.sleep(0)
            began = time.monotonic()
            await writer.revoke(Target("token", jti), clock=lambda: 1_100, until_s=360)
            await waiting
            return time.monotonic() - began

        assert asyncio.run(hears()) < 5
        other.close_now()


async def test_waiting_without_a_server_takes_its_time_and_no_longer(own_postgres: PostgresServer) -> None:
    store = PostgresStore(Secret(own_postgres.new_database()))
    store.open()
    await asyncio.to_thread(store.attend, "one")
    await asyncio.to_thread(own_postgres.stop)
    await store.wait_changed(0.1)  # what was told before
    began = time.monotonic()
    await store.wait_changed(0.3)
    assert 0.25 < time.monotonic() - began < 5
    await asyncio.to_thread(own_postgres.start)
    async with asyncio.timeout(WITHIN_S):
        while time.monotonic() - began < WITHIN_S:  # woken by the connection that is there again
            before = time.monotonic()
            await store.wait_changed(5)
            if time.monotonic() - before < 4:
                break
    assert await store.head() == LogHead("one", 0)
    await store.close()


async def test_to_attend_without_a_server_is_told_in_bounded_time(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres_watch._ANSWER_S + LOCK_S < 15
    monkeypatch.setattr(postgres_watch, "_ANSWER_S", 1.0)
    monkeypatch.setattr(postgres_watch, "LOCK_S", 0.5)
    store = PostgresStore(Secret(own_postgres.new_database()))
    store.open()
    await asyncio.to_thread(own_postgres.stop)
    began = time.monotonic()
    with pytest.raises(StoreBusy):
        await asyncio.to_thread(store.attend, "one")
    assert time.monotonic() - began < 10
    await store.close()


# A server that has become a stand-by, whose sessions live on: so do some managed ones at a failover


async def demote(connection: Connection) -> None:
    await connection.execute("SET default_transaction_read_only = on")


async def test_a_primary_that_has_become_a_stand_by_is_left_for_the_one_of_now(
    store: PostgresStore, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    asked = [store._ask(None, lambda c: c.fetchval("SELECT pg_sleep(0.2)")) for _ in range(8)]
    await asyncio.gather(*asked)  # there are as many connections as there may be
    for ask in (store.head, lambda: store.revoke(Target("token", "jti"), clock=lambda: 1_100, until_s=360)):
        together = asyncio.Barrier(8)

        async def demote_all(connection: Connection, together: asyncio.Barrier = together) -> None:
            await together.wait()
            await demote(connection)

        await asyncio.gather(*(store._ask(None, demote_all) for _ in range(8)))
        await ask()
        assert await store._ask(None, lambda c: c.fetchval("SHOW transaction_read_only")) == "off"
    assert (await store.head()).seq == 1


def test_a_watch_on_a_primary_that_has_become_a_stand_by_goes_to_the_one_of_now(
    store: PostgresStore, connected: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_watch, "_LOOK_AFTER_S", 0.1)
    store.attend("one")
    (before,) = connected()
    watch = store._watching()

    async def demote_it() -> None:
        async with watch._one_at_a_time:
            assert watch._connection is not None
            await demote(watch._connection)

    asyncio.run_coroutine_threadsafe(demote_it(), watch._loop).result(WITHIN_S)
    wait_until(lambda: len(connected()) == 1 and connected() != [before])
    assert store.attend("two").log_id == "one"


# What passes between store and server


class Pipe:
    """Passes on what store and server say, until it is told to cut or to hold."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.port is not None
        self._server = ("127.0.0.1", parts.port)
        self._url = url
        self.port = 0
        self.cut_at = b""  # cut the connection when the store says this …
        self.pass_on_before_cut = False  # … before or after the server has heard it
        self.hold_at = b""  # pass nothing on any more from where the store says this
        self.cuts = 0
        self._ways: list[asyncio.Future[None]] = []
        self.flows = asyncio.Event()
        self.flows.set()

    @property
    def url(self) -> str:
        return self._url.replace(f":{self._server[1]}/", f":{self.port}/")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server)
        ways = [
            asyncio.ensure_future(self._pass(reader, to_server, writer, watch=True)),
            asyncio.ensure_future(self._pass(from_server, writer, to_server, watch=False)),
        ]
        self._ways += ways
        await asyncio.wait(ways)
        for way in ways:
            assert way.cancelled() or isinstance(way.exception(), ConnectionError | None)

    async def close(self) -> None:
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter, *, watch: bool
    ) -> None:
        try:
            while said := await source.read(65_536):
                if watch and self.hold_at and self.hold_at in said:
                    self.flows.clear()
                await self.flows.wait()
                if watch and self.cut_at and self.cut_at in said:
                    self.cuts += 1
                    self.cut_at = b""
                    if not self.pass_on_before_cut:
                        return
                    back.transport.abort()  # the answer has nowhere to go
                    sink.write(said)
                    return
                sink.write(said)
                await sink.drain()
        finally:
            back.close()
            sink.close()


@asynccontextmanager
async def pipe_to(url: str) -> AsyncIterator[Pipe]:
    pipe = Pipe(url)
    server = await asyncio.start_server(pipe.serve, "127.0.0.1", 0)
    pipe.port = server.sockets[0].getsockname()[1]
    try:
        yield pipe
    finally:
        server.close()
        await pipe.close()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_commit_without_an_answer_is_told_as_unknown_and_is_not_done_twice(
    store: PostgresStore, postgres_database: str, arrived: bool
) -> None:
    async with pipe_to(postgres_database) as pipe:
        through = PostgresStore(Secret(pipe.url))
        await asyncio.to_thread(through.open)
        await through.head()
        pipe.pass_on_before_cut = arrived
        pipe.cut_at = b"COMMIT\0"  # the whole statement: "READ COMMITTED" is not it
        with pytest.raises(StoreError, match="not known") as caught:
            await through.revoke(Target("token", "jti"), clock=lambda: 1_100, until_s=360)
        assert not isinstance(caught.value, StoreBusy)
        assert pipe.cuts == 1
        # The head is locked as long as the cut transaction lives: this one comes after it, whatever became of it.
        await through.revoke(Target("token", "later"), clock=lambda: 1_101, until_s=360)
        assert [entry.id for entry in await store.revocations_after(0)] == ["jti", "later"][0 if arrived else 1 :]
        await through.close()


async def test_what_is_cut_before_its_commit_is_done_again_once(store: PostgresStore, postgres_database: str) -> None:
    async with pipe_to(postgres_database) as pipe:
        through = PostgresStore(Secret(pipe.url))
        await asyncio.to_thread(through.open)
        for cut_at in (b"BEGIN", b"jotgate_revocation_head"):
            pipe.cut_at = cut_at
            await through.revoke(Target("token", cut_at.decode()), clock=lambda: 1_100, until_s=360)
        assert pipe.cuts == 2
        await through.close()
    assert [(entry.seq, entry.id) for entry in await store.revocations_after(0)] == [
        (1, "BEGIN"),
        (2, "jotgate_revocation_head"),
    ]


async def test_a_network_that_swallows_everything_is_told_in_bounded_time(
    postgres_database: str, new_account: NewAccount
) -> None:
    async with pipe_to(postgres_database) as pipe:
        store = PostgresStore(Secret(pipe.url), wait_s=0.5)
        await asyncio.to_thread(store.open)
        await store.head()
        pipe.flows.clear()
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            await store.add_account(new_account())
        with pytest.raises(StoreBusy):
            await store.head()
        assert time.monotonic() - began < 5
        pipe.flows.set()
        assert (await store.head()).seq == 0
        await store.close()


async def test_a_watch_whose_first_words_are_swallowed_ends_all_the_same(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_watch, "_ANSWER_S", 0.5)
    monkeypatch.setattr(postgres_watch, "LOCK_S", 0.5)
    async with pipe_to(postgres_database) as pipe:
        store = PostgresStore(Secret(pipe.url))
        await asyncio.to_thread(store.open)
        pipe.hold_at = b"LISTEN"
        with pytest.raises(StoreBusy):
            await asyncio.to_thread(store.attend, "one")
        assert not pipe.flows.is_set()
        async with asyncio.timeout(WITHIN_S):
            await store.close()


def test_what_no_new_connection_mends_is_not_told_as_a_lost_one() -> None:
    wrong = asyncpg.exceptions.ClientConfigurationError(f"no such thing as {PASSWORD}")
    assert not is_lost(wrong)
    assert str(as_store_error(wrong)) == "The database could not be asked (ClientConfigurationError)."
    assert is_lost(asyncpg.InterfaceError("connection is closed"))
    assert is_lost(asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed"))


async def test_no_error_tells_the_password_or_what_was_written(
    postgres_server: PostgresServer, postgres_database: str, new_account: NewAccount
) -> None:
    store = PostgresStore(Secret(postgres_database))
    store.open()
    account = new_account(id="an-id-that-is-there", email="somebody@example.com")
    await store.add_account(account)
    name = postgres_database.rpartition("/")[2]
    told: list[BaseException] = []
    with pytest.raises(StoreError) as caught:  # the server would repeat the id
        await store.add_account(new_account(id=account.id))
    told.append(caught.value)
    wrong: Any = "somebody@example.com"
    with pytest.raises(StoreError, match="SQLSTATE 22000") as caught:  # the driver would repeat the value
        await store.list_accounts(limit=wrong)
    told.append(caught.value)
    with pytest.raises(StoreError) as caught:  # PostgreSQL has no such text
        await store.account_by_id("somebody@example.com\0")
    told.append(caught.value)
    postgres_server.query("DROP TABLE jotgate_keys", database=name)
    with pytest.raises(StoreError) as caught:
        store.load_keys()
    told.append(caught.value)
    for error in told:
        assert error.__suppress_context__
        for secret in (PASSWORD, account.id, "somebody"):
            assert secret not in str(error)
    await store.close()
