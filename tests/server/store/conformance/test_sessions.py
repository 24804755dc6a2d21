"""What every store promises about sessions and their refresh-token families."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jotgate.server.records import CLOCK_MARGIN_S, Account, Family
from jotgate.server.rules import refresh
from jotgate.server.rules.refresh import Ended, Outcome, Replayed, Reused, Rotated
from jotgate.server.store import Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]
Answer = tuple[Outcome, Family | None, Account | None]


async def begin(store: Store, new_account: NewAccount, new_family: NewFamily) -> Family:
    account = new_account()
    await store.add_account(account)
    family = new_family(account)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    stored = await store.family_by_id(family.id)
    assert stored is not None
    return stored


async def present(store: Store, family: Family, generation: int, at: int) -> Answer:
    return await store.rotate(family.id, generation, now=at, mac_kid="second", idle_s=500, until_s=360)


async def test_a_session_comes_back_as_it_was_added(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)
    family = new_family(
        account,
        id=bytes(range(16)),
        scopes=("account:read", "orders:read"),
        generation=2**32 - 1,
        retired=((7, 1_001), (8, 1_002)),
        confirmed=True,
        ended_at=1_003,
    )
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    assert await store.family_by_id(family.id) == family
    assert await store.family_by_sid(family.sid) == family


async def test_an_unknown_session_is_none(store: Store) -> None:
    assert await store.family_by_id(b"?" * 16) is None
    assert await store.family_by_sid("?") is None


async def test_an_unknown_session_cannot_be_rotated_ended_or_confirmed(store: Store) -> None:
    assert await store.rotate(b"?" * 16, 0, now=1, mac_kid="second", idle_s=1, until_s=1) == (Ended(), None, None)
    assert await store.end_family(b"?" * 16, now=1, until_s=1) is False
    await store.confirm(b"?" * 16, 0)
    assert await store.revocations_after(0) == []


async def test_a_rotation_is_kept_and_tells_the_account_as_it_is_now(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account(email="ada@example.com")
    await store.add_account(account)
    family = new_family(account)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    changed = await store.grant_scope(account.email, "orders:read")
    expected = refresh.rotate(family, 0, now=1_100, mac_kid="second", idle_s=500)
    assert isinstance(expected, Rotated)
    assert await present(store, family, 0, 1_100) == (expected, expected.family, changed)
    assert await store.family_by_id(family.id) == expected.family


async def test_a_replay_within_the_grace_changes_nothing(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    family = await begin(store, new_account, new_family)
    _, successor, account = await present(store, family, 0, 1_100)
    assert successor is not None
    assert await present(store, family, 0, 1_110) == (Replayed(successor), successor, account)
    assert await store.family_by_id(family.id) == successor


async def test_confirming_the_current_token_ends_the_long_grace_of_its_predecessor(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    family = await begin(store, new_account, new_family)
    await present(store, family, 0, 1_100)
    await store.confirm(family.id, 1)
    outcome, _, _ = await present(store, family, 0, 1_111)
    assert outcome == Reused()


async def test_confirming_an_old_token_says_nothing_about_the_current_one(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    family = await begin(store, new_account, new_family)
    await present(store, family, 0, 1_100)
    await store.confirm(family.id, 0)
    outcome, _, _ = await present(store, family, 0, 1_111)
    assert isinstance(outcome, Replayed)


async def test_reuse_ends_the_session_and_logs_it_for_good(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    store = open_store()
    family = await begin(store, new_account, new_family)
    await present(store, family, 0, 1_100)
    outcome, ended, account = await present(store, family, 0, 1_500)
    assert outcome == Reused()
    assert account is not None
    assert ended is not None
    assert ended.ended_at == 1_500
    await store.close()

    again = open_store()
    assert await again.family_by_id(family.id) == ended
    (entry,) = await again.revocations_after(0)
    assert msgspec.structs.asdict(entry) == {"seq": 1, "kind": "session", "id": family.sid, "at": 1_500, "until": 1_860}
    for generation in (0, 1, 2):
        assert (await present(again, family, generation, 1_501))[0] == Ended()
    assert len(await again.revocations_after(0)) == 1


async def test_200_refreshes_of_one_token_at_once_have_one_successor(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    stores = [open_store(), open_store()]  # as two worker processes have them
    family = await begin(stores[0], new_account, new_family)
    answers = await asyncio.gather(*(present(stores[n % 2], family, 0, 1_100 + n // 20) for n in range(200)))
    kept = await stores[0].family_by_id(family.id)
    assert kept is not None
    assert kept.generation == 1
    assert sum(isinstance(outcome, Rotated) for outcome, _, _ in answers) == 1
    assert sum(isinstance(outcome, Replayed) for outcome, _, _ in answers) == 199
    assert all(successor == kept for _, successor, _ in answers)
    assert (await present(stores[1], family, 1, 1_120))[0] != Ended()


async def test_no_refresh_succeeds_after_a_logout_that_races_it(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    stores = [open_store(), open_store()]
    for _ in range(10):
        family = await begin(stores[0], new_account, new_family)
        log_length = len(await stores[0].revocations_after(0))

        async def use(store: Store, family: Family) -> list[bool]:
            generation, alive = 0, []
            for _ in range(10):
                outcome, current, _ = await present(store, family, generation, 1_100)
                alive.append(isinstance(outcome, Rotated))
                generation = current.generation if current is not None else generation
            return alive

        alive, ended, again = await asyncio.gather(
            use(stores[0], family),
            stores[1].end_family(family.id, now=1_100, until_s=360),
            stores[0].end_family(family.id, now=1_100, until_s=360),
        )
        assert alive == sorted(alive, reverse=True)  # once refused, refused for good
        assert {ended, again} == {True, False}
        assert (await present(stores[0], family, 0, 1_100))[0] == Ended()
        assert len(await stores[0].revocations_after(0)) == log_length + 1


@pytest.mark.parametrize("ended_at", [1_200, 1_000_000])
async def test_a_session_ends_once_and_stays_ended(
    store: Store, new_account: NewAccount, new_family: NewFamily, ended_at: int
) -> None:
    family = await begin(store, new_account, new_family)
    assert await store.end_family(family.id, now=ended_at, until_s=360) is True
    assert await store.end_family(family.id, now=ended_at + 1, until_s=360) is False
    kept = await store.family_by_id(family.id)
    assert kept == msgspec.structs.replace(family, ended_at=ended_at)
    await store.confirm(family.id, 0)
    assert await store.family_by_id(family.id) == kept
    (entry,) = await store.revocations_after(0)
    assert (entry.id, entry.at, entry.until) == (family.sid, ended_at, ended_at + 360)


# The store against the rules alone: whatever happens to a session, both must tell the same story.

lives = st.lists(
    st.one_of(
        st.tuples(st.just("present"), st.integers(min_value=-1, max_value=18)),  # counted back from the current one
        st.tuples(st.just("confirm"), st.integers(min_value=-1, max_value=1)),
        st.tuples(st.just("wait"), st.sampled_from([1, 10, 11, 60, 61, 400, 600, -30])),
        st.tuples(st.just("end"), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives)
def test_any_life_of_a_session_is_kept_as_the_rules_tell_it(
    store: Store, new_account: NewAccount, new_family: NewFamily, life: list[tuple[str, int]]
) -> None:
    async def live() -> None:
        family, now = await begin(store, new_account, new_family), 1_000
        log_length = len(await store.revocations_after(0))
        for what, number in life:
            match what:
                case "wait":
                    now += number
                case "confirm":
                    generation = max(family.generation - number, 0)
                    await store.confirm(family.id, generation)
                    if generation == family.generation and family.ended_at is None:
                        family = msgspec.structs.replace(family, confirmed=True)
                case "end":
                    assert await store.end_family(family.id, now=now, until_s=360) is (family.ended_at is None)
                    family = msgspec.structs.replace(family, ended_at=family.ended_at or now)
                case "present":
                    generation = max(family.generation - number, 0)
                    expected = refresh.rotate(family, generation, now=now, mac_kid="second", idle_s=500)
                    outcome, told, _ = await present(store, family, generation, now)
                    match expected:
                        case Rotated(successor):
                            family = successor
                        case Reused():
                            family = msgspec.structs.replace(family, ended_at=now)
                    assert (outcome, told) == (expected, family)
            assert await store.family_by_id(family.id) == family
        assert len(await store.revocations_after(0)) == log_length + (family.ended_at is not None)

    asyncio.run(live())


async def test_a_login_takes_dead_sessions_of_the_account_along_a_day_later(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account, other = new_account(), new_account()
    for each in (account, other):
        await store.add_account(each)
    ended, idle, alive = (new_family(account) for _ in range(3))
    ended_of_other = new_family(other)
    idle = msgspec.structs.replace(idle, idle_ends_at=idle.created_at + 60)
    for family in (ended, idle, alive, ended_of_other):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    now = ended.created_at + 60
    for family in (ended, ended_of_other):
        await store.end_family(family.id, now=now, until_s=360)

    async def log_in(at: int) -> None:
        await store.add_family(msgspec.structs.replace(new_family(account), created_at=at), expected_hash=PASSWORD_HASH)

    async def there(*families: Family) -> list[bool]:
        return [await store.family_by_id(family.id) is not None for family in families]

    await log_in(now + CLOCK_MARGIN_S - 1)
    assert await there(ended, idle, alive, ended_of_other) == [True, True, True, True]
    await log_in(now + CLOCK_MARGIN_S)
    assert await there(ended, idle, alive, ended_of_other) == [False, False, True, True]
