"""The text of refresh tokens: made, and taken apart again, without asking the database.

`jgr_` and 80 characters of base64url: MAC key id (8 bytes), family id (16), generation (4, big-endian), HMAC-SHA256
over all of that (32). Garbage ends here; and a copy of the database alone yields no token, for the MAC key lies in it
sealed only. Knows nothing of what a session is, or whether it lives.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.server.refusals import InvalidRefreshToken

PREFIX: Final = "jgr_"  # lets secret scanners find leaked ones
MAC_KEY_BYTES: Final = 32
_KID_BYTES: Final = 8
_FAMILY_BYTES: Final = 16
_GENERATION_BYTES: Final = 4
_MAC_BYTES: Final = 32
_TOKEN = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{80}})", re.ASCII)  # 60 bytes exactly: every text is canonical


class RefreshToken(Struct, frozen=True):
    """What an authentic refresh token says."""

    mac_kid: str
    family_id: bytes
    generation: int

    def __repr__(self) -> str:  # the family id is half of the secret
        return f"RefreshToken(mac_kid={self.mac_kid!r}, generation={self.generation})"


def new_mac_kid(random: Callable[[int], bytes]) -> str:
    """An id for a new MAC key, as it stands in records: 8 random bytes in base64url."""
    return encode_segment(random(_KID_BYTES))


class RefreshTokens:
    """Makes and checks refresh tokens under a set of MAC keys, of which one is used for new generations."""

    __slots__ = ("_keys", "active")

    def __init__(self, keys: Mapping[str, bytes], *, active: str) -> None:
        """`keys` maps key ids to secrets of 32 bytes; `active` is the id of the one for new tokens.

        Raises ValueError for ids and secrets of the wrong size, and if `active` is none of them.
        """
        for kid, secret in keys.items():
            if len(secret) != MAC_KEY_BYTES or len(decode_segment(kid)) != _KID_BYTES:
                raise ValueError(f"the MAC key {kid} has the wrong size")
        if active not in keys:
            raise ValueError(f"the active MAC key {active} is not there")
        self._keys = dict(keys)
        self.active = active

    def encode(self, family_id: bytes, generation: int, mac_kid: str) -> str:
        """The token of this generation: the same bytes every time, as answering a replay needs.

        Raises `InvalidRefreshToken` for a MAC key that is not there: it has been revoked, and its sessions with it.
        """
        secret = self._keys.get(mac_kid)
        if secret is None:
            raise _invalid()
        named = decode_segment(mac_kid) + family_id + generation.to_bytes(_GENERATION_BYTES)
        return PREFIX + encode_segment(named + _mac(secret, named))

    def decode(self, raw: str) -> RefreshToken:
        """Take a token apart, if this server made it. Raises `InvalidRefreshToken` for everything else."""
        match = _TOKEN.fullmatch(raw)
        if match is None:
            raise _invalid()
        token = decode_segment(match[1])
        named, mac = token[:-_MAC_BYTES], token[-_MAC_BYTES:]
        mac_kid = encode_segment(named[:_KID_BYTES])
        secret = self._keys.get(mac_kid)
        if secret is None or not hmac.compare_digest(_mac(secret, named), mac):
            raise _invalid()
        return RefreshToken(
            mac_kid=mac_kid,
            family_id=named[_KID_BYTES : _KID_BYTES + _FAMILY_BYTES],
            generation=int.from_bytes(named[-_GENERATION_BYTES:]),
        )

    def __repr__(self) -> str:
        return f"RefreshTokens(active={self.active!r})"


def _mac(secret: bytes, named: bytes) -> bytes:
    return hmac.digest(secret, PREFIX.encode() + named, "sha256")


def _invalid() -> InvalidRefreshToken:
    return InvalidRefreshToken("This is not a refresh token of this server. Log in again.")
