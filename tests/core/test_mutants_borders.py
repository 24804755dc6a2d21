"""The exact borders of the core's decisions, one step on either side: found by mutation testing."""

from __future__ import annotations

import json

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from jotgate import (
    AlgorithmRefused,
    ClaimRefused,
    Key,
    KeyRefused,
    KeySet,
    MalformedToken,
    Policy,
    TokenError,
    generate_key,
    issue_token,
    sign_jws,
    verify_jws,
    verify_token,
)
from jotgate.core.bearer import parse_authorization
from jotgate.core.encoding import JsonRefused, decode_segment, encode_segment, parse_json_object

KEY = generate_key("HS256", kid="k")
MAX_BYTES = 16_384


def token_of(length: int) -> str:
    """A good JWS of exactly that many characters."""
    sizes = range((length - 200) * 3 // 4, length)
    headers = ({"fill": "x" * count} for count in range(4))
    return next(
        token
        for header in headers
        for size in sizes[:200]
        if len(token := sign_jws(bytes(size), KEY, headers=header)) == length
    )


def test_a_token_of_exactly_the_longest_length_is_taken_and_one_byte_more_is_not() -> None:
    longest = token_of(MAX_BYTES)
    assert verify_jws(longest, KEY).payload
    assert verify_jws(longest.encode(), KEY).payload
    with pytest.raises(MalformedToken, match="longer than 16384 bytes"):
        verify_jws(token_of(MAX_BYTES + 1), KEY)


def test_a_claim_that_cannot_be_written_is_named_in_the_refusal() -> None:
    with pytest.raises(ClaimRefused) as refused:
        issue_token({"exp": 1, "bad": float("nan")}, KEY)
    assert refused.value.claim == "bad"


def test_a_secret_is_refused_for_a_pair_and_a_pem_for_a_secret_before_they_are_read() -> None:
    with pytest.raises(KeyRefused, match="takes a key pair, not a secret"):
        Key.from_secret(bytes(32), "ES256")
    with pytest.raises(KeyRefused, match="cannot be used for HS256, which takes a secret"):
        Key.from_pem(generate_key("ES256").to_pem(), "HS256")


def test_a_key_that_is_skipped_is_named_by_its_kid_up_to_the_longest_and_else_by_its_place() -> None:
    entries = [{"kty": "EC", "kid": kid} for kid in ("k" * 256, "k" * 257, 5)]
    assert [name for name, _ in KeySet.from_jwks({"keys": entries}).skipped] == ["k" * 256, 1, 2]


def test_the_headers_that_a_key_remembers_are_its_own_and_bounded() -> None:
    key, other = generate_key("ES256", kid="one"), generate_key("ES256", kid="two")
    for _ in range(2):
        for typ in (None, "at+jwt", *(f"type-{number}" for number in range(40))):
            for each in (key, other):
                head = verify_jws(sign_jws(b"{}", each, typ=typ), each).header
                assert head == {"alg": "ES256", "kid": each.kid} | ({} if typ is None else {"typ": typ})
    assert 0 < len(key._heads) <= 16


def test_a_kid_has_one_to_256_characters() -> None:
    for kid in ("k", "k" * 256):
        assert generate_key("ES256", kid=kid).kid == kid
    for kid in ("", "k" * 257):
        with pytest.raises(KeyRefused, match="1 to 256 characters"):
            generate_key("ES256", kid=kid)


@pytest.mark.parametrize("bits", [2047, 2048])
def test_rsa_keys_begin_at_2048_bits(bits: int) -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | (0x1D * (1 << 900)) | 1)
    jwk = {"kty": "RSA", "alg": "RS256"} | {
        name: encode_segment(value.to_bytes((value.bit_length() + 7) // 8))
        for name, value in (("n", numbers.n), ("e", numbers.e))
    }
    if bits == 2048:
        assert Key.from_jwk(jwk).algorithm == "RS256"
    else:
        with pytest.raises(KeyRefused, match="2048 to 8192 bits"):
            Key.from_jwk(jwk)


@pytest.mark.parametrize("exponent", [65535, 65537, (1 << 64) - 1, (1 << 64) + 1])
def test_rsa_exponents_lie_between_65537_and_64_bits(exponent: int) -> None:
    modulus = (1 << 2047) | (0x1D * (1 << 900)) | 1
    jwk = {"kty": "RSA", "alg": "RS256"} | {
        name: encode_segment(value.to_bytes((value.bit_length() + 7) // 8))
        for name, value in (("n", modulus), ("e", exponent))
    }
    if exponent in (65537, (1 << 64) - 1):
        assert Key.from_jwk(jwk).algorithm == "RS256"
    else:
        with pytest.raises(KeyRefused, match="exponent"):
            Key.from_jwk(jwk)


@pytest.mark.parametrize(("depth", "taken"), [(32, True), (33, False)])
def test_json_nests_32_levels_deep_the_object_included(depth: int, taken: bool) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = opening * (depth - 1) + "1" + closing * (depth - 1)
        for text in (
            f'{{"a":{inner}}}',
            f'{{"a": {inner}}}',
            f'{{"a":{inner},"b":"[{{"}}',
            f'{{"b":"\\"]]}}}}","a":{inner}}}',
        ):
            if taken:
                assert parse_json_object(text.encode())["a"] == json.loads(inner)
            else:
                with pytest.raises(JsonRefused) as refused:
                    parse_json_object(text.encode())
                assert refused.value.reason == "nesting_too_deep"


@pytest.mark.parametrize(("digits", "taken"), [(4300, True), (4301, False)])
def test_json_numbers_have_at_most_4300_digits(digits: int, taken: bool) -> None:
    for number in ("1" * digits, "0." + "1" * (digits - 2)):
        for text in (f'{{"a":{number}}}', f'{{"a": {number}}}'):
            if taken:
                assert parse_json_object(text.encode()) == {"a": json.loads(number)}
            else:
                with pytest.raises(JsonRefused) as refused:
                    parse_json_object(text.encode())
                assert refused.value.reason == "number_out_of_range"


def test_every_last_character_of_a_segment_is_taken_exactly_where_its_unused_bits_are_zero() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for length, step in ((2, 16), (3, 4), (4, 1)):
        for position, character in enumerate(alphabet):
            text = "_" * (length - 1) + character
            if position % step == 0:
                assert encode_segment(decode_segment(text)) == text
            else:
                with pytest.raises(MalformedToken):
                    decode_segment(text)


def test_refusals_say_which_of_two_like_faults_it_was() -> None:
    head, body, tail = sign_jws(b"{}", KEY).split(".")
    for token, message in (
        (f"{head}.{body}.{body}.{body}.{tail}", r"encrypted \(JWE\)"),
        (f"{head}.{body}.{body}.{tail}", "three parts"),
        (f"{head}.{body}", "three parts"),
    ):
        with pytest.raises(MalformedToken, match=message):
            verify_jws(token, KEY)
    for jwk, message in ((b"[]", "is not a JSON object"), ("\ud800", "is not a JSON object"), ([], "is a JSON object")):
        with pytest.raises(KeyRefused, match=message):
            Key.from_jwk(jwk)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("operations", [["encrypt"], ["deriveKey", "wrapKey"], ["Verify"], []])
def test_a_key_whose_key_ops_name_no_signature_is_refused_private_or_not(operations: list[str]) -> None:
    pair = generate_key("ES256")
    for jwk in (pair.to_jwk(), pair.to_private_jwk(), KEY.to_private_jwk()):
        with pytest.raises(KeyRefused, match=r"not for signatures \(key_ops\)"):
            Key.from_jwk({**jwk, "key_ops": operations})


def test_a_member_that_the_key_type_does_not_have_is_not_looked_at() -> None:
    assert Key.from_jwk({**KEY.to_private_jwk(), "crv": "P-256"}).algorithm == "HS256"


@pytest.mark.parametrize("algorithm", ["none", "HS255", "hs256", ""])
def test_an_unknown_algorithm_is_refused_as_one_also_where_no_policy_lists_any(algorithm: str) -> None:
    for header in ({"alg": algorithm}, {"alg": algorithm, "kid": "stranger"}, {"alg": algorithm, "kid": KEY.kid}):
        signed = f"{encode_segment(json.dumps(header).encode())}.e30"
        with pytest.raises(AlgorithmRefused, match="known here"):
            verify_jws(f"{signed}.{encode_segment(KEY.sign(signed.encode()))}", KEY)


def test_a_policy_says_which_types_it_takes() -> None:
    one = Policy(issuer="https://auth.example.com", audience="api")
    assert one.takes_typ("at+jwt") is True
    assert one.takes_typ("jwt") is False
    assert one.takes_typ(None) is False


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    """Own claims among them a registered one."""

    sub: str
    seats: int


def test_a_closed_claims_type_may_name_registered_claims() -> None:
    policy = Policy(issuer="https://auth.example.com", audience="api", algorithms=("HS256",), claims_type=Closed)
    claims = {"iss": policy.issuer, "aud": "api", "sub": "ada", "iat": 1000, "exp": 1300, "seats": 3}
    assert verify_token(issue_token(claims, KEY), KEY, policy, 1000).custom == Closed("ada", 3)
    with pytest.raises(ClaimRefused) as refused:
        verify_token(issue_token({**claims, "other": 1}, KEY), KEY, policy, 1000)
    assert refused.value.claim == "other"


def judged(now: int = 1000, **claims: object) -> str:
    """`taken`, or the name of the refusal, of a good payload with other `claims`."""
    policy = Policy(
        issuer="https://auth.example.com", audience="api", algorithms=("HS256",), leeway_s=5, max_lifetime_s=300
    )
    good: dict[str, object] = {"iss": policy.issuer, "aud": "api", "sub": "ada", "iat": 1000, "exp": 1300}
    try:
        verify_token(issue_token(good | claims, KEY), KEY, policy, now)
    except TokenError as error:
        return type(error).__name__
    return "taken"


@pytest.mark.parametrize("fraction", [0, 0.0])
def test_times_in_their_usual_and_in_other_forms_have_the_same_borders(fraction: float) -> None:
    for now, claims, said in (
        (1304, {}, "taken"),
        (1305, {}, "TokenExpired"),
        (995, {}, "taken"),
        (994, {}, "TokenNotYetValid"),
        (1000, {"nbf": 1005}, "taken"),
        (1000, {"nbf": 1006}, "TokenNotYetValid"),
        (1000, {"exp": 1301}, "ClaimRefused"),
        (1000, {"exp": 1301, "iat": 1001}, "taken"),
    ):
        given = {"iat": 1000, "exp": 1300} | claims
        assert judged(now, **{name: value + fraction for name, value in given.items()}) == said


def test_the_claims_that_are_demanded_are_demanded_in_the_usual_form_too() -> None:
    assert judged(aud=["other", "api"]) == "taken"
    for claims in ({"iss": "https://other.example"}, {"aud": "xapix"}, {"aud": ["other"]}, {"sub": ""}):
        assert judged(**claims) == "ClaimRefused"


def test_a_bearer_token_comes_out_whole_also_the_longest() -> None:
    for token in ("X", "XabcX", "x" * MAX_BYTES):
        assert parse_authorization(f"Bearer {token}") == token
    assert parse_authorization("XBearer abc") is None
    with pytest.raises(MalformedToken):
        parse_authorization("Bearer " + "x" * (MAX_BYTES + 100))


def test_a_usual_token_without_iat_is_taken_where_no_policy_requires_it_and_bounded_from_now() -> None:
    policy = Policy(issuer="https://auth.example.com", audience="api", algorithms=("HS256",), required=("sub",))
    claims = {"iss": policy.issuer, "aud": "api", "sub": "ada", "exp": 4600}
    assert verify_token(issue_token(claims, KEY), KEY, policy, 1000).issued_at is None
    with pytest.raises(ClaimRefused):
        verify_token(issue_token(claims, KEY), KEY, policy, 990)
