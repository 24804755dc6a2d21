"""What protects second factors: seals and tickets."""

import hashlib
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from jotgate.core.encoding import encode_segment
from jotgate.server.boxes import KeyAway, SealBroken
from jotgate.server.factor_keys import TICKET_LIFE_S, FactorKeys, ticket_bytes
from jotgate.server.records import Account

NOW = 1_795_000_000
ADA = Account(id="ada", email="ada@example.com", password_hash="h", scopes=(), created_at=1, credential_version=3)


def kid(name: str) -> str:
    return encode_segment(hashlib.sha256(name.encode()).digest()[:8])


def keys_of(*names: str) -> FactorKeys:
    """Keys of which the last one is used for what is new."""
    keys = {kid(name): hashlib.sha256(name.encode()).digest() for name in names}
    return FactorKeys(keys, active=kid(names[-1]))


@pytest.fixture
def random() -> Callable[[int], bytes]:
    drawn = iter(range(1, 100))
    return lambda size: next(drawn).to_bytes(size)


def test_a_secret_opens_for_its_account_alone_and_after_a_rotation(random: Callable[[int], bytes]) -> None:
    sealed = keys_of("old").seal_secret("ada", "SECRET", random=random)
    assert b"SECRET" not in sealed
    assert keys_of("old", "new").open_secret("ada", sealed) == "SECRET"
    with pytest.raises(SealBroken):
        keys_of("old").open_secret("eve", sealed)
    with pytest.raises(SealBroken):
        keys_of("old").open_secret("ada", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(KeyAway):
        keys_of("new").open_secret("ada", sealed)


def test_a_ticket_is_for_one_purpose_one_account_and_some_minutes(random: Callable[[int], bytes]) -> None:
    keys = keys_of("k")
    raw = keys.make_ticket("login", ADA, now=NOW, random=random)
    ticket = keys_of("k", "new").read_ticket(raw, "login", now=NOW + TICKET_LIFE_S - 1)
    assert ticket is not None
    assert ticket.is_for(ADA)
    assert not ticket.is_for(replace(ADA, id="eve"))
    assert not ticket.is_for(replace(ADA, credential_version=4))
    assert keys.read_ticket(raw, "login", now=NOW + TICKET_LIFE_S) is None
    assert keys.read_ticket(raw, "passkey_login", now=NOW) is None
    assert keys_of("other").read_ticket(raw, "login", now=NOW) is None
    assert keys.make_ticket("login", ADA, now=NOW, random=random) != raw


def test_no_bit_of_a_ticket_can_be_changed(random: Callable[[int], bytes]) -> None:
    keys = keys_of("k")
    raw = keys.make_ticket("login", ADA, now=NOW, random=random)
    for n in range(len(raw) * 8):
        bent = bytearray(raw)
        bent[n // 8] ^= 1 << n % 8
        assert keys.read_ticket(bytes(bent), "login", now=NOW) is None
    for n in range(len(raw)):
        assert keys.read_ticket(raw[:n], "login", now=NOW) is None
        assert keys.read_ticket(raw[n + 1 :], "login", now=NOW) is None


@pytest.mark.parametrize("text", ["", "=", "ä", "A" * 513, "A" * 5])
def test_what_cannot_be_a_ticket_is_empty(text: str) -> None:
    assert ticket_bytes(text) == b""


def test_a_form_is_sent_by_whom_it_was_shown_to_and_after_a_rotation(random: Callable[[int], bytes]) -> None:
    keys = keys_of("old")
    token = keys.make_form_token("session a", random=random)
    assert keys.is_form_token(token, "session a")
    assert keys_of("old", "new").is_form_token(token, "session a")
    assert token != keys.make_form_token("session a", random=random)
    assert not keys.is_form_token(token, "session b")
    assert not keys_of("other").is_form_token(token, "session a")
    for wrong in ("", "A", token[:-4], token + "AAAA", token[:-1] + "é", "A" * 75, "A" * 10_000, token.swapcase()):
        assert not keys.is_form_token(wrong, "session a")


def test_a_ticket_is_no_forms_token_and_a_forms_token_no_ticket(random: Callable[[int], bytes]) -> None:
    keys = keys_of("old")
    token = keys.make_form_token("", random=random)
    assert keys.read_ticket(ticket_bytes(token), "login", now=NOW) is None
    ticket = encode_segment(keys.make_ticket("login", None, now=NOW, random=random))
    assert not keys.is_form_token(ticket, "")


def test_what_a_form_is_shown_to_cannot_be_moved_into_what_is_random(random: Callable[[int], bytes]) -> None:
    keys = keys_of("old")
    raw = ticket_bytes(keys.make_form_token("xyz", random=random))
    moved = encode_segment(raw[:24] + b"x" + raw[24:])
    assert not keys.is_form_token(moved, "yz")
