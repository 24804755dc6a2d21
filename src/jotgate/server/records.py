"""The frozen rows of the server: what the store keeps and what rules decide upon.

A record knows nothing of SQL, HTTP or the clock. Every `*_at` is Unix time in seconds. Those that hold a secret leave
it out of their `repr`, so that a log line or a traceback cannot carry it.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

import msgspec
from msgspec import Struct

from jotgate.core.errors import RequestRefused
from jotgate.core.feed import MAX_ID_CHARS
from jotgate.core.revocations import Kind, Revocation

# What has run out by the clock is kept this much longer: a clock that jumps ahead and back must not delete what counts.
CLOCK_MARGIN_S: Final = 86_400


class Totp(Struct, frozen=True, kw_only=True):
    """The secret that an account shares with an authenticator app (RFC 6238)."""

    sealed: bytes
    created_at: int
    version: int = 0  # the account's credential version since then: what was there before a change, and what came later
    used_at: int | None = None
    last_step: int = 0  # of the code that was used last: neither it nor an earlier one works again


class Passkey(Struct, frozen=True, kw_only=True):
    """A credential by which an authenticator proves that it is there (WebAuthn)."""

    id: bytes
    public_key: bytes  # as COSE writes it (RFC 9052)
    sign_count: int
    transports: tuple[str, ...]
    name: str  # as its owner calls it
    created_at: int
    version: int = 0  # see Totp
    used_at: int | None = None


class Factors(Struct, frozen=True, kw_only=True):
    """What an account proves itself with besides its password."""

    totp: Totp | None = None
    pending: Totp | None = None  # shown to its owner, who has not proved yet that an app has it
    recovery: tuple[bytes, ...] = ()  # digests of recovery codes; one that is used goes
    recovery_version: int = 0  # see Totp
    passkeys: tuple[Passkey, ...] = ()
    spent: tuple[tuple[bytes, int], ...] = ()  # challenges that were answered, and when they run out by themselves

    @property
    def asked_for(self) -> bool:
        """Whether a password alone is not enough."""
        return self.totp is not None or bool(self.passkeys)

    def __repr__(self) -> str:
        return f"Factors(totp={self.totp is not None}, passkeys={len(self.passkeys)}, recovery={len(self.recovery)})"


NO_FACTORS: Final = Factors()


class Account(Struct, frozen=True, kw_only=True):
    """A person who can log in."""

    id: str  # 128 random bits as 22 characters of base64url: the `sub` of tokens, tells nothing about the person
    email: str  # as `rules.accounts.normalise_email` returns it
    password_hash: str  # Argon2id in its own text form
    scopes: tuple[str, ...]  # what was granted; a session takes what is granted when it asks for a token
    created_at: int
    disabled_at: int | None = None  # nobody can log in to it since then, and it has no sessions
    credential_version: int = 0  # how often its password or address was changed, or a factor added
    factors: Factors = NO_FACTORS

    def __repr__(self) -> str:
        return f"Account(id={self.id!r}, scopes={self.scopes!r}, created_at={self.created_at})"


class Family(Struct, frozen=True, kw_only=True):
    """One login: one session, and the family of refresh tokens that descend from it (RFC 9700 §4.14.2)."""

    id: bytes  # 16 random bytes, known only to the holder of a refresh token
    sid: str  # the public session id, claim `sid`: 22 characters of base64url, not derived from `id`
    account_id: str
    client_id: str
    scopes: tuple[str, ...]  # granted at login
    generation: int = 0  # which of the family's tokens is the current one
    mac_kid: str  # the key that the current token is authenticated with, so that a replay rebuilds the same bytes
    retired: tuple[tuple[int, int], ...] = ()  # (generation, retired_at) of the last few, newest last
    confirmed: bool = False  # the current token has been presented: its holder certainly has it
    auth_time: int  # when the person last proved who they are
    methods: tuple[str, ...] = ("pwd",)  # how (RFC 8176: authentication method references)
    address: str = ""  # where the login came from: an IP address, as far as it is known
    device: str = ""  # what it came from, for people: "Firefox on Linux"
    created_at: int
    seen_at: int
    idle_ends_at: int  # moves with use, never past ends_at
    ends_at: int  # never moves
    ended_at: int | None = None
    born_seq: int = 0  # the log's last entry at the login: a later one that ends all sessions ends this one, too

    def __repr__(self) -> str:
        return f"Family(sid={self.sid!r}, generation={self.generation}, ended_at={self.ended_at})"


class SealedKey(Struct, frozen=True, kw_only=True):
    """A private key as the database holds it: encrypted under the master key (see `sealing`)."""

    kid: str
    issuer: str  # whose key it is: another issuer's server leaves it alone
    purpose: str  # "access", "feed" or "refresh"
    algorithm: str
    sealed: bytes  # empty once the key is revoked or removed
    thumbprint: str  # RFC 7638, of the public half or of the secret: the same material is never two keys
    created_at: int  # published since then
    ahead_s: int = 0  # and for so long, at least, before it signs
    activated_at: int | None = None  # signs since then
    retired_at: int | None = None  # only verifies since then
    revoked_at: int | None = None
    removed_at: int | None = None

    def __repr__(self) -> str:
        return f"SealedKey(kid={self.kid!r}, purpose={self.purpose!r}, algorithm={self.algorithm!r})"


class LogEntry(Struct, frozen=True, kw_only=True):
    """One entry of the log that makes verifiers refuse tokens before those expire."""

    seq: int  # the order of commits
    kind: Kind
    id: str  # what is revoked: a sid, jti, client id or kid; "" for `all`
    at: int
    until: int  # the last token concerned has expired by then

    @property
    def revocation(self) -> Revocation:
        """The same, as verifiers are told it."""
        return Revocation(self.kind, (self.id,) if self.id else (), self.at)


class LogHead(Struct, frozen=True):
    """How far the log goes, and which log it is: another id after the database has been restored from a copy."""

    log_id: str
    seq: int
    keys_version: int = 0
    """Another one after each change of the keys."""


class TargetRefused(RequestRefused):
    """Nothing can have such an id."""

    code = "invalid_target"
    status = 422


class Target(Struct, frozen=True):
    """What to revoke. `session` takes a sid, `account` an account's id, `token` a jti, `key` a kid."""

    kind: Literal["session", "account", "client", "all", "token", "key"]
    id: str = ""

    def __post_init__(self) -> None:
        # A message of the feed that names such an id would be refused whole, by every verifier, or could not be made.
        if self.kind != "all" and not (1 <= len(self.id) <= MAX_ID_CHARS and self.id.isprintable()):
            raise TargetRefused(f"What is revoked has an id of 1 to {MAX_ID_CHARS} printable characters.")


