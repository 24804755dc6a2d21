"""Connections to PostgreSQL: how they are made, shared within one event loop, ended, and what their failures mean.

Knows sockets, loops and forks; knows no table. No text here ever holds the database's URL or password, nor what the
server says about values: it says what happened, by class and SQLSTATE.
"""

import asyncio
import contextlib
import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from asyncpg import exceptions
from asyncpg.connect_utils import SessionAttribute

from jotgate.core.errors import SettingsError
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy, StoreError

T = TypeVar("T")

CONNECT_S: Final = 5.0
LOCK_S: Final = 7
"""How long a statement waits for what another transaction has locked: longer than one may idle while it holds it."""
_IDLE_IN_TRANSACTION_S: Final = 5
_STATEMENT_S: Final = 10
_SESSION: Final = {
    # What is confirmed has reached the disk, whatever the server, the database or the role have as their default.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "client_encoding": "UTF8",
    # A process that is stopped in the middle of a transaction must not hold the others up.
    "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "statement_timeout": f"{_STATEMENT_S}s",
    "jit": "off",  # these statements end before a compiler would have begun
}
_LOOKS_FOR_POOLER: Final = 3
_SHARED_SESSIONS: Final = (
    "the database is reached through a pooler that shares sessions between its clients (PgBouncer's transaction mode, "
    "say), where locks and LISTEN do not work: connect directly, or set the pooler to session mode"
)
_WAITING: Final = 4096  # beyond that, "busy" is the more useful answer

# A server that restarts is back within about a second.
_PAUSES: Final = (0.0, 0.05, 0.2, 0.5, None)
_UNKNOWN: Final = "The database was lost in the middle of a commit: whether anything was written is not known."
_DRIVER: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

AGAIN: Final = (
    exceptions.SerializationError,
    exceptions.DeadlockDetectedError,
    exceptions.InvalidCachedStatementError,
)
"""The server undid the transaction: it may simply be tried again."""

_LOST: Final = (
    OSError,
    asyncpg.InterfaceError,
    exceptions.PostgresConnectionError,
    exceptions.AdminShutdownError,
    exceptions.CrashShutdownError,
    exceptions.CannotConnectNowError,
    exceptions.IdleInTransactionSessionTimeoutError,
    # This server is, or has become, a stand-by: another one is the primary now.
    exceptions.ReadOnlySQLTransactionError,
    exceptions.TargetServerAttributeNotMatched,
)

_BUSY: Final = (
    exceptions.LockNotAvailableError,
    exceptions.QueryCanceledError,
    exceptions.TooManyConnectionsError,
    *AGAIN[:2],
)


if TYPE_CHECKING:
    _Driven = asyncpg.Connection[asyncpg.Record]
else:
    _Driven = asyncpg.Connection  # which takes no parameters at run time


class Connection(_Driven):
    """A connection that knows the process it was made in."""

    __slots__ = ("_descriptor", "_made_by")

    def __init__(self, protocol: Any, transport: Any, *others: Any) -> None:  # noqa: ANN401  the driver's business
        super().__init__(protocol, transport, *others)
        self._made_by = os.getpid()
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        _connections.add(self)

    def __del__(self) -> None:
        if self._made_by == os.getpid():
            super().__del__()

    def drop_in_child(self) -> None:
        """Let go of the parent's socket without a word to the server, which would take it for the parent's."""
        if self.is_closed():
            return
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, self._descriptor, inheritable=False)
        os.close(nothing)


Job = Callable[[Connection], Awaitable[T]]


async def connect(url: Secret, **session: str) -> Connection:
    """Connect to the primary. `session` changes settings of the session. Raises what asyncpg raises."""
    async with asyncio.timeout(CONNECT_S):
        connection = await asyncpg.connect(
            url.reveal(),
            connection_class=Connection,
            timeout=CONNECT_S,
            ssl=await _system_trust(url),
            server_settings={"application_name": "jotgate"},
            target_session_attrs=SessionAttribute.read_write,
        )
        try:
            # Not with the connection's first message: a pooler refuses there what it does not know, or drops it.
            await connection.execute(
                "; ".join(f"SET {name} = '{value}'" for name, value in (_SESSION | session).items())
            )
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _system_trust(url: Secret) -> ssl.SSLContext | None:
    """What a certificate is checked by where `sslmode=verify-full` names no authority: what the system trusts.

    None where the driver does it, as libpq would: by `sslrootcert`, `PGSSLROOTCERT` or `~/.postgresql/root.crt`.
    """
    query = dict(parse_qsl(urlsplit(url.reveal()).query))
    if query.get("sslmode") != "verify-full" or "sslcrl" in query or _names_authority(query):
        return None
    # In a thread: to read all authorities of a system takes some 25 ms.
    context = await asyncio.to_thread(ssl.create_default_context)
    if "sslcert" in query:
        context.load_cert_chain(query["sslcert"], query.get("sslkey"), query.get("sslpassword"))
    return context


def _names_authority(query: Mapping[str, str]) -> bool:
    named = query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if named:
        return named != "system"
    try:
        return os.access(Path.home() / ".postgresql" / "root.crt", os.R_OK)
    except RuntimeError:  # nobody's home
        return False


