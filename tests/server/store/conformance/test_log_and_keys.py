"""What every store promises about the revocation log and the sealed keys."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from jotgate.core.revocations import Revocation
from jotgate.server.records import CLOCK_MARGIN_S, Account, Family, SealedKey
from jotgate.server.store import Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]


def key(kid: str, purpose: str = "access", created_at: int = 1_000) -> SealedKey:
    return SealedKey(kid=kid, purpose=purpose, algorithm="ES256", sealed=b"\0sealed\xff", created_at=created_at)


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
    assert store.add_key_if_none(young) == young
    assert store.add_key_if_none(old) == old
    assert store.load_keys() == [old, young]


async def test_a_second_key_of_a_purpose_yields_to_the_first(store: Store) -> None:
    first = key("first")
    assert store.add_key_if_none(first) == first
    assert store.add_key_if_none(key("second")) == first
    assert store.load_keys() == [first]


def test_of_many_that_start_at_once_all_get_the_same_key(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(8)]
    with ThreadPoolExecutor(len(stores)) as threads:
        kept = list(threads.map(lambda n: stores[n].add_key_if_none(key(f"key-{n}")), range(len(stores))))
    assert kept == stores[0].load_keys() * len(stores)


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
