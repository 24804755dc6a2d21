"""The shop's own tests, as its author would write them: jotgate.testing issues the tokens, no auth server runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.shop.orders import MAX_ORDERS, PRODUCTS, Line, OrderBook
from examples.shop.shop import AUDIENCE, SEARCHES, STAFF_SCOPE, STATIC, create_shop
from jotgate.integrations.fastapi import Auth, Throttle
from jotgate.testing import TestAuth
from jotgate.throttle import MemoryStore, parse_limit

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
    auth = Auth(kit.verifier)
    with kit.client(create_shop(auth, orders, Throttle(MemoryStore(clock=kit.clock), auth=auth))) as client:
        yield client


def bearer(kit: TestAuth, subject: str, *scopes: str) -> dict[str, str]:
    return kit.bearer(subject, scopes=scopes or READ_AND_WRITE)


def test_anybody_sees_the_products(client: httpx2.Client) -> None:
    products = client.get("/api/products").json()["products"]

    assert {product["id"] for product in products} == set(PRODUCTS)


def test_a_search_gives_what_fits_with_its_stock(client: httpx2.Client) -> None:
    answer = client.get("/api/products", params={"q": "wax"})

    assert answer.json() == {
        "products": [
            {"id": "wax", "name": "Sealing wax", "detail": "one stick, vermilion", "price_cents": 620, "stock": 200}
        ]
    }
    assert client.get("/api/products", params={"q": "yacht"}).json() == {"products": []}


def test_a_search_too_long_is_refused(client: httpx2.Client) -> None:
    answer = client.get("/api/products", params={"q": "a" * 65})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_each_product_has_a_picture(client: httpx2.Client) -> None:
    assert {path.stem for path in (STATIC / "pictures").iterdir()} == set(PRODUCTS)
    answer = client.get("/static/pictures/wax.svg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")


def test_one_address_may_not_search_without_end(client: httpx2.Client, kit: TestAuth) -> None:
    burst = parse_limit(SEARCHES).burst
    assert {client.get("/api/products").status_code for _ in range(burst)} == {200}

    answer = client.get("/api/products", headers=bearer(kit, "ada"))  # a token makes no other address

    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert answer.headers["retry-after"] == "1"
    kit.clock.advance(1)
    assert client.get("/api/products").status_code == 200


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
        orders.add("ada", Line("wax", 1))
    answer = client.post("/api/orders", json=WAX, headers=bearer(kit, "ada"))

    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_orders")


def checkout(*lines: tuple[str, int], name: str = "the first checkout") -> dict[str, Any]:
    return {"id": name, "lines": [{"product": product, "quantity": quantity} for product, quantity in lines]}


def test_a_checkout_orders_the_whole_cart_and_once_only(client: httpx2.Client, kit: TestAuth) -> None:
    cart = checkout(("wax", 2), ("ink", 1))
    answers = [client.post("/api/checkout", json=cart, headers=bearer(kit, "ada")) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    ordered = [(each["product"], each["quantity"], each["total_cents"]) for each in answers[0].json()["orders"]]
    assert ordered == [("wax", 2, 1240), ("ink", 1, 1200)]
    assert client.get("/api/orders", headers=bearer(kit, "ada")).json()["orders"] == answers[0].json()["orders"][::-1]


@pytest.mark.parametrize(
    ("cart", "status", "code"),
    [
        (checkout(("wax", 1), ("eraser", 1)), 409, "out_of_stock"),
        (checkout(("wax", 1), ("yacht", 1)), 422, "unknown_product"),
        (checkout(("wax", 1), ("wax", 1)), 422, "invalid_order"),
        (checkout(), 422, "invalid_order"),
        (checkout(("wax", 0)), 422, "invalid_order"),
        (checkout(*((f"product {number}", 1) for number in range(21))), 422, "invalid_order"),
        (checkout(("wax", 1), name="short"), 422, "invalid_order"),
        (checkout(("wax", 1)) | {"total_cents": 1}, 422, "invalid_order"),
        ({"lines": [WAX]}, 422, "invalid_order"),
    ],
)
def test_a_cart_that_is_not_right_is_refused_as_a_whole(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook, cart: dict[str, Any], status: int, code: str
) -> None:
    answer = client.post("/api/checkout", json=cart, headers=bearer(kit, "ada"))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert orders.of("ada") == []


def test_checkouts_at_once_never_sell_what_is_not_there(
    client: httpx2.Client, kit: TestAuth, orders: OrderBook
) -> None:
    orders.set_stock("pen", 7)

    def buy(number: int) -> tuple[int, str | None]:
        answer = client.post("/api/checkout", json=checkout(("pen", 2)), headers=bearer(kit, f"person {number}"))
        return answer.status_code, answer.json().get("code")

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(buy, range(12)))

    assert answers == [(201, None)] * 3 + [(409, "out_of_stock")] * 9
    (pen,) = client.get("/api/products", params={"q": "pen fine"}).json()["products"]
    assert pen["stock"] == 1


def test_an_account_checks_out_five_times_at_once_and_is_told_when_again(client: httpx2.Client, kit: TestAuth) -> None:
    def buy(who: str, number: int) -> httpx2.Response:
        cart = checkout(("wax", 1), name=f"checkout number {number}")
        return client.post("/api/checkout", json=cart, headers=bearer(kit, who))

    assert [buy("ada", number).status_code for number in range(6)] == [201] * 5 + [429]
    refused = buy("ada", 6)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("quota_exceeded", "24")
    assert buy("grace", 0).status_code == 201
    kit.clock.advance(24)
    assert buy("ada", 7).status_code == 201


def test_checkout_needs_a_token_with_its_scope(client: httpx2.Client, kit: TestAuth) -> None:
    cart = checkout(("wax", 1))

    assert client.post("/api/checkout", json=cart).json()["code"] == "missing_credential"
    readers = bearer(kit, "ada", "orders:read")
    assert client.post("/api/checkout", json=cart, headers=readers).json()["code"] == "insufficient_scope"


def test_staff_change_stock(client: httpx2.Client, kit: TestAuth) -> None:
    answer = client.patch("/api/products/eraser", json={"stock": 12}, headers=bearer(kit, "staff", STAFF_SCOPE))

    assert (answer.status_code, answer.json()["stock"]) == (200, 12)
    assert answer.json() in client.get("/api/products").json()["products"]


@pytest.mark.parametrize(
    ("path", "change", "scopes", "status", "code"),
    [
        ("eraser", {"stock": 12}, READ_AND_WRITE, 403, "insufficient_scope"),
        ("yacht", {"stock": 12}, (STAFF_SCOPE,), 404, "unknown_product"),
        ("eraser", {"stock": -1}, (STAFF_SCOPE,), 422, "invalid_input"),
        ("eraser", {"stock": 10_000}, (STAFF_SCOPE,), 422, "invalid_input"),
        ("eraser", {"stock": "12"}, (STAFF_SCOPE,), 422, "invalid_input"),
        ("eraser", {"stock": 12, "price_cents": 1}, (STAFF_SCOPE,), 422, "invalid_input"),
    ],
)
def test_a_change_of_stock_that_may_not_be_changes_nothing(
    client: httpx2.Client,
    kit: TestAuth,
    path: str,
    change: dict[str, Any],
    scopes: tuple[str, ...],
    status: int,
    code: str,
) -> None:
    before = client.get("/api/products").json()
    answer = client.patch(f"/api/products/{path}", json=change, headers=bearer(kit, "somebody", *scopes))

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get("/api/products").json() == before


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/shop.css", "/api/products", "/nothing"])
def test_every_answer_carries_the_security_headers(client: httpx2.Client, path: str) -> None:
    headers = client.get(path).headers

    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-store" if path.startswith("/api/") else "no-cache")


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
