"""`jotgate audit`: the trail on a terminal, for spreadsheets and for programs, however long it is."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jotgate.cli.auditing import LOOK_BACK_S, PAGE, Following, InvalidTimeError, csv_cell, parse_time
from jotgate.server import Settings, create_app
from jotgate.server.records import AuditEvent, AuditName
from jotgate.server.store import Store
from jotgate.server.store.opening import make_store
from tests.cli.conftest import Jotgate
from tests.conftest import PASSWORD, jotgate_command

NOW = 1_795_000_000
EVIL = '=HYPERLINK("http://evil")\r\n\x1b[31m\x9b\u202e'
EMAIL = "a@shop.example"


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of an empty database, in the environment, too."""
    monkeypatch.delenv("JOTGATE_VECTORS", raising=False)
    monkeypatch.setenv("JOTGATE_DATA_DIR", str(tmp_path / "data"))
    if request.param == "postgres":
        monkeypatch.setenv("JOTGATE_DATABASE_URL", request.getfixturevalue("postgres_url"))
        monkeypatch.setenv("JOTGATE_MASTER_KEY", secrets.token_urlsafe(32))
    return Settings.from_env(os.environ)


@pytest.fixture
def add(settings: Settings) -> Iterator[Callable[..., None]]:
    """Write lines into the trail, as a server does."""
    store = make_store(settings)
    store.open()

    def write(*events: AuditEvent) -> None:
        asyncio.run(_add(store, events))

    yield write
    store.close_now()


async def _add(store: Store, events: tuple[AuditEvent, ...]) -> None:
    await store.add_audit(events)


def line(n: int, event: AuditName = "login", **fields: Any) -> AuditEvent:  # noqa: ANN401  whatever the test cares about
    return AuditEvent(at=NOW + n, event=event, actor="account", request_id=f"r-{n}", **fields)


def test_what_operators_do_is_told(jotgate: Jotgate, settings: Settings) -> None:
    assert jotgate("accounts", "add", EMAIL, stdin=PASSWORD.encode()).status == 0
    app = create_app(settings)
    app.start()
    app.close()
    for words in (
        ("accounts", "grant", EMAIL, "orders:read"),
        ("accounts", "grant", EMAIL, "orders:read"),
        ("accounts", "revoke", EMAIL, "orders:read"),
        ("sessions", "revoke", "--client", "web", "--yes"),
    ):
        assert jotgate(*words).status == 0, words
    listed = json.loads(jotgate("keys", "list", "--json").out)
    (active,) = [key["kid"] for key in listed if (key["purpose"], key["state"]) == ("access", "active")]
    assert jotgate("keys", "revoke", active).status == 0
    ran = jotgate("audit", "tail", "--limit", "100", "--json")
    assert (ran.status, ran.err) == (0, "")
    told = [json.loads(each) for each in ran.out.splitlines()]
    by_cli = [each for each in told if each["actor"] == "cli"]
    assert [each["event"] for each in by_cli] == [
        "account_created",
        "scope_granted",
        "scope_revoked",
        "revoked",
        "key_revoked",
        "key_activated",
        "key_made",
    ]
    assert by_cli[1]["detail"] == {"scope": "orders:read"}
    assert by_cli[1]["account_id"] == by_cli[0]["account_id"] != ""
    assert by_cli[3]["detail"] == {"kind": "client", "id": "web"}
    assert by_cli[4]["detail"]["kid"] == active
    assert EMAIL not in ran.out
    mine = jotgate("audit", "tail", "--account", EMAIL, "--event", "scope_granted", "--json")
    assert [json.loads(each)["event"] for each in mine.out.splitlines()] == ["scope_granted"]


def test_a_key_that_is_brought_in_is_told_as_imported(jotgate: Jotgate, settings: Settings, tmp_path: Path) -> None:
    app = create_app(settings)
    app.start()
    app.close()
    file = tmp_path / "key.pem"
    from jotgate import generate_key

    file.write_text(generate_key("ES256").to_pem())
    assert jotgate("keys", "import", str(file), "--algorithm", "ES256").status == 0
    (told,) = jotgate("audit", "tail", "--event", "key_imported", "--json").out.splitlines()
    assert json.loads(told)["actor"] == "cli"


def test_the_newest_lines_are_shown_and_steer_no_terminal(
    jotgate: Jotgate, settings: Settings, add: Callable[..., None]
) -> None:
    add(*(line(n) for n in range(30)), line(30, device=EVIL, detail='{"n":1}', address="192.0.2.7", sid="s"))
    out = jotgate("audit", "tail", "--limit", "2").out
    assert out.count("\n") == 2
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert "2026-11-18 11:07:10 UTC  login  by account  session s  from 192.0.2.7  on =HYPERLINK" in out


def test_people_are_shown_the_settings_that_changed_and_programs_all(
    jotgate: Jotgate, settings: Settings, add: Callable[..., None]
) -> None:
    detail = '{"changed":["audience"],"settings":{"audience":"shop","http":false}}'
    add(line(0, "settings_changed", detail=detail), line(1, "settings_changed", detail="no JSON"))
    changed, odd = jotgate("audit", "tail").out.splitlines()
    assert changed.endswith('  {"audience": "shop"}')
    assert odd.endswith("  no JSON")
    told = [json.loads(each)["detail"] for each in jotgate("audit", "tail", "--json").out.splitlines()]
    assert told == [json.loads(detail), "no JSON"]


