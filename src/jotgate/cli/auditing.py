"""``jotgate audit``: the audit trail, for people and for other programs, also while servers write it."""

import asyncio
import csv
import datetime as dt
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec.structs import asdict

from jotgate.cli.administration import account_of, settings_of, store_of
from jotgate.cli.text import printable, utc
from jotgate.core.errors import JotgateError
from jotgate.server.records import AUDIT_NAMES, AuditEvent
from jotgate.server.rules.accounts import normalise_email
from jotgate.server.store import MAX_AT, Store

PAGE: Final = 1_000
FOLLOW_EVERY_S: Final = 1.0
LOOK_BACK_S: Final = 60.0
"""Longer than any transaction that writes a line may take: on PostgreSQL one may be committed after a later number."""
_LOOK_BACK_LINES: Final = 1_000  # of those that were there at the beginning, whose age nobody knows
_COLUMNS: Final = AuditEvent.__struct_fields__
_FORMULA: Final = ("=", "+", "-", "@")

_Write = Callable[[AuditEvent], None]
_Page = Callable[[int], Awaitable[list[AuditEvent]]]


class UnknownEventError(JotgateError):
    """Nothing in the audit trail has this name."""

    code = "unknown_event"


class InvalidTimeError(JotgateError):
    """It is no time."""

    code = "invalid_time"


def tail(data: Path | None, *, limit: int, follow: bool, email: str | None, event: str | None, as_json: bool) -> None:
    """Print the newest lines, the newest last, and with `follow` those that come.

    Raises:
        InvalidEmail, NoSuchAccountError: nobody has this address.
        UnknownEventError: there is no such event.
    """
    write = _as_json if as_json else _as_text
    with _trail(data, email, event) as (store, account_id):
        asyncio.run(_tail(store, account_id, event, limit, write, follow=follow))


async def _tail(
    store: Store, account_id: str | None, event: str | None, limit: int, write: _Write, *, follow: bool
) -> None:
    newest = await store.audit_last(limit=max(limit, _LOOK_BACK_LINES), account_id=account_id, event=event)
    for each in newest[-limit:]:
        write(each)
    sys.stdout.flush()
    if follow:
        page = partial(store.audit_after, limit=PAGE, account_id=account_id, event=event)
        follower = Following(newest[-_LOOK_BACK_LINES:], time.monotonic())
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            async for each in follower.new(page, time.monotonic()):
                write(each)
            sys.stdout.flush()


class Following:
    """What has come since the last look, each line once, whatever the order of commits.

    A number may be given before another one and be committed after it. So each look goes back to numbers that were
    first seen a minute ago, and knows which of those behind them it has seen.
    """

    def __init__(self, seen: list[AuditEvent], now_s: float) -> None:
        """`seen` are the newest lines, in the order of their ids: all there are, or a thousand."""
        self._floor = seen[0].id - 1 if len(seen) >= _LOOK_BACK_LINES else 0
        self._seen = {each.id: now_s for each in seen}

    async def new(self, page: _Page, now_s: float) -> AsyncIterator[AuditEvent]:
        """Give the lines that were not there the last time; `page` reads those behind an id."""
        after = self._floor
        while lines := await page(after):
            after = lines[-1].id
            for each in lines:
                if each.id not in self._seen:
                    self._seen[each.id] = now_s
                    yield each
        settled = [number for number, at in self._seen.items() if now_s - at > LOOK_BACK_S]
        # The last one stays, so that the floor is one that was seen.
        self._floor = max([self._floor, *settled])
        for number in settled:
            del self._seen[number]


def export(
    data: Path | None, *, since: str | None, until: str | None, email: str | None, event: str | None, form: str
) -> None:
    """Write all lines of a time to standard output, in pages: however many there are, memory is bounded.

    Raises:
        InvalidTimeError: `since` or `until` is no time.
        InvalidEmail, NoSuchAccountError, UnknownEventError: as for `tail`.
    """
    first = 0 if since is None else parse_time(since)
    end = MAX_AT if until is None else parse_time(until)
    with _trail(data, email, event) as (store, account_id):
        write = _as_json
        if form == "csv":
            table = csv.writer(sys.stdout, lineterminator="\n")
            table.writerow(_COLUMNS)
            write = partial(_as_csv, table.writerow)
        asyncio.run(_export(store, account_id, event, first, end, write))


async def _export(
    store: Store, account_id: str | None, event: str | None, since: int, until: int, write: _Write
) -> None:
    after = 0
    while lines := await store.audit_after(
        after, limit=PAGE, account_id=account_id, event=event, since=since, until=until
    ):
        for each in lines:
            write(each)
        after = lines[-1].id


def parse_time(text: str) -> int:
    """Read a date, a date with a time (ISO 8601; UTC where it names no zone), or Unix seconds.

    Raises:
        InvalidTimeError: it is none of these.
    """
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        moment = dt.datetime.fromisoformat(text)
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp())
    except (ValueError, OverflowError):
        raise InvalidTimeError(
            f"{text} is no time: write 2026-11-24, 2026-11-24T18:00:00Z, or seconds since 1970"
        ) from None


@contextmanager
def _trail(data: Path | None, email: str | None, event: str | None) -> Iterator[tuple[Store, str | None]]:
    if event is not None and event not in AUDIT_NAMES:
        raise UnknownEventError(f"there is no event {event}; there are {', '.join(AUDIT_NAMES)}")
    address = None if email is None else normalise_email(email)
    with store_of(settings_of(data)) as store:
        account_id = None if address is None else account_of(store, address).id
        try:
            yield store, account_id
            sys.stdout.flush()
        except BrokenPipeError:  # a reader such as `head` has had enough
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process


def _as_text(event: AuditEvent) -> None:
    words = [utc(event.at), event.event, f"by {event.actor}"]
    named = {"account": event.account_id, "session": event.sid, "from": event.address, "on": event.device}
    words += [f"{name} {value}" for name, value in named.items() if value]
    words += [f"request {event.request_id}"] if event.request_id else []
    words += [_brief(event)] if event.detail else []
    sys.stdout.write(printable("  ".join(words)) + "\n")


def _as_json(event: AuditEvent) -> None:
    # ASCII only: what a terminal would act on is an escape.
    sys.stdout.write(json.dumps(asdict(event) | {"detail": _detail(event)}, ensure_ascii=True) + "\n")


def _brief(event: AuditEvent) -> str:
    """Of the settings show those that have changed: the line has all of them, to compare the next ones with."""
    detail = _detail(event)
    if event.event != "settings_changed" or not isinstance(detail, dict):
        return event.detail
    settings = detail.get("settings", {})
    return json.dumps({name: settings.get(name) for name in detail.get("changed", ())})


def _detail(event: AuditEvent) -> Any:  # noqa: ANN401  any JSON value
    try:
        return json.loads(event.detail) if event.detail else {}
    except ValueError:  # written by something else
        return event.detail


def _as_csv(write_row: Callable[[list[str]], object], event: AuditEvent) -> None:
    write_row([csv_cell(str(value)) for value in asdict(event).values()])


def csv_cell(text: str) -> str:
    """Return the text so that no spreadsheet takes it for a formula, and no control character is left of it.

    The apostrophe in front is OWASP's way; whoever reads it by a program takes JSON.
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown
