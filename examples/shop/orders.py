"""The shop's goods and the orders for them, in an SQLite file of its own. It knows account ids, nothing of tokens."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

MAX_QUANTITY = 20
MAX_ORDERS = 100  # an account's orders are bounded, so that nobody can fill the disk


@dataclass(frozen=True)
class Product:
    id: str
    name: str
    detail: str
    price_cents: int


PRODUCTS = MappingProxyType(
    {
        product.id: product
        for product in (
            Product("notebook", "Pocket notebook", "96 pages, dotted", 950),
            Product("pencils", "Cedar pencils", "box of six, HB", 780),
            Product("ink", "Iron-gall ink", "50 ml, blue-black", 1200),
            Product("envelopes", "Envelopes", "packet of 25, cream", 540),
            Product("wax", "Sealing wax", "one stick, vermilion", 620),
            Product("ruler", "Brass ruler", "15 cm, with patina", 1890),
        )
    }
)


@dataclass(frozen=True)
class Order:
    id: int
    product: str
    quantity: int
    total_cents: int
    ordered_at: int  # Unix seconds


class OrderBookFullError(Exception):
    """The account has MAX_ORDERS orders already."""


class OrderBook:
    """Durable orders. Its methods block: call them from a thread (FastAPI does so for plain `def` endpoints)."""

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
                "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, account_id TEXT NOT NULL,"
                " product TEXT NOT NULL, quantity INTEGER NOT NULL, total_cents INTEGER NOT NULL,"
                " ordered_at INTEGER NOT NULL) STRICT"
            )
            db.execute("CREATE INDEX IF NOT EXISTS orders_by_account ON orders (account_id, id)")

    def of(self, account_id: str) -> list[Order]:
        """The account's own orders, newest first."""
        with self._connected() as db:
            rows = db.execute(
                "SELECT id, product, quantity, total_cents, ordered_at FROM orders"
                " WHERE account_id = ? ORDER BY id DESC",
                (account_id,),
            ).fetchall()
        return [Order(*row) for row in rows]

    def add(self, account_id: str, product: Product, quantity: int) -> Order:
        """Stores an order before it returns; OrderBookFullError when the account's book is full."""
        total_cents, ordered_at = product.price_cents * quantity, self._clock()
        with self._writing() as db:
            # Counted inside the writing transaction: two orders at once cannot both be the last one allowed.
            (count,) = db.execute("SELECT count(*) FROM orders WHERE account_id = ?", (account_id,)).fetchone()
            if count >= MAX_ORDERS:
                raise OrderBookFullError
            [(order_id,)] = db.execute(
                "INSERT INTO orders (account_id, product, quantity, total_cents, ordered_at)"
                " VALUES (?, ?, ?, ?, ?) RETURNING id",
                (account_id, product.id, quantity, total_cents, ordered_at),
            ).fetchall()
        return Order(order_id, product.id, quantity, total_cents, ordered_at)

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
