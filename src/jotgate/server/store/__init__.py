"""The one door to the database: what the rest of the server may ask of it, and how it may be refused.

A store knows SQL, transactions, threads and migrations. It knows no HTTP, no token text and no cryptography, and asks
the rules for every decision. Each method that writes has committed durably when it returns.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from jotgate.core.errors import JotgateError, RequestRefused
from jotgate.core.revocations import Revocation
from jotgate.server.records import (
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
from jotgate.server.rules.keys import KeyChange, KeyEvent
from jotgate.server.rules.refresh import Outcome


class EmailTaken(RequestRefused):
    """An account with this e-mail address exists; addresses that differ only in case are the same."""

    code = "email_taken"
    status = 409


EMAIL_TAKEN: Final = "An account with this e-mail address exists."


class StoreError(JotgateError):
    """The database could not do it. Nothing was confirmed; whether anything was written is not known."""

    code = "store_failed"


class StoreBusy(StoreError):
    """Too much is waiting, or another process held the database for too long: try again shortly."""

    code = "busy"


class StoreClosed(StoreError):
    """The store was not opened, or is closed already."""

    code = "store_closed"


Approve = Callable[[Family, Account], None]
"""Raises when the family's client or account may not have what is asked for."""

DecideOnAccount = Callable[[Account], AccountChange | None]
"""Says what becomes of an account, or raises; None leaves everything as it is."""
DecideOnCode = Callable[[Code, Account | None], AccountChange]
"""Says what comes of a one-time code, or raises. The account is the code's own."""

AuditReuse = Callable[[Family], AuditEvent]
"""What the audit trail is told of a refresh token that was used again."""
MailReuse = Callable[[Family, Account], Sequence[OutgoingMail]]
"""What the owner of an account is told of it."""
AuditAccounts = Callable[[int], AuditEvent]
"""What the audit trail is told of so many accounts that were added."""
AuditKey = Callable[[KeyEvent], AuditEvent]
"""What the audit trail is told of a change of a key."""
MAX_AT: Final = 2**62
"""Later than any time."""


