"""What goes wrong with keys: rows that do not open, a database put back, clocks that jump, commands that hang."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jotgate import KeyRefused, SettingsError, generate_key
from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.jwk import Key
from jotgate.core.revocations import Revocation
from jotgate.server import Settings, create_app
from jotgate.server.feed import Feed, Position
from jotgate.server.keys import PURPOSES, KeyRing, Purpose, ServerKeys
from jotgate.server.log import get_log
from jotgate.server.records import SealedKey, Target
from jotgate.server.refusals import Busy
from jotgate.server.rules.keys import KeyChange, KeyInUse, Standing, standing
from jotgate.server.sealing import MasterKey
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy
from jotgate.server.store.sqlite import SqliteStore
from tests.server.http.support import Api, Clock, client_of, code

WITHIN_S = 15.0
NOW = 1_800_000_000
DAY_S = 86_400
AHEAD_S = 900
JWKS = "/.well-known/jwks.json"


@dataclass
class Ring:
    """The keys of one process on a database, with a clock of its own."""

    keys: KeyRing
    store: SqliteStore
    clock: Clock

    def row(self, kid: str) -> SealedKey:
        return next(row for row in self.store.load_keys() if row.kid == kid)

    def write(self, *rows: SealedKey) -> None:
        """Change rows behind the ring's back, as another process or a restored copy does."""
        self.store.change_keys(lambda _: KeyChange(rows), now=self.clock.now, until_s=3_720)

    def active(self, purpose: str) -> str:
        [row] = [row for row in self.keys.rows() if row.purpose == purpose and standing(row) is Standing.ACTIVE]
        return row.kid


RingOf = Callable[..., Ring]


@pytest.fixture
def ring_of(tmp_path: Path) -> Iterator[RingOf]:
    opened: list[SqliteStore] = []

    def one(master: bytes = bytes(32), *, opening: bool = True, **changes: str) -> Ring:
        store = SqliteStore(tmp_path / "jotgate.db")
        store.open()
        opened.append(store)
        clock = Clock()
        keys = KeyRing(
            store,
            MasterKey(master),
            msgspec.structs.replace(Settings(signup="open", data_dir=tmp_path), **changes),
            clock=clock,
            monotonic=clock,
            random=os.urandom,
            log=get_log(),
        )
        if opening:
            keys.open()
        return Ring(keys, store, clock)

    yield one
    for store in opened:
        store.close_now()


@pytest.fixture
def ring(ring_of: RingOf) -> Ring:
    return ring_of()


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "jotgate"]


