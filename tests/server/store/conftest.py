"""Stores to test: each promise of `Store` is tested on every kind of store that there is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jotgate.server.records import Account, Family
from jotgate.server.store import Store
from jotgate.server.store.sqlite import SqliteStore

OpenStore = Callable[[], Store]
NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]


@pytest.fixture(params=["sqlite"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Open another store on the test's own database, as another process would; all are closed at the end."""
    makers: dict[str, Callable[[], Store]] = {"sqlite": lambda: SqliteStore(tmp_path / "data" / "jotgate.db")}
    opened: list[Store] = []

    def open_one() -> Store:
        store = makers[request.param]()
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
            "password_hash": "$argon2id$…",
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
