"""Allowances of one process, in memory that has a bound whatever keys arrive, and that no flood of keys can clear.

Every allowance has an entry of its own as long as there is room. When all entries are in use, a new key looks at the
next few of them, in a circle, and takes the place of the one that has used least of its burst. What that one had used
is not forgotten: it goes into a *shared* allowance of its limit, one of a fixed number, chosen by the key's hash; a key
without an entry begins with what its shared allowance says. Entries that are limiting somebody right now are never
replaced; where the new key finds nothing else, it uses its shared allowance together with the others there.

So a flood of new keys frees nobody, neither those that it drives out nor itself: whatever a key has used, the store
says that it has used that much or more. The price is paid by new keys during such a flood: they may find some of
their burst used up already, by others, until it has drained.
"""

import threading
import time
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

from jotgate.throttle.decisions import TOLERANCE, Decision, Used, decide, drain, give_back, standing
from jotgate.throttle.limits import Charge, InvalidLimit, Limit, check_charges

MAX_LIMITS: Final = 32
"""How many limits one store counts. They are named by programs, and not by whoever sends requests."""

_MAX_KEY_CHARS: Final = 64
_LOOK_AT: Final = 8
_SHARED: Final = 32_768

# At most, rounded up: the key 128 (a text of 64 characters), its number 32, its part of the dictionary 88 (right after
# it has grown) and 64 more while it grows, its parts of lists and arrays 40.
_ENTRY_BYTES: Final = 384
_SHARED_BYTES: Final = 2 * 8 * _SHARED
_FIXED_BYTES: Final = 65_536

_Key = str | bytes


class _Ledger:
    """The allowances of one limit: where each key's entry is, and the shared ones."""

    __slots__ = ("at", "limit", "places", "units")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.places: dict[_Key, int] = {}
        self.units: array[float] | None = None
        self.at: array[float] | None = None

    def shared(self, key: _Key, now: float) -> Used:
        if self.units is None or self.at is None:
            return 0.0, now
        number = hash(key) % _SHARED
        return self.units[number], self.at[number]

    def set_shared(self, key: _Key, used: Used) -> None:
        if self.units is None or self.at is None:
            self.units, self.at = array("d", bytes(8 * _SHARED)), array("d", bytes(8 * _SHARED))
        number = hash(key) % _SHARED
        self.units[number], self.at[number] = used

    def fold(self, key: _Key, used: Used, now: float) -> None:
        """Let the shared allowance be used up at least as far as this entry, which ends."""
        known = drain(self.limit, self.shared(key, now), now)
        if used[0] > known[0]:
            self.set_shared(key, used)


