"""Whatever comes in, the token core returns or raises its own typed error, and takes nothing that was not signed.

The short runs have fixed seeds; `make soak` takes other seeds and far more of them, and atheris where it is installed.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate import Key, KeyRefused, KeySet, TokenError
from jotgate.core.claims import check_claims
from jotgate.core.encoding import parse_json_object
from tests.fuzz.fixed_keys import KEYS, KINDS
from tests.fuzz.mutation import CLAIMS, NOW, TOKEN_NAMES, Mutator, key_texts, mutants, segment, set_texts
from tests.fuzz.targets import KEY, TARGETS, FalseAccept, Own, check_jws, check_token, policy, signed_text

Json: TypeAlias = Any
SEED = 20_261_123
TARGET = pytest.mark.parametrize("target", TARGETS)
ALGORITHM = pytest.mark.parametrize("algorithm", KEYS)


def header_of(key: Key) -> dict[str, Json]:
    return {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}


def jwk_of(key: Key) -> dict[str, str]:
    return key.to_private_jwk() if key.symmetric else key.to_jwk()


def run_tokens(seed: int, count: int, key: Key) -> None:
    mutator = Mutator(seed)
    accepted = 0
    for mutant in mutants(mutator, count, header_of(key), CLAIMS, key.sign):
        now = NOW + mutator.random.choice((0, 0, 0, 299, 304, 305, 306, -5, -6))
        accepted += check_token(mutant.text, key, now)
        check_token(mutant.text.encode("utf-8", "replace"), key, now, Own)
        check_jws(mutant.text, key)
    # Both sides of the border are visited, so that the run says something about it.
    assert 0.1 * count < accepted < 0.6 * count


@ALGORITHM
def test_mutated_tokens_correctly_signed_or_not_are_refused_by_type_or_are_what_they_say(algorithm: str) -> None:
    run_tokens(SEED, 700 if algorithm in KINDS else 150, KEYS[algorithm])


def samples(seed: int, count: int) -> Iterable[tuple[str, bytes]]:
    """Inputs for every target, near its good ones."""
    mutator = Mutator(seed)
    token = signed_text(json.dumps(header_of(KEY)).encode(), json.dumps(CLAIMS).encode())
    pems = [
        key.to_pem().encode()
        for key in (KEYS["ES256"], KEYS["ES256"].public, KEYS["ES384"], KEYS["Ed25519"], KEYS["RS256"].public)
    ]
    secret = jwk_of(KEYS["HS256"])
    public = [jwk_of(key) for key in KEYS.values() if not key.symmetric]
    signatures = []
    for number, key in enumerate(KEYS.values()):
        tail = signed_text(json.dumps(header_of(key)).encode(), b"{}", key).rpartition(".")[2]
        signatures.append((bytes((number,)), urlsafe_b64decode(tail + "==")))
    for number in range(count):
        yield "jws", mutator.bytes_of(token.encode())
        yield "header", mutator.object_text(header_of(KEY), ("crit", "b64", "zip", "jwk"))
        for name in ("payload", "claims"):
            yield name, mutator.object_text({**CLAIMS, "seats": 2, "tags": ["a"], "limits": {"a": 1}}, TOKEN_NAMES)
        place, signature = mutator.random.choice(signatures)
        yield "signature", place + mutator.random.choice((signature, mutator.bytes_of(signature)))
        jwks = key_texts(mutator, 3, mutator.random.choice((*public, secret)))
        yield "jwk", jwks[0]
        yield "jwks", b'{"keys":[' + b",".join(jwks[: mutator.random.randrange(4)]) + b"]}"
        yield "jwks", set_texts(mutator, 1, public, secret)[0]
        yield "jwks", mutator.bytes_of(json.dumps({"keys": public[:5]}).encode())
        yield "pem", mutator.bytes_of(mutator.random.choice(pems))
        yield "bearer", mutator.bytes_of(b"Bearer " + token[:60].encode())
        if number % 20 == 0:  # OpenSSL takes its time with private RSA numbers
            private = KEYS[mutator.random.choice(KINDS)].to_private_jwk()
            yield "jwk", mutator.object_text(private, ("d", "p", "oth"))


def run_targets(seed: int, count: int) -> None:
    for name, data in samples(seed, count):
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"target {name}, seed {seed}, input {data!r}")
            raise


def test_every_target_stands_inputs_near_its_good_ones() -> None:
    run_targets(SEED, 400)


@TARGET
@given(data=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_every_target_stands_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
MEMBERS = st.sampled_from(["kty", "k", "crv", "x", "keys", "kid", "use", "alg"])
OBJECTS = st.recursive(
    LEAVES | st.sampled_from(["oct", "EC", "sig", "P-256"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner),
    max_leaves=10,
)


@given(OBJECTS)
def test_python_objects_as_keys_are_read_or_refused(value: Json) -> None:
    for read in (Key.from_jwk, KeySet.from_jwks):
        try:
            read(value)
        except KeyRefused:
            continue


SHRINKING = ("1e9", "1E9", "10e8", "1.0e9", "1e15", "1e0", "0e15", "-0", "-0.0", "1000000000.0", "9007199254740991")


def near_usual(mutator: Mutator, count: int) -> Iterable[bytes]:
    """Payloads to take in the short way of reading claims: it compares lengths, so lengths are made equal."""
    good = json.dumps(CLAIMS, separators=(",", ":")).encode()[:-1]
    for number in SHRINKING:
        for name in ("nbf", "auth_time"):
            yield from (good + f',"{name}":{number}{" " * room}}}'.encode() for room in range(16))
            yield from (good + f',"{name}":{number},"sub":"{"x" * room}"}}'.encode() for room in range(8))
            yield from (good + f',"{name}":{number},"{"x" * room}":1}}'.encode() for room in range(12))
    for raw in (
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        "\u2028".encode(),
        b"/",
        b"\\u0041",
        b"\\/",
    ):
        for member in (b"jti", b"other"):
            yield from (good + b',"' + member + b'":"' + raw + b'"' + b" " * room + b"}" for room in range(12))
    for _ in range(count):
        text = mutator.object_text(CLAIMS, TOKEN_NAMES)
        yield text
        try:
            room = len(json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False).encode()) - len(text)
        except (ValueError, RecursionError):
            continue
        if room > 0:
            yield text[:-1] + b" " * room + text[-1:]


def test_the_short_way_of_reading_claims_takes_nothing_that_the_long_way_refuses_or_reads_otherwise() -> None:
    demands = policy()
    taken = 0
    for payload in near_usual(Mutator(SEED), 3_000):
        usual = demands.read_usual(payload, NOW)
        if usual is not None:
            members = parse_json_object(payload)
            check_claims(members, demands, NOW)
            assert usual.to_dict() == members
            taken += 1
    assert taken > 300


def test_a_good_token_of_each_algorithm_is_accepted() -> None:
    for key in KEYS.values():
        text = signed_text(json.dumps(header_of(key)).encode(), json.dumps(CLAIMS).encode(), key)
        assert check_token(text, key)
        assert check_token(text.encode(), key, claims_type=Own)


def test_the_checks_find_what_must_not_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself is judged: each of these faults in a verifier would be found."""
    good = {**CLAIMS, "exp": NOW + 300}
    cases: list[tuple[Mapping[str, Json], bytes]] = [
        (header_of(KEY) | {"crit": ["x"]}, json.dumps(good).encode()),
        (header_of(KEY) | {"alg": "none"}, json.dumps(good).encode()),
        (header_of(KEY) | {"typ": "JWT"}, json.dumps(good).encode()),
        (header_of(KEY), json.dumps(good | {"iss": "https://evil.example"}).encode()),
        (header_of(KEY), json.dumps(good | {"aud": "xapix"}).encode()),
        (header_of(KEY), json.dumps(good | {"exp": NOW - 5}).encode()),
        (header_of(KEY), json.dumps(good | {"exp": NOW + 4000}).encode()),
        (header_of(KEY), json.dumps(good | {"nbf": NOW + 6}).encode()),
        (header_of(KEY), json.dumps(good | {"iat": True}).encode()),
        (header_of(KEY), json.dumps(good).encode()[:-1] + b',"exp":1}'),
    ]
    for header, payload in cases:
        text = signed_text(json.dumps(header).encode(), payload)
        with pytest.raises(TokenError):
            verify_as_target_does(text)
        # A verifier that takes everything:
        monkeypatch.setattr("tests.fuzz.targets.verify_token", lambda *_, p=payload: Everything(p))
        monkeypatch.setattr("tests.fuzz.targets.verify_jws", lambda *_, h=header, p=payload: Everything(p, h))
        with pytest.raises(FalseAccept):
            check_token(text, KEY)
        monkeypatch.undo()


