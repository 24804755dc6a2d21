"""The same mutated tokens and keys before jotgate, PyJWT, joserfc and npm's jose: what ours alone takes is explained.

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
from tests.fuzz.fixed_keys import KEYS
from tests.fuzz.mutation import CLAIMS, NOW, Mutator, key_texts, mutants
from tests.fuzz.peers import Jose, Joserfc, KeyVerdict, Peer, PyJwt, Reason
from tests.fuzz.targets import policy, signed_text

Json: TypeAlias = Any
SEED = 20_261_123
ALGORITHM = pytest.mark.parametrize("algorithm", KEYS)


@pytest.fixture
def jose(need: Need, node_modules: Path) -> Iterator[Jose]:
    peer = Jose(need("node"), node_modules)
    yield peer
    peer.close()


@pytest.fixture(params=("PyJWT", "joserfc", "jose"))
def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Peer:
    if request.param == "jose":
        found: Peer = request.getfixturevalue("jose")
        return found
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


def judge(tally: Tally, seed: int) -> None:
    assert not tally.unexplained, (
        f"seed {seed}: jotgate takes {len(tally.unexplained)} that {tally.peer} refuses and no rule explains: "
        f"{[(reason, case) for reason, case in tally.unexplained[:5]]!r}"
    )


@ALGORITHM
def test_no_mutated_token_is_taken_by_ours_alone_without_an_explanation(peer: Peer, algorithm: str) -> None:
    tally = compare_tokens(peer, algorithm, SEED, 600)
    assert tally.both > 60, "the peer takes next to nothing: it is not set up as ours is"
    assert sum(tally.stricter.values()) > 20
    judge(tally, SEED)


@ALGORITHM
def test_no_mutated_key_is_taken_by_ours_alone_without_an_explanation(peer: Peer, algorithm: str) -> None:
    tally = compare_keys(peer, algorithm, jwk_of(KEYS[algorithm]), SEED, 300)
    assert tally.both > 60, "the peer reads next to no key: it is not set up as ours is"
    judge(tally, SEED)
    if algorithm in ("ES256", "Ed25519"):
        judge(compare_keys(peer, algorithm, KEYS[algorithm].to_private_jwk(), SEED, 200), SEED)


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
    ],
)
def test_rules_explain_no_more_than_they_claim(peer_name: str, kind: str, reason: str, judged: bytes) -> None:
    assert explain(peer_name, kind, reason, judged) is None


@pytest.mark.soak
@ALGORITHM
def test_tens_of_thousands_of_tokens_and_keys_before_every_peer(peer: Peer, algorithm: str) -> None:
    seed = SystemRandom().randrange(2**32)
    tokens = compare_tokens(peer, algorithm, seed, 10_000)
    keys = compare_keys(peer, algorithm, jwk_of(KEYS[algorithm]), seed, 4_000)
    # OpenSSL proves the primes of private RSA keys, which takes it a tenth of a second each.
    count = {"RS256": 50, "HS256": 0}.get(algorithm, 2_000)
    private = compare_keys(peer, algorithm, KEYS[algorithm].to_private_jwk(), seed, count)
    totals: Sequence[tuple[Tally, int]] = ((tokens, 10_000), (keys, 4_000), (private, count))
    for tally, total in totals:
        print(f"seed {seed}, {algorithm}, {tally.report(total)}")  # noqa: T201 # pytest -rP shows it
    for tally, _ in totals:
        judge(tally, seed)
