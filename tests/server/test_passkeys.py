"""What a browser is asked for, and that only the right answer to it is taken: anything else is one refusal."""

from __future__ import annotations

import json
from collections import UserDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from hashlib import sha256
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server import passkeys
from jotgate.server.passkeys import NewPasskey, ProvenPasskey
from jotgate.server.refusals import PasskeyRefused
from tests.authenticator import (
    ED25519,
    ES256,
    RS256,
    Authenticator,
    Json,
    NoPasskey,
    cose_key,
    decode,
    encode,
    make_key,
    sign,
)

RP_ID = "example.com"
ORIGIN = "https://auth.example.com"
ORIGINS = ("https://example.com", ORIGIN)
CHALLENGE = bytes(range(32))
USER = b"rYzZ1mNnQk2Yw0m8bq3T7A"
ALGORITHMS = (ES256, ED25519, RS256)


def creation(**changes: object) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "rp_id": RP_ID,
        "rp_name": "Example",
        "user_id": USER,
        "user_name": "ann@example.com",
        "challenge": CHALLENGE,
        "exclude": (),
        "timeout_s": 300,
    }
    return passkeys.registration_options(**(asked | changes))


def request(**changes: object) -> dict[str, Any]:
    asked: dict[str, Any] = {"rp_id": RP_ID, "challenge": CHALLENGE, "allow": (), "timeout_s": 300}
    return passkeys.authentication_options(**(asked | changes))


def register(credential: Mapping[str, Any]) -> NewPasskey:
    return passkeys.check_registration(credential, challenge=CHALLENGE, rp_id=RP_ID, origins=ORIGINS)


def prove(credential: Mapping[str, Any], passkey: NewPasskey) -> ProvenPasskey:
    return passkeys.check_assertion(
        credential,
        public_key=passkey.public_key,
        sign_count=passkey.sign_count,
        challenge=CHALLENGE,
        rp_id=RP_ID,
        origins=ORIGINS,
    )


def refused(check: Callable[[], object]) -> None:
    with pytest.raises(PasskeyRefused) as caught:
        check()
    assert str(caught.value) == passkeys.REFUSED
    assert (caught.value.code, caught.value.status) == ("passkey_refused", 422)


@cache
def registered(algorithm: int = ES256) -> tuple[Authenticator, NewPasskey]:
    """An authenticator that is known; it counts on, and the tests only lend it."""
    authenticator = Authenticator(algorithm)
    return authenticator, register(authenticator.create(creation(), ORIGIN))


@cache
def good_registration(algorithm: int = ES256) -> Json:
    return Authenticator(algorithm).create(creation(), ORIGIN)


@cache
def good_assertion(algorithm: int = ES256) -> Json:
    return registered(algorithm)[0].get(request(), ORIGIN)


# What is asked


def test_new_passkeys_are_asked_for_as_webauthn_writes_it() -> None:
    assert creation(exclude=[(b"one", ("usb",)), (b"two", ())]) == {
        "rp": {"id": "example.com", "name": "Example"},
        "user": {"id": encode(USER), "name": "ann@example.com", "displayName": "ann@example.com"},
        "challenge": encode(CHALLENGE),
        "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in (-7, -8, -257)],
        "timeout": 300_000,
        "excludeCredentials": [
            {"type": "public-key", "id": "b25l", "transports": ["usb"]},
            {"type": "public-key", "id": "dHdv"},
        ],
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
    }


def test_proofs_are_asked_for_as_webauthn_writes_it() -> None:
    assert request(allow=[(b"one", ("usb", "nfc"))]) == {
        "challenge": encode(CHALLENGE),
        "timeout": 300_000,
        "rpId": "example.com",
        "allowCredentials": [{"type": "public-key", "id": "b25l", "transports": ["usb", "nfc"]}],
        "userVerification": "required",
    }
    assert request()["allowCredentials"] == []


# What is taken