async def check_session_of_its_own(connection: Connection, url: Secret) -> None:
    """Refuse a pooler that gives the server's session to another client between two transactions.

    Locks and `LISTEN` belong to a session: with such a pooler they would silently be somebody else's.

    Raises:
        SettingsError: it is one.
        What `connect` raises.
    """
    if await _session_pid(connection) == connection.get_server_pid():
        return  # nobody in between: a pooler tells its clients a number of its own
    other = await connect(url)
    try:
        own: set[int] = set()
        others: set[int] = set()
        for _ in range(_LOOKS_FOR_POOLER):
            own.add(await _session_pid(connection))
            others.add(await _session_pid(other))
        if len(own) > 1 or own & others:
            raise SettingsError((_SHARED_SESSIONS,))
    finally:
        other.terminate()


async def _session_pid(connection: Connection) -> int:
    """Which process of the server answers now; in one transaction, because preparing and asking are two messages."""
    async with connection.transaction():
        pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


def is_lost(error: BaseException) -> bool:
    """Whether there is no connection (any more): what was not committed never will be."""
    # What the driver says of a wrong value or configuration is an interface error, too: no new connection mends it.
    return isinstance(error, _LOST) and not isinstance(error, ValueError)


def check_writable(read_only: str) -> None:
    """Refuse an answer of a server that has become a stand-by under the connection, by its `transaction_read_only`.

    Raises:
        asyncpg's ReadOnlySQLTransactionError: what is said there may be old; another server is the primary now.
    """
    if read_only != "off":
        raise exceptions.ReadOnlySQLTransactionError("the server is not the primary any more")


class OutcomeUnknown(StoreError):
    """The server was lost, or gave no answer in time, while it committed."""


class Pool:
    """The connections of one event loop: made when they are needed, at most `size`, and closed before the loop is."""

    def __init__(self, url: Secret, size: int) -> None:
        self._url = url
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._users = 0
        self._nobody_uses = asyncio.Event()
        self._nobody_uses.set()
        self._closing = False
        self._end = self._end_with_the_loop()

    async def begin(self) -> None:
        """Begin to watch for the end of the loop, which finishes its asynchronous generators before it closes."""
        await anext(self._end)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for this block alone; an exception undoes the transaction that is open.

        Raises:
            StoreBusy: too many wait already.
        """
        if self._users >= _WAITING:
            raise StoreBusy("The database has more to do than it can queue.")
        self._users += 1
        self._nobody_uses.clear()
        try:
            async with self._free:
                connection = self._take() or await connect(self._url)
                try:
                    yield connection
                except Exception as error:
                    if is_lost(error):
                        connection.terminate()
                        if isinstance(error, exceptions.ReadOnlySQLTransactionError):
                            self._cut_idle()  # they live on, to a server that is not the primary any more
                    else:
                        await _undo(connection)
                    raise
                except BaseException:
                    # Cancelled in the middle of something: nobody knows what the server would say next.
                    connection.terminate()
                    raise
                finally:
                    if self._closing:
                        connection.terminate()
                    elif not connection.is_closed():
                        self._idle.append(connection)
        finally:
            self._users -= 1
            if not self._users:
                self._nobody_uses.set()

    async def close(self, timeout_s: float) -> None:
        """Let those who use it finish, for at most so long, and close the connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._nobody_uses.wait()
        await self._end.aclose()

    def terminate(self) -> None:
        """Cut the idle connections without waiting for anything, and the others when they are given back."""
        self._closing = True
        self._cut_idle()

    def _cut_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _end_with_the_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._closing = True
            await asyncio.gather(*(self._part(connection) for connection in self._idle))
            self._idle.clear()

    @staticmethod
    async def _part(connection: Connection) -> None:
        with contextlib.suppress(Exception):  # a connection that cannot be closed politely is cut by asyncpg itself
            await connection.close(timeout=1)


async def run(pool: Pool, begin: str | None, job: Job[T], wait_s: float, *, commits: bool = False) -> T:
    """Run a job: in a transaction that the text `begin` opens and that is durable on return, or without one.

    A job that `commits` is one statement that is a transaction by itself.

    What the server undid, and what was lost before the commit, is tried again a few times: the job may run more than
    once. What it raises itself undoes the transaction and is passed on.

    Raises:
        StoreBusy: it took longer than `wait_s`, or the server says so.
        OutcomeUnknown: nobody knows whether it has committed.
        StoreError: the server failed, or was lost.
    """
    committing = False
    try:
        async with asyncio.timeout(wait_s):
            for pause_s in _PAUSES:
                try:
                    async with pool.connection() as connection:
                        if begin is None:
                            committing = commits
                            return await job(connection)
                        await connection.execute(begin)
                        answer = await job(connection)
                        committing = True
                        await _commit(connection)
                        return answer
                except _DRIVER as error:
                    if committing and (is_lost(error) or not isinstance(error, asyncpg.PostgresError)):
                        raise OutcomeUnknown(_UNKNOWN) from None
                    if pause_s is None or not (isinstance(error, AGAIN) or is_lost(error)):
                        raise as_store_error(error) from None
                committing = False
                await asyncio.sleep(pause_s)
    except TimeoutError:
        raise (OutcomeUnknown(_UNKNOWN) if committing else StoreBusy("The database did not answer in time.")) from None
    raise AssertionError("The last try returns or raises.")


