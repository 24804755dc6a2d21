"""``jotgate accounts``, ``sessions`` and ``keys``: they work on the data folder, also while a server runs on it."""

import asyncio
import getpass
import os
import secrets
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import structlog

from jotgate.cli.text import print_json, printable, relative, utc
from jotgate.core.errors import JotgateError, KeyRefused, SettingsError
from jotgate.core.jwk import Key, KeySet
from jotgate.server.common_passwords import load_common_passwords
from jotgate.server.flows.signup import check_new, signup
from jotgate.server.flows.standing import delete, disable, enable, reset_factors
from jotgate.server.keys import REVOCATION_LIFE_S, KeyRing, Purpose
from jotgate.server.log import get_log
from jotgate.server.passwords import Passwords
from jotgate.server.records import (
    Account,
    AccountChanged,
    AuditEvent,
    AuditName,
    Revoked,
    SealedKey,
    Target,
    audit_detail,
)
from jotgate.server.rules.accounts import check_scope_token, check_text, normalise_email
from jotgate.server.rules.hashing import parse_argon2
from jotgate.server.rules.keys import EventName, KeyChange, NoSuchKey, Standing, is_published, standing
from jotgate.server.sealing import rewrap
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store import Store
from jotgate.server.store.opening import make_store
from jotgate.server.store.schema import HEAD

_LONGEST_PASSWORD_LINE: Final = 8192
_LONGEST_ANSWER: Final = 100
_LONGEST_KEY_FILE: Final = 65_536
_FOR: Final = {
    "access": "signs access tokens",
    "feed": "signs the revocation feed",
    "refresh": "authenticates refresh tokens",
    "device": "authenticates device tokens",
    "mail": "seals mails that wait to be sent",
    "factor": "seals the secrets of authenticator apps",
}
Standings = Literal["disable", "enable", "delete", "reset-factors"]
_SAID: Final[dict[EventName, str]] = {
    "key_made": "published, and next to sign",
    "key_activated": "signs from now on",
    "key_retired": "verifies only from now on",
    "key_removed": "removed, before it signed anything",
    "key_revoked": "revoked: nothing that it signed is believed any more",
}


class NoSuchAccountError(JotgateError):
    """There is no account with this address."""

    code = "no_such_account"


class NoSuchSessionError(JotgateError):
    """There is no live session with this id."""

    code = "no_such_session"


class NotConfirmedError(JotgateError):
    """What concerns everybody was not confirmed."""

    code = "not_confirmed"


class PasswordsDifferError(JotgateError):
    """The password was not repeated as it was first typed."""

    code = "passwords_differ"


@dataclass(frozen=True)
class _SignupDeps:
    """To make an account takes no keys: those are for a server to make, which knows its issuer."""

    settings: Settings
    store: Store
    passwords: Passwords
    common_passwords: Collection[str]
    random: Callable[[int], bytes]
    log: structlog.stdlib.BoundLogger


