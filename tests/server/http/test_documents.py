"""Key set, metadata, OpenAPI, health; and the headers on everything."""

import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from jotgate import KeySet, Policy, verify_token
from jotgate.server import Settings, create_app
from jotgate.server.http.routes import ROUTES
from tests.server.http.support import EMAIL, PASSWORD, Api, Clock, client_of, code


async def test_the_key_set_verifies_the_tokens_and_holds_nothing_private(api: Api) -> None:
    await api.signup()
    token = (await api.login())["access_token"]
    answer = await api.http.get("/.well-known/jwks.json")
    assert {"d", "p", "q", "k", "dp", "dq", "qi"}.isdisjoint(answer.json()["keys"][0])
    policy = Policy(issuer=api.settings.issuer, audience=api.settings.audience)
    assert verify_token(token, KeySet.from_jwks(answer.content), policy, api.clock.now).client_id == "web"


async def test_documents_are_cached_and_revalidated(api: Api) -> None:
    first = await api.http.get("/.well-known/jwks.json")
    assert first.headers["cache-control"] == "public, max-age=300"
    etag = first.headers["etag"]
    for value in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await api.http.get("/.well-known/jwks.json", headers={"if-none-match": value})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await api.http.get("/.well-known/jwks.json", headers={"if-none-match": '"other"'})).status_code == 200


async def test_any_origin_may_read_public_documents_and_none_the_rest(api: Api) -> None:
    origin = {"origin": "https://anything.example"}
    for path in ("/.well-known/jwks.json", "/.well-known/openid-configuration", "/openapi.json", "/healthz"):
        answer = await api.http.get(path, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in (await api.http.get("/v1/account", headers=origin)).headers


@pytest.mark.parametrize("issuer", ["https://localhost:8443", "https://localhost:8443/auth", "https://h.example/a/b"])
async def test_metadata_stands_where_clients_look_whatever_the_host_header_says(tmp_path: Path, issuer: str) -> None:
    """Mounted in another app under the issuer's path, with the routes for its root (RFC 8414 section 3.1)."""
    auth = create_app(Settings(signup="open", issuer=issuer, data_dir=tmp_path / "data"), clock=Clock())
    path = auth.settings.issuer_path
    host = Starlette(routes=[*auth.well_known_routes(), Mount(path, auth)])
    async with auth.lifespan(), client_of(host) as http:
        for place in (
            f"/.well-known/oauth-authorization-server{path}",
            f"{path}/.well-known/openid-configuration",
            f"{path}/.well-known/oauth-authorization-server",
        ):
            metadata = (await http.get(place, headers={"host": "evil.example"})).json()
            assert metadata["issuer"] == issuer
            assert metadata["jwks_uri"] == f"{issuer}/.well-known/jwks.json"
            assert metadata["token_endpoint"] == f"{issuer}/oauth/token"
        assert (await http.get(f"{path}/.well-known/jwks.json")).json()["keys"]
        signup = await http.post(f"{path}/v1/signup", json={"email": EMAIL, "password": PASSWORD})
        assert signup.status_code == 201


async def test_alone_behind_a_proxy_that_passes_the_issuers_path_through(tmp_path: Path) -> None:
    auth = create_app(
        Settings(signup="open", issuer="https://shop.example/auth", data_dir=tmp_path / "data"), clock=Clock()
    )
    async with auth.lifespan(), client_of(auth) as http:
        assert (await http.get("/auth/healthz")).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        for place in ("/.well-known/oauth-authorization-server/auth", "/auth/.well-known/openid-configuration"):
            assert (await http.get(place)).json()["issuer"] == "https://shop.example/auth"
        assert code(await http.get("/authentic/healthz")) == (404, "not_found")


async def test_the_app_starts_with_the_first_request_where_the_host_runs_no_lifespan(tmp_path: Path) -> None:
    auth = create_app(Settings(signup="open", data_dir=tmp_path / "data"), clock=Clock())
    async with client_of(auth) as http:
        assert (await http.get("/readyz")).json() == {"status": "ok"}
    auth.close()


async def test_openapi_describes_exactly_the_routes(api: Api) -> None:
    description = (await api.http.get("/openapi.json")).json()
    assert description["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    documents = {
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/revocation-keys.json",
        "/openapi.json",
    }
    assert described == {(route.method, route.path) for route in ROUTES if not route.page} | {
        ("GET", path) for path in documents
    }
    ids = [operation["operationId"] for item in description["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    # Every reference resolves.
    for part in json.dumps(description).split('"$ref": "')[1:]:
        assert part.split('"')[0].removeprefix("#/components/schemas/") in description["components"]["schemas"]
    assert description["components"]["schemas"]["LoginInput"]["additionalProperties"] is False
    assert description["components"]["schemas"]["LoginInput"]["properties"]["password"]["format"] == "password"


async def test_token_answers_are_never_stored(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    login = await api.post("/v1/login", {"email": EMAIL, "password": PASSWORD, "delivery": "body"})
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    for answer in (login, await api.http.post("/oauth/token", data=form), await api.http.get("/v1/account")):
        assert answer.headers["cache-control"] == "no-store"


async def test_hsts_is_sent_for_a_real_host_and_not_for_localhost(api: Api, tmp_path: Path) -> None:
    assert "strict-transport-security" not in (await api.http.get("/healthz")).headers
    auth = create_app(
        Settings(signup="open", issuer="https://auth.example.com", data_dir=tmp_path / "real"), clock=Clock()
    )
    async with auth.lifespan(), client_of(auth, "https://auth.example.com") as http:
        answer = await http.get("/healthz")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_every_answer_has_the_headers_that_a_browser_expects(api: Api) -> None:
    for method, path in (
        *((route.method, route.path) for route in ROUTES if not route.path.endswith("/stream")),
        ("GET", "/nothing/here"),
        ("PUT", "/v1/login"),
        ("OPTIONS", "/v1/login"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/openapi.json"),
    ):
        headers = (await api.http.request(method, path)).headers
        page = any(route.page for route in ROUTES if route.path == path)
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith("frame-ancestors 'none'")
        assert page == ("script-src 'self'" in policy)
        assert "unsafe" not in policy
        assert headers["referrer-policy"] == ("same-origin" if page else "no-referrer")
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["permissions-policy"].startswith("camera=(), ")
        # Only what any origin may read may be embedded by any.
        public = headers.get("access-control-allow-origin") == "*"
        assert headers["cross-origin-resource-policy"] == ("cross-origin" if public else "same-origin")


async def test_readiness_fails_when_the_database_does(api: Api) -> None:
    await api.app.start().store.close()
    assert code(await api.http.get("/readyz")) == (503, "unavailable")
    assert (await api.http.get("/healthz")).status_code == 200
    answer = await api.post("/v1/login", {"email": EMAIL, "password": PASSWORD, "delivery": "body"})
    assert code(answer) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
