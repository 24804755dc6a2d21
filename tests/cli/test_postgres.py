"""The command line on a PostgreSQL database: nothing of it lies on this machine, and no password is told."""

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jotgate.server import Settings, create_app
from tests.cli.conftest import Jotgate
from tests.conftest import PASSWORD, StartServer, log_in, sign_up
from tests.services import PASSWORD as DATABASE_PASSWORD
from tests.services import PostgresServer

TABLES = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'jotgate%'"


@pytest.fixture
def database(postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty database, and settings that name it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOTGATE_DATABASE_URL", postgres_url)
    monkeypatch.setenv("JOTGATE_MASTER_KEY", secrets.token_urlsafe(32))
    return postgres_url


def test_accounts_keys_and_sessions_are_looked_after_from_anywhere(
    jotgate: Jotgate, database: str, tmp_path: Path
) -> None:
    added = jotgate("accounts", "add", "a@shop.example", "--json", stdin=PASSWORD.encode())
    assert (added.status, added.err) == (0, "")
    assert json.loads(jotgate("accounts", "list", "--json").out) == [json.loads(added.out)]
    granted = json.loads(jotgate("accounts", "grant", "a@shop.example", "orders:read", "--json").out)
    assert granted["scopes"] == ["account:read", "orders:read"]
    revoked = json.loads(jotgate("accounts", "revoke", "a@shop.example", "orders:read", "--json").out)
    assert revoked["scopes"] == ["account:read"]
    assert json.loads(jotgate("keys", "list", "--json").out) == []  # a server makes them, which knows its issuer
    server = create_app(Settings.from_env(os.environ))
    server.start()
    server.close()
    keys = json.loads(jotgate("keys", "list", "--json").out)
    assert sorted({key["purpose"] for key in keys}) == ["access", "device", "factor", "feed", "mail", "refresh"]
    assert list(tmp_path.iterdir()) == []
    assert DATABASE_PASSWORD in database


def test_tables_are_made_before_any_server_starts(
    jotgate: Jotgate, database: str, postgres_server: PostgresServer
) -> None:
    name = database.rpartition("/")[2]
    for _ in range(2):
        ran = jotgate("db", "upgrade")
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith(f"the database is up to date: PostgreSQL, {name} at 127.0.0.1:")
        assert DATABASE_PASSWORD not in ran.out
        (row,) = postgres_server.query(TABLES, database=name)
        assert row["count"] == 10


def test_a_file_is_upgraded_too_and_none_is_made(jotgate: Jotgate, tmp_path: Path) -> None:
    ran = jotgate("db", "upgrade", "--data", str(tmp_path / "mistyped"))
    assert ran.status == 2
    assert "there is no database" in ran.err
    jotgate("accounts", "add", "a@shop.example", "--data", str(tmp_path / "data"), stdin=PASSWORD.encode())
    ran = jotgate("db", "upgrade", "--data", str(tmp_path / "data"))
    assert ran.status == 0
    assert "jotgate.sqlite3" in ran.out


def test_a_database_that_does_not_answer_is_told_in_one_sentence(
    jotgate: Jotgate, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOTGATE_DATABASE_URL", database.rpartition("/")[0] + "/nowhere")
    ran = jotgate("accounts", "list")
    assert ran.status == 2
    assert ran.err.startswith("error: there is no database nowhere at 127.0.0.1:")
    assert ran.err.count("\n") == 1
    assert DATABASE_PASSWORD not in ran.err + ran.out


def test_serve_wants_what_all_replicas_must_share(
    jotgate: Jotgate, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JOTGATE_MASTER_KEY")
    monkeypatch.delenv("JOTGATE_ISSUER", raising=False)
    ran = jotgate("serve", "--port", "1")
    assert ran.status == 2
    assert "JOTGATE_MASTER_KEY, the same for every server" in ran.err
    assert "JOTGATE_ISSUER" in ran.err
    assert DATABASE_PASSWORD not in ran.err + ran.out
    # Told with all that is wrong besides, also where that is the settings themselves.
    monkeypatch.setenv("JOTGATE_AUDIENCE", "")
    ran = jotgate("serve", "--port", "1")
    assert "audience" in ran.err
    assert "JOTGATE_MASTER_KEY, the same for every server" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_leaves_no_connection_behind_and_what_it_kept_is_there_for_the_next(
    database: str,
    postgres_server: PostgresServer,
    start_server: StartServer,
    tmp_path: Path,
    new_email: Callable[[], str],
) -> None:
    environment = {
        "JOTGATE_DATABASE_URL": database,
        "JOTGATE_MASTER_KEY": secrets.token_urlsafe(32),
        "JOTGATE_ISSUER": "https://localhost",
    }
    email = new_email()
    first = start_server("serve", data_dir=tmp_path / "one", env=environment)
    with first.client() as client:
        sign_up(client, email)
        tokens = log_in(client, email)
    assert first.stop() == 0
    connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jotgate' AND datname = $1"
    (row,) = postgres_server.query(connected, database.rpartition("/")[2])
    assert row["count"] == 0
    assert DATABASE_PASSWORD not in first.output
    assert "database    PostgreSQL, " in first.output
    second = start_server("serve", data_dir=tmp_path / "two", env=environment)
    with second.client() as client:
        answer = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 200, answer.text
    assert second.stop() == 0


def test_workers_of_one_server_share_the_database_and_a_killed_one_leaves_nothing_behind(
    database: str,
    postgres_server: PostgresServer,
    start_server: StartServer,
    tmp_path: Path,
    new_email: Callable[[], str],
) -> None:
    environment = {
        "JOTGATE_DATABASE_URL": database,
        "JOTGATE_MASTER_KEY": secrets.token_urlsafe(32),
        "JOTGATE_ISSUER": "https://localhost",
    }
    server = start_server("serve", "--workers", "2", data_dir=tmp_path / "data", env=environment)
    email = new_email()
    with server.client() as client:
        sign_up(client, email)
        tokens = log_in(client, email)
    for _ in range(10):  # each on a connection of its own, which the workers share out
        with server.client() as client:
            answer = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
            assert answer.status_code == 200, answer.text
            tokens = answer.json()
    name = database.rpartition("/")[2]
    pools = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jotgate' AND datname = $1"
    (row,) = postgres_server.query(pools, name)
    assert 2 <= row["count"] <= 2 * 11  # what the README promises of each worker
    server.kill()
    deadline = time.monotonic() + 20
    while postgres_server.query(pools, name)[0]["count"]:
        assert time.monotonic() < deadline, "the server still holds connections of processes that are gone"
        time.sleep(0.02)
