"""``jotgate doctor``: gathers facts of a configuration, or of a running server, has them judged, and shows what came.

It changes nothing: a database is read and not migrated, and neither keys nor a master key are made. One that was not
closed is read from a private copy.
"""

import asyncio
import contextlib
import inspect
import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
from argon2 import low_level
from cryptography import x509
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jotgate.cli.checkup import LIBPQ_NAMES, Certificate, Database, Facts, Hook, check_configuration
from jotgate.cli.findings import TITLES, Finding, exit_status, ordered
from jotgate.cli.text import print_json, printable
from jotgate.core.errors import ClaimRefused, SettingsError
from jotgate.core.lint import LintRules, lint_claims
from jotgate.server.app import import_hook
from jotgate.server.flows.deps import PublicAccount
from jotgate.server.records import SealedKey
from jotgate.server.rules.hashing import ARGON2_SETS
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings, usable_cores
from jotgate.server.store.schema import HEAD, REVISIONS, VERSION_TABLE, keys
from jotgate.server.tls import check_certificate

# Of each set, at the least and at the most: enough to see which is faster, over in two seconds or so altogether.
_HASHES: Final = (2, 10)
_MEASURE_S: Final = 2.0
_WITHIN_S: Final = 5.0
_COLUMNS: Final = ", ".join(SealedKey.__struct_fields__)
_READ_KEYS: Final = f"SELECT {_COLUMNS} FROM {keys.name}"  # noqa: S608 - constants
_READ_REVISION: Final = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant
_PRIVATE: Final = b"PRIVATE KEY-----"
_LONGEST_PEM: Final = 1_048_576
# A database of millions of accounts has some hundred MiB.
_LONGEST_COPY: Final = 1024 * 1_048_576
_STYLES: Final = {"pass": "green", "warn": "yellow", "fail": "bold red"}
# A made-up account, for the operator's hook.
_SAMPLE: Final = PublicAccount("jotgate-doctor", "doctor@jotgate.invalid", ("account:read",), 1_700_000_000)

Clock = Callable[[], float]
T = TypeVar("T")


def doctor(
    data: Path | None,
    *,
    url: str | None,
    ca_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    as_json: bool,
    fail_on: Literal["warn", "fail"],
) -> int:
    """Check the configuration of the environment, or with a URL the server there; returns the exit status.

    Raises:
        SettingsError: the settings, or the options, cannot be meant.
    """
    if url is None:
        if ca_file is not None:
            raise SettingsError(("--ca-file goes with --url",))
        if (tls_cert is None) != (tls_key is None):
            raise SettingsError(("--tls-cert and --tls-key belong together: give both or neither",))
        settings = Settings.from_env(os.environ, **({} if data is None else {"data_dir": data}))
        findings = list(check_configuration(gather(settings, tls_cert, tls_key)))
    else:
        if data is not None or tls_cert is not None or tls_key is not None:
            raise SettingsError(("--url asks a running server: leave --data, --tls-cert and --tls-key out",))
        # Loaded here, as a configuration is checked without the network.
        from jotgate.cli.checkup_outside import check_server  # noqa: PLC0415
        from jotgate.cli.probing import probe  # noqa: PLC0415

        findings = list(check_server(probe(url, ca_file)))
    findings = ordered(findings)
    if as_json:
        print_json([msgspec.structs.asdict(finding) for finding in findings])
    else:
        _print(findings)
    return exit_status(findings, fail_on)


def gather(settings: Settings, tls_cert: Path | None = None, tls_key: Path | None = None) -> Facts:
    """Look at everything that a configuration is about. Takes two seconds or so, for hashing on one core."""
    now = int(time.time())
    return Facts(
        settings=settings,
        now=now,
        cores=usable_cores(),
        folder=_folder(settings.data_dir),
        modes=_modes(settings),
        certificate=_certificate(settings, tls_cert, tls_key, now),
        database=_database(settings),
        libpq={name: os.environ[name] for name in LIBPQ_NAMES if name in os.environ},
        redis_fault=None if settings.redis_url is None else _redis_fault(settings.redis_url),
        hook=None if settings.claims_for is None else _hook(settings.claims_for),
        hash_s=measure_hashes(time.perf_counter),
    )


def measure_hashes(clock: Clock) -> dict[str, float]:
    """Return the seconds that one hash takes on one core with each set of parameters; the shortest of a few counts.

    All sets take turns, so that a machine that is busy for a while is so for each of them.
    """
    took = {str(each): inf for each in ARGON2_SETS}
    begun = clock()
    for round_ in range(_HASHES[1]):
        for each in ARGON2_SETS:
            before = clock()
            low_level.hash_secret_raw(
                b"a password to measure with", b"0123456789abcdef", each.passes, each.memory_kib, each.lanes, 32,
                low_level.Type.ID,
            )  # fmt: skip
            took[str(each)] = min(took[str(each)], clock() - before)
        so_far_s = clock() - begun
        if round_ + 1 >= _HASHES[0] and so_far_s + so_far_s / (round_ + 1) > _MEASURE_S:
            break
    return took