@pytest.mark.parametrize(
    "broken",
    [{"sealed": b"\x01" + bytes(60)}, {"sealed": b""}, {"algorithm": "XYZ512"}],
    ids=["does not open", "empty", "an algorithm of a newer version"],
)
def test_a_row_that_is_of_no_use_does_not_keep_a_revoked_key_in_use(
    ring_of: RingOf, ring: Ring, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = ring_of()
    other.clock.now += AHEAD_S + 1
    revoked = {purpose: ring.active(purpose) for purpose in PURPOSES}
    for kid in revoked.values():
        other.keys.revoke(kid)
    # The one that signs now is a key that this process has never opened.
    active = ring.row(other.active("access"))
    unknown = msgspec.structs.replace(active, kid="unknown", thumbprint="unknown", **broken)
    ring.write(msgspec.structs.replace(active, retired_at=NOW), unknown)
    assert not ring.keys.reload()
    now = ring.keys.now
    assert revoked["access"] not in now.trusted
    assert revoked["access"] not in now.published
    assert revoked["feed"] not in now.feed_published
    # Nothing is signed with what cannot be used; everything else goes on.
    assert now.issuer is None
    with pytest.raises(Busy):
        _ = ring.keys.issuer
    with pytest.raises(Busy):
        ring.keys.check_usable()
    assert ring.keys.refresh_tokens.active == other.active("refresh")
    assert now.feed is not None
    assert now.feed.kid == other.active("feed")
    ring.keys.reload()
    assert [each["kid"] for each in events(caplog) if each["event"] == "key_unusable"] == ["unknown"]  # told once


def test_a_purpose_that_only_a_newer_version_knows_is_left_alone(ring: Ring) -> None:
    other = msgspec.structs.replace(
        ring.row(ring.active("feed")), kid="theirs", thumbprint="theirs", purpose="unheard-of"
    )
    ring.write(other)
    assert ring.keys.reload()
    ring.keys.load()
    ring.clock.now += 31 * DAY_S
    ring.keys.turn()
    assert ring.row("theirs") == other


def test_a_process_with_a_master_key_of_before_makes_no_key(ring_of: RingOf, ring: Ring) -> None:
    stale = ring_of()
    for row in ring.keys.rows():
        raw = MasterKey(bytes(32)).unseal(row.sealed, purpose=row.purpose, kid=row.kid)
        anew = MasterKey(b"n" * 32).seal(raw, purpose=row.purpose, kid=row.kid)
        ring.write(msgspec.structs.replace(row, sealed=anew))
    newer = ring_of(b"n" * 32)
    newer.clock.now += AHEAD_S + 1
    newer.keys.rotate("access")
    assert not stale.keys.reload()
    before = stale.keys.rows()
    stale.clock.now += 31 * DAY_S
    with pytest.raises(SettingsError, match="no key can be made while"):
        stale.keys.turn()
    assert stale.keys.rows() == before
    with pytest.raises(SettingsError, match="does not open"):
        stale.keys.load()


@pytest.mark.parametrize("purposes", [("access",), PURPOSES])
def test_broken_rows_are_got_rid_of_by_revoking_them(ring_of: RingOf, purposes: tuple[Purpose, ...]) -> None:
    ring_of()
    ring = ring_of(opening=False)
    nexts = [row for row in ring.keys.rows() if row.purpose in purposes and standing(row) is Standing.NEXT]
    kids = [row.kid for row in nexts]
    ring.write(*(msgspec.structs.replace(row, sealed=b"\x01" + bytes(60)) for row in nexts))
    for besides in ((), kids[:1]):
        with pytest.raises(SettingsError, match="does not open the access key"):
            ring.keys.load(besides=besides)
    ring.keys.load(besides=kids)
    for kid in kids:
        ring.keys.revoke(kid)
    ring.keys.load()


def test_a_revoked_key_that_is_back_is_not_used_while_it_cannot_be_revoked_again(ring: Ring) -> None:
    revoked = ring.active("access")
    copy = ring.row(revoked)
    ring.keys.revoke(revoked)
    ring.keys.reload()
    following = ring.row(ring.active("access"))
    ring.write(copy, msgspec.structs.replace(following, activated_at=None))
    with locked(ring.store), pytest.raises(StoreBusy):
        ring.keys.reload()
    assert revoked not in ring.keys.now.trusted
    assert ring.keys.now.issuer is None
    assert ring.keys.reload()
    assert standing(ring.row(revoked)) is Standing.REVOKED
    assert ring.active("access") != revoked
    [signing] = ring.keys.issuer.keys
    assert signing.kid == ring.active("access")


def test_replicas_that_revoke_again_at_once_both_go_on(ring_of: RingOf, ring: Ring) -> None:
    other = ring_of()
    revoked = ring.active("access")
    copy = ring.row(revoked)
    ring.keys.revoke(revoked)
    rings = (ring, other)
    for each in rings:
        each.keys.reload()
    ring.write(copy)
    failed: list[BaseException] = []
    meet = threading.Barrier(2)

    def reload(each: Ring) -> None:
        meet.wait()
        try:
            assert each.keys.reload()
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=reload, args=(each,)) for each in rings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert failed == []
    assert {kid for each in rings for kid in [key.kid for key in each.keys.issuer.keys]} == {ring.active("access")}


