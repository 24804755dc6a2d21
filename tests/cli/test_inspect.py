"""`jotgate inspect`: shows everything that can be shown, tells everything that is wrong, and trusts nothing."""

import base64
import json
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate import Issuer, Key, generate_key
from jotgate.cli.inspecting import inspect
from tests.cli.conftest import Jotgate
from tests.conftest import RunningServer, jotgate_command, log_in, sign_up

NOW = 1_795_000_000
KEY = generate_key("ES256")
HEADER = {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
CLAIMS = {
    "iss": "https://auth.shop.example",
    "sub": "account-1",
    "aud": "shop",
    "client_id": "web",
    "scope": "orders:read",
    "jti": "token-1",
    "iat": NOW,
    "exp": NOW + 300,
}


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def token(header: object = HEADER, claims: object = CLAIMS, signature: bytes = bytes(64)) -> str:
    return f"{segment(header)}.{segment(claims)}.{segment(signature)}"


def but(members: dict[str, Any], **changes: object) -> dict[str, Any]:
    """The members with changes; None takes one out."""
    return {name: value for name, value in (members | changes).items() if value is not None}


def issued(key: Key = KEY, issuer: str = "https://auth.shop.example", **options: object) -> str:
    make = Issuer(issuer=issuer, keys=key, clock=lambda: int(time.time()))
    return make.issue("account-1", audience="shop", scopes=["orders:read"])


def problems(text: str, now: int = NOW) -> list[str]:
    return [f"{each.code}: {each.detail}" for each in inspect(text, now).problems]


def test_a_good_token_has_no_problems_and_is_shown_in_three_parts(jotgate: Jotgate) -> None:
    ran = jotgate("inspect", stdin=issued().encode())
    assert ran.status == 0
    titles = [line for line in ran.out.splitlines() if not line.startswith(" ")]
    assert titles == ["header", "payload", "signature", "nothing wrong found, as far as can be seen without a key"]
    assert f'kid  "{KEY.kid}"' in ran.out
    assert "UTC, in 5 min" in ran.out or "UTC, in 4 min 59 s" in ran.out
    assert "64 bytes, not checked" in ran.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (token(but(HEADER, alg="none"), signature=b""), "algorithm_refused: alg is none: the token is unsigned"),
        (token(but(HEADER, alg="nOnE")), "algorithm_refused: alg is nOnE: the token is unsigned"),
        (token(but(HEADER, alg="RS1")), "algorithm_refused: alg is none of those that jotgate verifies"),
        (token(but(HEADER, alg=None)), "algorithm_refused: the header names no algorithm"),
        (token(but(HEADER, alg=["ES256"])), "algorithm_refused: alg is not a text"),
        (token(but(HEADER, typ=None)), "claim_refused: the header has no typ"),
        (token(but(HEADER, typ="JWT")), "claim_refused: typ is not at+jwt"),
        (token(but(HEADER, typ=1)), "claim_refused: typ is not a text"),
        (token(but(HEADER, kid="k" * 257)), "malformed_token: kid is not a text of 1 to 256 characters"),
        (token(but(HEADER, crit=["x"])), "malformed_token: crit demands extensions"),
        (token(but(HEADER, b64=False)), "malformed_token: b64 asks for an unencoded payload"),
        (token(signature=b""), "bad_signature: the signature is empty"),
        (token(signature=bytes(70)), "bad_signature: the signature is 70 bytes long, ES256 makes one of 64"),
        (token(claims=but(CLAIMS, jti=None)), "claim_refused: an access token must have jti (RFC 9068)"),
        (token(claims={}), "claim_refused: an access token must have iss, exp, aud, sub, client_id, iat and jti"),
        (token(claims=but(CLAIMS, sub=7)), "claim_refused: sub is not a text"),
        (token(claims=but(CLAIMS, aud=[])), "claim_refused: aud is neither a name nor a list of names"),
        (token(claims=but(CLAIMS, aud=["a", 1])), "claim_refused: aud is neither a name nor a list of names"),
        (token(claims=but(CLAIMS, exp=NOW)), "token_expired: expired now"),
        (token(claims=but(CLAIMS, exp=NOW - 180)), "token_expired: expired 3 min ago"),
        (token(claims=but(CLAIMS, exp="soon")), "claim_refused: exp is not a time"),
        (token(claims=but(CLAIMS, exp=True)), "claim_refused: exp is not a time"),
        (token(claims=but(CLAIMS, exp=2**53)), "claim_refused: exp is not a time"),
        (token(claims=but(CLAIMS, nbf=NOW + 60)), "token_not_yet_valid: not valid before 2026-"),
        (token(claims=but(CLAIMS, iat=NOW + 60)), "token_not_yet_valid: issued in the future, in 1 min"),
        (token(claims=but(CLAIMS, exp=NOW + 86_400)), "claim_refused: lives for 1440 min"),
        ("", "malformed_token: there is no token"),
        ("hello", "malformed_token: a signed token has three parts joined by dots, this text has 1 part"),
        ("a.b.c.d", "malformed_token: a signed token has three parts joined by dots, this text has 4 parts"),
        (f"{segment(HEADER)}.{segment(CLAIMS)}", "malformed_token: a signed token has three parts"),
        (".".join("abcde"), "malformed_token: this is an encrypted token"),
        ("jgr_" + "A" * 80, "malformed_token: this is a jotgate refresh token"),
        ('{"payload": "e30"}', "malformed_token: this is a JWS in JSON form"),
        ("x." * 2 + "y" * 20_000, "malformed_token: the token is 20004 characters long"),
        (token() + "=", "malformed_token: the signature is not in its canonical base64url form"),
        (f"!!!.{segment(CLAIMS)}.AAAA", "malformed_token: the header is not base64url"),
        (token(claims=[1]), "malformed_token: the payload is refused (not_an_object)"),
        (token(claims=b"{"), "malformed_token: the payload is refused (invalid_json)"),
        (token(claims=bytes([255])), "malformed_token: the payload is refused (invalid_utf8)"),
        (
            token(claims=b'{"a":1,"a":2}'),
            "malformed_token: the payload is refused (duplicate_member)",
        ),
        (
            token(claims=b'{"a":' * 90 + b"1" + b"}" * 90),
            "malformed_token: the payload is refused (nesting_too_deep)",
        ),
    ],
)
def test_each_fault_is_told_in_a_sentence_with_its_code(text: str, said: str) -> None:
    assert any(each.startswith(said) for each in problems(text)), problems(text)


