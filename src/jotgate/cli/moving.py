"""``jotgate accounts import`` and ``export``: many accounts at a time, in bounded memory.

A line that cannot be taken is told by its number, its field and a stable code, never by what stands in it, and the
others go on. Addresses that have an account are left alone, so that an import that was cut off is simply run again.
"""

import asyncio
import codecs
import csv
import hashlib
import io
import os
import re
import secrets
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

from jotgate.cli.administration import settings_of, store_of
from jotgate.cli.auditing import InvalidTimeError, parse_time
from jotgate.cli.text import print_json
from jotgate.core.encoding import encode_segment
from jotgate.core.errors import JotgateError, RequestRefused
from jotgate.server.records import Account, AuditEvent, audit_detail
from jotgate.server.rules.accounts import InvalidScope, check_scope_token, email_identity, normalise_email
from jotgate.server.rules.foreign_hashes import parse_foreign
from jotgate.server.rules.hashing import NO_PASSWORD
from jotgate.server.store import Store

_BATCH: Final = 500
_LONGEST_LINE: Final = 65_536
_LONGEST_ID: Final = 64
_MOST_TOLD: Final = 100
_PAGE: Final = 1000
_LATEST: Final = 253_402_300_799  # the end of the year 9999
_COLUMNS: Final = ("email", "password_hash", "id", "scopes", "created_at", "disabled")
_NEEDED: Final = _COLUMNS[:2]
_TELL_EVERY_S: Final = 10.0
_STANDARD_OUTPUT: Final = Path("-")

# What a name of a column looks like: anything else may be what should have stood below a heading, and is not repeated.
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_ ]{0,29}")
_UNKNOWN: Final = re.compile(r"unknown field `(.*)`", re.DOTALL)
_AT_FAULT: Final = re.compile(rf"(?:missing required field `|at `\$\.)({'|'.join(_COLUMNS)})\b")


class FileRefused(JotgateError):
    """The file cannot be read or written, or is not of the form that is asked for."""

    code = "file_refused"


class RowRefused(RequestRefused):
    """A line is not what an account is made of; the code says in which way, `field` where."""

    status = 422

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class _Row(Struct):
    email: str
    password_hash: str
    id: str | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    created_at: int | str | UnsetType = UNSET
    disabled: bool = False


class _ExactRow(_Row, forbid_unknown_fields=True):
    pass


class _New(Struct, frozen=True):
    """An account to be added, with the number of its line, and whether its id stood there."""

    line: int
    account: Account
    has_id: bool


class _Added(Struct, frozen=True):
    """What became of some accounts: how many are new, and the lines whose id another account has."""

    added: int
    id_taken: tuple[int, ...]


class _Ledger(Protocol):
    async def add(self, batch: Sequence[_New]) -> _Added:
        """Add accounts, of which no two have one id, or tell what that would do."""


def import_accounts(
    data: Path | None,
    file: Path,
    *,
    form: str | None = None,
    default_scopes: str | None = None,
    ignore_columns: bool = False,
    dry_run: bool = False,
    strict: bool = False,
    report: Path | None = None,
    as_json: bool = False,
) -> int:
    """Add the accounts of a file, 500 in a transaction; returns the exit status: 1 where a line was not taken.

    Args:
        form: jsonl or csv; the file's name tells where it is not said.
        default_scopes: those of lines that name none, instead of the settings'.
        ignore_columns: leave columns out that are not known here; otherwise they are refused.
        dry_run: write nothing, and tell what would be.
        strict: write nothing if a line cannot be taken: the file is read twice.
        report: a new file for all lines that are not taken, of which else a hundred are told.

    Raises:
        FileRefused: the file cannot be read, or its heading has other columns.
        InvalidScope: `default_scopes` are none.
        StoreError: the database failed; what was added before stays, and the import may be run again.
    """
    settings = settings_of(data)
    scopes = settings.default_scopes if default_scopes is None else _checked_scopes(default_scopes.split())
    source = _Source(file, form or _form_of(file), scopes, row_type=_Row if ignore_columns else _ExactRow)
    dry = dry_run or strict
    if strict and not dry_run and not file.is_file():
        raise FileRefused(f"{file} is no file that can be read twice, as --strict does")
    with ExitStack() as stack:
        store = stack.enter_context(store_of(settings))
        runner = stack.enter_context(asyncio.Runner())
        told = _Told(None if report is None else stack.enter_context(_new_file(report, keeps_part=True)))
        counted = _take(source, _Dry(store) if dry else _Wet(store), told, runner)
        if strict and not dry_run and not counted["refused"]:
            dry, counted = False, _take(source, _Wet(store), told, runner)
    _report(counted, told.first, dry_run=dry, as_json=as_json)
    return 1 if counted["refused"] else 0


