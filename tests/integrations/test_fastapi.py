"""A FastAPI app that does nothing but say what its routes require."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient, WebSocketDenialResponse

from jotgate import Claims, KeySet, KeySourceError, Verifier
from jotgate.integrations.fastapi import Auth, AuthRefused
from jotgate.testing import TestAuth
from jotgate.verifier.transport import Answer
from tests.integrations.answers import AMBIGUOUS, EXPIRED, LACKS, ONE_FACTOR, REALM, TOO_OLD, check_refusal


def make_app(verifier: Verifier) -> FastAPI:
    app, auth = FastAPI(), Auth(verifier)
    reader = auth.require("orders:read")

    @app.get("/orders")
    def orders(claims: Claims = Depends(reader)) -> str:
        assert threading.current_thread().name.startswith("AnyIO worker")
        return claims.subject

    @app.get("/orders-async")
    async def orders_async(claims: Annotated[Claims, Depends(auth.require("orders:read"))]) -> str:
        return claims.subject

    @app.get("/orders-security")
    async def orders_security(claims: Annotated[Claims, Security(auth.require(), scopes=["orders:read"])]) -> str:
        return claims.subject

    @app.get("/maybe")
    async def maybe(claims: Annotated[Claims | None, Depends(auth.optional())]) -> str | None:
        return claims.subject if claims else None

    @app.post("/stream", status_code=204, dependencies=[Depends(auth.stream_cookie("orders:read"))])
    async def open_stream() -> None: ...

    @app.post("/stream-response")
    async def open_stream_response(request: Request, claims: Annotated[Claims, Depends(reader)]) -> Response:
        response = JSONResponse(claims.subject)
        auth.set_stream_cookie(request, response)
        return response

    @app.get("/stream")
    async def stream(claims: Annotated[Claims, Depends(auth.require("orders:read", stream=True))]) -> Response:
        async def events() -> AsyncIterator[str]:
            yield f"data: {claims.subject}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, claims: Annotated[Claims, Depends(reader)]) -> None:
        await websocket.accept()
        await websocket.send_json(claims.subject)
        await websocket.close()

    @app.get("/address")
    async def address(claims: Annotated[Claims, Depends(auth.require("orders:read", max_age_s=300))]) -> str:
        return claims.subject

    router = APIRouter(prefix="/admin", dependencies=[Depends(auth.require("admin"))])

    @router.get("/orders")
    async def admin_orders(claims: Annotated[Claims, Depends(reader)]) -> str:
        return claims.subject

    @router.get("/refunds")
    async def admin_refunds(claims: Annotated[Claims, Depends(auth.require("admin", factor="second"))]) -> str:
        return claims.subject

    app.include_router(router)
    return app


@pytest.fixture
def client(kit: TestAuth) -> Iterator[TestClient]:
    with kit.client(make_app(kit.verifier)) as made:
        yield made


NEEDS_READ = f'{REALM}, {LACKS}, scope="orders:read"'


@pytest.mark.parametrize("path", ["/orders", "/orders-async", "/orders-security"])
def test_one_parameter_protects_a_route_with_the_exact_answers(kit: TestAuth, client: TestClient, path: str) -> None:
    answer = client.get(path, headers=kit.bearer("alice", scopes=["orders:read", "more"]))
    assert (answer.status_code, answer.json()) == (200, "alice")
    check_refusal(client.get(path), 401, "missing_credential", REALM)
    check_refusal(client.get(path, headers=kit.bearer("alice", expired=True)), 401, "token_expired", EXPIRED)
    check_refusal(
        client.get(path, headers=kit.bearer("alice", scopes=["orders"])), 403, "insufficient_scope", NEEDS_READ
    )


def test_a_login_of_ten_minutes_ago_is_too_old_for_a_route_that_says_five(kit: TestAuth, client: TestClient) -> None:
    recent = kit.bearer("alice", scopes=["orders:read"], auth_time=kit.clock() - 60)
    assert client.get("/address", headers=recent).json() == "alice"
    for auth_time in (kit.clock() - 600, None):
        answer = client.get("/address", headers=kit.bearer("alice", scopes=["orders:read"], auth_time=auth_time))
        check_refusal(answer, 401, "insufficient_user_authentication", TOO_OLD)
    answer = client.get("/address", headers=kit.bearer("alice"))
    check_refusal(answer, 403, "insufficient_scope", NEEDS_READ)


def test_a_routes_own_demand_of_a_second_factor_counts_besides_its_routers(kit: TestAuth, client: TestClient) -> None:
    """Both ask for the same scope: were they taken for the same dependency, the router's would be the only one."""
    strong, weak = (kit.bearer("alice", scopes=["admin"], methods=methods) for methods in (["pwd", "mfa"], ["pwd"]))
    assert client.get("/admin/refunds", headers=strong).json() == "alice"
    check_refusal(client.get("/admin/refunds", headers=weak), 401, "insufficient_user_authentication", ONE_FACTOR)


