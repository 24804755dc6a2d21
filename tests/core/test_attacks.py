"""Forged tokens: one test for each row of the list of attacks that other libraries have let through.

The forger holds the real key, so that what is refused here is refused for its form, and not for a bad signature.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jotgate import (
    AlgorithmRefused,
    BadSignature,
    ClaimRefused,
    Claims,
    Key,
    KeySet,
    MalformedToken,
    Policy,
    TokenError,
    UnknownKey,
    generate_key,
    verify_jws,
    verify_token,
)
from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC, _ecdsa_check, _ecdsa_sign
from jotgate.core.encoding import decode_segment, encode_segment


class Forge(Protocol):
    names: tuple[str, ...]
    now: int
    claims: dict[str, object]
    keys: dict[str, Key]

    def token(self, algorithm: str = ..., *, header: object = ..., payload: object = ..., **claims: object) -> str: ...
    def header(self, algorithm: str = ..., **members: object) -> dict[str, object]: ...
    def sign(self, text: str, key: Key) -> str: ...
    def segment(self, raw: bytes) -> str: ...
    def policy(self, *algorithms: str) -> Policy: ...


Verify = Callable[[str | bytes], Claims]


@pytest.fixture
def verify(forge: Forge, keys: dict[str, Key], algorithm: str) -> Verify:
    """A verifier of one algorithm, as strict as by default, with the one right key."""
    key = keys[algorithm] if algorithm == "HS256" else keys[algorithm].public
    return lambda token: verify_token(token, key, forge.policy(algorithm), forge.now)


def check_refused(verify: Verify, token: str | bytes, kind: type[TokenError]) -> None:
    with pytest.raises(TokenError) as refused:
        verify(token)
    assert type(refused.value) is kind, str(refused.value)
    # What ends up in logs must not hold the token.
    for part in token.split("." if isinstance(token, str) else b"."):  # type: ignore[arg-type]
        assert len(part) < 6 or str(part) not in str(refused.value)


@pytest.fixture
def verify_any(forge: Forge, keys: dict[str, Key], every_algorithm: str) -> Verify:
    """The same for each algorithm there is."""
    key = keys[every_algorithm]
    key = key if key.symmetric else key.public
    return lambda token: verify_token(token, key, forge.policy(every_algorithm), forge.now)


def test_the_forged_token_without_a_fault_is_taken(verify_any: Verify, forge: Forge, every_algorithm: str) -> None:
    token = forge.token(every_algorithm)
    assert verify_any(token).subject == forge.claims["sub"]
    assert verify_any(token.encode()).to_dict() == forge.claims


# alg


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None, ["none"], {"none": 1}, 0, True, ...])
def test_alg_none_in_any_spelling_or_absent_is_refused(
    verify: Verify, forge: Forge, algorithm: str, alg: object
) -> None:
    signed = forge.token(algorithm, header=forge.header(algorithm, alg=alg))
    unsigned = signed.rpartition(".")[0] + "."
    check_refused(verify, signed, AlgorithmRefused)
    check_refused(verify, unsigned, AlgorithmRefused)


def test_unknown_algorithms_are_refused(verify: Verify, forge: Forge, algorithm: str) -> None:
    for alg in (algorithm.lower(), algorithm + " ", "HS1", "RS1", "ES256K", "HS256\0", "dir", "RSA1_5", "A" * 5000):
        if alg not in forge.names:
            check_refused(verify, forge.token(algorithm, header=forge.header(algorithm, alg=alg)), AlgorithmRefused)


def test_a_header_alg_that_is_not_the_keys_own_is_refused(
    forge: Forge, keys: dict[str, Key], public_keys: KeySet, every_algorithm: str
) -> None:
    algorithm = every_algorithm
    every = Policy(issuer="i", audience="a", algorithms=(*ASYMMETRIC, "EdDSA"))
    for other in (*forge.names, "EdDSA"):
        if other == algorithm:
            continue
        token = forge.token(algorithm, header=forge.header(algorithm, alg=other))
        for key in (keys[algorithm], KeySet([keys[algorithm]])):
            with pytest.raises(AlgorithmRefused):
                verify_jws(token, key, algorithms=ALGORITHMS)
        if not keys[algorithm].symmetric:
            with pytest.raises(AlgorithmRefused):
                verify_token(token, public_keys, every, forge.now)


def test_the_deprecated_name_eddsa_counts_only_where_it_is_listed(forge: Forge, keys: dict[str, Key]) -> None:
    old = Key.from_jwk({**keys["Ed25519"].to_jwk(), "alg": "EdDSA"})
    token = forge.token("Ed25519", header=forge.header("Ed25519", alg="EdDSA"))
    for _ in range(2):  # unknown and known
        for key in (old, KeySet([old])):
            with pytest.raises(AlgorithmRefused):
                verify_jws(token, key)
            with pytest.raises(AlgorithmRefused):
                verify_jws(token, key, algorithms=("Ed25519",))
            with pytest.raises(AlgorithmRefused):
                verify_token(token, key, Policy(issuer="i", audience="a"), forge.now)
            assert verify_jws(token, key, algorithms=("EdDSA",)).header["alg"] == "EdDSA"
    with pytest.raises(TypeError):
        verify_jws(token, old, algorithms="EdDSA")


def test_an_algorithm_outside_the_policy_is_refused_also_when_its_header_is_known(
    forge: Forge, keys: dict[str, Key], public_keys: KeySet
) -> None:
    token = forge.token("ES256")
    for _ in range(2):
        with pytest.raises(AlgorithmRefused):
            verify_token(token, public_keys, forge.policy("RS256"), forge.now)
        verify_token(token, public_keys, forge.policy("ES256"), forge.now)


def test_hmac_under_a_public_key_is_refused_in_any_encoding(
    forge: Forge, public_keys: KeySet, rsa_key: rsa.RSAPrivateKey
) -> None:
    from cryptography.hazmat.primitives.hmac import HMAC

    public = rsa_key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(forge.keys["RS256"].to_jwk()).encode()
    for secret in (pem, pem.strip(), b" " + pem, der, jwk, b"", b"\0"):
        for kid in (forge.keys["RS256"].kid, ...):
            head = forge.segment(json.dumps(forge.header("RS256", alg="HS256", kid=kid)).encode())
            text = f"{head}.{forge.segment(json.dumps(forge.claims).encode())}"
            mac = HMAC(secret, SHA256())
            mac.update(text.encode())
            token = f"{text}.{forge.segment(mac.finalize())}"
            for key in (public_keys, forge.keys["RS256"].public):
                with pytest.raises((AlgorithmRefused, UnknownKey)):
                    verify_jws(token, key)
                with pytest.raises(AlgorithmRefused):
                    verify_token(token, key, forge.policy("RS256"), forge.now)


@pytest.mark.parametrize("key", ["secret" * 8, b"secret" * 8, None, {"kty": "oct"}, ["x"], object()])
def test_text_bytes_and_mappings_are_no_keys(forge: Forge, key: object) -> None:
    with pytest.raises(TypeError):
        verify_jws(forge.token("HS256"), key)  # type: ignore[arg-type]


# Signatures


def test_empty_cut_and_lengthened_signatures_are_refused(
    verify_any: Verify, forge: Forge, every_algorithm: str
) -> None:
    text, _, tail = forge.token(every_algorithm).rpartition(".")
    good = decode_segment(tail)
    for wrong in (
        b"",
        good[:-1],
        good[1:],
        good + b"\0",
        b"\0" + good,
        good + good,
        bytes(len(good)),
        b"\xff" * len(good),
    ):
        check_refused(verify_any, f"{text}.{encode_segment(wrong)}", BadSignature)


ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 2**384 - 1388124618062372383947042015309946732620727252194336364173,
    "ES512": 2**521 - 657877501894328237357444332315020117536923257219387276263472201219398408051703,
}
HALVES = {"ES256": 32, "ES384": 48, "ES512": 66}


@pytest.mark.parametrize("name", ORDERS)
def test_ecdsa_signatures_of_zeros_and_of_numbers_out_of_range_are_refused(
    forge: Forge, keys: dict[str, Key], name: str
) -> None:
    order, half = ORDERS[name], HALVES[name]
    text, _, tail = forge.token(name).rpartition(".")
    good = decode_segment(tail)
    s = int.from_bytes(good[half:], "big")
    most = 2 ** (8 * half) - 1
    numbers = [(0, 0), (0, 1), (1, 0), (order, order), (order, 1), (1, order), (most, most), (0, s), (order, s)]
    if s + order <= most:
        numbers.append((int.from_bytes(good[:half], "big"), s + order))
    for numerator, scalar in numbers:
        raw = numerator.to_bytes(half, "big") + scalar.to_bytes(half, "big")
        with pytest.raises(BadSignature):
            verify_jws(f"{text}.{encode_segment(raw)}", keys[name])


@pytest.mark.parametrize("name", ORDERS)
def test_ecdsa_signatures_of_another_length_are_refused_though_their_numbers_are_right(
    forge: Forge, keys: dict[str, Key], name: str
) -> None:
    half = HALVES[name]
    text, _, tail = forge.token(name).rpartition(".")
    raw = decode_segment(tail)
    assert len(raw) == 2 * half
    for zeros in (1, 2, half):
        with pytest.raises(BadSignature):
            verify_jws(f"{text}.{encode_segment(raw[:half] + bytes(zeros) + raw[half:])}", keys[name])
        with pytest.raises(BadSignature):
            verify_jws(
                f"{text}.{encode_segment(bytes(zeros) + raw[:half] + bytes(zeros) + raw[half:])}",
                keys[name],
            )


@pytest.mark.parametrize("name", ORDERS)
def test_ecdsa_signatures_in_der_are_refused(forge: Forge, keys: dict[str, Key], name: str) -> None:
    half = HALVES[name]
    text, _, tail = forge.token(name).rpartition(".")
    raw = decode_segment(tail)
    der = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    for wrong in (der, der.ljust(3 * half, b"\0"), der[: 2 * half]):
        with pytest.raises(BadSignature):
            verify_jws(f"{text}.{encode_segment(wrong)}", keys[name])


def test_two_texts_of_one_token_have_one_identity(forge: Forge, keys: dict[str, Key]) -> None:
    # (r, n - s) verifies as well: nothing may take a token's text for its name.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    token = forge.token("ES256")
    text, _, tail = token.rpartition(".")
    raw = decode_segment(tail)
    other = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    first, second = (
        verify_token(each, keys["ES256"], forge.policy(), forge.now)
        for each in (token, f"{text}.{encode_segment(other)}")
    )
    assert (first.issuer, first.token_id) == (second.issuer, second.token_id)


def test_ecdsa_signatures_are_deterministic_and_the_standard_librarys(forge: Forge, keys: dict[str, Key]) -> None:
    key = keys["ES256"]
    assert key.sign(b"text") == key.sign(b"text")
    r, s = (int.from_bytes(half, "big") for half in (key.sign(b"text")[:32], key.sign(b"text")[32:]))
    assert decode_dss_signature(encode_dss_signature(r, s)) == (r, s)
    numbers = key.public.to_jwk()
    x, y = (int.from_bytes(decode_segment(numbers[name]), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    public.verify(encode_dss_signature(r, s), b"text", ec.ECDSA(SHA256()))


def test_where_openssl_has_no_deterministic_ecdsa_signatures_are_random_and_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = ec.ECDSA

    def old_openssl(hash_: SHA256, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("deterministic ECDSA")
        return real(hash_)

    monkeypatch.setattr(ec, "ECDSA", old_openssl)
    pair = ec.generate_private_key(ec.SECP256R1())
    sign = _ecdsa_sign(32, SHA256())(pair)
    assert sign(b"text") != sign(b"text")
    _ecdsa_check(32, SHA256())(pair.public_key())(sign(b"text"), b"text")


def test_ed25519_signatures_with_a_second_spelling_of_s_are_refused(forge: Forge, keys: dict[str, Key]) -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    text, _, tail = forge.token("Ed25519").rpartition(".")
    raw = decode_segment(tail)
    wrong = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(BadSignature):
        verify_jws(f"{text}.{encode_segment(wrong)}", keys["Ed25519"])


def rsa_signature(
    key: rsa.RSAPrivateKey, text: str, pad: padding.AsymmetricPadding, hash_: hashes.HashAlgorithm
) -> str:
    return f"{text}.{encode_segment(key.sign(text.encode(), pad, hash_))}"


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_pss_signatures_with_a_salt_of_another_length_or_another_hash_are_refused(
    forge: Forge, keys: dict[str, Key], rsa_key: rsa.RSAPrivateKey, bits: int
) -> None:
    name = f"PS{bits}"
    sha: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
    own, size = sha[bits], bits // 8
    text = forge.token(name).rpartition(".")[0]
    verify_jws(rsa_signature(rsa_key, text, padding.PSS(padding.MGF1(own), size), own), keys[name])
    for salt in (0, 1, size - 1, size + 1, 20, padding.PSS.MAX_LENGTH):
        with pytest.raises(BadSignature):
            verify_jws(rsa_signature(rsa_key, text, padding.PSS(padding.MGF1(own), salt), own), keys[name])
    for other in (hash_ for length, hash_ in sha.items() if length != bits):
        for pad, hash_ in (
            (padding.PSS(padding.MGF1(other), size), own),
            (padding.PSS(padding.MGF1(own), size), other),
            (padding.PSS(padding.MGF1(other), other.digest_size), other),
        ):
            with pytest.raises(BadSignature):
                verify_jws(rsa_signature(rsa_key, text, pad, hash_), keys[name])


def test_rsa_signatures_of_one_scheme_are_refused_under_every_other(
    forge: Forge, keys: dict[str, Key], rsa_key: rsa.RSAPrivateKey
) -> None:
    names = [name for name in forge.names if name[:2] in ("RS", "PS")]
    assert len(names) == 6
    for claimed in names:
        text = forge.token(claimed).rpartition(".")[0]
        for signed in names:
            token = forge.sign(text, keys[signed])
            if signed == claimed:
                verify_jws(token, keys[claimed])
            else:
                with pytest.raises(BadSignature):
                    verify_jws(token, keys[claimed])


def test_hmacs_under_another_hash_are_refused(forge: Forge) -> None:
    secret = bytes(decode_segment(generate_key("HS512").to_private_jwk()["k"]))
    same = {name: Key.from_secret(secret, name, kid=forge.keys[name].kid) for name in ("HS256", "HS384", "HS512")}
    for claimed, key in same.items():
        text = forge.token(claimed).rpartition(".")[0]
        for signed, other in same.items():
            if signed == claimed:
                verify_jws(forge.sign(text, other), key)
            else:
                with pytest.raises(BadSignature):
                    verify_jws(forge.sign(text, other), key)


@pytest.mark.parametrize("bits", [44, 65, 87])
def test_ml_dsa_signatures_under_a_context_are_refused(forge: Forge, bits: int) -> None:
    from cryptography.hazmat.primitives.asymmetric import mldsa

    name = f"ML-DSA-{bits}"
    private = getattr(mldsa, f"MLDSA{bits}PrivateKey").generate()
    key = Key.from_pem(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), name)
    text = forge.token(name, header=forge.header(name, kid=key.kid)).rpartition(".")[0]
    verify_jws(f"{text}.{encode_segment(private.sign(text.encode()))}", key)
    verify_jws(f"{text}.{encode_segment(private.sign(text.encode(), b''))}", key)
    with pytest.raises(BadSignature):
        verify_jws(f"{text}.{encode_segment(private.sign(text.encode(), b'JWT'))}", key)


def test_all_wrong_signatures_are_refused_in_the_same_words(
    forge: Forge, keys: dict[str, Key], every_algorithm: str
) -> None:
    """What is wrong with one is nobody's business: the difference would tell a forger how far they got."""
    signed, _, good = forge.token(every_algorithm).rpartition(".")
    raw = decode_segment(good.encode())
    wrong = (
        b"",
        raw[:-1],
        raw + b"\0",
        bytes(len(raw)),
        bytes((raw[0] ^ 1,)) + raw[1:],
        keys[every_algorithm].sign(b"-"),
    )
    said = set()
    for signature in wrong:
        with pytest.raises(BadSignature) as refused:
            verify_token(
                f"{signed}.{forge.segment(signature)}", keys[every_algorithm], forge.policy(every_algorithm), forge.now
            )
        said.add(str(refused.value))
    assert said == {"The signature does not belong to this token and key."}


