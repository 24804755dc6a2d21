"""The text of refresh tokens: whatever is not one of ours ends before the database."""

import hashlib
import hmac
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.server.refresh_tokens import PREFIX, RefreshToken, RefreshTokens, new_mac_kid
from jotgate.server.refusals import InvalidRefreshToken

KID, OTHER_KID = encode_segment(b"\x01" * 8), encode_segment(b"\x02" * 8)
SECRET, OTHER_SECRET = b"a" * 32, b"b" * 32
TOKENS = RefreshTokens({KID: SECRET, OTHER_KID: OTHER_SECRET}, active=KID)
GOOD = TOKENS.encode(bytes(range(16)), 7, KID)
ALPHABET = string.ascii_letters + string.digits + "-_"

families = st.binary(min_size=16, max_size=16)
generations = st.integers(min_value=0, max_value=2**32 - 1)


@given(families, generations, st.sampled_from([KID, OTHER_KID]))
def test_a_token_says_what_was_put_into_it_and_is_the_same_every_time(
    family_id: bytes, generation: int, kid: str
) -> None:
    token = TOKENS.encode(family_id, generation, kid)
    assert TOKENS.decode(token) == RefreshToken(mac_kid=kid, family_id=family_id, generation=generation)
    assert TOKENS.encode(family_id, generation, kid) == token
    assert len(token) == 84


def test_the_format_stays_as_it_is() -> None:
    """Tokens live for weeks: those of an older version must be understood by a newer one."""
    named = b"\x01" * 8 + bytes(range(16)) + b"\0\0\0\x07"
    mac = hmac.new(SECRET, b"jgr_" + named, hashlib.sha256).digest()
    assert encode_segment(named + mac) == GOOD.removeprefix("jgr_")


@given(st.text() | st.text(alphabet=ALPHABET, min_size=80, max_size=80).map(lambda text: PREFIX + text))
@example("")
@example(PREFIX)
@example(GOOD + "\n")
@example(" " + GOOD)
@example(GOOD + "=")
@example(GOOD + GOOD)
@example(GOOD.removeprefix(PREFIX))
@example("JGR_" + GOOD.removeprefix(PREFIX))
@example(GOOD.replace("A", "\u0410"))
def test_any_other_text_is_refused_in_a_typed_way(raw: str) -> None:
    with pytest.raises(InvalidRefreshToken) as caught:
        TOKENS.decode(raw)
    assert raw == "" or raw not in str(caught.value)


@given(st.binary(max_size=80))
def test_any_bytes_in_the_right_clothes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRefreshToken):
        TOKENS.decode(PREFIX + encode_segment(raw))


def test_every_change_of_one_character_is_refused() -> None:
    for position in range(len(GOOD)):
        for character in set(ALPHABET + "=+/ .\0é") - {GOOD[position]}:
            with pytest.raises(InvalidRefreshToken):
                TOKENS.decode(GOOD[:position] + character + GOOD[position + 1 :])


def test_every_change_of_one_byte_is_refused() -> None:
    raw = decode_segment(GOOD.removeprefix(PREFIX))
    for position in range(len(raw)):
        for bits in (0x01, 0x80, 0xFF):
            changed = raw[:position] + bytes([raw[position] ^ bits]) + raw[position + 1 :]
            with pytest.raises(InvalidRefreshToken):
                TOKENS.decode(PREFIX + encode_segment(changed))


def test_a_token_under_a_key_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens({OTHER_KID: OTHER_SECRET}, active=OTHER_KID).decode(GOOD)


def test_a_token_under_another_key_of_the_same_name_is_refused() -> None:
    with pytest.raises(InvalidRefreshToken):
        RefreshTokens({KID: OTHER_SECRET}, active=KID).decode(GOOD)


@pytest.mark.parametrize(
    ("keys", "active"),
    [
        ({KID: b""}, KID),
        ({KID: SECRET[:-1]}, KID),
        ({KID: SECRET + b"x"}, KID),
        ({encode_segment(b"short"): SECRET}, encode_segment(b"short")),
        ({KID: SECRET}, OTHER_KID),
        ({}, KID),
    ],
)
def test_keys_of_the_wrong_size_or_missing_are_refused_at_the_start(keys: dict[str, bytes], active: str) -> None:
    with pytest.raises(ValueError, match="MAC key"):
        RefreshTokens(keys, active=active)


def test_no_repr_tells_a_secret() -> None:
    shown = repr(TOKENS) + repr(TOKENS.decode(GOOD))
    assert "aaaa" not in shown
    assert repr(bytes(range(16))) not in shown
    assert GOOD[4:] not in shown


def test_a_new_key_id_is_eight_random_bytes() -> None:
    assert new_mac_kid(lambda count: b"\xff" * count) == encode_segment(b"\xff" * 8)
