"""From a session to the pair of tokens that its holder gets; it decides nothing about the session."""

import inspect
from collections.abc import Sequence

from msgspec import Struct

from jotgate.server.flows.deps import Deps, public
from jotgate.server.records import Account, Family
from jotgate.server.secret import Secret


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
    """
    granted = tuple(account.scopes if scopes is None else scopes)
    access_token = deps.issuer.issue(
        account.id,
        audience=deps.settings.audience,
        scopes=granted,
        session=family.sid,
        auth_time=family.auth_time,
        client_id=family.client_id,
        claims=await _own_claims(deps, account),
    )
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
    claims = deps.claims_for(public(account))
    return dict(await claims if inspect.isawaitable(claims) else claims)
