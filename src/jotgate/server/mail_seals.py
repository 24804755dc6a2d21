"""Mails as the outbox keeps them: sealed, since a mail names a person and may carry a one-time code.

A copy of the database alone opens none. What is sealed is bound to the mail's id and kind: moved to another row, it
does not open. It knows no database.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from jotgate.core.encoding import encode_segment
from jotgate.core.errors import JotgateError
from jotgate.server.boxes import Box, KeyAway, SealBroken
from jotgate.server.mail.messages import DECOY, Mail, MailKind, MailMalformed
from jotgate.server.records import OutgoingMail, QueuedMail

_ID_BYTES: Final = 16
_SIZE: Final = 1024  # sealed texts are padded to multiples of it


class MailUnreadable(JotgateError):
    """The key of a mail in the outbox is not known here (yet)."""

    code = "mail_unreadable"


class MailSeals:
    """Seals and opens mails under a set of keys, of which one seals.

    Args:
        keys: ids and secrets of 32 bytes each.
        active: the id of the one that seals.
    """

    def __init__(self, keys: Mapping[str, bytes], *, active: str) -> None:
        self._box = Box(keys, active=active, use=b"jotgate mail outbox")
        self._active = active

    def seal(
        self,
        kind: MailKind,
        to: str,
        values: Mapping[str, str],
        *,
        now: int,
        random: Callable[[int], bytes],
        decoy: bool = False,
    ) -> OutgoingMail:
        """Return a new mail for the outbox, due at once; a decoy is made like it, and sent to nobody.

        Raises:
            MailMalformed: the kind has other values.
        """
        name = encode_segment(random(_ID_BYTES))
        _mail(name, kind, to, values)
        kept = DECOY if decoy else kind
        raw = msgspec.json.encode((kind, to, values))
        raw += b" " * (-len(raw) % _SIZE)
        sealed = self._box.seal(raw, context=_context(name, kept), random=random)
        return OutgoingMail(id=name, kind=kept, sealed=sealed, created_at=now, due_at=now)

    def open(self, queued: QueuedMail) -> Mail:
        """Return the mail in clear.

        Raises:
            MailUnreadable: its key is not known here.
            MailMalformed: the row was changed, or is of a kind that this version does not know.
        """
        try:
            raw = self._box.open(queued.sealed, context=_context(queued.id, queued.kind))
        except KeyAway:
            raise MailUnreadable("The key of this mail is not there.") from None
        except SealBroken:
            raise MailMalformed("This mail was changed in the database.") from None
        kind, to, values = msgspec.json.decode(raw, type=tuple[str, str, dict[str, str]])
        return _mail(queued.id, kind, to, values)

    def __repr__(self) -> str:
        return f"MailSeals(active={self._active!r})"


def _mail(name: str, kind: str, to: str, values: Mapping[str, str]) -> Mail:
    try:
        return msgspec.convert({"id": name, "kind": kind, "to": to, "values": dict(values)}, Mail)
    except msgspec.ValidationError:
        raise MailMalformed("There is no such kind of mail.") from None


def _context(name: str, kind: str) -> bytes:
    return f"{name} {kind}".encode()
