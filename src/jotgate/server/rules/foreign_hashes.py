"""Password hashes of other programs, for accounts that came from them: which forms are known, and what they may cost.

Pure: it hashes nothing. Kept is the text as the other program wrote it, but for Django's names before hashes that speak
for themselves, and for better-auth's, which has no name and is given one.
"""

import base64
import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from jotgate.core.errors import RequestRefused
from jotgate.server.rules.hashing import MAX_LANES, MAX_MEMORY_KIB, is_checkable

MAX_BCRYPT_COST: Final = 14
MAX_SCRYPT_WORK: Final = 2**20  # N · r · p: four times what Werkzeug and better-auth ask for
MAX_SCRYPT_LANES: Final = 16
MAX_PBKDF2_ITERATIONS: Final = 2_000_000

_KEY_BYTES: Final = {"sha1": 20, "sha256": 32, "sha512": 64}
_SCRYPT_KEY_BYTES: Final = 64

# What Django writes before hashes that speak for themselves, and how these begin.
_DJANGO: Final = (("bcrypt$", "$2"), ("argon2", "$argon2"))
_SALT: Final = r"(?P<salt>[!-#%-~]{1,128})"
# Sixteen bytes of salt and twenty-three of key leave bits over, and these are zero.
_BCRYPT: Final = r"(?P<text>\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26])"


class UnknownHash(RequestRefused):
    """A password hash of a form that is not known here, or one that would cost too much to check."""

    code = "unknown_password_hash"
    status = 422


class Bcrypt(Struct, frozen=True):
    """bcrypt of a password, or, as Django does, of its SHA-256 in hexadecimal digits."""

    text: str
    of_digest: bool


class Scrypt(Struct, frozen=True):
    """scrypt (RFC 7914), of the password in NFKC where the other program did that."""

    n: int
    r: int
    p: int
    salt: bytes
    key: bytes
    in_nfkc: bool = False


class Pbkdf2(Struct, frozen=True):
    """PBKDF2 (RFC 8018) with HMAC under ``digest``: sha1, sha256 or sha512."""

    digest: str
    iterations: int
    salt: bytes
    key: bytes


Foreign = Bcrypt | Scrypt | Pbkdf2


def parse_foreign(text: str) -> str:
    """Return the form in which another program's hash is kept; that form itself stays as it is.

    Known are Argon2 (PHC), bcrypt (`$2a$`, `$2b$`, `$2y$`), Django's `argon2`, `bcrypt`, `bcrypt_sha256`,
    `pbkdf2_sha1`, `pbkdf2_sha256` and `scrypt`, Werkzeug's `pbkdf2` and `scrypt`, and better-auth's `salt:key`, told
    by nothing but its lengths.

    Raises:
        UnknownHash: it is none of these, or would cost too much to check; the message does not repeat it.
    """
    bare = next((text[len(name) :] for name, form in _DJANGO if text.startswith(name + form)), text)
    if bare.startswith("$argon2"):
        if not is_checkable(bare):
            raise UnknownHash(
                f"This Argon2 hash is not whole, or takes more to check than {MAX_MEMORY_KIB // 1024} MiB in three "
                f"passes on {MAX_LANES} lanes."
            )
        return bare
    kept = f"better-auth:{bare}" if _BETTER_AUTH.fullmatch(bare) else bare
    _read(kept)
    return kept


def read_foreign(password_hash: str) -> Foreign | None:
    """Return what a stored hash says, if it is one that `parse_foreign` returns and no Argon2."""
    try:
        return _read(password_hash)
    except UnknownHash:
        return None


def _read(kept: str) -> Foreign:
    for pattern, read in _FORMS:
        found = pattern.fullmatch(kept)
        if found is not None:
            return read(found)
    raise UnknownHash(
        "This is not a password hash of a form that is known here: Argon2, bcrypt, or scrypt and PBKDF2 as Django, "
        "Werkzeug and better-auth write them, each whole."
    )


def _bcrypt(found: re.Match[str]) -> Bcrypt:
    if not 4 <= int(found["cost"]) <= MAX_BCRYPT_COST:
        raise UnknownHash(f"The cost of a bcrypt hash is at least 4 here, and at most {MAX_BCRYPT_COST}.")
    return Bcrypt(found["text"], of_digest=not found.string.startswith("$"))


