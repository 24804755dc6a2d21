"""The life of a key: published ahead, then signing, then only verifying, then gone; or revoked at once.

Pure: rows in, changed rows out. Every function looks at the keys of *one* issuer and *one* purpose; the store calls it
inside its writing transaction, so that of many replicas one does a thing and the others find it done.

There are two `next` keys, so that one that verifiers know is left when the other begins to sign: an emergency has a
successor. The newest that is mature signs first. The algorithm of the newest of all is the wanted one, whatever signs
now: so algorithms are switched. A retired key stays published until the last token that it signed has expired, and a
day longer.

All of it goes by the wall clock, which is believed only while it goes as it should: see `rules.clocks`.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from jotgate.core.errors import RequestRefused
from jotgate.server.records import CLOCK_MARGIN_S, SealedKey

SPARES: Final = 2
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


class AlgorithmNotUsed(RequestRefused):
    """A key of this algorithm would not come to sign, or would switch the algorithm for everybody."""

    code = "algorithm_not_used"
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
    """Tell whether a key has been published for longer than anybody keeps the keys without looking again.

    What was announced when it was made counts as much as what is announced now.
    """
    return now - key.created_at > max(key.ahead_s, schedule.publish_ahead_s)


def turn(
    keys: Sequence[SealedKey], *, algorithm: str, now: int, schedule: Schedule, spare: Spare, correcting: bool
) -> KeyChange:
    """Do what is due by the schedule, and nothing otherwise. `algorithm` is for the very first key.

    Where it is `correcting`, times far ahead of `now` are taken for wrong ones. Whose clock is behind must not do that:
    for everybody else keys would be older than they are.
    """
    draft = _Draft(keys)
    if correcting:
        draft.correct_times(now)
    active, wanted = draft.active, draft.wanted(algorithm)
    if active is None:
        draft.succeed(wanted, now=now, schedule=schedule, spare=spare, early="emergency" if keys else "first")
    else:
        known = [key for key in draft.nexts if is_mature(key, now=now, schedule=schedule)]
        fitting = [key for key in known if key.algorithm == wanted]
        due = now - (active.activated_at or 0) >= schedule.rotate_every_s
        # One that is known stays behind for an emergency.
        if fitting and len(known) > 1 and (due or active.algorithm != wanted):
            draft.retire(active, now)
            draft.activate(fitting[-1], now)
    draft.fill(wanted, spare)
    draft.trim(wanted, now=now, schedule=schedule)
    for key in draft.all(Standing.RETIRED):
        if key.retired_at is not None and now >= key.retired_at + schedule.keep_s + CLOCK_MARGIN_S:
            draft.remove(key, now)
    for key in keys:
        gone_at = key.removed_at if key.revoked_at is None else key.revoked_at
        never_signed = key.activated_at is None and key.revoked_at is None
        if gone_at is not None and now >= gone_at + (CLOCK_MARGIN_S if never_signed else schedule.forget_s):
            draft.forget(key)
    return draft.change()


def prefer(keys: Sequence[SealedKey], *, algorithm: str, spare: Spare, now: int) -> KeyChange:
    """Have `algorithm` as soon as verifiers know a key of it.

    Those of the algorithm of before stay until then, for an emergency.
    """
    draft = _Draft(keys)
    if draft.active is None or draft.wanted(algorithm) == algorithm:
        return draft.change()  # nothing to prefer over, or done already
    fitting = [key for key in draft.nexts if key.algorithm == algorithm]
    if fitting:  # a switch is taken back before it came about
        for key in draft.nexts:
            if _age(key) > _age(fitting[-1]):
                draft.remove(key, now)
    else:
        draft.make(spare(algorithm))
    return draft.change()


def rotate(keys: Sequence[SealedKey], *, now: int, schedule: Schedule, spare: Spare) -> KeyChange:
    """Let a next key sign from now on.

    Raises:
        KeyNotMature: none has been published long enough, or none would be left for an emergency.
    """
    draft = _Draft(keys)
    active = draft.active
    if active is None or not draft.nexts:
        raise NoSuchKey("There is no next key yet: a running server makes one within seconds.")
    wanted = draft.wanted(active.algorithm)
    known = [key for key in draft.nexts if is_mature(key, now=now, schedule=schedule)]
    fitting = [key for key in known if key.algorithm == wanted]
    if not fitting or len(known) < SPARES:
        left_s = max(key.created_at + max(key.ahead_s, schedule.publish_ahead_s) + 1 - now for key in draft.nexts)
        raise KeyNotMature(
            "The keys that come next were published a moment ago, and verifiers may not know them yet: "
            f"rotate again in {left_s} s."
        )
    draft.retire(active, now)
    draft.activate(fitting[-1], now)
    draft.fill(wanted, _as_patient(spare, active))
    return draft.change()


def revoke(keys: Sequence[SealedKey], kid: str, *, now: int, schedule: Schedule, spare: Spare) -> KeyChange:
    """Believe nothing any more that this key has signed; its private half is erased.

    Was it the one that signs, another does from now on: one that verifiers know, if there is any.

    Raises:
        NoSuchKey: there is none that is believed.
    """
    draft = _Draft(keys)
    key = next((key for key in keys if key.kid == kid and is_published(key)), None)
    if key is None:
        raise NoSuchKey(f"There is no key {kid} that is in use.")
    wanted, patient = draft.wanted(key.algorithm), _as_patient(spare, key)
    draft.revoke(key, now)
    if draft.active is None:
        draft.succeed(wanted, now=now, schedule=schedule, spare=patient, early="emergency")
    draft.fill(wanted, patient)
    return draft.change()


def bring(keys: Sequence[SealedKey], key: SealedKey) -> KeyChange:
    """Take a key that was made elsewhere as the newest next one, which signs first when it is mature.

    It waits as long as the longest of the present ones, who knows with which settings this is called.

    Raises:
        AlgorithmNotUsed: it is of another algorithm than the wanted one.
    """
    draft = _Draft(keys)
    wanted = draft.wanted(key.algorithm)
    if key.algorithm != wanted:
        raise AlgorithmNotUsed(
            f"Access tokens are to be signed with {wanted} here, not with {key.algorithm}: start the servers with "
            f"JOTGATE_SIGNING_ALGORITHM={key.algorithm} first, then bring the key in."
        )
    ahead_s = max((known.ahead_s for known in keys if is_published(known)), default=0)
    draft.make(msgspec.structs.replace(key, ahead_s=max(key.ahead_s, ahead_s)))
    return draft.change()


def _as_patient(spare: Spare, as_key: SealedKey) -> Spare:
    """Have new keys wait as long as a present one has to, who knows with which settings this is called."""

    def make(algorithm: str) -> SealedKey:
        made = spare(algorithm)
        return msgspec.structs.replace(made, ahead_s=max(made.ahead_s, as_key.ahead_s))

    return make


def check_unused(keys: Sequence[SealedKey], key: SealedKey) -> tuple[str, ...]:
    """Check that the material and the name of `key` are new among *all* keys, of every issuer and purpose.

    Returns the `kid`s of rows to forget for it: it was there before, for the same purpose, and went without having
    signed anything.

    Raises:
        KeyInUse: they are not new.
    """
    given_way = []
    for known in keys:
        if known.thumbprint == key.thumbprint or known.kid == key.kid:
            unspent = known.activated_at is None and standing(known) is Standing.REMOVED
            if unspent and known.purpose == key.purpose:
                given_way.append(known.kid)
                continue
            raise KeyInUse(
                f"This key, or its kid, is the {known.purpose} key {known.kid} already "
                f"({standing(known).value}, {known.algorithm}): a key has one purpose, one algorithm, and is new."
            )
    return tuple(given_way)


def _age(key: SealedKey) -> tuple[int, str]:
    return key.created_at, key.kid


class _Draft:
    """Keys as they will be, and what changed on the way."""

    def __init__(self, keys: Sequence[SealedKey]) -> None:
        self._before = {key.kid: key for key in keys}
        self._now = dict(self._before)
        self._forgotten: list[str] = []
        self._events: list[KeyEvent] = []

    def all(self, wanted: Standing) -> list[SealedKey]:
        return [key for key in self._now.values() if standing(key) is wanted]

    @property
    def active(self) -> SealedKey | None:
        return min(self.all(Standing.ACTIVE), key=_age, default=None)

    @property
    def nexts(self) -> list[SealedKey]:
        """The newest last."""
        return sorted(self.all(Standing.NEXT), key=_age)

    def wanted(self, otherwise: str) -> str:
        """The algorithm to sign with: that of the newest next key, else of the one that signs, else `otherwise`."""
        newest = [*([self.active] if self.active else []), *self.nexts][-1:]
        return newest[0].algorithm if newest else otherwise

    def make(self, key: SealedKey) -> SealedKey:
        newest = self.nexts[-1:]
        if newest and key.created_at <= newest[0].created_at and key.algorithm != newest[0].algorithm:
            key = msgspec.structs.replace(key, created_at=newest[0].created_at + 1)  # or it would not be the newest
        return self._put(key, "key_made")

    def fill(self, wanted: str, spare: Spare) -> None:
        """Have two next keys of the wanted algorithm, where there is a key that signs."""
        if self.active is not None:
            for _ in range(SPARES - sum(key.algorithm == wanted for key in self.nexts)):
                self.make(spare(wanted))

    def trim(self, wanted: str, *, now: int, schedule: Schedule) -> None:
        """Take away next keys that nobody waits for any more: as soon as verifiers know enough of the wanted ones."""
        known = [key for key in self.nexts if key.algorithm == wanted and is_mature(key, now=now, schedule=schedule)]
        if known:
            for key in self.nexts:
                if key.algorithm != wanted:
                    self.remove(key, now)
        for key in known[:-SPARES]:
            self.remove(key, now)

    def succeed(self, wanted: str, *, now: int, schedule: Schedule, spare: Spare, early: Early) -> None:
        """Let a key sign where none does: one that verifiers know, if there is any."""
        known = [key for key in self.nexts if is_mature(key, now=now, schedule=schedule)]
        fitting = [key for key in known if key.algorithm == wanted]
        successor = (fitting or known)[-1:] or self.nexts[:1]
        self.activate(successor[0] if successor else self.make(spare(wanted)), now, early=None if known else early)

    def correct_times(self, now: int) -> None:
        """Put right what a clock wrote that was days ahead: nothing would ever be due again."""
        for key in self._before.values():
            ahead = {
                name: now
                for name in ("created_at", "activated_at", "retired_at")
                if (getattr(key, name) or 0) > now + CLOCK_MARGIN_S
            }
            if ahead and is_published(key):
                self._now[key.kid] = msgspec.structs.replace(key, **ahead)

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