def test_all_faults_are_told_at_once() -> None:
    told = problems(token({"alg": "none", "crit": []}, {"exp": 1, "aud": 7}, b""))
    assert {each.partition(":")[0] for each in told} == {
        "algorithm_refused",
        "claim_refused",
        "malformed_token",
        "bad_signature",
        "token_expired",
    }


def test_what_can_be_read_of_a_broken_token_is_shown(jotgate: Jotgate) -> None:
    ran = jotgate("inspect", f"{segment(HEADER)}.{segment(b'no json here')}.!")
    assert ran.status == 1
    assert '"ES256"' in ran.out
    assert "no json here" in ran.out
    assert "the signature is not base64url" in ran.out


def test_a_key_inside_the_token_is_pointed_out_as_worthless() -> None:
    notes = [each.detail for each in inspect(token(but(HEADER, jwk={"kty": "EC"}, jku="https://x")), NOW).notes]
    assert notes == ["the token brings its own key (jwk, jku): no verifier may trust that"]


@pytest.mark.parametrize(
    "wrapped", ["Bearer {}", "Authorization: Bearer {}\r\n", '"{}"', "  {}\n\n", "authorization:bearer '{}'"]
)
def test_what_comes_along_when_a_token_is_copied_is_forgiven(wrapped: str) -> None:
    found = inspect(wrapped.format(token()), NOW)
    assert found.token == token()
    assert found.problems == ()


def test_a_token_broken_over_lines_is_put_together() -> None:
    text = token()
    assert inspect(text[:50] + "\r\n  " + text[50:], NOW).token == text


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | st.lists(st.binary(max_size=40)).map(
    lambda parts: ".".join(segment(part) for part in parts)
))  # fmt: skip
def test_any_text_at_all_gets_an_inspection(text: str) -> None:
    assert inspect(text, NOW).problems  # none of these is a token


@given(st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "auth_time"]), st.none() | st.booleans() | st.integers() |
    st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.lists(st.integers())))  # fmt: skip
def test_claims_of_any_type_get_an_inspection(claims: dict[str, Any]) -> None:
    assert inspect(token(claims=claims), NOW).problems


def test_escape_sequences_in_claims_do_not_reach_the_terminal(jotgate: Jotgate) -> None:
    evil = "\x1b]0;pwned\x07\x9b2J\u202e"
    text = token(but(HEADER, **{"alg": evil, evil: evil}), but(CLAIMS, **{"sub": evil, evil: [evil]}))
    for arguments in (["inspect", text], ["inspect", f"{segment(HEADER)}.{segment(evil.encode())}.AA"]):
        ran = jotgate(*arguments)
        assert ran.status == 1
        assert all(char.isprintable() or char == "\n" for char in ran.out + ran.err), ran.out
    assert jotgate("inspect", text, "--json").out.isascii()


