"""The same mutated tokens, keys and key sets before jotgate and others: what ours alone takes is explained.

An unexplained one fails. What ours refuses and a peer takes is counted by reason and, in the long run, printed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeAlias

import pytest

from jotgate import JotgateError, Key, KeySet, verify_token
from tests.conftest import Need
from tests.fuzz.differences import RULES, explain
from tests.fuzz.fixed_keys import KEYS, KINDS
from tests.fuzz.mutation import CLAIMS, NOW, Mutator, key_texts, mutants, set_texts
from tests.fuzz.peers import Jose, Joserfc, JwCrypto, KeyVerdict, Peer, PyJwt, Reason, SetPeer
from tests.fuzz.targets import policy, signed_text

Json: TypeAlias = Any
SEED = 20_261_123
CLAIMS_TEXT = json.dumps(CLAIMS).encode()
KNOWN = {
    name: ("jwcrypto",) if name.startswith("ML-DSA") else ("PyJWT", "joserfc", "jose")  # who knows an algorithm
    for name in KEYS
}
PAIRS = pytest.mark.parametrize(
    ("peer", "algorithm"), [(peer, name) for name, peers in KNOWN.items() for peer in peers], indirect=["peer"]
)
# Two of each kind of signature: sets are about keys.
SET_PAIRS = pytest.mark.parametrize(
    ("peer", "algorithm"),
    [(peer, name) for peer in ("PyJWT", "joserfc", "jose") for name in ("ES256", "RS256", "PS256", "Ed25519")],
    indirect=["peer"],
)


@pytest.fixture
def jose(need: Need, node_modules: Path) -> Iterator[Jose]:
    peer = Jose(need("node"), node_modules)
    yield peer
    peer.close()


@pytest.fixture
def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Peer:
    if request.param == "jose":
        found: Peer = request.getfixturevalue("jose")
        return found
    if request.param == "jwcrypto":
        return JwCrypto(monkeypatch)
    return PyJwt(monkeypatch) if request.param == "PyJWT" else Joserfc()


def jwk_of(key: Key) -> dict[str, str]:
    return key.to_private_jwk() if key.symmetric else key.to_jwk()


def our_judgement(judge: Callable[[], object]) -> Reason:
    """Ours may refuse with its own errors only: another one ends the test."""
    try:
        judge()
    except JotgateError as error:
        return f"{type(error).__name__}: {error}"
    return None


class Tally:
    """Compares judgements; keeps what nobody has explained, and counts the rest."""

    def __init__(self, peer: str, kind: str) -> None:
        self.peer, self.kind = peer, kind
        self.both = 0
        self.explained: Counter[str] = Counter()
        self.stricter: Counter[str] = Counter()
        self.unexplained: list[tuple[str, Json]] = []

    def compare(self, ours: Reason, theirs: Reason, judged: bytes, case: Json) -> None:
        if ours is None and theirs is None:
            self.both += 1
        elif ours is None and theirs is not None:
            rule = explain(self.peer, self.kind, theirs, judged)
            if rule is None:
                self.unexplained.append((theirs, case))
            else:
                self.explained[rule] += 1
        elif ours is not None and theirs is None:
            self.stricter[re.sub(r"'[^']*'|column \d+|char \d+", "…", ours)] += 1

    def report(self, total: int) -> str:
        lines = [f"{self.peer}, {self.kind}: {total} cases, {self.both} taken by both"]
        lines += [f"  ours takes, peer refuses  {count:6} {rule}" for rule, count in self.explained.most_common()]
        lines += [f"  ours refuses, peer takes  {count:6} {reason}" for reason, count in self.stricter.most_common()]
        return "\n".join(lines)


def compare_tokens(peer: Peer, algorithm: str, seed: int, count: int) -> Tally:
    key = KEYS[algorithm]
    tally = Tally(peer.name, "token")
    made = mutants(Mutator(seed), count, {"alg": algorithm, "kid": key.kid, "typ": "at+jwt"}, CLAIMS, key.sign)
    theirs = peer.judge_tokens([mutant.text for mutant in made], algorithm, jwk_of(key))
    for mutant, verdict in zip(made, theirs, strict=True):
        ours = our_judgement(partial(verify_token, mutant.text, key, policy(algorithm), NOW))
        tally.compare(ours, verdict, mutant.header, mutant)
    return tally


def our_key_verdict(text: bytes, algorithm: str, token: str) -> KeyVerdict:
    try:
        key = Key.from_jwk(text, algorithm=algorithm)
    except JotgateError as error:
        return KeyVerdict(f"{type(error).__name__}: {error}", "not read")
    # A mutant may have another kid than the token names; the question is what its material verifies.
    again = Key.from_jwk(text, algorithm=algorithm, kid=KEYS[algorithm].kid)
    assert again.algorithm == key.algorithm
    return KeyVerdict(None, our_judgement(lambda: verify_token(token, KeySet([again]), policy(algorithm), NOW)))


def compare_keys(peer: Peer, algorithm: str, jwk: dict[str, str], seed: int, count: int) -> Tally:
    tally = Tally(peer.name, "key")
    key = KEYS[algorithm]
    header = f'{{"alg":"{algorithm}","kid":"{key.kid}","typ":"at+jwt"}}'.encode()
    token = signed_text(header, json.dumps(CLAIMS).encode(), key)
    texts = key_texts(Mutator(seed), count, jwk)
    private = "d" in jwk  # with a private key, peers sign only
    for text, theirs in zip(texts, peer.judge_keys(texts, algorithm, token), strict=True):
        ours = our_key_verdict(text, algorithm, token)
        tally.compare(ours.read, theirs.read, text, text)
        if ours.read is None and theirs.read is None and not private:
            tally.compare(ours.verified, theirs.verified, text, text)
    return tally


def compare_sets(peer: SetPeer, algorithm: str, seed: int, count: int) -> Tally:
    """Which sets let a token pass that the key of the set's that it names has signed."""
    key = KEYS[algorithm]
    token = signed_text(json.dumps({"alg": algorithm, "kid": key.kid, "typ": "at+jwt"}).encode(), CLAIMS_TEXT, key)
    # The key in question first, and again: it should be in most of the sets.
    names = (algorithm, algorithm, "ES256", "RS256", "PS256", "Ed25519", "ES384")
    tally = Tally(peer.name, "set")
    texts = set_texts(Mutator(seed), count, [jwk_of(KEYS[name]) for name in names], jwk_of(KEYS["HS256"]))
    for text, verdict in zip(texts, peer.judge_sets(texts, algorithm, token), strict=True):
        tally.compare(our_judgement(partial(verify_with_set, text, algorithm, token)), verdict, text, text)
    return tally


