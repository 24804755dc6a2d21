"""What every store promises about the revocation log and the sealed keys."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from jotgate.core.revocations import Revocation
from jotgate.server.records import CLOCK_MARGIN_S, Account, Family, LogEntry, LogHead, SealedKey
from jotgate.server.rules.keys import KeyChange, KeyEvent, KeyNotMature
from jotgate.server.store import Store, StoreError
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]
NOW = 1_000_000


def key(kid: str, purpose: str = "access", created_at: int = 1_000) -> SealedKey:
    return SealedKey(
        kid=kid,
        issuer="https://a.example",
        purpose=purpose,
        algorithm="ES256",
        sealed=b"\0sealed\xff",
        thumbprint=f"print of {kid}",
        created_at=created_at,
        activated_at=created_at + 1,
        retired_at=created_at + 2,
        revoked_at=created_at + 3,
        removed_at=created_at + 4,
    )


def write(store: Store, change: KeyChange) -> None:
    store.change_keys(lambda _: change, now=NOW, until_s=3720)


async def test_the_log_is_numbered_without_gaps_in_the_order_of_commits(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    stores = [open_store(), open_store()]
    account = new_account()
    await stores[0].add_account(account)
    families = [new_family(account) for _ in range(40)]
    await asyncio.gather(*(stores[0].add_family(family, expected_hash=PASSWORD_HASH) for family in families))
    seen: list[tuple[int, str]] = []

    async def end(n: int, family: Family) -> None:
        await stores[n % 2].end_family(family.id, now=1_100 + n, until_s=360)
        # Whoever follows the log by its numbers must never find a smaller one committed later.
        cursor = seen[-1][0] if seen else 0
        seen.extend((entry.seq, entry.id) for entry in await stores[0].revocations_after(cursor) if entry.seq > cursor)

    await asyncio.gather(*(end(n, family) for n, family in enumerate(families)))
    log = await stores[1].revocations_after(0)
    assert [entry.seq for entry in log] == list(range(1, 41))
    assert {entry.id for entry in log} == {family.sid for family in families}
    assert sorted(set(seen)) == [(entry.seq, entry.id) for entry in log]


async def test_the_log_is_read_from_a_cursor(store: Store, new_account: NewAccount, new_family: NewFamily) -> None:
    account = new_account()
    await store.add_account(account)
    for _ in range(3):
        family = new_family(account)
        await store.add_family(family, expected_hash=PASSWORD_HASH)
        await store.end_family(family.id, now=1_100, until_s=360)
    assert [entry.seq for entry in await store.revocations_after(1)] == [2, 3]
    assert await store.revocations_after(3) == []


async def test_the_log_loses_only_what_has_been_dead_for_a_day(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    """A clock that jumps ahead by hours, and back, deletes nothing that counts."""
    account = new_account()
    await store.add_account(account)

    async def end_one(now: int) -> None:
        family = new_family(account)
        await store.add_family(family, expected_hash=PASSWORD_HASH)
        await store.end_family(family.id, now=now, until_s=360)

    for now in (1_100, 1_101, 1_102 + CLOCK_MARGIN_S):
        await end_one(now)
    assert [entry.seq for entry in await store.revocations_after(0)] == [1, 2, 3]
    await end_one(1_460 + CLOCK_MARGIN_S)
    assert [entry.seq for entry in await store.revocations_after(0)] == [2, 3, 4]
    await end_one(1_461 + CLOCK_MARGIN_S)
    assert [entry.seq for entry in await store.revocations_after(0)] == [3, 4, 5]


async def test_keys_come_back_oldest_first(store: Store) -> None:
    young, old = key("young", "access", 2_000), key("old", "refresh", 1_000)
    write(store, KeyChange((young, old)))
    assert store.load_keys() == [old, young]


async def test_a_change_of_keys_writes_rows_anew_and_forgets_others(store: Store) -> None:
    write(store, KeyChange((key("one"), key("two"), key("three"))))
    changed = msgspec.structs.replace(key("one"), sealed=b"", revoked_at=None)
    write(store, KeyChange((changed,), forgotten=("two",)))
    assert {each.kid: each for each in store.load_keys()} == {"one": changed, "three": key("three")}


async def test_a_change_of_keys_shows_in_the_head_of_the_log_and_no_change_does_not(store: Store) -> None:
    before = await store.head()
    write(store, KeyChange())
    assert await store.head() == before
    write(store, KeyChange((key("one"),)))
    assert await store.head() == LogHead(before.log_id, before.seq, before.keys_version + 1)


async def test_a_revoked_key_is_in_the_log_with_the_very_change(store: Store) -> None:
    revoked = KeyEvent("key_revoked", "one", "access", "ES256")
    write(store, KeyChange((key("one"),), events=(revoked,)))
    assert await store.revocations_after(0) == [LogEntry(seq=1, kind="key", id="one", at=NOW, until=NOW + 3720)]


async def test_what_a_decision_about_keys_raises_leaves_everything_as_it_was(store: Store) -> None:
    write(store, KeyChange((key("one"),)))
    before = await store.head()

    def refuse(keys: list[SealedKey]) -> KeyChange:
        assert keys == [key("one")]
        raise KeyNotMature("not yet")

    with pytest.raises(KeyNotMature):
        store.change_keys(refuse, now=NOW, until_s=3720)
    assert (await store.head(), store.load_keys()) == (before, [key("one")])


async def test_the_same_material_is_never_two_keys(store: Store) -> None:
    write(store, KeyChange((key("one"),)))
    with pytest.raises(StoreError):
        write(store, KeyChange((msgspec.structs.replace(key("two"), thumbprint=key("one").thumbprint),)))
    assert store.load_keys() == [key("one")]


def test_of_many_that_decide_at_once_each_sees_what_those_before_have_done(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(8)]

    def add_first(number: int) -> None:
        mine = KeyChange((key(f"key-{number}"),))
        stores[number].change_keys(lambda known: KeyChange() if known else mine, now=NOW, until_s=3720)

    with ThreadPoolExecutor(len(stores)) as threads:
        list(threads.map(add_first, range(len(stores))))
    assert len(stores[0].load_keys()) == 1


async def test_what_a_restored_database_has_lost_is_ended_and_logged_again(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)
    alive, other = new_family(account), new_family(account)
    for family in (alive, other):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    lost = [
        Revocation("session", (alive.sid, "unknown-here")),
        Revocation("token", ("jti",)),
        Revocation("client", ("cli",), 900),
    ]
    await store.log_again(lost, now=1_100, until_s=360)
    log = await store.revocations_after(0)
    assert [(entry.kind, entry.id, entry.at, entry.until) for entry in log] == [
        ("session", alive.sid, 1_100, 1_460),
        ("session", "unknown-here", 1_100, 1_460),
        ("token", "jti", 1_100, 1_460),
        ("client", "cli", 900, 1_260),
    ]
    ended, kept = await store.family_by_id(alive.id), await store.family_by_id(other.id)
    assert ended is not None
    assert kept is not None
    assert (ended.ended_at, kept.ended_at) == (1_100, None)
    await store.log_again([Revocation("all", (), 950)], now=1_101, until_s=360)
    everybody = await store.family_by_id(other.id)
    assert everybody is not None
    assert everybody.ended_at == 950
