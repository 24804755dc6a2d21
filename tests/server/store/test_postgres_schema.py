"""The schema on PostgreSQL: migrations arrive at the tables the code is written against, once, whole, or not at all."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from jotgate.core.errors import SettingsError
from jotgate.server.secret import Secret
from jotgate.server.store.postgres import PostgresStore
from jotgate.server.store.postgres_schema import prepare_database
from jotgate.server.store.schema import HEAD, VERSION_TABLE, metadata
from tests.services import PASSWORD, PostgresServer, run_apart

START = """
import sys
from jotgate.server.records import SealedKey
from jotgate.server.rules.keys import KeyChange
from jotgate.server.secret import Secret
from jotgate.server.store.postgres import PostgresStore

store = PostgresStore(Secret(sys.argv[1]))
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
COLUMNS = """
    SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default
    FROM information_schema.columns WHERE table_name LIKE 'jotgate\\_%'
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conname LIKE 'jotgate\\_%'
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename LIKE 'jotgate\\_%'"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def migrate(url: str) -> None:
    store = PostgresStore(Secret(url))
    store.open()
    store.close_now()


def run_in(url: str, work: Callable[[Connection], object]) -> object:
    """Run a synchronous function of SQLAlchemy's on a connection to the database."""

    async def run() -> object:
        engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)
        async with engine.begin() as connection:
            return await connection.run_sync(work)

    return run_apart(run)


def describe(server: PostgresServer, url: str) -> list[list[tuple[object, ...]]]:
    """Everything that a database says about the tables, without the order in which it says it."""
    told = [server.query(sql, database=database_of(url)) for sql in (COLUMNS, CONSTRAINTS, INDEXES)]
    return [sorted(tuple(row) for row in rows if not str(row[0]).startswith(VERSION_TABLE)) for rows in told]


def start(url: str, kid: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, url, kid],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "here\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def run_at_once(processes: list[subprocess.Popen[str]]) -> list[list[str]]:
    with ThreadPoolExecutor(len(processes)) as threads:
        list(threads.map(go, processes))
    printed = []
    for process in processes:
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        printed.append(out.split())
    return printed


def test_migrations_arrive_at_the_metadata(postgres_server: PostgresServer, postgres_url: str) -> None:
    def compare(connection: Connection) -> object:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    migrate(postgres_url)
    assert run_in(postgres_url, compare) == []

    # Alembic does not compare checks, collations, and names of constraints.
    fresh = postgres_server.new_database()
    run_in(fresh, metadata.create_all)
    described = describe(postgres_server, postgres_url)
    assert described == describe(postgres_server, fresh)
    assert {row[3] for row in described[0] if row[2] == "text"} == {"C"}
    postgres_server.drop_database(fresh)


