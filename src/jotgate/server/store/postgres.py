"""The store on PostgreSQL: for any number of machines, which all see the same sessions.

Every transaction is READ COMMITTED and locks what it decides upon. Whoever changes single sessions shares a lock that
whoever ends any number of them in one step has alone, so that those two never overlap. Numbers of the log come from one
row, last in a transaction: it is what transactions wait for.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from asyncpg import exceptions

from jotgate.core.revocations import Kind, Revocation
from jotgate.server.places import name_of
from jotgate.server.records import (
    CLOCK_MARGIN_S,
    Account,
    AccountChange,
    AccountChanged,
    AuditEvent,
    Code,
    Family,
    LogEntry,
    LogHead,
    OutgoingMail,
    QueuedMail,
    Revoked,
    SealedKey,
    Target,
)
from jotgate.server.rules import refresh
from jotgate.server.rules.accounts import email_identity
from jotgate.server.rules.keys import KeyChange
from jotgate.server.rules.refresh import Ended, Outcome, Replayed, Reused, Rotated
from jotgate.server.secret import Secret
from jotgate.server.store import (
    EMAIL_TAKEN,
    MAX_AT,
    Approve,
    AuditAccounts,
    AuditKey,
    AuditReuse,
    DecideOnAccount,
    DecideOnCode,
    EmailTaken,
    MailReuse,
    StoreBusy,
    StoreClosed,
    StoreError,
)
from jotgate.server.store.postgres_pool import (
    Connection,
    Job,
    OutcomeUnknown,
    Pool,
    as_settings_error,
    as_store_error,
    begin_anew_after_fork,
    check_writable,
    run,
    run_apart,
)
from jotgate.server.store.postgres_schema import Names, prepare_database
from jotgate.server.store.postgres_statements import PostgresStatements
from jotgate.server.store.postgres_watch import Watch
from jotgate.server.store.rows import (
    CROWDED,
    CROWDED_OUT_AT_ONCE,
    Row,
    Values,
    account_values,
    advance_values,
    audit_values,
    code_values,
    family_values,
    log_entries,
    mail_values,
    siblings,
    to_account,
    to_audit_event,
    to_code,
    to_family,
    to_family_and_account,
    to_key,
    to_log_entry,
    to_queued_mail,
    trail_values,
)
from jotgate.server.store.statements import Numbered

T = TypeVar("T")

_CONNECTIONS: Final = 8  # of each event loop; the follower of the log and the watch have one each besides
_WAIT_S: Final = 15.0  # longer than any lock is waited for, so that a lock held elsewhere is told as such
_CLOSE_S: Final = 15.0
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_NOT_OPEN: Final = "The database is not open."


class PostgresStore:
    """A `Store` in a PostgreSQL database, which must exist; the tables are made if they are not there.

    The URL is libpq's: ``postgresql://user:password@host:port/database?sslmode=verify-full``.
    """

    def __init__(self, url: Secret, *, connections: int = _CONNECTIONS, wait_s: float = _WAIT_S) -> None:
        self._url = url
        self._connections_per_loop = connections
        self._wait_s = wait_s
        self._sql = PostgresStatements()
        self._names: Names | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._guard = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._watch: Watch | None = None

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections."""
        self._begin_anew()

    # Opening and closing

    def open(self) -> None:
        """See `Store.open`."""
        if self._names is not None:
            return
        try:
            self._names = run_apart(lambda: prepare_database(self._url))
        except Exception as error:  # noqa: BLE001  the driver raises many kinds, and each is told in a sentence
            raise as_settings_error(error, name_of(self._url)) from None
        begin_anew_after_fork(self)

    async def close(self) -> None:
        """See `Store.close`."""
        self._names = None
        here = self._pools.pop(asyncio.get_running_loop(), None)
        if here is not None:
            await here.close(_CLOSE_S)
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """See `Store.close_now`."""
        self._names = None
        with self._guard:
            pools, self._pools = self._pools, {}
            watch, self._watch = self._watch, None
        for loop, pool in pools.items():
            _close(loop, pool)
        if watch is not None:
            watch.stop()

    async def ping(self) -> None:
        """See `Store.ping`."""

        async def job(connection: Connection) -> None:
            await connection.fetchrow(self._sql.head.text)
            # A transaction with a number writes to the disk when it is committed, though it changes nothing.
            await connection.fetchval("SELECT txid_current()")

        await self._transaction(_BEGIN, job)

    # Accounts

    async def add_account(self, account: Account, *, audit: AuditEvent | None = None) -> None:
        """See `Store.add_account`."""
        values = account_values(account)

        async def job(connection: Connection) -> None:
            with _unique_address():
                await _execute(connection, self._sql.add_account, values)
            await self._check_reservation(connection, account)
            await self._audit(connection, audit)

        await self._transaction(_BEGIN, job)

    async def add_accounts(self, accounts: Sequence[Account], *, audit: AuditAccounts | None = None) -> set[str]:
        """See `Store.add_accounts`."""
        # In one order, so that two who add the same ones never wait for each other.
        rows = sorted((account_values(account) for account in accounts), key=lambda row: row["email_identity"])

        async def job(connection: Connection) -> set[str]:
            added: set[str] = set()
            for row in rows:
                found = await _fetch_row(connection, self._sql.add_account_if_new, row)
                if found is not None:
                    added.add(found[0])
            if added and audit is not None:
                await self._audit(connection, audit(len(added)))
            return added

        return await self._transaction(_BEGIN, job)

    async def account_by_email(self, email: str) -> Account | None:
        """See `Store.account_by_email`."""
        row = await self._row(self._sql.account_by_identity, {"email_identity": email_identity(email)})
        return to_account(row) if row else None

    async def account_by_id(self, account_id: str) -> Account | None:
        """See `Store.account_by_id`."""
        row = await self._row(self._sql.account_by_id, {"account_id": account_id})
        return to_account(row) if row else None

    async def list_accounts(self, *, limit: int, after: str | None = None) -> list[Account]:
        """See `Store.list_accounts`."""
        start = {"limit": limit, "after": email_identity(after or "")}
        return [to_account(row) for row in await self._rows(self._sql.list_accounts, start)]

    async def grant_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """See `Store.grant_scope`."""
        return await self._change_scopes(email, lambda scopes: scopes if scope in scopes else (*scopes, scope), audit)

    async def revoke_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """See `Store.revoke_scope`."""
        return await self._change_scopes(email, lambda scopes: tuple(kept for kept in scopes if kept != scope), audit)

    async def _change_scopes(
        self, email: str, change: Callable[[tuple[str, ...]], tuple[str, ...]], audit: AuditEvent | None
    ) -> Account | None:
        identity = {"email_identity": email_identity(email)}

        async def job(connection: Connection) -> Account | None:
            row = await _fetch_row(connection, self._sql.account_to_change, identity)
            if row is None:
                return None
            account = to_account(row)
            scopes = change(account.scopes)
            if scopes == account.scopes:
                return account
            values = {"account_id": account.id, "scopes": " ".join(scopes)}
            await _execute(connection, self._sql.set_scopes, values)
            await self._audit(connection, audit, account_id=account.id)
            return msgspec.structs.replace(account, scopes=scopes)

        return await self._transaction(_BEGIN, job)

    async def set_password(
        self,
        account_id: str,
        *,
        expected_hash: str,
        expected_version: int,
        password_hash: str,
        now: int,
        until_s: int,
        codes: Sequence[Code] = (),
        mails: Sequence[OutgoingMail] = (),
        audit: AuditEvent | None = None,
        session: bytes | None = None,
    ) -> Revoked | None:
        """See `Store.set_password`."""
        change = {
            "account_id": account_id,
            "expected_hash": expected_hash,
            "expected_version": expected_version,
            "password_hash": password_hash,
        }
        target = Target("account", account_id)

        async def job(connection: Connection) -> Revoked | None:
            if session is not None and not await self._is_alive(connection, session):
                return None
            if await _fetch_row(connection, self._sql.set_password, change) is None:
                return None
            await self._add_codes(connection, codes)
            await self._add_mails(connection, mails)
            await self._audit(connection, audit)
            return await self._revoke(connection, target, now=now, until_s=until_s)

        return await self._change_sessions(job)

    async def replace_hash(self, account_id: str, *, expected_hash: str, password_hash: str) -> bool:
        """See `Store.replace_hash`."""
        change = {"account_id": account_id, "expected_hash": expected_hash, "password_hash": password_hash}

        async def job(connection: Connection) -> bool:
            return await _fetch_row(connection, self._sql.replace_hash, change) is not None

        return await self._transaction(_BEGIN, job)

    async def change_account(
        self, account_id: str, decide: DecideOnAccount, *, now: int, until_s: int, session: bytes | None = None
    ) -> AccountChanged | None:
        """See `Store.change_account`."""

        async def job(connection: Connection) -> AccountChanged | None:
            account = await self._account_to_change(connection, account_id)
            if session is not None and not await self._is_alive(connection, session):
                return None
            change = None if account is None else decide(account)
            return None if change is None else await self._apply(connection, account, change, now=now, until_s=until_s)

        return await self._change_sessions(job)

    async def use_code(
        self, code_hash: bytes, decide: DecideOnCode, *, now: int, until_s: int
    ) -> AccountChanged | None:
        """See `Store.use_code`."""

        async def job(connection: Connection) -> AccountChanged | None:
            # The account first, as whoever voids its codes does: who locks in one order never waits in a circle. Where
            # there is none yet, its address.
            found = await _fetch_row(connection, self._sql.code_by_hash, {"hash": code_hash})
            account = None
            if found is not None and to_code(found).account_id:
                account = await self._account_to_change(connection, to_code(found).account_id)
            elif found is not None:
                identity = email_identity(to_code(found).email)
                await connection.execute(f"SELECT pg_advisory_xact_lock({self._opened().addresses_lock})", identity)
            row = await _fetch_row(connection, self._sql.use_code, {"hash": code_hash})
            if row is None:
                return None
            return await self._apply(connection, account, decide(to_code(row), account), now=now, until_s=until_s)

        return await self._change_sessions(job)

    async def code_by_hash(self, code_hash: bytes) -> Code | None:
        """See `Store.code_by_hash`."""
        row = await self._row(self._sql.code_by_hash, {"hash": code_hash})
        return to_code(row) if row else None

    async def pending_signup(self, email: str, *, now: int) -> Code | None:
        """See `Store.pending_signup`."""
        row = await self._row(self._sql.pending_signup, {"email_identity": email_identity(email), "now": now})
        return to_code(row) if row else None

    async def is_reserved(self, email: str, *, now: int) -> bool:
        """See `Store.is_reserved`."""
        wanted = {"email_identity": email_identity(email), "now": now}
        return await self._row(self._sql.reservation, wanted) is not None

    async def queue(
        self, *, codes: Sequence[Code] = (), mails: Sequence[OutgoingMail] = (), audit: Sequence[AuditEvent] = ()
    ) -> None:
        """See `Store.queue`."""

        async def job(connection: Connection) -> None:
            await self._add_codes(connection, codes)
            await self._add_mails(connection, mails)
            await self._add_audit(connection, audit)

        await self._transaction(_BEGIN, job)

    async def _apply(
        self, connection: Connection, before: Account | None, change: AccountChange, *, now: int, until_s: int
    ) -> AccountChanged:
        after, revoked = change.account, Revoked()
        known = before or after
        if known is None:
            raise ValueError("a change of no account")
        for purpose in change.void:
            voided = siblings(purpose, known.id, known.email) | {"void_after": change.void_after}
            await _execute(connection, self._sql.void_codes, voided)
        with _unique_address():
            if before is None and after is not None:
                await _execute(connection, self._sql.add_account, account_values(after))
                await self._check_reservation(connection, after)
            elif after is not None and before != after:
                changed = account_values(after) | {"account_id": after.id}
                await _execute(connection, self._sql.replace_account, changed)
        await self._add_codes(connection, change.codes)
        await self._add_mails(connection, change.mails)
        await self._add_audit(connection, change.audit)
        if before is not None and (change.end_sessions or after is None):
            revoked = await self._revoke(connection, Target("account", before.id), now=now, until_s=until_s)
        if after is None:
            await _execute(connection, self._sql.delete_families_of_account, {"account_id": known.id})
            await _execute(connection, self._sql.delete_account, {"account_id": known.id})
        return AccountChanged(after, revoked)

    async def _is_alive(self, connection: Connection, family_id: bytes) -> bool:
        return await _fetch_row(connection, self._sql.family_is_alive, {"family_id": family_id}) is not None

    async def _check_reservation(self, connection: Connection, added: Account) -> None:
        """Refuse an address that somebody may get back. After it was added: a change that frees it was waited for."""
        wanted = {"email_identity": email_identity(added.email), "now": added.created_at}
        if await _fetch_row(connection, self._sql.reservation, wanted) is not None:
            raise EmailTaken(EMAIL_TAKEN)

    async def _account_to_change(self, connection: Connection, account_id: str) -> Account | None:
        row = await _fetch_row(connection, self._sql.account_to_change_by_id, {"account_id": account_id})
        return to_account(row) if row else None

    async def _add_codes(self, connection: Connection, codes: Sequence[Code]) -> None:
        for code in codes:
            await _execute(connection, self._sql.add_code, code_values(code))
            if code.purpose in CROWDED:
                crowd = code_values(code) | {"limit": CROWDED_OUT_AT_ONCE}
                await _execute(connection, self._sql.crowd_out_codes, crowd)

    async def _add_mails(self, connection: Connection, mails: Sequence[OutgoingMail]) -> None:
        for mail in mails:
            await _execute(connection, self._sql.add_mail, mail_values(mail))

    # Sessions

    async def add_family(self, family: Family, *, expected_hash: str, audit: AuditEvent | None = None) -> bool:
        """See `Store.add_family`."""
        # Each login takes a few of the account's dead sessions along: what an account leaves behind stays bounded.
        values = family_values(family) | {
            "expected_hash": expected_hash,
            "dead_since": family.created_at - CLOCK_MARGIN_S,
        }
        if audit is None:
            return await self._change_session(self._sql.add_family_and_prune, values)
        values |= {f"audit_{name}": value for name, value in audit_values(audit).items()}
        return await self._change_session(self._sql.add_family_audited, values)

    async def family_by_sid(self, sid: str) -> Family | None:
        """See `Store.family_by_sid`."""
        row = await self._row(self._sql.family_by_sid, {"sid": sid})
        return to_family(row) if row else None

    async def family_by_id(self, family_id: bytes) -> Family | None:
        """See `Store.family_by_id`."""
        row = await self._row(self._sql.family_by_id, {"family_id": family_id})
        return to_family(row) if row else None

    async def families_of_account(self, account_id: str, *, now: int, limit: int = 1000) -> list[Family]:
        """See `Store.families_of_account`."""
        wanted = {"account_id": account_id, "now": now, "limit": limit}
        return [to_family(row) for row in await self._rows(self._sql.families_of_account, wanted)]

    async def confirm(self, family_id: bytes, generation: int) -> None:
        """See `Store.confirm`."""
        presented = {"family_id": family_id, "expected_generation": generation, "confirmed": True}

        async def job(connection: Connection) -> None:
            await _execute(connection, self._sql.confirm_family, presented)

        await self._change_sessions(job)

    async def rotate(
        self,
        family_id: bytes,
        presented_generation: int,
        *,
        now: int,
        mac_kid: str,
        idle_s: int,
        until_s: int,
        approve: Approve | None = None,
        audit_reuse: AuditReuse | None = None,
        mail_reuse: MailReuse | None = None,
    ) -> tuple[Outcome, Family | None, Account | None]:
        """See `Store.rotate`."""
        # In two round trips, as long as nobody else changes the session between them. What is not a plain step on is
        # looked at again in a transaction, which has the session to itself.
        row = await self._row(self._sql.family_with_account, {"family_id": family_id})
        if row is not None:
            family, account = to_family_and_account(row)
            outcome = refresh.rotate(family, presented_generation, now=now, mac_kid=mac_kid, idle_s=idle_s)
            if isinstance(outcome, Rotated):
                if approve is not None:
                    approve(family, account)
                swap = advance_values(family, outcome.family)
                with contextlib.suppress(OutcomeUnknown):  # if it was done, the transaction finds a replay
                    if await self._change_session(self._sql.advance_family_at_once, swap):
                        return outcome, outcome.family, account

        async def job(connection: Connection) -> tuple[Outcome, Family | None, Account | None]:
            row = await _fetch_row(connection, self._sql.family_to_rotate, {"family_id": family_id})
            if row is None:
                return Ended(), None, None
            family, account = to_family_and_account(row)
            outcome = refresh.rotate(family, presented_generation, now=now, mac_kid=mac_kid, idle_s=idle_s)
            if approve is not None and isinstance(outcome, Rotated | Replayed):
                approve(family, account)
            match outcome:
                case Rotated(successor):
                    await self._advance(connection, family, successor)
                    family = successor
                case Reused():
                    told = None if audit_reuse is None else audit_reuse(family)
                    await self._add_mails(connection, () if mail_reuse is None else mail_reuse(family, account))
                    await self._end(connection, family_id, now=now, until_s=until_s, audit=told)
                    family = msgspec.structs.replace(family, ended_at=now)
                case Replayed() | Ended():
                    pass
            return outcome, family, account

        return await self._change_sessions(job)

    async def end_family(self, family_id: bytes, *, now: int, until_s: int, audit: AuditEvent | None = None) -> bool:
        """See `Store.end_family`."""
        return await self._change_sessions(
            lambda connection: self._end(connection, family_id, now=now, until_s=until_s, audit=audit)
        )

    async def _advance(self, connection: Connection, family: Family, successor: Family) -> None:
        swapped = await _execute(connection, self._sql.advance_family, advance_values(family, successor))
        if swapped != "UPDATE 1":  # the row is locked since it was read, so this is a fault, not a race
            raise StoreError("The database lost a session between two statements of one transaction.")

    async def _end(
        self, connection: Connection, family_id: bytes, *, now: int, until_s: int, audit: AuditEvent | None = None
    ) -> bool:
        ended = await _fetch_row(connection, self._sql.end_family, {"family_id": family_id, "now": now})
        if ended is None:
            return False
        await self._audit(connection, audit)
        await self._append(connection, "session", list(ended), at=now, until_s=until_s)
        return True

    # The revocation log

    async def revoke(
        self, target: Target, *, clock: Callable[[], int], until_s: int, audit: AuditEvent | None = None
    ) -> Revoked:
        """See `Store.revoke`."""

        async def job(connection: Connection) -> Revoked:
            # By now the lock is held. If it is held alone, nothing can come between any more.
            done = await self._revoke(connection, target, now=clock(), until_s=until_s)
            if done.entries:
                await self._audit(connection, audit, at=done.entries[0].at)
            return done

        return await self._change_sessions(job, alone=target.kind in {"client", "all"})

    async def _revoke(self, connection: Connection, target: Target, *, now: int, until_s: int) -> Revoked:
        match target.kind:
            case "session":
                ended = await _fetch(connection, self._sql.end_family_by_sid, {"sid": target.id, "now": now})
            case "account":
                mine = {"account_id": target.id, "now": now}
                ended = await _fetch(connection, self._sql.end_families_of_account, mine)
            case "client" | "all":
                entries = await self._append(connection, target.kind, [target.id], at=now, until_s=until_s)
                await _execute(connection, self._sql.set_cut, msgspec.structs.asdict(entries[0]))
                return Revoked(entries)
            case "token" | "key":
                return Revoked(await self._append(connection, target.kind, [target.id], at=now, until_s=until_s))
        return Revoked(await self._append(connection, "session", [sid for (sid,) in ended], at=now, until_s=until_s))

    async def _append(
        self, connection: Connection, kind: Kind, ids: Sequence[str], *, at: int, until_s: int
    ) -> tuple[LogEntry, ...]:
        if not ids:
            return ()
        values = {
            "kind": kind,
            "ids": ids,
            "at": at,
            "until": at + until_s,
            # Each entry takes a few dead ones along, so that the log stays as long as a day's worth.
            "dead_since": at - CLOCK_MARGIN_S,
            "limit": 8 * len(ids),
            "channel": self._opened().channel,
        }
        row = await _fetch_row(connection, self._sql.append, values)
        if row is None:
            raise StoreError("The database has lost the head of the log.")
        return log_entries(kind, ids, row[0], at=at, until_s=until_s)

    async def log_again(self, revocations: Sequence[Revocation], *, now: int, until_s: int) -> None:
        """See `Store.log_again`."""

        async def job(connection: Connection) -> None:
            for each in revocations:
                if each.kind == "session":
                    ends = [self._sql.end_family_by_sid.order({"sid": sid, "now": now}) for sid in each.ids]
                    await connection.executemany(self._sql.end_family_by_sid.text, ends)
                at = each.at if each.kind in ("client", "all") else now
                entries = await self._append(connection, each.kind, each.ids or ("",), at=at, until_s=until_s)
                if each.kind in ("client", "all"):
                    for entry in entries:
                        await _execute(connection, self._sql.set_cut, msgspec.structs.asdict(entry))

        await self._change_sessions(job, alone=True)

    async def sweep(self, after: bytes, *, now: int, limit: int, audit_keep_s: int | None = None) -> bytes:
        """See `Store.sweep`."""
        dead_since = now - CLOCK_MARGIN_S

        async def job(connection: Connection) -> bytes:
            await _execute(connection, self._sql.prune_revocations, {"dead_since": dead_since, "limit": limit})
            if audit_keep_s is not None:
                old = {"audit_dead_since": dead_since - audit_keep_s, "limit": limit}
                await _execute(connection, self._sql.prune_audit, old)
            await _execute(connection, self._sql.prune_codes, {"dead_since": dead_since, "limit": limit})
            step = await _fetch(connection, self._sql.sweep_step, {"after": after, "limit": limit})
            if not step:
                return b""
            last: bytes = step[-1][0]
            dead = {"after": after, "last": last, "dead_since": dead_since}
            await _execute(connection, self._sql.sweep_families, dead)
            return last if len(step) == limit else b""

        return await self._transaction(_BEGIN, job)

    def attend(self, log_id: str) -> LogHead:
        """See `Store.attend`."""
        try:
            return self._watching().attend(log_id)
        except TimeoutError:
            raise StoreBusy("The database did not answer in time.") from None
        except Exception as error:  # noqa: BLE001  the driver raises many kinds, and each is told in a sentence
            raise as_store_error(error) from None

    async def renew_log(self, expected_log_id: str, log_id: str) -> None:
        """See `Store.renew_log`."""

        async def job(connection: Connection) -> None:
            change = {"expected_log_id": expected_log_id, "log_id": log_id}
            await _execute(connection, self._sql.renew_log, change)
            await connection.execute(f"NOTIFY {self._opened().channel}")

        await self._transaction(_BEGIN, job)

    async def head(self) -> LogHead:
        """See `Store.head`."""

        async def job(connection: Connection) -> LogHead:
            row = await _fetch_row(connection, self._sql.live_head, {})
            if row is None:
                raise StoreError("The database has lost the head of the log.")
            log_id, seq, keys_version, read_only = row
            check_writable(read_only)
            return LogHead(log_id, seq, keys_version)

        return await self._ask(None, job)

    async def revocations_after(self, seq: int, *, alive_at: int = 0, limit: int = 10_000) -> list[LogEntry]:
        """See `Store.revocations_after`."""
        wanted = {"after": seq, "alive_at": alive_at, "limit": limit}
        return [to_log_entry(row) for row in await self._rows(self._sql.revocations_after, wanted)]

    async def wait_changed(self, timeout_s: float) -> None:
        """See `Store.wait_changed`."""
        await self._watching().wait_changed(timeout_s)

    # Mails

    async def claim_mails(self, claim: str, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        """See `Store.claim_mails`."""
        wanted = {"new_claim": claim, "now": now, "limit": limit, "leased_until": now + lease_s}

        async def job(connection: Connection) -> list[QueuedMail]:
            return [to_queued_mail(row) for row in await _fetch(connection, self._sql.claim_mails, wanted)]

        return await self._transaction(_BEGIN, job)

    async def mail_sent(self, mail_id: str, claim: str) -> None:
        """See `Store.mail_sent`."""
        held = {"mail_id": mail_id, "held_claim": claim}
        await self._transaction(_BEGIN, lambda connection: _execute(connection, self._sql.delete_mail, held))

    async def mail_failed(self, mail_id: str, claim: str, *, due_at: int) -> None:
        """See `Store.mail_failed`."""
        held = {"mail_id": mail_id, "held_claim": claim, "due_at": due_at}
        await self._transaction(_BEGIN, lambda connection: _execute(connection, self._sql.postpone_mail, held))

    # Keys

    def load_keys(self) -> list[SealedKey]:
        """See `Store.load_keys`."""

        async def job(connection: Connection) -> list[SealedKey]:
            return [to_key(row) for row in await _fetch(connection, self._sql.load_keys, {})]

        return self._blocking(_BEGIN, job)

    def change_keys(
        self,
        decide: Callable[[list[SealedKey]], KeyChange],
        *,
        now: int,
        until_s: int,
        audit: AuditKey | None = None,
    ) -> KeyChange:
        """See `Store.change_keys`."""

        async def job(connection: Connection) -> KeyChange:
            change = decide([to_key(row) for row in await _fetch(connection, self._sql.load_keys, {})])
            if change == KeyChange():
                return change
            for kid in (*change.forgotten, *(key.kid for key in change.keys)):
                await _execute(connection, self._sql.delete_key, {"kid": kid})
            for key in change.keys:
                await _execute(connection, self._sql.add_key, msgspec.structs.asdict(key))
            await _execute(connection, self._sql.advance_keys_version, {})
            if audit is not None:
                await self._add_audit(connection, [audit(each) for each in change.events])
            await self._append(connection, "key", change.revoked, at=now, until_s=until_s)
            await connection.execute(f"NOTIFY {self._opened().channel}")
            return change

        return self._blocking(f"{_BEGIN}; SELECT pg_advisory_xact_lock({self._opened().keys_lock})", job)

    # The audit trail

    async def add_audit(self, events: Sequence[AuditEvent]) -> None:
        """See `Store.add_audit`."""
        await self._transaction(_BEGIN, lambda connection: self._add_audit(connection, events))

    async def audit_after(
        self,
        after: int,
        *,
        limit: int,
        account_id: str | None = None,
        event: str | None = None,
        since: int = 0,
        until: int = MAX_AT,
    ) -> list[AuditEvent]:
        """See `Store.audit_after`."""
        which, wanted = trail_values(
            after=after, limit=limit, account_id=account_id, event=event, since=since, until=until
        )
        return [to_audit_event(row) for row in await self._rows(self._sql.audit_after[which], wanted)]

    async def audit_last(
        self, *, limit: int, account_id: str | None = None, event: str | None = None
    ) -> list[AuditEvent]:
        """See `Store.audit_last`."""
        which, wanted = trail_values(after=0, limit=limit, account_id=account_id, event=event, since=0, until=MAX_AT)
        return [to_audit_event(row) for row in reversed(await self._rows(self._sql.audit_last[which], wanted))]

    async def record_settings(self, decide: Callable[[AuditEvent | None], AuditEvent | None]) -> None:
        """See `Store.record_settings`."""

        async def job(connection: Connection) -> None:
            row = await _fetch_row(connection, self._sql.last_settings, {})
            await self._audit(connection, decide(to_audit_event(row) if row else None))

        # As rarely as keys change, so that their lock serves.
        await self._transaction(f"{_BEGIN}; SELECT pg_advisory_xact_lock({self._opened().keys_lock})", job)

    async def _audit(self, connection: Connection, event: AuditEvent | None, **fields: int | str) -> None:
        if event is not None:
            await _execute(connection, self._sql.add_audit, audit_values(event) | fields)

    async def _add_audit(self, connection: Connection, events: Sequence[AuditEvent]) -> None:
        if events:
            rows = [self._sql.add_audit.order(audit_values(event)) for event in events]
            await connection.executemany(self._sql.add_audit.text, rows)

    # Connections

    def _opened(self) -> Names:
        if self._names is None:
            raise StoreClosed(_NOT_OPEN)
        return self._names

    def _watching(self) -> Watch:
        names = self._opened()
        with self._guard:
            if self._watch is None:
                self._watch = Watch(self._url, names, self._sql)
            return self._watch

    async def _pool(self) -> Pool:
        self._opened()
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            pool = Pool(self._url, self._connections_per_loop)
            with self._guard:
                self._pools = {known: each for known, each in self._pools.items() if not known.is_closed()}
                self._pools[loop] = pool
            await pool.begin()
        return pool

    async def _row(self, statement: Numbered, values: Values) -> Row | None:
        return await self._ask(None, lambda connection: _fetch_row(connection, statement, values))

    async def _rows(self, statement: Numbered, values: Values) -> Sequence[Row]:
        return await self._ask(None, lambda connection: _fetch(connection, statement, values))

    async def _change_sessions(self, job: Job[T], *, alone: bool = False) -> T:
        """Run a job in a transaction that never overlaps one that ends any number of sessions; or in such a one."""
        lock = "pg_advisory_xact_lock{}({}, {})".format("" if alone else "_shared", *self._opened().sessions_lock)
        return await self._transaction(f"{_BEGIN}; SELECT {lock}", job)

    async def _change_session(self, statement: Numbered, values: Values) -> bool:
        """Run one statement that takes the same lock itself, and is a transaction; whether it did anything."""
        number, other = self._opened().sessions_lock
        locked = {**values, "lock_class": number, "lock_number": other}

        async def job(connection: Connection) -> bool:
            row = await _fetch_row(connection, statement, locked)
            return row is not None and bool(row[0])

        return await run(await self._pool(), None, job, self._wait_s, commits=True)

    async def _transaction(self, begin: str, job: Job[T]) -> T:
        return await self._ask(begin, job)

    async def _ask(self, begin: str | None, job: Job[T]) -> T:
        return await run(await self._pool(), begin, job, self._wait_s)

    def _blocking(self, begin: str, job: Job[T]) -> T:
        self._opened()

        async def work() -> T:
            pool = Pool(self._url, 1)
            await pool.begin()
            return await run(pool, begin, job, self._wait_s)

        return run_apart(work)


@contextlib.contextmanager
def _unique_address() -> Iterator[None]:
    try:
        yield
    except exceptions.UniqueViolationError as error:
        if error.constraint_name == "jotgate_accounts_email_identity_uq":
            raise EmailTaken(EMAIL_TAKEN) from None
        raise


async def _execute(connection: Connection, statement: Numbered, values: Values) -> str:
    """Run a statement; what it did, as the server puts it: "UPDATE 1"."""
    return await connection.execute(statement.text, *statement.order(values))


async def _fetch(connection: Connection, statement: Numbered, values: Values) -> Sequence[Row]:
    rows: Sequence[Row] = await connection.fetch(statement.text, *statement.order(values))
    return rows


async def _fetch_row(connection: Connection, statement: Numbered, values: Values) -> Row | None:
    row: Row | None = await connection.fetchrow(statement.text, *statement.order(values))
    return row


def _close(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """Close a loop's connections from outside of it; politely, where it runs and so can do it itself."""
    if loop.is_closed():
        return  # and so are they: see `Pool.begin`
    if not loop.is_running() or loop is _running_loop():
        pool.terminate()
        return
    with contextlib.suppress(Exception):  # the loop ended meanwhile, and took them with it
        asyncio.run_coroutine_threadsafe(pool.close(_CLOSE_S), loop).result(_CLOSE_S + 2)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
