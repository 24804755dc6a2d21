"""Between records and rows: how scopes, methods and retired generations are written down, the same in every database.

Rows come in the order of the record's fields (see `statements`). Knows no driver and no SQL.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from jotgate.core.revocations import Kind
from jotgate.server.records import (
    NO_FACTORS,
    Account,
    AuditEvent,
    Code,
    CodePurpose,
    Factors,
    Family,
    LogEntry,
    OutgoingMail,
    QueuedMail,
    SealedKey,
)
from jotgate.server.rules.accounts import email_identity

Values = Mapping[str, Any]


class Row(Protocol):
    """What a driver returns: a tuple, or something like it."""

    def __iter__(self) -> Iterator[Any]: ...

    def __getitem__(self, index: Any, /) -> Any: ...  # noqa: ANN401  of whatever type the column is


CROWDED: Final[frozenset[CodePurpose]] = frozenset({"signup", "reset", "change_email"})
CROWDED_OUT_AT_ONCE: Final = 16
FAMILY_COLUMNS: Final = len(Family.__struct_fields__)
_decode_retired = msgspec.json.Decoder(tuple[tuple[int, int], ...]).decode
_decode_factors = msgspec.json.Decoder(Factors).decode


def account_values(account: Account) -> dict[str, Any]:
    """What the statement `add_account` inserts."""
    return msgspec.structs.asdict(account) | {
        "email_identity": email_identity(account.email),
        "scopes": " ".join(account.scopes),
        "second_factor": account.factors.asked_for,
        "factors": "" if account.factors == NO_FACTORS else msgspec.json.encode(account.factors).decode(),
    }


def code_values(code: Code) -> dict[str, Any]:
    """What the statement `add_code` inserts."""
    return msgspec.structs.asdict(code) | {"email_identity": email_identity(code.email)}


def siblings(purpose: CodePurpose, account_id: str, email: str) -> dict[str, Any]:
    """What the statement `void_codes` deletes: those of an account; of sign-up, those of its address."""
    of_address = purpose == "signup"
    return {
        "purpose": purpose,
        "account_id": "" if of_address else account_id,
        "email_identity": email_identity(email) if of_address else "",
    }


def mail_values(mail: OutgoingMail) -> dict[str, Any]:
    """What the statement `add_mail` inserts."""
    return msgspec.structs.asdict(mail) | {"attempts": 0, "claim": ""}


def family_values(family: Family) -> dict[str, Any]:
    """What the statement `add_family` inserts; the database adds `born_seq`."""
    values = msgspec.structs.asdict(family)
    del values["born_seq"]
    values["scopes"] = " ".join(family.scopes)
    values["methods"] = " ".join(family.methods)
    values["retired"] = _encode_retired(family.retired)
    return values


def advance_values(family: Family, successor: Family) -> dict[str, Any]:
    """What the statement `advance_family` swaps: `family` as it was read, for its successor."""
    return {
        "family_id": family.id,
        "expected_generation": family.generation,
        "generation": successor.generation,
        "mac_kid": successor.mac_kid,
        "retired": _encode_retired(successor.retired),
        "confirmed": successor.confirmed,
        "seen_at": successor.seen_at,
        "idle_ends_at": successor.idle_ends_at,
    }


def audit_values(event: AuditEvent) -> dict[str, Any]:
    """What the statement `add_audit` inserts; the database adds the id."""
    values = msgspec.structs.asdict(event)
    del values["id"]
    return values


def trail_values(
    *, after: int, limit: int, account_id: str | None, event: str | None, since: int, until: int
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which of the statements `audit_after` and `audit_last` is meant, and what it asks for."""
    filters = {name: value for name, value in (("account_id", account_id), ("event", event)) if value is not None}
    return tuple(filters), {"after": after, "limit": limit, "since": since, "until": until, **filters}


def log_entries(kind: Kind, ids: Sequence[str], last: int, *, at: int, until_s: int) -> tuple[LogEntry, ...]:
    """The entries of `ids`, of which the last one has the number `last`."""
    return tuple(
        LogEntry(seq=seq, kind=kind, id=name, at=at, until=at + until_s)
        for seq, name in enumerate(ids, last - len(ids) + 1)
    )


def to_account(row: Row) -> Account:
    """The account in a row."""
    fields = dict(zip(Account.__struct_fields__, row, strict=True))
    fields["scopes"] = tuple(fields["scopes"].split())
    fields["factors"] = _decode_factors(fields["factors"]) if fields["factors"] else NO_FACTORS
    return Account(**fields)


def to_code(row: Row) -> Code:
    """The code in a row."""
    return Code(**dict(zip(Code.__struct_fields__, row, strict=True)))


def to_queued_mail(row: Row) -> QueuedMail:
    """The claimed mail in a row."""
    return QueuedMail(**dict(zip(QueuedMail.__struct_fields__, row, strict=True)))


def to_family(row: Row) -> Family:
    """The family in a row."""
    fields = dict(zip(Family.__struct_fields__, row, strict=True))
    fields["scopes"] = tuple(fields["scopes"].split())
    fields["methods"] = tuple(fields["methods"].split())
    fields["retired"] = _decode_retired(fields["retired"])
    fields["confirmed"] = bool(fields["confirmed"])
    return Family(**fields)


def to_family_and_account(row: Row) -> tuple[Family, Account]:
    """The family in the first columns of a row, and the account in the rest."""
    return to_family(row[:FAMILY_COLUMNS]), to_account(row[FAMILY_COLUMNS:])


def to_key(row: Row) -> SealedKey:
    """The key in a row."""
    return SealedKey(**dict(zip(SealedKey.__struct_fields__, row, strict=True)))


def to_audit_event(row: Row) -> AuditEvent:
    """The line of the audit trail in a row."""
    return AuditEvent(**dict(zip(AuditEvent.__struct_fields__, row, strict=True)))


def to_log_entry(row: Row) -> LogEntry:
    """The log's entry in a row."""
    return LogEntry(**dict(zip(LogEntry.__struct_fields__, row, strict=True)))


def _encode_retired(retired: tuple[tuple[int, int], ...]) -> str:
    return msgspec.json.encode(retired).decode()
