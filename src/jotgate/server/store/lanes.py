"""Threads that own one SQLite connection each, and run what many callers ask for in batches.

A lane knows queues, event loops, transactions and forks. It knows no table and no record. Two kinds: the writer commits
a whole batch in one durable transaction (group commit: one fsync for many requests), readers just run their batch.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from jotgate.server.store import StoreBusy, StoreClosed, StoreError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Connect = Callable[[], sqlite3.Connection]

MAX_BATCH = 256  # bounds how long the first of a batch waits for the last


class _Asked:
    """One job in the queue, with whoever waits for it."""

    __slots__ = ("answer", "error", "future", "job", "loop")

    def __init__(self, job: Job[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.answer: Any = None
        self.error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        try:
            self.answer = self.job(connection)
        except Exception as error:  # noqa: BLE001  whatever a job raises belongs to the one who asked, not to the lane
            self.error = error

    def settle(self) -> None:
        """Answer whoever waits; runs on their event loop."""
        if self.future.done():  # they gave up
            return
        if self.error is None:
            self.future.set_result(self.answer)
        elif isinstance(self.error, sqlite3.Error):
            self.future.set_exception(as_store_error(self.error))
        else:
            self.future.set_exception(self.error)


class Lane:
    """One thread with one connection and a bounded queue. Both begin with the first job."""

    def __init__(self, name: str, connect: Connect, *, capacity: int) -> None:
        self._name = name
        self._connect = connect
        self._capacity = capacity
        self._closing = False
        self._begin()
        _watch_forks(self)

    def _begin(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._queue: deque[_Asked] = deque()
        self._changed = threading.Condition()  # guards the queue, the thread and _closing
        self._using_connection = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """How many jobs are queued."""
        return len(self._queue)

    def ask(self, job: Job[T]) -> asyncio.Future[T]:
        """Queue a job from within an event loop; never blocks.

        A future that is cancelled before its turn takes its job with it. Raises `StoreBusy` when the queue is full, and
        `StoreClosed`.
        """
        asked = _Asked(job, asyncio.get_running_loop())
        with self._changed:
            if self._closing:
                raise StoreClosed("The database is closed.")
            if len(self._queue) >= self._capacity:
                raise StoreBusy("The database has more to do than it can queue.")
            self._queue.append(asked)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        return asked.future

    def close(self) -> None:
        """Finish what is queued, close the connection and end the thread. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            with self._using_connection:
                self._run_or_fail(batch)
            _answer(batch)
        with self._using_connection:
            self._disconnect()

    def _next_batch(self) -> list[_Asked] | None:
        """Wait for jobs; None when the lane is closed and everything is done."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        # A job whose waiter has gone must not happen behind their back if it still can be helped.
        return [asked for asked in batch if not asked.future.cancelled()]

    def _run_or_fail(self, batch: list[_Asked]) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._run(self._connection, batch)
        except Exception as error:  # noqa: BLE001  the lane must outlive it, or every later request would wait in vain
            # What the batch did is rolled back with its connection: nobody may believe it happened.
            self._disconnect()
            for asked in batch:
                asked.error = error

    def _run(self, connection: sqlite3.Connection, batch: list[_Asked]) -> None:
        for asked in batch:
            asked.run(connection)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def before_fork(self) -> None:
        """Wait for the running batch, close the connection, and hold everything still."""
        self._using_connection.acquire()
        self._changed.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next batch connects again."""
        self._changed.release()
        self._using_connection.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's thread, and the jobs that the parent still does."""
        self._begin()


class WriterLane(Lane):
    """The one lane that writes: each batch is one durable transaction, each job in it a savepoint.

    Answers follow the COMMIT. A job that raises is undone alone; if the COMMIT fails, all of them are told so.
    """

    def _run(self, connection: sqlite3.Connection, batch: list[_Asked]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for asked in batch:
            connection.execute("SAVEPOINT job")
            asked.run(connection)
            if asked.error is not None:
                if isinstance(asked.error, sqlite3.Error) and not connection.in_transaction:
                    raise asked.error  # disk full or I/O error: SQLite gave up on the whole transaction
                connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
        connection.execute("COMMIT")


def _answer(batch: list[_Asked]) -> None:
    """Wake each event loop once, however many of its futures are done."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Asked]] = {}
    for asked in batch:
        by_loop.setdefault(asked.loop, []).append(asked)
    for loop, done in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, done)


def _settle(done: list[_Asked]) -> None:
    for asked in done:
        asked.settle()


def as_store_error(error: sqlite3.Error) -> StoreError:
    """Say in a typed way what SQLite said. Its messages name tables and columns, never values."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy("Another process has held the database for too long.")
    return StoreError(f"The database failed: {error}.")


# Forks. A connection must not be carried across one: the child's copy of SQLite would believe that it holds locks which
# the kernel gave to the parent alone, and the database could be damaged (sqlite.org/howtocorrupt.html §2.6). So every
# connection is closed before a fork; the parent's lanes connect again with their next batch, and the child's begin
# anew. Programs started by `subprocess` are not concerned.

_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()
_held_still: list[Lane] = []
_no_fork = threading.Lock()
_watching = False


@contextlib.contextmanager
def no_fork_meanwhile() -> Iterator[None]:
    """Keep other threads from forking while this one has a connection open outside of a lane."""
    with _no_fork:
        yield


def _watch_forks(lane: Lane) -> None:
    global _watching  # noqa: PLW0603  the interpreter's own list of fork hooks is as global, and only grows
    with _no_fork:
        _lanes.add(lane)
        if not _watching and hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
            )
            _watching = True


def _before_fork() -> None:
    _no_fork.acquire()
    _held_still.extend(_lanes)
    for lane in _held_still:
        lane.before_fork()


def _after_fork_in_parent() -> None:
    for lane in _held_still:
        lane.after_fork_in_parent()
    _held_still.clear()
    _no_fork.release()


def _after_fork_in_child() -> None:
    for lane in _held_still:
        lane.after_fork_in_child()
    _held_still.clear()
    _no_fork.release()
