"""The life of a key: published ahead, then signing, then only verifying, then gone; or revoked at once.

Pure: rows in, changed rows out. Every function looks at the keys of *one* issuer and *one* purpose; the store calls it
inside its writing transaction, so that of many replicas one does a thing and the others find it done.

A `next` key is made as soon as there is none, and so it has been published for a whole rotation before it signs: caches
of any sensible length know it, and an emergency has a successor. A retired key stays published until the last token
that it signed has expired, and a day longer: a clock that jumps ahead and back must not take away what counts.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from jotgate.core.errors import RequestRefused
from jotgate.server.records import CLOCK_MARGIN_S, SealedKey

Spare = Callable[[str], SealedKey]
"""Gives a new key of an algorithm, sealed, that nobody has seen yet."""
Early = Literal["first", "emergency"]
EventName = Literal["key_made", "key_activated", "key_retired", "key_removed", "key_revoked"]


class Standing(enum.Enum):
    """Where a key is in its life."""

    NEXT = "next"  # published, not yet signing
    ACTIVE = "active"  # signs
    RETIRED = "retired"  # published, verifies only
    REVOKED = "revoked"  # nothing that it signed is believed
    REMOVED = "removed"  # its private half is erased; the row says that there was such a key


class Schedule(Struct, frozen=True, kw_only=True):
    """How long the parts of a key's life are, in seconds."""

    rotate_every_s: int
    publish_ahead_s: int
    """Longer than anybody may keep the published keys without looking again."""
    keep_s: int
    """How long after its retirement something that a key has signed may still be presented."""
    forget_s: int = 400 * 86_400
    """How long the row of a key that is gone stays, so that its material is not taken for another key's."""


class KeyEvent(Struct, frozen=True):
    """Something that happened to a key, for the log."""

    name: EventName
    kid: str
    purpose: str
    algorithm: str
    early: Early | None = None
    """Why it signs although it has not been published long enough: verifiers may have to fetch keys for it."""


class KeyChange(Struct, frozen=True):
    """What a decision changes: rows to write, rows to forget, and what to tell."""

    keys: tuple[SealedKey, ...] = ()
    forgotten: tuple[str, ...] = ()
    """The `kid`s of rows to delete."""
    events: tuple[KeyEvent, ...] = ()

    @property
    def revoked(self) -> tuple[str, ...]:
        """The `kid`s that verifiers must not believe any more."""
        return tuple(event.kid for event in self.events if event.name == "key_revoked")


class NoSuchKey(RequestRefused):
    """There is no key with this kid that this could be done to."""

    code = "no_such_key"
    status = 404


class KeyNotMature(RequestRefused):
    """The next key has not been published long enough: verifiers may not know it yet."""

    code = "key_not_mature"
    status = 409


class KeyInUse(RequestRefused):
    """This key material was loaded before: a key has one issuer, one purpose and one algorithm."""

    code = "key_in_use"
    status = 409


def standing(key: SealedKey) -> Standing:
    """Say where a key is in its life."""
    if key.revoked_at is not None:
        return Standing.REVOKED
    if key.removed_at is not None:
        return Standing.REMOVED
    if key.retired_at is not None:
        return Standing.RETIRED
    return Standing.NEXT if key.activated_at is None else Standing.ACTIVE


def is_published(key: SealedKey) -> bool:
    """Tell whether what the key signs, or has signed, is believed."""
    return standing(key) in (Standing.NEXT, Standing.ACTIVE, Standing.RETIRED)


def is_mature(key: SealedKey, *, now: int, schedule: Schedule) -> bool:
    """Tell whether a key has been published for longer than anybody keeps the keys without looking again."""
    return now - key.created_at > schedule.publish_ahead_s


def turn(keys: Sequence[SealedKey], *, algorithm: str, now: int, schedule: Schedule, spare: Spare) -> KeyChange:
    """Do what is due by the schedule, and nothing otherwise.

    A `next` key of another algorithm than the active one's takes over as soon as it is mature: that is how an
    algorithm is switched (see `prefer`). `algorithm` is for the very first key.
    """
    draft = _Draft(keys)
    active, following = draft.only(Standing.ACTIVE), draft.only(Standing.NEXT)
    if active is None:
        successor = following or draft.make(spare(algorithm))
        unknown: Early = "emergency" if keys else "first"
        mature = is_mature(successor, now=now, schedule=schedule)
        draft.activate(successor, now, early=None if mature else unknown)
    elif following is not None and is_mature(following, now=now, schedule=schedule):
        due = active.activated_at is not None and now - active.activated_at >= schedule.rotate_every_s
        if due or following.algorithm != active.algorithm:
            draft.retire(active, now)
            draft.activate(following, now)
    draft.make_next(spare)
    for key in draft.all(Standing.RETIRED):
        if key.retired_at is not None and now >= key.retired_at + schedule.keep_s + CLOCK_MARGIN_S:
            draft.remove(key, now)
    for key in keys:
        gone_at = key.removed_at if key.revoked_at is None else key.revoked_at
        if gone_at is not None and now >= gone_at + schedule.forget_s:
            draft.forget(key)
    return draft.change()