def add_account(data: Path | None, email: str, *, as_json: bool) -> None:
    """Make an account; the password comes from a prompt or from standard input.

    Raises:
        RequestRefused: the address or the password cannot be used, or the address is taken.
    """
    settings = settings_of(data)
    address = normalise_email(email)  # before anybody types a password
    common = load_common_passwords()
    password = _read_password()
    check_new(settings, common, address, password)
    if _on_terminal() and getpass.getpass("Once more: ") != password.reveal():
        raise PasswordsDifferError("the two passwords differ; nothing was changed")
    store = make_store(settings)
    store.open()
    passwords = Passwords(1, parse_argon2(settings.argon2), salt=secrets.token_bytes)
    try:
        deps = _SignupDeps(settings, store, passwords, common, secrets.token_bytes, get_log(settings.log_format))
        account = asyncio.run(signup(deps, email, password, int(time.time()), actor="cli"))
    finally:
        passwords.close()
        store.close_now()
    if as_json:
        print_json(_public(account))
    else:
        _say(f"added {account.email} (id {account.id}) with {_scopes(account)}")


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _read_password() -> Secret:
    if _on_terminal():
        return Secret(getpass.getpass("Password: "))
    line = sys.stdin.buffer.readline(_LONGEST_PASSWORD_LINE)
    return Secret(line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r"))


def list_accounts(data: Path | None, *, limit: int, after: str | None, as_json: bool) -> None:
    """Print accounts in the order of their addresses.

    Raises:
        InvalidText, NulInText: `after` is no text.
    """
    check_text(after or "")
    with store_of(settings_of(data)) as store:
        accounts = asyncio.run(store.list_accounts(limit=limit, after=after))
    if as_json:
        print_json([_public(account) for account in accounts])
        return
    names: tuple[str, ...] = ("e-mail", "scopes", "since", "id")
    rows: list[tuple[str, ...]] = [(each.email, _scopes(each), _date(each.created_at), each.id) for each in accounts]
    if any(each.disabled_at is not None for each in accounts):
        states = ["" if each.disabled_at is None else "disabled" for each in accounts]
        names, rows = (*names, "state"), [(*row, state) for row, state in zip(rows, states, strict=True)]
    _print_table(names, rows)
    if len(accounts) == limit:
        sys.stderr.write(f"There may be more: --after {printable(accounts[-1].email)}\n")


def change_scope(data: Path | None, email: str, scope: str, *, granted: bool, as_json: bool) -> None:
    """Give an account a scope, or take it away; both say how the account stands then.

    Raises:
        InvalidScope, InvalidEmail: not a scope, not an address.
        NoSuchAccountError: nobody has this address.
    """
    check_scope_token(scope)
    address = normalise_email(email)
    audit = _line("scope_granted" if granted else "scope_revoked", scope=scope)
    with store_of(settings_of(data)) as store:
        change = store.grant_scope if granted else store.revoke_scope
        account = asyncio.run(change(address, scope, audit=audit))
    if account is None:
        raise NoSuchAccountError(f"there is no account with the address {address}")
    if as_json:
        print_json(_public(account))
    else:
        _say(f"{account.email} now has {_scopes(account)}")


_STANDINGS: Final[dict[Standings, tuple[Callable[..., Coroutine[Any, Any, AccountChanged | None]], str]]] = {
    "disable": (disable, "disabled"),
    "enable": (enable, "enabled"),
    "delete": (delete, "deleted"),
    "reset-factors": (reset_factors, "without second factor"),
}


def change_standing(data: Path | None, email: str, what: Standings, *, confirmed: bool, as_json: bool) -> None:
    """Disable an account, enable it again, delete it, or take its second factors away; say what became of its sessions.

    Raises:
        InvalidEmail, NoSuchAccountError: nobody has this address.
        NotConfirmedError: the person at the terminal thought better of it.
    """
    address = normalise_email(email)
    act, past = _STANDINGS[what]
    with store_of(settings_of(data)) as store:
        account = account_of(store, address)
        if what == "delete" and not confirmed:
            _confirm(f"This deletes the account of {address}, for good.")
        done = asyncio.run(act(store, account.id, _line, int(time.time())))
    ended = 0 if done is None else len(done.revoked.entries)
    if as_json:
        print_json({"id": account.id, "email": account.email, "changed": done is not None, "sessions_ended": ended})
    elif done is None:
        _say(f"{address} was {past} already")
    else:
        said = f"{address} is {past} now" if what == "reset-factors" else f"{past} {address}"
        _say(said + ("" if what == "enable" else f"; {ended} session{'' if ended == 1 else 's'} ended"))


def list_sessions(data: Path | None, email: str, *, limit: int, as_json: bool) -> None:
    """Print at most `limit` live sessions of an account, the one that was used last first.

    Raises:
        InvalidEmail, NoSuchAccountError: nobody has this address.
    """
    address, now = normalise_email(email), int(time.time())
    with store_of(settings_of(data)) as store:
        account = account_of(store, address)
        sessions = asyncio.run(store.families_of_account(account.id, now=now, limit=limit))
    if len(sessions) == limit:
        sys.stderr.write(f"There may be more: these are the {limit} used last. --limit shows others, too.\n")
    if as_json:
        names = ("created_at", "seen_at", "idle_ends_at", "ends_at", "device", "address", "client_id")
        print_json([{"id": each.sid} | {name: getattr(each, name) for name in names} for each in sessions])
        return
    rows = [
        (each.sid, each.device, each.address or "-", relative(each.seen_at, now), relative(each.ends_at, now))
        for each in sessions
    ]
    _print_table(("session", "device", "address", "used", "ends at the latest"), rows)


def revoke_sessions(data: Path | None, target: Target, *, confirmed: bool, as_json: bool) -> None:
    """Revoke a session, or the sessions of an account (``target.id`` is its address), of a client, or all there are.

    Raises:
        NoSuchAccountError, NoSuchSessionError: there is nothing to revoke.
        NotConfirmedError: the person at the terminal thought better of it.
    """
    if target.kind in ("client", "all") and not confirmed:
        _confirm("This logs out everybody" + (f" who uses the client {target.id}." if target.id else "."))
    with store_of(settings_of(data)) as store:
        if target.kind == "account":
            target = Target("account", account_of(store, normalise_email(target.id)).id)
        done = _revoke(store, target)
    if target.kind == "session" and not done.entries:
        raise NoSuchSessionError("there is no live session with this id")
    if as_json:
        print_json([{"kind": each.kind, "id": each.id, "at": each.at} for each in done.entries])
    elif target.kind in ("client", "all"):
        _say("revoked: every session that began before now, and every access token issued up to now")
    else:
        _say(f"revoked {len(done.entries)} session{'' if len(done.entries) == 1 else 's'}")


def _revoke(store: Store, target: Target) -> Revoked:
    account = target.id if target.kind == "account" else ""
    sid = target.id if target.kind == "session" else ""
    audit = msgspec.structs.replace(_line("revoked", kind=target.kind, id=target.id), account_id=account, sid=sid)
    return asyncio.run(store.revoke(target, clock=lambda: int(time.time()), until_s=REVOCATION_LIFE_S, audit=audit))


def _line(event: AuditName, **detail: object) -> AuditEvent:
    """Return a line of the audit trail about what an operator does."""
    return AuditEvent(at=int(time.time()), event=event, actor="cli", detail=audit_detail(**detail))


def account_of(store: Store, address: str) -> Account:
    account = asyncio.run(store.account_by_email(address))
    if account is None:
        raise NoSuchAccountError(f"there is no account with the address {address}")
    return account


def _confirm(what: str) -> None:
    if not _on_terminal():
        raise NotConfirmedError(f"{what} Say --yes to do it.")
    sys.stderr.write(f"{what} Type yes to do it: ")
    sys.stderr.flush()
    if sys.stdin.readline(_LONGEST_ANSWER).strip() != "yes":
        raise NotConfirmedError("nothing was changed")


def list_keys(data: Path | None, *, everything: bool, as_json: bool) -> None:
    """Print the server's keys, without anything secret; those that are gone only where `everything` is asked for."""
    now = int(time.time())
    with store_of(settings_of(data)) as store:
        keys = [key for key in store.load_keys() if everything or is_published(key)]
    # A purpose that only a newer version knows comes last.
    purposes = [*_FOR, *sorted({key.purpose for key in keys})]
    keys.sort(key=lambda key: (purposes.index(key.purpose), list(Standing).index(standing(key)), -_since(key)))
    if as_json:
        print_json([_public_key(key) for key in keys])
        return
    several = len({key.issuer for key in keys}) > 1
    rows = [
        (key.kid, _FOR.get(key.purpose, key.purpose), key.algorithm, standing(key).value, relative(_since(key), now))
        + ((key.issuer,) if several else ())
        for key in keys
    ]
    _print_table(("key id", "purpose", "algorithm", "state", "since", "issuer")[: 6 if several else 5], rows)


def rotate_key(data: Path | None, purpose: Purpose, *, issuer: str | None, as_json: bool) -> None:
    """Let the next key of a purpose sign from now on.

    Raises:
        KeyNotMature, NoSuchKey: there is none that verifiers know for certain.
    """
    with _ring(data, issuer) as (ring, _):
        change = ring.rotate(purpose)
    _tell_change(change, as_json=as_json)


def revoke_keys(
    data: Path | None, kids: Sequence[str], *, end_sessions: bool, issuer: str | None, confirmed: bool, as_json: bool
) -> None:
    """Have nothing believed any more that these keys have signed; with `end_sessions` people have to log in again.

    Raises:
        NoSuchKey: one of them is none that is in use. Those that are named before it are revoked.
        NotConfirmedError: the person at the terminal thought better of it, or did not say that sessions may end.
    """
    with _ring(data, issuer, besides=kids) as (ring, store):
        purposes = {ring.purpose_of(kid) for kid in kids}  # of all, so that nothing is done if one is unknown
        if "refresh" in purposes and not end_sessions:
            raise NotConfirmedError(
                "this key authenticates refresh tokens, and whoever holds one of its tokens will have to log in again: "
                "say --end-sessions"
            )
        if end_sessions and not confirmed:
            _confirm("This logs out everybody.")
        if end_sessions:  # first: whoever is told that it failed can do both again
            _revoke(store, Target("all"))
        # One after the other, each with the others left aside: a key that is broken does not keep another from going.
        events = [event for kid in dict.fromkeys(kids) for event in ring.revoke(kid).events]
    _tell_change(KeyChange(events=tuple(events)), as_json=as_json)


def import_key(data: Path | None, file: Path, *, algorithm: str | None, issuer: str | None, as_json: bool) -> None:
    """Take a key pair from a file, PEM or JWK, as the next one for access tokens.

    Raises:
        KeyRefused: it is no key, a weak one, or has no private half.
        KeyInUse: it is a key here already.
    """
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LONGEST_KEY_FILE)
    except OSError as error:
        raise SettingsError((f"{file} cannot be read: {error.strerror}",)) from None
    if raw.lstrip().startswith(b"{"):
        key = Key.from_jwk(raw, algorithm=algorithm)
    elif algorithm is None:
        raise KeyRefused("A PEM file does not say what the key is for: name it with --algorithm, for example ES256.")
    else:
        key = Key.from_pem(raw, algorithm)
    with _ring(data, issuer) as (ring, _):
        change = ring.bring(key)
    _tell_change(change, as_json=as_json)


