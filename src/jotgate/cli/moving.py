"""``jotgate accounts import`` and ``export``: many accounts at a time, in bounded memory.

A line that cannot be taken is told by its number and a stable code, never by what stands in it, and the others go on.
Addresses that have an account are left alone, so that an import that was cut off is simply run again.
"""

import asyncio
import csv
import hashlib
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from jotgate.cli.administration import settings_of, store_of
from jotgate.cli.text import print_json
from jotgate.core.encoding import encode_segment
from jotgate.core.errors import JotgateError, RequestRefused
from jotgate.server.records import Account, AuditEvent, audit_detail
from jotgate.server.rules.accounts import InvalidScope, check_scope_token, email_identity, normalise_email
from jotgate.server.rules.foreign_hashes import parse_foreign
from jotgate.server.rules.hashing import NO_PASSWORD
from jotgate.server.settings import Settings
from jotgate.server.store import Store

_BATCH: Final = 500
_LONGEST_LINE: Final = 65_536
_LONGEST_ID: Final = 64
_MOST_TOLD: Final = 100
_PAGE: Final = 1000
_LATEST: Final = 253_402_300_799  # the end of the year 9999
_COLUMNS: Final = ("email", "password_hash", "id", "scopes", "created_at", "disabled")


class FileRefused(JotgateError):
    """The file cannot be read or written, or is not of the form that is asked for."""

    code = "file_refused"


class RowRefused(RequestRefused):
    """A line is not what an account is made of; the code says in which way."""

    status = 422

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Row(Struct, forbid_unknown_fields=True):
    email: str
    password_hash: str
    id: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    created_at: int | UnsetType = UNSET
    disabled: bool = False


def import_accounts(data: Path | None, file: Path, *, dry_run: bool, as_json: bool) -> int:
    """Add the accounts of a file, 500 in a transaction; returns the exit status: 1 where a line was not taken.

    Raises:
        FileRefused: the file cannot be read, or its heading has other columns.
        StoreError: the database failed; what was added before stays, and the import may be run again.
    """
    settings = settings_of(data)
    told: list[tuple[int, str, str]] = []
    counted: Counter[str] = Counter()
    with _opened(file) as raw, store_of(settings) as store, _progress(file) as advance:
        ledger = _Dry(store) if dry_run else _Wet(store)
        batch: list[Account] = []
        with asyncio.Runner() as runner:
            for number, row in _rows(file, raw):
                advance(raw)
                try:
                    batch.append(_account(row, settings))
                except RequestRefused as refused:
                    counted["refused"] += 1
                    if len(told) < _MOST_TOLD:
                        told.append((number, refused.code, str(refused)))
                if len(batch) == _BATCH:
                    counted += runner.run(ledger.add(batch))
                    batch = []
            if batch:
                counted += runner.run(ledger.add(batch))
    _report(counted, told, dry_run=dry_run, as_json=as_json)
    return 1 if counted["refused"] else 0


def export_accounts(data: Path | None, file: Path) -> None:
    """Write all accounts to a new file that its owner alone may read.

    Raises:
        FileRefused: the file is there already, or cannot be written.
        StoreError: the database failed.
    """
    count = 0
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out, store_of(settings_of(data)) as store, asyncio.Runner() as runner:
            after: str | None = None
            while page := runner.run(store.list_accounts(limit=_PAGE, after=after)):
                out.writelines(_line(account) for account in page)
                count, after = count + len(page), page[-1].email
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise FileRefused(f"{file} cannot be written: {error.strerror}") from None
    sys.stderr.write(f"exported {count} accounts with their password hashes: keep {file} as you would a password\n")