def export_accounts(data: Path | None, file: Path, *, form: str | None = None) -> None:
    """Write all accounts to a new file that its owner alone may read, or to standard output where it is ``-``.

    Args:
        form: jsonl or csv; the file's name tells where it is not said.

    Raises:
        FileRefused: the file is there already, or cannot be written.
        StoreError: the database failed; there is no half of a file then.
    """
    write = _write_csv if (form or _form_of(file)) == "csv" else _write_jsonl
    with store_of(settings_of(data)) as store, asyncio.Runner() as runner:
        pages = _pages(store, runner)
        if file == _STANDARD_OUTPUT:
            try:
                count = write(sys.stdout.buffer, pages)
                sys.stdout.buffer.flush()
            except BrokenPipeError:  # a reader such as `head` has had enough
                sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for the rest of the process
                return
            kept = "it"
        else:
            with _new_file(file, keeps_part=False) as out:
                count = write(out, pages)
            kept = str(file)
    sys.stderr.write(f"exported {count} accounts with their password hashes: keep {kept} as you would a password\n")


def _form_of(file: Path) -> str:
    return "csv" if file.suffix.lower() == ".csv" else "jsonl"


def _checked_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    for scope in scopes:
        check_scope_token(scope)
    if len(set(scopes)) != len(scopes):
        raise InvalidScope("A scope stands there twice.")
    return tuple(scopes)


# What is read


class _Source:
    """The file, and what its lines mean."""

    def __init__(self, file: Path, form: str, default_scopes: tuple[str, ...], *, row_type: type[_Row]) -> None:
        self.file = file
        self._form = form
        self._default_scopes = default_scopes
        self._row_type = row_type

    def rows(self, raw: BinaryIO) -> Iterator[tuple[int, Any]]:
        """Give each line's number, and what stands in it.

        Raises:
            FileRefused: it is no such file.
        """
        if self._form == "jsonl":
            return ((number, line) for number, line in enumerate(_lines(raw, self.file), 1) if line.strip())
        return self._csv_rows(raw)

    def account(self, number: int, line: Any) -> _New:  # noqa: ANN401 - whatever `rows` gives
        """Make an account of a line.

        Raises:
            RowRefused: it cannot be one.
        """
        read = self._typed(line)
        with _field("scopes"):
            scopes = self._default_scopes if read.scopes is UNSET else _checked_scopes(read.scopes)
        with _field("email"):
            email = normalise_email(read.email)
        with _field("password_hash"):
            password_hash = parse_foreign(read.password_hash) if read.password_hash else NO_PASSWORD
        now = int(time.time())
        account = Account(
            id=encode_segment(secrets.token_bytes(16)) if read.id is UNSET else _checked_id(read.id),
            email=email,
            password_hash=password_hash,
            scopes=scopes,
            created_at=now if read.created_at is UNSET else _time(read.created_at),
            disabled_at=now if read.disabled else None,
        )
        return _New(number, account, has_id=read.id is not UNSET)

    def _csv_rows(self, raw: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | None]]:
        texts = _Texts(_lines(raw, self.file))
        reader = csv.reader(texts, strict=True)
        try:
            heading = next(reader, [])
            self._check_heading(heading)
            while True:
                texts.begin_row()
                cells = next(reader, None)
                if cells is None:
                    return
                if cells:
                    yield reader.line_num, _members(heading, cells)
        except csv.Error as error:
            # Whatever comes behind it may be read wrongly: what stands within a text could be taken for accounts.
            raise FileRefused(f"line {reader.line_num} is no CSV: {error}") from None

    def _check_heading(self, heading: list[str]) -> None:
        missing = [name for name in _NEEDED if name not in heading]
        if missing:
            raise FileRefused(f"the heading does not name {' and '.join(missing)}")
        known = [name for name in heading if name in _COLUMNS]
        if len(set(known)) != len(known):
            raise FileRefused("the heading names a column twice")
        unknown = [name for name in heading if name not in _COLUMNS]
        if unknown and self._row_type is _ExactRow:
            raise FileRefused(
                f"the heading has columns that are not known here: {', '.join(map(_named, unknown))}. Known are "
                f"{', '.join(_COLUMNS)}; --ignore-columns leaves the others out."
            )

    def _typed(self, line: Any) -> _Row:  # noqa: ANN401 - whatever `rows` gives
        if line is None:
            raise RowRefused("invalid_row", "", "A line has other cells than the heading.")
        try:
            if isinstance(line, bytes):
                if len(line) > _LONGEST_LINE:
                    raise RowRefused("line_too_long", "", f"A line has at most {_LONGEST_LINE} bytes.")
                return msgspec.json.decode(line, type=self._row_type)
            return msgspec.convert(line, self._row_type, strict=False)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _at_fault(str(error)) from None