def export_keys(data: Path | None, kid: str | None, *, as_pem: bool, issuer: str | None) -> None:
    """Print the public halves of the keys for access tokens, as a JWK set or as PEM.

    Raises:
        NoSuchKey: there is none of this `kid`.
    """
    with _ring(data, issuer) as (ring, _):
        keys = [key for key in ring.now.published if kid in (None, key.kid)]
    if not keys:
        raise NoSuchKey(f"There is no published key {kid}." if kid else "No key is published: tokens have a MAC.")
    if as_pem:
        sys.stdout.write("".join(key.to_pem() for key in keys))
    else:
        print_json(KeySet(keys).to_jwks())


def rewrap_keys(data: Path | None, *, forget_previous: bool, as_json: bool) -> None:
    """Seal all private keys anew: under a new master key where it lies in the data folder, else under the one given.

    With `forget_previous` only delete what a rewrap left behind of the old master key.

    Raises:
        SettingsError: the master key opens not all of them, or its file cannot be written.
    """
    settings = settings_of(data)
    source = settings.master_key_source
    with store_of(settings) as store:
        if forget_previous:
            source.forget_previous(store.load_keys())
            told, sentence = 0, "the previous master key is gone"
        else:
            master = source.begin_rewrap()

            def decide(rows: list[SealedKey]) -> KeyChange:
                return KeyChange(tuple(row for row in rewrap(rows, master) if row.sealed))

            told = len(store.change_keys(decide, now=int(time.time()), until_s=REVOCATION_LIFE_S).keys)
            source.finish_rewrap(master)
            sentence = f"sealed {told} keys anew"
    if as_json:
        print_json({"rewrapped": told})
    else:
        _say(sentence)


