"""Pages as answers: their headers, where a form sends on to, and how somebody who comes from another site arrives.

It knows no page and no endpoint.
"""

from typing import Final
from urllib.parse import quote, urlencode

from jotgate.core.errors import JotgateError
from jotgate.server.http.browser import read_cookie
from jotgate.server.http.exchange import Headers, Request, Response
from jotgate.server.http.forms import read_visitor
from jotgate.server.pages import Brand, render, render_refusal
from jotgate.server.refusals import FormRefused
from jotgate.server.rules.return_addresses import is_origin, return_address
from jotgate.server.settings import Settings, origin_of

LOGIN_PATH: Final = "/login"
ACCOUNT_PATH: Final = "/account"
ASK_AGAIN: Final = 422  # of a wrong password, too: there is no scheme to challenge for (RFC 9110 section 15.5.2)
_HTML: Final = ((b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"))
_ARRIVED: Final = "arrived"
_NOTICE: Final = "notice"
_HARMLESS: Final = ("log_in_first", "step_up")
_RETURN: Final = "return_to"
_OURS: Final = "The server cannot do this just now. Try again in a moment."


def page_headers(settings: Settings) -> Headers:
    """Return what every page is sent with, in place of what the API's answers have."""
    logo = settings.brand_logo_url
    policy = (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        *([] if logo is None else [f"img-src {origin_of(logo)}"]),
        # Browsers hold a form to it on every redirect, too, so where a login goes back to has to stand there.
        " ".join(("form-action 'self'", *return_origins(settings))),
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    return (
        (b"content-security-policy", "; ".join(policy).encode()),
        # Without any, a browser would not say of a form's POST which origin it comes from (Fetch standard, 3.2).
        (b"referrer-policy", b"same-origin"),
    )


def brand_of(settings: Settings) -> Brand:
    """Return how the operator's site shows itself."""
    return Brand(settings.brand_name, settings.home_url, settings.issuer_path, settings.brand_logo_url)


def html(text: str, *headers: tuple[bytes, bytes], status: int = 200) -> Response:
    """Return a page as an answer that nobody keeps."""
    return Response(status, text.encode(), (*_HTML, *headers))


def see_other(settings: Settings, path: str, *headers: tuple[bytes, bytes], **query: str) -> Response:
    """Return what sends on to a page of ours (303: by GET, whatever came before).

    Args:
        query: ``notice``: the name of a sentence that is shown there; ``return_to``: as ``return_to`` returns it.
    """
    return send_to(settings.issuer_path + path + (f"?{urlencode(query)}" if query else ""), *headers)


def send_to(address: str, *headers: tuple[bytes, bytes]) -> Response:
    """Return what sends on to an address that ``return_to`` has returned, or to a path of ours."""
    return Response(303, b"", ((b"location", address.encode("ascii")), (b"cache-control", b"no-store"), *headers))


def return_origins(settings: Settings) -> tuple[str, ...]:
    """Return the origins besides the issuer's own that a login may go back to."""
    home = () if settings.home_url is None else (origin_of(settings.home_url),)
    return tuple(each for each in dict.fromkeys((*settings.allowed_origins, *home)) if is_origin(each))


def return_to(settings: Settings, text: str | None) -> str:
    """Return where a login goes back to; empty where nothing is said of it, or not one of the allowed places."""
    return return_address(text or "", own=settings.origin, others=return_origins(settings)) or ""


def asked_return(settings: Settings, request: Request) -> str:
    """Return where the request wants to go back to, as ``return_to`` does.

    Raises:
        ParameterRefused: it says so twice.
    """
    return return_to(settings, request.parameter(_RETURN))


def notice_of(request: Request) -> str:
    """Return the name of what the page before wants to be said.

    Another site's page, or a link in a message, has nothing to say here, save what is true of whoever follows it.

    Raises:
        ParameterRefused: it stands there twice.
    """
    notice = request.parameter(_NOTICE) or ""
    return notice if notice in _HARMLESS or request.one(b"sec-fetch-site") in (None, "same-origin") else ""


def arrival(settings: Settings, request: Request) -> Response | None:
    """Return a page that goes on to the one that is asked for, where that is asked for from another site's page.

    From there browsers withhold our cookies (SameSite=Strict), and from this page they do not. Whoever has been here
    goes on, cookies or not.

    Raises:
        ParameterRefused, HeaderRefused: something stands there twice.
    """
    if request.one(b"sec-fetch-site") != "cross-site" or request.parameter(_ARRIVED) is not None:
        return None
    if read_cookie(request, settings.issuer) is not None or read_visitor(request, settings.issuer) is not None:
        return None
    query = {_ARRIVED: "1"}
    if back := asked_return(settings, request):
        query[_RETURN] = back
    there = f"{settings.issuer_path}{quote(request.path)}?{urlencode(query)}"
    return html(render("arrival", brand_of(settings), there=there))


def page_of_problem(error: Exception, answer: Response, request: Request, settings: Settings) -> Response:
    """Return a page in place of the answer to an error, which decided upon status, headers and sentence."""
    said = str(error) if isinstance(error, JotgateError) and answer.status < 500 else _OURS
    # Not where the form was sent to: nothing may be shown there.
    again = f"{settings.issuer_path}/{request.path.split('/')[1]}" if isinstance(error, FormRefused) else ""
    headers = tuple(each for each in answer.headers if each[0] not in (b"content-type", b"cache-control"))
    return html(render_refusal(brand_of(settings), said, again=again), *headers, status=answer.status)