class _Texts:
    """The lines of a CSV file, as text; a row may go over several, and yet is bounded."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._number = 0
        self.begin_row()

    def begin_row(self) -> None:
        self._left = _LONGEST_LINE

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        self._left -= len(line)
        if self._left < 0:
            raise FileRefused(f"line {self._number} ends a row of more than {_LONGEST_LINE} bytes: is a quote missing?")
        return line.decode("utf-8", "surrogateescape")  # what is no UTF-8 is refused with its row


def _lines(raw: BinaryIO, file: Path) -> Iterator[bytes]:
    """Give each line; of one that is too long only the beginning, which is too long, too."""
    try:
        line = raw.readline(_LONGEST_LINE + 1).removeprefix(codecs.BOM_UTF8)
        while line:
            yield line
            rest = line
            while len(rest) > _LONGEST_LINE and not rest.endswith(b"\n"):
                rest = raw.readline(_LONGEST_LINE + 1)
            line = raw.readline(_LONGEST_LINE + 1)
    except OSError as error:
        raise FileRefused(f"{file} cannot be read: {error.strerror}") from None


def _members(heading: list[str], cells: list[str]) -> dict[str, Any] | None:
    """Return what a row of CSV says; None where it has not the heading's cells.

    An empty cell is as if it were not there, save one of scopes: that says that there are none.
    """
    if len(cells) != len(heading):
        return None
    members: dict[str, Any] = {
        name: cell for name, cell in zip(heading, cells, strict=True) if cell or name in (*_NEEDED, "scopes")
    }
    if "scopes" in members:
        members["scopes"] = members["scopes"].split()
    return members


def _at_fault(said: str) -> RowRefused:
    """Tell what msgspec refused, without what stood there."""
    unknown = _UNKNOWN.search(said)
    if unknown is not None:
        sentence = f"There is a column that is not known here: {_named(unknown[1])}. --ignore-columns leaves it out."
        return RowRefused("unknown_column", "", sentence)
    found = _AT_FAULT.search(said)
    sentence = f"A line holds {', '.join(_COLUMNS)}: the first two always, all of them texts, a list, a time, a bool."
    return RowRefused("invalid_row", "" if found is None else found[1], sentence)


def _named(name: str) -> str:
    return name if _NAME.fullmatch(name) else "one without a plain name"


@contextmanager
def _field(name: str) -> Iterator[None]:
    try:
        yield
    except RequestRefused as refused:
        raise RowRefused(refused.code, name, str(refused)) from None


def _checked_id(text: str) -> str:
    if 0 < len(text) <= _LONGEST_ID and text.isascii() and text.isprintable() and " " not in text:
        return text
    raise RowRefused("invalid_id", "id", f"An id has 1 to {_LONGEST_ID} printable ASCII characters without spaces.")


def _time(read: int | str) -> int:
    try:
        at = parse_time(read) if isinstance(read, str) else read
    except InvalidTimeError:
        at = -1
    if 0 <= at <= _LATEST:
        return at
    raise RowRefused("invalid_time", "created_at", "A time is in Unix seconds, or like 2026-11-24T18:00:00Z.")


# What is done with it


def _take(source: _Source, ledger: _Ledger, told: "_Told", runner: asyncio.Runner) -> Counter[str]:
    """Read the file from its beginning, and give the ledger all that can be taken."""
    counted: Counter[str] = Counter()
    batch: dict[str, _New] = {}

    def refuse(line: int, refused: RowRefused) -> None:
        counted["refused"] += 1
        told.add(line, refused)

    def flush() -> None:
        done = runner.run(ledger.add(tuple(batch.values())))
        for line in done.id_taken:
            refuse(line, RowRefused("id_taken", "id", "Another account has this id."))
        counted["added"] += done.added
        counted["exists"] += len(batch) - done.added - len(done.id_taken)
        batch.clear()

    with _opened(source.file) as raw, _progress(raw) as advance:
        for number, line in source.rows(raw):
            advance(number)
            try:
                new = source.account(number, line)
            except RowRefused as refused:
                refuse(number, refused)
                continue
            if len(batch) == _BATCH or new.account.id in batch:
                flush()
            batch[new.account.id] = new
        if batch:
            flush()
    return counted


class _Wet:
    """Adds accounts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, batch: Sequence[_New]) -> _Added:
        """See `_Ledger.add`."""
        added = await self._store.add_accounts([new.account for new in batch], audit=_line)
        left = (new for new in batch if new.has_id and new.account.id not in added)
        taken = [new.line for new in left if await self._store.account_by_email(new.account.email) is None]
        return _Added(len(added), tuple(taken))


