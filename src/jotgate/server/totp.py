"""Codes of authenticator apps (TOTP, RFC 6238), in the form that every app takes: SHA-1, six digits, 30 seconds.

It knows no database, no clock and no randomness.
"""

import base64
import hmac
from typing import Final

from msgspec import Struct

STEP_S: Final = 30
_DRIFT: Final = 1
"""So many steps an app's clock, or its owner, may be late or early (RFC 6238 section 5.2)."""
SECRET_BYTES: Final = 20
"""As long as the hash (RFC 4226 section 4, R6)."""
DIGITS: Final = 6


class Enrolment(Struct, frozen=True):
    """What an app needs to make the codes of an account. ``qr_svg`` is ``uri`` as a picture."""

    secret: str
    uri: str
    qr_svg: str

    def __repr__(self) -> str:
        return "Enrolment()"


def make_secret(raw: bytes) -> str:
    """Return random bytes as apps take them: base32 (RFC 4648 section 6)."""
    return base64.b32encode(raw).decode()


def enrol(secret: str, *, account: str, service: str) -> Enrolment:
    """Return what shows an app the secret.

    Args:
        account: the name under which the app lists it.
        service: the name of what it is for.
    """
    import pyotp  # noqa: PLC0415  few requests need it, and every start would pay for it
    import segno  # noqa: PLC0415

    uri = pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=service)
    picture = segno.make(uri, error="m", micro=False)
    return Enrolment(secret, uri, picture.svg_inline(scale=4, light="#fff", dark="#000"))


def matching_step(secret: str, code: str, *, now: int, after: int) -> int | None:
    """Return the step whose code this is, if it is later than ``after``: each works once (RFC 6238 section 5.2)."""
    import pyotp  # noqa: PLC0415

    totp = pyotp.TOTP(secret)
    current = now // STEP_S
    found = None
    # All of them, whichever fits: how long it takes says nothing.
    for step in range(current - _DRIFT, current + _DRIFT + 1):
        fits = hmac.compare_digest(totp.generate_otp(step).encode(), code.encode())
        if fits and step > after and found is None:
            found = step
    return found
