"""A Starlette app whose routes are protected one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from jotgate.integrations.asgi import BearerMiddleware
from jotgate.integrations.starlette import Auth, AuthRefused
from jotgate.testing import TestAuth
from tests.integrations.answers import EXPIRED, LACKS, OLD_OR_ONE_FACTOR, REALM, TOO_OLD, check_refusal


def make_app(kit: TestAuth) -> Starlette:
    auth = Auth(kit.verifier)

    @auth.require("orders:read")
    async def orders(request: Request) -> JSONResponse:
        return JSONResponse(request.state.claims.subject)

    @auth.require("orders:read")
    def orders_sync(request: Request) -> JSONResponse:
        assert threading.current_thread().name.startswith("AnyIO worker")  # not on the event loop
        return JSONResponse(request.state.claims.subject)

    class Orders(HTTPEndpoint):
        @auth.require("orders:read")
        async def get(self, request: Request) -> JSONResponse:
            return JSONResponse(request.state.claims.subject)

        async def options(self, request: Request) -> PlainTextResponse:
            return PlainTextResponse("open")

    async def maybe(request: Request) -> JSONResponse:
        claims = await auth.optional_claims(request)
        return JSONResponse(claims.subject if claims else None)

    @auth.require("orders:read")
    async def open_stream(request: Request) -> Response:
        response = Response(status_code=204)
        auth.set_stream_cookie(request, response)
        return response

    @auth.require("orders:read", stream=True)
    async def stream(request: Request) -> Response:
        return Response(f"data: {request.state.claims.subject}\n\n", media_type="text/event-stream")

    @auth.require("orders:read")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(websocket.state.claims.subject)
        await websocket.close()

    class Chat(WebSocketEndpoint):
        encoding = "text"

        @auth.require("orders:read")
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_json(websocket.state.claims.subject)

    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        await auth.claims(websocket)

    @auth.require("orders:read", max_age_s=300, factor="second")
    async def refunds(request: Request) -> JSONResponse:
        return JSONResponse(request.state.claims.subject)

    async def address(request: Request) -> JSONResponse:
        return JSONResponse((await auth.claims(request, max_age_s=300)).subject)

    @auth.require(max_age_s=300, factor="second")
    async def support(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return Starlette(
        routes=[
            Route("/orders", orders),
            Route("/refunds", refunds),
            Route("/address", address),
            WebSocketRoute("/support", support),
            Route("/orders-sync", orders_sync),
            Route("/orders-class", Orders),
            Route("/maybe", maybe),
            Route("/stream", open_stream, methods=["POST"]),
            Route("/stream", stream),
            WebSocketRoute("/chat", chat),
            WebSocketRoute("/chat-class", Chat),
            WebSocketRoute("/late", late),
        ]
    )


@pytest.fixture
def client(kit: TestAuth) -> Iterator[TestClient]:
    with kit.client(make_app(kit)) as made:
        yield made


@pytest.mark.parametrize("path", ["/orders", "/orders-sync", "/orders-class"])
def test_functions_and_methods_async_or_not_are_protected_alike(kit: TestAuth, client: TestClient, path: str) -> None:
    answer = client.get(path, headers=kit.bearer("alice", scopes=["orders:read"]))
    assert (answer.status_code, answer.json()) == (200, "alice")
    check_refusal(client.get(path), 401, "missing_credential", REALM)
    check_refusal(client.get(path, headers=kit.bearer("alice", expired=True)), 401, "token_expired", EXPIRED)
    challenge = f'{REALM}, {LACKS}, scope="orders:read"'
    check_refusal(client.get(path, headers=kit.bearer("alice")), 403, "insufficient_scope", challenge)


def test_a_route_may_demand_a_recent_login_and_a_second_factor(kit: TestAuth, client: TestClient) -> None:
    good: dict[str, Any] = {"scopes": ["orders:read"], "auth_time": kit.clock(), "methods": ["pwd", "otp", "mfa"]}
    assert client.get("/refunds", headers=kit.bearer("alice", **good)).json() == "alice"
    for lacking in ({"methods": ["pwd"]}, {"auth_time": kit.clock() - 600}, {"auth_time": None}):
        answer = client.get("/refunds", headers=kit.bearer("alice", **good | lacking))
        check_refusal(answer, 401, "insufficient_user_authentication", OLD_OR_ONE_FACTOR)
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("/support", headers=kit.bearer("alice", **good | lacking)),
        ):
            pass
        check_refusal(denied.value, 401, "insufficient_user_authentication", OLD_OR_ONE_FACTOR)
    answer = client.get("/refunds", headers=kit.bearer("alice", **good | {"scopes": [], "methods": ["pwd"]}))
    check_refusal(answer, 403, "insufficient_scope", f'{REALM}, {LACKS}, scope="orders:read"')


def test_an_endpoint_may_ask_for_the_claims_of_a_recent_login_itself(kit: TestAuth, client: TestClient) -> None:
    assert client.get("/address", headers=kit.bearer("alice", auth_time=kit.clock() - 300)).json() == "alice"
    answer = client.get("/address", headers=kit.bearer("alice", auth_time=kit.clock() - 600))
    check_refusal(answer, 401, "insufficient_user_authentication", TOO_OLD)


def test_an_undecorated_method_stays_open(client: TestClient) -> None:
    assert client.options("/orders-class").text == "open"


def test_optional_claims_are_none_without_a_token_and_never_with_a_bad_one(kit: TestAuth, client: TestClient) -> None:
    assert client.get("/maybe").json() is None
    assert client.get("/maybe", headers=kit.bearer("alice")).json() == "alice"
    check_refusal(client.get("/maybe", headers=kit.bearer("alice", expired=True)), 401, "token_expired", EXPIRED)


def test_an_event_source_gets_in_by_the_cookie_of_a_bearer_protected_post(kit: TestAuth, client: TestClient) -> None:
    event_source = {"Accept": "text/event-stream", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "empty"}
    check_refusal(client.get("/stream", headers=event_source), 401, "missing_credential", REALM)
    check_refusal(client.post("/stream"), 401, "missing_credential", REALM)
    opened = client.post("/stream", headers=kit.bearer("alice", scopes=["orders:read"]))
    assert opened.status_code == 204
    assert opened.headers["cache-control"] == "no-store"
    assert client.get("/stream", headers=event_source).text == "data: alice\n\n"
    cross_site = event_source | {"Sec-Fetch-Site": "cross-site"}
    check_refusal(client.get("/stream", headers=cross_site), 403, "cross_site_refused", REALM)
    check_refusal(client.get("/orders", headers=event_source), 401, "missing_credential", REALM)
    check_refusal(client.post("/stream", headers=event_source), 401, "missing_credential", REALM)
    kit.clock.advance(400)
    check_refusal(client.get("/stream", headers=event_source), 401, "token_expired", EXPIRED)


@pytest.mark.parametrize("path", ["/chat", "/chat-class"])
def test_a_websocket_gets_in_by_header_or_subprotocol(kit: TestAuth, client: TestClient, path: str) -> None:
    token = kit.token("alice", scopes=["orders:read"])
    with client.websocket_connect(path, headers={"Authorization": f"Bearer {token}"}) as socket:
        assert socket.receive_json() == "alice"
        assert socket.accepted_subprotocol is None
    with client.websocket_connect(path, subprotocols=["jotgate.bearer", token]) as socket:
        assert socket.receive_json() == "alice"
        assert socket.accepted_subprotocol == "jotgate.bearer"


@pytest.mark.parametrize("path", ["/chat", "/chat-class"])
def test_a_websocket_is_refused_like_a_request_before_it_is_accepted(
    kit: TestAuth, client: TestClient, path: str
) -> None:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path):
        pass
    check_refusal(denied.value, 401, "missing_credential", REALM)
    offered = ["jotgate.bearer", kit.token("alice")]
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path, subprotocols=offered):
        pass
    check_refusal(denied.value, 403, "insufficient_scope", f'{REALM}, {LACKS}, scope="orders:read"')


def test_claims_asked_for_after_accepting_close_with_1008(client: TestClient) -> None:
    with client.websocket_connect("/late") as socket:
        assert socket.receive() == {"type": "websocket.close", "code": 1008, "reason": "missing_credential"}


def test_clear_text_is_refused_although_the_token_is_good(kit: TestAuth) -> None:
    client = TestClient(make_app(kit))  # Starlette's own default: http://testserver
    answer = client.get("/orders", headers=kit.bearer("alice", scopes=["orders:read"]))
    check_refusal(answer, 403, "clear_text_refused", REALM)
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/chat", headers=kit.bearer("alice", scopes=["orders:read"])),
    ):
        pass
    check_refusal(denied.value, 403, "clear_text_refused", REALM)


def test_an_app_may_word_refusals_itself(kit: TestAuth) -> None:
    async def mine(request: Request, refusal: Exception) -> Response:
        assert isinstance(request, Request)
        assert isinstance(refusal, AuthRefused)
        return PlainTextResponse(refusal.refused.code, refusal.status_code, refusal.headers)

    app = make_app(kit)
    app.add_exception_handler(AuthRefused, mine)
    answer = kit.client(app).get("/orders")
    assert (answer.status_code, answer.text) == (401, "missing_credential")
    assert answer.headers["www-authenticate"] == REALM


def test_the_middleware_protects_a_whole_starlette_app(kit: TestAuth) -> None:
    async def whoami(request: Request) -> JSONResponse:
        return JSONResponse(request.state.claims.subject)

    app = Starlette(
        routes=[Route("/me", whoami)], middleware=[Middleware(BearerMiddleware, verifier=kit.verifier, scopes=["me"])]
    )
    client = kit.client(app)
    assert client.get("/me", headers=kit.bearer("alice", scopes=["me"])).json() == "alice"
    check_refusal(client.get("/me"), 401, "missing_credential", REALM)
    check_refusal(client.get("/nowhere"), 401, "missing_credential", REALM)


def test_a_scope_with_a_space_is_a_fault_of_the_program(kit: TestAuth) -> None:
    with pytest.raises(ValueError, match="not the name of one scope"):
        Auth(kit.verifier).require("orders:read orders:write")


@pytest.mark.parametrize("faulty", [{"max_age_s": -1}, {"max_age_s": 1.5}, {"factor": "third"}], ids=str)
def test_a_login_that_cannot_be_is_a_fault_of_the_program(kit: TestAuth, faulty: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(faulty))):
        Auth(kit.verifier).require(**faulty)
