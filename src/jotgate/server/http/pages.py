"""The pages that links in mails lead to. A GET shows a form and uses nothing up; the form's POST does it.

A mail scanner that opens the link therefore harms nobody, and the link works on another device than the one that asked.
The code in the form is the proof that the POST is meant: no other site's page knows it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from jotgate.server.flows.address import confirm_email_change
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.recovery import forgot_password, reset_password
from jotgate.server.flows.signup import confirm_signup
from jotgate.server.flows.undoing import undo
from jotgate.server.http.askers import origin_of_request
from jotgate.server.http.browser import check_not_cross_site
from jotgate.server.http.exchange import Request, Response
from jotgate.server.http.inputs import parse_form_body
from jotgate.server.http.showing import ASK_AGAIN, brand_of, html
from jotgate.server.pages import PageName, Script, render_done, render_form, script, stylesheet
from jotgate.server.records import CodePurpose
from jotgate.server.refusals import CodeRefused, InvalidCredentials, ParameterRefused
from jotgate.server.rules.accounts import InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort
from jotgate.server.secret import Secret

STYLE_PATH: Final = "/pages/style.css"
_ASKED_AGAIN: Final = (InvalidCredentials, InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort)
_LONGEST_CODE: Final = 64
_NO_CODE: Final = "This link is not whole: open it once more, just as it stands in the mail."

Act = Callable[[Deps, dict[str, str], int, Origin], Awaitable[object]]
Handler = Callable[[Deps, Request], Awaitable[Response]]


async def get_style(deps: Deps, request: Request) -> Response:
    """``GET /pages/style.css``."""
    return _static(stylesheet(deps.settings.brand_colour), b"text/css; charset=utf-8")


def giving(name: Script) -> Handler:
    """Return the endpoint that gives a script of the pages."""

    async def get(deps: Deps, request: Request) -> Response:
        return _static(script(name), b"text/javascript; charset=utf-8")

    return get


def showing(page: PageName) -> Handler:
    """Return the endpoint that shows a page's form."""

    async def get(deps: Deps, request: Request) -> Response:
        code = ""
        if page != "forgot":
            code = request.parameter("code") or ""
            if not 0 < len(code) <= _LONGEST_CODE:
                raise ParameterRefused(_NO_CODE)
        return _form(deps, page, code)

    return get


def doing(page: PageName, act: Act) -> Handler:
    """Return the endpoint that takes a page's form."""

    async def post(deps: Deps, request: Request) -> Response:
        check_not_cross_site(request, deps.settings)
        form = parse_form_body(request)
        code = form.get("code", "")
        try:
            await act(deps, form, deps.clock(), origin_of_request(request))
        except _ASKED_AGAIN as refused:
            return _form(deps, page, code[:_LONGEST_CODE], refused=str(refused), status=ASK_AGAIN)
        return html(render_done(page, brand_of(deps.settings)))

    return post


async def _confirm_signup(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await confirm_signup(deps, _code(form), Secret(form.get("password", "")), now, origin)


async def _forgot(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await forgot_password(deps, form.get("email", ""), now, origin)


async def _reset(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await reset_password(deps, _code(form), Secret(form.get("new_password", "")), now, origin)


async def _confirm_email(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await confirm_email_change(deps, _code(form), now, origin)


def _undoing(purpose: CodePurpose) -> Act:
    async def act(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
        password = Secret(form["password"]) if "password" in form else None
        await undo(deps, purpose, _code(form), now, origin, password=password)

    return act


ACTS: Final[dict[PageName, Act]] = {
    "confirm_signup": _confirm_signup,
    "forgot": _forgot,
    "reset": _reset,
    "confirm_email": _confirm_email,
    "undo_email": _undoing("undo_email"),
    "undo_factor": _undoing("undo_factor"),
    "undo_password": _undoing("undo_password"),
}


def _code(form: dict[str, str]) -> str:
    if not form.get("code"):
        raise CodeRefused(_NO_CODE)
    return form["code"]


def _form(deps: Deps, page: PageName, code: str, *, refused: str = "", status: int = 200) -> Response:
    least = deps.settings.password_min_length
    text = render_form(page, brand_of(deps.settings), code=code, refused=refused, min_length=least)
    return html(text, status=status)


def _static(text: str, media_type: bytes) -> Response:
    return Response(200, text.encode(), ((b"content-type", media_type), (b"cache-control", b"public, max-age=300")))
