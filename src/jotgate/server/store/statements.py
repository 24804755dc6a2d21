"""Every statement the stores run, written once in SQLAlchemy Core and compiled once per dialect.

Compiled statements are plain SQL text, run on the driver itself: building and compiling a statement anew costs several
times what SQLite takes to answer it. Nothing here runs a statement or knows a driver.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Dialect,
    Insert,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningUpdate

from jotgate.server.records import Account, AuditEvent, Code, Family, LogEntry, QueuedMail, SealedKey
from jotgate.server.store.schema import (
    accounts,
    audit,
    codes,
    cuts,
    families,
    keys,
    outbox,
    revocation_head,
    revocations,
)

_ACCOUNT = tuple(accounts.c[name] for name in Account.__struct_fields__)
_KEY = tuple(keys.c[name] for name in SealedKey.__struct_fields__)
_LOG = tuple(revocations.c[name] for name in LogEntry.__struct_fields__)
_CODE = tuple(codes.c[name] for name in Code.__struct_fields__)
_QUEUED = tuple(outbox.c[name] for name in QueuedMail.__struct_fields__)
_AUDIT = tuple(audit.c[name] for name in AuditEvent.__struct_fields__)
_THIS_FAMILY = families.c.id == bindparam("family_id")
_CUT_OFF = and_(
    cuts.c.seq > families.c.born_seq,
    or_(
        cuts.c.kind == literal_column("'all'"),
        and_(cuts.c.kind == literal_column("'client'"), cuts.c.id == families.c.client_id),
    ),
)
_STILL_ALIVE = and_(families.c.ended_at.is_(None), ~exists().where(_CUT_OFF).correlate(families))
_ENDED_AT = func.coalesce(
    families.c.ended_at, select(func.min(cuts.c.at)).where(_CUT_OFF).correlate(families).scalar_subquery()
).label("ended_at")
_FAMILY = tuple(_ENDED_AT if name == "ended_at" else families.c[name] for name in Family.__struct_fields__)


# What one of the dialects varies, before it is compiled.
ACCOUNT_BY_IDENTITY: Final = select(*_ACCOUNT).where(accounts.c.email_identity == bindparam("email_identity"))
ACCOUNT_BY_ID: Final = select(*_ACCOUNT).where(accounts.c.id == bindparam("account_id"))
# Nothing is added when the password is not the one that was checked: it has been changed meanwhile.
NEW_FAMILY: Final = select(
    *(bindparam(column.name, type_=column.type) for column in families.c if column.name != "born_seq"),
    select(revocation_head.c.seq).scalar_subquery(),
).where(
    accounts.c.id == bindparam("account_id"),
    accounts.c.password_hash == bindparam("expected_hash"),
    accounts.c.disabled_at.is_(None),
    # Nor when the account has got a second factor since, and this session begins without.
    or_(
        accounts.c.second_factor.is_(literal_column("false")),
        (literal_column("' '") + bindparam("methods", type_=families.c.methods.type) + literal_column("' '")).like(
            literal_column("'% mfa %'")
        ),
    ),
)
# An account may have any number of live sessions: no more than its oldest are looked at, which the index finds.
_OLDEST: Final = (
    select(families.c.id, families.c.ended_at, families.c.idle_ends_at)
    .where(families.c.account_id == bindparam("account_id"))
    .order_by(families.c.created_at)
    .limit(literal_column("16"))
    .offset(literal_column("0"))
    .subquery("oldest")
)
PRUNE_FAMILIES: Final = delete(families).where(
    families.c.id.in_(
        select(_OLDEST.c.id).where(
            or_(_OLDEST.c.ended_at <= bindparam("dead_since"), _OLDEST.c.idle_ends_at <= bindparam("dead_since"))
        )
    )
)
FAMILY_WITH_ACCOUNT: Final = (
    select(*_FAMILY, *_ACCOUNT)
    .join_from(families, accounts, families.c.account_id == accounts.c.id)
    .where(_THIS_FAMILY)
)
FAMILY_IS_ALIVE: Final = select(families.c.id).where(_THIS_FAMILY, _STILL_ALIVE)
PRUNE_REVOCATIONS: Final = delete(revocations).where(
    revocations.c.seq.in_(
        select(revocations.c.seq)
        .where(revocations.c.until <= bindparam("dead_since"))
        .order_by(revocations.c.until)  # along its index: a long log without anything dead is not looked through
        .limit(bindparam("limit"))
        .offset(literal_column("0"))
    )
)

PRUNE_AUDIT: Final = delete(audit).where(
    audit.c.id.in_(
        select(audit.c.id)
        .where(audit.c.at <= bindparam("audit_dead_since"))
        .order_by(audit.c.at)
        .limit(bindparam("limit"))
        .offset(literal_column("0"))
    )
)

# Codes of one purpose and one account, or of one address that has no account yet.
_SIBLINGS = and_(
    codes.c.purpose == bindparam("purpose"),
    codes.c.account_id == bindparam("account_id"),
    or_(codes.c.account_id != literal_column("''"), codes.c.email_identity == bindparam("email_identity")),
)
# Whoever asks again and again has the last three work, and no more.
CROWD_OUT_CODES: Final = delete(codes).where(
    codes.c.hash.in_(
        select(codes.c.hash)
        .where(_SIBLINGS, codes.c.hash != bindparam("hash"))
        .order_by(codes.c.created_at.desc(), codes.c.hash)
        .limit(bindparam("limit"))
        .offset(literal_column("2"))
    )
)
PRUNE_CODES: Final = delete(codes).where(
    codes.c.hash.in_(
        select(codes.c.hash)
        .where(codes.c.expires_at <= bindparam("dead_since"))
        .order_by(codes.c.expires_at)
        .limit(bindparam("limit"))
        .offset(literal_column("0"))
    )
)
# Of several who claim at once each gets others; SQLite has one writer anyway.
CLAIM_MAILS: Final = (
    update(outbox)
    .where(
        outbox.c.id.in_(
            select(outbox.c.id)
            .where(outbox.c.due_at <= bindparam("now"))
            .order_by(outbox.c.due_at)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
            .with_for_update(skip_locked=True)
        )
    )
    .values(
        due_at=bindparam("leased_until"), claim=bindparam("new_claim"), attempts=outbox.c.attempts + literal_column("1")
    )
    .returning(*_QUEUED)
)


def _audit_trail(*filters: str) -> Select[Any]:
    """Lines of the audit trail behind an id and within a time, of one account or of one name where that is asked for.

    Each combination is a statement of its own, so that an index can serve it.
    """
    return select(*_AUDIT).where(
        audit.c.id > bindparam("after"),
        audit.c.at >= bindparam("since"),
        audit.c.at < bindparam("until"),
        *(audit.c[name] == bindparam(name) for name in filters),
    )


def advance_head(count: ColumnElement[int]) -> ReturningUpdate[tuple[int]]:
    """Reserve the next `count` numbers of the log, the last of which is returned, until the transaction ends."""
    return update(revocation_head).values(seq=revocation_head.c.seq + count).returning(revocation_head.c.seq)


def add_family(new: Select[Any]) -> Insert:
    """Insert the family that `new`, a variant of `NEW_FAMILY`, selects."""
    names = [column.name for column in families.c if column.name != "born_seq"]
    return insert(families).from_select([*names, "born_seq"], new)


S = TypeVar("S")
REPLACED: Final = (
    "email",
    "email_identity",
    "password_hash",
    "scopes",
    "disabled_at",
    "credential_version",
    "factors",
    "second_factor",
)
"""What of an account may change."""
AUDIT_FILTERS: Final[tuple[tuple[str, ...], ...]] = ((), ("account_id",), ("event",), ("account_id", "event"))


def named(dialect: Dialect) -> Callable[[ClauseElement], str]:
    """A compiler to SQL text with named parameters, for drivers that take a mapping."""
    return lambda statement: str(_compile(statement, dialect))


class Numbered(Struct, frozen=True):
    """SQL with numbered parameters, for drivers that take them in order."""

    text: str
    names: tuple[str, ...]

    def order(self, values: Mapping[str, Any]) -> list[Any]:
        """The values as the driver takes them; what the statement does not ask for is left out."""
        return [values[name] for name in self.names]


def numbered(dialect: Dialect) -> Callable[[ClauseElement], Numbered]:
    """A compiler to SQL text with numbered parameters; the dialect's `paramstyle` is a numeric one."""

    def compile_one(statement: ClauseElement) -> Numbered:
        compiled = _compile(statement, dialect)
        return Numbered(str(compiled), tuple(compiled.positiontup or ()))

    return compile_one


