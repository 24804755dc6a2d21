"""The app that the API's tests drive."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jotgate.server import Settings, create_app
from tests.server.http.support import Api, Clock, client_of


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1)
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        yield Api(app, http, clock, settings)
