"""Synchronizer tokens: the proof that a form was shown to whoever sends it (OWASP CSRF Prevention Cheat Sheet).

After the login they are for the session. Before it they are for a random cookie, so that no other site's page can log
its visitors in to an account of its own.
"""

import re
from collections.abc import Mapping
from typing import Final

from jotgate.core.encoding import encode_segment
from jotgate.server.flows.deps import Deps
from jotgate.server.http.browser import cookie, cookie_name, cookie_values
from jotgate.server.http.exchange import Request
from jotgate.server.records import Family
from jotgate.server.refusals import FormRefused

FIELD: Final = "form_token"
VISITOR_LIFE_S: Final = 86_400
_VISITOR_BYTES: Final = 16
_VISITOR: Final = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
_REFUSED: Final = (
    "This form was not shown to you in this session, or too long ago, or your browser keeps no cookies. "
    "Nothing was done: open the page anew."
)


def visitor_cookie_name(issuer: str) -> str:
    """Return the name of the cookie that forms before the login are for: as the session's, with another ending."""
    return f"{cookie_name(issuer)}-form"


def read_visitor(request: Request, issuer: str) -> str | None:
    """Return what the visitor's cookie holds; None without one, and for what this server does not write there."""
    values = cookie_values(request, visitor_cookie_name(issuer))
    return values[0] if len(values) == 1 and _VISITOR.fullmatch(values[0]) else None


def visitor_form(deps: Deps, request: Request) -> tuple[str, tuple[bytes, bytes]]:
    """Return the token of a form that is shown before the login, and the header that sets its cookie (anew).

    Raises:
        Busy: not now.
    """
    issuer = deps.settings.issuer
    visitor = read_visitor(request, issuer) or encode_segment(deps.random(_VISITOR_BYTES))
    token = deps.keys.factors.make_form_token(_of_visitor(visitor), random=deps.random)
    return token, cookie(visitor_cookie_name(issuer), visitor, VISITOR_LIFE_S)


def check_visitor_form(deps: Deps, request: Request, form: Mapping[str, str]) -> None:
    """Demand that a form before the login was shown to whoever sends it.

    Raises:
        FormRefused: it was not.
        Busy: not now.
    """
    visitor = read_visitor(request, deps.settings.issuer)
    _check(deps, form, None if visitor is None else _of_visitor(visitor))


def session_form(deps: Deps, family: Family) -> str:
    """Return the token of a form that is shown in a session.

    Raises:
        Busy: not now.
    """
    return deps.keys.factors.make_form_token(_of_session(family), random=deps.random)


def check_session_form(deps: Deps, family: Family, form: Mapping[str, str]) -> None:
    """Demand that a form was shown in this very session.

    Raises:
        FormRefused: it was not.
        Busy: not now.
    """
    _check(deps, form, _of_session(family))


def _check(deps: Deps, form: Mapping[str, str], holder: str | None) -> None:
    if holder is None or not deps.keys.factors.is_form_token(form.get(FIELD, ""), holder):
        raise FormRefused(_REFUSED)


def _of_visitor(visitor: str) -> str:
    return f"visitor {visitor}"


def _of_session(family: Family) -> str:
    return f"session {family.sid}"
