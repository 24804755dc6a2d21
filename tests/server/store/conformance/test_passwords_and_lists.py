"""What every store promises about a change of password, about an account's list of sessions, and about sweeping up."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from jotgate.server.records import CLOCK_MARGIN_S, Account, Family, Revoked, Target
from jotgate.server.store import Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]


async def change(store: Store, account: Account, old: str, new: str) -> Revoked | None:
    return await store.set_password(
        account.id, expected_hash=old, expected_version=0, password_hash=new, now=1_100, until_s=360
    )


@pytest.fixture
async def account(store: Store, new_account: NewAccount) -> Account:
    account = new_account()
    await store.add_account(account)
    return account


async def test_a_new_password_ends_all_sessions_of_the_account(
    store: Store, account: Account, new_account: NewAccount, new_family: NewFamily
) -> None:
    other = new_account()
    await store.add_account(other)
    gone, gone_too, others = new_family(account), new_family(account), new_family(other)
    for family in (gone, gone_too, others):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    done = await change(store, account, account.password_hash, "new")
    assert done is not None
    assert {entry.id for entry in done.entries} == {gone.sid, gone_too.sid}
    assert {(entry.kind, entry.at, entry.until) for entry in done.entries} == {("session", 1_100, 1_460)}
    assert await store.revocations_after(0) == list(done.entries)
    changed = msgspec.structs.replace(account, password_hash="new", credential_version=1)
    assert await store.account_by_id(account.id) == changed
    assert await store.account_by_id(other.id) == other
    assert await store.families_of_account(account.id, now=1_100) == []
    assert [f.sid for f in await store.families_of_account(other.id, now=1_100)] == [others.sid]


async def test_a_password_that_is_not_the_expected_one_is_left_alone_with_all_sessions(
    store: Store, account: Account, new_family: NewFamily
) -> None:
    for family in (new_family(account), new_family(account)):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    assert await change(store, account, "not this", "new") is None
    assert await change(store, msgspec.structs.replace(account, id="unknown"), "x", "new") is None
    assert await store.account_by_id(account.id) == account
    assert len(await store.families_of_account(account.id, now=1_100)) == 2
    assert await store.revocations_after(0) == []


async def test_of_changes_at_the_same_time_one_counts(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    stores = [open_store(), open_store()]
    for _ in range(5):
        account = new_account()
        await stores[0].add_account(account)
        families = [new_family(account) for _ in range(6)]
        for family in families:
            await stores[0].add_family(family, expected_hash=PASSWORD_HASH)
        done = await asyncio.gather(
            *(change(stores[n % 2], account, account.password_hash, f"new {n}") for n in range(len(families)))
        )
        (winner,) = (n for n, revoked in enumerate(done) if revoked is not None)
        changed = await stores[1].account_by_id(account.id)
        assert changed is not None
        assert changed.password_hash == f"new {winner}"
        assert await stores[1].families_of_account(account.id, now=1_100) == []


async def test_no_session_begins_with_a_password_that_has_been_changed_since_it_was_checked(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    changing, logging_in = open_store(), open_store()
    account = new_account()
    await changing.add_account(account)
    mine, late, right = (new_family(account) for _ in range(3))
    assert await changing.add_family(mine, expected_hash=account.password_hash) is True
    checked = await logging_in.account_by_id(account.id)  # here, the login checks the password: it is right
    assert checked is not None
    assert await change(changing, account, account.password_hash, "new") is not None
    assert await logging_in.add_family(late, expected_hash=checked.password_hash) is False
    assert await logging_in.family_by_id(late.id) is None
    assert await logging_in.add_family(right, expected_hash="new") is True
    assert {f.sid for f in await changing.families_of_account(account.id, now=1_100)} == {right.sid}


async def test_another_hash_of_the_same_password_ends_no_session_and_logs_nothing(
    store: Store, account: Account, new_account: NewAccount, new_family: NewFamily
) -> None:
    other = new_account()
    await store.add_account(other)
    before, after = new_family(account), new_family(account)
    assert await store.add_family(before, expected_hash=PASSWORD_HASH)
    assert await store.replace_hash(account.id, expected_hash=account.password_hash, password_hash="upgraded") is True
    assert await store.account_by_id(account.id) == msgspec.structs.replace(account, password_hash="upgraded")
    assert await store.account_by_id(other.id) == other
    assert [f.sid for f in await store.families_of_account(account.id, now=1_100)] == [before.sid]
    assert await store.revocations_after(0) == []
    assert await store.add_family(new_family(account), expected_hash=account.password_hash) is False
    assert await store.add_family(after, expected_hash="upgraded") is True


async def test_a_hash_that_is_not_the_expected_one_is_not_replaced(store: Store, account: Account) -> None:
    assert await change(store, account, account.password_hash, "new") is not None
    assert await store.replace_hash(account.id, expected_hash=account.password_hash, password_hash="x") is False
    assert await store.replace_hash("unknown", expected_hash="new", password_hash="x") is False
    changed = await store.account_by_id(account.id)
    assert changed is not None
    assert changed.password_hash == "new"


async def test_of_replacements_and_a_change_at_the_same_time_the_change_is_never_undone(
    open_store: OpenStore, new_account: NewAccount
) -> None:
    changing, logging_in = open_store(), open_store()
    for _ in range(10):
        account = new_account()
        await changing.add_account(account)
        changed, replaced = await asyncio.gather(
            change(changing, account, account.password_hash, "new"),
            asyncio.gather(
                *(
                    logging_in.replace_hash(
                        account.id,
                        expected_hash=account.password_hash,
                        password_hash=f"upgraded {n}",
                    )
                    for n in range(6)
                )
            ),
        )
        assert sum((changed is not None, *replaced)) == 1
        stored = await logging_in.account_by_id(account.id)
        assert stored is not None
        expected = "new" if changed is not None else f"upgraded {replaced.index(True)}"
        assert stored.password_hash == expected


async def test_no_session_begins_for_an_account_that_is_not_there(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    nobody = new_account()
    family = new_family(nobody)
    assert await store.add_family(family, expected_hash=nobody.password_hash) is False
    assert await store.family_by_id(family.id) is None


async def test_logins_that_race_a_change_of_password_are_refused_or_ended_by_it(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    changing, logging_in = open_store(), open_store()
    for _ in range(10):
        account = new_account()
        await changing.add_account(account)
        mine, *others = (new_family(account) for _ in range(12))
        await changing.add_family(mine, expected_hash=account.password_hash)
        done, begun = await asyncio.gather(
            change(changing, account, account.password_hash, "new"),
            asyncio.gather(*(logging_in.add_family(family, expected_hash=account.password_hash) for family in others)),
        )
        assert done is not None
        began = {family.sid for family, there in zip(others, begun, strict=True) if there}
        assert {entry.id for entry in done.entries} == {mine.sid, *began}
        assert await logging_in.families_of_account(account.id, now=1_100) == []


async def test_the_sessions_of_an_account_are_its_live_ones_the_last_used_first(
    store: Store, account: Account, new_account: NewAccount, new_family: NewFamily
) -> None:
    other = new_account()
    await store.add_account(other)
    live = [new_family(account, seen_at=at) for at in (1_010, 1_030, 1_020)]
    idle = new_family(account, idle_ends_at=1_100, seen_at=1_050)
    over = new_family(account, ends_at=1_100, idle_ends_at=2_000, seen_at=1_050)
    ended, of_other = new_family(account, ended_at=1_050), new_family(other)
    for family in (*live, idle, over, ended, of_other):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    # Ends count from their very second on.
    assert {f.sid for f in await store.families_of_account(account.id, now=1_099)} == {
        f.sid for f in (*live, idle, over)
    }
    shown = await store.families_of_account(account.id, now=1_100)
    assert shown == [live[1], live[2], live[0]]
    assert await store.families_of_account(account.id, now=1_100, limit=2) == shown[:2]
    assert await store.families_of_account("unknown", now=1_100) == []


async def test_sweeping_goes_round_in_steps_and_deletes_only_what_is_dead_for_a_day(
    store: Store, account: Account, new_family: NewFamily
) -> None:
    now = 1_500 + CLOCK_MARGIN_S
    far = now + 10**6
    live = [new_family(account, idle_ends_at=far, ends_at=far) for _ in range(3)]
    idle_for_a_day = [new_family(account, idle_ends_at=1_500) for _ in range(3)]
    nearly = new_family(account, idle_ends_at=1_501)
    ended_for_a_day = [new_family(account, idle_ends_at=far, ends_at=far) for _ in range(2)]
    ended_later = new_family(account, idle_ends_at=far, ends_at=far)
    everything = [*live, *idle_for_a_day, nearly, *ended_for_a_day, ended_later]
    for family in everything:
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    for family in ended_for_a_day:
        await store.end_family(family.id, now=1_500, until_s=1)
    await store.end_family(ended_later.id, now=1_501, until_s=1)

    after, steps = b"", 0
    while True:
        after = await store.sweep(after, now=now, limit=4)
        steps += 1
        if not after:
            break
    assert steps == 3  # ten rows, four at a time
    left = {family.sid for family in everything if await store.family_by_id(family.id) is not None}
    assert left == {family.sid for family in (*live, nearly, ended_later)}
    assert len(await store.revocations_after(0)) == 3  # their entries are not yet dead for a day
    assert await store.sweep(b"", now=now + 2, limit=100) == b""
    assert await store.revocations_after(0) == []
    assert {f.sid for f in everything if await store.family_by_id(f.id) is not None} == {f.sid for f in live}


async def test_a_step_of_sweeping_looks_at_no_more_than_it_is_told(
    store: Store, account: Account, new_family: NewFamily
) -> None:
    families = [new_family(account) for _ in range(5)]  # in the order of their ids
    for family in families:
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    now = 9_000 + CLOCK_MARGIN_S
    assert await store.sweep(b"", now=now, limit=2) == families[1].id
    assert [await store.family_by_id(f.id) is not None for f in families] == [False, False, True, True, True]
    assert await store.sweep(families[1].id, now=now, limit=5) == b""
    assert [await store.family_by_id(f.id) for f in families] == [None] * 5


async def test_the_log_is_swept_in_steps_too(store: Store) -> None:
    for n in range(5):
        await store.revoke(Target("token", f"jti-{n}"), clock=lambda: 1_000, until_s=100)
    now = 1_100 + CLOCK_MARGIN_S
    await store.sweep(b"", now=now - 1, limit=2)
    assert len(await store.revocations_after(0)) == 5
    await store.sweep(b"", now=now, limit=2)
    assert len(await store.revocations_after(0)) == 3
    assert (await store.head()).seq == 5  # numbers are never given again
