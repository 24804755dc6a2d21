"""One durable transaction for many requests: what they share, and what they must not do to one another."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from jotgate.server.records import Account, Family
from jotgate.server.store import EmailTaken, StoreBusy, StoreError
from jotgate.server.store.lanes import MAX_BATCH
from jotgate.server.store.sqlite import SqliteStore
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jotgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    store.open()
    yield store
    store.close_now()


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Hold the database as another process would, so that everything asked meanwhile queues up."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


async def emails(store: SqliteStore) -> set[str]:
    return {account.email for account in await store.list_accounts(limit=10_000)}


async def writer_is_waiting(store: SqliteStore) -> None:
    """Return once the writer has taken all that is queued."""
    assert store._writer is not None
    while store._writer.waiting:  # noqa: ASYNC110  a thread empties the queue, which tells no event loop
        await asyncio.sleep(0.001)


async def test_what_queues_up_is_committed_together(store: SqliteStore, path: Path, new_account: NewAccount) -> None:
    statements: list[str] = []
    await store._write(lambda connection: connection.set_trace_callback(statements.append))
    with write_lock(path):
        first = asyncio.ensure_future(store.add_account(new_account()))
        await asyncio.sleep(0)
        await writer_is_waiting(store)
        others = [asyncio.ensure_future(store.add_account(new_account())) for _ in range(MAX_BATCH + 50)]
        await asyncio.sleep(0)
        statements.clear()
    await asyncio.gather(first, *others)
    assert statements.count("COMMIT") == 3  # the first, a full batch, the rest
    assert len(await emails(store)) == MAX_BATCH + 51


async def test_a_job_that_fails_is_undone_alone(
    store: SqliteStore, path: Path, new_account: NewAccount, new_family: NewFamily
) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE jotgate_accounts SET scopes = 'stolen'")
        raise ZeroDivisionError

    taken = new_account(email="taken@example.com")
    await store.add_account(taken)
    before, after = new_account(email="before@example.com"), new_account(email="after@example.com")
    orphan = new_family(new_account())  # its account is never added
    with write_lock(path):
        jobs = [
            asyncio.ensure_future(job)
            for job in (
                store.add_account(before),
                store.add_account(new_account(email="taken@example.com")),
                store._write(half_done),
                store.add_family(orphan, expected_hash=PASSWORD_HASH),
                store.add_account(after),
            )
        ]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        type(None),
        EmailTaken,
        ZeroDivisionError,
        bool,
        type(None),
    ]
    assert await store.list_accounts(limit=10) == [after, before, taken]
    assert answers[3] is False
    assert await store.family_by_id(orphan.id) is None


async def test_a_commit_that_fails_fails_everyone_in_it_and_loses_nothing_confirmed(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    def poison(connection: sqlite3.Connection) -> None:
        """Break a rule that SQLite checks only when it commits."""
        connection.execute("PRAGMA defer_foreign_keys=ON")
        connection.execute(
            "INSERT INTO jotgate_families SELECT x'00','s','nobody','web','',0,'k','[]',0,1,1,1,1,1,NULL,'pwd','','',0"
        )

    confirmed = new_account(email="confirmed@example.com")
    await store.add_account(confirmed)
    with write_lock(path):
        first = asyncio.ensure_future(store.add_account(new_account(email="alone@example.com")))
        await asyncio.sleep(0)
        await writer_is_waiting(store)
        together = [
            asyncio.ensure_future(job)
            for job in (store.add_account(new_account()), store._write(poison), store.add_account(new_account()))
        ]
        await asyncio.sleep(0)
    await first
    answers = await asyncio.gather(*together, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreError, StoreError, StoreError]
    assert await emails(store) == {"confirmed@example.com", "alone@example.com"}

    await store.add_account(new_account(email="later@example.com"))  # and the store goes on
    assert "later@example.com" in await emails(store)


async def test_no_answer_comes_before_the_commit(store: SqliteStore, path: Path, new_account: NewAccount) -> None:
    account = new_account()
    seen_elsewhere: list[bool] = []

    async def add_then_look() -> None:
        await store.add_account(account)
        with closing(sqlite3.connect(path)) as other:
            seen_elsewhere.append(other.execute("SELECT 1 FROM jotgate_accounts").fetchone() is not None)

    await asyncio.gather(add_then_look(), *(store.add_account(new_account()) for _ in range(50)))
    assert seen_elsewhere == [True]


async def test_reads_and_the_event_loop_go_on_while_a_write_waits(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    with write_lock(path):
        waiting = asyncio.ensure_future(store.add_account(new_account()))
        await asyncio.sleep(0)
        await writer_is_waiting(store)
        for _ in range(20):
            assert await store.account_by_id(account.id) == account
        assert not waiting.done()
    await waiting


async def test_a_full_queue_is_told_at_once_and_only_to_those_who_come_too_late(
    path: Path, new_account: NewAccount
) -> None:
    store = SqliteStore(path, queued_writes=5)
    store.open()
    try:
        with write_lock(path):
            first = asyncio.ensure_future(store.add_account(new_account()))
            await asyncio.sleep(0)
            await writer_is_waiting(store)
            queued = [asyncio.ensure_future(store.add_account(new_account())) for _ in range(5)]
            await asyncio.sleep(0)
            for _ in range(3):
                with pytest.raises(StoreBusy) as caught:
                    await store.add_account(new_account())
                assert caught.value.code == "busy"
        await asyncio.gather(first, *queued)
        assert len(await emails(store)) == 6
    finally:
        await store.close()


async def test_a_wait_ends_and_what_was_still_queued_does_not_happen_behind_its_back(
    path: Path, new_account: NewAccount
) -> None:
    impatient = SqliteStore(path, wait_s=0.05)
    impatient.open()
    try:
        with write_lock(path):
            first = asyncio.ensure_future(impatient.add_account(new_account(email="taken-up@example.com")))
            await asyncio.sleep(0)
            await writer_is_waiting(impatient)
            queued = asyncio.ensure_future(impatient.add_account(new_account(email="queued@example.com")))
            for answer in await asyncio.gather(first, queued, return_exceptions=True):
                assert isinstance(answer, StoreBusy)
                assert "in time" in str(answer)
        await impatient.ping()
        assert "queued@example.com" not in await emails(impatient)
    finally:
        await impatient.close()


async def test_a_request_that_is_cancelled_in_the_queue_takes_its_write_along(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    with write_lock(path):
        first = asyncio.ensure_future(store.add_account(new_account(email="first@example.com")))
        await asyncio.sleep(0)
        await writer_is_waiting(store)
        gone = asyncio.ensure_future(store.add_account(new_account(email="gone@example.com")))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    await first
    await store.ping()
    assert await emails(store) == {"first@example.com"}


async def test_the_writer_survives_a_batch_whose_waiters_have_all_gone(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    with write_lock(path):
        first = asyncio.ensure_future(store.add_account(new_account()))
        await asyncio.sleep(0)
        await writer_is_waiting(store)
        gone = [asyncio.ensure_future(store.add_account(new_account())) for _ in range(3)]
        await asyncio.sleep(0)
        for waiter in gone:
            waiter.cancel()
    await first
    await store.add_account(new_account(email="later@example.com"))
    assert "later@example.com" in await emails(store)


def test_an_event_loop_that_is_gone_harms_nobody_else(store: SqliteStore, path: Path, new_account: NewAccount) -> None:
    async def leave_at_once() -> None:
        assert store._writer is not None
        store._writer.ask(lambda connection: connection.execute("SELECT 1").fetchall())

    async def stay() -> None:
        await store.add_account(account)

    account = new_account()
    with write_lock(path):
        asyncio.run(leave_at_once())
    asyncio.run(stay())
    assert asyncio.run(emails(store)) == {account.email}