async def _commit(connection: Connection) -> None:
    if await connection.execute("COMMIT") != "COMMIT":  # the server's word for having undone a failed transaction
        raise StoreError("The database undid the transaction.")


async def _undo(connection: Connection) -> None:
    if not connection.is_closed() and connection.is_in_transaction():
        try:
            await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001  whatever it is: what led here is what the caller is told
            connection.terminate()
        except BaseException:
            connection.terminate()
            raise


def run_apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread and an event loop of its own. Blocks, whatever loop may be running here."""
    with ThreadPoolExecutor(1, thread_name_prefix="jotgate-database") as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def as_store_error(error: BaseException) -> StoreError:
    """Say in a typed way what went wrong."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError) and not is_lost(error):
        told = f"{type(error).__name__.removesuffix('Error')}, SQLSTATE {error.sqlstate}"
        if isinstance(error, _BUSY):
            return StoreBusy(f"The database has too much to do at the same time ({told}).")
        return StoreError(f"The database failed ({told}).")
    if is_lost(error):
        return StoreError(f"The database cannot be reached ({_reason(error)}).")
    return StoreError(f"The database could not be asked ({type(error).__name__}).")


def as_settings_error(error: BaseException, place: str) -> SettingsError:
    """Say what is wrong with a database that could not be opened at start."""
    match error:
        case SettingsError():
            return error
        case exceptions.InvalidAuthorizationSpecificationError():
            fault = f"the database {place} refused the log-in (SQLSTATE {error.sqlstate}): check user and password"
        case exceptions.InvalidCatalogNameError():
            fault = f"there is no database {place}: create it first"
        case exceptions.InsufficientPrivilegeError():
            fault = f"the user of the database {place} may not make or read jotgate's tables (SQLSTATE 42501)"
        case exceptions.TargetServerAttributeNotMatched():
            fault = f"the database {place} is read-only: name its primary server"
        case exceptions.UndefinedObjectError():
            fault = f"the URL of the database {place} has a parameter that is not known: leave it out"
        case exceptions.ProtocolViolationError():
            fault = f"the database {place}, or a pooler before it, refuses to talk to jotgate (SQLSTATE 08P01)"
        case FileNotFoundError():
            fault = (
                f"the database {place} cannot be reached: its URL names a certificate, key or socket that is not there"
            )
        case asyncpg.ClientConfigurationError():
            fault = (
                f"the URL of the database {place} cannot be used: if it says sslmode=verify-ca, it has to name the "
                "authority with sslrootcert=FILE"
            )
        case exceptions.DuplicatePreparedStatementError() | exceptions.InvalidSQLStatementNameError():
            fault = _SHARED_SESSIONS  # another client's statements are in what should be our session
        case asyncpg.PostgresError() if not is_lost(error):
            fault = f"the database {place} failed (SQLSTATE {error.sqlstate})"
        case OSError() | asyncpg.PostgresError():
            fault = f"the database {place} cannot be reached ({_reason(error)})"
        case _:
            fault = f"the database {place} cannot be used ({type(error).__name__}): check its URL"
    return SettingsError((fault,))


def _reason(error: BaseException) -> str:
    """Why there is no connection, in words that cannot hold what the URL holds."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not good: {error.verify_message}"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError() if str(error).endswith("rejected SSL upgrade"):
            return "it does not speak TLS, as its sslmode asks"
        case TimeoutError():
            return "no answer"
        case exceptions.TargetServerAttributeNotMatched():
            return "it is read-only"
        case asyncpg.PostgresError():
            return f"SQLSTATE {error.sqlstate}"
        case OSError() if error.errno and not error.strerror:
            return os.strerror(error.errno)
        case OSError() if error.strerror and "@" not in error.strerror:
            return error.strerror
        case _:
            return type(error).__name__


# Forks. A socket must not serve two processes, so the child forgets all of the parent's: it lets go of them (else the
# server would not notice the end of a parent that is killed) and never touches the parent's event loops, whose
# selectors it shares.

_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_inherited: list[Connection] = []
_after_fork: weakref.WeakSet[Any] = weakref.WeakSet()
_guard = threading.Lock()
_watching = False


def begin_anew_after_fork(store: Any) -> None:  # noqa: ANN401  anything that has the method
    """Have `store.after_fork_in_child()` called in each child process."""
    global _watching  # noqa: PLW0603  the interpreter's own list of fork hooks is as global, and only grows
    with _guard:
        _after_fork.add(store)
        if not _watching and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork_in_child)
            _watching = True


def _after_fork_in_child() -> None:
    global _guard  # noqa: PLW0603  the parent's may be held by a thread that does not exist here
    _guard = threading.Lock()
    for connection in list(_connections):
        connection.drop_in_child()
        _inherited.append(connection)  # kept for ever: its end would speak to the parent's loop
    _connections.clear()
    for store in list(_after_fork):
        store.after_fork_in_child()