def test_members_that_mean_something_in_a_jwe_mean_nothing_here(verify: Verify, forge: Forge, algorithm: str) -> None:
    """No payload is ever inflated and no key derived: such code does not exist, and RFC 7515 §4 says to ignore them."""
    for members in ({"zip": "DEF"}, {"p2c": 2**31, "p2s": "AAAA"}, {"enc": "A256GCM"}, {"epk": {"kty": "EC"}}):
        claims = verify(forge.token(algorithm, header=forge.header(algorithm, **members)))
        assert claims.to_dict() == verify(forge.token(algorithm)).to_dict()


def test_a_signature_by_another_key_under_the_same_kid_is_refused(forge: Forge, keys: dict[str, Key]) -> None:
    for name in (
        "HS256",
        "HS384",
        "HS512",
        "ES256",
        "ES384",
        "ES512",
        "Ed25519",
        "ML-DSA-44",
        "ML-DSA-65",
        "ML-DSA-87",
    ):
        impostor = generate_key(name, kid=keys[name].kid)
        text = forge.token(name).rpartition(".")[0]
        with pytest.raises(BadSignature):
            verify_jws(forge.sign(text, impostor), keys[name])


# Keys that a token brings along, or asks for


@pytest.mark.parametrize("member", ["jwk", "x5c", "jku", "x5u"])
def test_keys_and_addresses_in_a_header_are_never_trusted(
    verify: Verify, forge: Forge, keys: dict[str, Key], algorithm: str, member: str
) -> None:
    attacker = generate_key("ES256")
    brought = {
        "jwk": attacker.to_jwk(),
        "x5c": [encode_segment(b"certificate")],
        "jku": "https://attacker.example/jwks.json",
        "x5u": "file:///etc/passwd",
    }[member]
    head = forge.header("ES256", alg="ES256", kid=attacker.kid, **{member: brought})
    body = forge.segment(json.dumps(forge.claims).encode())
    token = forge.sign(f"{forge.segment(json.dumps(head).encode())}.{body}", attacker)
    with pytest.raises(TokenError):
        verify(token)
    with pytest.raises(UnknownKey):
        verify_jws(token, keys["ES256"])
    no_kid = {name: value for name, value in head.items() if name != "kid"}
    token = forge.sign(f"{forge.segment(json.dumps(no_kid).encode())}.{body}", attacker)
    with pytest.raises(BadSignature):
        verify_jws(token, keys["ES256"])
    # The right key's token is as good as ever, whatever it carries besides.
    assert verify(forge.token(algorithm, header=forge.header(algorithm, **{member: brought})))


