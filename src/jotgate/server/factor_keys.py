"""What protects second factors: the seal over authenticator apps' secrets, and the tickets between two steps.

A ticket says that somebody has done the first step of a login, or was asked to use a passkey: for one account, until
its password or address changes, for some minutes. Forms of pages have tokens of the same keys: one says that the form
was shown to whoever sends it. It knows no database and no HTTP.
"""

import hmac
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec
from msgspec import Struct

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import MalformedToken
from jotgate.server.boxes import Box, derive
from jotgate.server.records import Account

TICKET_LIFE_S: Final = 300
"""So long somebody may take for the second step."""
MAX_TICKET_CHARS: Final = 512
_KID_BYTES: Final = 8
_MAC_BYTES: Final = 32
_RANDOM_BYTES: Final = 16

TicketFor = Literal["login", "passkey_login", "passkey_registration"]


class Ticket(Struct, frozen=True, array_like=True):
    """What an authentic ticket says."""

    purpose: TicketFor
    account_id: str
    """"" where nobody knows yet whose passkey will come."""
    credential_version: int
    expires_at: int
    random: bytes

    def is_for(self, account: Account) -> bool:
        """Whether it was made for this account, with the password and address that it has now."""
        return self.account_id == account.id and self.credential_version == account.credential_version


class FactorKeys:
    """Seals, opens, makes and checks under a set of keys, of which one is used for what is new.

    Args:
        keys: ids and secrets of 32 bytes each.
        active: the id of the one for what is new.
    """

    def __init__(self, keys: Mapping[str, bytes], *, active: str) -> None:
        self._box = Box(keys, active=active, use=b"jotgate authenticator secret")
        self._macs = {kid: derive(secret, b"jotgate ticket") for kid, secret in keys.items()}
        self._forms = {kid: derive(secret, b"jotgate form") for kid, secret in keys.items()}
        self._active = active

    def seal_secret(self, account_id: str, secret: str, *, random: Callable[[int], bytes]) -> bytes:
        """Return an authenticator app's secret as the account's row keeps it."""
        return self._box.seal(secret.encode(), context=account_id.encode(), random=random)

    def open_secret(self, account_id: str, sealed: bytes) -> str:
        """Return an authenticator app's secret.

        Raises:
            KeyAway, SealBroken: it cannot be had.
        """
        return self._box.open(sealed, context=account_id.encode()).decode()

    def is_current(self, sealed: bytes) -> bool:
        """Whether this was sealed with the key for what is new."""
        return encode_segment(sealed[:_KID_BYTES]) == self._active

    def make_ticket(
        self, purpose: TicketFor, account: Account | None, *, now: int, random: Callable[[int], bytes]
    ) -> bytes:
        """Return a new ticket, which as a challenge of WebAuthn is unique, too."""
        account_id, version = ("", 0) if account is None else (account.id, account.credential_version)
        ticket = Ticket(purpose, account_id, version, now + TICKET_LIFE_S, random(_RANDOM_BYTES))
        named = decode_segment(self._active) + msgspec.msgpack.encode(ticket)
        return named + _mac(self._macs[self._active], named)

    def read_ticket(self, raw: bytes, purpose: TicketFor, *, now: int) -> Ticket | None:
        """Take a ticket apart; None where this server did not make it for this, or its time is over."""
        named, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        key = self._macs.get(encode_segment(named[:_KID_BYTES]))
        if key is None or not hmac.compare_digest(_mac(key, named), mac):
            return None
        try:
            ticket = msgspec.msgpack.decode(named[_KID_BYTES:], type=Ticket)
        except msgspec.MsgspecError:  # one of another version's
            return None
        return ticket if ticket.purpose == purpose and now < ticket.expires_at else None

    def make_form_token(self, holder: str, *, random: Callable[[int], bytes]) -> str:
        """Return what a form carries that is shown to somebody; no two are alike (against BREACH)."""
        named = decode_segment(self._active) + random(_RANDOM_BYTES)
        return encode_segment(named + _mac(self._forms[self._active], named + holder.encode()))

    def is_form_token(self, text: str, holder: str) -> bool:
        """Whether a form with this token was shown to them."""
        raw = ticket_bytes(text)
        named, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        key = self._forms.get(encode_segment(named[:_KID_BYTES]))
        return (
            key is not None
            and len(named) == _KID_BYTES + _RANDOM_BYTES
            and hmac.compare_digest(_mac(key, named + holder.encode()), mac)
        )

    def __repr__(self) -> str:
        return f"FactorKeys(active={self._active!r})"


def ticket_bytes(text: str) -> bytes:
    """Return a ticket that came as text; empty where it cannot be one."""
    if len(text) > MAX_TICKET_CHARS:
        return b""
    try:
        return decode_segment(text)
    except MalformedToken:
        return b""


def _mac(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, "sha256")
