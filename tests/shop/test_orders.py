"""The shop's order book on a real SQLite file: durable, everyone's own, bounded, never oversold."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from examples.shop.orders import (
    MAX_ORDERS,
    PRODUCTS,
    Line,
    Order,
    OrderBook,
    OrderBookFullError,
    OutOfStockError,
    UnknownProductError,
)

WAX = Line("wax", 1)
NOON = 1_800_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "shop.sqlite3"


@pytest.fixture
def orders(file: Path) -> OrderBook:
    return OrderBook(file, clock=lambda: NOON)


def test_an_order_is_kept_with_the_shops_price_and_time(orders: OrderBook) -> None:
    order = orders.add("ada", Line("wax", 3))

    assert order == Order(1, "wax", 3, 3 * PRODUCTS["wax"].price_cents, NOON)
    assert orders.of("ada") == [order]


def test_orders_outlive_the_process_that_took_them(orders: OrderBook, file: Path) -> None:
    order = orders.add("ada", WAX)

    assert OrderBook(file, clock=lambda: NOON).of("ada") == [order]


def test_everyone_sees_the_own_orders_only_newest_first(orders: OrderBook) -> None:
    first, second = orders.add("ada", WAX), orders.add("ada", Line("ink", 2))
    others = orders.add("grace", WAX)

    assert orders.of("ada") == [second, first]
    assert orders.of("grace") == [others]
    assert orders.of("nobody") == []


def test_an_account_cannot_keep_more_orders_than_the_limit_even_at_once(orders: OrderBook) -> None:
    for _ in range(MAX_ORDERS - 4):
        orders.add("ada", WAX)

    def one_more(_: int) -> bool:
        try:
            orders.add("ada", WAX)
        except OrderBookFullError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(one_more, range(16)))

    assert taken.count(True) == 4
    assert len(orders.of("ada")) == MAX_ORDERS
    orders.add("grace", WAX)  # the limit is each account's own


def test_an_order_that_fails_leaves_nothing_behind(orders: OrderBook, file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TRIGGER refuse AFTER INSERT ON orders BEGIN SELECT raise(FAIL, 'no'); END")
        database.commit()

    with pytest.raises(sqlite3.IntegrityError):
        orders.add("ada", WAX)

    assert orders.of("ada") == []


def test_an_account_id_is_data_never_sql(orders: OrderBook) -> None:
    orders.add("ada", WAX)

    assert orders.of("' OR '1'='1") == []


def stock(orders: OrderBook, product: str) -> int:
    (found,) = (each for each in orders.products() if each.id == product)
    return found.stock


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", set(PRODUCTS)),
        ("  ", set(PRODUCTS)),
        ("brass", {"ruler", "clips"}),
        ("BRASS 40", {"clips"}),
        ("15 brass", {"ruler"}),
        ("yacht", set()),
        ("%", set()),
        ("' OR 1=1 --", set()),
    ],
)
def test_a_search_finds_what_has_all_its_words(orders: OrderBook, query: str, found: set[str]) -> None:
    assert {product.id for product in orders.products(query)} == found


def test_what_is_ordered_is_off_the_shelf_also_after_a_restart(orders: OrderBook, file: Path) -> None:
    orders.add("ada", Line("wax", 3))

    assert stock(OrderBook(file, clock=lambda: NOON), "wax") == PRODUCTS["wax"].stock - 3


def test_a_checkout_orders_all_of_it(orders: OrderBook) -> None:
    done = orders.check_out("ada", "first", [Line("wax", 2), Line("ink", 1)])

    assert [(order.product, order.quantity) for order in done] == [("wax", 2), ("ink", 1)]
    assert orders.of("ada") == done[::-1]


@pytest.mark.parametrize(
    ("line", "error"), [(Line("pen", 6), OutOfStockError), (Line("yacht", 1), UnknownProductError)]
)
def test_or_nothing_of_it(orders: OrderBook, line: Line, error: type[Exception]) -> None:
    orders.set_stock("pen", 5)

    with pytest.raises(error):
        orders.check_out("ada", "first", [WAX, line])

    assert orders.of("ada") == []
    assert stock(orders, "wax") == PRODUCTS["wax"].stock
    assert len(orders.check_out("ada", "first", [WAX])) == 1  # the checkout that was refused left no trace


def test_a_checkout_that_is_sent_again_is_not_ordered_twice(orders: OrderBook) -> None:
    done = orders.check_out("ada", "first", [Line("wax", 2), Line("ink", 1)])
    orders.add("grace", WAX)

    assert orders.check_out("ada", "first", [Line("wax", 2), Line("ink", 1)]) == done
    assert orders.of("ada") == done[::-1]
    assert orders.check_out("grace", "first", [WAX]) != done  # an id is each account's own


def test_checkouts_at_once_never_sell_what_is_not_there(orders: OrderBook) -> None:
    orders.set_stock("pen", 10)
    orders.set_stock("stamp", 100)

    def buy(number: int) -> tuple[str, ...]:
        try:
            orders.check_out(f"person {number}", "first", [Line("stamp", 2), Line("pen", 3)])
        except OutOfStockError as lack:
            return lack.products
        return ()

    with ThreadPoolExecutor(8) as pool:
        lacking = sorted(pool.map(buy, range(16)))

    assert lacking == [()] * 3 + [("pen",)] * 13
    assert (stock(orders, "pen"), stock(orders, "stamp")) == (1, 94)


def test_a_checkout_counts_all_its_lines_against_the_limit_of_orders(orders: OrderBook) -> None:
    for _ in range(MAX_ORDERS - 1):
        orders.add("ada", WAX)

    with pytest.raises(OrderBookFullError):
        orders.check_out("ada", "last", [WAX, Line("ink", 1)])

    assert len(orders.of("ada")) == MAX_ORDERS - 1


def test_stock_is_what_staff_say_and_only_of_what_there_is(orders: OrderBook) -> None:
    assert orders.set_stock("eraser", 7).stock == stock(orders, "eraser") == 7
    with pytest.raises(UnknownProductError):
        orders.set_stock("yacht", 7)