@pytest.mark.parametrize(
    "kid", ["", "other", "../../../../dev/null", "' UNION SELECT 'x", "key\0", "x" * 256, "\u212a"]
)
def test_a_kid_is_only_looked_up(verify: Verify, forge: Forge, algorithm: str, kid: str) -> None:
    check_refused(verify, forge.token(algorithm, header=forge.header(algorithm, kid=kid)), UnknownKey)


@pytest.mark.parametrize("kid", [None, 0, True, ["a"], {"a": 1}, "x" * 257])
def test_a_kid_that_is_no_text_or_huge_is_malformed(verify: Verify, forge: Forge, algorithm: str, kid: object) -> None:
    check_refused(verify, forge.token(algorithm, header=forge.header(algorithm, kid=kid)), MalformedToken)


def test_without_a_kid_only_the_only_key_of_the_algorithm_is_tried(forge: Forge, keys: dict[str, Key]) -> None:
    token = forge.token("ES256", header=forge.header("ES256", kid=...))
    assert verify_jws(token, KeySet([keys["ES256"], keys["RS256"]])).header == {"alg": "ES256", "typ": "at+jwt"}
    with pytest.raises(UnknownKey):
        verify_jws(token, KeySet([keys["ES256"], generate_key("ES256")]))
    with pytest.raises(UnknownKey):
        verify_jws(token, KeySet())