class Store(Protocol):
    """Accounts, sessions, keys, the revocation log and the audit trail.

    What changes something takes its line of the audit trail as `audit`, and writes it in the same transaction: neither
    is there without the other. Where nothing is changed, nothing is written.

    Every method raises `StoreBusy`, `StoreClosed` or another `StoreError` when the database cannot answer. The async
    methods never block the event loop, may be called from any loop and thread, and wait only for a bounded time.
    """

    def open(self) -> None:
        """Bring the schema up to date and open the database; done once per process however often it is called.

        Raises `SettingsError` when the place is unusable or the schema is newer than this version of jotgate.
        """

    async def close(self) -> None:
        """Finish what is queued, then close."""

    def close_now(self) -> None:
        """The same as `close`, for code without an event loop."""

    async def ping(self) -> None:
        """Return if a read and a (changeless) write get through, else raise."""

    async def add_account(self, account: Account, *, audit: AuditEvent | None = None) -> None:
        """Raises `EmailTaken`, also where the address is reserved; so does `use_code` where it makes an account."""

    async def add_accounts(self, accounts: Sequence[Account], *, audit: AuditAccounts | None = None) -> set[str]:
        """Add those whose address and id are not there yet, in one transaction; returns the ids of those added.

        Where any was, the line of `audit` is written.
        """

    async def account_by_email(self, email: str) -> Account | None:
        """The account of a normalised address, in whichever case it is written."""

    async def account_by_id(self, account_id: str) -> Account | None: ...

    async def list_accounts(self, *, limit: int, after: str | None = None) -> list[Account]:
        """At most `limit` accounts in the order of their addresses, from the first one past the address `after`."""

    async def grant_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """Add a scope (once) to the account of this address; the changed account, or None if there is none.

        The account's id is put into `audit` here.
        """

    async def revoke_scope(self, email: str, scope: str, *, audit: AuditEvent | None = None) -> Account | None:
        """Take a scope away; the changed account, or None if there is none. `audit` as in `grant_scope`."""

    async def change_account(
        self, account_id: str, decide: DecideOnAccount, *, now: int, until_s: int, session: bytes | None = None
    ) -> AccountChanged | None:
        """Let `decide` see an account, and do what it says, in one transaction that no other change of it overlaps.

        None where there is no such account, or nothing is to be done, or the family `session` that asks has ended.
        Sessions that end are in the log for `until_s` seconds. Raises `EmailTaken`, and what `decide` raises: then
        nothing has happened.
        """

    async def use_code(
        self, code_hash: bytes, decide: DecideOnCode, *, now: int, until_s: int
    ) -> AccountChanged | None:
        """Use a one-time code up, and do what `decide` says in the same transaction; None for an unknown code.

        Of many who use one at once, one does. What `decide` raises leaves the code as it was; so does `EmailTaken`.
        """

    async def code_by_hash(self, code_hash: bytes) -> Code | None: ...

    async def pending_signup(self, email: str, *, now: int) -> Code | None:
        """The newest sign-up with this address that waits to be confirmed."""

    async def is_reserved(self, email: str, *, now: int) -> bool:
        """Whether an account has had this address and may get it back: nobody else should have it until then."""

    async def queue(
        self, *, codes: Sequence[Code] = (), mails: Sequence[OutgoingMail] = (), audit: Sequence[AuditEvent] = ()
    ) -> None:
        """Write codes and mails about something that changes no account, in one transaction.

        Of the codes of one purpose and account (without an account, address) the last three stay, save those that undo.
        """

    async def claim_mails(self, claim: str, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        """Take up to `limit` mails that are due, for `lease_s` seconds; of many who do so at once each gets others."""

    async def mail_sent(self, mail_id: str, claim: str) -> None:
        """Forget a mail that was sent, or never will be. Nothing happens where the claim has passed to another."""

    async def mail_failed(self, mail_id: str, claim: str, *, due_at: int) -> None:
        """Let a mail be claimed again from `due_at` on."""

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
        """Change a password and end all sessions of the account, in one transaction; its credential version grows.

        None when hash or credential version are not the expected ones any more, since something was changed meanwhile,
        or where the family `session` that asks has ended.
        """

    async def replace_hash(self, account_id: str, *, expected_hash: str, password_hash: str) -> bool:
        """Store another hash of the same password; no session ends, and the credential version stays.

        False, and nothing is changed, when the account's hash is not the expected one any more, or there is no such
        account: a change of password in the meantime stands.
        """

    async def add_family(self, family: Family, *, expected_hash: str, audit: AuditEvent | None = None) -> bool:
        """Add a session; its `born_seq` is read here, in the same transaction.

        `audit` is about this session: its account, sid, address and device are the family's.

        False, and nothing is added, when the account's password is not the expected one any more, or there is no such
        account: a change of password ends every session that the old one began, however close together they come. Nor
        is a session added without a second factor (`mfa` among its methods) where the account has one by now.
        """

    async def family_by_sid(self, sid: str) -> Family | None: ...

    async def family_by_id(self, family_id: bytes) -> Family | None: ...

    async def families_of_account(self, account_id: str, *, now: int, limit: int = 1000) -> list[Family]:
        """The live sessions of an account, the one that was used last first."""

    async def confirm(self, family_id: bytes, generation: int) -> None:
        """Note that the holder presented `generation`: if it is still current, its predecessor's long grace is over."""

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
        """Let `rules.refresh.rotate` decide inside the writing transaction, and do what it says.

        What `approve` raises for a token that is good leaves everything as it was; for a reused one it is not asked.

        Returns the outcome with the family as it is now and its account; both are None when the family is unknown,
        which is `Ended`. `Reused` has ended the family and logged a revocation that holds for `until_s` seconds.
        """

    async def end_family(self, family_id: bytes, *, now: int, until_s: int, audit: AuditEvent | None = None) -> bool:
        """End a session and log its revocation, in one transaction; False when it had ended (or is unknown)."""

    async def revoke(
        self, target: Target, *, clock: Callable[[], int], until_s: int, audit: AuditEvent | None = None
    ) -> Revoked:
        """End the sessions concerned and log the revocation, in one transaction; verifiers heed it for `until_s`.

        What has ended already is not logged again. A `client` or `all` ends any number of sessions in one step: no
        refresh of theirs succeeds after it, and the second `at` of its entry, read from `clock` when nothing can come
        between any more, is not before that of any access token that their refreshes led to.
        """

    async def log_again(self, revocations: Sequence[Revocation], *, now: int, until_s: int) -> None:
        """End and log what was revoked before and is not in the log any more: the database came from an older copy.

        All of it is one transaction: a caller with very many ids asks for a thousand or so at a time.
        """

    async def sweep(self, after: bytes, *, now: int, limit: int, audit_keep_s: int | None = None) -> bytes:
        """Look at the next `limit` sessions behind the id `after`, and delete those dead for a day; so with the log.

        Of the audit trail the `limit` oldest lines go that are older than `audit_keep_s` and a day; none without it.

        Returns the id to go on from; empty when the end was reached.
        """

    def attend(self, log_id: str) -> LogHead:
        """Take part in the log, which gets the new `log_id` if no other process takes part. Blocks: for start-up.

        Who takes part remembers how far the log went, and would notice a database that was restored from an older copy.
        Where nobody did, nobody can vouch for that, and verifiers must not believe that nothing is missing.
        """

    async def renew_log(self, expected_log_id: str, log_id: str) -> None:
        """Give the log a new id, unless another process has done so already."""

    async def head(self) -> LogHead:
        """How far the log goes. Whatever is committed when this is called is in it."""

    async def revocations_after(self, seq: int, *, alive_at: int = 0, limit: int = 10_000) -> list[LogEntry]:
        """The log behind `seq`, in order, without entries that no longer matter at `alive_at`."""

    async def wait_changed(self, timeout_s: float) -> None:
        """Return as soon as another process may have written to the log, and in any case after `timeout_s`."""

    def load_keys(self) -> list[SealedKey]:
        """All keys of every issuer and purpose, oldest first. Blocks: for start-up and threads."""

    def change_keys(
        self,
        decide: Callable[[list[SealedKey]], KeyChange],
        *,
        now: int,
        until_s: int,
        audit: AuditKey | None = None,
    ) -> KeyChange:
        """Let `decide` see all keys, and write what it says, in one transaction that no other change of keys overlaps.

        A key that it revokes is in the log, too, for `until_s` seconds. What `decide` raises leaves everything as it
        was. Blocks, and waits for another process that changes keys: for start-up, threads and the command line.
        """

    async def add_audit(self, events: Sequence[AuditEvent]) -> None:
        """Write lines of the audit trail about what has changed nothing; all of them, or none."""

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
        """At most `limit` lines of the audit trail behind the id `after`, in the order of ids.

        Those of one account, of one name, and from `since` to before `until`, where that is asked for. On PostgreSQL a
        line with a smaller id may be committed later: who follows the trail looks back a while.
        """

    async def audit_last(
        self, *, limit: int, account_id: str | None = None, event: str | None = None
    ) -> list[AuditEvent]:
        """The `limit` newest lines of the audit trail, in the order of ids."""

    async def record_settings(self, decide: Callable[[AuditEvent | None], AuditEvent | None]) -> None:
        """Write what `decide` makes of the newest line about the server's settings, in one transaction.

        None writes nothing. Of many processes that start at once each sees what the ones before it wrote.
        """