class _Dry:
    """Tells what adding would do. What was seen before is known by 16 bytes of a digest each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._emails: set[bytes] = set()
        self._ids: set[bytes] = set()

    async def add(self, batch: Sequence[_New]) -> _Added:
        """See `_Ledger.add`."""
        added, taken = 0, []
        for new in batch:
            email, its_id = _digest(email_identity(new.account.email)), _digest(new.account.id)
            if email in self._emails or await self._store.account_by_email(new.account.email) is not None:
                continue
            if new.has_id:
                if its_id in self._ids or await self._store.account_by_id(new.account.id) is not None:
                    taken.append(new.line)
                    continue
                self._ids.add(its_id)
            self._emails.add(email)
            added += 1
        return _Added(added, tuple(taken))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _line(count: int) -> AuditEvent:
    return AuditEvent(at=int(time.time()), event="account_imported", actor="cli", detail=audit_detail(accounts=count))


# What is told


class _Told:
    """Lines that were not taken: the first hundred, and all of them in a file where one is asked for."""

    def __init__(self, out: BinaryIO | None) -> None:
        self._out = out
        self.first: list[dict[str, Any]] = []

    def add(self, line: int, refused: RowRefused) -> None:
        members = {"line": line, "field": refused.field, "code": refused.code, "detail": str(refused)}
        if len(self.first) < _MOST_TOLD:
            self.first.append(members)
        if self._out is not None:
            self._out.write(msgspec.json.encode(members) + b"\n")


def _report(counted: Counter[str], first: list[dict[str, Any]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        names = ("added", "exists", "refused")
        print_json({name: counted[name] for name in names} | {"dry_run": dry_run, "refusals": first})
        return
    for each in first:
        place = f"line {each['line']}" + (f", {each['field']}" if each["field"] else "")
        sys.stderr.write(f"{place}: {each['code']}: {each['detail']}\n")
    if counted["refused"] > len(first):
        sys.stderr.write(f"… and {counted['refused'] - len(first)} more\n")
    would = "would be " if dry_run else ""
    sys.stdout.write(
        f"{counted['added']} {would}added, {counted['exists']} there already, {counted['refused']} not taken\n"
    )


@contextmanager
def _progress(raw: BinaryIO) -> Iterator[Callable[[int], None]]:
    """Show how much of the file has been read: a bar where somebody watches, else a line every ten seconds."""
    status = os.fstat(raw.fileno())
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    console = Console(stderr=True)
    if console.is_terminal and size:
        with Progress(BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console) as shown:
            task = shown.add_task("", total=size)
            yield lambda number: None if number % _BATCH else shown.update(task, completed=raw.tell())
        return
    told_at = time.monotonic()

    def tell(number: int) -> None:
        nonlocal told_at
        if number % _BATCH == 0 and time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            sys.stderr.write(f"{number} lines" + (f", {100 * raw.tell() // size} %" if size else "") + "\n")
            sys.stderr.flush()

    yield tell


# What is written


def _pages(store: Store, runner: asyncio.Runner) -> Iterator[list[Account]]:
    after: str | None = None
    while page := runner.run(store.list_accounts(limit=_PAGE, after=after)):
        yield page
        after = page[-1].email


def _write_jsonl(out: BinaryIO, pages: Iterator[list[Account]]) -> int:
    count = 0
    for page in pages:
        out.writelines(msgspec.json.encode(_exported(account)) + b"\n" for account in page)
        count += len(page)
    return count


def _write_csv(out: BinaryIO, pages: Iterator[list[Account]]) -> int:
    # For programs: cells stand as they are, since an apostrophe before a formula would not be imported again.
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    try:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_COLUMNS)
        count = 0
        for page in pages:
            rows = [_exported(account) | {"scopes": " ".join(account.scopes)} for account in page]
            table.writerows([str(row[name]) for name in _COLUMNS] for row in rows)
            count += len(page)
    finally:
        text.detach()  # what is written to stays open
    return count


def _exported(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "email": account.email,
        "password_hash": "" if account.password_hash == NO_PASSWORD else account.password_hash,
        "scopes": account.scopes,
        "created_at": account.created_at,
        "disabled": account.disabled_at is not None,
    }


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        raw = file.open("rb")
    except OSError as error:
        raise FileRefused(f"{file} cannot be read: {error.strerror}") from None
    with raw:
        yield raw


@contextmanager
def _new_file(file: Path, *, keeps_part: bool) -> Iterator[BinaryIO]:
    """A file that was not there, and that its owner alone may read; it is on the disk at the end.

    Where it is not finished, it is gone again, unless a part of it is worth keeping.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            if not keeps_part:
                file.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileRefused(f"{file} cannot be written: {error.strerror}") from None
