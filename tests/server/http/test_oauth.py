"""The token endpoint keeps RFC 6749's form: parameters, answers and errors."""

import httpx2
import pytest

from tests.server.http.support import EMAIL, Api, code


async def token_request(api: Api, **form: str) -> httpx2.Response:
    return await api.http.post("/oauth/token", data=form)


async def test_refresh_grant(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    answer = await token_request(
        api, grant_type="refresh_token", refresh_token=tokens["refresh_token"], client_id="web"
    )
    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert answer.json()["refresh_token"] != tokens["refresh_token"]
    assert answer.headers["pragma"] == "no-cache"


async def test_a_client_may_ask_for_fewer_scopes(api: Api) -> None:
    await api.signup()
    await api.app.start().store.grant_scope(EMAIL, "orders:read")
    tokens = await api.login()
    answer = await token_request(
        api, grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope="orders:read"
    )
    assert answer.json()["scope"] == "orders:read"
    claims = api.app.verifier().verify(answer.json()["access_token"])
    assert claims.has_scopes("orders:read")
    assert not claims.has_scopes("account:read")


async def test_wider_scopes_are_refused_and_use_nothing_up(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    before = api.dump()
    answer = await token_request(
        api, grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope="account:read admin"
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    assert api.dump() == before


REFUSED = {
    "no grant type": ({"refresh_token": "x"}, 400, "invalid_request"),
    "empty grant type": ({"grant_type": "", "refresh_token": "x"}, 400, "invalid_request"),
    "another grant type": ({"grant_type": "password", "username": "a"}, 400, "unsupported_grant_type"),
    "no refresh token": ({"grant_type": "refresh_token"}, 400, "invalid_request"),
    "garbage": ({"grant_type": "refresh_token", "refresh_token": "garbage"}, 400, "invalid_grant"),
    "another client": (
        {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "app"},
        401,
        "invalid_client",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_refusals_have_the_codes_of_the_rfc(api: Api, case: str) -> None:
    form, status, error = REFUSED[case]
    answer = await token_request(api, **form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_session_that_has_ended_is_an_invalid_grant(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    await api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]})
    answer = await token_request(api, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"grant_type=refresh_token&grant_type=refresh_token", "application/x-www-form-urlencoded"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"grant_type=%00", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(30)), "application/x-www-form-urlencoded"),
        (b'{"grant_type": "refresh_token"}', "application/json"),
    ],
)
async def test_malformed_requests_are_invalid_requests(api: Api, body: bytes, media_type: str) -> None:
    answer = await api.http.post("/oauth/token", content=body, headers={"content-type": media_type})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"] == "invalid_request"


async def test_client_authentication_is_refused_for_the_public_client(api: Api) -> None:
    answer = await api.http.post("/oauth/token", data={"grant_type": "refresh_token"}, auth=("web", "secret"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("scope", ["admin", "account:read", "account:read  account:read"])
async def test_a_reused_token_ends_the_session_whatever_it_asks_for(api: Api, scope: str) -> None:
    await api.signup()
    stolen = await api.login()
    current = (await api.refresh(stolen["refresh_token"])).json()
    current = (await api.refresh(current["refresh_token"])).json()
    api.clock.now += 11
    refused = await token_request(
        api, grant_type="refresh_token", refresh_token=stolen["refresh_token"], scope=scope, client_id="web"
    )
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert code(await api.refresh(current["refresh_token"])) == (401, "session_ended")


async def test_a_scope_that_is_repeated_counts_once(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    answer = await token_request(
        api, grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope=" ".join(["account:read"] * 1200)
    )
    assert (answer.status_code, answer.json()["scope"]) == (200, "account:read")
    assert api.app.verifier().verify(answer.json()["access_token"])["scope"] == "account:read"
