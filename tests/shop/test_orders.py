"""The shop's order book on a real SQLite file: durable, everyone's own, bounded, also when many order at once."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from examples.shop.orders import MAX_ORDERS, PRODUCTS, Order, OrderBook, OrderBookFullError

WAX = PRODUCTS["wax"]
NOON = 1_800_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "shop.sqlite3"


@pytest.fixture
def orders(file: Path) -> OrderBook:
    return OrderBook(file, clock=lambda: NOON)


def test_an_order_is_kept_with_the_shops_price_and_time(orders: OrderBook) -> None:
    order = orders.add("ada", WAX, 3)

    assert order == Order(1, "wax", 3, 3 * WAX.price_cents, NOON)
    assert orders.of("ada") == [order]


def test_orders_outlive_the_process_that_took_them(orders: OrderBook, file: Path) -> None:
    order = orders.add("ada", WAX, 1)

    assert OrderBook(file, clock=lambda: NOON).of("ada") == [order]


def test_everyone_sees_the_own_orders_only_newest_first(orders: OrderBook) -> None:
    first, second = orders.add("ada", WAX, 1), orders.add("ada", PRODUCTS["ink"], 2)
    others = orders.add("grace", WAX, 1)

    assert orders.of("ada") == [second, first]
    assert orders.of("grace") == [others]
    assert orders.of("nobody") == []


def test_an_account_cannot_keep_more_orders_than_the_limit_even_at_once(orders: OrderBook) -> None:
    for _ in range(MAX_ORDERS - 4):
        orders.add("ada", WAX, 1)

    def one_more(_: int) -> bool:
        try:
            orders.add("ada", WAX, 1)
        except OrderBookFullError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(one_more, range(16)))

    assert taken.count(True) == 4
    assert len(orders.of("ada")) == MAX_ORDERS
    orders.add("grace", WAX, 1)  # the limit is each account's own


def test_an_order_that_fails_leaves_nothing_behind(orders: OrderBook, file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TRIGGER refuse AFTER INSERT ON orders BEGIN SELECT raise(FAIL, 'no'); END")
        database.commit()

    with pytest.raises(sqlite3.IntegrityError):
        orders.add("ada", WAX, 1)

    assert orders.of("ada") == []


def test_an_account_id_is_data_never_sql(orders: OrderBook) -> None:
    orders.add("ada", WAX, 1)

    assert orders.of("' OR '1'='1") == []
