"""What signing and verifying a token costs: jotgate, its peers and the bare primitive, turn by turn in one run.

``python -m bench.tokens [--json FILE] [--rounds N]``. All runs on one core. Each round signs new tokens and gives the
same ones to every library in another order, each as a text that nobody has seen before. A batch begins with some
calls that are not timed: they bring code back into the processor's caches, for everyone alike. Of the others the
median counts, so that a call from which the core was taken away does not. The interpreter's
garbage collector works as it does by default.

"Verify" is verify-with-claims: signature, issuer, audience, times, required claims and type. The "bare primitive" is
the one call that nobody can do without, on bytes that are ready (`bench.tokens_fixture.Keys`); for ES256 it takes DER.
"""

import datetime as dt
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

import jotgate
from bench import tokens_install
from bench.report import Report, Row, Target, pinned, publish, run_options, usable_cores
from bench.tokens_fixture import ALGORITHMS, AUDIENCE, ISSUER, TYP, Claims, as_json, make_claims, make_keys, untimed
from bench.tokens_node import NodePeers
from bench.tokens_sides import Side, make_sides, unchecked
from jotgate.core.lint import LintRules, lint_claims
from jotgate.core.revocations import Revocations
from jotgate.verifier.snapshot import Snapshot

PACKAGES = ("jotgate", "cryptography", "msgspec", "pyjwt", "joserfc", "authlib", "python-jose", "jwcrypto")
BARE = "bare primitive"
SIGN_JWS = "jotgate sign_jws"

HS256_VERIFY_TIMES_BARE = 3.0
HS256_VERIFY_SHARE_OF_PYJWT = 1 / 8
HS256_VERIFY_SHARE_OF_FAST_JWT = 1.0
VERIFY_OVER_BARE_US = 5.0
SIGN_JWS_OVER_BARE_US = 4.0
CACHE_HIT_US = 0.7

_VERIFY_BATCH = {"HS256": 100}
_SIGN_BATCH = {"HS256": 100, "RS256": 8}
_BATCH = 12
_LINT_BATCH = 100
_HIT_BATCH = 240
# Where calls are so short that reading the clock each time would show, some are timed together.
_TOGETHER = {"HS256": 10}
_LINTS_TOGETHER, _HITS_TOGETHER = 10, 24
_REVOKED_SESSIONS = 1000
_WARM_UP = 0.2  # of the rounds, besides: Node compiles
# "Over the primitive" is a small difference of two large times. It is taken of single calls, of which only few are
# disturbed: between the medians of a part of the run, for each of so many parts.
_PARTS = 12
# ML-DSA signs by drawing until a signature comes out, so that times are multiples of a draw's, and their median says
# little. The fastest tenth needed one draw only, which is what can be compared.
_MIDDLE, _FASTEST_TENTH = 50, 10

_OWN_CLAIMS: Claims = {
    "tenant_id": "t_8c1f5b2e",
    "roles": ["buyer", "approver"],
    "plan": "business-2026",
    "locale": "de-AT",
    "limits": {"orders_per_day": 200, "currency": "EUR"},
}

Item = TypeVar("Item")


@dataclass(slots=True)
class TokensReport(Report):
    """A report that also knows versions of what is no Python distribution, and who does less than the others."""

    others: dict[str, str] = field(default_factory=dict)
    absent: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The algorithms for which a library takes no part, by its name and the reason."""
    unchecked: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """The algorithms with which a library does not refuse what is bad, by its name and what that is."""

    def notes(self) -> list[str]:
        """Return what a reader must know to judge the rows."""
        return [
            *(f"{name} takes no part ({reason}): {', '.join(of)}" for (name, reason), of in self.absent.items()),
            *(f"{name} does not refuse {what}: {', '.join(of)}" for (name, what), of in self.unchecked.items()),
        ]

    def to_dict(self, now: dt.datetime) -> dict[str, Any]:
        """Return the JSON shape that every benchmark has."""
        written = Report.to_dict(self, now)
        written["versions"] |= self.others
        return written


class Samples:
    """Microseconds for one operation, by what was done and by whom."""

    def __init__(self) -> None:
        self.rounds: dict[tuple[str, str], list[float]] = {}
        """The median of each round's batch."""
        self._calls: dict[tuple[str, str], list[float]] = {}
        """All that was timed, in order."""

    def add(self, what: str, who: str, took: Sequence[float]) -> None:
        """Note what was timed in one round."""
        self.rounds.setdefault((what, who), []).append(statistics.median(took))
        self._calls.setdefault((what, who), []).extend(took)

    def ratios(self, what: str, who: str, other: str) -> list[float] | None:
        """How many times the other's time one took, by rounds; None where one took no part."""
        ours, theirs = self.rounds.get((what, who)), self.rounds.get((what, other))
        if ours is None or theirs is None:
            return None
        return [one / another for one, another in zip(ours, theirs, strict=True)]

    def differences(self, what: str, who: str, other: str, percentile: int) -> list[float] | None:
        """By how much one call took longer than the other's, by parts of the run; None where one took no part."""
        ours, theirs = self._calls.get((what, who)), self._calls.get((what, other))
        if ours is None or theirs is None:
            return None
        pairs = zip(_parts(ours), _parts(theirs), strict=True)
        return [_percentile(one, percentile) - _percentile(another, percentile) for one, another in pairs]

    def clear(self) -> None:
        """Forget the rounds so far."""
        self.rounds.clear()
        self._calls.clear()


