"""The shop's own tests, as its author would write them: jotgate.testing issues the tokens, no auth server runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.shop.orders import MAX_ORDERS, PRODUCTS, OrderBook
from examples.shop.shop import AUDIENCE, create_shop
from jotgate.integrations.fastapi import Auth
from jotgate.testing import TestAuth

WAX = {"product": "wax", "quantity": 2}
READ_AND_WRITE = ("orders:read", "orders:write")


@pytest.fixture
def kit() -> TestAuth:
    return TestAuth(audience=AUDIENCE)


@pytest.fixture
def orders(tmp_path: Path, kit: TestAuth) -> OrderBook:
    return OrderBook(tmp_path / "shop.sqlite3", clock=kit.clock)


@pytest.fixture
def client(kit: TestAuth, orders: OrderBook) -> Iterator[httpx2.Client]:
    with kit.client(create_shop(Auth(kit.verifier), orders)) as client:
        yield client


def bearer(kit: TestAuth, subject: str, *scopes: str) -> dict[str, str]:
    return kit.bearer(subject, scopes=scopes or READ_AND_WRITE)


def test_anybody_sees_the_products(client: httpx2.Client) -> None:
    products = client.get("/api/products").json()["products"]

    assert {product["id"] for product in products} == set(PRODUCTS)


def test_a_customer_orders_and_finds_the_order(client: httpx2.Client, kit: TestAuth) -> None:
    answer = client.post("/api/orders", json=WAX, headers=bearer(kit, "ada"))

    assert answer.status_code == 201
    assert answer.json() == {
        "id": 1,
        "product": "wax",
        "quantity": 2,
        "total_cents": 1240,
        "ordered_at": kit.clock(),
    }
    assert client.get("/api/orders", headers=bearer(kit, "ada")).json() == {"orders": [answer.json()]}


def test_a_customer_sees_nobody_elses_orders(client: httpx2.Client, kit: TestAuth) -> None:
    client.post("/api/orders", json=WAX, headers=bearer(kit, "ada"))

    assert client.get("/api/orders", headers=bearer(kit, "grace")).json() == {"orders": []}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_orders_need_a_token(client: httpx2.Client, method: str) -> None:
    answer = client.request(method, "/api/orders", json=WAX)

    assert (answer.status_code, answer.json()["code"]) == (401, "missing_credential")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "scope"), [("GET", "orders:write"), ("POST", "orders:read")])
def test_reading_and_ordering_each_need_their_own_scope(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook, method: str, scope: str
) -> None:
    answer = client.request(method, "/api/orders", json=WAX, headers=bearer(kit, "ada", scope))

    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
    assert orders.of("ada") == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"expired": True}, "token_expired"),
        ({"early": True}, "token_not_yet_valid"),
        ({"forged": True}, "bad_signature"),
        ({"audience": "another-api"}, "claim_refused"),
        ({"issuer": "https://another.test"}, "claim_refused"),
    ],
)
def test_a_token_that_is_not_good_here_and_now_is_refused(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook, fault: dict[str, Any], code: str
) -> None:
    answer = client.post("/api/orders", json=WAX, headers=kit.bearer("ada", scopes=READ_AND_WRITE, **fault))

    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert orders.of("ada") == []


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"product": "yacht", "quantity": 1}, "unknown_product"),
        ({"product": "wax", "quantity": 0}, "invalid_order"),
        ({"product": "wax", "quantity": 21}, "invalid_order"),
        ({"product": "wax", "quantity": "2"}, "invalid_order"),
        ({"product": "wax", "quantity": True}, "invalid_order"),
        ({"product": "wax", "quantity": 1.0}, "invalid_order"),
        ({"product": "wax"}, "invalid_order"),
        ({"product": "wax", "quantity": 1, "total_cents": 1}, "invalid_order"),
        ({"product": "wax", "quantity": 1, "account_id": "grace"}, "invalid_order"),
        ([], "invalid_order"),
    ],
)
def test_an_order_that_is_not_right_is_refused_and_not_kept(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook, order: object, code: str
) -> None:
    answer = client.post("/api/orders", json=order, headers=bearer(kit, "ada"))

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert orders.of("ada") == []


def test_an_order_that_is_not_json_or_too_long_is_refused(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook
) -> None:
    headers = bearer(kit, "ada") | {"Content-Type": "application/json"}

    assert client.post("/api/orders", content=b"{", headers=headers).status_code == 422
    assert client.post("/api/orders", content=b"[" * 4000, headers=headers).status_code == 400
    assert client.post("/api/orders", content=b" " * 5000, headers=headers).status_code == 413
    assert orders.of("ada") == []


def test_an_account_that_keeps_as_many_orders_as_it_may_is_told_so(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook
) -> None:
    for _ in range(MAX_ORDERS):
        orders.add("ada", PRODUCTS["wax"], 1)
    answer = client.post("/api/orders", json=WAX, headers=bearer(kit, "ada"))

    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_orders")


@pytest.mark.parametrize("path", ["/", "/static/shop.js", "/static/shop.css", "/api/products", "/nothing"])
def test_every_answer_carries_the_security_headers(client: httpx2.Client, path: str) -> None:
    headers = client.get(path).headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_the_page_works_under_its_own_policy(client: httpx2.Client) -> None:
    page = client.get("/").text

    assert "<style" not in page
    assert " style=" not in page
    assert "<script>" not in page
    assert "https://" not in page


def test_an_answer_to_head_has_no_body(client: httpx2.Client) -> None:
    for path, status in (("/", 200), ("/api/products", 405)):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")


def test_the_shops_openapi_names_the_bearer_scheme(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()

    schemes = {name: scheme["scheme"] for name, scheme in document["components"]["securitySchemes"].items()}
    assert set(schemes.values()) == {"bearer"}
    (used,) = document["paths"]["/api/orders"]["post"]["security"]
    assert set(used) <= set(schemes)
    assert "security" not in document["paths"]["/api/products"]["get"]