def test_an_export_is_whole_in_order_and_of_the_time_that_is_asked_for(
    jotgate: Jotgate, settings: Settings, add: Callable[..., None]
) -> None:
    count = 2 * PAGE + 7
    add(*(line(n, "login" if n % 2 else "logout") for n in range(count)))
    whole = [json.loads(each) for each in jotgate("audit", "export").out.splitlines()]
    assert [each["at"] - NOW for each in whole] == list(range(count))
    part = jotgate("audit", "export", "--since", str(NOW + 5), "--until", str(NOW + 9), "--event", "login").out
    assert [json.loads(each)["at"] - NOW for each in part.splitlines()] == [5, 7]
    rows = list(csv.DictReader(io.StringIO(jotgate("audit", "export", "--format", "csv").out)))
    assert [int(each["at"]) for each in rows] == [each["at"] for each in whole]
    assert list(rows[0]) == list(AuditEvent.__struct_fields__)


def test_no_spreadsheet_takes_a_cell_for_a_formula_and_no_line_breaks_out(
    jotgate: Jotgate, settings: Settings, add: Callable[..., None]
) -> None:
    add(line(0, device=EVIL, address="+1", sid="-2", account_id="@SUM(A1)"), line(1, device="\t=1", sid="\n"))
    out = jotgate("audit", "export", "--format", "csv").out
    assert out.count("\n") == 3
    assert out.replace("\n", "").isprintable()
    for row in csv.reader(io.StringIO(out)):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    told = jotgate("audit", "export").out
    assert told.isascii()
    assert json.loads(told.splitlines()[0])["device"] == EVIL


def test_a_reader_that_has_had_enough_is_no_error(settings: Settings, add: Callable[..., None]) -> None:
    add(*(line(n) for n in range(2 * PAGE)))
    with subprocess.Popen(
        [*jotgate_command(), "audit", "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["request_id"] == "r-0"
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == ("", 0)


def test_cells_that_mean_nothing_stay_as_they_are() -> None:
    for text in ("", "login", "192.0.2.7", "2001:db8::1", '{"a":-1}', "Firefox on Linux"):
        assert csv_cell(text) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1795000000", NOW),
        ("2026-11-18", 1_794_960_000),
        ("2026-11-18T11:06:40Z", NOW),
        ("2026-11-18T11:06:40", NOW),
        ("2026-11-18T12:06:40+01:00", NOW),
    ],
)
def test_times_are_read_as_people_and_programs_write_them(text: str, at: int) -> None:
    assert parse_time(text) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "-5", "1e9", "9" * 13, "10000-01-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidTimeError):
        parse_time(text)


def test_wrong_usage_is_told_in_one_sentence(jotgate: Jotgate, settings: Settings, add: Callable[..., None]) -> None:
    for words in (
        ("tail", "--event", "no_such"),
        ("tail", "--account", "nobody@shop.example"),
        ("export", "--since", "yesterday"),
    ):
        ran = jotgate("audit", *words)
        assert (ran.status, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert jotgate("audit", "export", "--format", "xml").status == 2


# Following


def numbered(*ids: int) -> list[AuditEvent]:
    return [AuditEvent(id=each, at=NOW, event="login", actor="account") for each in ids]


class Trail:
    """What is committed, as pages of two lines."""

    def __init__(self, *ids: int) -> None:
        self.committed = set(ids)
        self.asked: list[int] = []

    async def page(self, after: int) -> list[AuditEvent]:
        self.asked.append(after)
        return numbered(*sorted(each for each in self.committed if each > after)[:2])

    def come(self, follower: Following, now_s: float, *ids: int) -> list[int]:
        self.committed |= set(ids)

        async def look() -> list[int]:
            lines: AsyncIterator[AuditEvent] = follower.new(self.page, now_s)
            return [each.id async for each in lines]

        return asyncio.run(look())


def test_a_line_that_is_committed_after_later_ones_is_not_missed_and_none_is_told_twice() -> None:
    trail = Trail(1, 2, 3)
    follower = Following(numbered(1, 2, 3), 0.0)
    assert trail.come(follower, 1.0, 5, 7, 8) == [5, 7, 8]
    assert trail.come(follower, 2.0, 4) == [4]
    assert trail.come(follower, 1.0 + LOOK_BACK_S, 6, 9) == [6, 9]
    assert trail.come(follower, 2.0 + LOOK_BACK_S) == []


def test_following_for_long_neither_remembers_nor_reads_what_is_long_past() -> None:
    trail = Trail()
    follower = Following([], 0.0)
    for n in range(1, 500):
        assert trail.come(follower, 10.0 * n, n) == [n]
    trail.asked.clear()
    assert trail.come(follower, 5_000.0) == []
    assert min(trail.asked) > 480
    assert len(follower._seen) < 10


def test_lines_that_come_are_followed(settings: Settings, add: Callable[..., None]) -> None:
    add(line(0), line(1))
    environment = {name: value for name, value in os.environ.items() if name != "JOTGATE_VECTORS"}
    with subprocess.Popen(
        [*jotgate_command(), "audit", "tail", "--follow", "--limit", "1", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["request_id"] == "r-1"
            add(line(2), line(3))
            assert [json.loads(process.stdout.readline())["request_id"] for _ in range(2)] == ["r-2", "r-3"]
            process.terminate()
            out, error = process.communicate(timeout=30)
        finally:
            watchdog.cancel()
            process.kill()
    assert (process.returncode, out, error) == (-signal.SIGTERM, "", "")
