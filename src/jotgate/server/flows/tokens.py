"""From a session to the pair of tokens that its holder gets; it decides nothing about the session."""

import inspect
from collections.abc import Sequence

from msgspec import Struct

from jotgate.core.errors import ClaimRefused, JotgateError
from jotgate.server.flows.deps import Deps, public
from jotgate.server.log import where
from jotgate.server.records import Account, Family
from jotgate.server.secret import Secret


class OwnClaimsFailed(JotgateError):
    """The hook ``claims_for`` failed or returned what cannot be issued: the operator's to mend, the log says where."""

    code = "own_claims_failed"


class TokenPair(Struct, frozen=True):
    """An access token, and the refresh token that gets the next one. Lives are in seconds."""

    access_token: Secret
    access_expires_in_s: int
    scopes: tuple[str, ...]
    refresh_token: Secret
    refresh_expires_in_s: int


async def make_pair(
    deps: Deps, account: Account, family: Family, now: int, *, scopes: Sequence[str] | None = None
) -> TokenPair:
    """Return the tokens of a session as it stands: a new access token, and the current refresh token.

    Args:
        now: when the session was read or changed.
        scopes: fewer scopes than the account has, where the client asked for fewer.

    Raises:
        OwnClaimsFailed: the operator's hook is at fault.
    """
    granted = tuple(account.scopes if scopes is None else scopes)
    own_claims = await _own_claims(deps, account)
    try:
        access_token = deps.issuer.issue(
            account.id,
            audience=deps.settings.audience,
            scopes=granted,
            session=family.sid,
            auth_time=family.auth_time,
            methods=family.methods,
            client_id=family.client_id,
            claims=own_claims,
            # Not later than the change of the session, so that a revocation of all tokens up to its second covers it.
            issued_at=now,
        )
    except ClaimRefused as error:
        deps.log.error("own_claims_refused", claim=error.claim, reason=str(error))  # noqa: TRY400 - no traces
        raise OwnClaimsFailed("The operator's claims_for returned claims that cannot be issued.") from error
    return TokenPair(
        access_token=Secret(access_token),
        access_expires_in_s=deps.settings.access_token_ttl_s,
        scopes=granted,
        refresh_token=Secret(deps.refresh_tokens.encode(family.id, family.generation, family.mac_kid)),
        refresh_expires_in_s=family.idle_ends_at - now,
    )


async def _own_claims(deps: Deps, account: Account) -> dict[str, object]:
    if deps.claims_for is None:
        return {}
    try:
        claims = deps.claims_for(public(account))
        return dict(await claims if inspect.isawaitable(claims) else claims)
    except Exception as error:
        # The hook is the operator's code: its message may hold anything, its place helps to mend it.
        deps.log.error("claims_for_failed", error=type(error).__name__, at=where(error))  # noqa: TRY400 - no traces
        raise OwnClaimsFailed("The operator's claims_for failed.") from error
