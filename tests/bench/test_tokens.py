"""What `bench.tokens` promises: everybody checks the same fresh tokens, nobody is measured who refuses a good one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from bench.tokens import (
    BARE,
    SIGN_JWS,
    Samples,
    TokensReport,
    fresh,
    measure,
    summarize,
    time_calls,
)
from bench.tokens_fixture import make_claims, make_keys, untimed
from bench.tokens_install import node_modules
from bench.tokens_node import NodePeers
from bench.tokens_sides import MAKERS, NotOffered, Side, bad_tokens, make_sides, unchecked

ROOT = Path(__file__).parent.parent.parent
FAST = ("HS256", "ES256", "Ed25519")


@pytest.mark.parametrize("algorithm", FAST)
@pytest.mark.parametrize("name", ["jotgate", "PyJWT", "joserfc"])
def test_those_that_the_targets_name_refuse_every_bad_token(name: str, algorithm: str) -> None:
    keys = make_keys(algorithm)
    sides, _ = make_sides(keys)
    side = next(side for side in sides if side.name == name)
    assert len(bad_tokens(keys, side.alg)) == 14
    assert unchecked(keys, side) == ()


def test_a_check_that_a_library_lacks_is_told() -> None:
    keys = make_keys("HS256")
    secret = jwt.PyJWK(dict(keys.jwk))
    lax = Side("lax", "HS256", lambda token: jwt.decode(token, secret, options={"verify_aud": False}), str)
    assert "aud" in unchecked(keys, lax)
    assert "signature" not in unchecked(keys, lax)


def test_a_library_that_refuses_good_tokens_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(token: str) -> None:
        raise ValueError(token)

    monkeypatch.setattr(
        "bench.tokens_sides.MAKERS", {**MAKERS, "broken": lambda _: Side("broken", "HS256", refuse, str)}
    )
    with pytest.raises(RuntimeError, match="broken"):
        make_sides(make_keys("HS256"))


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> Side:
        raise NotOffered("not installed")

    monkeypatch.setattr("bench.tokens_sides.MAKERS", {"gone": missing})
    assert make_sides(make_keys("HS256")) == ([], {"gone": "not installed"})


@pytest.mark.parametrize("algorithm", FAST)
def test_the_bare_primitive_really_checks(algorithm: str) -> None:
    keys = make_keys(algorithm)
    message, signature = keys.signed(make_claims())
    keys.check((message, signature))
    with pytest.raises(Exception):  # noqa: B017, PT011 # each primitive has an error of its own
        keys.check((message + b".", signature))


def test_every_token_is_new_and_says_what_the_issue_asks_for() -> None:
    keys = make_keys("HS256")
    one, another = (keys.token(make_claims(), alg="HS256") for _ in range(2))
    assert one.rpartition(".")[2] != another.rpartition(".")[2]
    decoded = jwt.decode_complete(one, options={"verify_signature": False})
    assert set(decoded["payload"]) == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "sid", "scope"}
    assert set(decoded["header"]) == {"alg", "kid", "typ"}
    raw = [one.encode()]
    assert fresh(raw) == fresh(raw) == [one]
    assert fresh(raw)[0] is not fresh(raw)[0]


def test_the_first_calls_of_a_batch_are_made_and_not_timed() -> None:
    seen: list[int] = []
    took = time_calls(seen.append, range(20), 6)
    assert seen == list(range(20))
    assert untimed(20) == 2
    assert len(took) == 3
    assert min(took) > 0


def test_a_call_that_was_disturbed_does_not_count() -> None:
    samples = Samples()
    samples.add("HS256 verify", "jotgate", [6.0, 6.1, 3000.0])
    assert samples.rounds == {("HS256 verify", "jotgate"): [6.1]}


def test_targets_compare_what_was_measured_in_the_same_run() -> None:
    samples = Samples()
    for _ in range(24):
        for who, took in (("jotgate", 6.0), (BARE, 2.0), ("PyJWT", 60.0), ("fast-jwt (Node)", 12.0)):
            samples.add("HS256 verify", who, [took])
        for what, ours, bare in (("ES256 verify", 66.0, 60.0), ("ML-DSA-44 verify", 103.0, 100.0)):
            samples.add(what, "jotgate", [ours])
            samples.add(what, BARE, [bare])
        samples.add("ES256 sign", SIGN_JWS, [43.0, 43.0, 43.0])
        samples.add("ES256 sign", BARE, [40.0, 40.0, 40.0])
        # Two draws, or four: what is compared are the signatures that took the fewest.
        samples.add("ML-DSA-44 sign", SIGN_JWS, [203.0, 403.0, 403.0])
        samples.add("ML-DSA-44 sign", BARE, [200.0, 200.0, 400.0])
        samples.add("cache hit", "Verifier with revocation check", [0.6])
    report = TokensReport("tokens", ())
    summarize(report, samples)
    targets = {target.name: (target.goal, round(target.measured, 3), target.met) for target in report.targets}
    assert targets == {
        "HS256 verify: jotgate as against bare primitive, times": (3.0, 3.0, True),
        "HS256 verify: jotgate as against PyJWT, times": (0.125, 0.1, True),
        "HS256 verify: jotgate as against fast-jwt (Node), times": (1.0, 0.5, True),
        "ES256 verify: jotgate over the bare primitive, µs": (5.0, 6.0, False),
        "ML-DSA-44 verify: jotgate over the bare primitive, µs": (5.0, 3.0, True),
        "ES256 sign: sign_jws over the bare primitive, µs": (4.0, 3.0, True),
        "ML-DSA-44 sign: sign_jws over the bare primitive, µs": (4.0, 3.0, True),
        "cache hit with revocation check, µs": (0.7, 0.6, True),
    }


def test_a_run_without_node_measures_jotgate_beside_the_primitive() -> None:
    report = TokensReport("tokens", ("jotgate",), others={"node": "missing"})
    measure(report, 1, None)
    rows = {row.name: row.value for row in report.rows}
    for algorithm in ("HS256", "RS256", "ES256", "Ed25519"):
        for who in ("jotgate", "PyJWT", "joserfc", BARE):
            assert rows[f"{algorithm} verify: {who}"] > 0
            assert rows[f"{algorithm} sign: {who}"] > 0
        assert rows[f"{algorithm} sign: {SIGN_JWS}"] > 0
    assert rows["cache hit: Verifier with revocation check"] > 0
    assert rows["lint apart: with five own claims"] > 0
    assert len(report.targets) >= 2 + 3 + 4 + 1


@pytest.mark.soak  # the libraries come with the benchmark, not with the tests
@pytest.mark.skipif(
    node_modules() is None or shutil.which("node") is None, reason="`make bench-tokens` has not installed Node's part"
)
@pytest.mark.parametrize("algorithm", FAST)
def test_node_libraries_check_issuer_audience_end_type_and_signature(algorithm: str) -> None:
    modules = node_modules()
    assert modules is not None
    keys = make_keys(algorithm)
    with NodePeers(modules) as node:
        offered = node.offer(keys)
        assert {"fast-jwt", "jose"} <= set(offered)
        for library in offered:
            assert not {"iss", "aud", "exp passed", "typ", "signature"} & set(node.unchecked(library, keys))
            tokens = [keys.token(make_claims(), alg=node.header_alg(library, algorithm)) for _ in range(3)]
            took = node.verify_us(library, algorithm, tokens, 1)
            assert len(took) == 2
            assert min(took) > 0
            assert len(node.sign_us(library, algorithm, [make_claims()] * 3, 2)) == 1
            with pytest.raises(RuntimeError, match=library):
                node.verify_us(library, algorithm, [*tokens, tokens[0][:-9] + "AAAAAAAAA"], 1)


@pytest.mark.soak
def test_the_whole_benchmark_runs_and_writes_its_figures(tmp_path: Path) -> None:
    written = tmp_path / "tokens.json"
    command = (sys.executable, "-m", "bench.tokens", "--rounds", "1", "--json", str(written))
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    figures = json.loads(written.read_text(encoding="utf-8"))
    assert list(figures) == ["benchmark", "at", "machine", "versions", "rows", "targets"]
    assert any(row["name"] == "HS256 verify: python-jose" for row in figures["rows"])
