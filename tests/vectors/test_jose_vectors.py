"""RFC 7520 (JOSE cookbook) and RFC 8037: keys and signatures that nobody here made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from jotgate import BadSignature, Key, KeyRefused, sign_jws, verify_jws
from jotgate.core.algorithms import ALGORITHMS

Json: TypeAlias = Any


def load(path: Path) -> Json:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def signatures(vectors: Path) -> list[Json]:
    cases = [load(path) for path in sorted((vectors / "rfc7520" / "jws").glob("*.json"))]
    cases.append(load(vectors / "rfc8037" / "jws.json"))
    assert len(cases) == 5
    return cases


def test_every_signature_of_the_rfcs_is_verified_if_its_algorithm_is_known(signatures: list[Json]) -> None:
    verified = set()
    for case in signatures:
        algorithm = case["input"]["alg"]
        if algorithm not in ALGORITHMS:
            with pytest.raises(KeyRefused):
                Key.from_jwk(case["input"]["key"], algorithm=algorithm)
            continue
        key = Key.from_jwk(case["input"]["key"], algorithm=algorithm)
        jws = verify_jws(case["output"]["compact"], key if key.symmetric else key.public)
        assert jws.payload.decode() == case["input"]["payload"]
        assert jws.header == case["signing"]["protected"]
        verified.add(algorithm)
        head, body, tail = case["output"]["compact"].split(".")
        with pytest.raises(BadSignature):
            verify_jws(f"{head}.A{body[1:]}.{tail}", key)
    assert verified >= {"HS256", "RS256", "EdDSA"}


def test_signatures_that_have_one_value_are_made_as_the_rfcs_make_them(signatures: list[Json]) -> None:
    made = set()
    for case in signatures:
        name = {"EdDSA": "Ed25519"}.get(case["input"]["alg"], case["input"]["alg"])
        if not case.get("reproducible") or name not in ALGORITHMS:
            continue
        key = Key.from_jwk(case["input"]["key"], algorithm=name)
        signature = sign_with(key, case["signing"]["sig-input"])
        assert signature == case["signing"]["sig"], name
        made.add(name)
    assert made >= {"HS256", "RS256", "Ed25519"}


def sign_with(key: Key, text: str) -> str:
    from jotgate.core.encoding import encode_segment

    return encode_segment(key.sign(text.encode("ascii")))


def test_the_keys_of_rfc_7520_are_read_and_written_as_they_are(vectors: Path) -> None:
    folder = vectors / "rfc7520" / "jwk"
    for name, algorithm in (("3_4.rsa_private_key", "RS256"), ("3_5.symmetric_key_mac_computation", "HS256")):
        jwk = load(folder / f"{name}.json")
        key = Key.from_jwk(jwk, algorithm=algorithm)
        written = key.to_private_jwk()
        assert {member: written[member] for member in jwk} == jwk
    public = Key.from_jwk(load(folder / "3_3.rsa_public_key.json"), algorithm="RS256")
    assert public.to_jwk()["n"] == load(folder / "3_4.rsa_private_key.json")["n"]
    assert not public.private


def test_the_thumbprint_of_rfc_8037_is_the_keys_name(vectors: Path) -> None:
    jwk = load(vectors / "rfc8037" / "jws.json")["input"]["key"]
    # RFC 8037 appendix A.3
    assert Key.from_jwk(jwk).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_keys_on_curves_that_are_not_known_are_refused(vectors: Path) -> None:
    for path in (vectors / "rfc7520" / "jwk").glob("*ec_*.json"):
        jwk = load(path)
        if jwk["crv"] not in {row.curve for row in ALGORITHMS.values()}:
            with pytest.raises(KeyRefused):
                Key.from_jwk(jwk)


def test_a_signed_text_comes_back(signatures: list[Json]) -> None:
    for case in signatures:
        name = {"EdDSA": "Ed25519"}.get(case["input"]["alg"], case["input"]["alg"])
        if name in ALGORITHMS:
            key = Key.from_jwk(case["input"]["key"], algorithm=name)
            assert verify_jws(sign_jws(b"x", key), key).payload == b"x"