def verify_with_set(text: bytes, algorithm: str, token: str) -> None:
    verify_token(token, KeySet.from_jwks(text, algorithms=(algorithm,)), policy(algorithm), NOW)


def judge(tally: Tally, seed: int) -> None:
    assert not tally.unexplained, (
        f"seed {seed}: jotgate takes {len(tally.unexplained)} that {tally.peer} refuses and no rule explains: "
        f"{[(reason, case) for reason, case in tally.unexplained[:5]]!r}"
    )


@PAIRS
def test_no_mutated_token_is_taken_by_ours_alone_without_an_explanation(peer: Peer, algorithm: str) -> None:
    count = 600 if algorithm in KINDS else 150
    tally = compare_tokens(peer, algorithm, SEED, count)
    assert tally.both > count // 10, "the peer takes next to nothing: it is not set up as ours is"
    assert sum(tally.stricter.values()) > count // 30
    judge(tally, SEED)


@PAIRS
def test_no_mutated_key_is_taken_by_ours_alone_without_an_explanation(peer: Peer, algorithm: str) -> None:
    count = 300 if algorithm in KINDS else 80
    tally = compare_keys(peer, algorithm, jwk_of(KEYS[algorithm]), SEED, count)
    assert tally.both > count // 5, "the peer reads next to no key: it is not set up as ours is"
    judge(tally, SEED)
    if algorithm in ("ES256", "Ed25519"):
        judge(compare_keys(peer, algorithm, KEYS[algorithm].to_private_jwk(), SEED, 200), SEED)


