"""The text of device tokens: by one, a browser shows that somebody has logged in to an account with it before.

It opens nothing. Whoever has one may guess at that account's password by an allowance of their own, so that its owner
does not wait while others guess (OWASP Authentication Cheat Sheet, "device cookies").

`jgd_` and 104 characters of base64url: MAC key id (8 bytes), device id (16), time of the login (6, big-endian), a tag
of the account and its password's hash (16), HMAC-SHA256 over all of that (32). The tag is a MAC, too: it tells nobody
whose account it is. Another password makes all of an account's devices strangers. It knows no database and no HTTP.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.server.refresh_tokens import MAC_KEY_BYTES

PREFIX: Final = "jgd_"  # not that of refresh tokens: a leaked one of these opens nothing
DEVICE_LIFE_S: Final = 180 * 86_400
"""A device is forgotten so many seconds after the last login with it."""

_KID_BYTES: Final = 8
_ID_BYTES: Final = 16
_TIME_BYTES: Final = 6
_TAG_BYTES: Final = 16
_MAC_BYTES: Final = 32
_TOKEN: Final = re.compile(rf"{PREFIX}([A-Za-z0-9_-]{{104}})", re.ASCII)  # 78 bytes exactly: every text is canonical


class DeviceToken(Struct, frozen=True):
    """What an authentic device token says. ``id`` is random: it names neither the account nor the device."""

    id: str
    issued_at: int
    _tag: bytes
    _key: bytes

    def is_for(self, account_id: str, password_hash: str) -> bool:
        """Whether somebody has logged in to this account with it, by the password that it has now."""
        return hmac.compare_digest(self._tag, _tag(self._key, account_id, password_hash))

    def __repr__(self) -> str:
        return f"DeviceToken(issued_at={self.issued_at})"


class DeviceTokens:
    """Makes and checks device tokens under a set of MAC keys, of which one is used for new ones.

    Args:
        keys: ids and secrets of 32 bytes each.
        active: the id of the one for new tokens.
    """

    def __init__(self, keys: Mapping[str, bytes], *, active: str) -> None:
        for kid, secret in keys.items():
            if len(secret) != MAC_KEY_BYTES or len(decode_segment(kid)) != _KID_BYTES:
                raise ValueError(f"the MAC key {kid} has the wrong size")
        self._keys = dict(keys)
        self._active = active
        self._secret = keys[active]

    def make(
        self,
        account_id: str,
        password_hash: str,
        *,
        now: int,
        random: Callable[[int], bytes],
        again: DeviceToken | None = None,
    ) -> str:
        """Return the token of a device with which somebody has just logged in; ``again`` is what it had before."""
        device = random(_ID_BYTES) if again is None else decode_segment(again.id)
        named = (
            decode_segment(self._active)
            + device
            + now.to_bytes(_TIME_BYTES)
            + _tag(self._secret, account_id, password_hash)
        )
        return PREFIX + encode_segment(named + _mac(self._secret, named))

    def read(self, raw: str, *, now: int) -> DeviceToken | None:
        """Take a token apart; None where this server did not make it, or it is too old: a stranger's, then."""
        match = _TOKEN.fullmatch(raw)
        if match is None:
            return None
        token = decode_segment(match[1])
        named, mac = token[:-_MAC_BYTES], token[-_MAC_BYTES:]
        secret = self._keys.get(encode_segment(named[:_KID_BYTES]))
        if secret is None or not hmac.compare_digest(_mac(secret, named), mac):
            return None
        at = _KID_BYTES + _ID_BYTES
        issued_at = int.from_bytes(named[at : at + _TIME_BYTES])
        if now - issued_at > DEVICE_LIFE_S:
            return None
        return DeviceToken(encode_segment(named[_KID_BYTES:at]), issued_at, named[-_TAG_BYTES:], secret)

    def __repr__(self) -> str:
        return f"DeviceTokens(active={self._active!r})"


def _mac(secret: bytes, named: bytes) -> bytes:
    return hmac.digest(secret, PREFIX.encode() + b"token\0" + named, "sha256")


def _tag(secret: bytes, account_id: str, password_hash: str) -> bytes:
    named = b"\0".join((PREFIX.encode() + b"account", account_id.encode(), password_hash.encode()))
    return hmac.digest(secret, named, "sha256")[:_TAG_BYTES]
