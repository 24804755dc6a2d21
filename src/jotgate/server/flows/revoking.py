"""Sessions of an account: shown to their owner, and ended before their time."""

import re
from typing import Final

from jotgate.server.flows.auditing import NOWHERE, Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import Account, AuditEvent, Family, Revoked, Target
from jotgate.server.refusals import SessionNotFound
from jotgate.server.rules.refresh import Standing, judge

MAX_SHOWN: Final = 200
_SID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


async def sessions_of(deps: Deps, account_id: str, now: int, *, current: Family | None = None) -> list[Family]:
    """Return the live sessions of an account, the one that was used last first; at most ``MAX_SHOWN``.

    ``current``, the one that asks, is always among them.
    """
    shown = await deps.store.families_of_account(account_id, now=now, limit=MAX_SHOWN)
    if current is not None and len(shown) == MAX_SHOWN and all(each.sid != current.sid for each in shown):
        shown[-1] = current
    return shown


async def revoke_session(deps: Deps, account: Account, sid: str, now: int, origin: Origin = NOWHERE) -> None:
    """End one session of an account; its access tokens are refused from now on.

    Raises:
        SessionNotFound: it has ended, or is somebody else's: which of the two is not told.
    """
    # What no session is called is not looked up: not every database takes every text.
    family = await deps.store.family_by_sid(sid) if _SID.fullmatch(sid) else None
    if family is None or family.account_id != account.id or judge(family, family.generation, now=now) is Standing.ENDED:
        raise SessionNotFound("You have no such session; it may have ended.")
    audit = line("session_revoked", now, origin, account=account.id, sid=sid)
    await revoke(deps, Target("session", sid), audit)
    deps.log.info("session_revoked", account=account.id, sid=sid)


async def revoke_account(deps: Deps, account: Account, origin: Origin = NOWHERE) -> None:
    """End every session of an account."""
    audit = line("logout_everywhere", deps.clock(), origin, account=account.id)
    done = await revoke(deps, Target("account", account.id), audit)
    deps.log.info("logout_everywhere", account=account.id, sessions=len(done.entries))


async def revoke(deps: Deps, target: Target, audit: AuditEvent | None = None) -> Revoked:
    """Revoke, durably, and let it count in this process before anybody is answered."""
    done = await deps.store.revoke(target, clock=deps.clock, until_s=REVOCATION_LIFE_S, audit=audit)
    deps.live.revoke(entry.revocation for entry in done.entries)
    return done
