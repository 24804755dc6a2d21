"""What a browser may do with the session cookie, and what it is kept from (RFC 10017, Fetch Metadata, CORS)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jotgate.server import Settings, create_app
from jotgate.server.device_tokens import DEVICE_LIFE_S
from tests.server.http.support import BROWSER, EMAIL, ORIGIN, PASSWORD, Api, Clock, client_of, code

LOGIN = {"email": EMAIL, "password": PASSWORD}
NAME = "__Host-Http-jotgate-8d25ae63"  # of https://localhost:8443
FRONT_END = "https://shop.example.com"


async def test_the_cookie_has_every_protection_a_browser_offers(api: Api) -> None:
    await api.signup()
    answer = await api.browser_login()
    assert "refresh_token" not in answer.json()
    lives = {NAME: ("jgr_", api.settings.session_idle_s), f"{NAME}-device": ("jgd_", DEVICE_LIFE_S)}
    for cookie in answer.headers.get_list("set-cookie"):
        name, _, rest = cookie.partition("=")
        value, *attributes = rest.split("; ")
        prefix, life_s = lives.pop(name)
        assert value.startswith(prefix)
        assert attributes == [f"Max-Age={life_s}", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"]
    assert lives == {}


async def test_a_page_of_our_own_refreshes_reads_and_logs_out(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    first = api.http.cookies[NAME]
    refreshed = await api.post("/v1/refresh", headers=BROWSER)
    assert refreshed.status_code == 200
    assert api.http.cookies[NAME] != first
    assert (await api.http.get("/v1/account", headers=BROWSER)).json()["email"] == EMAIL
    logout = await api.post("/v1/logout", headers=BROWSER)
    assert logout.status_code == 204
    assert "Max-Age=0" in logout.headers["set-cookie"]
    assert NAME not in api.http.cookies


FORGERIES = {
    "another origin": {"jotgate-client": "1", "origin": "https://evil.example"},
    "an opaque origin": {"jotgate-client": "1", "origin": "null"},
    "our host over http": {"jotgate-client": "1", "origin": "http://localhost:8443"},
    "another port": {"jotgate-client": "1", "origin": "https://localhost:9999"},
    "our origin as a prefix": {"jotgate-client": "1", "origin": ORIGIN + ".evil.example"},
    "cross-site by Fetch Metadata": {"jotgate-client": "1", "sec-fetch-site": "cross-site"},
    "cross-site with our origin": {"jotgate-client": "1", "sec-fetch-site": "cross-site", "origin": ORIGIN},
    "same-site without an origin": {"jotgate-client": "1", "sec-fetch-site": "same-site"},
    "typed by the person": {"jotgate-client": "1", "sec-fetch-site": "none"},
    "without our header": {"origin": ORIGIN, "sec-fetch-site": "same-origin"},
    "with another value of our header": {"jotgate-client": "0", "origin": ORIGIN, "sec-fetch-site": "same-origin"},
    "without any proof": {"jotgate-client": "1"},
    "with nothing": {},
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_the_cookie_does_nothing_for_another_sites_page(api: Api, forgery: str) -> None:
    await api.signup()
    await api.browser_login()
    before = api.dump()
    headers = FORGERIES[forgery]
    answers = [
        await api.post("/v1/refresh", headers=headers),
        await api.post("/v1/logout", headers=headers),
        await api.http.get("/v1/account", headers=headers),
        await api.post("/v1/login", LOGIN, headers=headers),
    ]
    assert [code(answer) for answer in answers] == [(403, "cross_site_refused")] * 4
    assert not any("set-cookie" in answer.headers for answer in answers)
    assert api.dump() == before


@pytest.mark.parametrize("mark", [{"origin": ORIGIN}, {"sec-fetch-mode": "cors"}, {"sec-fetch-site": "same-origin"}])
async def test_a_browser_never_gets_or_sends_the_refresh_token_in_a_body(api: Api, mark: dict[str, str]) -> None:
    await api.signup()
    tokens = await api.login()
    token = {"refresh_token": tokens["refresh_token"]}
    before = api.dump()
    answers = [
        await api.post("/v1/login", LOGIN | {"delivery": "body"}, headers=BROWSER | mark),
        await api.post("/v1/refresh", token, headers=BROWSER | mark),
        await api.post("/v1/logout", token, headers=BROWSER | mark),
    ]
    assert [code(answer) for answer in answers] == [(400, "browser_delivery_refused")] * 3
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answer = await api.http.post("/oauth/token", data=form, headers=mark)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert api.dump() == before


async def test_the_cookie_beside_a_token_in_the_body_is_refused(api: Api) -> None:
    await api.signup()
    token = (await api.login())["refresh_token"]
    await api.browser_login()
    assert code(await api.refresh(token)) == (400, "browser_delivery_refused")
    answer = await api.post("/v1/login", LOGIN | {"delivery": "body"})
    assert code(answer) == (400, "browser_delivery_refused")


async def test_two_cookies_of_the_name_are_refused(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    value = api.http.cookies[NAME]
    api.http.cookies.clear()
    headers = BROWSER | {"cookie": f"{NAME}=jgr_x; {NAME}={value}"}
    assert code(await api.post("/v1/refresh", headers=headers)) == (400, "invalid_header")


async def test_http2_may_split_the_cookie_header(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    value = api.http.cookies[NAME]
    api.http.cookies.clear()
    headers = [*BROWSER.items(), ("cookie", "theme=dark"), ("cookie", f"{NAME}={value}")]
    assert (await api.http.post("/v1/refresh", headers=headers)).status_code == 200


async def test_a_login_ends_the_session_whose_cookie_it_replaces(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    first = api.http.cookies[NAME]
    await api.browser_login()
    assert api.http.cookies[NAME] != first
    api.http.cookies.clear()
    api.http.cookies.set(NAME, first, domain="localhost.local")
    headers = BROWSER | {"cookie": f"{NAME}={first}"}
    assert code(await api.http.post("/v1/refresh", headers=headers)) == (401, "session_ended")


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Api]:
    """A server whose front end is on another host of the same site."""
    settings = Settings(
        signup="open",
        issuer="https://auth.example.com",
        data_dir=tmp_path / "beside",
        allowed_origins=(FRONT_END,),
        hash_workers=1,
    )
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app, "https://auth.example.com") as http:
        yield Api(app, http, clock, settings)


async def test_an_allowed_same_site_origin_gets_credentialed_cors(beside: Api) -> None:
    await beside.signup()
    page = {"jotgate-client": "1", "origin": FRONT_END, "sec-fetch-site": "same-site"}
    answer = await beside.post("/v1/login", LOGIN, headers=page)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == FRONT_END
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["vary"] == "Origin"
    # Pages must be able to read why they were refused.
    refused = await beside.post("/v1/login", LOGIN | {"password": "x" * 20}, headers=page)
    assert code(refused) == (401, "invalid_credentials")
    assert refused.headers["access-control-allow-origin"] == FRONT_END


async def test_the_preflight_of_an_allowed_origin_is_answered(beside: Api) -> None:
    answer = await beside.http.options(
        "/v1/login", headers={"origin": FRONT_END, "access-control-request-method": "POST"}
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == FRONT_END
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert "jotgate-client" in answer.headers["access-control-allow-headers"]


async def test_other_origins_get_no_cors(beside: Api) -> None:
    for origin in ("https://evil.example", "https://evil.example.com", "null", FRONT_END + ".evil.example"):
        answer = await beside.http.options(
            "/v1/login", headers={"origin": origin, "access-control-request-method": "POST"}
        )
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"
        posted = await beside.post("/v1/login", LOGIN, headers={"jotgate-client": "1", "origin": origin})
        assert code(posted) == (403, "cross_site_refused")
        assert "access-control-allow-origin" not in posted.headers


async def test_a_cross_site_page_cannot_sign_anybody_up(api: Api) -> None:
    answer = await api.post("/v1/signup", LOGIN, headers={"origin": "https://evil.example"})
    assert code(answer) == (403, "cross_site_refused")