@pytest.mark.parametrize("faulty", [{"max_age_s": -1}, {"max_age_s": True}, {"factor": "third"}], ids=str)
def test_a_login_that_cannot_be_is_a_fault_of_the_program(kit: TestAuth, faulty: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(faulty))):
        Auth(kit.verifier).require(**faulty)


def test_two_authorization_headers_are_refused(kit: TestAuth, client: TestClient) -> None:
    value = kit.bearer("alice", scopes=["orders:read"])["Authorization"]
    answer = client.get("/orders", headers=[("Authorization", value), ("Authorization", value)])
    check_refusal(answer, 400, "ambiguous_credential", AMBIGUOUS)


def test_a_token_in_the_query_is_nothing(kit: TestAuth, client: TestClient) -> None:
    answer = client.get("/orders", params={"access_token": kit.token("alice", scopes=["orders:read"])})
    check_refusal(answer, 401, "missing_credential", REALM)


def test_a_routers_dependency_and_a_routes_own_both_count(kit: TestAuth, client: TestClient) -> None:
    both = kit.bearer("alice", scopes=["admin", "orders:read"])
    assert client.get("/admin/orders", headers=both).json() == "alice"
    answer = client.get("/admin/orders", headers=kit.bearer("alice", scopes=["orders:read"]))
    check_refusal(answer, 403, "insufficient_scope", f'{REALM}, {LACKS}, scope="admin"')
    answer = client.get("/admin/orders", headers=kit.bearer("alice", scopes=["admin"]))
    check_refusal(answer, 403, "insufficient_scope", NEEDS_READ)


def test_optional_gives_none_without_a_token_and_refuses_a_bad_one(kit: TestAuth, client: TestClient) -> None:
    assert client.get("/maybe").json() is None
    assert client.get("/maybe", headers=kit.bearer("alice")).json() == "alice"
    check_refusal(client.get("/maybe", headers=kit.bearer("alice", expired=True)), 401, "token_expired", EXPIRED)


def test_without_keys_the_answer_is_503_with_retry_after(kit: TestAuth) -> None:
    class Nothing:
        def snapshot(self) -> object:
            raise KeySourceError("Nobody there.")

    verifier = Verifier(issuer=kit.issuer, audience="api", source=Nothing())  # type: ignore[arg-type]
    answer = kit.client(make_app(verifier)).get("/orders", headers=kit.bearer("alice"))
    check_refusal(answer, 503, "key_source_unavailable", None)
    assert answer.headers["retry-after"] == "2"


EVENT_SOURCE = {"Accept": "text/event-stream", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "empty"}


@pytest.mark.parametrize("path", ["/stream", "/stream-response"])
def test_an_event_source_gets_in_by_the_cookie_of_a_bearer_protected_post(
    kit: TestAuth, client: TestClient, path: str
) -> None:
    check_refusal(client.get("/stream", headers=EVENT_SOURCE), 401, "missing_credential", REALM)
    check_refusal(client.post(path), 401, "missing_credential", REALM)
    opened = client.post(path, headers=kit.bearer("alice", scopes=["orders:read"]))
    assert opened.is_success
    assert opened.headers["cache-control"] == "no-store"
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert client.get("/stream", headers=EVENT_SOURCE).text == "data: alice\n\n"
    check_refusal(client.get("/orders", headers=EVENT_SOURCE), 401, "missing_credential", REALM)
    check_refusal(client.post(path, headers=EVENT_SOURCE), 401, "missing_credential", REALM)


def test_a_stream_read_by_fetch_uses_the_header_as_ever(kit: TestAuth, client: TestClient) -> None:
    headers = EVENT_SOURCE | kit.bearer("alice", scopes=["orders:read"])
    assert client.get("/stream", headers=headers).text == "data: alice\n\n"


def test_a_websocket_gets_in_by_header_or_subprotocol_and_is_refused_like_a_request(
    kit: TestAuth, client: TestClient
) -> None:
    token = kit.token("alice", scopes=["orders:read"])
    with client.websocket_connect("/chat", headers={"Authorization": f"Bearer {token}"}) as socket:
        assert socket.receive_json() == "alice"
    with client.websocket_connect("/chat", subprotocols=["jotgate.bearer", token]) as socket:
        assert socket.receive_json() == "alice"
        assert str(socket.accepted_subprotocol) == "jotgate.bearer"
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/chat"):
        pass
    check_refusal(denied.value, 401, "missing_credential", REALM)