@pytest.mark.parametrize("self_attests", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_passkey_is_registered_and_proves_itself(algorithm: int, self_attests: bool) -> None:
    authenticator = Authenticator(algorithm, self_attests=self_attests)
    made = authenticator.create(creation(), ORIGIN)
    assert passkeys.read_challenge(made) == CHALLENGE
    passkey = register(made)
    (held,) = authenticator.passkeys.items()
    assert (passkey.id, passkey.sign_count, passkey.backed_up) == (held[0], 1, False)
    assert passkey.transports == ("internal", "hybrid")
    assert cbor2.loads(passkey.public_key) == cose_key(held[1].key)

    shown = authenticator.get(request(allow=[(passkey.id, passkey.transports)]), ORIGIN)
    assert passkeys.read_assertion(shown) == passkeys.Assertion(passkey.id, USER, CHALLENGE)
    assert prove(shown, passkey) == ProvenPasskey(sign_count=2, backed_up=False, user_verified=True)


def test_a_synced_passkey_never_counts_and_says_that_it_is_backed_up() -> None:
    authenticator = Authenticator(backed_up=True, counts=False)
    passkey = register(authenticator.create(creation(), ORIGIN))
    assert (passkey.sign_count, passkey.backed_up) == (0, True)
    for _ in range(2):
        assert prove(authenticator.get(request(), ORIGIN), passkey) == ProvenPasskey(0, True, True)


def test_what_browsers_add_or_leave_out_does_no_harm() -> None:
    authenticator = Authenticator()
    told = {"other_keys_can_be_added_here": "do not compare clientDataJSON against a template"}
    made = authenticator.create(creation(), ORIGIN, **told)
    made["response"]["transports"] = ["usb", "telepathy", "usb"]
    assert register(UserDict(made)).transports == ("usb",)
    del made["response"]["transports"], made["authenticatorAttachment"], made["clientExtensionResults"]
    passkey = register(made)
    assert passkey.transports == ()
    shown = authenticator.get(request(), ORIGIN, **told)
    shown["authenticatorAttachment"] = "a new one"
    shown["response"]["userHandle"] = None
    assert passkeys.read_assertion(UserDict(shown)).user_handle is None
    prove(UserDict(shown), passkey)
    del shown["response"]["userHandle"]
    assert passkeys.read_assertion(shown).user_handle is None


def test_extensions_that_nobody_asked_for_do_no_harm() -> None:
    data = authenticator_data(good_registration())
    extensions = cbor2.dumps({"credProtect": 2, "hmac-secret": True})
    extended = data[:32] + bytes([data[32] | 0x80]) + data[33:] + extensions
    register(with_data(good_registration(), extended))
    refused(lambda: register(with_data(good_registration(), extended + b"\0")))
    refused(lambda: register(with_data(good_registration(), extended[:-1])))
    refused(lambda: register(with_data(good_registration(), data + extensions)))


def test_the_authenticator_of_the_tests_heeds_what_it_is_asked() -> None:
    authenticator, passkey = registered()
    with pytest.raises(NoPasskey):
        authenticator.create(creation(exclude=[(passkey.id, ())]), ORIGIN)
    with pytest.raises(NoPasskey):
        authenticator.get(request(allow=[(b"another", ())]), ORIGIN)
    with pytest.raises(NoPasskey):
        authenticator.get(request(rp_id="example.org"), ORIGIN)


# What is refused of both

CLIENT_DATA: dict[str, dict[str, object]] = {
    "another challenge": {"challenge": encode(bytes(32))},
    "no challenge": {"challenge": ""},
    "a challenge with padding": {"challenge": encode(CHALLENGE) + "="},
    "a challenge that is no text": {"challenge": 1},
    "another origin": {"origin": "https://auth.example.com.evil.example"},
    "an origin with a slash": {"origin": ORIGIN + "/"},
    "an origin without TLS": {"origin": "http://auth.example.com"},
    "origins": {"origin": [ORIGIN]},
    "another site's frame": {"crossOrigin": True},
    "nearly another site's frame": {"crossOrigin": 1},
    "a page around it": {"topOrigin": "https://evil.example"},
    "our own page around it": {"topOrigin": ORIGIN},
    "another type": {"type": "payment.get"},
    "no type": {"type": None},
}


@pytest.mark.parametrize("told", CLIENT_DATA.values(), ids=CLIENT_DATA)
def test_client_data_that_is_not_ours_is_refused(told: dict[str, object]) -> None:
    authenticator, passkey = registered()
    refused(lambda: register(Authenticator().create(creation(), ORIGIN, **told)))
    refused(lambda: prove(authenticator.get(request(), ORIGIN, **told), passkey))


def test_the_proof_of_one_ceremony_is_none_in_the_other() -> None:
    authenticator, passkey = registered()
    refused(lambda: register(Authenticator().create(creation(), ORIGIN, type="webauthn.get")))
    refused(lambda: prove(authenticator.get(request(), ORIGIN, type="webauthn.create"), passkey))
    refused(lambda: register(good_assertion()))
    refused(lambda: prove(good_registration(), passkey))


def test_a_passkey_of_another_domain_is_refused() -> None:
    stranger = Authenticator()
    refused(lambda: register(stranger.create(creation(rp_id="example.org"), ORIGIN)))
    refused(lambda: prove(stranger.get(request(rp_id="example.org"), ORIGIN), registered()[1]))


@pytest.mark.parametrize("lacking", ["present", "verified"])
def test_the_person_must_be_there_and_verified(lacking: str) -> None:
    authenticator = Authenticator()
    passkey = register(authenticator.create(creation(), ORIGIN))
    setattr(authenticator, lacking, False)
    refused(lambda: register(authenticator.create(creation(), ORIGIN)))
    refused(lambda: prove(authenticator.get(request(), ORIGIN), passkey))
    setattr(authenticator, lacking, True)
    prove(authenticator.get(request(), ORIGIN), passkey)


def test_what_cannot_be_backed_up_is_not_backed_up() -> None:
    data = authenticator_data(good_registration())
    refused(lambda: register(with_data(good_registration(), data[:32] + bytes([data[32] | 0x10]) + data[33:])))


IDS: dict[str, Callable[[Json], object]] = {
    "two ids": lambda made: made.update(rawId=encode(b"another")),
    "an id that was not made": lambda made: made.update(id=encode(b"another"), rawId=encode(b"another")),
    "an id with padding": lambda made: made.update(id=made["id"] + "=", rawId=made["rawId"] + "="),
    "no id": lambda made: made.update(id="", rawId=""),
    "a long id": lambda made: made.update(id=encode(bytes(1024)), rawId=encode(bytes(1024))),
    "a number for an id": lambda made: made.update(id=1, rawId=1),
    "no text for an id": lambda made: made.update(id="\ud800", rawId="\ud800"),
    "another type": lambda made: made.update(type="password"),
    "no response": lambda made: made.pop("response"),
    "a list for a response": lambda made: made.update(response=[made["response"]]),
}


@pytest.mark.parametrize("change", IDS.values(), ids=IDS)
def test_credentials_of_another_shape_are_refused(change: Callable[[Json], object]) -> None:
    made = deepcopy(good_registration())
    change(made)
    refused(lambda: register(made))


@pytest.mark.parametrize("change", [IDS[name] for name in IDS if name != "an id that was not made"])
def test_assertions_of_another_shape_are_refused(change: Callable[[Json], object]) -> None:
    shown = deepcopy(good_assertion())
    change(shown)
    refused(lambda: passkeys.read_assertion(shown))
    refused(lambda: prove(shown, registered()[1]))


@pytest.mark.parametrize("member", ["clientDataJSON", "attestationObject", "authenticatorData", "signature"])
@pytest.mark.parametrize("value", [None, 1, b"AAAA", "", "A", "AB==", "A" * 20_000, "\u00e9", "\ud800", [], {}])
def test_members_that_are_no_base64url_or_too_long_are_refused(member: str, value: object) -> None:
    made, shown = deepcopy(good_registration()), deepcopy(good_assertion())
    # Of registrations, the authenticator data beside the attestation object is not read.
    if member in ("clientDataJSON", "attestationObject"):
        made["response"][member] = value
        refused(lambda: register(made))
    if member != "attestationObject":
        shown["response"][member] = value
        refused(lambda: prove(shown, registered()[1]))


def test_no_more_than_16_kib_of_text_is_looked_at() -> None:
    made = deepcopy(good_registration())
    told = {"padding": "x" * 16_384}
    refused(lambda: register(Authenticator().create(creation(), ORIGIN, **told)))
    made["response"]["transports"] = ["usb"] * 10_000
    refused(lambda: register(made))
    made["response"]["transports"] = ["x" * 10_000]
    refused(lambda: register(made))
    shown = deepcopy(good_assertion())
    shown["response"]["userHandle"] = encode(bytes(65))
    refused(lambda: passkeys.read_assertion(shown))


def test_client_data_is_strict_json() -> None:
    good = decode(good_registration()["response"]["clientDataJSON"])
    for raw in (
        b"",
        b"[]",
        good + b"x",
        good[:-1] + b',"type":"webauthn.create"}',
        b"\xef\xbb\xbf" + good,
        good.replace(b"example", b"\xff"),
        good[:-1] + b',"a":' + b"[" * 1000 + b"]" * 1000 + b"}",
        good[:-1] + b',"a":' + b"1" * 2500 + b"}",
    ):
        made = deepcopy(good_registration())
        made["response"]["clientDataJSON"] = encode(raw)
        if raw.endswith(b"1}"):
            register(made)  # a number that can be read
        else:
            refused(lambda made=made: register(made))  # type: ignore[misc]


# What is refused of assertions


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_keys_signature_is_refused(algorithm: int) -> None:
    _, passkey = registered(algorithm)
    prove(good_assertion(algorithm), passkey)
    for other in ALGORITHMS:
        stranger = Authenticator(other)
        stranger.create(creation(), ORIGIN)
        stranger.count = 10
        shown = stranger.get(request(), ORIGIN)
        refused(lambda shown=shown: prove(shown, passkey))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("stored", "sent", "taken"),
    [(0, 0, True), (0, 1, True), (4, 5, True), (4, 2**32 - 1, True), (5, 5, False), (5, 4, False), (5, 0, False)],
)
def test_a_counter_that_was_seen_before_is_refused(stored: int, sent: int, taken: bool) -> None:
    authenticator = Authenticator(ED25519)
    made = register(authenticator.create(creation(), ORIGIN))
    known = NewPasskey(made.id, made.public_key, stored, (), False)
    authenticator.count, authenticator.counts = sent, False
    shown = authenticator.get(request(), ORIGIN)
    if taken:
        assert prove(shown, known).sign_count == sent
    else:
        refused(lambda: prove(shown, known))


