"""The revocation feed's messages: signed by the issuer, read by verifiers; knows no network, store, thread or clock.

A message is a compact JWS (RFC 7515) with a type of its own, under a key that signs nothing else, so that nobody can
take it for a token. A *snapshot* holds all that matters at one moment. An *event* says what came after the sequence
number `prev`; one without entries is a heartbeat, which says that nothing did.

On the wire, ids of one length stand in one text without anything between them: a hundred thousand session ids fit
into 3 MB.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from jotgate.core.algorithms import CURRENT
from jotgate.core.encoding import JsonRefused, parse_json_object
from jotgate.core.errors import JotgateError, TokenError, UnknownKey
from jotgate.core.jwk import Key, KeySet
from jotgate.core.jws import open_jws, sign_jws
from jotgate.core.revocations import Kind, Revocation

SNAPSHOT_TYP: Final = "revocations+jwt"
EVENT_TYP: Final = "revocation-event+jwt"
MAX_SNAPSHOT_BYTES: Final = 32 * 1024 * 1024
"""A snapshot of a million sessions has 29 MB."""
MAX_EVENT_BYTES: Final = 256 * 1024

MAX_ID_CHARS: Final = 256
"""No id that is revoked is longer."""


class FeedRefused(JotgateError):
    """A message of the feed cannot be believed. What the verifier knew before stays."""

    code = "feed_refused"


class FeedKeyUnknown(FeedRefused):
    """It names a key that is not among those given: a newer one, perhaps."""

    code = "feed_key_unknown"


class Message(Struct, frozen=True, kw_only=True):
    """What one message says, once its signature, type and issuer have been checked."""

    log_id: str
    """Which log `seq` counts in. Another one comes when continuity cannot be vouched for: a database restored, say."""
    prev: int | None
    """For an event, the sequence number that it follows; None for a snapshot."""
    seq: int
    """The log's last entry that the message covers."""
    sent_at: int
    """The issuer's clock, Unix seconds."""
    keep_s: int
    """How long an entry matters after it was made: the longest life of a token, and leeway."""
    revocations: tuple[Revocation, ...]


_Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
_Id = Annotated[str, Meta(min_length=1, max_length=64)]


class _Group(Struct, frozen=True, omit_defaults=True):
    kind: Kind
    ids: str = ""
    size: Annotated[int, Meta(ge=0, le=MAX_ID_CHARS)] = 0
    at: _Count = 0


class _Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    iss: str
    log_id: _Id
    seq: _Count
    iat: _Count
    keep_s: Annotated[int, Meta(ge=1, le=86_400)]
    entries: tuple[_Group, ...]
    prev: _Count | None = None


def sign_snapshot(
    key: Key, *, issuer: str, log_id: str, seq: int, now: int, keep_s: int, revocations: Iterable[Revocation]
) -> str:
    """Sign all that is revoked as of `seq`."""
    return _sign(key, SNAPSHOT_TYP, issuer, log_id, None, seq, now, keep_s, revocations)


def sign_event(
    key: Key,
    *,
    issuer: str,
    log_id: str,
    prev: int,
    seq: int,
    now: int,
    keep_s: int,
    revocations: Iterable[Revocation] = (),
) -> str:
    """Sign what was logged after `prev` up to `seq`; without revocations and with both the same, a heartbeat."""
    return _sign(key, EVENT_TYP, issuer, log_id, prev, seq, now, keep_s, revocations)


def parse_snapshot(raw: str | bytes, keys: KeySet, issuer: str) -> Message:
    """Read a snapshot that `issuer` signed with one of `keys`.

    Raises FeedRefused: not signed so, of another type or issuer, or not a snapshot; FeedKeyUnknown: by none of `keys`.
    """
    message = _open(raw, keys, issuer, SNAPSHOT_TYP, MAX_SNAPSHOT_BYTES)
    if message.prev is not None:
        raise FeedRefused("The snapshot follows something, as only an event does.")
    return message


def parse_event(raw: str | bytes, keys: KeySet, issuer: str) -> Message:
    """Read an event or heartbeat that `issuer` signed with one of `keys`.

    Raises FeedRefused: not signed so, of another type or issuer, or not an event; FeedKeyUnknown: by none of `keys`.
    """
    message = _open(raw, keys, issuer, EVENT_TYP, MAX_EVENT_BYTES)
    if message.prev is None or message.prev > message.seq or (message.prev == message.seq and message.revocations):
        raise FeedRefused("The event does not say what it follows.")
    return message


def _sign(
    key: Key,
    typ: str,
    issuer: str,
    log_id: str,
    prev: int | None,
    seq: int,
    now: int,
    keep_s: int,
    revocations: Iterable[Revocation],
) -> str:
    groups = tuple(group for each in revocations for group in _groups(each))
    payload = _Payload(iss=issuer, log_id=log_id, seq=seq, iat=now, keep_s=keep_s, entries=groups, prev=prev)
    return sign_jws(msgspec.json.encode(payload), key, typ=typ)


def _groups(revocation: Revocation) -> list[_Group]:
    if revocation.kind == "all":
        return [_Group("all", at=revocation.at)]
    by_size: dict[int, list[str]] = {}
    for name in revocation.ids:
        by_size.setdefault(len(name), []).append(name)
    at = revocation.at if revocation.kind == "client" else 0
    return [_Group(revocation.kind, "".join(names), size, at) for size, names in by_size.items()]


def _open(raw: str | bytes, keys: KeySet, issuer: str, typ: str, limit: int) -> Message:
    try:
        route, payload = open_jws(raw, keys, CURRENT, max_bytes=limit)
    except UnknownKey:
        raise FeedKeyUnknown("The message is signed by a key that the feed's key set does not have.") from None
    except TokenError as refused:
        raise FeedRefused(f"The message is not what the issuer signed ({refused.code}).") from None
    if route.typ != typ:
        raise FeedRefused("The message is of another type ('typ').")
    try:
        said = msgspec.convert(parse_json_object(payload), _Payload)
    except (JsonRefused, msgspec.ValidationError):
        raise FeedRefused("The message's content is not what a feed's is.") from None
    if said.iss != issuer:
        raise FeedRefused("The message is of another issuer.")
    return Message(
        log_id=said.log_id,
        prev=said.prev,
        seq=said.seq,
        sent_at=said.iat,
        keep_s=said.keep_s,
        revocations=tuple(_revocation(group) for group in said.entries),
    )


def _revocation(group: _Group) -> Revocation:
    if group.kind == "all":
        return Revocation("all", (), group.at)
    if group.size == 0 or len(group.ids) % group.size:
        raise FeedRefused("The message's ids cannot be told apart.")
    ids = group.ids
    return Revocation(group.kind, tuple(ids[n : n + group.size] for n in range(0, len(ids), group.size)), group.at)
