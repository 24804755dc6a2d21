"""The database file: made with tight permissions, brought to the current revision once, refused when it is newer.

Knows files, locks and Alembic; knows no record. An up-to-date database is recognised without loading Alembic.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from jotgate.core.errors import SettingsError
from jotgate.server.store import StoreError
from jotgate.server.store.lanes import as_store_error
from jotgate.server.store.schema import HEAD, VERSION_TABLE
from jotgate.server.store.upgrading import check_revision, upgrade

BUSY_TIMEOUT_S = 5.0  # how long to wait for another process (the command line, another worker) that writes
_MIGRATION_PATIENCE_S = 60.0  # how long to wait for another process that migrates


def connect(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a connection that commits durably and never begins a transaction by itself.

    It may be closed by another thread than the one that uses it: see `lanes` on forks.
    """
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=FULL")  # a confirmed revocation survives a power cut
        connection.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare_database(path: Path) -> None:
    """Make the file if it is not there, and bring its schema up to date; any number of processes may do so at once.

    Raises `SettingsError` when the place is unusable, the file is no database, or its schema is newer than this code;
    `StoreBusy` or `StoreError` when the database fails meanwhile.
    """
    _make_file(path)
    try:
        with closing(connect(path)) as connection:
            _use_wal(connection)
            if _revision(connection) == HEAD:
                return
        _migrate(path)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            raise SettingsError((f"{path} is not an SQLite database",)) from None
        raise as_store_error(error) from error


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the mode of the database, which therefore is made before SQLite would.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
    except OSError as error:
        raise SettingsError((f"the database {path} cannot be opened: {error.strerror}",)) from None


def _use_wal(connection: sqlite3.Connection) -> None:
    # Two processes that turn a new database to WAL at once do not wait for one another: SQLite just says "locked".
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            if mode != "wal":
                raise StoreError("The database cannot use write-ahead logging where it lies.")
            return


def _revision(connection: sqlite3.Connection) -> str | None:
    """The schema's revision, None for an empty database. Raises `SettingsError` for one that is not known here."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type='table' AND name=?", (VERSION_TABLE,)).fetchone()
    row = known and connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608  a constant
    if not row:
        return None
    revision = str(row[0])
    check_revision(revision)
    return revision


def _migrate(path: Path) -> None:
    raw = connect(path, busy_timeout_s=_MIGRATION_PATIENCE_S)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    try:
        with engine.connect() as connection:
            # The write lock is the migration lock. All of it is one transaction: killed half-way, nothing happened.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if _revision(raw) != HEAD:
                upgrade(connection)
            connection.commit()
    except DBAPIError as error:
        raise error.orig or error from None
    finally:
        engine.dispose()
        raw.close()