def test_a_key_in_an_assertion_is_refused_even_if_it_is_signed() -> None:
    authenticator, passkey = registered()
    shown = deepcopy(good_assertion())
    data = decode(shown["response"]["authenticatorData"])
    told = decode(shown["response"]["clientDataJSON"])
    attested = bytes(16) + (1).to_bytes(2) + b"x" + passkey.public_key
    data = data[:32] + bytes([data[32] | 0x40]) + data[33:] + attested
    signature = sign(authenticator.passkeys[passkey.id].key, data + sha256(told).digest())
    shown["response"].update(authenticatorData=encode(data), signature=encode(signature))
    refused(lambda: prove(shown, passkey))


# What is refused of registrations


def authenticator_data(made: Json) -> bytes:
    data: bytes = cbor2.loads(decode(made["response"]["attestationObject"]))["authData"]
    return data


def with_attestation(made: Json, raw: bytes) -> Json:
    changed = deepcopy(made)
    changed["response"]["attestationObject"] = encode(raw)
    return changed


def with_data(made: Json, data: bytes) -> Json:
    return with_attestation(made, cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data}))


def with_key(made: Json, key: bytes) -> Json:
    """The registration with other bytes for its public key."""
    data = authenticator_data(made)
    return with_data(made, data[: 55 + int.from_bytes(data[53:55])] + key)


