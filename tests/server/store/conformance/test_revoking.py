"""What every store promises about revocations: what they end, what they log, and what no refresh can slip past."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from jotgate.server.records import Account, Family, LogEntry, Revoked, Target
from jotgate.server.rules.refresh import Ended, Outcome, Rotated
from jotgate.server.store import Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]

UNTIL_S: Final = 360


async def revoke(store: Store, target: Target, at: int) -> Revoked:
    return await store.revoke(target, clock=lambda: at, until_s=UNTIL_S)


async def present(store: Store, family: Family, generation: int, at: int) -> Outcome:
    outcome, _, _ = await store.rotate(family.id, generation, now=at, mac_kid="second", idle_s=500, until_s=UNTIL_S)
    return outcome


async def ended_at(store: Store, family: Family) -> int | None:
    """When the session ended, as both ways to look it up tell it."""
    by_id, by_sid = await store.family_by_id(family.id), await store.family_by_sid(family.sid)
    assert by_id is not None
    assert by_id == by_sid
    return by_id.ended_at


async def begin(store: Store, account: Account, new_family: NewFamily, *clients: str) -> list[Family]:
    """Sessions of an account, one for each client."""
    families = [new_family(account, client_id=client) for client in clients]
    for family in families:
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    return families


@pytest.fixture
async def account(store: Store, new_account: NewAccount) -> Account:
    account = new_account()
    await store.add_account(account)
    return account


def told(entries: tuple[LogEntry, ...] | list[LogEntry]) -> list[tuple[int, str, str, int, int]]:
    return [(entry.seq, entry.kind, entry.id, entry.at, entry.until) for entry in entries]


async def test_revoking_a_session_ends_and_logs_that_one_once(
    store: Store, account: Account, new_family: NewFamily
) -> None:
    gone, kept = await begin(store, account, new_family, "web", "web")
    first = await revoke(store, Target("session", gone.sid), 1_100)
    again = await revoke(store, Target("session", gone.sid), 1_101)
    unknown = await revoke(store, Target("session", "unknown"), 1_102)
    assert told(first.entries) == [(1, "session", gone.sid, 1_100, 1_460)]
    assert (again, unknown) == (Revoked(), Revoked())
    assert [await ended_at(store, family) for family in (gone, kept)] == [1_100, None]
    assert await store.revocations_after(0) == list(first.entries)


async def test_revoking_an_account_ends_its_sessions_but_those_of_nobody_else(
    store: Store, account: Account, new_account: NewAccount, new_family: NewFamily
) -> None:
    other = new_account()
    await store.add_account(other)
    mine = await begin(store, account, new_family, "web", "cli", "web")
    (others,) = await begin(store, other, new_family, "web")
    await store.end_family(mine[2].id, now=1_050, until_s=UNTIL_S)

    done = await revoke(store, Target("account", account.id), 1_100)
    assert {entry.id for entry in done.entries} == {mine[0].sid, mine[1].sid}  # the third had ended before
    assert [(entry.seq, entry.kind, entry.at) for entry in done.entries] == [
        (2, "session", 1_100),
        (3, "session", 1_100),
    ]
    assert [await ended_at(store, family) for family in mine] == [1_100, 1_100, 1_050]
    assert await ended_at(store, others) is None
    assert await revoke(store, Target("account", account.id), 1_200) == Revoked()
    assert [entry.seq for entry in await store.revocations_after(0)] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["token", "key"])
async def test_revoking_a_token_or_a_key_logs_it_and_ends_no_session(
    store: Store, account: Account, new_family: NewFamily, kind: str
) -> None:
    (family,) = await begin(store, account, new_family, "web")
    done = await revoke(store, msgspec.convert({"kind": kind, "id": "name"}, Target, from_attributes=True), 1_100)
    assert told(done.entries) == [(1, kind, "name", 1_100, 1_460)]
    assert await store.revocations_after(0) == list(done.entries)
    assert await ended_at(store, family) is None


@pytest.mark.parametrize(("target", "over"), [(Target("client", "web"), ["web"]), (Target("all"), ["web", "cli"])])
async def test_a_mass_revocation_ends_what_was_begun_before_and_nothing_after(
    store: Store, account: Account, new_family: NewFamily, target: Target, over: list[str]
) -> None:
    before = await begin(store, account, new_family, "web", "cli")
    done = await revoke(store, target, 1_100)
    after = await begin(store, account, new_family, "web", "cli")

    assert told(done.entries) == [(1, target.kind, target.id, 1_100, 1_460)]  # one entry, however many sessions
    assert await store.revocations_after(0) == list(done.entries)
    expected = [1_100 if family.client_id in over else None for family in before]
    assert [await ended_at(store, family) for family in before] == expected
    assert [await ended_at(store, family) for family in after] == [None, None]
    alive = {family.sid for family in await store.families_of_account(account.id, now=1_100)}
    assert alive == {family.sid for family in before if family.client_id not in over} | {f.sid for f in after}


@pytest.mark.parametrize("target", [Target("client", "web"), Target("all")])
async def test_nothing_can_be_done_with_a_session_that_a_mass_revocation_ended(
    store: Store, account: Account, new_family: NewFamily, target: Target
) -> None:
    (family,) = await begin(store, account, new_family, "web")
    assert isinstance(await present(store, family, 0, 1_050), Rotated)
    await revoke(store, target, 1_100)
    over = await store.family_by_id(family.id)
    # Neither with the current token, nor a retired one within and behind its grace, nor one that never was.
    for generation, at in ((1, 1_101), (0, 1_051), (0, 1_300), (7, 1_101)):
        assert await present(store, family, generation, at) == Ended()
    await store.confirm(family.id, 1)
    assert await store.end_family(family.id, now=1_101, until_s=UNTIL_S) is False
    assert await revoke(store, Target("session", family.sid), 1_101) == Revoked()
    assert await revoke(store, Target("account", account.id), 1_101) == Revoked()
    assert await store.family_by_id(family.id) == over
    assert [entry.seq for entry in await store.revocations_after(0)] == [1]


async def test_a_later_mass_revocation_ends_the_sessions_in_between_too(
    store: Store, account: Account, new_family: NewFamily
) -> None:
    lives: list[Family] = []
    for at, target in ((1_100, Target("client", "web")), (1_200, Target("all")), (1_300, Target("client", "web"))):
        lives += await begin(store, account, new_family, "web")
        await revoke(store, target, at)
    lives += await begin(store, account, new_family, "web")
    ends = [await ended_at(store, family) for family in lives]
    assert [end is None for end in ends] == [False, False, False, True]
    # A moment when it was over already; which of several revocations is remembered is the store's own business.
    assert all(end is not None and 1_100 <= end <= 1_300 for end in ends[:3])


async def test_two_clients_are_cut_off_independently(store: Store, account: Account, new_family: NewFamily) -> None:
    web, cli, other = await begin(store, account, new_family, "web", "cli", "other")
    await revoke(store, Target("client", "web"), 1_100)
    await revoke(store, Target("client", "cli"), 1_200)
    assert [await ended_at(store, family) for family in (web, cli, other)] == [1_100, 1_200, None]


@pytest.mark.parametrize("target", [Target("client", "web"), Target("all")])
async def test_no_refresh_slips_past_a_mass_revocation(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily, target: Target
) -> None:
    """Its entry says "tokens issued up to this second": no refresh may lead to one that is issued later."""
    stores = [open_store(), open_store()]
    account = new_account()
    await stores[0].add_account(account)
    families = [new_family(account, idle_ends_at=10**6, ends_at=10**6) for _ in range(50)]
    await asyncio.gather(*(stores[0].add_family(family, expected_hash=PASSWORD_HASH) for family in families))
    seconds = itertools.count(1_100)  # each look at the clock is a second later: nothing is "at the same time"
    rotated_at: list[int] = []
    answered = False
    late: list[Outcome] = []
    running = asyncio.Event()

    async def use(store: Store, family: Family) -> None:
        for generation in range(2_000):
            began_late, now = answered, next(seconds)
            outcome, _, _ = await store.rotate(
                family.id, generation, now=now, mac_kid="second", idle_s=10**6, until_s=UNTIL_S
            )
            if began_late:
                late.append(outcome)
            if not isinstance(outcome, Rotated):
                assert outcome == Ended()
                return
            rotated_at.append(now)
            if len(rotated_at) == 100:
                running.set()
        pytest.fail("the session outlived the revocation")

    users = [asyncio.ensure_future(use(stores[n % 2], family)) for n, family in enumerate(families)]
    await running.wait()
    done = await stores[1].revoke(target, clock=lambda: next(seconds), until_s=UNTIL_S)
    answered = True
    await asyncio.gather(*users)
    (entry,) = done.entries
    assert max(rotated_at) <= entry.at
    assert all(outcome == Ended() for outcome in late)
    for family in families:
        assert isinstance(await present(stores[0], family, 0, entry.at + 1), Ended)
    assert await stores[0].revocations_after(0) == [entry]