class Revoked(Struct, frozen=True):
    """What a revocation did. Sessions that a `client` or `all` entry ends are not counted: they may be millions."""

    entries: tuple[LogEntry, ...] = ()


CodePurpose = Literal["signup", "reset", "change_email", "undo_email", "undo_factor", "undo_password"]
UNDOING: Final[tuple[CodePurpose, ...]] = ("undo_email", "undo_factor", "undo_password")
"""Those by which the owner of an account takes back what somebody else has done to it."""


class Code(Struct, frozen=True, kw_only=True):
    """A one-time code that a mail carries. The row holds no more of it than its digest."""

    hash: bytes  # SHA-256 of the code, which has 256 random bits: nothing slower is needed
    purpose: CodePurpose
    account_id: str = ""  # whose it is; "" for an account that is still to be made
    email: str  # what it is about: the address that using it proves, or brings back
    password_hash: str = ""  # whose password goes with the code: that of the sign-up, or of before what it takes back
    credential_version: int = 0  # the account's when the code was made: what it was made for may be over by now
    created_at: int
    expires_at: int

    def __repr__(self) -> str:
        return f"Code(purpose={self.purpose!r}, account_id={self.account_id!r}, expires_at={self.expires_at})"


class OutgoingMail(Struct, frozen=True, kw_only=True):
    """A mail that is to be sent: to whom and with what is sealed, since it may carry a code."""

    id: str
    kind: str
    sealed: bytes
    created_at: int
    due_at: int

    def __repr__(self) -> str:
        return f"OutgoingMail(id={self.id!r}, kind={self.kind!r})"


