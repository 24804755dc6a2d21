"""The pages that links in mails lead to. A GET shows a form and uses nothing up; the form's POST does it.

A mail scanner that opens the link therefore harms nobody, and the link works on another device than the one that asked.
The code in the form is the proof that the POST is meant: no other site's page knows it.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from jotgate.core.errors import JotgateError
from jotgate.server.flows.address import confirm_email_change, undo_email_change, undo_factor
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.recovery import forgot_password, reset_password
from jotgate.server.flows.signup import confirm_signup
from jotgate.server.http.askers import origin_of_request
from jotgate.server.http.browser import check_not_cross_site
from jotgate.server.http.exchange import Request, Response
from jotgate.server.http.inputs import parse_form_body
from jotgate.server.pages import Brand, PageName, render_done, render_form, render_refusal, script, stylesheet
from jotgate.server.refusals import CodeRefused, InvalidCredentials, ParameterRefused
from jotgate.server.rules.accounts import InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings

STYLE_PATH: Final = "/pages/style.css"
SCRIPT_PATH: Final = "/pages/strength.js"
_POLICY: Final = (
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
PAGE_HEADERS: Final = (
    (b"content-security-policy", "; ".join(_POLICY).encode()),
    # Without any, a browser would not say of a form's POST which origin it comes from (Fetch standard, section 3.2).
    (b"referrer-policy", b"same-origin"),
)
"""What every page is sent with, in place of what the API's answers have."""
_HTML: Final = ((b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"))
_ASKED_AGAIN: Final = (InvalidCredentials, InvalidEmail, PasswordTooCommon, PasswordTooLong, PasswordTooShort)
_ASK_AGAIN: Final = 422  # of a wrong password, too: there is no scheme to challenge for (RFC 9110 section 15.5.2)
_LONGEST_CODE: Final = 64
_NO_CODE: Final = "This link is not whole: open it once more, just as it stands in the mail."

Act = Callable[[Deps, dict[str, str], int, Origin], Awaitable[object]]
Handler = Callable[[Deps, Request], Awaitable[Response]]


async def get_style(deps: Deps, request: Request) -> Response:
    """``GET /pages/style.css``."""
    return _static(stylesheet(deps.settings.brand_colour), b"text/css; charset=utf-8")


async def get_script(deps: Deps, request: Request) -> Response:
    """``GET /pages/strength.js``."""
    return _static(script(), b"text/javascript; charset=utf-8")


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
            return _form(deps, page, code[:_LONGEST_CODE], refused=str(refused), status=_ASK_AGAIN)
        return Response(200, render_done(page, _brand(deps.settings)).encode(), _HTML)

    return post


async def _confirm_signup(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await confirm_signup(deps, _code(form), Secret(form.get("password", "")), now, origin)


async def _forgot(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await forgot_password(deps, form.get("email", ""), now, origin)


async def _reset(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await reset_password(deps, _code(form), Secret(form.get("new_password", "")), now, origin)


async def _confirm_email(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await confirm_email_change(deps, _code(form), now, origin)


async def _undo_email(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await undo_email_change(deps, _code(form), now, origin)


async def _undo_factor(deps: Deps, form: dict[str, str], now: int, origin: Origin) -> None:
    await undo_factor(deps, _code(form), Secret(form.get("password", "")), now, origin)


ACTS: Final[dict[PageName, Act]] = {
    "confirm_signup": _confirm_signup,
    "forgot": _forgot,
    "reset": _reset,
    "confirm_email": _confirm_email,
    "undo_email": _undo_email,
    "undo_factor": _undo_factor,
}


def page_of_problem(error: Exception, answer: Response, settings: Settings) -> Response:
    """Return a page in place of the answer to an error, which decided upon status, headers and sentence."""
    said = str(error) if isinstance(error, JotgateError) and answer.status < 500 else _OURS
    headers = tuple(each for each in answer.headers if each[0] not in (b"content-type", b"cache-control"))
    return Response(answer.status, render_refusal(_brand(settings), said).encode(), (*_HTML, *headers))


def _code(form: dict[str, str]) -> str:
    if not form.get("code"):
        raise CodeRefused(_NO_CODE)
    return form["code"]


def _form(deps: Deps, page: PageName, code: str, *, refused: str = "", status: int = 200) -> Response:
    least = deps.settings.password_min_length
    text = render_form(page, _brand(deps.settings), code=code, refused=refused, min_length=least)
    return Response(status, text.encode(), _HTML)


def _brand(settings: Settings) -> Brand:
    return Brand(settings.brand_name, settings.home_url, settings.issuer_path)


def _static(text: str, media_type: bytes) -> Response:
    return Response(200, text.encode(), ((b"content-type", media_type), (b"cache-control", b"public, max-age=300")))


_OURS: Final = "The server cannot do this just now. Try again in a moment."
