"""One connection of its own for a process: it hears of commits to the log, and holds the process's share of a lock.

A thread keeps it, and connects again when it is lost. While there is none, nobody is woken early: whoever waits looks
at the log himself when his time is over. Knows no record but the head of the log.
"""

import asyncio
import contextlib
import threading
from typing import Final

from jotgate.server.records import LogHead
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy, StoreError
from jotgate.server.store.postgres_pool import LOCK_S, Connection, check_writable, connect
from jotgate.server.store.postgres_schema import Names
from jotgate.server.store.postgres_statements import PostgresStatements

_AGAIN_S: Final = (0.05, 0.2, 0.5, 1.0)  # how long to wait before the next try to connect
_LOOK_AFTER_S: Final = 10.0  # how often to see whether the connection still leads anywhere
_ANSWER_S: Final = 5.0


class Watch:
    """The thread and its connection, from `start` to `stop`."""

    def __init__(self, url: Secret, names: Names, sql: PostgresStatements) -> None:
        self._url = url
        self._names = names
        self._sql = sql
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._connected = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._connection: Connection | None = None
        self._attends = False
        self._guard = threading.Lock()
        self._told = 1  # how often there may have been something to see
        self._seen = 0
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._thread = threading.Thread(target=self._run, name="jotgate-database-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give the lock back, close the connection and end the thread. Blocks."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def attend(self, log_id: str) -> LogHead:
        """See `Store.attend`. Blocks."""
        return asyncio.run_coroutine_threadsafe(self._attend(log_id), self._loop).result()

    async def wait_changed(self, timeout_s: float) -> None:
        """See `Store.wait_changed`. From any event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._guard:
            if self._told != self._seen:
                self._seen = self._told
                return
            self._waiting[future] = loop
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            pass
        finally:
            with self._guard:
                self._waiting.pop(future, None)
                self._seen = self._told

    def _tell(self, *_: object) -> None:
        with self._guard:
            self._told += 1
            waiting, self._waiting = self._waiting, {}
        for future, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, future)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._keep_connected())

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                await self._serve_one_connection()
                failures = 0
            except Exception:  # noqa: BLE001  whatever it is: the next try may do better, and readers poll meanwhile
                failures += 1
            await self._stopped_within(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)])

    async def _serve_one_connection(self) -> None:
        connection = await connect(self._url)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            async with asyncio.timeout(_ANSWER_S + LOCK_S):
                await connection.add_listener(self._names.channel, self._tell)
                if self._attends:
                    await self._share(connection)
            self._connection = connection
            self._connected.set()
            self._tell()  # what was committed meanwhile
            while not lost.is_set() and not await self._stopped_within(_LOOK_AFTER_S, lost):
                async with self._one_at_a_time, asyncio.timeout(_ANSWER_S):
                    check_writable(await connection.fetchval("SELECT current_setting('transaction_read_only')"))
        finally:
            self._connection = None
            self._connected.clear()
            connection.terminate()

    async def _stopped_within(self, wait_s: float, lost: asyncio.Event | None = None) -> bool:
        """Wait so long, or until there is something to do; whether it is to end."""
        events = [event for event in (self._stopped, lost) if event is not None]
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        return self._stopped.is_set()

    async def _attend(self, log_id: str) -> LogHead:
        async with asyncio.timeout(_ANSWER_S + LOCK_S):
            await self._connected.wait()
            async with self._one_at_a_time:
                connection = self._connection
                if connection is None:
                    raise StoreBusy("The database was lost just now.")
                return await self._attend_on(connection, log_id)

    async def _attend_on(self, connection: Connection, log_id: str) -> LogHead:
        lock = self._names.attendance_lock
        alone = not self._attends and await connection.fetchval(f"SELECT pg_try_advisory_lock({lock})")
        try:
            if not self._attends:
                if alone:
                    head = await self._head(connection)
                    change = {"expected_log_id": head.log_id, "log_id": log_id}
                    await connection.execute(self._sql.renew_log.text, *self._sql.renew_log.order(change))
                await self._share(connection)
                self._attends = True
        finally:
            if alone:
                await connection.execute(f"SELECT pg_advisory_unlock({lock})")
        return await self._head(connection)

    async def _head(self, connection: Connection) -> LogHead:
        row = await connection.fetchrow(self._sql.head.text)
        if row is None:
            raise StoreError("The database has lost the head of the log.")
        return LogHead(*row)

    async def _share(self, connection: Connection) -> None:
        await connection.execute(f"SELECT pg_advisory_lock_shared({self._names.attendance_lock})")


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