def _modes(settings: Settings) -> dict[str, int]:
    """Permission bits of the data folder and of what is secret in it, as far as it is there."""
    folder, database = settings.data_dir, settings.sqlite_path
    named = [folder, *(database.with_name(database.name + ending) for ending in ("", "-wal", "-shm"))]
    with contextlib.suppress(OSError):  # it is told as what is wrong with the folder
        named += sorted(folder.glob("master.key*"))
        named += [path for path in sorted((folder / "tls").rglob("*")) if _holds_private_key(path)]
    if settings.master_key_file is not None:
        named.append(settings.master_key_file)
    found = {}
    for path in named:
        try:
            found[str(path)] = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
    return found


def _folder(path: Path) -> Literal["there", "missing", "no folder", "unreadable"]:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return "missing"
    except NotADirectoryError:
        is_folder = False
    except OSError:
        return "unreadable"
    if not is_folder:
        return "no folder"
    usable = os.access(path, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    return "there" if usable else "unreadable"


def _holds_private_key(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return _PRIVATE in file.read(_LONGEST_PEM)
    except OSError:
        return False


def _certificate(settings: Settings, cert: Path | None, key: Path | None, now: int) -> Certificate | None:
    local = cert is None or key is None
    if cert is None or key is None:
        cert, key = settings.data_dir / "tls" / "cert.pem", settings.data_dir / "tls" / "key.pem"
        try:
            cert.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return Certificate(local=True, faults=(f"the certificate {cert} cannot be read",))
    try:
        chain = x509.load_pem_x509_certificates(check_certificate(cert, key, now).chain)
        mode = stat.S_IMODE(key.stat().st_mode)
    except SettingsError as error:
        return Certificate(local=local, faults=error.faults)
    except OSError:  # it went away just now
        return Certificate(local=local, faults=(f"the private key {key} cannot be read",))
    return Certificate(
        local=local,
        ends_at=int(min(each.not_valid_after_utc for each in chain).timestamp()),
        names=names_of(chain[0]),
        chain=len(chain),
        self_signed=chain[0].subject == chain[0].issuer,
        key_mode=mode,
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the host names and addresses that a certificate is for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = extension.get_values_for_type(x509.IPAddress)
    return (*extension.get_values_for_type(x509.DNSName), *map(str, addresses))


def _database(settings: Settings) -> Database:
    url, name = settings.shared_database, settings.database_name
    try:
        if url is None:
            settings.sqlite_path.stat()
    except FileNotFoundError:
        return Database(name=name, exists=False)
    except OSError as error:
        return Database(name=name, fault=f"{settings.sqlite_path} cannot be looked at ({error.strerror})")
    try:
        revision, rows = _read_sqlite(settings.sqlite_path) if url is None else _read_postgres(url)
    except sqlite3.Error as error:
        return Database(name=name, fault=getattr(error, "sqlite_errorname", type(error).__name__))
    except OSError as error:
        return Database(name=name, fault=f"{settings.sqlite_path} cannot be read ({error.strerror})")
    except SettingsError as error:
        return Database(name=name, fault="; ".join(error.faults))
    if revision != HEAD:
        return Database(name=name, schema="older" if revision is None or revision in REVISIONS else "newer")
    found = Database(name=name, schema="current", keys=rows)
    if not rows and settings.master_key_source.in_data_dir:
        return found  # the first start makes both
    try:
        master = settings.master_key_source.load(make=False)
    except SettingsError as error:
        return msgspec.structs.replace(found, master_key_fault="; ".join(error.faults))
    unopened = set()
    for row in rows:
        if row.sealed:
            try:
                master.unseal(row.sealed, purpose=row.purpose, kid=row.kid, ask_again=False)
            except SettingsError:
                unopened.add(row.kid)
    return msgspec.structs.replace(found, unopened=frozenset(unopened))


def _read_sqlite(path: Path) -> tuple[str | None, tuple[SealedKey, ...]]:
    log, index = (path.with_name(path.name + ending) for ending in ("-wal", "-shm"))
    if not log.exists():
        # Nobody has it open, and it can be read without leaving files there.
        return _read_open_sqlite(path, "&immutable=1")
    if index.exists():
        return _read_open_sqlite(path, "")  # as one of those that have it open
    # It was not closed, or its log was copied with it: whoever opens it makes the index anew, beside it.
    if path.stat().st_size + log.stat().st_size > _LONGEST_COPY:
        raise SettingsError(("it was not closed, and is too large for a copy to be read: start the server",))
    with tempfile.TemporaryDirectory(prefix="jotgate-doctor-") as folder:  # of mode 0700
        copy = Path(folder) / "copy"
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name("copy-wal"))
        return _read_open_sqlite(copy, "")


def _read_open_sqlite(path: Path, option: str) -> tuple[str | None, tuple[SealedKey, ...]]:
    uri = f"{path.resolve().as_uri()}?mode=ro{option}"
    with closing(sqlite3.connect(uri, uri=True, timeout=_WITHIN_S)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (VERSION_TABLE,)).fetchone()
        row = known and connection.execute(_READ_REVISION).fetchone()
        revision = None if not row else str(row[0])
        rows = connection.execute(_READ_KEYS).fetchall() if revision == HEAD else []
    return revision, tuple(_key(row) for row in rows)


def _read_postgres(url: Secret) -> tuple[str | None, tuple[SealedKey, ...]]:
    # The driver is there only with the extra `postgres`; the settings have checked that it is.
    from jotgate.server.places import name_of  # noqa: PLC0415
    from jotgate.server.store.postgres_pool import as_settings_error, connect  # noqa: PLC0415

    async def read() -> tuple[str | None, tuple[SealedKey, ...]]:
        async with asyncio.timeout(_WITHIN_S):
            connection = await connect(url)
            try:
                async with connection.transaction(readonly=True):
                    if await connection.fetchval("SELECT to_regclass($1)", VERSION_TABLE) is None:
                        return None, ()
                    revision = str(await connection.fetchval(_READ_REVISION))
                    rows = await connection.fetch(_READ_KEYS) if revision == HEAD else []
                    return revision, tuple(_key(tuple(row)) for row in rows)
            finally:
                connection.terminate()

    try:
        return asyncio.run(read())
    except Exception as error:  # noqa: BLE001 - the driver raises many kinds, and each is told in a sentence
        raise as_settings_error(error, name_of(url)) from None


def _redis_fault(url: Secret) -> str | None:
    """Ask Redis, as whoever has this URL, whether it is there; within a time, though to look up a name has none."""
    # The driver is there only with the extra `redis`; the settings have checked that it is.
    from jotgate.server.redis_bus import fault_of  # noqa: PLC0415

    late: str | None = "it takes too long"
    return _within(_WITHIN_S, partial(fault_of, url, _WITHIN_S, late=late), late=late)


def _within(limit_s: float, ask: Callable[[], T], *, late: T) -> T:
    """Return what `ask` returns, or `late` after so many seconds; it then goes on for as long as this process does."""
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(ask())
        except BaseException as error:  # noqa: BLE001 - it is raised below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if raised:
        raise raised[0]
    return given[0] if given else late


def _key(row: Sequence[Any]) -> SealedKey:
    return SealedKey(**dict(zip(SealedKey.__struct_fields__, row, strict=True)))


def _hook(name: str) -> Hook:
    """Ask the operator's function for the claims of a made-up account, as the server would, but not for long."""
    sys.path.append(str(Path.cwd()))  # as `serve` does
    late = Hook(fault=f"claims_for was not imported, or did not answer, within {_WITHIN_S:.0f} s")
    return _within(_WITHIN_S, lambda: _ask_hook(name), late=late)


def _ask_hook(name: str) -> Hook:
    # The operator's code may end in whatever there is, `sys.exit` included, and its message may hold anything.
    try:
        function = import_hook(name)
    except SettingsError as error:
        return Hook(fault=error.faults[0])
    except BaseException as error:  # noqa: BLE001 - see above
        return Hook(fault=f"claims_for: {name} cannot be imported ({type(error).__name__})")

    async def ask() -> object:
        claims = function(_SAMPLE)
        return dict(await claims if inspect.isawaitable(claims) else claims)

    try:
        return _lint(asyncio.run(ask()))
    except BaseException as error:  # noqa: BLE001 - see above
        return Hook(raised=type(error).__name__)


def _lint(claims: Any) -> Hook:  # noqa: ANN401 - whatever the operator returns
    try:
        warnings = lint_claims(claims, len(msgspec.json.encode(claims)), LintRules())
    except ClaimRefused as error:
        return Hook(refused=str(error))
    except (TypeError, ValueError, RecursionError) as error:  # the last: one that holds itself
        return Hook(refused=f"what claims_for returns is no JSON ({type(error).__name__})")
    return Hook(warnings=tuple(map(str, warnings)))


def _print(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    practice = None
    for finding in findings:
        if finding.practice != practice:
            practice = finding.practice
            table.add_row("", "", "") if table.row_count else None
            table.add_row(Text(""), Text(""), Text(TITLES[practice], "bold"))
        said = Text(printable(finding.detail))
        if finding.remedy:
            said.append("\n" + printable(finding.remedy), "italic")
        table.add_row(Text(finding.status, _STYLES[finding.status]), Text(finding.check), said)
    console.print(table)
    counts = {status: sum(finding.status == status for finding in findings) for status in ("pass", "warn", "fail")}
    console.print(Text(f"\n{counts['pass']} passed, {counts['warn']} warned, {counts['fail']} failed"))
