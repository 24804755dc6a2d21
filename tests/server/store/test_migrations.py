"""The schema: migrations arrive at the tables that the code is written against, once, whole, and not when newer."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from jotgate.core.errors import SettingsError
from jotgate.server.store import StoreError, sqlite_schema
from jotgate.server.store.schema import HEAD, REVISIONS, VERSION_TABLE, metadata
from jotgate.server.store.sqlite import SqliteStore

READ_REVISION = "SELECT version_num FROM jotgate_schema"
START = """
import sys
from pathlib import Path
from jotgate.server.records import SealedKey
from jotgate.server.rules.keys import KeyChange
from jotgate.server.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
print("here", flush=True)
sys.stdin.readline()
store.open()
kid = sys.argv[2]
key = SealedKey(
    kid=kid, issuer="", purpose="access", algorithm="ES256", sealed=b"", thumbprint=kid, created_at=1
)
store.change_keys(lambda keys: KeyChange() if keys else KeyChange((key,)), now=1, until_s=1)
print(store.load_keys()[0].kid, "alembic" in sys.modules)
store.close_now()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jotgate.db"


def migrate(path: Path) -> None:
    store = SqliteStore(path)
    store.open()
    store.close_now()


def start(path: Path, kid: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, str(path), kid],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_at_once(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = []
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        printed.append(out.split())
    return printed


def tables(path: Path) -> dict[str, list[str]]:
    """The SQL of everything in a database, clause by clause, without white space, quotes and the clauses' order."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {name: sorted(re.split(r"[,()]", re.sub(r'[\s"]', "", sql))) for name, sql in rows if name != VERSION_TABLE}


def test_migrations_arrive_at_the_metadata(path: Path, tmp_path: Path) -> None:
    migrate(path)
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        )
        assert compare_metadata(context, metadata) == []

    # Alembic does not compare checks, names of constraints, and WITHOUT ROWID.
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}", poolclass=NullPool)
    metadata.create_all(fresh)
    assert tables(path) == tables(tmp_path / "fresh.db")


def test_every_table_has_the_prefix() -> None:
    assert all(name.startswith("jotgate_") for name in [*metadata.tables, VERSION_TABLE])


def test_the_list_of_revisions_is_the_list_of_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(sqlite_schema.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS
    assert scripts.get_heads() == [HEAD]


def test_processes_that_start_at_once_on_a_new_database_migrate_it_once(path: Path) -> None:
    printed = run_at_once([start(path, kid) for kid in ("a", "b", "c", "d")])
    assert len({kid for kid, _ in printed}) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(READ_REVISION).fetchall() == [(HEAD,)]
        assert connection.execute("SELECT id, seq FROM jotgate_revocation_head").fetchall() == [(1, 0)]


def test_processes_that_turn_a_new_database_to_write_ahead_logging_at_once_wait_for_one_another(tmp_path: Path) -> None:
    """SQLite itself says "locked" at once to some of them, in about one round of ten: hence so many rounds."""

    def turn(path: Path, together: threading.Barrier) -> str:
        with closing(sqlite_schema.connect(path)) as connection:
            together.wait()
            sqlite_schema._use_wal(connection)
            mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
            return mode

    with ThreadPoolExecutor(6) as threads:
        for n in range(80):
            together = threading.Barrier(6)
            turning = [threads.submit(turn, tmp_path / f"{n}.db", together) for _ in range(6)]
            assert {each.result() for each in turning} == {"wal"}


def test_starting_on_an_up_to_date_database_loads_no_alembic(path: Path) -> None:
    migrate(path)
    assert run_at_once([start(path, "a")]) == [["a", "False"]]


@pytest.mark.parametrize("revision", ["9999", "", "0002-beta"])
def test_a_database_of_a_newer_jotgate_is_refused_and_left_alone(path: Path, revision: str) -> None:
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE jotgate_schema SET version_num = ?", (revision,))
    with pytest.raises(SettingsError) as caught:
        SqliteStore(path).open()
    assert "newer jotgate" in str(caught.value)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(READ_REVISION).fetchall() == [(revision,)]


def test_a_migration_that_fails_half_way_leaves_nothing_behind(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE jotgate_revocations (in_the_way)")
    with pytest.raises(StoreError):
        SqliteStore(path).open()
    assert set(tables(path)) == {"jotgate_revocations"}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE jotgate_revocations")
    migrate(path)


def test_the_tables_of_an_application_in_the_same_file_are_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('the-shops-own')")
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("the-shops-own",)]
        assert connection.execute("SELECT * FROM orders").fetchall() == []
