"""What every store promises about being opened, used from anywhere, and closed."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from jotgate.server.records import Account, SealedKey
from jotgate.server.rules.keys import KeyChange
from jotgate.server.store import Store, StoreClosed

NewAccount = Callable[..., Account]
OpenStore = Callable[[], Store]
KEY = SealedKey(
    kid="kid", issuer="", purpose="access", algorithm="ES256", sealed=b"sealed", thumbprint="kid", created_at=1
)


async def test_an_open_store_answers_a_ping(store: Store) -> None:
    await store.ping()


async def test_a_closed_store_refuses_everything_in_a_typed_way(store: Store, new_account: NewAccount) -> None:
    await store.close()
    for refused in (store.ping(), store.add_account(new_account()), store.account_by_id("id")):
        with pytest.raises(StoreClosed):
            await refused
    with pytest.raises(StoreClosed):
        store.load_keys()
    with pytest.raises(StoreClosed):
        store.change_keys(lambda _: KeyChange((KEY,)), now=1, until_s=1)


async def test_opening_twice_is_opening_once_and_a_closed_store_opens_again(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account()
    store.open()
    await store.add_account(account)
    await store.close()
    await store.close()
    store.open()
    assert await store.account_by_id(account.id) == account


async def test_closing_first_finishes_what_is_queued(open_store: OpenStore, new_account: NewAccount) -> None:
    store = open_store()
    accounts = [new_account() for _ in range(300)]
    queued = [asyncio.ensure_future(store.add_account(account)) for account in accounts]
    await asyncio.sleep(0)  # let them queue
    await store.close()
    await asyncio.gather(*queued)
    assert len(await open_store().list_accounts(limit=1_000)) == 300


async def test_what_was_answered_is_seen_by_every_later_read(store: Store, new_account: NewAccount) -> None:
    async def add_and_read(account: Account) -> bool:
        await store.add_account(account)
        return await store.account_by_id(account.id) == account

    assert all(await asyncio.gather(*(add_and_read(new_account()) for _ in range(100))))


def test_one_store_serves_event_loops_in_several_threads(store: Store, new_account: NewAccount) -> None:
    accounts = [[new_account() for _ in range(25)] for _ in range(4)]
    found: list[Account | None] = []

    async def add(mine: list[Account]) -> None:
        await asyncio.gather(*(store.add_account(account) for account in mine))
        found.extend([await store.account_by_id(account.id) for account in mine])

    threads = [threading.Thread(target=asyncio.run, args=(add(mine),)) for mine in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(account.id for account in found if account) == sorted(a.id for mine in accounts for a in mine)
