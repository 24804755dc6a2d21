"""The pages before a session: log in, the second step, sign up, logged out. They do what the API's endpoints do.

They tell no more of who has an account than these, and what they show is not changed by anything but their own forms.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from jotgate.core.encoding import JsonRefused, parse_json_object
from jotgate.core.errors import RequestRefused
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, SecondStep, begin_proven, login
from jotgate.server.flows.passkeys import assertion_options
from jotgate.server.flows.second_step import ask_again, finish_login, login_by_passkey
from jotgate.server.flows.signup import request_signup, signup
from jotgate.server.http.askers import origin_of_request
from jotgate.server.http.browser import check_not_cross_site
from jotgate.server.http.exchange import Request, Response
from jotgate.server.http.forms import check_visitor_form, visitor_form
from jotgate.server.http.inputs import parse_form_body
from jotgate.server.http.logins import end_replaced, login_cookies
from jotgate.server.http.showing import (
    ACCOUNT_PATH,
    ASK_AGAIN,
    LOGIN_PATH,
    arrival,
    asked_return,
    brand_of,
    html,
    notice_of,
    return_to,
    see_other,
    send_to,
)
from jotgate.server.pages import HostedPage, Shown, render
from jotgate.server.passkeys import REFUSED
from jotgate.server.refusals import InvalidCredentials, InvalidSecondFactor, PasskeyRefused, TicketRefused
from jotgate.server.rules.accounts import InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort
from jotgate.server.secret import Secret
from jotgate.server.store import EmailTaken

LOGGED_OUT_PATH: Final = "/logged-out"
SIGNUP_SENT_PATH: Final = "/signup/sent"
_LOGIN_FIELDS: Final[Mapping[type[RequestRefused], str]] = {
    InvalidEmail: "email",
    InvalidCredentials: "email",
    PasswordTooLong: "password",
}
_SIGNUP_FIELDS: Final[Mapping[type[RequestRefused], str]] = {
    InvalidEmail: "email",
    EmailTaken: "email",
    PasswordTooShort: "new_password",
    PasswordTooCommon: "new_password",
    PasswordTooLong: "new_password",
}


async def get_login(deps: Deps, request: Request) -> Response:
    """``GET /login``: with ``return_to``, goes back there after the login, if that is an allowed place."""
    back = asked_return(deps.settings, request)
    return arrival(deps.settings, request) or _login(deps, request, back, Shown(notice=notice_of(request)))


async def post_login(deps: Deps, request: Request) -> Response:
    """``POST /login``."""
    form, back, now, origin = _read(deps, request)
    email, password = form.get("email", ""), Secret(form.get("password", ""))
    devices = request.asker.devices
    try:
        done = await login(deps, email, password, now, origin, asker=request.asker, devices=devices)
    except tuple(_LOGIN_FIELDS) as refused:
        return _login(deps, request, back, _about(refused, _LOGIN_FIELDS))
    if isinstance(done, SecondStep):
        return _second_step(deps, request, done, back)
    return await _begun(deps, request, done, back, now, origin)


async def get_second_factor(deps: Deps, request: Request) -> Response:
    """``GET /login/second-factor``: the first step is only known to the form that followed it."""
    return see_other(deps.settings, LOGIN_PATH)


async def post_second_factor(deps: Deps, request: Request) -> Response:
    """``POST /login/second-factor``: a code, or a passkey as JSON."""
    form, back, now, origin = _read(deps, request)
    ticket, devices = Secret(form.get("ticket", "")), request.asker.devices
    try:
        try:
            passkey = read_passkey(form["passkey"]) if "passkey" in form else None
            code = Secret(form.get("code", ""))
            done = await finish_login(deps, ticket, code=code, passkey=passkey, now=now, origin=origin, devices=devices)
        except (InvalidSecondFactor, PasskeyRefused) as refused:
            again = await ask_again(deps, ticket, now)
            return _second_step(deps, request, again, back, refused)
    except TicketRefused as expired:
        return _login(deps, request, back, Shown(refused=str(expired)))
    return await _begun(deps, request, done, back, now, origin)


async def post_passkey(deps: Deps, request: Request) -> Response:
    """``POST /login/passkey``: a passkey alone, as JSON."""
    form, back, now, origin = _read(deps, request)
    try:
        passkey = read_passkey(form.get("passkey", ""))
        done = await login_by_passkey(deps, passkey, now, origin, devices=request.asker.devices)
    except PasskeyRefused as refused:
        return _login(deps, request, back, Shown(refused=str(refused)))
    return await _begun(deps, request, done, back, now, origin)


async def get_signup(deps: Deps, request: Request) -> Response:
    """``GET /signup``."""
    back = asked_return(deps.settings, request)
    return arrival(deps.settings, request) or _signup(deps, request, back, Shown())


async def post_signup(deps: Deps, request: Request) -> Response:
    """``POST /signup``: logs in at once, or tells to look into the mail, as JOTGATE_SIGNUP says."""
    form, back, now, origin = _read(deps, request)
    email, password = form.get("email", ""), Secret(form.get("new_password", ""))
    try:
        if deps.settings.signup == "verified":
            await request_signup(deps, email, password, now, origin, before_hash=deps.limits.sign_up)
            return see_other(deps.settings, SIGNUP_SENT_PATH)
        account = await signup(deps, email, password, now, origin, before_hash=deps.limits.sign_up)
    except tuple(_SIGNUP_FIELDS) as refused:
        return _signup(deps, request, back, _about(refused, _SIGNUP_FIELDS))
    done = await begin_proven(deps, account, ("pwd",), now, origin)
    if done is None:  # changed by an operator in this very moment
        return see_other(deps.settings, LOGIN_PATH)
    return await _begun(deps, request, done, back, now, origin)


async def get_signup_sent(deps: Deps, request: Request) -> Response:
    """``GET /signup/sent``: what comes of a sign-up is in a mail, whatever it is."""
    return html(render("signup_sent", brand_of(deps.settings)))


async def get_logged_out(deps: Deps, request: Request) -> Response:
    """``GET /logged-out``."""
    return html(render("logged_out", brand_of(deps.settings), Shown(notice=notice_of(request))))


def read_passkey(text: str) -> dict[str, Any]:
    """Return what a script put into a form: what an authenticator made, as JSON.

    Raises:
        PasskeyRefused: it is no JSON object.
    """
    try:
        return parse_json_object(text.encode("utf-8", "surrogatepass"))
    except JsonRefused:
        raise PasskeyRefused(REFUSED) from None


def _read(deps: Deps, request: Request) -> tuple[dict[str, str], str, int, Origin]:
    """Return a form that was shown to whoever sends it, where to go back to, when, and from where it comes."""
    check_not_cross_site(request, deps.settings)
    form = parse_form_body(request)
    check_visitor_form(deps, request, form)
    return form, return_to(deps.settings, form.get("return_to")), deps.clock(), origin_of_request(request)


async def _begun(deps: Deps, request: Request, done: LoggedIn, back: str, now: int, origin: Origin) -> Response:
    await end_replaced(deps, request, now, origin)
    cookies = login_cookies(deps, request, done, now)
    return send_to(back, *cookies) if back else see_other(deps.settings, ACCOUNT_PATH, *cookies)


def _about(refused: RequestRefused, fields: Mapping[type[RequestRefused], str]) -> Shown:
    return Shown(refused=str(refused), field=fields[type(refused)])


def _login(deps: Deps, request: Request, back: str, shown: Shown) -> Response:
    options = None
    if deps.settings.passkey_domain_name is not None:
        options = assertion_options(deps, None, deps.clock())
    return _form(deps, request, "login", shown, return_to=back, passkey_options=_json(options))


def _second_step(
    deps: Deps, request: Request, asked: SecondStep, back: str, refused: RequestRefused | None = None
) -> Response:
    told = {
        "return_to": back,
        "ticket": asked.ticket.reveal(),
        "passkey_options": _json(asked.passkey_options),
        "has_app": "totp" in asked.factors,
        "asks_code": "totp" in asked.factors or "recovery_code" in asked.factors,
    }
    field = "code" if isinstance(refused, InvalidSecondFactor) and told["asks_code"] else ""
    shown = Shown() if refused is None else Shown(refused=str(refused), field=field)
    return _form(deps, request, "second_factor", shown, **told)


def _signup(deps: Deps, request: Request, back: str, shown: Shown) -> Response:
    least = deps.settings.password_min_length
    return _form(deps, request, "signup", shown, return_to=back, min_length=least)


def _form(deps: Deps, request: Request, page: HostedPage, shown: Shown, **told: object) -> Response:
    token, cookie = visitor_form(deps, request)
    text = render(page, brand_of(deps.settings), msgspec.structs.replace(shown, token=token), **told)
    return html(text, cookie, status=ASK_AGAIN if shown.refused else 200)


def _json(options: Mapping[str, Any] | None) -> str:
    return "" if options is None else msgspec.json.encode(options).decode()
