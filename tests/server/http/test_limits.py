"""What one address may ask in a time: refused before anything is read or hashed, and told in standard fields."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import msgspec
import pytest

from jotgate import SettingsError
from jotgate.server import Settings, create_app
from jotgate.server.http.routes import ROUTES
from jotgate.server.secret import Secret
from tests.server.http.support import EMAIL, PASSWORD, Api, Clock, client_of, code
from tests.services import RedisServer

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
WRONG = {"email": EMAIL, "password": "not the right password", "delivery": "body"}
Start = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers with limits so low that a test reaches them."""
    async with AsyncExitStack() as stack:

        async def one(peer: str = "127.0.0.1", **changes: object) -> Api:
            # Guesses at one account, from wherever: tests/server/http/test_devices.py.
            settings = Settings(
                signup="open",
                data_dir=tmp_path / "data",
                hash_workers=1,
                limit_logins="3/minute",
                guesses_before_backoff=100,
            )
            settings = msgspec.structs.replace(settings, **changes)
            clock = Clock()
            app = create_app(settings, clock=clock)
            await stack.enter_async_context(app.lifespan())
            http = await stack.enter_async_context(client_of(app, peer=peer))
            return Api(app, http, clock, settings)

        yield one


def refused(answer: httpx2.Response, name: str) -> int:
    """Check the form of a refusal; gives the seconds to wait."""
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert (told["type"], told["code"], told["status"]) == (QUOTA_EXCEEDED, "quota_exceeded", 429)
    assert told["violated-policies"] == [name]
    wait_s = int(answer.headers["retry-after"])
    assert answer.headers["ratelimit"] == f'"{name}";r=0;t={wait_s}'
    assert answer.headers["ratelimit-policy"].startswith(f'"{name}";q=')
    return wait_s


async def test_guesses_from_one_address_end_and_go_on_when_the_answer_says_so(start: Start) -> None:
    api = await start()
    await api.signup()
    for left in (2, 1, 0):
        answer = await api.post("/v1/login", WRONG)
        assert code(answer) == (401, "invalid_credentials")
        assert answer.headers["ratelimit-policy"] == '"logins";q=3;w=60'
        assert f'"logins";r={left};' in answer.headers["ratelimit"]
    # Nothing is read or hashed for it: not even the body, which is far too large.
    wait_s = refused(await api.http.post("/v1/login", content=b"x" * 100_000), "logins")
    api.clock.now += wait_s - 1
    refused(await api.post("/v1/login", WRONG), "logins")
    api.clock.now += 1
    assert code(await api.post("/v1/login", WRONG)) == (401, "invalid_credentials")


async def test_who_knows_the_password_is_not_limited_by_it(start: Start) -> None:
    api = await start()
    await api.signup()
    for _ in range(10):
        await api.login()


async def test_guesses_at_a_change_of_password_count_as_logins_do(start: Start) -> None:
    api = await start()
    await api.signup()
    body = {"refresh_token": (await api.login())["refresh_token"], "new_password": "another correct horse"}
    for _ in range(3):
        answer = await api.post("/v1/password", body | {"current_password": "wrong" * 4})
        assert code(answer) == (401, "invalid_credentials")
    refused(await api.post("/v1/password", body | {"current_password": PASSWORD}), "logins")


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
async def test_an_address_is_limited_for_itself_and_one_of_ipv6_with_its_64(
    start: Start, first: str, second: str, together: bool
) -> None:
    api = await start(peer=first)
    for _ in range(3):
        assert (await api.post("/v1/login", WRONG)).status_code == 401
    refused(await api.post("/v1/login", WRONG), "logins")
    async with client_of(api.app, peer=second) as other:
        answer = await other.post("/v1/login", json=WRONG)
    assert answer.status_code == (429 if together else 401)


