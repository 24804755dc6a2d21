"""How the PostgreSQL store gets to its server: over TLS that is checked, and through a pooler or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jotgate.core.errors import SettingsError
from jotgate.server.records import Account, Target
from jotgate.server.secret import Secret
from jotgate.server.store.postgres import PostgresStore
from jotgate.server.store.postgres_pool import Connection
from jotgate.server.tls import LocalCertificate, ensure_local_certificate
from tests.conftest import Need
from tests.services import PASSWORD, PostgresServer, run_pgbouncer, run_postgres

NewAccount = Callable[..., Account]

# Without them PgBouncer refuses what it does not track; its users are told to name them, and it then drops them.
IGNORED = "synchronous_commit,lock_timeout,statement_timeout,idle_in_transaction_session_timeout,jit,search_path"
TABLES = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'jotgate%'"
WITHIN_S = 20  # only a failing test waits so long


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalCertificate:
    """A certificate for localhost, and its authority's beside it."""
    return ensure_local_certificate(tmp_path_factory.mktemp("tls"), int(time.time()))


@pytest.fixture(scope="module")
def secure_postgres(postgres_program: str, local: LocalCertificate) -> Iterator[PostgresServer]:
    """A PostgreSQL that takes nothing but TLS."""
    with run_postgres(postgres_program, fsync=False) as server:
        server.speak_tls(local.cert, local.key)
        server.restart()
        yield server


@pytest.fixture
def secure_url(secure_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An empty database in it, by name, on a machine where nothing of PostgreSQL's is set up."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    url = secure_postgres.new_database()
    yield url.replace("127.0.0.1", "localhost")
    secure_postgres.drop_database(url)


def refusal(url: str) -> str:
    store = PostgresStore(Secret(url))
    with pytest.raises(SettingsError) as refused:
        store.open()
    (fault,) = refused.value.faults
    assert PASSWORD not in fault
    return str(fault)


async def check_that_it_works(url: str, new_account: NewAccount) -> None:
    """Two processes' worth of stores, one of which hears at once of what the other revokes."""
    stores = [PostgresStore(Secret(url)) for _ in range(2)]
    for store in stores:
        store.open()
    one, other = stores
    try:
        first = await asyncio.to_thread(one.attend, "first")
        assert (await asyncio.to_thread(other.attend, "second")).log_id == first.log_id == "first"
        account = new_account()
        await one.add_account(account)
        assert await other.account_by_id(account.id) == account
        await other.wait_changed(0.5)  # it begins with something to see
        heard = asyncio.ensure_future(other.wait_changed(WITHIN_S))
        await asyncio.sleep(0)
        began = time.monotonic()
        await one.revoke(Target("token", "t1"), clock=lambda: 1_000, until_s=60)
        await heard
        assert time.monotonic() - began < WITHIN_S / 2
        assert (await other.head()).seq == first.seq + 1
    finally:
        for store in stores:
            await store.close()


# TLS


@pytest.mark.parametrize("how", ["sslrootcert", "system", "environment", "what the system trusts"])
async def test_the_servers_certificate_is_checked_by_whichever_authority_is_named(
    how: str, secure_url: str, local: LocalCertificate, new_account: NewAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file = str(local.ca)
    query = {"sslrootcert": f"&sslrootcert={ca_file}", "system": "&sslrootcert=system"}.get(how, "")
    if how != "sslrootcert":
        monkeypatch.setenv("PGSSLROOTCERT" if how == "environment" else "SSL_CERT_FILE", ca_file)
    await check_that_it_works(f"{secure_url}?sslmode=verify-full{query}", new_account)


@pytest.mark.parametrize("query", ["sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"])
def test_a_certificate_that_nobody_here_trusts_is_refused(query: str, secure_url: str) -> None:
    assert "its certificate is not good: unable to get local issuer certificate" in refusal(f"{secure_url}?{query}")


def test_a_certificate_for_another_name_is_refused(
    secure_url: str, local: LocalCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(local.ca))
    by_another_name = secure_url.replace("localhost", "127.1")  # which leads to the same place
    assert "its certificate is not good: Hostname mismatch" in refusal(f"{by_another_name}?sslmode=verify-full")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "a certificate, key or socket that is not there"),
        ("sslmode=verify-ca", "it has to name the authority with sslrootcert=FILE"),
        ("sslmode=require&channel_binding=require", "has a parameter that is not known"),
    ],
)
def test_what_is_wrong_with_the_url_is_told(query: str, told: str, secure_url: str) -> None:
    assert told in refusal(f"{secure_url}?{query}")


def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(postgres_url: str) -> None:
    assert "it does not speak TLS, as its sslmode asks" in refusal(f"{postgres_url}?sslmode=require")


# Poolers


@pytest.mark.parametrize("ignored", ["", IGNORED])
def test_a_pooler_that_shares_sessions_is_refused(
    ignored: str, need: Need, postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    with run_pgbouncer(need("pgbouncer"), postgres_server, mode="transaction", ignored=ignored) as pooler:
        for _ in range(3):
            assert "set the pooler to session mode" in refusal(pooler.url_of(name))
    assert postgres_server.query(TABLES, database=name)[0]["count"] == 0


@pytest.mark.parametrize("ignored", ["", IGNORED])
async def test_a_pooler_in_session_mode_changes_nothing(
    ignored: str, need: Need, postgres_server: PostgresServer, postgres_url: str, new_account: NewAccount
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.query(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with run_pgbouncer(need("pgbouncer"), postgres_server, mode="session", ignored=ignored) as pooler:
        await check_that_it_works(pooler.url_of(name), new_account)
        store = PostgresStore(Secret(pooler.url_of(name)))
        store.open()

        async def settings(connection: Connection) -> list[object]:
            return [await connection.fetchval(f"SHOW {each}") for each in ("synchronous_commit", "lock_timeout")]

        assert await store._transaction("BEGIN", settings) == ["on", "7s"]
        await store.close()