def _public_key(key: SealedKey) -> dict[str, Any]:
    names = ("kid", "issuer", "purpose", "algorithm")
    times = ("created_at", "activated_at", "retired_at", "revoked_at", "removed_at")
    told = {name: getattr(key, name) for name in names} | {"state": standing(key).value}
    return told | {name: getattr(key, name) for name in times}


def _since(key: SealedKey) -> int:
    return next(
        (at for at in (key.revoked_at, key.removed_at, key.retired_at, key.activated_at) if at is not None),
        key.created_at,
    )


def _tell_change(change: KeyChange, *, as_json: bool) -> None:
    if as_json:
        told = [{"event": each.name, "kid": each.kid, "algorithm": each.algorithm} for each in change.events]
        print_json([one | {"early": each.early} for one, each in zip(told, change.events, strict=True)])
        return
    for each in change.events:
        sentence = f"{_SAID[each.name]}: {each.kid} ({each.algorithm})"
        if each.early == "emergency":
            sentence += "; verifiers did not know it before, and fetch it now"
        _say(sentence)


@contextmanager
def _ring(data: Path | None, issuer: str | None, *, besides: Collection[str] = ()) -> Iterator[tuple[KeyRing, Store]]:
    """The keys of one issuer: the one that is named, or the only one in the database.

    All of them can be used, `besides` those of these `kid`s.
    """
    settings = settings_of(data)
    with store_of(settings) as store:
        issuers = {key.issuer for key in store.load_keys() if is_published(key) and key.issuer}
        if issuer is None and len(issuers) > 1:
            raise SettingsError(
                (f"name the issuer with --issuer: the database has keys of {', '.join(sorted(issuers))}",)
            )
        of = issuer if issuer is not None else next(iter(issuers), settings.issuer)
        ring = KeyRing(
            store,
            settings.master_key_source.load(make=False),
            msgspec.structs.replace(settings, issuer=of),
            clock=lambda: int(time.time()),
            monotonic=time.monotonic,
            random=secrets.token_bytes,
            log=get_log(settings.log_format),
            actor="cli",
        )
        ring.load(besides=besides)
        yield ring, store


