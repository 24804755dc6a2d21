"""Stores to test: each promise of `Store` is tested on every kind of store that there is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jotgate.server.records import Account, Family
from jotgate.server.secret import Secret
from jotgate.server.store import Store
from jotgate.server.store.postgres import PostgresStore
from jotgate.server.store.sqlite import SqliteStore
from tests.server.store.support import PASSWORD_HASH
from tests.services import PostgresServer

MakeStore = Callable[[], Store]
OpenStore = Callable[[], Store]
NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database with up-to-date tables and nothing in them, to make others from."""
    url = postgres_server.new_database()
    store = PostgresStore(Secret(url))
    store.open()
    store.close_now()
    return url.rpartition("/")[2]


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The address of a database of the test's own, with up-to-date tables."""
    url = postgres_server.new_database(template=postgres_template)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Make a store of one kind or the other on the test's own database."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "data" / "jotgate.db")
    url = Secret(request.getfixturevalue("postgres_database"))
    return lambda: PostgresStore(url)


@pytest.fixture
def open_store(make_store: MakeStore) -> Iterator[OpenStore]:
    """Open another store on the test's own database, as another process would; all are closed at the end."""
    opened: list[Store] = []

    def open_one() -> Store:
        store = make_store()
        store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close_now()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def new_account() -> NewAccount:
    """A valid account, unlike the ones before, with whatever a test cares about put in."""
    count = 0

    def make(**fields: object) -> Account:
        nonlocal count
        count += 1
        given: dict[str, Any] = {
            "id": f"account-{count}",
            "email": f"person{count}@example.com",
            "password_hash": PASSWORD_HASH,
            "scopes": ("account:read",),
            "created_at": 1_000,
        }
        return Account(**(given | fields))

    return make


@pytest.fixture
def new_family() -> NewFamily:
    """A valid family begun at 1000, unlike the ones before, with whatever a test cares about put in."""
    count = 0

    def make(account: Account, **fields: object) -> Family:
        nonlocal count
        count += 1
        given: dict[str, Any] = {
            "id": count.to_bytes(16),
            "sid": f"session-{count}",
            "account_id": account.id,
            "client_id": "web",
            "scopes": ("account:read",),
            "mac_kid": "first",
            "auth_time": 1_000,
            "created_at": 1_000,
            "seen_at": 1_000,
            "idle_ends_at": 2_000,
            "ends_at": 9_000,
        }
        return Family(**(given | fields))

    return make
