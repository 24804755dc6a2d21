"""What a login does to the browser that it was done with: the cookies of session and device; it knows no endpoint."""

from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn
from jotgate.server.flows.sessions import logout
from jotgate.server.flows.tokens import TokenPair
from jotgate.server.http.askers import device_cookie
from jotgate.server.http.browser import read_cookie, set_cookie
from jotgate.server.http.exchange import Headers, Request
from jotgate.server.refusals import InvalidRefreshToken
from jotgate.server.secret import Secret
from jotgate.server.store import StoreError


def session_cookie(deps: Deps, pair: TokenPair) -> tuple[bytes, bytes]:
    """Return the header that gives the session cookie."""
    return set_cookie(deps.settings.issuer, pair.refresh_token, pair.refresh_expires_in_s)


def new_device_token(deps: Deps, done: LoggedIn, now: int) -> Secret | None:
    """Return what tells this device from strangers at the next login; None where its keys cannot be used here."""
    tokens = deps.keys.now.device_tokens
    if tokens is None:
        return None
    account = done.account
    return Secret(tokens.make(account.id, account.password_hash, now=now, random=deps.random, again=done.device))


def login_cookies(deps: Deps, request: Request, done: LoggedIn, now: int) -> Headers:
    """Return the headers that give a browser its session, and what tells it from strangers the next time."""
    headers = (session_cookie(deps, done.tokens),)
    tokens, made = deps.keys.now.device_tokens, new_device_token(deps, done, now)
    if tokens is None or made is None:
        return headers
    device = device_cookie(request, tokens, deps.settings.issuer, made=made, replaced=done.device, now=now)
    return (*headers, device)


async def end_replaced(deps: Deps, request: Request, now: int, origin: Origin) -> None:
    """End the session whose cookie a new login overwrites, if there is one: nobody could end it later."""
    replaced = read_cookie(request, deps.settings.issuer)
    if replaced is None:
        return
    try:
        await logout(deps, replaced, now, origin, replaced=True)
    except InvalidRefreshToken:
        return
    except StoreError as error:
        # The new session is committed, and its holder must get it; the old one comes to its idle end.
        deps.log.warning("replaced_session_not_ended", code=error.code)
