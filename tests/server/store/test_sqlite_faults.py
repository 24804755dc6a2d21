"""What SQLite meets in real life: full disks, locked and read-only databases, forks, and files that are not its own."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jotgate.core.errors import SettingsError
from jotgate.server.records import Account
from jotgate.server.rules.keys import KeyChange
from jotgate.server.store import StoreBusy, StoreError, lanes, sqlite_schema
from jotgate.server.store.attendance import Attendance
from jotgate.server.store.sqlite import SqliteStore

NewAccount = Callable[..., Account]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jotgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    store.open()
    yield store
    store.close_now()


def run_python(script: str, *arguments: str | Path) -> str:
    """Run a script in an interpreter of its own, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_nobody_else_may_read_the_folder_or_any_file_in_it(tmp_path: Path, new_account: NewAccount) -> None:
    store = SqliteStore(tmp_path / "data" / "jotgate.db")
    umask = os.umask(0)
    try:
        store.open()
        await store.add_account(new_account())
        files = list((tmp_path / "data").iterdir())
        assert {file.name for file in files} == {"jotgate.db", "jotgate.db-wal", "jotgate.db-shm"}
        assert {mode(file) for file in files} == {0o600}
        assert mode(tmp_path / "data") == 0o700
    finally:
        os.umask(umask)
        await store.close()


async def test_every_connection_commits_durably_and_keeps_foreign_keys(store: SqliteStore) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store._write(pragmas) == ["wal", 2, 1]
    assert await store._read(pragmas) == ["wal", 2, 1]


async def test_opening_again_starts_no_second_writer(store: SqliteStore) -> None:
    writer = store._writer
    store.open()
    assert store._writer is writer


def test_a_new_database_that_another_process_holds_is_waited_for(path: Path) -> None:
    path.parent.mkdir()
    opened = threading.Event()

    def open_and_close() -> None:
        store = SqliteStore(path)
        store.open()
        opened.set()
        store.close_now()

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        waiting = threading.Thread(target=open_and_close)
        waiting.start()
        assert not opened.wait(0.2)
        assert waiting.is_alive()
        other.execute("COMMIT")
        waiting.join()
    assert opened.is_set()


async def test_a_reading_connection_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StoreError):
        await store._read(lambda connection: connection.execute("DELETE FROM jotgate_accounts").rowcount)


