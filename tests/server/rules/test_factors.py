"""What may become of second factors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from jotgate.server.records import NO_FACTORS, Factors, Passkey, Totp
from jotgate.server.refusals import Busy
from jotgate.server.rules.factors import (
    MAX_PASSKEYS,
    NameRefused,
    PasskeyKnown,
    TooManyPasskeys,
    is_app_code,
    passkey_name,
    recovery_code,
    recovery_digest,
    spend,
    with_passkey,
    without_later,
    without_passkey,
)


def passkey(name: str, *, version: int = 1) -> Passkey:
    return Passkey(
        id=name.encode(), public_key=b"k", sign_count=0, transports=(), name=name, created_at=1, version=version
    )


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_codes_differ_as_their_bytes_do_and_are_known_however_they_are_typed(one: bytes, other: bytes) -> None:
    code = recovery_code(one)
    assert (code == recovery_code(other)) is (one == other)
    for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} ", code.replace("0", "O")):
        assert recovery_digest("a", typed) == recovery_digest("a", code)
        assert recovery_digest("b", typed) != recovery_digest("a", code)
    assert not is_app_code(code)


@pytest.mark.parametrize(
    ("typed", "is_one"),
    [("123456", True), (" 123 456 ", True), ("12345", False), ("1234567", False), ("\u0661" * 6, False)],
)
def test_six_digits_are_an_apps(typed: str, is_one: bool) -> None:
    assert is_app_code(typed) is is_one


@pytest.mark.parametrize("typed", ["", " ", "x" * 65, "a\nb", "a\x00"])
def test_a_name_is_one_short_line(typed: str) -> None:
    with pytest.raises(NameRefused):
        passkey_name(typed)
    assert passkey_name(" Phone ☎ ") == "Phone ☎"


def test_a_passkey_is_taken_in_once_and_there_are_not_too_many() -> None:
    factors = NO_FACTORS
    for n in range(MAX_PASSKEYS):
        factors = with_passkey(factors, passkey(str(n)))
    with pytest.raises(PasskeyKnown):
        with_passkey(factors, passkey("3"))
    with pytest.raises(TooManyPasskeys):
        with_passkey(factors, passkey("one more"))


def test_with_the_last_factor_the_codes_to_recover_go() -> None:
    factors = Factors(passkeys=(passkey("a"), passkey("b")), recovery=(b"r",))
    left = without_passkey(factors, b"a")
    assert left == Factors(passkeys=(passkey("b"),), recovery=(b"r",))
    assert without_passkey(left, b"b") == NO_FACTORS
    assert without_passkey(left, b"a") is None


def test_a_challenge_is_answered_once_and_forgotten_when_its_time_is_over() -> None:
    once = spend(NO_FACTORS, b"c", expires_at=10, now=1)
    assert once is not None
    assert spend(once, b"c", expires_at=10, now=9) is None
    later = spend(once, b"d", expires_at=20, now=10)
    assert later is not None
    assert len(later.spent) == 1


def test_what_cannot_be_noted_is_not_believed() -> None:
    full = Factors(spent=tuple((n.to_bytes(), 10) for n in range(64)))
    with pytest.raises(Busy):
        spend(full, b"one more", expires_at=10, now=1)
    assert spend(full, b"one more", expires_at=20, now=10) is not None


def test_what_came_later_goes_and_what_was_there_stays() -> None:
    totp = Totp(sealed=b"t", created_at=1, version=2)
    waits = Totp(sealed=b"p", created_at=1)
    old, new = passkey("a", version=1), passkey("b", version=4)
    factors = Factors(totp=totp, pending=waits, recovery=(b"r",), recovery_version=3, passkeys=(old, new))
    assert without_later(factors, 5) == replace(factors, pending=None)
    assert without_later(factors, 4) == Factors(totp=totp, recovery=(b"r",), recovery_version=3, passkeys=(old,))
    assert without_later(factors, 3) == Factors(totp=totp, recovery_version=3, passkeys=(old,))
    assert without_later(factors, 2) == Factors(recovery_version=3, passkeys=(old,))
    assert without_later(factors, 1) == NO_FACTORS