def _scrypt(found: re.Match[str], key: bytes) -> Scrypt:
    n, r, p = int(found["n"]), int(found["r"]), int(found["p"])
    if n < 2 or n & (n - 1) or n >= 1 << 16 * min(r, 32):
        raise UnknownHash("The N of an scrypt hash is a power of two, and less than 2 to the power of 16 times its r.")
    if 128 * n * r > MAX_MEMORY_KIB * 1024 or n * r * p > MAX_SCRYPT_WORK or p > MAX_SCRYPT_LANES:
        raise UnknownHash(
            f"This scrypt hash takes more to check than {MAX_MEMORY_KIB // 1024} MiB, {MAX_SCRYPT_WORK} for N · r · p, "
            f"or {MAX_SCRYPT_LANES} for p."
        )
    if len(key) != _SCRYPT_KEY_BYTES:
        raise UnknownHash(f"The key of an scrypt hash has {_SCRYPT_KEY_BYTES} bytes.")
    return Scrypt(n, r, p, found["salt"].encode(), key)


def _pbkdf2(found: re.Match[str], key: bytes) -> Pbkdf2:
    digest, iterations = found["digest"], int(found["iterations"])
    if iterations > MAX_PBKDF2_ITERATIONS:
        raise UnknownHash(f"A PBKDF2 hash has at most {MAX_PBKDF2_ITERATIONS} iterations here.")
    if len(key) != _KEY_BYTES[digest]:
        raise UnknownHash(f"The key of a PBKDF2 hash with {digest} has {_KEY_BYTES[digest]} bytes.")
    return Pbkdf2(digest, iterations, found["salt"].encode(), key)


def _better_auth(found: re.Match[str]) -> Scrypt:
    # The salt is the text of the digits, not what they stand for.
    return Scrypt(16_384, 16, 1, found["salt"].encode(), bytes.fromhex(found["hex"]), in_nfkc=True)


def _in_hex(read: Callable[[re.Match[str], bytes], Foreign]) -> Callable[[re.Match[str]], Foreign]:
    return lambda found: read(found, bytes.fromhex(found["hex"]))


def _in_base64(read: Callable[[re.Match[str], bytes], Foreign]) -> Callable[[re.Match[str]], Foreign]:
    def decode(found: re.Match[str]) -> Foreign:
        key = base64.b64decode(found["base64"])
        if base64.b64encode(key).decode() != found["base64"]:  # bits left over that are not zero
            raise UnknownHash("The key of this password hash is not in base64 as Django writes it.")
        return read(found, key)

    return decode


_BETTER_AUTH: Final = re.compile(r"[0-9a-f]{32}:[0-9a-f]{128}")
_NUMBER: Final = "[1-9][0-9]{0,9}"
_HEX: Final = r"(?P<hex>(?:[0-9a-f]{2}){1,64})"
_BASE64: Final = r"(?P<base64>(?:[A-Za-z0-9+/]{4}){1,21}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)"

_FORMS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Foreign]], ...]] = (
    (re.compile(_BCRYPT), _bcrypt),
    (re.compile(rf"bcrypt_sha256\${_BCRYPT}"), _bcrypt),
    (re.compile(r"better-auth:(?P<salt>[0-9a-f]{32}):(?P<hex>[0-9a-f]{128})"), _better_auth),
    (re.compile(rf"scrypt:(?P<n>{_NUMBER}):(?P<r>{_NUMBER}):(?P<p>{_NUMBER})\${_SALT}\${_HEX}"), _in_hex(_scrypt)),
    (
        re.compile(rf"scrypt\$(?P<n>{_NUMBER})\${_SALT}\$(?P<r>{_NUMBER})\$(?P<p>{_NUMBER})\${_BASE64}"),
        _in_base64(_scrypt),
    ),
    (
        re.compile(rf"pbkdf2:(?P<digest>sha1|sha256|sha512):(?P<iterations>{_NUMBER})\${_SALT}\${_HEX}"),
        _in_hex(_pbkdf2),
    ),
    (
        re.compile(rf"pbkdf2_(?P<digest>sha1|sha256)\$(?P<iterations>{_NUMBER})\${_SALT}\${_BASE64}"),
        _in_base64(_pbkdf2),
    ),
)