# crit, b64


@pytest.mark.parametrize(
    "crit",
    [["exp"], ["b64"], ["https://example.com/x"], [], ["alg"], ["x", "x"], "b64", None, {}, 0, [None]],
)
def test_any_crit_is_refused(verify: Verify, forge: Forge, algorithm: str, crit: object) -> None:
    header = forge.header(algorithm, crit=crit, **{"exp": 1, "https://example.com/x": 1})
    check_refused(verify, forge.token(algorithm, header=header), MalformedToken)


@pytest.mark.parametrize("b64", [False, True, None, "false"])
def test_any_b64_is_refused(verify: Verify, forge: Forge, algorithm: str, b64: object) -> None:
    for more in ({}, {"crit": ["b64"]}):
        header = forge.header(algorithm, b64=b64, **more)
        check_refused(verify, forge.token(algorithm, header=header), MalformedToken)
        text = f"{forge.segment(json.dumps(header).encode())}.raw-payload"
        check_refused(verify, forge.sign(text, forge.keys[algorithm]), MalformedToken)


# JSON


def duplicated(members: dict[str, object], name: str) -> bytes:
    """The object's text with the member `name` written twice, the second time with the right value."""
    text = json.dumps(members)
    return f'{{"{name}": "x", {text[1:]}'.encode()


