"""A headless shop API with a page in front and jotgate inside: the file to read first, and to copy from.

`jotgate demo` serves it. It owns the shop's routes and how jotgate is wired to them. How orders are kept is orders.py's
matter; passwords, tokens and sessions are jotgate's, and nothing here ever sees one.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from jotgate import Claims
from jotgate.integrations.fastapi import Auth, Throttle
from jotgate.integrations.throttling import forwarded_address
from jotgate.server.app import create_app as create_auth_app
from jotgate.server.settings import Settings
from jotgate.throttle import MemoryStore

from .mails import mails_page
from .orders import (
    MAX_LINES,
    MAX_ORDERS,
    MAX_QUANTITY,
    MAX_STOCK,
    Line,
    Order,
    OrderBook,
    OrderBookFullError,
    OutOfStockError,
    Product,
    UnknownProductError,
)

ISSUER = "https://localhost:8443/auth"  # unless JOTGATE_ISSUER says where else the shop is
AUDIENCE = "shop"
NAME = "The Jot Shop"
SCOPES = ("account:read", "orders:read", "orders:write")
STAFF_SCOPE = "stock:write"
SEARCHES = "300/minute; burst=100"  # of one address
CHECKOUTS = "5/2min"  # of one account
STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class NewOrder(BaseModel):
    """What a customer sends. Whose order it is, the token says; what it costs, the shop says."""

    model_config = ConfigDict(strict=True, extra="forbid")

    product: str = Field(max_length=64)
    quantity: int = Field(ge=1, le=MAX_QUANTITY)


class Checkout(BaseModel):
    """A whole cart. Sent again with the same id, because the answer got lost, it is not ordered twice."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: str = Field(min_length=16, max_length=64)
    lines: list[NewOrder] = Field(min_length=1, max_length=MAX_LINES)

    @field_validator("lines")
    @classmethod
    def check_once_each(cls, lines: list[NewOrder]) -> list[NewOrder]:
        if len({line.product for line in lines}) < len(lines):
            raise ValueError("Each product stands in one line.")
        return lines


class StockChange(BaseModel):
    """How many are on the shelf, as staff have counted."""

    model_config = ConfigDict(strict=True, extra="forbid")

    stock: int = Field(ge=0, le=MAX_STOCK)


def create_shop(
    auth: Auth, orders: OrderBook, throttle: Throttle, lifespan: Lifespan[FastAPI] | None = None
) -> FastAPI:
    """The shop alone: all it asks for is somebody who checks tokens, so its tests need no auth server."""
    shop = FastAPI(
        title=NAME,
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # no address is ever made from the Host header, which is the sender's to choose
    )

    @shop.get("/api/products", dependencies=[Depends(throttle(SEARCHES, by="address"))])
    def list_products(q: Annotated[str, Query(max_length=64)] = "") -> dict[str, list[Product]]:
        return {"products": orders.products(q)}

    @shop.patch("/api/products/{product_id}", max_body_size=4096)
    def change_stock(
        product_id: str, change: StockChange, _: Annotated[Claims, Depends(auth.require(STAFF_SCOPE))]
    ) -> Product:
        try:
            return orders.set_stock(product_id, change.stock)
        except UnknownProductError:
            raise ShopError(404, "unknown_product", "The shop has no such product.") from None

    @shop.get("/api/orders")
    def list_orders(claims: Annotated[Claims, Depends(auth.require("orders:read"))]) -> dict[str, list[Order]]:
        return {"orders": orders.of(claims.subject)}

    @shop.post("/api/orders", status_code=201, max_body_size=4096)
    def create_order(order: NewOrder, claims: Annotated[Claims, Depends(auth.require("orders:write"))]) -> Order:
        with refusals():
            return orders.add(claims.subject, Line(order.product, order.quantity))

    @shop.post("/api/checkout", status_code=201, max_body_size=4096, dependencies=[Depends(throttle(CHECKOUTS))])
    def check_out(
        cart: Checkout, claims: Annotated[Claims, Depends(auth.require("orders:write"))]
    ) -> dict[str, list[Order]]:
        lines = [Line(each.product, each.quantity) for each in cart.lines]
        with refusals():
            return {"orders": orders.check_out(claims.subject, cart.id, lines)}

    @shop.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    # Compressed are files alone: in an answer with a secret in it, lengths would tell something of that (BREACH).
    shop.mount("/static", GZipMiddleware(sent_by_us(StaticFiles(directory=STATIC))))

    @shop.exception_handler(ShopError)
    def shop_refused(_: Request, error: ShopError) -> JSONResponse:
        return problem(error.status, error.code, str(error))

    @shop.exception_handler(RequestValidationError)
    def input_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in error.errors())
        code = "invalid_order" if request.method == "POST" else "invalid_input"
        return problem(422, code, "; ".join(faults))

    @shop.exception_handler(HTTPException)
    def http_refused(_: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        return problem(error.status_code, phrase.lower().replace(" ", "_"), f"{phrase}.", error.headers)

    shop.add_middleware(PageHeaders)
    return shop


def create_app() -> FastAPI:
    """The shop with jotgate under /auth, in one process: what `jotgate demo` runs."""
    settings = load_settings(os.environ)
    server = create_auth_app(settings)
    auth = Auth(server.verifier(), trusted_proxies=settings.trusted_proxies)
    orders = OrderBook(settings.data_dir / "shop.sqlite3", clock=lambda: int(time.time()))
    throttle = Throttle(MemoryStore(), auth=auth, address=forwarded_address(settings.trusted_proxies))
    shop = create_shop(auth, orders, throttle, lifespan=server.lifespan)
    if settings.mail_url is None:
        shop.include_router(mails_page(settings.mail_folder))
    shop.mount("/auth", server)
    shop.router.routes.extend(server.well_known_routes())
    return shop


def load_settings(environ: Mapping[str, str]) -> Settings:
    """jotgate's settings for this shop; the environment may still change where it is and where it keeps its data."""
    return Settings.from_env(
        {"JOTGATE_ISSUER": ISSUER, "JOTGATE_BRAND_NAME": NAME, **environ}, audience=AUDIENCE, default_scopes=SCOPES
    )


class ShopError(Exception):
    """What the shop does not do."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


@contextmanager
def refusals() -> Iterator[None]:
    """What the order book refuses, as the API says it."""
    try:
        yield
    except UnknownProductError:
        raise ShopError(422, "unknown_product", "The shop has no such product.") from None
    except OutOfStockError as lack:
        raise ShopError(409, "out_of_stock", f"There are not so many left: {lack}.") from None
    except OrderBookFullError:
        raise ShopError(409, "too_many_orders", f"An account can keep {MAX_ORDERS} orders, not more.") from None


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as RFC 9457 has it, with a stable code, like jotgate's own."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def sent_by_us(app: ASGIApp) -> ASGIApp:
    """The app without the server's offer to send files itself (`http.response.pathsend`), as they are."""

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    return reading


class PageHeaders:
    """Middleware: puts the security headers on every answer that does not bring its own, and no body on one to HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                # What the API says may be private: no browser keeps it. Files are kept, and asked for anew each time.
                is_api = scope["path"].startswith("/api/")
                headers.setdefault("Cache-Control", "no-store" if is_api else "no-cache")
            elif scope["type"] == "http" and scope["method"] == "HEAD":
                message["body"] = b""  # FastAPI's refusal of HEAD has one, which breaks an HTTP/2 connection
            await send(message)

        await self.app(scope, receive, send_with_headers)
