"""Codes of authenticator apps, by RFC 6238's own vectors and by another implementation's reader of the QR code."""

import base64

import pytest

from jotgate.server.totp import enrol, make_secret, matching_step

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("now", "code"),
    # RFC 6238 appendix B, SHA-1; six digits are the last six of its eight.
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
    ],
)
def test_the_vectors_of_the_rfc(now: int, code: str) -> None:
    assert matching_step(RFC_SECRET, code, now=now, after=0) == now // 30
    assert matching_step(RFC_SECRET, code, now=now, after=now // 30) is None
    assert matching_step(RFC_SECRET, code, now=now + 90, after=0) is None


def test_a_secret_is_as_long_as_the_hash() -> None:
    assert base64.b32decode(make_secret(bytes(range(20)))) == bytes(range(20))


@pytest.mark.parametrize("name", ["Jörg & Söhne", 'a"<script>', "x:y"])
def test_the_picture_holds_no_markup_of_anybodys_name(name: str) -> None:
    made = enrol(RFC_SECRET, account="o'ne+two@example.com", service=name)
    assert made.qr_svg.startswith("<svg")
    assert "<script" not in made.qr_svg
    assert made.uri.startswith("otpauth://totp/")
    assert made.uri.isascii()
    assert RFC_SECRET not in repr(made)