def upgrade_database(data: Path | None) -> None:
    """Bring the schema up to date, and say so.

    Raises:
        SettingsError: there is no database, it cannot be used, or it is newer than this program.
    """
    settings = settings_of(data)
    with store_of(settings):
        _say(f"the database is up to date: {settings.database_name} (schema {HEAD})")


def settings_of(data: Path | None) -> Settings:
    return Settings.from_env(os.environ, **({} if data is None else {"data_dir": data}))


@contextmanager
def store_of(settings: Settings) -> Iterator[Store]:
    """The database that a server has used; a mistyped file must not become a new, empty one."""
    if settings.shared_database is None and not settings.sqlite_path.exists():
        fault = f"there is no database {settings.sqlite_path}: name the server's folder with --data"
        raise SettingsError((fault,))
    store = make_store(settings)
    store.open()
    try:
        yield store
    finally:
        store.close_now()


def _public(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "email": account.email,
        "scopes": list(account.scopes),
        "created_at": account.created_at,
        "disabled_at": account.disabled_at,
    }


def _scopes(account: Account) -> str:
    return " ".join(account.scopes) or "no scopes"


def _date(at: int) -> str:
    return utc(at).partition(" ")[0]


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns that are never cut off: what is too wide for a window still reaches a pipe whole."""
    lines = [titles, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        _say("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _say(sentence: str) -> None:
    sys.stdout.write(printable(sentence) + "\n")