class _Wet:
    """Adds accounts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, accounts: list[Account]) -> Counter[str]:
        audit = AuditEvent(
            at=int(time.time()), event="account_imported", actor="cli", detail=audit_detail(accounts=len(accounts))
        )
        added = await self._store.add_accounts(accounts, audit=audit)
        return Counter(added=len(added), exists=len(accounts) - len(added))


class _Dry:
    """Tells what adding would do. What was seen before is known by 16 bytes of a digest each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: set[bytes] = set()

    async def add(self, accounts: list[Account]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for account in accounts:
            digest = hashlib.sha256(email_identity(account.email).encode()).digest()[:16]
            there = digest in self._seen or await self._store.account_by_email(account.email) is not None
            there = there or await self._store.account_by_id(account.id) is not None
            counted["exists" if there else "added"] += 1
            self._seen.add(digest)
        return counted


def _rows(file: Path, raw: BinaryIO) -> Iterator[tuple[int, object]]:
    """Give each line's number and what stands in it: members to be checked, or the error that it is."""
    if file.suffix.lower() != ".csv":
        for number, line in enumerate(_lines(raw), 1):
            if line.strip():
                yield number, line
        return
    reader = csv.DictReader(_decoded(raw), strict=True)
    if not {"email", "password_hash"} <= set(reader.fieldnames or ()) <= set(_COLUMNS):
        raise FileRefused(f"the heading must name email and password_hash, and may name {', '.join(_COLUMNS[2:])}")
    try:
        for members in reader:
            yield reader.line_num, members
    except csv.Error as error:
        raise FileRefused(f"line {reader.line_num} is no CSV: {error}") from None


def _lines(raw: BinaryIO) -> Iterator[bytes]:
    while line := raw.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise FileRefused(f"a line has more than {_LONGEST_LINE} bytes")
        yield line


def _decoded(raw: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(_lines(raw), 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise FileRefused(f"line {number} is not UTF-8") from None


def _account(row: object, settings: Settings) -> Account:
    """Make an account of a line.

    Raises:
        RequestRefused: it cannot be one.
    """
    read = _typed(row)
    scopes = settings.default_scopes if read.scopes is UNSET else read.scopes
    for scope in scopes:
        check_scope_token(scope)
    if len(set(scopes)) != len(scopes):
        raise InvalidScope("A scope stands there twice.")
    if read.id is not UNSET and not (
        0 < len(read.id) <= _LONGEST_ID and read.id.isascii() and read.id.isprintable() and " " not in read.id
    ):
        raise RowRefused("invalid_id", f"An id has 1 to {_LONGEST_ID} printable ASCII characters without spaces.")
    now = int(time.time())
    created_at = now if read.created_at is UNSET else read.created_at
    if not 0 <= created_at <= _LATEST:
        raise RowRefused("invalid_time", "created_at is Unix time in seconds.")
    return Account(
        id=encode_segment(secrets.token_bytes(16)) if read.id is UNSET else read.id,
        email=normalise_email(read.email),
        password_hash=parse_foreign(read.password_hash) if read.password_hash else NO_PASSWORD,
        scopes=scopes,
        created_at=created_at,
        disabled_at=now if read.disabled else None,
    )


def _typed(row: object) -> _Row:
    try:
        if isinstance(row, bytes):
            return msgspec.json.decode(row, type=_Row)
        return msgspec.convert(_of_csv(row), _Row, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RowRefused("invalid_row", f"A line holds {', '.join(_COLUMNS)}; the first two always, texts.") from None


def _of_csv(row: Any) -> dict[str, object]:  # noqa: ANN401 - a line of the csv module's, whatever stands in it
    members: dict[str, object] = {name: value for name, value in row.items() if value or name in _COLUMNS[:2]}
    if isinstance(row.get("scopes"), str) and row["scopes"]:
        members["scopes"] = row["scopes"].split()
    return members


def _line(account: Account) -> bytes:
    members = {
        "id": account.id,
        "email": account.email,
        "password_hash": "" if account.password_hash == NO_PASSWORD else account.password_hash,
        "scopes": account.scopes,
        "created_at": account.created_at,
        "disabled": account.disabled_at is not None,
    }
    return msgspec.json.encode(members) + b"\n"


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as raw:
            yield raw
    except OSError as error:
        raise FileRefused(f"{file} cannot be read: {error.strerror}") from None


@contextmanager
def _progress(file: Path) -> Iterator[Any]:
    """Show how much of the file has been read, where somebody watches."""
    console = Console(stderr=True)
    if not console.is_terminal or not file.is_file():
        yield lambda raw: None
        return
    with Progress(BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console) as shown:
        task = shown.add_task("", total=file.stat().st_size)
        yield lambda raw: shown.update(task, completed=raw.tell())


def _report(counted: Counter[str], told: list[tuple[int, str, str]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        lines = [{"line": number, "code": code, "detail": said} for number, code, said in told]
        names = ("added", "exists", "refused")
        print_json({name: counted[name] for name in names} | {"dry_run": dry_run, "refusals": lines})
        return
    for number, code, said in told:
        sys.stderr.write(f"line {number}: {code}: {said}\n")
    if counted["refused"] > len(told):
        sys.stderr.write(f"… and {counted['refused'] - len(told)} more\n")
    would = "would be " if dry_run else ""
    sys.stdout.write(
        f"{counted['added']} {would}added, {counted['exists']} there already, {counted['refused']} not taken\n"
    )