@pytest.mark.parametrize("name", ["alg", "kid", "typ"])
def test_a_header_member_given_twice_is_refused(verify: Verify, forge: Forge, algorithm: str, name: str) -> None:
    check_refused(verify, forge.token(algorithm, header=duplicated(forge.header(algorithm), name)), MalformedToken)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp", "scope"])
def test_a_claim_given_twice_is_refused(verify: Verify, forge: Forge, algorithm: str, name: str) -> None:
    check_refused(verify, forge.token(algorithm, payload=duplicated(forge.claims, name)), MalformedToken)


def test_a_member_given_twice_at_any_depth_is_refused(verify: Verify, forge: Forge, algorithm: str) -> None:
    for inner in ('{"a":1,"a":1}', '[{"b":{"a":1,"a":2}}]', '{"a":1,"\\u0061":2}'):
        claims = json.dumps(forge.claims | {"own": "HERE"}).replace('"HERE"', inner).encode()
        check_refused(verify, forge.token(algorithm, payload=claims), MalformedToken)
        header = json.dumps(forge.header(algorithm, own="HERE")).replace('"HERE"', inner).encode()
        check_refused(verify, forge.token(algorithm, header=header), MalformedToken)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{",
        b"{}x",
        b"{\xff}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-16-be"),
        "{}".encode("utf-32"),
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 10_000,
        b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
        b'{"alg":"none"',
    ],
)
def test_text_that_is_no_strict_json_object_is_malformed(
    verify: Verify, forge: Forge, algorithm: str, raw: bytes
) -> None:
    check_refused(verify, forge.token(algorithm, payload=raw), MalformedToken)
    check_refused(verify, forge.token(algorithm, header=raw), MalformedToken)


