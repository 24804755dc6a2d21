"""The error tree: codes are stable, sentences are for people."""

from __future__ import annotations

import jotgate
from jotgate import JotgateError, RequestRefused, SettingsError, TokenError

CODES = {
    "JotgateError": "jotgate_error",
    "TokenError": "token_refused",
    "MalformedToken": "malformed_token",
    "AlgorithmRefused": "algorithm_refused",
    "UnknownKey": "unknown_key",
    "BadSignature": "bad_signature",
    "TokenExpired": "token_expired",
    "TokenNotYetValid": "token_not_yet_valid",
    "TokenRevoked": "token_revoked",
    "ClaimRefused": "claim_refused",
    "KeyRefused": "key_refused",
    "KeySourceError": "key_source_unavailable",
    "RequestRefused": "request_refused",
    "SettingsError": "settings_refused",
}
TOKEN_ERRORS = list(CODES)[1:10]


def test_codes_are_stable() -> None:
    assert {name: getattr(jotgate, name).code for name in CODES} == CODES


def test_all_are_jotgate_errors_and_those_about_tokens_token_errors() -> None:
    for name in CODES:
        error = getattr(jotgate, name)
        assert issubclass(error, JotgateError)
        assert issubclass(error, TokenError) == (name in TOKEN_ERRORS)


def test_a_refused_request_is_a_clients_fault_unless_its_class_says_which() -> None:
    class BodyTooLarge(RequestRefused):
        code = "body_too_large"
        status = 413

    plain, own = RequestRefused("No."), BodyTooLarge("Too large.")
    assert (str(plain), plain.status, plain.code) == ("No.", 400, "request_refused")
    assert (str(own), own.status, own.code) == ("Too large.", 413, "body_too_large")


def test_settings_errors_list_every_fault() -> None:
    error = SettingsError(iter(["first", "second"]))
    assert error.faults == ("first", "second")
    assert str(error) == "first\nsecond"