def _parts(calls: Sequence[float]) -> list[Sequence[float]]:
    length = max(len(calls) // _PARTS, 1)
    return [calls[start : start + length] for start in range(0, len(calls) - length + 1, length)]


def _percentile(calls: Sequence[float], percentile: int) -> float:
    return sorted(calls)[(len(calls) - 1) * percentile // 100]


def time_calls(work: Callable[[Item], object], items: Sequence[Item], together: int) -> list[float]:
    """Do the work for each item; microseconds for one, of so many timed together each, save the untimed first."""
    clock = time.perf_counter_ns
    first = untimed(len(items))
    for item in items[:first]:
        work(item)
    took: list[float] = []
    for start in range(first, len(items), together):
        few = items[start : start + together]
        began = clock()
        for item in few:
            work(item)
        took.append((clock() - began) / len(few) / 1000)
    return took


def fresh(texts: Sequence[bytes]) -> list[str]:
    """Return new str objects, such as a server gets from the network: no hash of them is known yet."""
    return [text.decode("ascii") for text in texts]


@dataclass(slots=True)
class Round:
    """The claims of one round, and its tokens by the name that their header gives the algorithm."""

    claims: Sequence[Claims]
    tokens: Mapping[str, Sequence[bytes]]


Turn = Callable[[Round], tuple[str, str, list[float]]]
"""One library's batch within a round: what was done, by whom, and the microseconds it took."""


class AlgorithmBench:
    """One algorithm: who takes part, and their turns."""

    def __init__(self, algorithm: str, node: NodePeers | None, report: TokensReport) -> None:
        """Raises UnsupportedAlgorithm where not even the primitive is there."""
        self._algorithm = algorithm
        self._together = _TOGETHER.get(algorithm, 1)
        self._keys = make_keys(algorithm)
        sides, absent = make_sides(self._keys)
        gaps = {side.name: unchecked(self._keys, side) for side in sides}
        self._header_algs = {side.alg for side in sides}
        self._verifying: list[Turn] = [self._verify_bare, *(partial(self._verify, side) for side in sides)]
        self._signing: list[Turn] = [self._sign_bare, *(partial(self._sign, side) for side in sides)]
        if "jotgate" not in absent:
            self._signing.append(partial(self._sign_jws, jotgate.Key.from_jwk(self._keys.jwk)))
        for library in () if node is None else node.libraries:
            if node is None or library not in node.offer(self._keys):
                absent[library] = "lacks the algorithm"
                continue
            self._header_algs.add(node.header_alg(library, algorithm))
            self._verifying.append(partial(self._verify_on_node, node, library))
            self._signing.append(partial(self._sign_on_node, node, library))
            gaps[library] = node.unchecked(library, self._keys)
        for name, reason in absent.items():
            report.absent.setdefault((name, reason), []).append(algorithm)
        for name, gap in gaps.items():
            if gap:
                report.unchecked.setdefault((name, ", ".join(gap)), []).append(algorithm)

    def run(self, samples: Samples, chance: random.Random) -> None:
        """Run one round of verifying and one of signing, in a new order."""
        claims = [make_claims() for _ in range(_VERIFY_BATCH.get(self._algorithm, _BATCH))]
        tokens = {
            alg: [self._keys.token(each, alg=alg).encode("ascii") for each in claims] for alg in self._header_algs
        }
        for turn in chance.sample(self._verifying, len(self._verifying)):
            samples.add(*turn(Round(claims, tokens)))
        claims = [make_claims() for _ in range(_SIGN_BATCH.get(self._algorithm, _BATCH))]
        for turn in chance.sample(self._signing, len(self._signing)):
            samples.add(*turn(Round(claims, {})))

    def _verify_bare(self, this: Round) -> tuple[str, str, list[float]]:
        signed = [self._keys.signed(claims) for claims in this.claims]
        return self._verified, BARE, self._timed(self._keys.check, signed)

    def _verify(self, side: Side, this: Round) -> tuple[str, str, list[float]]:
        return self._verified, side.name, self._timed(side.verify, fresh(this.tokens[side.alg]))

    def _verify_on_node(self, node: NodePeers, library: str, this: Round) -> tuple[str, str, list[float]]:
        tokens = fresh(this.tokens[node.header_alg(library, self._algorithm)])
        return self._verified, on_node(library), node.verify_us(library, self._algorithm, tokens, self._together)

    def _sign_bare(self, this: Round) -> tuple[str, str, list[float]]:
        return self._signed, BARE, self._timed(self._keys.sign, [self._keys.message(each) for each in this.claims])

    def _sign(self, side: Side, this: Round) -> tuple[str, str, list[float]]:
        return self._signed, side.name, self._timed(side.sign, [dict(claims) for claims in this.claims])

    def _sign_on_node(self, node: NodePeers, library: str, this: Round) -> tuple[str, str, list[float]]:
        return self._signed, on_node(library), node.sign_us(library, self._algorithm, this.claims, self._together)

    def _sign_jws(self, key: jotgate.Key, this: Round) -> tuple[str, str, list[float]]:
        sign_jws = jotgate.sign_jws
        payloads = [as_json(claims) for claims in this.claims]
        return self._signed, SIGN_JWS, self._timed(partial(sign_jws, key=key, typ=TYP), payloads)

    def _timed(self, work: Callable[[Item], object], items: Sequence[Item]) -> list[float]:
        return time_calls(work, items, self._together)

    @property
    def _verified(self) -> str:
        return f"{self._algorithm} verify"

    @property
    def _signed(self) -> str:
        return f"{self._algorithm} sign"


class _KeysInProcess:
    """A key source with sessions that have been revoked."""

    def __init__(self, keys: jotgate.KeySet) -> None:
        until = int(time.time()) + 3600
        revoked = {make_claims()["sid"]: until for _ in range(_REVOKED_SESSIONS)}
        self._snapshot = Snapshot(keys=keys, revocations=Revocations(revoked))

    def snapshot(self) -> Snapshot:
        """Give the same at every moment."""
        return self._snapshot


class VerifierBench:
    """`Verifier.verify` with ES256 and a thousand revoked sessions: without a cache, on misses, and on hits."""

    def __init__(self) -> None:
        self._keys = make_keys("ES256")
        source = _KeysInProcess(jotgate.KeySet([jotgate.Key.from_jwk(self._keys.public_jwk)]))
        settings: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "source": source}
        self._without = jotgate.Verifier(**settings, cache_entries=0)
        self._with = jotgate.Verifier(**settings)

    def run(self, samples: Samples, chance: random.Random) -> None:
        """Run one round: the same new tokens for all, then those once more that were remembered."""
        few = [self._keys.token(make_claims(), alg="ES256").encode("ascii") for _ in range(_BATCH)]
        turns = [("Verifier without cache", self._without), ("Verifier, cache miss", self._with)]
        for who, verifier in chance.sample(turns, len(turns)):
            samples.add("ES256 verify", who, time_calls(verifier.verify, fresh(few), 1))
        hits = self._hits()
        again = fresh(few * (_HIT_BATCH // len(few)))
        took = time_calls(self._with.verify, again, _HITS_TOGETHER)
        samples.add("cache hit", "Verifier with revocation check", took)
        if self._hits() - hits != len(again):
            raise RuntimeError("what should be measured as cache hits were none")

    def _hits(self) -> int:
        status = self._with.status().cache
        return 0 if status is None else status.hits


def run_lint(samples: Samples) -> None:
    """Lint alone: claims that are all registered, as in the tokens measured here, and some with five of one's own."""
    rules = LintRules()
    kinds: dict[str, Claims] = {"registered claims": {}, "with five own claims": _OWN_CLAIMS}
    for who, own in kinds.items():
        claims = [make_claims(**own) for _ in range(_LINT_BATCH)]
        lint = partial(lint_claims, payload_bytes=len(as_json(claims[0])), rules=rules)
        samples.add("lint apart", who, time_calls(lint, claims, _LINTS_TOGETHER))


def on_node(library: str) -> str:
    """Return the name under which a library of Node is listed."""
    return f"{library} (Node)"


def measure(report: TokensReport, rounds: int, node: NodePeers | None, *, seed: int = 2026) -> None:
    """Run all rounds and fill the report."""
    chance = random.Random(seed)  # noqa: S311 # an order, no secret
    algorithms: list[AlgorithmBench] = []
    for name in ALGORITHMS:
        try:
            algorithms.append(AlgorithmBench(name, node, report))
        except UnsupportedAlgorithm as reason:
            report.absent[BARE, str(reason)] = [name]
    verifier = VerifierBench()
    samples = Samples()
    warm_up = max(1, round(rounds * _WARM_UP))
    for number in range(warm_up + rounds):
        if number == warm_up:
            samples.clear()
        for algorithm in algorithms:
            algorithm.run(samples, chance)
        verifier.run(samples, chance)
        run_lint(samples)
    summarize(report, samples)


def summarize(report: TokensReport, samples: Samples) -> None:
    """Turn samples into rows and targets."""
    order = {what: position for position, what in enumerate(dict.fromkeys(what for what, _ in samples.rounds))}
    listed = sorted(samples.rounds.items(), key=lambda item: (order[item[0][0]], statistics.median(item[1])))
    report.rows += [Row.of(f"{what}: {who}", took, "µs") for (what, who), took in listed]

    def compare(name: str, goal: float, compared: list[float] | None, unit: str) -> None:
        if compared is not None:
            report.rows.append(Row.of(name, compared, unit))
            report.targets.append(Target(f"{name}, {unit}", goal, statistics.median(compared)))

    hs256 = "HS256 verify"
    for other, goal in (
        (BARE, HS256_VERIFY_TIMES_BARE),
        ("PyJWT", HS256_VERIFY_SHARE_OF_PYJWT),
        (on_node("fast-jwt"), HS256_VERIFY_SHARE_OF_FAST_JWT),
    ):
        compare(f"{hs256}: jotgate as against {other}", goal, samples.ratios(hs256, "jotgate", other), "times")
    for algorithm in ALGORITHMS[1:]:
        what = f"{algorithm} verify"
        over = samples.differences(what, "jotgate", BARE, _MIDDLE)
        compare(f"{what}: jotgate over the {BARE}", VERIFY_OVER_BARE_US, over, "µs")
    for algorithm in ALGORITHMS:
        what = f"{algorithm} sign"
        percentile = _FASTEST_TENTH if algorithm.startswith("ML-DSA") else _MIDDLE
        over = samples.differences(what, SIGN_JWS, BARE, percentile)
        compare(f"{what}: sign_jws over the {BARE}", SIGN_JWS_OVER_BARE_US, over, "µs")
    hits = samples.rounds["cache hit", "Verifier with revocation check"]
    report.targets.append(Target("cache hit with revocation check, µs", CACHE_HIT_US, statistics.median(hits)))


def main() -> None:
    """Measure, and print."""
    options = run_options("What signing and verifying a token costs, beside other libraries.", rounds=100)
    tokens_install.install_peers()
    tokens_install.add_to_path()
    report = TokensReport("tokens", PACKAGES)
    with pinned(usable_cores()[-1:]), ExitStack() as stack:
        modules = tokens_install.node_modules()
        node = None if modules is None else stack.enter_context(NodePeers(modules))
        if node is None:
            report.absent["Node", "node or npm is not installed"] = list(ALGORITHMS)
        else:
            report.others |= node.versions
        measure(report, options.rounds, node)
    publish(report, options.json)
    print("", *report.notes(), sep="\n")


if __name__ == "__main__":
    main()
