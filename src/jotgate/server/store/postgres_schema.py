"""The tables in a PostgreSQL database: brought to the current revision once, refused when they are newer.

Knows locks and Alembic; knows no record. An up-to-date database is recognised without loading Alembic.
"""

import zlib
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from jotgate.server.secret import Secret
from jotgate.server.store.postgres_pool import Connection, check_session_of_its_own, connect
from jotgate.server.store.schema import HEAD, VERSION_TABLE, revocation_head
from jotgate.server.store.upgrading import check_revision, upgrade

_MIGRATION_PATIENCE: Final = "60s"  # how long to wait for another process that migrates
# Advisory locks are numbers that the whole database shares: the first half of ours is these letters.
_OURS: Final = int.from_bytes(b"jotg")


class Names(Struct, frozen=True):
    """What is named after the schema of jotgate's tables, so that another schema of the database has names of its own.

    Channels and advisory locks are each database's own already. A copy of the database that is put in its place has the
    same schema, and no table of the same object id: processes that have used the one and those that begin with the
    other have to agree.
    """

    schema: str

    @property
    def channel(self) -> str:
        """Where commits to the log are told."""
        return f"jotgate_{self._number}"

    @property
    def sessions_lock(self) -> tuple[int, int]:
        """Shared by whoever changes single sessions; whoever ends any number of them in one step has it alone."""
        return _OURS, _signed(self._number)

    @property
    def attendance_lock(self) -> str:
        """Shared by the processes that take part in the log, as long as they do."""
        return f"{_OURS + 1}, {_signed(self._number)}"

    @property
    def keys_lock(self) -> str:
        """Had alone by whoever may add the first key."""
        return f"{_OURS + 2}, {_signed(self._number)}"

    @property
    def addresses_lock(self) -> str:
        """Had alone by whoever makes the account of an address, which is the statement's first parameter."""
        return f"{_OURS + 3}, hashtext('{self._number} ' || $1::text)"

    @property
    def _number(self) -> int:
        return zlib.crc32(self.schema.encode())


def _signed(number: int) -> int:
    """Give 32 bits as the integer that PostgreSQL takes."""
    return number - 2**32 if number >= 2**31 else number


async def prepare_database(url: Secret) -> Names:
    """Bring the schema up to date; any number of processes may do so at once.

    Raises:
        SettingsError: the schema is newer than this code, or a pooler shares the sessions.
        asyncpg's own errors, and what `connect` raises.
    """
    connection = await connect(url)
    try:
        await check_session_of_its_own(connection, url)
        if await _revision(connection) == HEAD:
            return await _names(connection)
        await _migrate(url)
        return await _names(connection)
    finally:
        connection.terminate()


async def _names(connection: Connection) -> Names:
    finds = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass($1)"
    return Names(await connection.fetchval(finds, revocation_head.name))


async def _revision(connection: Connection) -> str | None:
    """The schema's revision, None for a database without it."""
    if await connection.fetchval("SELECT to_regclass($1)", VERSION_TABLE) is None:
        return None
    revision = await connection.fetchval(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608  a constant
    if revision is not None:
        check_revision(revision)
        return str(revision)
    return None


async def _migrate(url: Secret) -> None:
    async def connect_patiently() -> Connection:
        return await connect(url, statement_timeout="0", lock_timeout=_MIGRATION_PATIENCE)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect_patiently, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            # All of it is one transaction: killed half-way, nothing happened.
            await connection.exec_driver_sql(
                f"SELECT pg_advisory_xact_lock({_OURS}, hashtext('migration of ' || current_schema()))"
            )
            await connection.run_sync(_upgrade)
            await connection.commit()
    except DBAPIError as error:
        driver_error = error.orig.__cause__ if error.orig is not None else None
        raise driver_error or error from None
    finally:
        await engine.dispose()


def _upgrade(connection: SyncConnection) -> None:
    table = connection.exec_driver_sql(f"SELECT to_regclass('{VERSION_TABLE}')").scalar()
    row = table and connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").first()  # noqa: S608
    if row:
        check_revision(str(row[0]))
        if row[0] == HEAD:
            return
    upgrade(connection)
