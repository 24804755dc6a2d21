"""What flows tell the audit trail: who asked, from where, and what came of it."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from jotgate.server.records import Actor, AuditEvent, AuditName, audit_detail
from jotgate.server.rules.devices import UNKNOWN


class Origin(Struct, frozen=True):
    """Where a request comes from, as the owner of a session is shown it, and under which id it is known here."""

    address: str = ""
    """An IP address, as far as it is known."""
    device: str = UNKNOWN
    """As ``rules.devices.describe_device`` names it."""
    request_id: str = ""


NOWHERE: Final = Origin(device="")
"""Not a request: the command line, or a program that calls a flow itself."""


def line(
    event: AuditName,
    now: int,
    origin: Origin,
    *,
    actor: Actor = "account",
    account: str = "",
    sid: str = "",
    detail: Mapping[str, object] | None = None,
) -> AuditEvent:
    """Return a line of the audit trail about a request."""
    return AuditEvent(
        at=now,
        event=event,
        actor=actor,
        account_id=account,
        sid=sid,
        address=origin.address,
        device=origin.device,
        request_id=origin.request_id,
        detail="" if detail is None else audit_detail(**detail),
    )