def test_letters_that_the_locale_does_not_know_are_told_by_number() -> None:
    ran = subprocess.run(
        [*jotgate_command(), "inspect"],
        input=token(claims=but(CLAIMS, sub="Zo\u00eb")),
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    assert r'"Zo\xeb"' in ran.stdout


def test_json_says_the_same_for_programs(jotgate: Jotgate) -> None:
    ran = jotgate("inspect", "--json", stdin=token(claims=but(CLAIMS, exp=1)).encode())
    told = json.loads(ran.out)
    assert ran.status == 1
    assert told["header"] == HEADER
    assert told["payload"] == but(CLAIMS, exp=1)
    assert told["signature"] == {"bytes": 64, "checked": False, "good": None}
    assert told["times"]["exp"]["utc"] == "1970-01-01 00:00:01 UTC"
    assert "token_expired" in {each["code"] for each in told["problems"]}


def test_a_signature_is_checked_with_the_keys_of_a_file(jotgate: Jotgate, tmp_path: Path) -> None:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [KEY.to_jwk()]}))
    good = jotgate("inspect", "--jwks", str(jwks), stdin=issued().encode())
    assert (good.status, "64 bytes, good" in good.out) == (0, True)

    other = generate_key("ES256")
    jwks.write_text(json.dumps({"keys": [other.to_jwk() | {"kid": KEY.kid}]}))
    bad = jotgate("inspect", "--jwks", str(jwks), "--json", stdin=issued().encode())
    assert bad.status == 1
    assert json.loads(bad.out)["signature"] == {"bytes": 64, "checked": True, "good": False}
    assert [each["code"] for each in json.loads(bad.out)["problems"]] == ["bad_signature"]


def test_a_token_that_nobody_signed_is_not_good_whatever_the_keys(jotgate: Jotgate, tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [KEY.to_jwk()]}))
    unsigned = token(but(HEADER, alg="none"), signature=b"")
    ran = jotgate("inspect", "--jwks", str(tmp_path / "jwks.json"), "--json", stdin=unsigned.encode())
    assert json.loads(ran.out)["signature"]["good"] is False


def test_a_signature_is_checked_with_the_keys_of_a_running_server(
    jotgate: Jotgate, running_server: RunningServer
) -> None:
    with running_server.client() as client:
        sign_up(client, "inspected@shop.example")
        text = log_in(client, "inspected@shop.example")["access_token"]
    for source in (
        ["--issuer", running_server.url],
        ["--jwks", f"{running_server.url}/.well-known/jwks.json"],
    ):
        ran = jotgate("inspect", *source, "--ca-file", str(running_server.ca_file), stdin=text.encode())
        assert (ran.status, "64 bytes, good" in ran.out) == (0, True), ran.out + ran.err

    stranger = jotgate(
        "inspect", "--issuer", running_server.url, "--ca-file", str(running_server.ca_file), stdin=issued().encode()
    )
    assert stranger.status == 1
    assert "iss is not exactly the issuer that was asked for" in stranger.out


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--jwks", "/nowhere.json"], 2, "/nowhere.json cannot be read: No such file or directory"),
        (["--jwks", "http://localhost/jwks"], 2, "http://localhost/jwks is not a plain https URL"),
        (["--issuer", "https://127.0.0.1:1"], 1, "the keys cannot be fetched"),
        (["--jwks", "a", "--issuer", "b"], 2, "--jwks and --issuer both name keys"),
    ],
)
def test_keys_that_cannot_be_had_are_told_in_one_sentence(
    jotgate: Jotgate, options: list[str], status: int, sentence: str
) -> None:
    ran = jotgate("inspect", *options, stdin=token().encode())
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert sentence in ran.err


def test_nothing_of_the_token_is_logged(jotgate: Jotgate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    jotgate("inspect", token())
    jotgate("inspect", "not.a.token")
    assert caplog.records == []


def test_input_without_end_is_refused(jotgate: Jotgate) -> None:
    ran = jotgate("inspect", stdin=b"a" * 2_000_000)
    assert (ran.status, ran.out) == (2, "")
    assert "standard input holds more than 1048576 bytes" in ran.err


def test_the_help_warns_of_the_shells_history(jotgate: Jotgate) -> None:
    assert "history" in jotgate("inspect", "--help").out