@pytest.mark.parametrize("algorithm", KEYS)
def test_the_check_of_signatures_finds_one_that_must_not_be_accepted(
    monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    key = KEYS[algorithm]
    header = header_of(key)
    good = signed_text(json.dumps(header).encode(), b"{}", key)
    monkeypatch.setattr("tests.fuzz.targets.verify_jws", lambda *_: Everything(b"{}", header))
    assert check_jws(good, key)
    signed, _, signature = good.rpartition(".")
    other = segment(key.sign(b"another text"))
    for wrong in (other, "A" + signature[1:] if signature[0] != "A" else "B" + signature[1:], signature[:-4], ""):
        with pytest.raises(FalseAccept):
            check_jws(f"{signed}.{wrong}", key)


def verify_as_target_does(text: str) -> None:
    from jotgate import verify_token
    from tests.fuzz.targets import policy

    verify_token(text, KEY, policy(), NOW)


class Everything:
    """What a verifier without any check would give."""

    def __init__(self, payload: bytes, header: Mapping[str, Json] | None = None) -> None:
        self.payload = payload
        self.header = header

    def to_dict(self) -> Json:
        return json.loads(self.payload)


def test_a_signature_of_another_key_text_or_place_is_refused() -> None:
    for key in KEYS.values():
        texts = [
            signed_text(json.dumps(header_of(key)).encode(), json.dumps({**CLAIMS, "jti": name}).encode(), key)
            for name in ("first", "second")
        ]
        (head, body, tail), (_, other_body, other_tail) = (text.split(".") for text in texts)
        for foreign in (f"{head}.{body}.{other_tail}", f"{head}.{other_body}.{tail}"):
            assert not check_token(foreign, key)
        for other in KEYS.values():
            if other is not key:
                assert not check_token(f"{head}.{body}.{segment(other.sign(f'{head}.{body}'.encode()))}", key)
                assert not check_token(texts[0], other)


# The long runs


@pytest.mark.soak
@ALGORITHM
def test_tens_of_thousands_of_mutated_tokens(algorithm: str) -> None:
    seed = SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 # shown when it fails
    run_tokens(seed, 20_000 if algorithm in KINDS else 5_000, KEYS[algorithm])


@pytest.mark.soak
def test_tens_of_thousands_of_inputs_for_every_target() -> None:
    run_targets(SystemRandom().randrange(2**32), 10_000)


@pytest.mark.soak
@TARGET
def test_atheris_finds_nothing(target: str, tmp_path: Path) -> None:
    """Coverage-guided, 60 seconds for each target; `python -m tests.fuzz.with_atheris TARGET` runs for longer."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it has wheels for Linux on x86_64 only")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, (name, data) in enumerate(samples(SEED, 30)):
        if name == target:
            (corpus / str(number)).write_bytes(data)
    answer = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.with_atheris", target, str(corpus), "-max_total_time=60", "-max_len=2000"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    for line in answer.stderr.splitlines():
        if "DONE" in line or line.startswith("Done "):
            print(f"{target}: {line.strip()}")  # noqa: T201 # pytest -rP shows it
