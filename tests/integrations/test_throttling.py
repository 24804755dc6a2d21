"""Limits of one's own API: for whom a request counts, what a refusal looks like, and what answers tell."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse
from httpx2 import Response as Answer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from jotgate import Claims
from jotgate.integrations.asgi import BearerMiddleware, Message, ThrottleMiddleware
from jotgate.integrations.fastapi import Auth, Throttle, ThrottleRefused
from jotgate.integrations.guard import Scope
from jotgate.integrations.throttling import Meter, forwarded_address, peer_address
from jotgate.testing import TestAuth
from jotgate.throttle import FallbackStore, InvalidLimit, MemoryStore, parse_limit
from jotgate.throttle.redis_store import RedisStore
from tests.services import RedisServer


def check_throttled(answer: Answer, wait_s: int, *policies: str) -> None:
    """Check the whole refusal, as the draft and RFC 9457 have it."""
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["retry-after"] == str(wait_s)
    assert answer.headers["ratelimit"].startswith(f'"{policies[0]}";r=0;t=')
    assert f'"{policies[0]}";q=' in answer.headers["ratelimit-policy"]
    assert answer.json() == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "code": "quota_exceeded",
        "detail": f"Too many requests. Try again in {wait_s} seconds.",
        "violated-policies": list(policies),
    }


def make_api(kit: TestAuth, store: MemoryStore) -> FastAPI:
    app, auth = FastAPI(), Auth(kit.verifier)
    throttle = Throttle(store, auth=auth)

    @app.get("/cheap", dependencies=[Depends(throttle("10/hour"))])
    def cheap() -> str:
        return "cheap"

    @app.get("/dear", dependencies=[Depends(throttle("10/hour", cost=4))])
    async def dear(claims: Annotated[Claims, Depends(auth.require("dear"))]) -> str:
        return claims.subject

    @app.get("/twice", dependencies=[Depends(throttle("2/hour", parse_limit("3/day", name="daily")))])
    def twice() -> str:
        return "twice"

    @app.get("/client", dependencies=[Depends(throttle(parse_limit("1/hour", name="client"), by="client"))])
    def by_client() -> str:
        return "client"

    @app.get("/scope", dependencies=[Depends(throttle(parse_limit("1/hour", name="scope"), by="scope"))])
    def by_scope() -> str:
        return "scope"

    @app.get("/address", dependencies=[Depends(throttle(parse_limit("1/hour", name="address"), by="address"))])
    def by_address() -> str:
        return "address"

    def api_key(scope: Scope) -> str:
        return Request(scope).headers["x-api-key"]

    @app.get("/own", dependencies=[Depends(throttle(parse_limit("1/hour", name="own"), by=api_key))])
    def by_own() -> str:
        return "own"

    @app.websocket("/chat")
    async def chat(websocket: WebSocket, _: Annotated[None, Depends(throttle("10/hour", cost=10))]) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return app


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(clock=lambda: 1_000.0)  # it stands still, so that a slow machine changes no figure


@pytest.fixture
def client(kit: TestAuth, store: MemoryStore) -> Iterator[TestClient]:
    with kit.client(make_api(kit, store)) as client:
        yield client


def statuses(client: Any, path: str, times: int, **headers: str) -> list[int]:  # noqa: ANN401 # a test client
    return [client.get(path, headers=headers).status_code for _ in range(times)]


def test_a_subject_has_its_allowance_and_then_has_to_wait(kit: TestAuth, client: TestClient) -> None:
    ada, bob = kit.bearer("ada"), kit.bearer("bob")
    answers = [client.get("/cheap", headers=ada) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"10/3600s";q=10;w=3600'
    assert answers[0].headers["ratelimit"] == '"10/3600s";r=9;t=3240'
    check_throttled(answers[-1], 360, "10/3600s")
    assert client.get("/cheap", headers=bob).status_code == 200
    assert client.get("/cheap", headers=kit.bearer("ada")).status_code == 429, "another token of hers"


def test_routes_of_one_limit_share_it_and_have_their_costs(kit: TestAuth, client: TestClient) -> None:
    ada = kit.bearer("ada", scopes=["dear"])
    assert statuses(client, "/dear", 3, **ada) == [200, 200, 429]
    assert statuses(client, "/cheap", 3, **ada) == [200, 200, 429]


def test_several_limits_have_to_agree(kit: TestAuth, client: TestClient) -> None:
    ada = kit.bearer("ada")
    assert statuses(client, "/twice", 2, **ada) == [200, 200]
    refused = client.get("/twice", headers=ada)
    check_throttled(refused, 1800, "2/3600s")
    assert refused.headers["ratelimit-policy"] == '"2/3600s";q=2;w=3600, "daily";q=3;w=86400'


def test_clients_and_scopes_share_their_allowances(kit: TestAuth, client: TestClient) -> None:
    web, app = (kit.bearer(who, client_id=which) for who, which in (("ada", "web"), ("ada", "app")))
    assert statuses(client, "/client", 1, **web) == [200]
    assert statuses(client, "/client", 1, **app) == [200]
    assert statuses(client, "/client", 1, **kit.bearer("bob", client_id="web")) == [429]
    assert statuses(client, "/scope", 1, **kit.bearer("ada", scopes=["a", "b"])) == [200]
    assert statuses(client, "/scope", 1, **kit.bearer("bob", scopes=["b", "a"])) == [429]
    assert statuses(client, "/scope", 1, **kit.bearer("bob", scopes=["a"])) == [200]


def test_a_function_may_say_for_whom_a_request_counts(client: TestClient) -> None:
    assert [statuses(client, "/own", 1, **{"x-api-key": key}) for key in "aba"] == [[200], [200], [429]]


def test_without_a_token_the_address_counts(kit: TestAuth, store: MemoryStore) -> None:
    app = make_api(kit, store)
    one, other = (TestClient(app, client=(address, 1)) for address in ("192.0.2.1", "192.0.2.2"))
    assert statuses(one, "/cheap", 11) == [200] * 10 + [429]
    assert statuses(other, "/cheap", 1) == [200]
    assert statuses(one, "/address", 2) == [200, 429]


def test_addresses_of_one_ipv6_network_count_together(kit: TestAuth, store: MemoryStore) -> None:
    app = make_api(kit, store)
    same, too, other = (TestClient(app, client=(f"2001:db8::{rest}", 1)) for rest in ("1", "ffff:0:0:1", "1:0:0:0:1"))
    assert [statuses(client, "/address", 1) for client in (same, too, other)] == [[200], [429], [200]]


def test_a_bad_token_is_refused_and_counts_for_nobody(kit: TestAuth, client: TestClient) -> None:
    assert statuses(client, "/cheap", 20, **kit.bearer("ada", forged=True)) == [401] * 20
    assert statuses(client, "/cheap", 11, **kit.bearer("ada")) == [200] * 10 + [429]


def test_websockets_are_limited_before_they_are_accepted(kit: TestAuth, client: TestClient) -> None:
    ada = kit.bearer("ada")
    with client.websocket_connect("/chat", headers=ada) as socket:
        assert socket.receive_text() == "hello"
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/chat", headers=ada):
        pass
    check_throttled(refused.value, 3600, "10/3600s")


def test_what_has_been_refused_by_a_limit_costs_nothing(kit: TestAuth, client: TestClient, store: MemoryStore) -> None:
    ada = kit.bearer("ada", scopes=["dear"])
    statuses(client, "/cheap", 7, **ada)
    assert statuses(client, "/dear", 5, **ada) == [429] * 5
    assert statuses(client, "/cheap", 4, **ada) == [200, 200, 200, 429]


def test_an_app_may_word_refusals_itself(kit: TestAuth, store: MemoryStore) -> None:
    app = make_api(kit, store)

    @app.exception_handler(ThrottleRefused)
    async def answer(_: Request, refusal: ThrottleRefused) -> PlainTextResponse:
        return PlainTextResponse("slower", refusal.status_code, refusal.headers)

    client = kit.client(app)
    assert statuses(client, "/address", 1) == [200]
    refused = client.get("/address")
    assert (refused.status_code, refused.text, refused.headers["retry-after"]) == (429, "slower", "3600")


def test_equal_dependencies_count_once_and_can_be_overridden(kit: TestAuth, store: MemoryStore) -> None:
    throttle = Throttle(store, by="address")
    app = FastAPI(dependencies=[Depends(throttle("3/hour"))])

    @app.get("/", dependencies=[Depends(throttle("3/hour"))])
    def root() -> str:
        return "root"

    client = kit.client(app)
    assert statuses(client, "/", 4) == [200, 200, 200, 429]
    app.dependency_overrides[throttle("3/hour")] = lambda: None
    assert statuses(client, "/", 4) == [200] * 4
    assert throttle("3/hour") != throttle("3/hour", cost=2)
    assert throttle("3/hour") != Throttle(MemoryStore(), by="address")("3/hour")
    assert len({throttle("3/hour"), throttle("3/hour"), throttle("3/hour", by="scope")}) == 2


def test_counting_by_tokens_that_nobody_checks_is_a_fault_of_the_program(store: MemoryStore) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(Throttle(store)("3/hour"))])
    def root() -> str:
        return "root"

    with pytest.raises(RuntimeError, match="auth="):
        TestClient(app).get("/")
    with TestClient(BearerMiddleware(app, TestAuth(audience="api").verifier, anonymous=True)) as client:
        assert client.get("/", headers={"host": "localhost"}).status_code == 200


def test_limits_that_cannot_work_are_refused_when_the_app_is_made(store: MemoryStore) -> None:
    throttle = Throttle(store)
    with pytest.raises(InvalidLimit, match="Write"):
        throttle("often")
    with pytest.raises(InvalidLimit, match="needs a limit"):
        throttle()
    with pytest.raises(InvalidLimit, match="burst of its limit"):
        throttle("3/hour", cost=4)
    with pytest.raises(InvalidLimit, match="burst of its limit"):
        ThrottleMiddleware(lambda *_: None, store, "3/hour", costs={"/": 4})  # type: ignore[arg-type] # no app is reached
    with pytest.raises(InvalidLimit, match="charged twice"):
        throttle("3/hour", "3/hour")
    with pytest.raises(ValueError, match="by is one of"):
        throttle("3/hour", by="ip")  # type: ignore[arg-type]


async def hello(request: Request) -> PlainTextResponse:
    claims = request.scope.get("jotgate.claims")
    return PlainTextResponse(claims.subject if claims else "hello")


async def greet(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


ROUTES = [Route("/", hello), Route("/health", hello), Route("/dear", hello), WebSocketRoute("/socket", greet)]


def test_a_whole_app_is_limited_by_addresses_and_paths_have_costs(store: MemoryStore) -> None:
    app = ThrottleMiddleware(Starlette(routes=ROUTES), store, "4/hour", costs={"/health": 0, "/dear": 3})
    client = TestClient(app, client=("192.0.2.1", 1))
    assert statuses(client, "/health", 20) == [200] * 20
    answer = client.get("/")
    assert (answer.status_code, answer.headers["ratelimit"]) == (200, '"4/3600s";r=3;t=2700')
    assert client.get("/nowhere").status_code == 404, "which counts, too"
    check_dear = client.get("/dear")
    assert check_dear.status_code == 429
    assert statuses(client, "/", 3) == [200, 200, 429]
    check_throttled(client.get("/"), 900, "4/3600s")
    assert statuses(TestClient(app, client=("192.0.2.2", 1)), "/", 1) == [200]
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/socket"):
        pass
    check_throttled(refused.value, 900, "4/3600s")


def test_inside_bearer_middleware_subjects_are_limited(kit: TestAuth, store: MemoryStore) -> None:
    inner = ThrottleMiddleware(Starlette(routes=ROUTES), store, "2/hour", by="subject")
    client = kit.client(BearerMiddleware(inner, kit.verifier))
    assert statuses(client, "/", 3, **kit.bearer("ada")) == [200, 200, 429]
    assert statuses(client, "/", 1, **kit.bearer("bob")) == [200]
    assert statuses(client, "/", 1) == [401]


def test_a_websocket_is_told_of_its_limits_when_it_is_accepted(store: MemoryStore) -> None:
    client = TestClient(ThrottleMiddleware(Starlette(routes=ROUTES), store, "1/hour"), client=("192.0.2.1", 1))
    with client.websocket_connect("/socket") as socket:
        accepted: Any = socket  # whose headers are declared to be None
        assert (b"ratelimit", b'"1/3600s";r=0;t=3600') in accepted.extra_headers


def test_what_is_neither_request_nor_websocket_passes(store: MemoryStore) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:  # noqa: ANN401 # ASGI
        seen.append(scope["type"])

    async def never() -> Message:
        raise AssertionError

    async def send(_: Message) -> None: ...

    asyncio.run(ThrottleMiddleware(app, store, "1/hour")({"type": "lifespan"}, never, send))
    assert seen == ["lifespan"]


def test_a_store_that_does_not_answer_refuses(kit: TestAuth) -> None:
    app = FastAPI()
    throttle = Throttle(RedisStore("redis://127.0.0.1:1/0", timeout_s=30), by="address")

    @app.get("/", dependencies=[Depends(throttle("3/hour"))])
    def root() -> str:
        return "root"

    answer = kit.client(app).get("/")
    assert (answer.status_code, answer.json()["code"]) == (503, "limit_store_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in answer.text


def test_redis_stops_and_comes_back_and_no_request_fails(kit: TestAuth, own_redis: RedisServer) -> None:
    told: list[str] = []
    store = FallbackStore(
        RedisStore(own_redis.url, timeout_s=5), on_change=lambda counting, _: told.append(counting), ask_again_s=0.05
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await store.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/", dependencies=[Depends(Throttle(store, by="address")("1000/day"))])
    def root() -> str:
        return "root"

    with kit.client(app) as client:
        assert statuses(client, "/", 20) == [200] * 20
        own_redis.stop()
        assert statuses(client, "/", 20) == [200] * 20
        assert told == ["local"]
        assert client.get("/").headers["ratelimit"].startswith('"1000/86400s";r=959;'), "what Redis counted, counts"
        own_redis.start()
        deadline = time.monotonic() + 30
        while told != ["local", "shared"]:
            assert time.monotonic() < deadline
            assert statuses(client, "/", 1) == [200]
        assert statuses(client, "/", 20) == [200] * 20
        assert told == ["local", "shared"]


def scope_of(peer: str | None, **headers: str) -> Scope:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "scheme": "http", "client": (peer, 1) if peer else None, "headers": lines}


def test_addresses_behind_proxies_are_taken_from_those_alone() -> None:
    address = forwarded_address(["10.0.0.0/8"])
    assert address(scope_of("10.0.0.1", x_forwarded_for="203.0.113.9, 192.0.2.7")) == "192.0.2.7"
    assert address(scope_of("198.51.100.1", x_forwarded_for="192.0.2.7")) == "198.51.100.1"
    assert address(scope_of("10.0.0.1", forwarded='for="[2001:db8::1]:80"')) == "2001:db8::1"
    assert forwarded_address(2)(scope_of("10.0.0.1", x_forwarded_for="192.0.2.7")) is None, "a proxy was gone around"
    assert peer_address(scope_of("10.0.0.1", x_forwarded_for="192.0.2.7")) == "10.0.0.1"
    assert peer_address(scope_of(None)) is None
    with pytest.raises(ValueError, match="neither an address"):
        forwarded_address(["proxy"])


def test_other_issuers_subjects_are_other_people(store: MemoryStore) -> None:
    meter = Meter(store, ["1/hour"])
    kits = [TestAuth(issuer=f"https://{name}.example", audience="api") for name in ("one", "other")]

    async def admit(kit: TestAuth) -> bool:
        scope = {**scope_of("192.0.2.1"), "jotgate.claims": kit.verifier.verify(kit.token("ada"))}
        return (await meter.admit(scope, 1)).allowed

    assert [asyncio.run(admit(kit)) for kit in kits] == [True, True]
