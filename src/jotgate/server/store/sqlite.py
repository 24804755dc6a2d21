"""The store on SQLite: the embedded default, durable, and without anything to set up.

One writer thread commits many requests' changes in one transaction; readers have connections of their own and see every
commit that was answered. Nothing here blocks an event loop, except the methods that say so.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy.dialects import sqlite

from jotgate.core.revocations import Kind, Revocation
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
from jotgate.server.store.attendance import Attendance
from jotgate.server.store.lanes import Job, Lane, WriterLane, as_store_error, no_fork_meanwhile
from jotgate.server.store.rows import (
    CROWDED,
    CROWDED_OUT_AT_ONCE,
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
from jotgate.server.store.schema import accounts
from jotgate.server.store.sqlite_schema import connect, prepare_database
from jotgate.server.store.statements import Statements, named

T = TypeVar("T")

_READERS = 2
_QUEUED_WRITES = 4096  # about a third of a second's worth: beyond that, "busy" is the more useful answer
_QUEUED_READS = 4096
_LOOK_EVERY_S = 0.05  # how soon another process's commit is noticed: a look takes microseconds
_WAIT_S = 15.0  # longer than the busy timeout, so that a lock held elsewhere is told as such


class SqliteStore:
    """A `Store` in one SQLite file, which is made with mode 0600 (and its folder with 0700) if it is not there."""

    def __init__(
        self,
        path: Path,
        *,
        wait_s: float = _WAIT_S,
        queued_writes: int = _QUEUED_WRITES,
        queued_reads: int = _QUEUED_READS,
    ) -> None:
        self._path = path
        self._wait_s = wait_s
        self._queued_writes = queued_writes
        self._queued_reads = queued_reads
        compiled = named(sqlite.dialect(paramstyle="named"))
        self._sql = Statements(compiled)
        self._add_if_new = compiled(sqlite.insert(accounts).on_conflict_do_nothing().returning(accounts.c.id))
        self._writer: WriterLane | None = None
        self._readers: list[Lane] = []
        self._watcher: Lane | None = None
        self._seen_version: int | None = None
        self._attending: Attendance | None = None

    # Opening and closing

    def open(self) -> None:
        """See `Store.open`."""
        if self._writer is not None:
            return
        with no_fork_meanwhile():
            prepare_database(self._path)
        self._writer = WriterLane("jotgate-writer", self._connect, capacity=self._queued_writes)
        self._readers = [
            Lane(f"jotgate-reader-{n}", self._connect_to_read, capacity=self._queued_reads) for n in range(_READERS)
        ]
        self._watcher = Lane("jotgate-watcher", self._connect_to_read, capacity=self._queued_reads)

    async def close(self) -> None:
        """See `Store.close`."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """See `Store.close_now`."""
        lanes = [*self._readers, self._watcher, self._writer]
        self._writer, self._readers, self._watcher = None, [], None
        for lane in lanes:
            if lane is not None:
                lane.close()
        if self._attending is not None:
            self._attending.end()
            self._attending = None

    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._read(lambda connection: connection.execute(self._sql.head).fetchone())
        await self._write(lambda _: None)

    # Accounts

    async def add_account(self, account: Account, *, audit: AuditEvent | None = None) -> None:
        """See `Store.add_account`."""
        values = account_values(account)

        def job(connection: sqlite3.Connection) -> None:
            with _unique_address():
                connection.execute(self._sql.add_account, values)
            self._check_reservation(connection, account)
            self._audit(connection, audit)

        await self._write(job)

    async def add_accounts(self, accounts: Sequence[Account], *, audit: AuditAccounts | None = None) -> set[str]:
        """See `Store.add_accounts`."""
        rows = [account_values(account) for account in accounts]

        def job(connection: sqlite3.Connection) -> set[str]:
            added = {each[0] for row in rows for each in connection.execute(self._add_if_new, row)}
            if added and audit is not None:
                self._audit(connection, audit(len(added)))
            return added

        return await self._write(job)

    async def account_by_email(self, email: str) -> Account | None:
        """See `Store.account_by_email`."""
        identity = email_identity(email)
        return await self._read(lambda connection: self._account_by_identity(connection, identity))

    async def account_by_id(self, account_id: str) -> Account | None:
        """See `Store.account_by_id`."""

        return await self._read(lambda connection: self._account_by_id(connection, account_id))

    async def list_accounts(self, *, limit: int, after: str | None = None) -> list[Account]:
        """See `Store.list_accounts`."""
        start = {"limit": limit, "after": email_identity(after or "")}
        return await self._read(
            lambda connection: [to_account(row) for row in connection.execute(self._sql.list_accounts, start)]
        )

    async def grant_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """See `Store.grant_scope`."""
        identity = email_identity(email)

        def job(connection: sqlite3.Connection) -> Account | None:
            account = self._account_by_identity(connection, identity)
            if account is None or scope in account.scopes:
                return account
            return self._set_scopes(connection, account, (*account.scopes, scope), audit)

        return await self._write(job)

    async def revoke_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """See `Store.revoke_scope`."""
        identity = email_identity(email)

        def job(connection: sqlite3.Connection) -> Account | None:
            account = self._account_by_identity(connection, identity)
            if account is None or scope not in account.scopes:
                return account
            kept = tuple(each for each in account.scopes if each != scope)
            return self._set_scopes(connection, account, kept, audit)

        return await self._write(job)

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

        def job(connection: sqlite3.Connection) -> Revoked | None:
            if session is not None and not self._is_alive(connection, session):
                return None
            if connection.execute(self._sql.set_password, change).fetchone() is None:
                return None
            self._add_codes(connection, codes)
            self._add_mails(connection, mails)
            self._audit(connection, audit)
            return self._revoke(connection, target, now=now, until_s=until_s)

        return await self._write(job)

    async def replace_hash(self, account_id: str, *, expected_hash: str, password_hash: str) -> bool:
        """See `Store.replace_hash`."""
        change = {"account_id": account_id, "expected_hash": expected_hash, "password_hash": password_hash}
        return await self._write(
            lambda connection: connection.execute(self._sql.replace_hash, change).fetchone() is not None
        )

    async def change_account(
        self, account_id: str, decide: DecideOnAccount, *, now: int, until_s: int, session: bytes | None = None
    ) -> AccountChanged | None:
        """See `Store.change_account`."""

        def job(connection: sqlite3.Connection) -> AccountChanged | None:
            account = self._account_by_id(connection, account_id)
            if session is not None and not self._is_alive(connection, session):
                return None
            change = None if account is None else decide(account)
            return None if change is None else self._apply(connection, account, change, now=now, until_s=until_s)

        return await self._write(job)

    async def use_code(
        self, code_hash: bytes, decide: DecideOnCode, *, now: int, until_s: int
    ) -> AccountChanged | None:
        """See `Store.use_code`."""

        def job(connection: sqlite3.Connection) -> AccountChanged | None:
            row = connection.execute(self._sql.use_code, {"hash": code_hash}).fetchone()
            if row is None:
                return None
            code = to_code(row)
            account = self._account_by_id(connection, code.account_id)
            return self._apply(connection, account, decide(code, account), now=now, until_s=until_s)

        return await self._write(job)

    async def code_by_hash(self, code_hash: bytes) -> Code | None:
        """See `Store.code_by_hash`."""

        def job(connection: sqlite3.Connection) -> Code | None:
            row = connection.execute(self._sql.code_by_hash, {"hash": code_hash}).fetchone()
            return to_code(row) if row else None

        return await self._read(job)

    async def pending_signup(self, email: str, *, now: int) -> Code | None:
        """See `Store.pending_signup`."""
        wanted = {"email_identity": email_identity(email), "now": now}

        def job(connection: sqlite3.Connection) -> Code | None:
            row = connection.execute(self._sql.pending_signup, wanted).fetchone()
            return to_code(row) if row else None

        return await self._read(job)

    async def is_reserved(self, email: str, *, now: int) -> bool:
        """See `Store.is_reserved`."""
        wanted = {"email_identity": email_identity(email), "now": now}
        return await self._read(
            lambda connection: connection.execute(self._sql.reservation, wanted).fetchone() is not None
        )

    async def queue(
        self, *, codes: Sequence[Code] = (), mails: Sequence[OutgoingMail] = (), audit: Sequence[AuditEvent] = ()
    ) -> None:
        """See `Store.queue`."""

        def job(connection: sqlite3.Connection) -> None:
            self._add_codes(connection, codes)
            self._add_mails(connection, mails)
            self._add_audit(connection, audit)

        await self._write(job)

    def _apply(
        self, connection: sqlite3.Connection, before: Account | None, change: AccountChange, *, now: int, until_s: int
    ) -> AccountChanged:
        after, revoked = change.account, Revoked()
        known = before or after
        if known is None:
            raise ValueError("a change of no account")
        for purpose in change.void:
            voided = siblings(purpose, known.id, known.email) | {"void_after": change.void_after}
            connection.execute(self._sql.void_codes, voided)
        if before is not None and (change.end_sessions or after is None):
            revoked = self._revoke(connection, Target("account", before.id), now=now, until_s=until_s)
        with _unique_address():
            if after is None:
                connection.execute(self._sql.delete_families_of_account, {"account_id": known.id})
                connection.execute(self._sql.delete_account, {"account_id": known.id})
            elif before is None:
                connection.execute(self._sql.add_account, account_values(after))
                self._check_reservation(connection, after)
            elif before != after:
                connection.execute(self._sql.replace_account, account_values(after) | {"account_id": after.id})
        self._add_codes(connection, change.codes)
        self._add_mails(connection, change.mails)
        self._add_audit(connection, change.audit)
        return AccountChanged(after, revoked)

    def _add_codes(self, connection: sqlite3.Connection, codes: Sequence[Code]) -> None:
        for code in codes:
            connection.execute(self._sql.add_code, code_values(code))
            if code.purpose in CROWDED:
                connection.execute(self._sql.crowd_out_codes, code_values(code) | {"limit": CROWDED_OUT_AT_ONCE})

    def _add_mails(self, connection: sqlite3.Connection, mails: Sequence[OutgoingMail]) -> None:
        connection.executemany(self._sql.add_mail, list(map(mail_values, mails)))

    def _is_alive(self, connection: sqlite3.Connection, family_id: bytes) -> bool:
        return connection.execute(self._sql.family_is_alive, {"family_id": family_id}).fetchone() is not None

    def _check_reservation(self, connection: sqlite3.Connection, added: Account) -> None:
        """Refuse an address that somebody may get back."""
        wanted = {"email_identity": email_identity(added.email), "now": added.created_at}
        if connection.execute(self._sql.reservation, wanted).fetchone() is not None:
            raise EmailTaken(EMAIL_TAKEN)

    def _account_by_id(self, connection: sqlite3.Connection, account_id: str) -> Account | None:
        row = connection.execute(self._sql.account_by_id, {"account_id": account_id}).fetchone()
        return to_account(row) if row else None

    def _account_by_identity(self, connection: sqlite3.Connection, identity: str) -> Account | None:
        row = connection.execute(self._sql.account_by_identity, {"email_identity": identity}).fetchone()
        return to_account(row) if row else None

    def _set_scopes(
        self, connection: sqlite3.Connection, account: Account, scopes: tuple[str, ...], audit: AuditEvent | None
    ) -> Account:
        connection.execute(self._sql.set_scopes, {"account_id": account.id, "scopes": " ".join(scopes)})
        self._audit(connection, audit, account_id=account.id)
        return msgspec.structs.replace(account, scopes=scopes)

    # Sessions

    async def add_family(self, family: Family, *, expected_hash: str, audit: AuditEvent | None = None) -> bool:
        """See `Store.add_family`."""
        values = family_values(family) | {"expected_hash": expected_hash}
        dead = {"account_id": family.account_id, "dead_since": family.created_at - CLOCK_MARGIN_S}

        def job(connection: sqlite3.Connection) -> bool:
            added = connection.execute(self._sql.add_family, values).rowcount == 1
            if added:
                self._audit(connection, audit)
            # Each login takes a few of the account's dead sessions along: what an account leaves behind stays bounded.
            connection.execute(self._sql.prune_families, dead)
            return added

        return await self._write(job)

    async def family_by_sid(self, sid: str) -> Family | None:
        """See `Store.family_by_sid`."""

        def job(connection: sqlite3.Connection) -> Family | None:
            row = connection.execute(self._sql.family_by_sid, {"sid": sid}).fetchone()
            return to_family(row) if row else None

        return await self._read(job)

    async def family_by_id(self, family_id: bytes) -> Family | None:
        """See `Store.family_by_id`."""

        def job(connection: sqlite3.Connection) -> Family | None:
            row = connection.execute(self._sql.family_by_id, {"family_id": family_id}).fetchone()
            return to_family(row) if row else None

        return await self._read(job)

    async def families_of_account(self, account_id: str, *, now: int, limit: int = 1000) -> list[Family]:
        """See `Store.families_of_account`."""
        wanted = {"account_id": account_id, "now": now, "limit": limit}
        return await self._read(
            lambda connection: [to_family(row) for row in connection.execute(self._sql.families_of_account, wanted)]
        )

    async def confirm(self, family_id: bytes, generation: int) -> None:
        """See `Store.confirm`."""
        presented = {"family_id": family_id, "expected_generation": generation, "confirmed": True}
        await self._write(_execute(self._sql.confirm_family, presented))

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

        def job(connection: sqlite3.Connection) -> tuple[Outcome, Family | None, Account | None]:
            row = connection.execute(self._sql.family_with_account, {"family_id": family_id}).fetchone()
            if row is None:
                return Ended(), None, None
            family, account = to_family_and_account(row)
            outcome = refresh.rotate(family, presented_generation, now=now, mac_kid=mac_kid, idle_s=idle_s)
            if approve is not None and isinstance(outcome, Rotated | Replayed):
                approve(family, account)
            match outcome:
                case Rotated(successor):
                    self._advance(connection, family, successor)
                    family = successor
                case Reused():
                    told = None if audit_reuse is None else audit_reuse(family)
                    self._end(connection, family_id, now=now, until_s=until_s, audit=told)
                    self._add_mails(connection, () if mail_reuse is None else mail_reuse(family, account))
                    family = msgspec.structs.replace(family, ended_at=now)
                case Replayed() | Ended():
                    pass
            return outcome, family, account

        return await self._write(job)

    async def end_family(self, family_id: bytes, *, now: int, until_s: int, audit: AuditEvent | None = None) -> bool:
        """See `Store.end_family`."""
        return await self._write(
            lambda connection: self._end(connection, family_id, now=now, until_s=until_s, audit=audit)
        )

    def _advance(self, connection: sqlite3.Connection, family: Family, successor: Family) -> None:
        swapped = connection.execute(self._sql.advance_family, advance_values(family, successor))
        if swapped.rowcount != 1:  # the family was read in this very transaction, so this is a fault, not a race
            raise StoreError("The database lost a session between two statements of one transaction.")

    def _end(
        self,
        connection: sqlite3.Connection,
        family_id: bytes,
        *,
        now: int,
        until_s: int,
        audit: AuditEvent | None = None,
    ) -> bool:
        ended = connection.execute(self._sql.end_family, {"family_id": family_id, "now": now}).fetchone()
        if ended is None:
            return False
        self._audit(connection, audit)
        self._append(connection, "session", ended, at=now, until_s=until_s)
        return True

    # The revocation log

    async def revoke(
        self, target: Target, *, clock: Callable[[], int], until_s: int, audit: AuditEvent | None = None
    ) -> Revoked:
        """See `Store.revoke`."""

        def job(connection: sqlite3.Connection) -> Revoked:
            # The writer does one thing after the other, so that the clock is read when nothing can come between.
            done = self._revoke(connection, target, now=clock(), until_s=until_s)
            if done.entries:
                self._audit(connection, audit, at=done.entries[0].at)
            return done

        return await self._write(job)

    def _revoke(self, connection: sqlite3.Connection, target: Target, *, now: int, until_s: int) -> Revoked:
        match target.kind:
            case "session":
                ended = connection.execute(self._sql.end_family_by_sid, {"sid": target.id, "now": now}).fetchall()
            case "account":
                mine = {"account_id": target.id, "now": now}
                ended = connection.execute(self._sql.end_families_of_account, mine).fetchall()
            case "client" | "all":
                entries = self._append(connection, target.kind, [target.id], at=now, until_s=until_s)
                self._cut(connection, entries[0])
                return Revoked(entries)
            case "token" | "key":
                return Revoked(self._append(connection, target.kind, [target.id], at=now, until_s=until_s))
        return Revoked(self._append(connection, "session", [sid for (sid,) in ended], at=now, until_s=until_s))

    async def log_again(self, revocations: Sequence[Revocation], *, now: int, until_s: int) -> None:
        """See `Store.log_again`."""

        def job(connection: sqlite3.Connection) -> None:
            for each in revocations:
                if each.kind == "session":
                    for sid in each.ids:
                        connection.execute(self._sql.end_family_by_sid, {"sid": sid, "now": now})
                at = each.at if each.kind in ("client", "all") else now
                entries = self._append(connection, each.kind, each.ids or ("",), at=at, until_s=until_s)
                if each.kind in ("client", "all"):
                    for entry in entries:
                        self._cut(connection, entry)

        await self._write(job)

    def _append(
        self, connection: sqlite3.Connection, kind: Kind, ids: Sequence[str], *, at: int, until_s: int
    ) -> tuple[LogEntry, ...]:
        if not ids:
            return ()
        (last,) = connection.execute(self._sql.advance_head, {"count": len(ids)}).fetchone()
        entries = log_entries(kind, ids, last, at=at, until_s=until_s)
        connection.executemany(self._sql.add_revocation, [msgspec.structs.asdict(entry) for entry in entries])
        # Each entry takes a few dead ones along, so that the log stays as long as a day's worth.
        connection.execute(self._sql.prune_revocations, {"dead_since": at - CLOCK_MARGIN_S, "limit": 8 * len(ids)})
        return entries

    def _cut(self, connection: sqlite3.Connection, entry: LogEntry) -> None:
        cut = {"seq": entry.seq, "at": entry.at}
        named = {"cut_kind": entry.kind, "cut_id": entry.id}
        if connection.execute(self._sql.move_cut, cut | named).fetchone() is None:
            connection.execute(self._sql.add_cut, cut | {"kind": entry.kind, "id": entry.id})

    async def sweep(self, after: bytes, *, now: int, limit: int, audit_keep_s: int | None = None) -> bytes:
        """See `Store.sweep`."""
        dead_since = now - CLOCK_MARGIN_S

        def job(connection: sqlite3.Connection) -> bytes:
            connection.execute(self._sql.prune_revocations, {"dead_since": dead_since, "limit": limit})
            if audit_keep_s is not None:
                old = {"audit_dead_since": dead_since - audit_keep_s, "limit": limit}
                connection.execute(self._sql.prune_audit, old)
            connection.execute(self._sql.prune_codes, {"dead_since": dead_since, "limit": limit})
            step = connection.execute(self._sql.sweep_step, {"after": after, "limit": limit}).fetchall()
            if not step:
                return b""
            last: bytes = step[-1][0]
            connection.execute(self._sql.sweep_families, {"after": after, "last": last, "dead_since": dead_since})
            return last if len(step) == limit else b""

        return await self._write(job)

    def attend(self, log_id: str) -> LogHead:
        """See `Store.attend`."""
        with self._blocking() as connection:
            try:
                attending, alone = Attendance.begin(self._path, wait_s=self._wait_s)
            except TimeoutError:
                raise StoreBusy("Another process that starts has held the database for too long.") from None
            except OSError as error:
                raise StoreError(f"The lock file beside the database cannot be used: {error.strerror}.") from None
            try:
                head = LogHead(*connection.execute(self._sql.head).fetchone())
                if alone:
                    connection.execute(self._sql.renew_log, {"expected_log_id": head.log_id, "log_id": log_id})
                    head = LogHead(log_id, head.seq, head.keys_version)
            except BaseException:
                attending.end()  # or whoever tries again, here or elsewhere, would wait for us
                raise
        attending.let_others_in()
        self._attending = attending
        return head

    async def renew_log(self, expected_log_id: str, log_id: str) -> None:
        """See `Store.renew_log`."""
        await self._write(_execute(self._sql.renew_log, {"expected_log_id": expected_log_id, "log_id": log_id}))

    async def head(self) -> LogHead:
        """See `Store.head`."""
        return await self._read(lambda connection: LogHead(*connection.execute(self._sql.head).fetchone()))

    async def revocations_after(self, seq: int, *, alive_at: int = 0, limit: int = 10_000) -> list[LogEntry]:
        """See `Store.revocations_after`."""
        wanted = {"after": seq, "alive_at": alive_at, "limit": limit}
        return await self._read(
            lambda connection: [to_log_entry(row) for row in connection.execute(self._sql.revocations_after, wanted)]
        )

    async def wait_changed(self, timeout_s: float) -> None:
        """See `Store.wait_changed`."""
        deadline = time.monotonic() + timeout_s
        while True:
            # Changes with every commit of another connection, the writer's here included (sqlite.org/pragma.html).
            version = await self._ask(
                self._watcher, lambda connection: connection.execute("PRAGMA data_version").fetchone()[0]
            )
            if version != self._seen_version:
                self._seen_version = version
                return
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.sleep(min(_LOOK_EVERY_S, left_s))

    # Mails

    async def claim_mails(self, claim: str, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        """See `Store.claim_mails`."""
        wanted = {"new_claim": claim, "now": now, "limit": limit, "leased_until": now + lease_s}
        # Looked for by a reader first: a transaction that changes nothing waits for the disk, too.
        due = await self._read(lambda connection: connection.execute(self._sql.mail_is_due, {"now": now}).fetchone())
        if due is None:
            return []
        return await self._write(
            lambda connection: [to_queued_mail(row) for row in connection.execute(self._sql.claim_mails, wanted)]
        )

    async def mail_sent(self, mail_id: str, claim: str) -> None:
        """See `Store.mail_sent`."""
        await self._write(_execute(self._sql.delete_mail, {"mail_id": mail_id, "held_claim": claim}))

    async def mail_failed(self, mail_id: str, claim: str, *, due_at: int) -> None:
        """See `Store.mail_failed`."""
        held = {"mail_id": mail_id, "held_claim": claim, "due_at": due_at}
        await self._write(_execute(self._sql.postpone_mail, held))

    # Keys

    def load_keys(self) -> list[SealedKey]:
        """See `Store.load_keys`."""
        with self._blocking() as connection:
            return [to_key(row) for row in connection.execute(self._sql.load_keys)]

    def change_keys(
        self,
        decide: Callable[[list[SealedKey]], KeyChange],
        *,
        now: int,
        until_s: int,
        audit: AuditKey | None = None,
    ) -> KeyChange:
        """See `Store.change_keys`."""
        with self._blocking() as connection:  # which is closed at the end: without a COMMIT nothing has happened
            connection.execute("PRAGMA secure_delete=ON")  # a private key that goes is overwritten
            connection.execute("BEGIN IMMEDIATE")
            change = decide([to_key(row) for row in connection.execute(self._sql.load_keys)])
            if change == KeyChange():
                return change
            for kid in (*change.forgotten, *(key.kid for key in change.keys)):
                connection.execute(self._sql.delete_key, {"kid": kid})
            connection.executemany(self._sql.add_key, [msgspec.structs.asdict(key) for key in change.keys])
            connection.execute(self._sql.advance_keys_version)
            if audit is not None:
                self._add_audit(connection, [audit(each) for each in change.events])
            self._append(connection, "key", change.revoked, at=now, until_s=until_s)
            connection.execute("COMMIT")
            # What was there before is in the database file until a checkpoint, and in the write-ahead log after it. One
            # that has to wait for a reader is left to later ones.
            connection.execute("PRAGMA busy_timeout=200")
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return change

    # The audit trail

    async def add_audit(self, events: Sequence[AuditEvent]) -> None:
        """See `Store.add_audit`."""
        await self._write(lambda connection: self._add_audit(connection, events))

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
        sql = self._sql.audit_after[which]
        return await self._read(lambda connection: [to_audit_event(row) for row in connection.execute(sql, wanted)])

    async def audit_last(
        self, *, limit: int, account_id: str | None = None, event: str | None = None
    ) -> list[AuditEvent]:
        """See `Store.audit_last`."""
        which, wanted = trail_values(after=0, limit=limit, account_id=account_id, event=event, since=0, until=MAX_AT)
        sql = self._sql.audit_last[which]
        rows = await self._read(lambda connection: connection.execute(sql, wanted).fetchall())
        return [to_audit_event(row) for row in reversed(rows)]

    async def record_settings(self, decide: Callable[[AuditEvent | None], AuditEvent | None]) -> None:
        """See `Store.record_settings`."""

        def job(connection: sqlite3.Connection) -> None:
            row = connection.execute(self._sql.last_settings).fetchone()
            self._audit(connection, decide(to_audit_event(row) if row else None))

        await self._write(job)

    def _audit(self, connection: sqlite3.Connection, event: AuditEvent | None, **fields: int | str) -> None:
        if event is not None:
            connection.execute(self._sql.add_audit, audit_values(event) | fields)

    def _add_audit(self, connection: sqlite3.Connection, events: Sequence[AuditEvent]) -> None:
        connection.executemany(self._sql.add_audit, [audit_values(event) for event in events])

    # Connections

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path)

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = connect(self._path)
        connection.execute("PRAGMA query_only=ON")
        return connection

    @contextmanager
    def _blocking(self) -> Iterator[sqlite3.Connection]:
        if self._writer is None:
            raise StoreClosed("The database is not open.")
        try:
            with no_fork_meanwhile(), closing(self._connect()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise as_store_error(error) from error

    async def _write(self, job: Job[T]) -> T:
        return await self._ask(self._writer, job)

    async def _read(self, job: Job[T]) -> T:
        return await self._ask(min(self._readers, key=lambda lane: lane.waiting, default=None), job)

    async def _ask(self, lane: Lane | None, job: Job[T]) -> T:
        if lane is None:
            raise StoreClosed("The database is not open.")
        answer = lane.ask(job)
        try:
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError:
            raise StoreBusy("The database did not answer in time.") from None


@contextmanager
def _unique_address() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        if "email_identity" in str(error):
            raise EmailTaken(EMAIL_TAKEN) from None
        raise


def _execute(sql: str, values: Values) -> Job[None]:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute(sql, values)

    return job