class MemoryStore:
    """Counts in this process alone. Thread-safe; see the module for what happens when it is full.

    Args:
        max_entries: how many allowances have an entry of their own, over all limits. `max_bytes` follows from it.
        clock: seconds, never going back.
    """

    def __init__(self, *, max_entries: int = 65_536, clock: Callable[[], float] = time.monotonic) -> None:
        if max_entries < _LOOK_AT:
            raise ValueError(f"max_entries is {_LOOK_AT} or more")
        self.max_entries = max_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._ledgers: dict[str, _Ledger] = {}
        # Entry by entry: whose it is, its key, and what is used. Texts and numbers are nothing to a garbage collector.
        self._owners: list[_Ledger] = []
        self._keys: list[_Key] = []
        self._units: array[float] = array("d")
        self._at: array[float] = array("d")
        self._hand = 0

    @property
    def max_bytes(self) -> int:
        """The memory that this store never exceeds, whatever keys arrive."""
        return self.max_entries * _ENTRY_BYTES + MAX_LIMITS * _SHARED_BYTES + _FIXED_BYTES

    def __len__(self) -> int:
        """How many allowances have an entry."""
        return len(self._keys)

    async def take(self, charges: Sequence[Charge]) -> Decision:
        """See `Store.take`; never waits, and is never unavailable."""
        return self.take_now(charges)

    async def refund(self, charges: Sequence[Charge]) -> None:
        """See `Store.refund`; never waits, and is never unavailable."""
        self.refund_now(charges)

    async def aclose(self) -> None:
        """See `Store.aclose`; there is nothing to let go of."""

    def take_now(self, charges: Sequence[Charge]) -> Decision:
        """Do the same as `take` without an event loop."""
        check_charges(charges)
        if len(charges) != 1:
            return self._take_several(charges)
        # The same as below, for the one charge that there mostly is, at half the cost.
        charge = charges[0]
        limit, cost, key = charge.limit, charge.cost, _key_of(charge.key)
        with self._lock:
            now = self._clock()
            ledger = self._ledger(limit)
            place = ledger.places.get(key)
            used = ledger.shared(key, now) if place is None else (self._units[place], self._at[place])
            units, at = drain(limit, used, now)
            taken = units + cost - limit.burst <= TOLERANCE
            if taken:
                if place is None:
                    self._enter(ledger, key, (units + cost, at), now)
                else:
                    self._units[place], self._at[place] = units + cost, at
        return Decision(taken, (standing(charge, units, at - now, taken=taken),))

    def refund_now(self, charges: Sequence[Charge]) -> None:
        """Do the same as `refund` without an event loop.

        A key that had to give up its entry gets nothing back: the shared allowance is others', too.
        """
        check_charges(charges)
        with self._lock:
            now = self._clock()
            for charge in charges:
                place = self._ledger(charge.limit).places.get(_key_of(charge.key))
                if place is not None:
                    used = give_back(charge, (self._units[place], self._at[place]), now)
                    self._units[place], self._at[place] = used

    def record(self, charges: Sequence[Charge]) -> None:
        """Count what somebody else has decided to allow, whether it fits or not."""
        check_charges(charges)
        with self._lock:
            now = self._clock()
            for charge in charges:
                ledger, key = self._ledger(charge.limit), _key_of(charge.key)
                units, at = drain(charge.limit, self._used(ledger, key, now), now)
                self._put(ledger, key, (min(units + charge.cost, float(charge.limit.burst)), at), now)

    def _take_several(self, charges: Sequence[Charge]) -> Decision:
        keys = [_key_of(charge.key) for charge in charges]
        with self._lock:
            now = self._clock()
            ledgers = [self._ledger(charge.limit) for charge in charges]
            before = [self._used(ledger, key, now) for ledger, key in zip(ledgers, keys, strict=True)]
            decision, after = decide(charges, before, now)
            if decision.allowed:
                for ledger, key, used in zip(ledgers, keys, after, strict=True):
                    self._put(ledger, key, used, now)
        return decision

    def _ledger(self, limit: Limit) -> _Ledger:
        ledger = self._ledgers.get(limit.name)
        if ledger is not None and ledger.limit is limit:
            return ledger
        if ledger is None:
            if len(self._ledgers) >= MAX_LIMITS:
                raise InvalidLimit(f"One store counts {MAX_LIMITS} limits; who somebody is belongs into the key.")
            ledger = self._ledgers[limit.name] = _Ledger(limit)
        elif ledger.limit != limit:
            raise InvalidLimit(f"Two limits are named {limit.name!r} and have different numbers.")
        return ledger

    def _used(self, ledger: _Ledger, key: _Key, now: float) -> Used:
        place = ledger.places.get(key)
        return ledger.shared(key, now) if place is None else (self._units[place], self._at[place])

    def _put(self, ledger: _Ledger, key: _Key, used: Used, now: float) -> None:
        place = ledger.places.get(key)
        if place is None:
            self._enter(ledger, key, used, now)
        else:
            self._units[place], self._at[place] = used

    def _enter(self, ledger: _Ledger, key: _Key, used: Used, now: float) -> None:
        """Give a key an entry, or count it among those that share one."""
        if used[0] <= 0.0:
            return
        place = len(self._keys)
        if place < self.max_entries:
            self._owners.append(ledger)
            self._keys.append(key)
            self._units.append(used[0])
            self._at.append(used[1])
            ledger.places[key] = place
            return
        found = self._find_least_used(now)
        if found is None:
            ledger.set_shared(key, used)
            return
        place, last = found
        owner, old_key = self._owners[place], self._keys[place]
        if last[0] > 0.0:
            owner.fold(old_key, last, now)
        del owner.places[old_key]
        self._owners[place], self._keys[place] = ledger, key
        self._units[place], self._at[place] = used
        ledger.places[key] = place

    def _find_least_used(self, now: float) -> tuple[int, Used] | None:
        """Return which of the next entries has used least of its burst, and what; None if all are limiting somebody."""
        least: tuple[int, Used] | None = None
        least_share = 1.0
        for _ in range(_LOOK_AT):
            place = self._hand
            self._hand = place + 1 if place + 1 < self.max_entries else 0
            limit = self._owners[place].limit
            used = drain(limit, (self._units[place], self._at[place]), now)
            if used[0] == 0.0:
                return place, used
            if used[0] + 1 - limit.burst <= TOLERANCE and used[0] / limit.burst < least_share:
                least, least_share = (place, used), used[0] / limit.burst
        return least


def _key_of(text: str) -> _Key:
    """Return the text itself, or a digest where it would take more memory than an entry has."""
    if len(text) <= _MAX_KEY_CHARS and text.isascii():
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