# Form


def test_base64_padding_whitespace_and_other_alphabets_are_malformed(
    verify: Verify, forge: Forge, algorithm: str
) -> None:
    parts = forge.token(algorithm).split(".")
    changes: tuple[Callable[[str], str], ...] = (
        lambda part: part + "=",
        lambda part: part + "==",
        lambda part: part + "A" * (5 - len(part) % 4),  # a length that no bytes have
        lambda part: " " + part,
        lambda part: part + "\n",
        lambda part: part[:4] + "\r\n" + part[4:],
        lambda part: part[:4] + "+" + part[5:],
        lambda part: part[:4] + "/" + part[5:],
        lambda part: part[:4] + "%" + part[5:],
        lambda part: part[:4] + "\u00e9" + part[5:],
        lambda part: part[:4] + "\0" + part[5:],
    )
    for position in range(3):
        for change in changes:
            wrong = ".".join([*parts[:position], change(parts[position]), *parts[position + 1 :]])
            check_refused(verify, wrong, MalformedToken)
            check_refused(verify, wrong.encode(), MalformedToken)


def test_unused_bits_that_are_not_zero_are_malformed(verify: Verify, forge: Forge, algorithm: str) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    # Own claims of three lengths, so that the payload ends in each of the three ways.
    for own in ("", "x", "xx"):
        parts = forge.token(algorithm, own=own).split(".")
        for position, part in enumerate(parts):
            if len(part) % 4:
                last = alphabet[alphabet.index(part[-1]) + 1]
                wrong = ".".join([*parts[:position], part[:-1] + last, *parts[position + 1 :]])
                check_refused(verify, wrong, MalformedToken)


