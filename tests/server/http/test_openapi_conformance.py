"""Whatever the description allows, and much that it does not, is sent to a running server: no 5xx, and every answer is
as described. With a session, with an access token, and with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from jotgate.server import Settings
from jotgate.server.http.documents import openapi
from tests.conftest import RunningServer, launch

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
ACCOUNT: Final = {"email": "ada@example.com", "password": "correct horse battery staple"}
UNLIMITED: Final = {
    f"JOTGATE_LIMIT_{kind}": "1000000/second"
    for kind in ("LOGINS", "SIGNUPS", "REFRESHES", "FEED", "REQUESTS", "SESSIONS", "STRANGERS", "DEVICE")
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = launch(["serve"], tmp_path_factory.mktemp("openapi") / "data", UNLIMITED)
    with running.client() as client:
        assert client.post("/v1/signup", json=ACCOUNT).status_code == 201
    yield running
    assert running.stop() == 0


SCHEMA: Final = schemathesis.openapi.from_dict(openapi(Settings()))
OPERATIONS: Final = {
    operation.label: operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok))
    if operation.path != "/revocations/stream"  # which has no end
}
EXAMPLES: Final = settings(
    max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def standing(server: RunningServer, kind: str) -> dict[str, str]:
    """Headers of somebody who has just logged in, or of nobody."""
    if kind == "nobody":
        return {}
    with server.client() as client:
        if kind == "bearer":
            tokens = client.post("/v1/login", json=ACCOUNT | {"delivery": "body"}).json()
            return {"authorization": f"Bearer {tokens['access_token']}"}
        page = {"jotgate-client": "1", "origin": server.url, "sec-fetch-site": "same-origin"}
        assert client.post("/v1/login", json=ACCOUNT, headers=page).status_code == 200
        return page | {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


KINDS: Final = ("nobody", "session", "bearer")


def play(label: str, kind: str, server: RunningServer, count: int) -> None:
    """Ask so many times."""
    with requests.Session() as session:
        session.trust_env = False

        @settings(EXAMPLES, max_examples=count)
        @given(OPERATIONS[label].as_strategy())
        def ask(case: Any) -> None:  # noqa: ANN401 - of that library
            case.call_and_validate(
                base_url=server.url,
                session=session,
                headers=standing(server, kind),
                checks=CHECKS,
                timeout=30,
                verify=str(server.ca_file),
            )

        ask()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", OPERATIONS, ids=str)
def test_every_answer_is_as_described(label: str, kind: str, server: RunningServer) -> None:
    play(label, kind, server, 6)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", OPERATIONS, ids=str)
def test_every_one_of_many_answers_is_as_described(label: str, kind: str, server: RunningServer) -> None:
    play(label, kind, server, 100)