@SET_PAIRS
def test_no_key_set_lets_a_token_pass_with_ours_alone_without_an_explanation(peer: SetPeer, algorithm: str) -> None:
    tally = compare_sets(peer, algorithm, SEED, 400)
    assert tally.both > 40, "the peer reads next to no set: it is not set up as ours is"
    assert sum(tally.stricter.values()) > 20
    judge(tally, SEED)


def test_every_rule_is_explained_in_the_table_and_every_row_is_a_rule() -> None:
    table = (Path(__file__).parent / "DIFFERENCES.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (\w+) \|", table, re.MULTILINE)
    assert sorted(rows) == sorted((rule.name, rule.peer, rule.kind) for rule in RULES)


@pytest.mark.parametrize(
    ("peer_name", "kind", "reason", "judged"),
    [
        ("joserfc", "token", "BadSignatureError: bad_signature", b"{}"),
        ("joserfc", "token", "UnsupportedHeaderError: Unsupported {'crit'}", b'{"alg":"ES256","crit":["x"]}'),
        ("joserfc", "token", "InvalidHeaderValueError: x: 'kid' in header must be a str", b'{"kid":5}'),
        ("joserfc", "token", "ExceededSizeError: Header size exceeds 512 bytes.", b"{}"),
        ("jose", "token", "ERR_JWT_EXPIRED: expired", b"{}"),
        ("PyJWT", "token", "UnsupportedHeaderError", b'{"v":1}'),
        ("joserfc", "set", "not read: KeyParameterError: x", json.dumps({"keys": [jwk_of(KEYS["ES256"])]}).encode()),
        ("joserfc", "set", "BadSignatureError: bad_signature", b'{"keys":[{}]}'),
        ("jose", "set", "not read: ERR_JWKS_INVALID: JSON Web Key Set malformed", b'{"keys":[{}]}'),
        ("jose", "set", "ERR_JWKS_NO_MATCHING_KEY: none", b'{"keys":[5]}'),
        ("jwcrypto", "key", "KeyError: \"Cannot set 'k' on 'AKP' key type\"", b'{"kty":"AKP"}'),
    ],
)
def test_rules_explain_no_more_than_they_claim(peer_name: str, kind: str, reason: str, judged: bytes) -> None:
    assert explain(peer_name, kind, reason, judged) is None


@pytest.mark.soak
@SET_PAIRS
def test_thousands_of_key_sets_before_every_peer(peer: SetPeer, algorithm: str) -> None:
    seed = SystemRandom().randrange(2**32)
    tally = compare_sets(peer, algorithm, seed, 5_000)
    print(f"seed {seed}, {algorithm}, {tally.report(5_000)}")  # noqa: T201 # pytest -rP shows it
    judge(tally, seed)


@pytest.mark.soak
@PAIRS
def test_tens_of_thousands_of_tokens_and_keys_before_every_peer(peer: Peer, algorithm: str) -> None:
    seed = SystemRandom().randrange(2**32)
    times = 1 if algorithm in KINDS else 4
    tokens = compare_tokens(peer, algorithm, seed, 10_000 // times)
    keys = compare_keys(peer, algorithm, jwk_of(KEYS[algorithm]), seed, 4_000 // times)
    # OpenSSL proves the primes of private RSA keys, which takes it a tenth of a second each.
    count = {"oct": 0, "RSA": 50}.get(KEYS[algorithm].to_private_jwk()["kty"], 2_000) // times
    private = compare_keys(peer, algorithm, KEYS[algorithm].to_private_jwk(), seed, count)
    totals: Sequence[tuple[Tally, int]] = ((tokens, 10_000 // times), (keys, 4_000 // times), (private, count))
    for tally, total in totals:
        print(f"seed {seed}, {algorithm}, {tally.report(total)}")  # noqa: T201 # pytest -rP shows it
    for tally, _ in totals:
        judge(tally, seed)
