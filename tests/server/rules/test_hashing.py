"""Which parameters of Argon2 there are, and what a stored hash may cost."""

import pytest
from argon2 import PasswordHasher

from jotgate.server.rules.hashing import ARGON2_SETS, Argon2, parse_argon2, stored_parameters

TAIL = "$c29tZXNhbHQxMjM0NTY$" + "A" * 43


def phc(parameters: str, kind: str = "argon2id", version: str = "v=19") -> str:
    return f"${kind}${version}${parameters}{TAIL}"


def test_the_sets_are_owasps_and_the_first_is_the_default() -> None:
    assert [str(each) for each in ARGON2_SETS] == ["19456/2", "47104/1", "12288/3", "9216/4", "7168/5"]
    assert {each.lanes for each in ARGON2_SETS} == {1}


@pytest.mark.parametrize("each", ARGON2_SETS, ids=str)
def test_what_argon2_cffi_makes_with_a_set_is_read_as_that_set(each: Argon2) -> None:
    assert parse_argon2(str(each)) == each
    hasher = PasswordHasher(time_cost=each.passes, memory_cost=each.memory_kib, parallelism=each.lanes)
    assert stored_parameters(hasher.hash("a long enough password")) == each


@pytest.mark.parametrize("text", ["", "19456", "19456/3", "8/1", "19456/2/1", " 19456/2", "1048576/2", "19456 / 2"])
def test_other_parameters_cannot_be_chosen(text: str) -> None:
    with pytest.raises(ValueError, match="must be one of 19456/2, 47104/1"):
        parse_argon2(text)


@pytest.mark.parametrize(
    "parameters",
    ["m=65536,t=3,p=4", "m=102400,t=2,p=8", "m=65536,t=1,p=1", "m=8,t=1,p=1", "m=19456,t=10,p=1", "m=4096,t=48,p=4"],
)
def test_a_hash_that_another_program_made_may_be_checked_within_the_bound(parameters: str) -> None:
    assert stored_parameters(phc(parameters)) is not None


@pytest.mark.parametrize(
    "stored",
    [
        phc("m=102401,t=1,p=1"),
        phc("m=2097152,t=1,p=4"),
        phc("m=4294967295,t=1,p=1"),
        phc("m=65536,t=4,p=1"),
        phc("m=8,t=4294967295,p=1"),
        phc("m=32,t=6144,p=4"),
        phc("m=65536,t=1,p=9"),
        phc("m=0,t=1,p=1"),
        phc("m=19456,t=0,p=1"),
        phc("m=019456,t=2,p=1"),
        phc("m=19456,t=2,p=1,m=4194304"),
        phc("m=19456,t=2"),
        phc("t=2,m=19456,p=1"),
        phc("m=-8,t=2,p=1"),
        phc("m=\u0661\u0669456,t=2,p=1"),
        phc("m=19456,t=2,p=1", kind="argon2i"),
        phc("m=19456,t=2,p=1", kind="argon2d"),
        phc("m=19456,t=2,p=1", version="v=16"),
        phc("m=19456,t=2,p=1") + "\n",
        phc("m=19456,t=2,p=1") + "A" * 100,
        "$argon2id$m=19456,t=2,p=1" + TAIL,
        "garbage",
        "",
    ],
    ids=lambda stored: stored[:40].encode("unicode_escape").decode(),
)
def test_what_would_cost_too_much_or_is_no_hash_is_not_checked(stored: str) -> None:
    assert stored_parameters(stored) is None


def test_the_bound_is_no_closer_than_the_sets_themselves() -> None:
    for each in ARGON2_SETS:
        assert stored_parameters(phc(f"m={each.memory_kib},t={each.passes},p={each.lanes}")) == each
