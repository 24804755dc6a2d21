"""What every integration has to answer, in one place."""

from __future__ import annotations

import http
from typing import Any, Protocol

REALM = 'Bearer realm="api"'


class Answered(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...  # noqa: ANN401
    def json(self) -> Any: ...  # noqa: ANN401


def check_refusal(answer: Answered, status: int, code: str, challenge: str | None) -> None:
    """Check the whole refusal: status, challenge, content type and every member of the problem document."""
    assert answer.status_code == status
    assert answer.headers.get("www-authenticate") == challenge
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    problem = answer.json()
    assert problem.pop("detail")
    assert problem == {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
    }


def invalid_token(description: str) -> str:
    return f'{REALM}, error="invalid_token", error_description="{description}"'


LACKS = 'error="insufficient_scope", error_description="The access token lacks a scope that this needs."'
AMBIGUOUS = f'{REALM}, error="invalid_request", error_description="The request carries more than one credential."'
EXPIRED = invalid_token("The token has expired.")
TOO_OLD = (
    f'{REALM}, error="insufficient_user_authentication", '
    'error_description="Log in again: this needs a login in the last 300 seconds.", max_age="300"'
)
ONE_FACTOR = (
    f'{REALM}, error="insufficient_user_authentication", '
    'error_description="Log in again: this needs a login with a second factor or a passkey.", acr_values="aal2"'
)
OLD_OR_ONE_FACTOR = (
    f'{REALM}, error="insufficient_user_authentication", '
    'error_description="Log in again: this needs a login with a second factor or a passkey in the last 300 seconds.", '
    'acr_values="aal2", max_age="300"'
)