def prefer(keys: Sequence[SealedKey], *, algorithm: str, now: int, spare: Spare) -> KeyChange:
    """Have `algorithm` from the next rotation on: the next key is one of that algorithm, made if need be.

    A next key of another algorithm has signed nothing, and goes.
    """
    draft = _Draft(keys)
    following = draft.only(Standing.NEXT)
    if draft.only(Standing.ACTIVE) is None or following is None or following.algorithm == algorithm:
        return draft.change()  # nothing to prefer over, or done already
    draft.remove(following, now)
    draft.make(spare(algorithm))
    return draft.change()


def rotate(keys: Sequence[SealedKey], *, now: int, schedule: Schedule, spare: Spare) -> KeyChange:
    """Let the next key sign from now on.

    Raises:
        KeyNotMature: it has not been published long enough.
    """
    draft = _Draft(keys)
    active, following = draft.only(Standing.ACTIVE), draft.only(Standing.NEXT)
    if active is None or following is None:
        raise NoSuchKey("There is no next key yet: a running server makes one within seconds.")
    if not is_mature(following, now=now, schedule=schedule):
        left_s = following.created_at + schedule.publish_ahead_s + 1 - now
        raise KeyNotMature(
            f"The next key {following.kid} was published a moment ago, and verifiers may not know it yet: "
            f"rotate again in {left_s} s."
        )
    draft.retire(active, now)
    draft.activate(following, now)
    draft.make_next(spare)
    return draft.change()


def revoke(keys: Sequence[SealedKey], kid: str, *, now: int, schedule: Schedule, spare: Spare) -> KeyChange:
    """Believe nothing any more that this key has signed; its private half is erased.

    Was it the one that signs, the next key does from now on, mature or not.

    Raises:
        NoSuchKey: there is none that is believed.
    """
    draft = _Draft(keys)
    key = next((key for key in keys if key.kid == kid and is_published(key)), None)
    if key is None:
        raise NoSuchKey(f"There is no key {kid} that is in use.")
    draft.revoke(key, now)
    if standing(key) is Standing.ACTIVE:
        following = draft.only(Standing.NEXT)
        successor = following or draft.make(spare(key.algorithm))
        mature = is_mature(successor, now=now, schedule=schedule)
        draft.activate(successor, now, early=None if mature else "emergency")
    draft.make_next(spare)
    return draft.change()


def bring(keys: Sequence[SealedKey], key: SealedKey, *, now: int) -> KeyChange:
    """Take a key that was made elsewhere as the next one; what was next has signed nothing, and goes."""
    draft = _Draft(keys)
    for following in draft.all(Standing.NEXT):
        draft.remove(following, now)
    draft.make(key)
    return draft.change()


def check_unused(keys: Sequence[SealedKey], key: SealedKey) -> None:
    """Check that the material and the name of `key` are new among *all* keys, of every issuer and purpose.

    Raises:
        KeyInUse: they are not.
    """
    for known in keys:
        if known.thumbprint == key.thumbprint or known.kid == key.kid:
            raise KeyInUse(
                f"This key, or its kid, is the {known.purpose} key {known.kid} already "
                f"({standing(known).value}, {known.algorithm}): a key has one purpose, one algorithm, and is new."
            )


class _Draft:
    """Keys as they will be, and what changed on the way."""

    def __init__(self, keys: Sequence[SealedKey]) -> None:
        self._before = {key.kid: key for key in keys}
        self._now = dict(self._before)
        self._forgotten: list[str] = []
        self._events: list[KeyEvent] = []

    def all(self, wanted: Standing) -> list[SealedKey]:
        return [key for key in self._now.values() if standing(key) is wanted]

    def only(self, wanted: Standing) -> SealedKey | None:
        """The key of a standing that one key has at most, the oldest if there were more."""
        return min(self.all(wanted), key=lambda key: (key.created_at, key.kid), default=None)

    def make(self, key: SealedKey) -> SealedKey:
        return self._put(key, "key_made")

    def make_next(self, spare: Spare) -> None:
        """Have a next key, of the algorithm of the one that signs."""
        active = self.only(Standing.ACTIVE)
        if active is not None and self.only(Standing.NEXT) is None:
            self.make(spare(active.algorithm))

    def activate(self, key: SealedKey, now: int, *, early: Early | None = None) -> None:
        self._put(msgspec.structs.replace(key, activated_at=now), "key_activated", early=early)

    def retire(self, key: SealedKey, now: int) -> None:
        self._put(msgspec.structs.replace(key, retired_at=now), "key_retired")

    def remove(self, key: SealedKey, now: int) -> None:
        self._put(msgspec.structs.replace(key, removed_at=now, sealed=b""), "key_removed")

    def revoke(self, key: SealedKey, now: int) -> None:
        self._put(msgspec.structs.replace(key, revoked_at=now, sealed=b""), "key_revoked")

    def forget(self, key: SealedKey) -> None:
        self._forgotten.append(key.kid)

    def change(self) -> KeyChange:
        changed = tuple(key for kid, key in self._now.items() if self._before.get(kid) != key)
        return KeyChange(changed, tuple(self._forgotten), tuple(self._events))

    def _put(self, key: SealedKey, name: EventName, *, early: Early | None = None) -> SealedKey:
        self._now[key.kid] = key
        self._events.append(KeyEvent(name, key.kid, key.purpose, key.algorithm, early))
        return key