class QueuedMail(Struct, frozen=True, kw_only=True):
    """A mail that somebody has claimed, to send it: nobody else does until the lease of the claim is over."""

    id: str
    claim: str
    kind: str
    sealed: bytes
    attempts: int  # this one included
    created_at: int

    def __repr__(self) -> str:
        return f"QueuedMail(id={self.id!r}, kind={self.kind!r}, attempts={self.attempts})"


AuditName = Literal[
    "signup_requested",
    "account_created",
    "login",
    "login_failed",
    "logout",
    "logout_everywhere",
    "session_revoked",
    "refresh_reused",
    "password_changed",
    "password_change_refused",
    "password_reset_requested",
    "password_reset",
    "email_change_requested",
    "email_changed",
    "email_change_undone",
    "second_factor_failed",
    "factor_added",
    "factor_removed",
    "factor_undone",
    "password_change_undone",
    "undo_refused",
    "recovery_code_used",
    "recovery_codes_made",
    "account_deleted",
    "account_disabled",
    "account_enabled",
    "account_imported",
    "revoked",
    "scope_granted",
    "scope_revoked",
    "key_made",
    "key_activated",
    "key_retired",
    "key_removed",
    "key_revoked",
    "key_imported",
    "settings_changed",
]
AUDIT_NAMES: Final[tuple[AuditName, ...]] = get_args(AuditName)
"""What is audited. Names stay: people's searches and alarms are made of them."""
Actor = Literal["account", "anonymous", "cli", "server"]

MAX_DETAIL_CHARS: Final = 16_384
_MAX_TEXT_CHARS: Final = 256


class AuditEvent(Struct, frozen=True, kw_only=True):
    """One line of the audit trail: ids and codes only, never a secret, an e-mail address, or what a stranger typed."""

    id: int = 0  # given by the database; it grows, but on PostgreSQL not in the order of commits
    at: int
    event: AuditName
    actor: Actor  # who did it: the owner of the account, somebody who has proved nothing, an operator, or the server
    account_id: str = ""  # whose account it concerns
    sid: str = ""  # which session
    address: str = ""  # where the request came from: an IP address, as far as it is known
    device: str = ""  # as `rules.devices.describe_device` names it
    request_id: str = ""  # the same as in the log and in the answer
    detail: str = ""  # a JSON object, as `audit_detail` makes it, or nothing


def audit_detail(**members: object) -> str:
    """Return the text of a detail: long texts are cut, and what is too long as a whole says only that it was."""
    text = msgspec.json.encode({name: _cut(value) for name, value in members.items()}).decode()
    return text if len(text) <= MAX_DETAIL_CHARS else '{"cut":true}'


def _cut(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT_CHARS else value[: _MAX_TEXT_CHARS - 1] + "…"
    if isinstance(value, Mapping):
        return {str(name): _cut(each) for name, each in value.items()}
    return [_cut(each) for each in value] if isinstance(value, list | tuple) else value


class AccountChange(Struct, frozen=True, kw_only=True):
    """What a decision about an account comes to. All of it happens in one transaction, or nothing."""

    account: Account | None  # as it is from now on; None where there is none any more
    end_sessions: bool = False
    void: tuple[CodePurpose, ...] = ()  # codes of the account, or of its address, that must not work any more
    void_after: int = -1  # of those only what has a later credential version
    codes: tuple[Code, ...] = ()
    mails: tuple[OutgoingMail, ...] = ()
    audit: tuple[AuditEvent, ...] = ()


class AccountChanged(Struct, frozen=True):
    """What a change of an account did."""

    account: Account | None
    """As it is now."""
    revoked: Revoked = Revoked()