async def test_a_forged_header_makes_nobody_another_address(start: Start) -> None:
    api = await start()
    for n in range(3):
        forged = {"x-forwarded-for": f"203.0.113.{n}", "forwarded": f"for=203.0.113.{n}"}
        assert (await api.post("/v1/login", WRONG, headers=forged)).status_code == 401
    refused(await api.post("/v1/login", WRONG, headers={"x-forwarded-for": "203.0.113.9"}), "logins")


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("logins", "POST", "/v1/login"),
        ("signups", "POST", "/v1/signup"),
        ("refreshes", "POST", "/v1/refresh"),
        ("refreshes", "POST", "/oauth/token"),
        ("requests", "POST", "/v1/logout"),
        ("requests", "GET", "/v1/account"),
    ],
)
async def test_another_sites_page_does_not_use_up_its_visitors_allowance(
    start: Start, name: str, method: str, path: str
) -> None:
    api = await start(**{f"limit_{name}": "1/minute"})
    for marks in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}):
        for _ in range(2):
            answer = await api.http.request(method, path, content=b"{}" if method == "POST" else None, headers=marks)
            assert answer.status_code == 403
            assert "ratelimit" not in answer.headers
    assert (await api.http.request(method, path)).status_code not in {403, 429}
    # A program that says it is such a page, with a header that such a page cannot send, is counted.
    claimed = {"origin": "https://evil.example", "authorization": "Bearer x"}
    refused_anyway = await api.http.request(method, path, headers=claimed)
    assert refused_anyway.status_code == 429


async def test_behind_a_proxy_its_clients_are_limited_each(start: Start) -> None:
    api = await start(trusted_proxies=("127.0.0.1",))
    for n in range(10):
        assert (await api.post("/v1/login", WRONG, headers={"x-forwarded-for": f"203.0.113.{n}"})).status_code == 401
    for _ in range(3):
        answer = await api.post("/v1/login", WRONG, headers={"x-forwarded-for": "198.51.100.1, 203.0.113.99"})
    assert answer.status_code == 401
    refused(await api.post("/v1/login", WRONG, headers={"x-forwarded-for": "203.0.113.99"}), "logins")


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("signups", "POST", "/v1/signup"),
        ("refreshes", "POST", "/v1/refresh"),
        ("feed", "GET", "/revocations"),
        ("feed", "GET", "/revocations/stream"),
        ("requests", "GET", "/v1/account"),
        ("requests", "GET", "/v1/sessions"),
        ("requests", "POST", "/v1/logout"),
        ("requests", "POST", "/v1/logout/everywhere"),
        ("requests", "DELETE", "/v1/sessions/a"),
    ],
)
async def test_everything_that_costs_work_has_a_limit(start: Start, name: str, method: str, path: str) -> None:
    api = await start(**{f"limit_{name}": "1/minute"})
    first = "/revocations" if path == "/revocations/stream" else path  # a stream has no end
    assert (await api.http.request(method, first)).status_code != 429
    refused(await api.http.request(method, path), name)


def test_what_has_a_limit_is_described_with_it() -> None:
    limited = [route for route in ROUTES if route.limit is not None and not (route.form or route.page)]
    assert [route.path for route in limited if "quota_exceeded" not in route.problems] == []


VERIFIER = {"authorization": f"Bearer {'v' * 32}"}


async def test_a_verifier_that_the_server_knows_has_no_limit(start: Start) -> None:
    api = await start(limit_feed="1/minute", verifier_tokens=(Secret("v" * 32), Secret("w" * 32)))
    for token in "vwvwv":
        answer = await api.http.get("/revocations", headers={"authorization": f"bearer {token * 32}"})
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers
    assert (await api.http.get("/revocations")).status_code == 200
    refused(await api.http.get("/revocations"), "feed")
    assert (await api.http.get("/revocations", headers=VERIFIER)).status_code == 200


@pytest.mark.parametrize("token", ["x" * 32, "v" * 31, "v" * 33, "V" * 32, "not a token"])
async def test_a_verifier_that_only_says_so_is_refused_and_counts(start: Start, token: str) -> None:
    api = await start(limit_feed="2/minute", verifier_tokens=(Secret("v" * 32),))
    for _ in range(2):
        status, kind = code(await api.http.get("/revocations", headers={"authorization": f"Bearer {token}"}))
        assert (status, kind) == (401, "malformed_token" if " " in token else "unknown_verifier")
    refused(await api.http.get("/revocations", headers={"authorization": f"Bearer {token}"}), "feed")