def test_tokens_over_16_kib_are_refused_before_they_are_looked_at(verify: Verify, forge: Forge, algorithm: str) -> None:
    token = forge.token(algorithm, own="")
    room = 16_384 - len(token)
    assert verify(forge.token(algorithm, own="x" * (room // 4 * 3 - 3)))
    check_refused(verify, forge.token(algorithm, own="x" * (room // 4 * 3 + 8)), MalformedToken)
    for filler in ("." * 10**6, "A" * 10**6, "A." * 10**5, "\u00e9" * 16_385):
        check_refused(verify, filler, MalformedToken)


@pytest.mark.parametrize("dots", [0, 1, 3, 4, 5, 100])
def test_any_other_number_of_parts_is_malformed(verify: Verify, forge: Forge, algorithm: str, dots: int) -> None:
    token = forge.token(algorithm)
    check_refused(verify, token.replace(".", "", 2 - dots) if dots < 2 else token + "." * (dots - 2), MalformedToken)
    check_refused(verify, "." * dots, MalformedToken)


def test_a_signed_header_without_a_payload_is_malformed(verify: Verify, forge: Forge, algorithm: str) -> None:
    key = forge.keys[algorithm]
    head = forge.segment(json.dumps(forge.header(algorithm)).encode())
    for text in (head, f"{head}.", f".{head}", f".{head}."):
        check_refused(verify, forge.sign(text, key), MalformedToken)
    with pytest.raises(MalformedToken):
        verify_jws(forge.sign(head, key), key)


def test_a_jwe_is_refused_as_such(verify: Verify, forge: Forge, algorithm: str) -> None:
    header = forge.segment(b'{"alg":"dir","enc":"A256GCM","zip":"DEF"}')
    with pytest.raises(MalformedToken, match="JWE"):
        verify(f"{header}..AAAA.AAAA.AAAA")
    # Three parts with a JWE's header are no way round.
    check_refused(verify, f"{header}.{forge.token(algorithm).partition('.')[2]}", AlgorithmRefused)
    header = forge.segment(b'{"alg":"RSA-OAEP","enc":"A128GCM","p2c":10000000}')
    check_refused(verify, f"{header}.AAAA.AAAA", AlgorithmRefused)


def test_json_serialisations_are_refused(verify: Verify, forge: Forge, algorithm: str) -> None:
    head, body, tail = forge.token(algorithm).split(".")
    flat = {"protected": head, "payload": body, "signature": tail}
    general = {"payload": body, "signatures": [{"protected": head, "signature": tail}]}
    for text in (flat, general, {"payload": body, "signatures": []}, {**flat, "header": {"kid": "a.b.c"}}):
        check_refused(verify, json.dumps(text), MalformedToken)
    # python-jwt took a compact token smuggled into a JSON text.
    smuggled = f'{{"  {head}.{body}.{tail}":"","protected":"{head}","payload":"{body}","signature":"{tail}"}}'
    check_refused(verify, smuggled, MalformedToken)


@pytest.mark.parametrize("token", [None, 5, b"", "", [], ["a.b.c"], {"a": 1}, bytearray(b"a.b.c"), "a.b.c", ".."])
def test_what_is_no_token_at_all_is_malformed(verify: Verify, token: object) -> None:
    with pytest.raises(MalformedToken):
        verify(token)  # type: ignore[arg-type]


def test_a_nested_token_is_no_set_of_claims(verify: Verify, forge: Forge, algorithm: str) -> None:
    inner = forge.token(algorithm).encode()
    header = forge.header(algorithm, cty="JWT")
    check_refused(verify, forge.token(algorithm, header=header, payload=inner), MalformedToken)


# typ


@pytest.mark.parametrize(
    "typ",
    [
        "JWT",
        "id_token",
        "rt+jwt",
        "secevent+jwt",
        "logout+jwt",
        "at+jwt ",
        "",
        "application/",
        "revocations+jwt",
        "application/application/at+jwt",
        "text/at+jwt",
        ...,
    ],
)
def test_a_token_of_another_type_is_refused(verify: Verify, forge: Forge, algorithm: str, typ: object) -> None:
    check_refused(verify, forge.token(algorithm, header=forge.header(algorithm, typ=typ)), ClaimRefused)


@pytest.mark.parametrize("typ", ["AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_typ_is_a_media_type_and_compared_as_one(verify: Verify, forge: Forge, algorithm: str, typ: str) -> None:
    assert verify(forge.token(algorithm, header=forge.header(algorithm, typ=typ)))


def test_a_media_type_of_another_tree_is_not_shortened(forge: Forge, keys: dict[str, Key]) -> None:
    policy = Policy(issuer="https://auth.example.com", audience="api", algorithms=("ES256",), typ="text/at+jwt")
    for typ, fits in (("text/at+jwt", True), ("Text/AT+JWT", True), ("application/text/at+jwt", False)):
        token = forge.token(header=forge.header(typ=typ))
        if fits:
            assert verify_token(token, keys["ES256"], policy, forge.now)
        else:
            with pytest.raises(ClaimRefused):
                verify_token(token, keys["ES256"], policy, forge.now)


@pytest.mark.parametrize("typ", [None, 5, ["at+jwt"], "at+\u212a"])
def test_a_typ_that_is_no_media_type_is_malformed(verify: Verify, forge: Forge, algorithm: str, typ: object) -> None:
    check_refused(verify, forge.token(algorithm, header=forge.header(algorithm, typ=typ)), MalformedToken)


def test_a_signed_object_of_another_purpose_is_no_token(forge: Forge, keys: dict[str, Key]) -> None:
    # The feed's own keys and type keep it apart, and it has no audience either.
    event = forge.token(header=forge.header(typ="revocations+jwt"))
    with pytest.raises(ClaimRefused):
        verify_token(event, keys["ES256"], forge.policy(), forge.now)
    nameless = forge.token(aud=...)
    with pytest.raises(ClaimRefused):
        verify_token(nameless, keys["ES256"], forge.policy(), forge.now)


@pytest.mark.parametrize("claim", ["verify", "verify_exp", "nonce_supported", "options", "alg", "skip", "crit"])
def test_no_claim_switches_a_check_off(verify: Verify, forge: Forge, algorithm: str, claim: str) -> None:
    for value in (False, "none", None, {"verify_exp": False}):
        with pytest.raises(TokenError):
            verify(forge.token(algorithm, exp=forge.now - 3600, iat=forge.now - 3900, **{claim: value}))
        with pytest.raises(TokenError):
            verify(forge.token(algorithm, aud="other", **{claim: value}))


# The memo of headers


def test_a_header_that_is_known_skips_no_check_of_the_rest(verify: Verify, forge: Forge, algorithm: str) -> None:
    good = forge.token(algorithm)
    head, body, tail = good.split(".")
    other = forge.segment(json.dumps(forge.claims | {"sub": "somebody-else"}).encode())
    for _ in range(2):
        verify(good)
        check_refused(verify, f"{head}.{other}.{tail}", BadSignature)
        check_refused(verify, f"{head}.{body}.", BadSignature)
        check_refused(verify, f"{head}.{body}.{tail}=", MalformedToken)
        check_refused(verify, f"{head}.{body}=.{tail}", MalformedToken)
        check_refused(verify, forge.token(algorithm, aud="other"), ClaimRefused)


def test_nobody_without_a_key_fills_the_memo_and_with_one_it_stays_bounded(forge: Forge, keys: dict[str, Key]) -> None:
    key_set = KeySet([keys["HS256"]])
    for count in range(200):
        token = forge.token("HS256", header=forge.header("HS256", n=count))
        with pytest.raises(BadSignature):
            verify_jws(token[:-8] + "AAAAAAAA", key_set)
    assert not key_set._routes
    for count in range(200):
        verify_jws(forge.token("HS256", header=forge.header("HS256", n=count)), key_set)
        assert 0 < len(key_set._routes) <= 64
    verify_jws(forge.token("HS256", header=forge.header("HS256", n="x" * 2000)), key_set)
    assert all(len(head) <= 1024 for head in key_set._routes)


def test_the_same_header_leads_to_each_sets_own_key(forge: Forge, keys: dict[str, Key]) -> None:
    ours, theirs = keys["ES256"], generate_key("ES256", kid=keys["ES256"].kid)
    token = forge.token("ES256")
    text = token.rpartition(".")[0]
    for _ in range(2):
        verify_jws(token, KeySet([ours]))
        with pytest.raises(BadSignature):
            verify_jws(token, KeySet([theirs]))
        verify_jws(forge.sign(text, theirs), KeySet([theirs]))
