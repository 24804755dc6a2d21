"""The pages of an account. Looking at one rotates no session; each form is good for the session that it was shown in.

What a session alone may do in the API it may do here, and no more: the rest takes the password, or a second factor.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from jotgate.core.errors import RequestRefused
from jotgate.server.flows.address import request_email_change
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.factors import (
    FactorAdded,
    add_passkey,
    begin_passkey,
    begin_totp,
    confirm_totp,
    make_recovery_codes,
    remove_passkey,
    remove_totp,
)
from jotgate.server.flows.leaving import leave
from jotgate.server.flows.passkeys import passkey_id
from jotgate.server.flows.password import change_password, check_step_up
from jotgate.server.flows.revoking import revoke_account, revoke_session, sessions_of
from jotgate.server.flows.sessions import logout, session_of
from jotgate.server.http.askers import origin_of_request
from jotgate.server.http.browser import check_not_cross_site, clear_cookie, read_cookie
from jotgate.server.http.exchange import Request, Response
from jotgate.server.http.forms import check_session_form, session_form
from jotgate.server.http.inputs import parse_form_body
from jotgate.server.http.login_pages import LOGGED_OUT_PATH, read_passkey
from jotgate.server.http.logins import login_cookies
from jotgate.server.http.showing import (
    ACCOUNT_PATH,
    ASK_AGAIN,
    LOGIN_PATH,
    arrival,
    brand_of,
    html,
    notice_of,
    return_to,
    see_other,
)
from jotgate.server.pages import HostedPage, Shown, render
from jotgate.server.records import Account, Family
from jotgate.server.refusals import (
    FactorNotFound,
    InvalidCredentials,
    InvalidRefreshToken,
    InvalidSecondFactor,
    PasskeyRefused,
    PasswordUnchanged,
    RefreshReused,
    SessionEnded,
    SessionNotFound,
    StepUpNeeded,
)
from jotgate.server.rules.accounts import InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort
from jotgate.server.rules.factors import NameRefused, PasskeyKnown, TooManyPasskeys, passkey_name
from jotgate.server.secret import Secret

_FIELDS: Final[Mapping[type[RequestRefused], tuple[str, ...]]] = {
    InvalidCredentials: ("current_password",),
    InvalidEmail: ("new_email",),
    InvalidSecondFactor: ("code",),
    NameRefused: ("name",),
    PasskeyKnown: (),
    PasskeyRefused: (),
    PasswordTooCommon: ("new_password",),
    PasswordTooLong: ("new_password", "current_password"),
    PasswordTooShort: ("new_password",),
    PasswordUnchanged: ("new_password",),
    TooManyPasskeys: (),
}
"""What is asked again, and about which field: the first of these that the page has."""


class Owner(Struct, frozen=True):
    """Who holds the session, when they ask, and from where."""

    account: Account
    family: Family
    now: int
    origin: Origin


class Asking(Struct, frozen=True, kw_only=True):
    """A page that asks before something is done."""

    page: HostedPage
    fields: tuple[str, ...]
    act: "Act"
    steps_up: bool = False
    """It takes a session that began with the second factor, where there is one."""


Form = Mapping[str, str]
Act = Callable[[Deps, Request, Owner, Form], Awaitable[Response]]
Handler = Callable[[Deps, Request], Awaitable[Response]]


def asking(asked: Asking) -> Handler:
    """Return the endpoint that shows the page."""

    async def show(deps: Deps, request: Request, owner: Owner) -> Response:
        if asked.steps_up:
            check_step_up(owner.account, owner.family)
        return _ask(deps, request, owner, asked, Shown(notice=notice_of(request)))

    # What somebody wrote into the path goes into no other address.
    return _looking(show, returns=asked.page != "passkey_remove")


def doing(act: Act, *, again: Asking | None = None) -> Handler:
    """Return the endpoint that takes a form of a session, and asks ``again`` where it cannot be used."""

    async def post(deps: Deps, request: Request) -> Response:
        check_not_cross_site(request, deps.settings)
        form = parse_form_body(request)
        owner = await _owner(deps, request)
        if owner is None:
            return _log_in_first(deps, ACCOUNT_PATH)
        check_session_form(deps, owner.family, form)
        try:
            return await act(deps, request, owner, form)
        except StepUpNeeded:
            return _step_up(deps, ACCOUNT_PATH)
        except (SessionEnded, RefreshReused):
            return _log_in_first(deps, ACCOUNT_PATH)
        except tuple(_FIELDS) as refused:
            if again is None:
                raise
            field = next((each for each in _FIELDS[type(refused)] if each in again.fields), "")
            return _ask(deps, request, owner, again, Shown(refused=str(refused), field=field))

    return post


def _looking(show: Callable[[Deps, Request, Owner], Awaitable[Response]], *, returns: bool = True) -> Handler:
    async def get(deps: Deps, request: Request) -> Response:
        path = request.path if returns else ACCOUNT_PATH
        if (page := arrival(deps.settings, request)) is not None:
            return page
        owner = await _owner(deps, request)
        if owner is None:
            return _log_in_first(deps, path)
        try:
            return await show(deps, request, owner)
        except StepUpNeeded:
            return _step_up(deps, path)

    return get


async def _owner(deps: Deps, request: Request) -> Owner | None:
    """Return who holds the session cookie; None where nobody does."""
    cookie = read_cookie(request, deps.settings.issuer)
    if cookie is None:
        return None
    now, origin = deps.clock(), origin_of_request(request)
    try:
        account, family = await session_of(deps, cookie, now, origin)
    except (InvalidRefreshToken, SessionEnded, RefreshReused):
        return None
    return Owner(account, family, now, origin)


def _log_in_first(deps: Deps, path: str) -> Response:
    return see_other(deps.settings, LOGIN_PATH, notice="log_in_first", **_back(deps, path))


def _step_up(deps: Deps, path: str) -> Response:
    return see_other(deps.settings, LOGIN_PATH, notice="step_up", **_back(deps, path))


def _back(deps: Deps, path: str) -> dict[str, str]:
    there = return_to(deps.settings, deps.settings.issuer_path + path)
    return {"return_to": there} if there else {}


async def _overview(deps: Deps, request: Request, owner: Owner) -> Response:
    account = owner.account
    sessions = await sessions_of(deps, account.id, owner.now, current=owner.family)
    text = render(
        "account",
        brand_of(deps.settings),
        Shown(token=session_form(deps, owner.family), notice=notice_of(request)),
        email=account.email,
        factors=account.factors,
        passkeys=[(passkey_id(each), each) for each in account.factors.passkeys],
        can_use_passkeys=deps.settings.passkey_domain_name is not None,
        sessions=sessions,
        sid=owner.family.sid,
    )
    return html(text)


def _ask(deps: Deps, request: Request, owner: Owner, asked: Asking, shown: Shown) -> Response:
    about = ""
    if asked.page == "passkey_remove":
        named = request.path.rpartition("/")[2]
        passkey = next((each for each in owner.account.factors.passkeys if passkey_id(each) == named), None)
        if passkey is None:
            raise FactorNotFound("The account has no such second factor.")
        about = passkey.name
    return _page(
        deps,
        owner,
        asked.page,
        shown,
        fields=asked.fields,
        about=about,
        email=owner.account.email,
        min_length=deps.settings.password_min_length,
    )


def _page(deps: Deps, owner: Owner, page: HostedPage, shown: Shown, **told: object) -> Response:
    shown = msgspec.structs.replace(shown, token=session_form(deps, owner.family))
    text = render(page, brand_of(deps.settings), shown, **told)
    return html(text, status=ASK_AGAIN if shown.refused else 200)


def _done(deps: Deps, notice: str, *headers: tuple[bytes, bytes]) -> Response:
    return see_other(deps.settings, ACCOUNT_PATH, *headers, notice=notice)


def _logged_out(deps: Deps, **query: str) -> Response:
    return see_other(deps.settings, LOGGED_OUT_PATH, clear_cookie(deps.settings.issuer), **query)


def _current(form: Form) -> Secret:
    return Secret(form.get("current_password", ""))


async def _change_address(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    await request_email_change(
        deps,
        owner.account,
        owner.family,
        new_email=form.get("new_email", ""),
        current=_current(form),
        now=owner.now,
        origin=owner.origin,
    )
    return _done(deps, "address_asked")


async def _change_password(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    new = Secret(form.get("new_password", ""))
    done = await change_password(
        deps, owner.account, owner.family, current=_current(form), new=new, now=owner.now, origin=owner.origin
    )
    return _done(deps, "password_changed", *login_cookies(deps, request, done, owner.now))


async def _begin_app(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    made = await begin_totp(
        deps, owner.account, owner.family, current=_current(form), now=owner.now, origin=owner.origin
    )
    return _page(deps, owner, "app_confirm", Shown(), secret=made.secret, picture=made.qr_svg)


async def _confirm_app(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    code = Secret(form.get("code", ""))
    done = await confirm_totp(deps, owner.account, owner.family, code=code, now=owner.now, origin=owner.origin)
    return _factor_added(deps, request, owner, done, "app_added")


async def _remove_app(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    await remove_totp(deps, owner.account, owner.family, current=_current(form), now=owner.now, origin=owner.origin)
    return _done(deps, "app_removed")


async def _new_codes(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    codes = await make_recovery_codes(
        deps, owner.account, owner.family, current=_current(form), now=owner.now, origin=owner.origin
    )
    return html(render("codes", brand_of(deps.settings), codes=[code.reveal() for code in codes]))


async def _begin_passkey(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    name = passkey_name(form.get("name", ""))
    options = await begin_passkey(
        deps, owner.account, owner.family, current=_current(form), now=owner.now, origin=owner.origin
    )
    told = msgspec.json.encode(options).decode()
    return _page(deps, owner, "passkey_make", Shown(), name=name, passkey_options=told)


async def _add_passkey(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    done = await add_passkey(
        deps,
        owner.account,
        owner.family,
        credential=read_passkey(form.get("passkey", "")),
        name=form.get("name", ""),
        now=owner.now,
        origin=owner.origin,
    )
    return _factor_added(deps, request, owner, done, "passkey_added")


async def _remove_passkey(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    wanted = request.path.rpartition("/")[2]
    await remove_passkey(
        deps, owner.account, owner.family, wanted, current=_current(form), now=owner.now, origin=owner.origin
    )
    return _done(deps, "passkey_removed")


def _factor_added(deps: Deps, request: Request, owner: Owner, done: FactorAdded, notice: str) -> Response:
    cookies = login_cookies(deps, request, done.begun, owner.now)
    if not done.recovery_codes:
        return _done(deps, notice, *cookies)
    codes = [code.reveal() for code in done.recovery_codes]
    return html(render("codes", brand_of(deps.settings), Shown(notice=notice), codes=codes), *cookies)


async def _delete(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    await leave(deps, owner.account, owner.family, current=_current(form), now=owner.now, origin=owner.origin)
    return _logged_out(deps, notice="deleted")


async def _end_session(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    sid = request.path.rpartition("/")[2]
    try:
        await revoke_session(deps, owner.account, sid, owner.now, owner.origin)
    except SessionNotFound:
        return _done(deps, "session_gone")
    return _logged_out(deps) if sid == owner.family.sid else _done(deps, "session_ended")


async def _logout(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    cookie = read_cookie(request, deps.settings.issuer)
    if cookie is not None:
        await logout(deps, cookie, owner.now, owner.origin)
    return _logged_out(deps)


async def _logout_everywhere(deps: Deps, request: Request, owner: Owner, form: Form) -> Response:
    await revoke_account(deps, owner.account, owner.origin)
    return _logged_out(deps, notice="everywhere")


_PASSWORD: Final = ("current_password",)
ADDRESS: Final = Asking(page="address", fields=("new_email", *_PASSWORD), act=_change_address)
PASSWORD: Final = Asking(page="password", fields=(*_PASSWORD, "new_password"), act=_change_password)
APP: Final = Asking(page="app", fields=_PASSWORD, act=_begin_app, steps_up=True)
APP_CONFIRM: Final = Asking(page="app_confirm", fields=("code",), act=_confirm_app, steps_up=True)
APP_REMOVE: Final = Asking(page="app_remove", fields=_PASSWORD, act=_remove_app, steps_up=True)
CODES: Final = Asking(page="recovery_codes", fields=_PASSWORD, act=_new_codes, steps_up=True)
PASSKEYS: Final = Asking(page="passkeys", fields=("name", *_PASSWORD), act=_begin_passkey, steps_up=True)
PASSKEY_REMOVE: Final = Asking(page="passkey_remove", fields=_PASSWORD, act=_remove_passkey, steps_up=True)
DELETE: Final = Asking(page="delete", fields=_PASSWORD, act=_delete)

get_account: Final = _looking(_overview)
post_app_confirm: Final = doing(_confirm_app, again=APP_CONFIRM)
post_passkey: Final = doing(_add_passkey, again=PASSKEYS)
post_session: Final = doing(_end_session)
post_logout: Final = doing(_logout)
post_logout_everywhere: Final = doing(_logout_everywhere)
