"""The app's start: keys are made once, sealed, and opened by the right master key only."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from jotgate import KeySourceError, SettingsError
from jotgate.core.encoding import encode_segment
from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy, postgres_pool
from jotgate.server.store.postgres_schema import Names
from tests.server.http.support import Clock, client_of
from tests.services import PostgresServer


def started(settings: Settings) -> AuthApp:
    app = create_app(settings, clock=Clock())
    app.start()
    return app


def test_a_restart_keeps_the_signing_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    kids = []
    for _ in range(2):
        app = started(settings)
        kids += [key.kid for key in app.start().issuer.keys]
        app.close()
    assert kids[0] == kids[1]


def test_private_keys_lie_in_the_database_sealed_only(tmp_path: Path) -> None:
    app = started(Settings(data_dir=tmp_path / "data"))
    private = app.start().issuer.keys
    (key,) = private
    app.close()
    secret = key.to_private_jwk()["d"]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("jotgate.sqlite3*"))
    assert b"PRIVATE KEY" not in stored
    assert secret.encode() not in stored


def test_a_wrong_master_key_stops_the_start_with_one_sentence(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    started(settings).close()
    wrong = Settings(data_dir=tmp_path / "data", master_key=Secret(encode_segment(b"x" * 32)))
    with pytest.raises(SettingsError, match="is not the one that the database was made with") as caught:
        started(wrong)
    assert len(caught.value.faults) == 1


def test_a_lost_master_key_stops_the_start_and_is_not_replaced(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    started(settings).close()
    (tmp_path / "data" / "master.key").unlink()
    with pytest.raises(SettingsError, match="is missing"):
        started(settings)
    assert not (tmp_path / "data" / "master.key").exists()


async def test_of_many_first_requests_at_once_one_starts_the_app(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"), clock=Clock())
    async with client_of(app) as http:
        answers = await asyncio.gather(*(http.get("/.well-known/jwks.json") for _ in range(10)))
    assert len({answer.content for answer in answers}) == 1
    app.close()


def test_closing_twice_and_closing_what_never_started_is_fine(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"))
    app.close()
    app.start()
    app.close()
    app.close()


def test_a_closed_app_leaves_no_connection_to_the_database_behind(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    app = started(Settings(data_dir=tmp_path / "data", database_url=Secret(postgres_url)))
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'jotgate'"
    name = postgres_url.rpartition("/")[2]
    assert postgres_server.query(count, name)[0][0] > 0
    app.close()
    deadline = time.monotonic() + 10  # the server takes a moment to notice
    while postgres_server.query(count, name)[0][0]:
        assert time.monotonic() < deadline


def test_a_start_that_fails_leaves_neither_thread_nor_connection_behind(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path, database_url=Secret(postgres_url), master_key=Secret(encode_segment(b"x" * 32))
    )
    started(settings).close()  # the tables are there
    database = postgres_url.rpartition("/")[2]
    (names,) = postgres_server.query(
        "SELECT relnamespace::regnamespace::text AS schema FROM pg_class WHERE oid = to_regclass($1)",
        "jotgate_revocation_head",
        database=database,
    )
    lock = Names(names["schema"]).attendance_lock

    async def held() -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute(f"SELECT pg_advisory_lock({lock})")
            with pytest.raises(StoreBusy):
                await asyncio.to_thread(started, settings)
        finally:
            await connection.close()

    asyncio.run(held())
    assert "jotgate-database-watch" not in {thread.name for thread in threading.enumerate()}
    deadline = time.monotonic() + 20
    connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jotgate' AND datname = $1"
    while postgres_server.query(connected, database)[0]["count"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started(settings).close()


@pytest.fixture
def silent_database() -> Iterator[Secret]:
    """The address of something that takes connections and says nothing."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        yield Secret(f"postgresql://jotgate@127.0.0.1:{hole.getsockname()[1]}/app")


async def test_a_verifier_in_an_app_that_cannot_start_says_so_and_blocks_no_event_loop(
    silent_database: Secret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "CONNECT_S", 0.5)
    app = create_app(
        Settings(data_dir=tmp_path, database_url=silent_database, master_key=Secret(encode_segment(b"x" * 32)))
    )
    verifier = app.verifier()
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0)
    began = time.monotonic()
    answers = await asyncio.gather(*(verifier.averify("a.b.c") for _ in range(20)), return_exceptions=True)
    turning.cancel()
    assert time.monotonic() - began < 5  # all wait for the one try, and none tries again: 20 would take 10 s
    assert turns > 100
    assert {type(answer) for answer in answers} == {KeySourceError}
    assert "could not start: the database app at 127.0.0.1:" in str(answers[0])
    with pytest.raises(KeySourceError):
        await asyncio.to_thread(verifier.verify, "a.b.c")  # later it is tried anew
    assert not verifier.status().ready


def test_to_ask_how_a_verifier_does_starts_nothing(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data"))
    verifier = app.verifier()
    status = verifier.status()
    assert (status.mode, status.ready, status.keys) == ("in_process", False, ())
    assert list(tmp_path.iterdir()) == []
    app.start()
    assert verifier.status().ready
    app.close()
    assert not verifier.status().ready