@contextmanager
def locked(store: SqliteStore) -> Iterator[None]:
    """Another process has the database's write lock for longer than anybody waits."""
    with closing(sqlite3.connect(store._path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_the_keys_of_a_new_database_are_made_before_its_lock_is_taken(
    ring_of: RingOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = ring_of(opening=False)
    waited = 0

    def made(algorithm: str) -> Key:
        # Whoever else wants to write would have to wait for a key, if one were made under the lock.
        nonlocal waited
        with closing(sqlite3.connect(ring.store._path, isolation_level=None, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        waited += 1
        return generate_key(algorithm)

    monkeypatch.setattr("jotgate.server.keys.generate_key", made)
    ring.keys.open()
    assert waited >= 6


def test_another_algorithm_at_the_start_that_adopts_old_keys_counts_at_once(ring_of: RingOf, ring: Ring) -> None:
    of_before = [row for row in ring.keys.rows() if standing(row) is Standing.ACTIVE]
    following = tuple(row.kid for row in ring.keys.rows() if standing(row) is Standing.NEXT)
    change = KeyChange(tuple(msgspec.structs.replace(row, issuer="") for row in of_before), forgotten=following)
    ring.store.change_keys(lambda _: change, now=NOW, until_s=3_720)
    started = ring_of(signing_algorithm="Ed25519")
    published = {key.algorithm for key in started.keys.now.published}
    assert published == {"ES256", "Ed25519"}


def test_an_imported_key_outlives_the_start_of_a_server_with_another_algorithm_or_comes_again(
    ring_of: RingOf, ring: Ring
) -> None:
    brought = generate_key("ES256", kid="theirs")
    ring.clock.now += 1
    ring.keys.bring(brought)
    switching = ring_of(signing_algorithm="Ed25519")
    assert "theirs" in switching.keys.now.published
    switching.clock.now += AHEAD_S + 5
    switching.keys.turn()  # the switch comes about, and takes it away
    assert standing(switching.row("theirs")) is Standing.REMOVED
    back = ring_of(signing_algorithm="ES256")
    back.keys.bring(brought)
    assert standing(back.row("theirs")) is Standing.NEXT
    again = msgspec.structs.replace(back.row("theirs"))
    with pytest.raises(KeyInUse):
        back.keys.bring(brought)
    assert back.row("theirs") == again


@pytest.mark.parametrize("kid", ["a\0b", "a\nb", "\x1b[2J"])
def test_a_key_that_no_command_line_could_name_is_not_taken_in(ring: Ring, kid: str) -> None:
    with pytest.raises(KeyRefused, match="cannot be printed"):
        ring.keys.bring(generate_key("ES256", kid=kid))


def test_an_imported_key_may_come_again_under_another_name(ring: Ring) -> None:
    key = generate_key("ES256", kid="theirs")
    ring.keys.bring(key)
    ring.write(msgspec.structs.replace(ring.row("theirs"), sealed=b"", removed_at=NOW))
    ring.keys.bring(generate_key("ES256", kid="theirs"))  # other material of the same name
    assert ring.keys.reload()
    ring.write(msgspec.structs.replace(ring.row("theirs"), sealed=b"", removed_at=NOW))
    renamed = Key.from_pem(key.to_pem(), "ES256", kid="another name")
    ring.keys.bring(renamed)
    ring.keys.load()
    assert renamed.kid in ring.keys.now.published


def test_a_listener_never_ends_up_with_keys_of_before(ring: Ring) -> None:
    told: list[ServerKeys] = []
    inside, overtaken = threading.Event(), threading.Event()

    def listener(keys: ServerKeys) -> None:
        if not inside.is_set():
            inside.set()
            overtaken.wait(0.5)  # longer than it takes to tell of what came in between, if that is possible
        told.append(keys)
        overtaken.set()

    adding = threading.Thread(target=ring.keys.on_change, args=(listener,))
    adding.start()
    assert inside.wait(WITHIN_S)
    ring.keys.revoke(ring.active("access"))
    ring.keys.reload()
    adding.join(WITHIN_S)
    assert told[-1] is ring.keys.now


@pytest.mark.parametrize("by", [-30 * 365 * DAY_S, -3 * DAY_S, 3 * DAY_S, 30 * 365 * DAY_S])
def test_a_clock_that_jumps_and_is_put_right_changes_nothing_and_is_told(
    ring_of: RingOf, by: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock, steady = Clock(), Clock()
    ring = ring_of()
    keys = KeyRing(
        ring.store,
        MasterKey(bytes(32)),
        ring.keys._settings,
        clock=clock,
        monotonic=steady,
        random=os.urandom,
        log=get_log(),
    )
    keys.open()
    clock.now += AHEAD_S + 1
    steady.now += AHEAD_S + 1
    keys.rotate("access")  # the key that is retired now has signed tokens for an hour
    keys.reload()
    before = keys.rows()
    assert keys.may_turn()
    clock.now += by
    for _ in range(3):
        assert not keys.may_turn()
    clock.now -= by
    assert keys.may_turn()
    keys.turn()
    assert keys.rows() == before
    assert [each["event"] for each in events(caplog)].count("clock_jumped") == 1


def test_a_replica_that_starts_with_a_clock_that_is_behind_costs_the_others_no_key(ring_of: RingOf) -> None:
    ring = ring_of()
    ring.clock.now += AHEAD_S + 1
    ring.keys.rotate("access")  # the key that is retired now has signed tokens for an hour
    before = ring.keys.rows()
    late = ring_of(opening=False)
    late.clock.now = ring.clock.now - 3 * DAY_S
    late.keys.open()
    ring.keys.reload()
    assert not ring.keys.turn()
    assert ring.keys.rows() == before


def test_times_that_are_days_ahead_are_put_right_by_who_has_run_for_an_hour(ring_of: RingOf) -> None:
    ahead = ring_of(opening=False)
    ahead.clock.now += 400 * DAY_S
    ahead.keys.open()
    ring = ring_of()
    assert not ring.keys.turn()
    ring.clock.now += 3_720
    assert ring.keys.may_turn()
    assert ring.keys.turn()
    assert all(row.created_at <= ring.clock.now for row in ring.keys.rows())


def test_erased_keys_are_in_no_file_of_the_database(ring: Ring, tmp_path: Path) -> None:
    sealed = [ring.row(ring.active(purpose)).sealed for purpose in PURPOSES]
    assert all(any(each in path.read_bytes() for path in tmp_path.glob("jotgate.db*")) for each in sealed)
    with closing(sqlite3.connect(ring.store._path, isolation_level=None)) as another:  # or closing would tidy up
        another.execute("SELECT count(*) FROM jotgate_keys").fetchone()
        for purpose in PURPOSES:
            ring.keys.revoke(ring.active(purpose))
        left = b"".join(path.read_bytes() for path in tmp_path.glob("jotgate.db*"))
    for each in sealed:
        assert each not in left
    assert ring.row(ring.active("access")).sealed in left


# The feed without a key


def feed(key: Key) -> Feed:
    return Feed(
        key,
        issuer="https://a.example",
        entries=tuple,
        keep_s=60,
        connections=2,
        connections_per_address=2,
        clock=lambda: NOW,
    )


async def test_a_feed_without_a_key_says_nothing_and_then_that_something_was_missed() -> None:
    one, two = generate_key("ES256"), generate_key("ES256")
    told = feed(one)
    told.begin("log", 0)
    told.append(1, [Revocation("token", ("a",))])
    told.use_key(None)
    for ask in (lambda: told.since(Position("log", 1)), told.snapshot):
        with pytest.raises(Busy):
            ask()
    with pytest.raises(Busy):
        await told.open_stream(None, address="192.0.2.1")
    assert told.open_streams == 0
    told.append(2, [Revocation("token", ("b",))])
    assert told.head == Position("log", 2)
    told.use_key(two)
    assert told.since(Position("log", 1)).startswith(b"event: resync")
    assert kid_of(told.snapshot()[1]) == two.kid


async def test_a_stream_ends_when_there_is_no_key_to_sign_with() -> None:
    told = feed(generate_key("ES256"))
    told.begin("log", 0)
    stream = await told.open_stream(None, address="192.0.2.1")
    await anext(stream)
    told.use_key(None)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), WITHIN_S)
    assert told.open_streams == 0


def test_a_message_that_was_signed_with_a_key_revoked_meanwhile_is_signed_anew() -> None:
    one, two = generate_key("ES256"), generate_key("ES256")
    asked = 0

    def clock() -> int:
        nonlocal asked
        asked += 1
        if asked == 2:  # for the time that the message bears
            told.use_key(two)
        return NOW

    told = Feed(
        one, issuer="https://a.example", entries=tuple, keep_s=60, connections=2, connections_per_address=2, clock=clock
    )
    told.append(1, [Revocation("token", ("a",))])
    [message, _, _] = told.since(Position("", 0)).decode().split("\n\n")
    assert kid_of(message.rpartition("data: ")[2].encode()) == two.kid


def kid_of(token: bytes) -> str:
    kid: str = json.loads(decode_segment(token.split(b".", maxsplit=1)[0].decode()))["kid"]
    return kid


# A running server


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def one(**changes: Secret) -> Api:
            settings = msgspec.structs.replace(
                Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1), **changes
            )
            clock = Clock()
            app = create_app(settings, clock=clock)
            await stack.enter_async_context(app.lifespan())
            http = await stack.enter_async_context(client_of(app))
            return Api(app, http, clock, settings)

        yield one


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_server_whose_keys_do_not_open_says_so_and_works_again_when_they_do(start: Callable[..., Any]) -> None:
    api = await start(master_key=Secret(encode_segment(b"m" * 32)))
    await api.signup()
    tokens = await api.login()
    deps = api.app.start()
    rows = deps.keys.rows()
    broken = tuple(msgspec.structs.replace(row, kid=row.kid + "-2", thumbprint=row.thumbprint + "-2") for row in rows)
    gone = tuple(msgspec.structs.replace(row, sealed=b"", removed_at=NOW) for row in rows)
    change = partial(deps.store.change_keys, now=NOW, until_s=3_720)
    await asyncio.to_thread(change, lambda _: KeyChange((*gone, *broken)))
    await until(lambda: deps.keys.now.issuer is None)
    for path in ("/readyz", "/revocations", "/revocations/stream"):
        assert code(await api.http.get(path)) == (503, "busy")
    answer = await api.refresh(tokens["refresh_token"])
    assert code(answer) == (503, "busy")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await api.http.get("/healthz")).status_code == 200
    await asyncio.to_thread(change, lambda _: KeyChange(tuple(rows), forgotten=tuple(row.kid for row in broken)))
    await until(lambda: deps.keys.now.issuer is not None)
    assert (await api.http.get("/readyz")).status_code == 200
    assert (await api.refresh(tokens["refresh_token"])).status_code == 200


@dataclass
class Hanging:
    """A server whose command for the master key hangs, run again to open a key sealed under a newer one."""

    api: Api
    asked: Path
    at_start: int
    hang: Path


@pytest.fixture
async def hanging(start: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Hanging]:
    asked, hang = tmp_path / "asked", tmp_path / "hang"
    script = tmp_path / "master.py"
    script.write_text(
        "import pathlib, sys, time\n"
        f"with open({str(asked)!r}, 'a') as log: log.write('x')\n"
        f"while pathlib.Path({str(hang)!r}).exists(): time.sleep(0.05)\n"
        f"print({encode_segment(b'm' * 32)!r})\n"
    )
    api = await start(master_key_command=Secret(f"{sys.executable} {script}"))
    await api.signup()
    deps = api.app.start()
    at_start = len(asked.read_text())
    hang.touch()
    try:
        [row] = [row for row in deps.keys.rows() if row.purpose == "feed" and standing(row) is Standing.ACTIVE]
        sealed = MasterKey(b"n" * 32).seal(b"newer", purpose="feed", kid="newer")
        newer = msgspec.structs.replace(row, kid="newer", thumbprint="newer", sealed=sealed, activated_at=None)
        await asyncio.to_thread(deps.store.change_keys, lambda _: KeyChange((newer,)), now=NOW, until_s=3_720)
        await until(lambda: len(asked.read_text()) > at_start)
        yield Hanging(api, asked, at_start, hang)
    finally:
        hang.unlink(missing_ok=True)


async def test_a_master_key_command_that_hangs_does_not_hold_up_revocations(hanging: Hanging) -> None:
    api, deps = hanging.api, hanging.api.app.start()
    other = SqliteStore(api.settings.sqlite_path)
    other.open()
    try:
        await other.revoke(Target("token", "stolen"), clock=lambda: NOW, until_s=3_720)
    finally:
        other.close_now()
    await until(lambda: any("stolen" in each.ids for each in deps.live.entries()))
    assert (await api.http.get("/revocations")).status_code == 200
    assert len(hanging.asked.read_text()) == hanging.at_start + 1


async def test_a_master_key_command_that_hangs_keeps_no_revoked_key_in_use(hanging: Hanging) -> None:
    api, deps = hanging.api, hanging.api.app.start()
    revoked = deps.keys.now.signing
    assert revoked is not None
    # Not by this process: it makes no successor while a key does not open.
    now = api.clock.now
    [row] = [row for row in deps.keys.rows() if row.kid == revoked.kid]
    heir = next(row for row in deps.keys.rows() if row.purpose == "access" and standing(row) is Standing.NEXT)
    change = KeyChange(
        (
            msgspec.structs.replace(row, revoked_at=now, sealed=b""),
            msgspec.structs.replace(heir, activated_at=now),
        )
    )
    await asyncio.to_thread(deps.store.change_keys, lambda _: change, now=now, until_s=3_720)
    await until(lambda: deps.keys.now.signing not in (None, revoked))
    assert revoked.kid not in [key["kid"] for key in (await api.http.get(JWKS)).json()["keys"]]
    assert len(hanging.asked.read_text()) == hanging.at_start + 1


async def test_a_server_stops_while_a_master_key_command_hangs(hanging: Hanging) -> None:
    await asyncio.wait_for(asyncio.to_thread(hanging.api.app.close), WITHIN_S)
    assert len(hanging.asked.read_text()) == hanging.at_start + 1


async def test_a_key_under_a_newer_master_key_is_used_once_the_command_gives_it(
    hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jotgate")
    deps = hanging.api.app.start()
    hanging.hang.unlink()  # the one that runs gives the key of before once more
    await until(lambda: any(each["event"] == "key_unusable" for each in events(caplog)))
    assert deps.keys.waits_for_command
    [closed] = [row for row in deps.keys.rows() if row.kid == "newer"]
    raw = generate_key("ES256").to_pem().encode()
    sealed = MasterKey(b"n" * 32).seal(raw, purpose="feed", kid="newer")
    newer = msgspec.structs.replace(closed, sealed=sealed)
    await asyncio.to_thread(deps.store.change_keys, lambda _: KeyChange((newer,)), now=NOW, until_s=3_720)
    hanging.hang.with_name("master.py").write_text(f"print({encode_segment(b'n' * 32)!r})\n")
    await until(lambda: "newer" in [key.kid for key in deps.keys.now.feed_published])
    assert [each["event"] for each in events(caplog)].count("key_unusable") == 1


async def test_an_unforeseen_error_in_reading_keys_is_told_once_and_revocations_go_on(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jotgate")
    api = await start()
    deps = api.app.start()

    def fault(_: ServerKeys) -> None:
        raise LookupError("unforeseen")

    with pytest.raises(LookupError):
        deps.keys.on_change(fault)
    await asyncio.to_thread(deps.keys.revoke, deps.keys.rows()[0].kid)
    await until(lambda: any(each["event"] == "keys_unread" for each in events(caplog)))
    await deps.store.log_again([Revocation("token", ("stolen",))], now=NOW, until_s=3_720)
    await until(lambda: any("stolen" in each.ids for each in deps.live.entries()))
    assert [each["event"] for each in events(caplog)].count("keys_unread") == 1
    assert (await api.http.get(JWKS)).status_code == 200
