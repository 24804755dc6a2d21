"""What a presented refresh token means: the grace, reuse, and the ends of a session."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.records import Family
from jotgate.server.rules.refresh import (
    REMEMBERED_GENERATIONS,
    Ended,
    Outcome,
    Replayed,
    Reused,
    Rotated,
    Standing,
    idle_end,
    judge,
    rotate,
)

BEGUN_AT = 1_000_000
IDLE_S = 500
LIFE_S = 2_000


def new_family() -> Family:
    return Family(
        id=b"f" * 16,
        sid="session",
        account_id="account",
        client_id="web",
        scopes=("orders:read",),
        mac_kid="first",
        auth_time=BEGUN_AT,
        created_at=BEGUN_AT,
        seen_at=BEGUN_AT,
        idle_ends_at=BEGUN_AT + IDLE_S,
        ends_at=BEGUN_AT + LIFE_S,
    )


def present(family: Family, generation: int, at: int) -> Outcome:
    return rotate(family, generation, now=BEGUN_AT + at, mac_kid="second", idle_s=IDLE_S)


def rotated(family: Family, at: int) -> Family:
    outcome = present(family, family.generation, at)
    assert isinstance(outcome, Rotated)
    return outcome.family


def confirmed(family: Family) -> Family:
    return msgspec.structs.replace(family, confirmed=True)


def test_the_current_token_gets_a_successor_under_the_current_mac_key() -> None:
    family = confirmed(new_family())
    assert present(family, 0, 7) == Rotated(
        msgspec.structs.replace(
            family,
            generation=1,
            mac_kid="second",
            retired=((0, BEGUN_AT + 7),),
            confirmed=False,
            seen_at=BEGUN_AT + 7,
            idle_ends_at=BEGUN_AT + 7 + IDLE_S,
        )
    )


@pytest.mark.parametrize("after_s", [0, 1, 10, -10])
def test_within_ten_seconds_a_retired_token_gets_the_current_one_however_old_it_is(after_s: int) -> None:
    family = rotated(rotated(rotated(new_family(), 100), 100), 100)
    for generation in (0, 1, 2):
        assert present(confirmed(family), generation, 100 + after_s) == Replayed(confirmed(family))


@pytest.mark.parametrize("after_s", [11, 60, 400, -11])
def test_after_ten_seconds_a_retired_token_whose_successor_arrived_is_reuse(after_s: int) -> None:
    assert present(confirmed(rotated(new_family(), 50)), 0, 50 + after_s) == Reused()


@pytest.mark.parametrize("after_s", [11, 60, -60])
def test_a_lost_answer_is_repeated_for_a_minute(after_s: int) -> None:
    family = rotated(new_family(), 100)
    assert present(family, 0, 100 + after_s) == Replayed(family)


@pytest.mark.parametrize("after_s", [61, 400, -61])
def test_a_lost_answer_is_not_repeated_after_a_minute(after_s: int) -> None:
    assert present(rotated(new_family(), 100), 0, 100 + after_s) == Reused()


def test_only_the_direct_predecessor_has_the_long_grace() -> None:
    family = rotated(rotated(new_family(), 100), 101)
    assert present(family, 0, 130) == Reused()
    assert present(family, 1, 130) == Replayed(family)


@pytest.mark.parametrize("generation", [1, 2, 2**32 - 1])
def test_a_generation_that_was_never_issued_is_reuse(generation: int) -> None:
    assert present(new_family(), generation, 1) == Reused()


def test_a_generation_ahead_is_reuse_even_if_the_row_remembers_it_as_retired() -> None:
    restored = msgspec.structs.replace(new_family(), retired=((3, BEGUN_AT),))
    assert present(restored, 3, 1) == Reused()


def test_a_forgotten_generation_is_reuse_even_within_the_grace() -> None:
    family = new_family()
    for _ in range(REMEMBERED_GENERATIONS + 1):
        family = rotated(family, 5)
    assert len(family.retired) == REMEMBERED_GENERATIONS
    assert present(family, 1, 5) == Replayed(family)
    assert present(family, 0, 5) == Reused()


@pytest.mark.parametrize(
    "over",
    [
        {"ended_at": BEGUN_AT},
        {"idle_ends_at": BEGUN_AT + 20},
        {"ends_at": BEGUN_AT + 20},
    ],
)
@pytest.mark.parametrize("generation", [0, 1, 2])
def test_an_ended_session_answers_nothing_else_to_any_token(over: dict[str, int], generation: int) -> None:
    family = msgspec.structs.replace(rotated(new_family(), 19), **over)
    assert present(family, generation, 20) == Ended()
    assert judge(family, generation, now=BEGUN_AT + 20) is Standing.ENDED


@pytest.mark.parametrize("name", ["idle_ends_at", "ends_at"])
def test_a_session_lives_until_the_last_second_before_its_end(name: str) -> None:
    family = msgspec.structs.replace(new_family(), **{name: BEGUN_AT + 20})
    assert isinstance(present(family, 0, 19), Rotated)


def test_the_idle_end_stops_at_the_absolute_end() -> None:
    assert idle_end(100, 50, 1_000) == 150
    assert idle_end(980, 50, 1_000) == 1_000


# Any life of a family, as the store would live it: each step presents some generation, some time after the last.

steps = st.lists(
    st.tuples(
        st.integers(min_value=-2, max_value=30),  # the generation, counted back from the current one
        st.sampled_from([0, 1, 5, 10, 11, 59, 60, 61, 300, -5, -3_600]),  # seconds gone by; clocks are set back too
        st.booleans(),  # whether the holder presents the current token elsewhere before
    ),
    max_size=40,
)


@given(steps)
def test_whatever_is_presented_a_family_never_forks_is_never_revived_and_never_outlives_its_end(
    life: list[tuple[int, int, bool]],
) -> None:
    family, now, issued = new_family(), 0, [0]
    for back, gone_by, confirms in life:
        now += gone_by
        if confirms:
            family = confirmed(family)
        presented = family.generation - back
        outcome = present(family, presented, now)
        match outcome:
            case Rotated(successor):
                assert presented == family.generation
                assert successor.generation == family.generation + 1
                assert successor.generation not in issued
                issued.append(successor.generation)
                family = successor
            case Replayed(same):
                assert same is family  # so that the answer is the current token, byte for byte
                assert presented in issued
                assert presented != family.generation
            case Reused():
                assert presented != family.generation
                family = msgspec.structs.replace(family, ended_at=BEGUN_AT + now)
            case Ended():
                assert (
                    family.ended_at is not None or BEGUN_AT + now >= family.idle_ends_at  # never later than ends_at
                )
        if family.ended_at is not None:
            assert present(family, family.generation, now) == Ended()
        assert family.ends_at == new_family().ends_at
        assert family.idle_ends_at <= family.ends_at
        assert len(family.retired) <= REMEMBERED_GENERATIONS


@given(st.integers(min_value=-3_600, max_value=3_600), st.integers(min_value=-2, max_value=3), st.booleans())
def test_judging_agrees_with_rotating_and_uses_nothing_up(at: int, generation: int, arrived: bool) -> None:
    family = rotated(rotated(new_family(), 100), 130)
    family = confirmed(family) if arrived else family
    expected = {Rotated: Standing.CURRENT, Replayed: Standing.GRACE, Reused: Standing.REUSED, Ended: Standing.ENDED}
    assert judge(family, generation, now=BEGUN_AT + at) is expected[type(present(family, generation, at))]