async def test_a_full_disk_is_a_typed_error_and_what_was_confirmed_stays(
    store: SqliteStore, new_account: NewAccount
) -> None:
    confirmed = new_account(id="confirmed")
    await store.add_account(confirmed)

    def fill_up(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    await store._write(fill_up)
    big = [new_account(password_hash="x" * 5_000) for _ in range(20)]
    answers = await asyncio.gather(*(store.add_account(account) for account in big), return_exceptions=True)
    assert {type(answer) for answer in answers} >= {StoreError}
    assert "full" in str(next(answer for answer in answers if isinstance(answer, StoreError)))
    kept = [account for account, answer in zip(big, answers, strict=True) if answer is None]
    listed = await store.list_accounts(limit=100)
    assert confirmed in listed
    assert {account.id for account in kept} == {account.id for account in listed} - {"confirmed"}


def test_files_that_may_not_grow_are_a_typed_error_and_what_was_confirmed_stays(path: Path) -> None:
    printed = run_python(
        """
        import asyncio, resource, sys
        from pathlib import Path
        from jotgate.server.records import Account
        from jotgate.server.store import StoreError
        from jotgate.server.store.sqlite import SqliteStore

        def account(n):
            return Account(id=str(n), email=f"p{n}@example.com", password_hash="x" * 3000, scopes=(), created_at=1)

        async def main():
            store = SqliteStore(Path(sys.argv[1]))
            store.open()
            await store.add_account(account(0))
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
            confirmed = {"0"}
            try:
                for n in range(1, 1000):
                    await store.add_account(account(n))
                    confirmed.add(str(n))
            except StoreError as error:
                print(type(error).__name__)
            failed = str(n)
            listed = {found.id for found in await store.list_accounts(limit=2000)}
            print(confirmed == listed, len(confirmed) > 10)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await store.add_account(account(5000))
            print({found.id for found in await store.list_accounts(limit=2000)} == confirmed | {"5000"})
            await store.close()

        asyncio.run(main())
        """,
        path,
    )
    assert printed.split() == ["StoreError", "True", "True", "True"]


async def test_a_database_that_turns_read_only_is_a_typed_error_and_readiness_tells_it(
    store: SqliteStore, new_account: NewAccount
) -> None:
    async def turn_read_only() -> None:
        await store._write(lambda connection: connection.execute("PRAGMA query_only=ON").fetchall())

    await turn_read_only()
    with pytest.raises(StoreError) as caught:
        await store.add_account(new_account())
    assert "readonly" in str(caught.value)


async def test_a_database_that_another_process_holds_too_long_is_busy(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    await store._write(lambda connection: connection.execute("PRAGMA busy_timeout=20").fetchall())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await store.add_account(new_account())
    await store.add_account(new_account())


def test_to_attend_may_fail_and_then_holds_nobody_up(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_schema.connect, "__kwdefaults__", {"busy_timeout_s": 0.02})
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            store.attend("one")
    assert attend_elsewhere(path, "two") == "two"  # nobody takes part any more
    assert store.attend("three").log_id == "three"
    assert attend_elsewhere(path, "four") == "three"


def test_a_process_that_stops_while_it_attends_is_not_waited_for_longer_than_for_anything_else(path: Path) -> None:
    store = SqliteStore(path, wait_s=0.2)
    store.open()
    alone, is_alone = Attendance.begin(path, wait_s=0)
    assert is_alone
    with pytest.raises(StoreBusy):
        store.attend("one")
    alone.let_others_in()
    assert store.attend("two").log_id != "two"
    alone.end()
    store.close_now()


def attend_elsewhere(path: Path, log_id: str) -> str:
    script = """
    import pathlib, sys
    from jotgate.server.store.sqlite import SqliteStore
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    store.open()
    print(store.attend(sys.argv[2]).log_id)
    """
    return run_python(script, path, log_id).strip()


async def test_readiness_fails_when_nothing_can_be_written(store: SqliteStore, path: Path) -> None:
    await store._write(lambda connection: connection.execute("PRAGMA busy_timeout=20").fetchall())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await store.ping()
    await store.ping()


async def test_readiness_fails_when_nothing_can_be_read(store: SqliteStore) -> None:
    await store._write(lambda connection: connection.execute("DROP TABLE jotgate_revocation_head").fetchall())
    with pytest.raises(StoreError):
        await store.ping()


async def test_keys_that_cannot_be_read_or_added_are_a_typed_error(store: SqliteStore) -> None:
    await store._write(lambda connection: connection.execute("DROP TABLE jotgate_keys").fetchall())
    with pytest.raises(StoreError):
        store.load_keys()
    with pytest.raises(StoreError):
        store.change_keys(lambda _: KeyChange(), now=1, until_s=1)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely\n" * 100)
    with pytest.raises(SettingsError) as caught:
        SqliteStore(path).open()
    assert caught.value.faults == (f"{path} is not an SQLite database",)


def test_a_place_that_cannot_hold_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "jotgate.db"
    with pytest.raises(SettingsError) as caught:
        SqliteStore(path).open()
    assert str(path) in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_parent_and_child_both_go_on_with_a_store_that_was_used_before_a_fork(path: Path) -> None:
    printed = run_python(
        """
        import asyncio, os, sqlite3, sys, warnings
        from pathlib import Path
        from jotgate.server.records import Account
        from jotgate.server.store.sqlite import SqliteStore
        warnings.simplefilter("ignore", DeprecationWarning)  # that Python 3.12 warns of forking threads is the point

        path = Path(sys.argv[1])
        store = SqliteStore(path)

        async def add(name, count):
            async def one(n):
                account_id = f"{name}{n}"
                await store.add_account(
                    Account(id=account_id, email=account_id + "@example.com", password_hash="", scopes=(), created_at=1)
                )
                assert await store.account_by_id(account_id) is not None
            await asyncio.gather(*(one(n) for n in range(count)))

        store.open()
        asyncio.run(add("before", 50))
        children = []
        for child in range(3):
            pid = os.fork()
            if not pid:
                store.open()  # already is
                asyncio.run(add(f"child{child}-", 50))
                store.close_now()
                os._exit(0)
            children.append(pid)
            asyncio.run(add(f"parent{child}-", 50))
        for pid in children:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        print(len(asyncio.run(store.list_accounts(limit=1000))))
        store.close_now()
        connection = sqlite3.connect(path)
        print(connection.execute("PRAGMA integrity_check").fetchone()[0])
        connection.close()
        """,
        path,
    )
    assert printed.split() == ["350", "ok"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
async def test_no_connection_is_open_at_the_moment_of_a_fork(
    store: SqliteStore, path: Path, new_account: NewAccount
) -> None:
    def files_open() -> int:
        return sum(path.name in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    await store.add_account(new_account())
    await store.list_accounts(limit=1)
    assert files_open() > 0
    lanes._before_fork()
    try:
        assert files_open() == 0
    finally:
        lanes._after_fork_in_parent()
    await store.add_account(new_account())
    assert len(await store.list_accounts(limit=10)) == 2