async def test_a_verifier_token_over_clear_text_is_refused_so_that_somebody_notices(start: Start) -> None:
    api = await start(peer="192.0.2.1", http=True, verifier_tokens=(Secret("v" * 32),))
    async with client_of(api.app, "http://auth.example.com", peer="192.0.2.1") as http:
        assert code(await http.get("/revocations", headers=VERIFIER)) == (403, "clear_text_refused")
        assert (await http.get("/revocations")).status_code == 200


@pytest.mark.parametrize("token", ["v" * 31, "v" * 40 + "!", "v" * 20 + "é" * 20])
def test_a_verifier_token_that_could_be_guessed_or_not_be_sent_is_a_fault(token: str) -> None:
    with pytest.raises(SettingsError, match="verifier_tokens: a token has 32 characters or more") as caught:
        Settings(verifier_tokens=(Secret(token),))
    assert token not in str(caught.value)


async def test_the_token_endpoint_refuses_in_oauths_form(start: Start) -> None:
    api = await start(limit_refreshes="1/minute")
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    assert (await api.http.post("/oauth/token", data=form)).status_code == 400
    answer = await api.http.post("/oauth/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (429, "temporarily_unavailable")
    assert int(answer.headers["retry-after"]) == 60


async def test_who_uses_up_an_address_does_not_make_a_balancer_behind_it_believe_that_the_server_is_ill(
    start: Start,
) -> None:
    api = await start(limit_requests="1/minute")
    assert (await api.http.get("/v1/account")).status_code == 401
    refused(await api.http.get("/v1/account"), "requests")
    for _ in range(3):
        answer = await api.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_who_is_told_to_come_again_soon_is_told_no_later_time_beside_it(start: Start) -> None:
    """The draft's section 6: `Retry-After` is not before `t`. That is of the limit, and this of the database."""
    api = await start()
    api.app.start().store.close_now()
    answer = await api.post("/v1/login", WRONG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "ratelimit" not in answer.headers


async def test_what_costs_nothing_has_no_limit(start: Start) -> None:
    api = await start(**dict.fromkeys(("limit_requests", "limit_feed"), "1/minute"))
    for path in ("/healthz", "/.well-known/jwks.json", "/.well-known/openid-configuration", "/openapi.json"):
        for _ in range(3):
            answer = await api.http.get(path)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


def test_a_limit_that_is_none_is_a_fault_told_with_what_to_write() -> None:
    with pytest.raises(SettingsError, match=r"limit_logins: 'often' is not a limit\. Write '100/minute'"):
        Settings(limit_logins="often")


async def test_servers_on_one_redis_count_together(start: Start, redis_server: RedisServer, tmp_path: Path) -> None:
    shared = {"redis_url": Secret(redis_server.url), "limit_logins": "7/minute"}
    one = await start(**shared)
    two = await start(**shared, data_dir=tmp_path / "other")
    answers = [(await (one, two)[n % 2].post("/v1/login", WRONG)).status_code for n in range(10)]
    assert sorted(answers) == [401] * 7 + [429] * 3
    # Another issuer's are other allowances.
    other = await start(**shared, data_dir=tmp_path / "third", issuer="https://other.example.com")
    assert (await other.post("/v1/login", WRONG)).status_code == 401


async def test_while_redis_is_away_each_server_counts_for_itself_and_the_log_says_it_once(
    start: Start, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jotgate")
    api = await start(redis_url=Secret(own_redis.url), limit_logins="5/minute")
    for _ in range(2):
        assert (await api.post("/v1/login", WRONG)).status_code == 401
    own_redis.stop()
    answers = [(await api.post("/v1/login", WRONG)).status_code for _ in range(6)]
    assert answers == [401] * 3 + [429] * 3  # what was used up before is not free again
    own_redis.start()
    told = [json.loads(record.getMessage()) for record in caplog.records if record.name == "jotgate"]
    assert [each["event"] for each in told].count("limits_local") == 1
    assert own_redis.url not in caplog.text