class Statements(Generic[S]):
    """All statements, compiled. Selected columns come in the order of the record's fields."""

    def __init__(self, sql: Callable[[ClauseElement], S]) -> None:
        self.add_account = sql(insert(accounts))
        self.account_by_identity = sql(ACCOUNT_BY_IDENTITY)
        self.account_by_id = sql(ACCOUNT_BY_ID)
        self.replace_account = sql(
            update(accounts)
            .where(accounts.c.id == bindparam("account_id"))
            .values({name: bindparam(name) for name in REPLACED})
        )
        self.delete_families_of_account = sql(delete(families).where(families.c.account_id == bindparam("account_id")))
        self.delete_account = sql(delete(accounts).where(accounts.c.id == bindparam("account_id")))
        self.list_accounts = sql(
            select(*_ACCOUNT)
            .where(accounts.c.email_identity > bindparam("after"))
            .order_by(accounts.c.email_identity)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )
        self.set_scopes = sql(
            update(accounts).where(accounts.c.id == bindparam("account_id")).values(scopes=bindparam("scopes"))
        )

        expected = (accounts.c.id == bindparam("account_id"), accounts.c.password_hash == bindparam("expected_hash"))
        self.set_password = sql(
            update(accounts)
            .where(*expected, accounts.c.credential_version == bindparam("expected_version"))
            .values(
                password_hash=bindparam("password_hash"),
                credential_version=accounts.c.credential_version + literal_column("1"),
            )
            .returning(accounts.c.id)
        )
        self.replace_hash = sql(
            update(accounts).where(*expected).values(password_hash=bindparam("password_hash")).returning(accounts.c.id)
        )

        self.add_family = sql(add_family(NEW_FAMILY))
        self.prune_families = sql(PRUNE_FAMILIES)
        self.family_by_id = sql(select(*_FAMILY).where(_THIS_FAMILY))
        self.family_is_alive = sql(FAMILY_IS_ALIVE)
        self.family_by_sid = sql(select(*_FAMILY).where(families.c.sid == bindparam("sid")))
        self.families_of_account = sql(
            select(*_FAMILY)
            .where(
                families.c.account_id == bindparam("account_id"),
                families.c.idle_ends_at > bindparam("now"),
                families.c.ends_at > bindparam("now"),
                _STILL_ALIVE,
            )
            .order_by(families.c.seen_at.desc(), families.c.sid)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )
        self.family_with_account = sql(FAMILY_WITH_ACCOUNT)
        self.advance_family = sql(
            update(families)
            .where(_THIS_FAMILY, families.c.generation == bindparam("expected_generation"), _STILL_ALIVE)
            .values(
                {
                    name: bindparam(name)
                    for name in ("generation", "mac_kid", "retired", "confirmed", "seen_at", "idle_ends_at")
                }
            )
        )
        self.confirm_family = sql(
            update(families)
            .where(_THIS_FAMILY, families.c.generation == bindparam("expected_generation"), _STILL_ALIVE)
            .values(confirmed=bindparam("confirmed"))
        )
        self.end_family = sql(
            update(families)
            .where(_THIS_FAMILY, _STILL_ALIVE)
            .values(ended_at=bindparam("now"))
            .returning(families.c.sid)
        )

        self.end_family_by_sid = sql(
            update(families)
            .where(families.c.sid == bindparam("sid"), _STILL_ALIVE)
            .values(ended_at=bindparam("now"))
            .returning(families.c.sid)
        )
        self.end_families_of_account = sql(
            update(families)
            .where(families.c.account_id == bindparam("account_id"), _STILL_ALIVE)
            .values(ended_at=bindparam("now"))
            .returning(families.c.sid)
        )
        self.move_cut = sql(
            update(cuts)
            .where(cuts.c.kind == bindparam("cut_kind"), cuts.c.id == bindparam("cut_id"))
            .values(seq=bindparam("seq"), at=bindparam("at"))
            .returning(cuts.c.seq)
        )
        self.add_cut = sql(insert(cuts))
        self.sweep_step = sql(
            select(families.c.id)
            .where(families.c.id > bindparam("after"))
            .order_by(families.c.id)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )
        self.sweep_families = sql(
            delete(families).where(
                families.c.id > bindparam("after"),
                families.c.id <= bindparam("last"),
                or_(families.c.ended_at <= bindparam("dead_since"), families.c.idle_ends_at <= bindparam("dead_since")),
            )
        )

        self.advance_head = sql(advance_head(bindparam("count")))
        self.head = sql(select(revocation_head.c.log_id, revocation_head.c.seq, revocation_head.c.keys_version))
        self.renew_log = sql(
            update(revocation_head)
            .where(revocation_head.c.log_id == bindparam("expected_log_id"))
            .values(log_id=bindparam("log_id"))
        )
        self.add_revocation = sql(insert(revocations))
        self.prune_revocations = sql(PRUNE_REVOCATIONS)
        self.revocations_after = sql(
            select(*_LOG)
            .where(revocations.c.seq > bindparam("after"), revocations.c.until > bindparam("alive_at"))
            .order_by(revocations.c.seq)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )

        self.add_key = sql(insert(keys))
        self.load_keys = sql(select(*_KEY).order_by(keys.c.created_at, keys.c.kid))
        self.delete_key = sql(delete(keys).where(keys.c.kid == bindparam("kid")))
        self.advance_keys_version = sql(
            update(revocation_head).values(keys_version=revocation_head.c.keys_version + literal_column("1"))
        )

        self.add_code = sql(insert(codes))
        self.code_by_hash = sql(select(*_CODE).where(codes.c.hash == bindparam("hash")))
        self.use_code = sql(delete(codes).where(codes.c.hash == bindparam("hash")).returning(*_CODE))
        self.crowd_out_codes = sql(CROWD_OUT_CODES)
        self.void_codes = sql(delete(codes).where(_SIBLINGS, codes.c.credential_version > bindparam("void_after")))
        self.reservation = sql(
            select(codes.c.hash)
            .where(
                codes.c.email_identity == bindparam("email_identity"),
                codes.c.purpose == literal_column("'undo_email'"),
                codes.c.expires_at > bindparam("now"),
            )
            .limit(literal_column("1"))
            .offset(literal_column("0"))
        )
        self.pending_signup = sql(
            select(*_CODE)
            .where(
                codes.c.email_identity == bindparam("email_identity"),
                codes.c.purpose == literal_column("'signup'"),
                codes.c.account_id == literal_column("''"),
                codes.c.expires_at > bindparam("now"),
            )
            .order_by(codes.c.created_at.desc(), codes.c.hash)
            .limit(literal_column("1"))
            .offset(literal_column("0"))
        )
        self.prune_codes = sql(PRUNE_CODES)
        self.add_mail = sql(insert(outbox))
        self.mail_is_due = sql(
            select(outbox.c.id)
            .where(outbox.c.due_at <= bindparam("now"))
            .order_by(outbox.c.due_at)
            .limit(literal_column("1"))
            .offset(literal_column("0"))
        )
        self.claim_mails = sql(CLAIM_MAILS)
        claimed = (outbox.c.id == bindparam("mail_id"), outbox.c.claim == bindparam("held_claim"))
        self.delete_mail = sql(delete(outbox).where(*claimed))
        self.postpone_mail = sql(
            update(outbox).where(*claimed).values(due_at=bindparam("due_at"), claim=literal_column("''"))
        )

        self.add_audit = sql(
            insert(audit).values({each.name: bindparam(each.name) for each in _AUDIT if each.name != "id"})
        )
        self.prune_audit = sql(PRUNE_AUDIT)
        trails = {names: _audit_trail(*names) for names in AUDIT_FILTERS}
        self.audit_after = {
            names: sql(trail.order_by(audit.c.id).limit(bindparam("limit")).offset(literal_column("0")))
            for names, trail in trails.items()
        }
        self.audit_last = {
            names: sql(trail.order_by(audit.c.id.desc()).limit(bindparam("limit")).offset(literal_column("0")))
            for names, trail in trails.items()
        }
        self.last_settings = sql(
            select(*_AUDIT)
            .where(audit.c.event == literal_column("'settings_changed'"))
            .order_by(audit.c.id.desc())
            .limit(literal_column("1"))
            .offset(literal_column("0"))
        )


def _compile(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler):
        raise TypeError("only statements with parameters belong here")
    hidden = {name for name, value in compiled.params.items() if value is not None}
    if hidden:
        raise ValueError(f"values compiled into parameters would be lost: {hidden}")
    return compiled
