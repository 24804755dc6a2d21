"""What a person may read about the own account, with an access token instead of the session credential."""

from typing import Final

from jotgate.core.errors import TokenRevoked
from jotgate.server.flows.deps import Deps
from jotgate.server.records import Account, Family
from jotgate.server.refusals import InsufficientScope

ACCOUNT_SCOPE: Final = "account:read"


async def account_of_bearer(deps: Deps, token: str) -> tuple[Account, Family]:
    """Return the account that an access token was issued to, and its session.

    The session is looked up, too: this server, unlike others, can ask, and refuses a logged-out session at once
    wherever the logout happened.

    Raises:
        TokenError: the token is not valid, or its session has ended.
        InsufficientScope: it lacks ``account:read``.
    """
    claims = await deps.verifier.averify(token)
    if not claims.has_scopes(ACCOUNT_SCOPE):
        raise InsufficientScope(ACCOUNT_SCOPE)
    family = await deps.store.family_by_sid(claims.session_id) if claims.session_id else None
    account = await deps.store.account_by_id(claims.subject)
    if family is None or family.ended_at is not None or account is None or family.account_id != account.id:
        raise TokenRevoked("The session of this access token has ended.")
    return account, family
