"""Secrets as the database keeps them: sealed under one of the server's keys, and bound to the row that holds them.

AES-256-GCM under a key that is derived (HKDF, RFC 5869) for one use. A copy of the database alone opens none. It knows
no database and no kind of secret.
"""

from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import JotgateError

_KID_BYTES: Final = 8
_NONCE_BYTES: Final = 12


class KeyAway(JotgateError):
    """The key of something sealed is not known here (yet)."""

    code = "seal_key_away"


class SealBroken(JotgateError):
    """Something sealed was changed, or moved to another row."""

    code = "seal_broken"


class Box:
    """Seals and opens under a set of keys, of which one seals.

    Args:
        keys: ids and secrets of 32 bytes each.
        active: the id of the one that seals.
        use: what for; under another use nothing opens.
    """

    def __init__(self, keys: Mapping[str, bytes], *, active: str, use: bytes) -> None:
        self._ciphers = {kid: AESGCM(derive(secret, use)) for kid, secret in keys.items()}
        self._active = active

    def seal(self, raw: bytes, *, context: bytes, random: Callable[[int], bytes]) -> bytes:
        """Return what only somebody with the key opens, and only in the same context."""
        nonce = random(_NONCE_BYTES)
        return decode_segment(self._active) + nonce + self._ciphers[self._active].encrypt(nonce, raw, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            KeyAway: its key is not known here.
            SealBroken: it is not as it was sealed, or was for another context.
        """
        kid, rest = encode_segment(sealed[:_KID_BYTES]), sealed[_KID_BYTES:]
        cipher = self._ciphers.get(kid)
        if cipher is None:
            raise KeyAway("The key that this was sealed with is not there.")
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise SealBroken("This was changed in the database.") from None


def derive(secret: bytes, use: bytes) -> bytes:
    """Return the key for one use (HKDF-SHA-256, RFC 5869 section 2)."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=use).derive(secret)
