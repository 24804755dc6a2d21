"""What may become of second factors: recovery codes, challenges that were answered, how many passkeys there may be."""

import hashlib
from typing import Final

from msgspec.structs import replace

from jotgate.core.errors import RequestRefused
from jotgate.server.records import NO_FACTORS, Factors, Passkey
from jotgate.server.refusals import Busy

RECOVERY_CODES: Final = 10
RECOVERY_CODE_BYTES: Final = 10
"""80 random bits: nobody tries them, not even with a copy of the database."""
MAX_PASSKEYS: Final = 16
MAX_NAME_CHARS: Final = 64
PENDING_LIFE_S: Final = 900
"""So long an authenticator app's secret waits for the first code."""
_MAX_SPENT: Final = 64
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no letter looks like a digit
_MEANT: Final = str.maketrans({"O": "0", "I": "1", "L": "1"})
_GROUP: Final = 4
_BITS: Final = 5


class TooManyPasskeys(RequestRefused):
    """The account has as many passkeys as there may be."""

    code = "too_many_passkeys"
    status = 409


class PasskeyKnown(RequestRefused):
    """This passkey is registered already."""

    code = "passkey_known"
    status = 409


class NameRefused(RequestRefused):
    """A passkey's name is empty, too long, or not printable."""

    code = "invalid_name"
    status = 422


def recovery_code(raw: bytes) -> str:
    """Return random bytes as a code to write down: ``XXXX-XXXX-XXXX-XXXX``."""
    number = int.from_bytes(raw)
    length = len(raw) * 8 // _BITS
    letters = "".join(_ALPHABET[number >> _BITS * n & 0x1F] for n in reversed(range(length)))
    return "-".join(letters[n : n + _GROUP] for n in range(0, length, _GROUP))


def recovery_digest(account_id: str, typed: str) -> bytes:
    """Return what is kept of a code, however somebody types it."""
    plain = "".join(typed.upper().split()).replace("-", "").translate(_MEANT)
    return hashlib.sha256(f"{account_id} {plain}".encode("utf-8", "surrogatepass")).digest()


def is_app_code(typed: str) -> bool:
    """Whether this is a code of an authenticator app, and no recovery code."""
    plain = "".join(typed.split())
    return len(plain) == 6 and plain.isascii() and plain.isdigit()


def passkey_name(typed: str) -> str:
    """Return the name of a passkey.

    Raises:
        NameRefused: it cannot be one.
    """
    name = typed.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise NameRefused(f"The name of a passkey has 1 to {MAX_NAME_CHARS} printable characters.")
    return name


def with_passkey(factors: Factors, new: Passkey) -> Factors:
    """Return the factors with one more passkey.

    Raises:
        PasskeyKnown: it is among them.
        TooManyPasskeys: there are enough.
    """
    if any(each.id == new.id for each in factors.passkeys):
        raise PasskeyKnown("This passkey is registered already.")
    if len(factors.passkeys) >= MAX_PASSKEYS:
        raise TooManyPasskeys(f"An account has at most {MAX_PASSKEYS} passkeys: remove one first.")
    return replace(factors, passkeys=(*factors.passkeys, new))


def without_passkey(factors: Factors, passkey_id: bytes) -> Factors | None:
    """Return the factors without a passkey; None where it is not among them."""
    left = tuple(each for each in factors.passkeys if each.id != passkey_id)
    return None if len(left) == len(factors.passkeys) else tidy(replace(factors, passkeys=left))


def tidy(factors: Factors) -> Factors:
    """Return the factors without recovery codes where there is nothing to recover from any more."""
    return factors if factors.asked_for else replace(NO_FACTORS, pending=factors.pending, spent=factors.spent)


def without_later(factors: Factors, version: int) -> Factors:
    """Return the factors that were there before the account got a credential version; none that wait are left."""
    totp = factors.totp if factors.totp is not None and factors.totp.version < version else None
    passkeys = tuple(each for each in factors.passkeys if each.version < version)
    recovery = factors.recovery if factors.recovery_version < version else ()
    return tidy(replace(factors, totp=totp, passkeys=passkeys, recovery=recovery, pending=None))


def spend(factors: Factors, challenge: bytes, *, expires_at: int, now: int) -> Factors | None:
    """Note that a challenge was answered; None where it had been already.

    Raises:
        Busy: there is no room to note it: nothing is believed then.
    """
    mark = hashlib.sha256(challenge).digest()[:16]
    alive = tuple(each for each in factors.spent if each[1] > now)
    if any(mark == each[0] for each in alive):
        return None
    if len(alive) >= _MAX_SPENT:
        raise Busy("This account has used its passkeys very often of late: wait a minute.", retry_after_s=60)
    return replace(factors, spent=(*alive, (mark, expires_at)))