P256 = cose_key(make_key(ES256))
EDWARDS = cose_key(make_key(ED25519))
RSA = cose_key(make_key(RS256))
P384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()


def rsa_key(bits: int, exponent: int = 65537) -> dict[int, int | bytes]:
    return cose_key(rsa.generate_private_key(exponent, bits))


KEYS: dict[str, object] = {
    "RSA that is short": rsa_key(1024),
    "RSA with exponent 3": rsa_key(2048, 3),
    "RSA with a huge exponent": RSA | {-2: b"\x01" * 32},
    "RSA with a huge modulus": RSA | {-1: b"\xff" * 2048},
    "RSA with an even modulus": RSA | {-1: bytes(RSA[-1])[:-1] + b"\0"},
    "RSA without a modulus": RSA | {-1: b""},
    "RSA with SHA-1": RSA | {3: -65535},
    "RSA with PSS": RSA | {3: -37},
    "Ed25519's neutral element": EDWARDS | {-2: b"\x01" + bytes(31)},
    "Ed25519 of order 8": EDWARDS
    | {-2: bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")},
    "Ed25519 off the curve": EDWARDS | {-2: b"\x02" + bytes(31)},
    "Ed25519 that is short": EDWARDS | {-2: bytes(EDWARDS[-2])[:31]},
    "Ed448": EDWARDS | {-1: 7, -2: bytes(57)},
    "P-256 off the curve": P256 | {-3: bytes(P256[-2])},
    "P-256 at infinity": P256 | {-2: bytes(32), -3: bytes(32)},
    "P-256 compressed": P256 | {-3: True},
    "P-384": {1: 2, 3: ES256, -1: 2, -2: P384.x.to_bytes(48), -3: P384.y.to_bytes(48)},
    "ES384": {1: 2, 3: -35, -1: 2, -2: P384.x.to_bytes(48), -3: P384.y.to_bytes(48)},
    "the type of another algorithm": P256 | {3: ED25519},
    "another algorithm's type": RSA | {3: ES256},
    "no algorithm": {label: value for label, value in P256.items() if label != 3},
    "an algorithm in text": P256 | {3: "ES256"},
    "an algorithm in bytes": P256 | {3: b"x"},
    "an algorithm in a list": P256 | {3: [ES256]},
    "a private key": P256 | {-4: bytes(32)},
    "a name": P256 | {2: b"name"},
    "a name in text": P256 | {2: "name"},
    "a label that is true": {True: 2} | {label: value for label, value in P256.items() if label != 1},
    "a label that is a float": {1.0: 2} | {label: value for label, value in P256.items() if label != 1},
    "a label in text": P256 | {"x": bytes(32)},
    "a list": [1, 2],
    "a number": 4,
    "nothing": {},
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys_that_prove_nothing_or_were_not_asked_for_are_refused(key: object) -> None:
    refused(lambda: register(with_key(good_registration(), cbor2.dumps(key))))


@pytest.mark.parametrize("key", [P256, EDWARDS, RSA], ids=["P-256", "Ed25519", "RSA"])
def test_the_keys_that_the_worthless_ones_are_made_of_are_taken(key: dict[int, object]) -> None:
    assert register(with_key(good_registration(), cbor2.dumps(key))).public_key == cbor2.dumps(key)


def long_head(kind: int, size: int) -> bytes:
    return bytes([kind << 5 | 27]) + size.to_bytes(8)


CBOR: dict[str, bytes] = {
    "nothing": b"",
    "a member twice": b"\xa6\x01\x02" + cbor2.dumps(P256)[1:],
    "indefinite length": b"\xbf" + cbor2.dumps(P256)[1:] + b"\xff",
    "a number in more bytes than it needs": b"\xa5\x18\x01\x02" + cbor2.dumps(P256)[3:],
    "bytes behind it": cbor2.dumps(P256) + b"\0",
    "a tag": b"\xd9\xd9\xf7" + cbor2.dumps(P256),
    "a value that contains itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a regular expression": b"\xd8\x23" + cbor2.dumps("(a+)+$"),
    "a number of any size": b"\xc5\x82\x1a\x7f\xff\xff\xff\x01",
    "deep lists": b"\x81" * 5000 + b"\0",
    "deep maps": b"\xa1\x01" * 2500 + b"\0",
    "more items than there are": long_head(4, 2**64 - 1) + b"\0",
    "more members than there are": long_head(5, 2**64 - 1) + b"\0\0",
    "more bytes than there are": long_head(2, 2**64 - 1) + b"\0",
    "a head without its size": b"\x5b\x00",
    "text that is no UTF-8": b"\xa1\x62\xff\xff\x00",
    "a reserved size": b"\x1c",
    "a reserved value": b"\xf8\x00",
    "the end of nothing": b"\xff",
}


@pytest.mark.parametrize("raw", CBOR.values(), ids=CBOR)
def test_cbor_that_no_authenticator_writes_is_refused_wherever_it_stands(raw: bytes) -> None:
    data = authenticator_data(good_registration())
    refused(lambda: register(with_attestation(good_registration(), raw)))
    refused(lambda: register(with_key(good_registration(), raw)))
    refused(lambda: register(with_data(good_registration(), data[:32] + bytes([data[32] | 0x80]) + data[33:] + raw)))


ATTESTATIONS: dict[str, dict[object, object]] = {
    "no format": {"fmt": None},
    "an unknown format": {"fmt": "unheard of"},
    "the TPM's": {"fmt": "tpm"},
    "an app's": {"fmt": "android-safetynet", "attStmt": {"ver": "1", "response": b"a.b.c"}},
    "certificates": {"fmt": "packed", "attStmt": {"alg": ES256, "sig": b"x", "x5c": [b"x"]}},
    "a statement where there is none": {"attStmt": {"sig": b"x"}},
    "no statement": {"fmt": "packed"},
    "a wrong signature": {"fmt": "packed", "attStmt": {"alg": ES256, "sig": b"x"}},
    "a signature in text": {"fmt": "packed", "attStmt": {"alg": ES256, "sig": "AAAA"}},
    "another algorithm's signature": {"fmt": "packed", "attStmt": {"alg": RS256, "sig": b"x"}},
    "a list for a statement": {"attStmt": []},
    "data in text": {"authData": "AAAA"},
    "short data": {"authData": bytes(36)},
}


@pytest.mark.parametrize("change", ATTESTATIONS.values(), ids=ATTESTATIONS)
def test_attestations_that_were_not_asked_for_are_refused(change: dict[object, object]) -> None:
    good: dict[object, object] = cbor2.loads(decode(good_registration()["response"]["attestationObject"]))
    refused(lambda: register(with_attestation(good_registration(), cbor2.dumps(good | change))))


def test_attestations_are_written_in_one_way() -> None:
    made = good_registration()
    good = decode(made["response"]["attestationObject"])
    register(with_attestation(made, good))
    for raw in (good + b"\0", b"\xbf" + good[1:] + b"\xff", b"\xd9\xd9\xf7" + good):
        refused(lambda raw=raw: register(with_attestation(made, raw)))  # type: ignore[misc]


def test_ids_are_of_the_length_that_they_say_and_webauthn_allows() -> None:
    made, key = good_registration(), cbor2.dumps(P256)
    data = authenticator_data(made)[:53]

    def of_length(size: int, told: int | None = None) -> Json:
        id_ = bytes(size)
        changed = with_data(made, data + (size if told is None else told).to_bytes(2) + id_ + key)
        return changed | {"id": encode(id_), "rawId": encode(id_)}

    for size in (1, 1023):
        assert register(of_length(size)).id == bytes(size)
    for size in (0, 1024):
        refused(lambda size=size: register(of_length(size)))  # type: ignore[misc]
    refused(lambda: register(of_length(32, told=31)))
    refused(lambda: register(of_length(32, told=1000)))


# Whatever comes: one refusal, and no other exception


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """Bytes near the good ones: some changed, cut out, put in or repeated."""
    raw = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        until = min(len(raw), at + draw(st.integers(0, 8)))
        raw[at:until] = draw(st.one_of(st.binary(max_size=9), st.just(bytes(raw[at:until]) * 2)))
    return bytes(raw)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LEAVES, inner, max_size=4), max_leaves=8
)


