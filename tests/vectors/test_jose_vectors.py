"""RFC 7520 (JOSE cookbook), RFC 8037 and ML-DSA: keys and signatures that nobody here made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from jotgate import BadSignature, Key, sign_jws, verify_jws
from jotgate.core.encoding import decode_segment, encode_segment

Json: TypeAlias = Any


def load(path: Path) -> Json:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def signatures(vectors: Path) -> list[Json]:
    cases = [load(path) for path in sorted((vectors / "rfc7520" / "jws").glob("*.json"))]
    cases.append(load(vectors / "rfc8037" / "jws.json"))
    assert len(cases) == 5
    return cases


def test_every_signature_of_the_rfcs_is_verified(signatures: list[Json]) -> None:
    verified = set()
    for case in signatures:
        algorithm = case["input"]["alg"]
        key = Key.from_jwk(case["input"]["key"], algorithm=algorithm)
        jws = verify_jws(case["output"]["compact"], key if key.symmetric else key.public, algorithms=(algorithm,))
        assert jws.payload.decode() == case["input"]["payload"]
        assert jws.header == case["signing"]["protected"]
        verified.add(algorithm)
        head, body, tail = case["output"]["compact"].split(".")
        with pytest.raises(BadSignature):
            verify_jws(f"{head}.A{body[1:]}.{tail}", key, algorithms=(algorithm,))
    assert verified == {"HS256", "RS256", "PS384", "ES512", "EdDSA"}


def test_signatures_that_have_one_value_are_made_as_the_rfcs_make_them(signatures: list[Json]) -> None:
    made = set()
    for case in signatures:
        name = {"EdDSA": "Ed25519"}.get(case["input"]["alg"], case["input"]["alg"])
        if not case.get("reproducible"):
            continue
        key = Key.from_jwk(case["input"]["key"], algorithm=name)
        signature = sign_with(key, case["signing"]["sig-input"])
        assert signature == case["signing"]["sig"], name
        made.add(name)
    assert made == {"HS256", "RS256", "Ed25519"}


def sign_with(key: Key, text: str) -> str:
    return encode_segment(key.sign(text.encode("ascii")))


def test_the_keys_of_rfc_7520_are_read_and_written_as_they_are(vectors: Path) -> None:
    folder = vectors / "rfc7520" / "jwk"
    for name, algorithm in (
        ("3_2.ec_private_key", "ES512"),
        ("3_4.rsa_private_key", "RS256"),
        ("3_4.rsa_private_key", "PS512"),
        ("3_5.symmetric_key_mac_computation", "HS256"),
    ):
        jwk = load(folder / f"{name}.json")
        key = Key.from_jwk(jwk, algorithm=algorithm)
        written = key.to_private_jwk()
        assert {member: written[member] for member in jwk} == jwk
    public = Key.from_jwk(load(folder / "3_3.rsa_public_key.json"), algorithm="RS256")
    assert public.to_jwk()["n"] == load(folder / "3_4.rsa_private_key.json")["n"]
    assert not public.private
    # P-521 has one algorithm only, so that the key need not name it.
    curve_key = Key.from_jwk(load(folder / "3_1.ec_public_key.json"))
    assert curve_key.algorithm == "ES512"
    assert not curve_key.private
    private = load(folder / "3_2.ec_private_key.json")
    assert {member: curve_key.to_jwk()[member] for member in ("x", "y")} == {m: private[m] for m in ("x", "y")}


def test_the_thumbprint_of_rfc_8037_is_the_keys_name(vectors: Path) -> None:
    jwk = load(vectors / "rfc8037" / "jws.json")["input"]["key"]
    # RFC 8037 appendix A.3
    assert Key.from_jwk(jwk).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_a_signed_text_comes_back(signatures: list[Json]) -> None:
    for case in signatures:
        name = {"EdDSA": "Ed25519"}.get(case["input"]["alg"], case["input"]["alg"])
        key = Key.from_jwk(case["input"]["key"], algorithm=name)
        assert verify_jws(sign_jws(b"x", key), key).payload == b"x"


@pytest.mark.parametrize("name", ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"])
def test_the_ml_dsa_keys_and_signatures_of_the_draft_of_rfc_9964_are_taken(vectors: Path, name: str) -> None:
    case = load(vectors / "ml-dsa" / f"{name}.json")
    key = Key.from_jwk(case["jwk"])
    assert key.algorithm == name
    written = key.to_private_jwk()
    assert {member: written[member] for member in case["jwk"]} == case["jwk"]
    # The kid of the draft is the thumbprint over alg, kty and pub.
    assert Key.from_jwk({member: value for member, value in case["jwk"].items() if member != "kid"}).kid == key.kid
    assert decode_segment(key.to_jwk()["pub"]).hex() == case["raw_public_key"]

    public = Key.from_jwk(key.to_jwk())
    signed, signature = bytes.fromhex(case["raw_to_be_signed"]), bytes.fromhex(case["raw_signature"])
    public.check_signature(signature, signed)
    with pytest.raises(BadSignature):
        public.check_signature(signature, signed + b"x")
    with pytest.raises(BadSignature):
        public.check_signature(bytes([signature[0] ^ 1]) + signature[1:], signed)
    jws = verify_jws(case["jws"], public)
    assert jws.header["alg"] == name
    head, body, tail = case["jws"].split(".")
    assert f"{head}.{body}".encode() == signed
    with pytest.raises(BadSignature):
        verify_jws(f"{head}.A{body[1:]}.{tail}", public)
    public.check_signature(Key.from_pem(key.to_pem(), name).sign(b"x"), b"x")
