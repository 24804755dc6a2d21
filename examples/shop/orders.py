"""The shop's goods, their stock and the orders, in an SQLite file. It knows account ids, nothing of tokens."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

MAX_QUANTITY = 20
MAX_LINES = 20  # of one checkout
MAX_ORDERS = 100  # an account's orders are bounded, so that nobody can fill the disk
MAX_STOCK = 9999


@dataclass(frozen=True)
class Product:
    id: str
    name: str
    detail: str
    price_cents: int
    stock: int


# What a new shop has; from then on its file says how many are left.
PRODUCTS: Mapping[str, Product] = MappingProxyType(
    {
        product.id: product
        for product in (
            Product("notebook", "Pocket notebook", "96 pages, dotted", 950, 400),
            Product("pencils", "Cedar pencils", "box of six, HB", 780, 240),
            Product("ink", "Iron-gall ink", "50 ml, blue-black", 1200, 180),
            Product("envelopes", "Envelopes", "packet of 25, cream", 540, 300),
            Product("wax", "Sealing wax", "one stick, vermilion", 620, 200),
            Product("ruler", "Brass ruler", "15 cm, with patina", 1890, 60),
            Product("pen", "Fountain pen", "fine nib, refillable", 2450, 24),
            Product("paper", "Laid paper", "50 sheets, A5, ivory", 1100, 150),
            Product("twine", "Linen twine", "30 m on a spool", 480, 90),
            Product("clips", "Brass clips", "tin of 40", 390, 120),
            Product("stamp", "Date stamp", "for letters and ledgers", 1650, 3),
            Product("eraser", "Soft eraser", "in a paper sleeve", 210, 0),
        )
    }
)


@dataclass(frozen=True)
class Line:
    """What somebody wants of one product."""

    product: str
    quantity: int


@dataclass(frozen=True)
class Order:
    id: int
    product: str
    quantity: int
    total_cents: int
    ordered_at: int  # Unix seconds


class UnknownProductError(Exception):
    """The shop has no product with this id."""


class OutOfStockError(Exception):
    """There are fewer left than somebody wants."""

    def __init__(self, products: Sequence[str]) -> None:
        super().__init__(", ".join(products))
        self.products = tuple(products)


class OrderBookFullError(Exception):
    """The account would have more than MAX_ORDERS orders."""


class OrderBook:
    """Durable goods and orders. Its methods block: call them from a thread, as FastAPI does for plain `def`."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        self._path = path
        self._clock = clock
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._connected() as db:
            db.execute(
                "PRAGMA journal_mode=WAL"
            )  # readers and the writer do not wait for each other; the file keeps it
        with self._writing() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS products (id TEXT PRIMARY KEY, name TEXT NOT NULL, detail TEXT NOT NULL,"
                " price_cents INTEGER NOT NULL, stock INTEGER NOT NULL CHECK (stock >= 0)) STRICT"
            )
            db.execute(
                "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, account_id TEXT NOT NULL,"
                " product TEXT NOT NULL, quantity INTEGER NOT NULL, total_cents INTEGER NOT NULL,"
                " ordered_at INTEGER NOT NULL) STRICT"
            )
            db.execute("CREATE INDEX IF NOT EXISTS orders_by_account ON orders (account_id, id)")
            db.execute(
                "CREATE TABLE IF NOT EXISTS checkouts (account_id TEXT NOT NULL, id TEXT NOT NULL,"
                " first_order INTEGER NOT NULL, last_order INTEGER NOT NULL, PRIMARY KEY (account_id, id)) STRICT"
            )
            db.executemany(
                "INSERT OR IGNORE INTO products (id, name, detail, price_cents, stock) VALUES (?, ?, ?, ?, ?)",
                [(each.id, each.name, each.detail, each.price_cents, each.stock) for each in PRODUCTS.values()],
            )

    def products(self, query: str = "") -> list[Product]:
        """The products in which each word of the query stands somewhere; all of them for none."""
        words = query.casefold().split()
        with self._connected() as db:
            rows = db.execute("SELECT id, name, detail, price_cents, stock FROM products ORDER BY rowid").fetchall()
        products = [Product(*row) for row in rows]
        return [each for each in products if all(word in f"{each.name} {each.detail}".casefold() for word in words)]

    def set_stock(self, product_id: str, stock: int) -> Product:
        """Say how many are left; UnknownProductError where there is no such product."""
        with self._writing() as db:
            rows = db.execute(
                "UPDATE products SET stock = ? WHERE id = ? RETURNING id, name, detail, price_cents, stock",
                (stock, product_id),
            ).fetchall()
            if not rows:
                raise UnknownProductError
        return Product(*rows[0])

    def of(self, account_id: str) -> list[Order]:
        """The account's own orders, newest first."""
        with self._connected() as db:
            rows = db.execute(
                "SELECT id, product, quantity, total_cents, ordered_at FROM orders"
                " WHERE account_id = ? ORDER BY id DESC",
                (account_id,),
            ).fetchall()
        return [Order(*row) for row in rows]

    def add(self, account_id: str, line: Line) -> Order:
        """Order one thing: see `check_out`."""
        with self._writing() as db:
            (order,) = self._take(db, account_id, [line])
        return order

    def check_out(self, account_id: str, checkout_id: str, lines: Sequence[Line]) -> list[Order]:
        """Order all of it or nothing; stored before it returns. The same checkout once more changes nothing.

        Args:
            checkout_id: chosen by whoever orders, so that they may ask again where the answer got lost.
            lines: each product once.

        Raises:
            UnknownProductError, OutOfStockError: of any line.
            OrderBookFullError: the account keeps too many orders.
        """
        with self._writing() as db:
            done = db.execute(
                "SELECT first_order, last_order FROM checkouts WHERE account_id = ? AND id = ?",
                (account_id, checkout_id),
            ).fetchone()
            if done is not None:
                rows = db.execute(
                    "SELECT id, product, quantity, total_cents, ordered_at FROM orders"
                    " WHERE id BETWEEN ? AND ? ORDER BY id",
                    done,
                ).fetchall()
                return [Order(*row) for row in rows]
            orders = self._take(db, account_id, lines)
            db.execute(
                "INSERT INTO checkouts (account_id, id, first_order, last_order) VALUES (?, ?, ?, ?)",
                (account_id, checkout_id, orders[0].id, orders[-1].id),
            )
        return orders

    def _take(self, db: sqlite3.Connection, account_id: str, lines: Sequence[Line]) -> list[Order]:
        """Take it off the shelf and write it down, within a writing transaction: nobody else can take it meanwhile."""
        ordered_at = self._clock()
        (count,) = db.execute("SELECT count(*) FROM orders WHERE account_id = ?", (account_id,)).fetchone()
        if count + len(lines) > MAX_ORDERS:
            raise OrderBookFullError
        on_shelf = {
            product: (price_cents, stock)
            for product, price_cents, stock in db.execute("SELECT id, price_cents, stock FROM products")
        }
        if any(line.product not in on_shelf for line in lines):
            raise UnknownProductError
        if lacking := [line.product for line in lines if on_shelf[line.product][1] < line.quantity]:
            raise OutOfStockError(lacking)
        orders = []
        for line in lines:
            db.execute("UPDATE products SET stock = stock - ? WHERE id = ?", (line.quantity, line.product))
            total_cents = on_shelf[line.product][0] * line.quantity
            [(order_id,)] = db.execute(
                "INSERT INTO orders (account_id, product, quantity, total_cents, ordered_at)"
                " VALUES (?, ?, ?, ?, ?) RETURNING id",
                (account_id, line.product, line.quantity, total_cents, ordered_at),
            ).fetchall()
            orders.append(Order(order_id, line.product, line.quantity, total_cents, ordered_at))
        return orders

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # One connection per call: opening a local file costs little, and no connection is ever shared by two threads.
        if not self._path.exists():
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))  # for nobody else to read
        db = sqlite3.connect(self._path, timeout=5, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous=FULL")  # a confirmed order survives a power cut
            yield db
        finally:
            db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")  # after an exception it is not reached: closing the connection undoes everything