def test_openapi_shows_the_bearer_scheme_on_protected_routes_only(kit: TestAuth) -> None:
    app = make_app(kit.verifier)

    @app.get("/open")
    async def is_open() -> None: ...

    document = app.openapi()
    assert document["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert document["paths"]["/orders"]["get"]["security"] == [{"bearer": []}]
    assert document["paths"]["/orders-security"]["get"]["security"] == [{"bearer": ["orders:read"]}]
    assert document["paths"]["/address"]["get"]["security"] == [{"bearer": []}]
    assert "parameters" not in document["paths"]["/address"]["get"]
    assert "security" not in document["paths"]["/open"]["get"]
    assert "parameters" not in document["paths"]["/orders"]["get"]


def test_an_override_replaces_a_dependency_made_by_an_equal_call(kit: TestAuth) -> None:
    app, auth = FastAPI(), Auth(kit.verifier)

    @app.get("/orders")
    async def orders(claims: Annotated[Claims, Depends(auth.require("orders:read"))]) -> str:
        return claims.subject

    app.dependency_overrides[auth.require("orders:read")] = lambda: kit.verifier.verify(kit.token("bob"))
    assert kit.client(app).get("/orders").json() == "bob"
    assert auth.require("a") != auth.require("b")
    assert auth.require("a") != auth.require("a", stream=True)
    assert auth.require("a", max_age_s=300) == auth.require("a", max_age_s=300)
    different = {auth.require("a"), auth.require("a", max_age_s=300), auth.require("a", max_age_s=60)}
    assert len(different | {auth.require("a", factor="second")}) == 4
    assert auth.require("a") != Auth(kit.verifier).require("a")
    assert auth.require() != auth.optional()


def test_an_app_may_word_refusals_itself(kit: TestAuth) -> None:
    app = make_app(kit.verifier)

    @app.exception_handler(AuthRefused)
    async def mine(request: Request, refusal: AuthRefused) -> JSONResponse:
        return JSONResponse({"error": refusal.refused.code}, refusal.status_code, refusal.headers)

    answer = kit.client(app).get("/orders")
    assert (answer.status_code, answer.json()) == (401, {"error": "missing_credential"})
    assert answer.headers["www-authenticate"] == REALM


def test_other_http_exceptions_are_left_as_they_are(kit: TestAuth) -> None:
    app = make_app(kit.verifier)

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    client = kit.client(app)
    check_refusal(client.get("/orders"), 401, "missing_credential", REALM)
    assert client.get("/teapot").json() == {"detail": "short and stout"}


def test_without_a_place_for_handlers_status_and_headers_still_stand(kit: TestAuth) -> None:
    """Whatever removes Starlette's note of its handlers from the scope, the refusal stays a refusal."""
    app = make_app(kit.verifier)
    inner = app.router.app if hasattr(app.router, "app") else app.router

    async def forgetting(scope: dict[str, object], receive: object, send: object) -> None:
        scope.pop("starlette.exception_handlers", None)
        await inner(scope, receive, send)  # type: ignore[arg-type]

    app.router = forgetting  # type: ignore[assignment]
    answer = kit.client(app).get("/orders")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == REALM
    assert answer.json() == {"detail": "This needs an access token: Authorization: Bearer …"}


async def test_fetching_keys_does_not_block_the_event_loop(kit: TestAuth) -> None:
    gate, asked = threading.Event(), threading.Event()

    def transport(url: str, timeout_s: float) -> Answer:
        asked.set()
        assert gate.wait(30)
        return Answer(200, json.dumps(KeySet(list(kit.keys)).to_jwks()).encode())

    with Verifier(
        issuer=kit.issuer,
        audience="api",
        jwks_uri=f"{kit.issuer}/keys",
        transport=transport,
        clock=kit.clock,
        key_wait_s=30,
        timeout_s=30,
    ) as verifier:
        app = make_app(verifier)

        @app.get("/open")
        async def is_open() -> str:
            return "open"

        async with kit.async_client(app) as client:
            headers = kit.bearer("alice", scopes=["orders:read"])
            waiting = asyncio.create_task(client.get("/orders", headers=headers))
            assert await asyncio.to_thread(asked.wait, 30)
            # The keys are still being fetched, and the loop serves others; were it blocked, this would never return.
            assert (await client.get("/open")).json() == "open"
            assert not waiting.done()
            gate.set()
            assert (await waiting).json() == "alice"
