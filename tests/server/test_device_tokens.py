"""Device tokens: what this server made, for that account, not too long ago; everything else is a stranger's."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.encoding import encode_segment
from jotgate.server.device_tokens import DEVICE_LIFE_S, PREFIX, DeviceTokens
from jotgate.server.refresh_tokens import new_mac_kid

NOW = 1_795_000_000
KID, OLD = new_mac_kid(os.urandom), new_mac_kid(os.urandom)
TOKENS = DeviceTokens({KID: b"k" * 32, OLD: b"o" * 32}, active=KID)
HASH = "$argon2id$one"
GOOD = TOKENS.make("ada", HASH, now=NOW, random=os.urandom)


def test_a_token_is_known_again_for_its_account_and_password_and_for_no_other() -> None:
    read = TOKENS.read(GOOD, now=NOW)
    assert read is not None
    assert read.is_for("ada", HASH)
    assert not read.is_for("eve", HASH)
    assert not read.is_for("ada", "$argon2id$another")


def test_two_logins_are_two_devices() -> None:
    other = TOKENS.read(TOKENS.make("ada", HASH, now=NOW, random=os.urandom), now=NOW)
    read = TOKENS.read(GOOD, now=NOW)
    assert other is not None
    assert read is not None
    assert other.id != read.id


def test_a_device_is_forgotten_when_nobody_has_logged_in_with_it_for_half_a_year() -> None:
    assert TOKENS.read(GOOD, now=NOW + DEVICE_LIFE_S) is not None
    assert TOKENS.read(GOOD, now=NOW + DEVICE_LIFE_S + 1) is None


def test_a_key_that_is_retired_is_believed_and_one_that_is_revoked_is_not() -> None:
    old = DeviceTokens({OLD: b"o" * 32}, active=OLD).make("ada", HASH, now=NOW, random=os.urandom)
    assert TOKENS.read(old, now=NOW) is not None
    assert DeviceTokens({KID: b"k" * 32}, active=KID).read(old, now=NOW) is None


def test_neither_the_token_nor_what_it_prints_tells_whose_it_is() -> None:
    """The tag is made with the key, so that nobody can try addresses at a token that they have found."""
    same = DeviceTokens({KID: b"x" * 32}, active=KID).make("ada", HASH, now=NOW, random=lambda n: b"r" * n)
    mine = TOKENS.make("ada", HASH, now=NOW, random=lambda n: b"r" * n)
    assert same.removeprefix(PREFIX)[40:63] != mine.removeprefix(PREFIX)[40:63]
    read = TOKENS.read(GOOD, now=NOW)
    assert repr(read) == f"DeviceToken(issued_at={NOW})"
    assert repr(TOKENS) == f"DeviceTokens(active={KID!r})"


@given(
    st.text()
    | st.binary().map(lambda raw: PREFIX + encode_segment(raw))
    | st.tuples(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii")).map(
        lambda at: GOOD[: at[0]] + at[1] + GOOD[at[0] + 1 :]
    )
)
def test_anything_else_is_no_token_and_no_error(raw: str) -> None:
    assert raw == GOOD or TOKENS.read(raw, now=NOW) is None


def test_keys_of_the_wrong_size_are_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError, match="wrong size"):
        DeviceTokens({KID: b"short"}, active=KID)