def test_processes_that_start_at_once_on_an_empty_database_migrate_it_once(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    printed = run_at_once([start(postgres_url, kid) for kid in ("a", "b", "c", "d")])
    assert len({kid for kid, _ in printed}) == 1
    for sql, row in [
        ("SELECT version_num FROM jotgate_schema", (HEAD,)),
        ("SELECT id, seq FROM jotgate_revocation_head", (1, 0)),
    ]:
        assert [tuple(row) for row in postgres_server.query(sql, database=database_of(postgres_url))] == [row]


def test_starting_on_an_up_to_date_database_loads_no_alembic(postgres_database: str) -> None:
    assert run_at_once([start(postgres_database, "a")]) == [["a", "False"]]


@pytest.mark.parametrize("revision", ["9999", "", "0002-beta"])
def test_a_database_of_a_newer_jotgate_is_refused_and_left_alone(
    postgres_server: PostgresServer, postgres_database: str, revision: str
) -> None:
    database = database_of(postgres_database)
    postgres_server.query("UPDATE jotgate_schema SET version_num = $1", revision, database=database)
    with pytest.raises(SettingsError, match="newer jotgate"):
        migrate(postgres_database)
    (row,) = postgres_server.query("SELECT version_num FROM jotgate_schema", database=database)
    assert row["version_num"] == revision


def test_a_migration_that_fails_half_way_leaves_nothing_behind(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = database_of(postgres_url)
    postgres_server.query("CREATE TABLE jotgate_revocations (in_the_way int)", database=database)
    with pytest.raises(SettingsError, match="42P07") as caught:
        migrate(postgres_url)
    assert PASSWORD not in str(caught.value)
    assert [row["tablename"] for row in postgres_server.query(TABLES, database=database)] == ["jotgate_revocations"]
    postgres_server.query("DROP TABLE jotgate_revocations", database=database)
    migrate(postgres_url)


def test_a_migration_that_is_killed_half_way_leaves_nothing_behind(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = database_of(postgres_url)

    def query(sql: str) -> list[object]:
        return [row[0] for row in postgres_server.query(sql, database=database)]

    # The server holds the migration up behind its third table, for as long as it takes to kill the process.
    query("""
        CREATE FUNCTION hold_up() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.jotgate_keys') THEN
                PERFORM pg_sleep(60);
            END IF;
        END $$
    """)
    query("CREATE EVENT TRIGGER hold_up ON ddl_command_end EXECUTE FUNCTION hold_up()")
    process = start(postgres_url, "a")
    go(process)
    held_up = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    deadline = time.monotonic() + 30
    while query(held_up) != [1]:
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.kill()
    process.communicate()
    # Its connection is gone with it, but a server that sleeps does not look.
    query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    while query(held_up) != [0]:
        assert time.monotonic() < deadline
    assert query(TABLES) == []

    query("DROP EVENT TRIGGER hold_up")
    migrate(postgres_url)
    assert query("SELECT version_num FROM jotgate_schema") == [HEAD]


def test_the_tables_of_an_application_in_the_same_database_are_left_alone(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = database_of(postgres_url)
    postgres_server.query("CREATE TABLE alembic_version (version_num text)", database=database)
    postgres_server.query("INSERT INTO alembic_version VALUES ('the-shops-own')", database=database)
    migrate(postgres_url)
    (row,) = postgres_server.query("SELECT version_num FROM alembic_version", database=database)
    assert row["version_num"] == "the-shops-own"


def test_two_schemas_of_one_database_are_two_stores(postgres_server: PostgresServer, postgres_url: str) -> None:
    for schema in ("one", "two"):
        postgres_server.query(f"CREATE SCHEMA {schema}", database=database_of(postgres_url))
    one, two = (PostgresStore(Secret(f"{postgres_url}?search_path={schema}")) for schema in ("one", "two"))
    one.open()
    two.open()
    # Each is alone: who takes part in the one log takes no part in the other.
    assert one.attend("log-one").log_id == "log-one"
    assert two.attend("log-two").log_id == "log-two"
    one.close_now()
    two.close_now()


def test_a_copy_in_the_place_of_a_database_shares_its_locks_and_its_bell(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """Or processes that run on after a restore would not exclude, wake or count those that begin after it."""

    def names(url: str) -> tuple[object, ...]:
        found = run_apart(lambda: prepare_database(Secret(url)))
        return found.channel, found.sessions_lock, found.attendance_lock, found.keys_lock

    migrate(postgres_url)
    copy = postgres_server.copy_database(postgres_url)
    assert names(copy) == names(postgres_url)
    postgres_server.drop_database(copy)
    postgres_server.query("CREATE SCHEMA other", database=database_of(postgres_url))
    assert not set(names(f"{postgres_url}?search_path=other")) & set(names(postgres_url))


@pytest.mark.parametrize(
    ("pattern", "replacement", "told"),
    [
        (r"/test\d+$", "/nowhere", "there is no database nowhere at 127.0.0.1"),
        ("jotgate:", "strict:not-", "refused the log-in"),
        ("jotgate:", "nobody:", "refused the log-in"),
        (r":\d+/", ":1/", "cannot be reached (connection refused)"),
        ("127.0.0.1", "name.invalid", "cannot be reached"),
        (r"$", "?sslmode=require", "cannot be"),
        (r"$", "?sslrootcert=/nowhere&sslmode=verify-ca", "cannot be"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_sentence_without_its_password(
    postgres_url: str, pattern: str, replacement: str, told: str
) -> None:
    url = re.sub(pattern, replacement, postgres_url)
    assert url != postgres_url
    with pytest.raises(SettingsError) as caught:
        migrate(url)
    (fault,) = caught.value.faults
    assert told in fault
    assert PASSWORD not in fault
    assert caught.value.__suppress_context__
