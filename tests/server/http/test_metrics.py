"""What Prometheus is told of a server: only with the token for it, in labels that no request can make up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jotgate import SettingsError
from jotgate.server import Settings, create_app
from jotgate.server.http.routes import ROUTES
from jotgate.server.secret import Secret
from tests.conftest import StartServer, sign_up
from tests.server.http.support import EMAIL, PASSWORD, Api, Clock, client_of, code

TOKEN = "m" * 40
SCRAPER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Api]:
    settings = Settings(
        signup="open", data_dir=tmp_path / "data", hash_workers=1, metrics_token=Secret(TOKEN), limit_signups="2/hour"
    )
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        yield Api(app, http, clock, settings)


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def value(text: str, name: str, **labels: str) -> float:
    return sum(found for each, own, found in samples(text) if each == name and labels.items() <= own.items())


async def scrape(api: Api) -> str:
    answer = await api.http.get("/metrics", headers=SCRAPER)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


async def test_without_a_metrics_token_there_is_no_such_page(api: Api) -> None:
    assert code(await api.http.get("/metrics", headers=SCRAPER)) == (404, "not_found")


@pytest.mark.parametrize("said", [{}, {"authorization": "Bearer " + "x" * 40}, {"authorization": f"Basic {TOKEN}"}])
async def test_who_has_not_the_token_is_told_nothing(counted: Api, said: dict[str, str]) -> None:
    assert code(await counted.http.get("/metrics", headers=said)) == (401, "metrics_refused")


async def test_answers_refusals_and_limits_are_counted(counted: Api) -> None:
    await counted.signup()
    await counted.login()
    for _ in range(3):
        await counted.post("/v1/login", {"email": EMAIL, "password": "not the password", "delivery": "body"})
    await counted.signup()
    await counted.signup("eve@example.com")
    await counted.http.delete("/v1/sessions/one-of-many")
    text = await scrape(counted)
    requests = "jotgate_http_requests_total"
    assert value(text, requests, route="/v1/login", method="POST", status="200") == 1
    assert value(text, requests, route="/v1/login", method="POST", status="401") == 3
    assert value(text, requests, route="/v1/sessions/{id}", method="DELETE") == 1
    assert value(text, "jotgate_refusals_total", code="invalid_credentials") == 3
    assert value(text, "jotgate_refusals_total", code="email_taken") == 1
    assert value(text, "jotgate_limited_total", limit="signups") == 1
    assert value(text, "jotgate_http_request_seconds_count", route="/v1/login") == 4
    assert value(text, "jotgate_keys_usable") == 1
    assert value(text, "jotgate_limits_shared") == 0
    assert value(text, "jotgate_password_checks") == 0


async def test_levels_are_those_of_the_moment(counted: Api) -> None:
    deps = counted.app.start()
    stream = await deps.feed.open_stream(None, address="192.0.2.1")
    await counted.signup()
    session = await counted.login()
    await counted.post("/v1/logout", {"refresh_token": session["refresh_token"]})
    text = await scrape(counted)
    assert value(text, "jotgate_feed_streams") == 1
    assert value(text, "jotgate_revocations") == 1
    await stream.aclose()
    assert value(await scrape(counted), "jotgate_feed_streams") == 0


async def test_no_request_makes_up_a_label(counted: Api) -> None:
    for n in range(50):
        await counted.http.request(f"VERB{n}", f"/{n}")
        await counted.http.get(f"/v1/sessions/{n}/{n}")
        await counted.http.request(f"VERB{n}", "/v1/login")
        await counted.http.get(f"/.well-known/{n}")
    text = await scrape(counted)
    labels = [own for name, own, _ in samples(text) if name == "jotgate_http_requests_total"]
    routes = {route.path for route in ROUTES}
    assert {own["route"] for own in labels} <= routes | {"other"}
    assert {own["method"] for own in labels} <= {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "other"}
    assert len(labels) < 20


async def test_metrics_tell_of_nobody(counted: Api) -> None:
    account = (await counted.signup()).json()["account"]
    tokens = await counted.login()
    text = await scrape(counted)
    secrets = (EMAIL, PASSWORD, TOKEN, account["id"], *(tokens[name] for name in ("access_token", "refresh_token")))
    assert [each for each in secrets if each in text] == []


async def test_metrics_do_not_travel_over_clear_text(counted: Api) -> None:
    settings = msgspec.structs.replace(counted.settings, http=True)
    app = create_app(settings, clock=counted.clock)
    async with app.lifespan(), client_of(app, "http://auth.example.com", peer="192.0.2.1") as http:
        assert code(await http.get("/metrics", headers=SCRAPER)) == (403, "clear_text_refused")


def test_a_metrics_token_that_could_be_guessed_is_a_fault() -> None:
    with pytest.raises(SettingsError, match="metrics_token: a token has 32 characters or more"):
        Settings(metrics_token=Secret("short"))


def test_who_does_not_count_does_not_load_what_counts() -> None:
    code_ = "import sys, jotgate.server; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code_], check=False).returncode == 0


def test_several_workers_are_counted_together_and_one_that_ended_has_no_streams(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("serve", "--workers", "2", data_dir=tmp_path / "data", env={"JOTGATE_METRICS_TOKEN": TOKEN})

    def told() -> str:
        with server.client() as client:  # a connection of its own: to either of them
            return client.get("/metrics", headers=SCRAPER).text

    for n in range(12):
        with server.client() as client:
            sign_up(client, f"person{n}@example.com")
    assert {value(told(), "jotgate_http_requests_total", route="/v1/signup") for _ in range(8)} == {12}
    with server.client() as client, client.stream("GET", "/revocations/stream") as stream:
        assert stream.status_code == 200
        wait_until(lambda: value(told(), "jotgate_feed_streams") == 1)
        os.kill(server.process.pid, signal.SIGHUP)  # new workers for old ones
        wait_until(lambda: value(told(), "jotgate_feed_streams") == 0)
    assert value(told(), "jotgate_http_requests_total", route="/v1/signup") == 12
    assert server.stop() == 0


def wait_until(true: object) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if true():  # type: ignore[operator] # a function
                return
        except httpx2.HTTPError:  # a worker that is being replaced
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
