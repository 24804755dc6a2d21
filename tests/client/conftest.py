"""One real server for the client's tests, generous enough for many people at one address."""

from collections.abc import Iterator

import pytest

from tests.conftest import RunningServer, launch

GENEROUS = {
    **{f"JOTGATE_LIMIT_{kind}": "100000/minute" for kind in ("LOGINS", "SIGNUPS", "REFRESHES", "REQUESTS", "SESSIONS")},
    "JOTGATE_GUESSES_BEFORE_BACKOFF": "1",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = launch(["serve"], tmp_path_factory.mktemp("client") / "data", GENEROUS)
    yield running
    assert running.stop() == 0
