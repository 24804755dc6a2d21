"""A session lives on, is proved, or ends: refresh, the session credential, logout."""

from collections.abc import Sequence
from functools import partial

from jotgate.core.revocations import Revocation
from jotgate.server.flows.auditing import NOWHERE, Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import FORGOT_PATH, link, make_mail
from jotgate.server.flows.tokens import TokenPair, make_pair
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import Account, AuditEvent, Family, OutgoingMail
from jotgate.server.refusals import Busy, GrantRefused, RefreshReused, SessionEnded
from jotgate.server.rules.refresh import LOST_ANSWER_GRACE_S, Replayed, Reused, Rotated, Standing, judge
from jotgate.server.secret import Secret


async def refresh(
    deps: Deps,
    presented: Secret,
    now: int,
    origin: Origin = NOWHERE,
    *,
    client_id: str | None = None,
    scopes: Sequence[str] | None = None,
) -> TokenPair:
    """Exchange a refresh token for the next pair; within the grace, for the current one.

    Args:
        client_id: the client that presents it, where the protocol names one (RFC 6749 section 6).
        scopes: fewer scopes for this access token than the account has.

    Raises:
        InvalidRefreshToken: this server did not make it.
        SessionEnded: logged out, revoked, too long idle, or at its absolute end.
        RefreshReused: used again after its grace: the session is ended, durably, before this is raised.
        GrantRefused: ``invalid_scope`` or ``invalid_grant``: nothing was used up.
    """
    token = deps.refresh_tokens.decode(presented.reveal())
    outcome, family, account = await deps.store.rotate(
        token.family_id,
        token.generation,
        now=now,
        mac_kid=deps.refresh_tokens.active,
        idle_s=deps.settings.session_idle_s,
        until_s=REVOCATION_LIFE_S,
        approve=partial(_check_grant, client_id, scopes),
        audit_reuse=partial(_reuse_line, now, origin),
        mail_reuse=partial(_reuse_mail, deps, now, origin),
    )
    match outcome:
        case Rotated(family=family) | Replayed(family=family) if account is not None:
            deps.log.info(
                "refreshed", sid=family.sid, generation=family.generation, replay=isinstance(outcome, Replayed)
            )
            return await make_pair(deps, account, family, now, scopes=scopes)
        case Reused() if family is not None:
            deps.tell_courier()
            raise _reused(deps, family)
    raise _ended()


async def session_of(deps: Deps, presented: Secret, now: int, origin: Origin = NOWHERE) -> tuple[Account, Family]:
    """Return the account and the live session that a session credential belongs to.

    Raises:
        InvalidRefreshToken, SessionEnded, RefreshReused: as ``refresh`` does.
    """
    token = deps.refresh_tokens.decode(presented.reveal())
    family = await deps.store.family_by_id(token.family_id)
    if family is None:
        raise _ended()
    match judge(family, token.generation, now=now):
        case Standing.ENDED:
            raise _ended()
        case Standing.REUSED:
            audit = _reuse_line(now, origin, family)
            await deps.store.end_family(family.id, now=now, until_s=REVOCATION_LIFE_S, audit=audit)
            raise _reused(deps, family)
        case Standing.CURRENT if _confirmation_matters(family, now):
            await deps.store.confirm(family.id, family.generation)
    account = await deps.store.account_by_id(family.account_id)
    if account is None:
        raise _ended()
    return account, family


async def logout(deps: Deps, presented: Secret, now: int, origin: Origin = NOWHERE, *, replaced: bool = False) -> None:
    """End the session; the server refuses its access tokens from now on. A session that has ended stays ended.

    Any token of the family will do, an old one too: whoever held it may end the session, and nothing else.

    Args:
        replaced: nobody asked for it: a new login takes the place of the session.

    Raises:
        InvalidRefreshToken: this server did not make it.
    """
    token = deps.refresh_tokens.decode(presented.reveal())
    family = await deps.store.family_by_id(token.family_id)
    if family is None:
        return
    detail = {"replaced": True} if replaced else None
    audit = line("logout", now, origin, account=family.account_id, sid=family.sid, detail=detail)
    ended = await deps.store.end_family(family.id, now=now, until_s=REVOCATION_LIFE_S, audit=audit)
    deps.live.revoke([Revocation("session", (family.sid,))])
    if ended:
        deps.log.info("logout", account=family.account_id, sid=family.sid)


def _check_grant(client_id: str | None, scopes: Sequence[str] | None, family: Family, account: Account) -> None:
    """Refuse what the grant does not cover (RFC 6749 section 6)."""
    if client_id not in (None, family.client_id):
        raise GrantRefused("invalid_grant", "The refresh token belongs to another client.")
    if scopes is not None and not set(scopes) <= set(account.scopes):
        raise GrantRefused("invalid_scope", "The scope is wider than what was granted.")


def _confirmation_matters(family: Family, now: int) -> bool:
    """Whether noting that the current token arrived closes its predecessor's grace; one write at most, rarely any."""
    return not family.confirmed and bool(family.retired) and abs(now - family.retired[-1][1]) <= LOST_ANSWER_GRACE_S


def _reuse_line(now: int, origin: Origin, family: Family) -> AuditEvent:
    # Whoever did it: the owner and the thief look alike.
    return line("refresh_reused", now, origin, actor="anonymous", account=family.account_id, sid=family.sid)


def _reuse_mail(deps: Deps, now: int, origin: Origin, family: Family, account: Account) -> list[OutgoingMail]:
    """Ask the owner whether that was them, and where to go if it was not."""
    there = link(deps, FORGOT_PATH)
    told = {"device": origin.device, "address": origin.address, "at": now, "link": there}
    try:
        return [make_mail(deps, "session_reused", account.email, now, **told)]
    except Busy:  # a session that may be stolen ends all the same
        return []


def _reused(deps: Deps, family: Family) -> RefreshReused:
    deps.live.revoke([Revocation("session", (family.sid,))])
    deps.log.warning("refresh_reused", account=family.account_id, sid=family.sid)
    return RefreshReused("This refresh token was used before, so the session was ended for safety. Log in again.")


def _ended() -> SessionEnded:
    return SessionEnded("The session has ended. Log in again.")