@given(st.data())
def test_a_registration_with_other_bytes_is_refused_or_says_what_the_bytes_say(data: st.DataObject) -> None:
    made = deepcopy(good_registration(data.draw(st.sampled_from(ALGORITHMS))))
    member = data.draw(st.sampled_from(["clientDataJSON", "attestationObject"]))
    raw = data.draw(mutated(decode(made["response"][member])))
    made["response"][member] = encode(raw)
    try:
        passkey = register(made)
    except PasskeyRefused:
        return
    # Nothing signs it: what was changed is a counter, a model, or what is not read.
    assert encode(passkey.id) == made["id"]
    if member == "clientDataJSON":
        assert json.loads(raw)["challenge"] == encode(CHALLENGE)
    else:
        assert passkey.public_key in raw


@given(st.data())
def test_an_assertion_with_other_bytes_is_refused(data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    shown = deepcopy(good_assertion(algorithm))
    member = data.draw(st.sampled_from(["clientDataJSON", "authenticatorData", "signature"]))
    good = decode(shown["response"][member])
    raw = data.draw(mutated(good))
    shown["response"][member] = encode(raw)
    if raw == good:
        prove(shown, registered(algorithm)[1])
    else:
        refused(lambda: prove(shown, registered(algorithm)[1]))


@given(ANYTHING, st.binary(max_size=200), st.data())
def test_anything_at_all_is_refused(value: Mapping[str, Any], raw: bytes, data: st.DataObject) -> None:
    made, shown = deepcopy(good_registration()), deepcopy(good_assertion())
    for part in (made, shown):
        at: Any = data.draw(st.sampled_from([part, part["response"]]))
        at[data.draw(st.sampled_from(["id", "rawId", "type", "response", "clientDataJSON"]))] = value
    for check in (register, passkeys.read_challenge, passkeys.read_assertion, lambda it: prove(it, registered()[1])):
        for credential in [value, made, shown]:
            try:
                check(credential)
            except PasskeyRefused:
                continue
            assert credential is not value
    for inner in (raw, *written(value)):
        refused(lambda inner=inner: register(with_attestation(good_registration(), inner)))  # type: ignore[misc]
        refused(lambda inner=inner: register(with_key(good_registration(), inner)))  # type: ignore[misc]


def written(value: object) -> list[bytes]:
    try:
        return [cbor2.dumps(value)]
    except (cbor2.CBOREncodeError, UnicodeEncodeError):
        return []
