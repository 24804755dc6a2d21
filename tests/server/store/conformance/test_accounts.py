"""What every store promises about accounts."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from jotgate.server.records import Account, AuditEvent, audit_detail
from jotgate.server.store import EmailTaken, Store, StoreError

NewAccount = Callable[..., Account]


async def test_an_account_comes_back_as_it_was_added(store: Store, new_account: NewAccount) -> None:
    account = new_account(email="Ren\u00e9@b\u00fccher.example", scopes=("account:read", "orders:write"))
    await store.add_account(account)
    assert await store.account_by_id(account.id) == account
    assert await store.account_by_email(account.email) == account


async def test_an_account_without_scopes_has_none(store: Store, new_account: NewAccount) -> None:
    account = new_account(scopes=())
    await store.add_account(account)
    assert await store.account_by_id(account.id) == account


async def test_an_unknown_account_is_none(store: Store) -> None:
    assert await store.account_by_id("nobody") is None
    assert await store.account_by_email("nobody@example.com") is None


async def test_an_address_is_found_in_any_case(store: Store, new_account: NewAccount) -> None:
    account = new_account(email="Ada@example.com")
    await store.add_account(account)
    assert await store.account_by_email("aDA@EXAMPLE.com") == account


@pytest.mark.parametrize(
    "again", ["ada@example.com", "ADA@example.com", "\N{FULLWIDTH LATIN SMALL LETTER A}da@example.com"]
)
async def test_an_address_belongs_to_one_account_however_it_is_written(
    store: Store, new_account: NewAccount, again: str
) -> None:
    first = new_account(email="ada@example.com")
    await store.add_account(first)
    with pytest.raises(EmailTaken) as caught:
        await store.add_account(new_account(email=again))
    assert (caught.value.code, caught.value.status) == ("email_taken", 409)
    assert await store.list_accounts(limit=10) == [first]


async def test_an_id_that_exists_is_a_fault_and_not_a_taken_address(store: Store, new_account: NewAccount) -> None:
    first = new_account()
    await store.add_account(first)
    with pytest.raises(StoreError):
        await store.add_account(new_account(id=first.id))
    assert await store.list_accounts(limit=10) == [first]


async def test_of_many_who_take_one_address_at_once_one_gets_it(
    open_store: Callable[[], Store], new_account: NewAccount
) -> None:
    stores = [open_store(), open_store()]
    accounts = [new_account(email="ada@example.com") for _ in range(20)]
    answers = await asyncio.gather(
        *(stores[n % 2].add_account(account) for n, account in enumerate(accounts)), return_exceptions=True
    )
    winners = [account for account, answer in zip(accounts, answers, strict=True) if answer is None]
    assert len(winners) == 1
    assert sum(isinstance(answer, EmailTaken) for answer in answers) == 19
    assert await stores[0].list_accounts(limit=100) == winners


async def test_accounts_are_listed_page_by_page_in_the_order_of_their_addresses(
    store: Store, new_account: NewAccount
) -> None:
    accounts = [new_account(email=f"{name}@example.com") for name in ("Cleo", "ada", "Bob", "dora")]
    for account in accounts:
        await store.add_account(account)
    first = await store.list_accounts(limit=3)
    assert [account.email for account in first] == ["ada@example.com", "Bob@example.com", "Cleo@example.com"]
    rest = await store.list_accounts(limit=3, after=first[-1].email)
    assert [account.email for account in rest] == ["dora@example.com"]
    assert await store.list_accounts(limit=3, after=rest[-1].email) == []


async def test_a_scope_is_granted_once_and_revoked(store: Store, new_account: NewAccount) -> None:
    account = new_account(email="ada@example.com", scopes=("account:read",))
    await store.add_account(account)
    for _ in range(2):
        granted = await store.grant_scope("ADA@example.com", "orders:read")
        assert granted == msgspec.structs.replace(account, scopes=("account:read", "orders:read"))
        assert await store.account_by_id(account.id) == granted
    for _ in range(2):
        assert await store.revoke_scope("ADA@example.com", "orders:read") == account
        assert await store.account_by_id(account.id) == account


async def test_scopes_of_an_unknown_account_are_nobodys(store: Store) -> None:
    assert await store.grant_scope("nobody@example.com", "orders:read") is None
    assert await store.revoke_scope("nobody@example.com", "orders:read") is None


async def test_scopes_granted_at_once_are_all_there(open_store: Callable[[], Store], new_account: NewAccount) -> None:
    stores = [open_store(), open_store()]
    account = new_account(email="ada@example.com", scopes=())
    await stores[0].add_account(account)
    scopes = [f"scope:{n}" for n in range(20)]
    await asyncio.gather(*(stores[n % 2].grant_scope(account.email, scope) for n, scope in enumerate(scopes)))
    changed = await stores[0].account_by_id(account.id)
    assert changed is not None
    assert set(changed.scopes) == set(scopes)


async def test_of_many_accounts_those_are_added_whose_address_and_id_are_new(
    store: Store, new_account: NewAccount
) -> None:
    first = new_account(email="ada@example.com")
    await store.add_account(first)
    new, twin = new_account(email="eve@example.com"), new_account(email="EVE@example.com")
    rest = [new_account(email="ADA@example.com"), new_account(email="x@example.com", id=first.id), new, twin]

    def line(count: int) -> AuditEvent:
        return AuditEvent(at=1, event="account_imported", actor="cli", detail=audit_detail(accounts=count))

    assert await store.add_accounts(rest, audit=line) in ({new.id}, {twin.id})
    assert await store.add_accounts(rest, audit=line) == set()
    assert {each.email.lower() for each in await store.list_accounts(limit=9)} == {"ada@example.com", "eve@example.com"}
    assert [each.detail for each in await store.audit_last(limit=9)] == ['{"accounts":1}']  # of what did something
