"""Remembers tokens whose signature was good, so that the same text is not proved twice; knows no policy, no revocation.

Only the signature and what follows from the text alone is remembered. Whatever may change between two uses of a token,
time and revocations, is checked by the caller at every one. A text is a key here and never a token's name: a second
text of the same token (ECDSA has some) is merely not found.

Nothing waits for a lock. A hit takes none: it reads one reference to a `_Generation` and one entry of its dictionary,
and entries are never changed. Of those who add at the same moment one does, the others go without: so neither a signal
handler nor an event loop can hang here. This leans on single operations of `dict` and on reading and storing an
attribute being indivisible, which the interpreter lock gives, and which free-threaded CPython (PEP 703) promises for
its built-in containers; every other step is done with the lock held.
"""

import os
import sys
import weakref
from collections import deque
from threading import Lock, get_ident, local
from typing import Any

from msgspec import Struct

from jotgate.core.claims import Claims
from jotgate.core.jwk import KeySet
from jotgate.core.jws import MAX_TOKEN_BYTES

# What one entry takes besides the text and the values of its claims: its tuple, its places in the dictionary and in the
# order, the Claims with its two containers, and the numbers that those hold beside the values.
_ENTRY_BYTES = 900
_MOST_THREADS = 1024
_NOTHING = (0, 0, None)


class CacheStatus(Struct, frozen=True):
    """What a cache of verified tokens holds, and what it was good for. Counted since it was made, or since a fork."""

    entries: int
    bytes: int
    """An estimate that is rather too high."""
    hits: int
    misses: int
    """Tokens that had to be proved, those among them that were refused."""


class _Generation:
    """The tokens that one key set has proved. Another set is another generation: this one is dropped whole."""

    __slots__ = ("bytes", "entries", "keys", "order")

    def __init__(self, keys: KeySet | None) -> None:
        self.keys = keys
        self.entries: dict[str, tuple[int, int, Claims]] = {}
        """For each text: from when and until when (Unix seconds, exclusive) its claims stand."""
        self.order: deque[tuple[str, int, int]] = deque()
        """Texts, with their end and weight, as they came. Tokens of one issuer live alike: the oldest end first."""
        self.bytes = 0

    def add(self, text: str, entry: tuple[int, int, Claims], weight: int, max_entries: int, max_bytes: int) -> None:
        """Let old entries go until this one fits. An exception at any step leaves no entry without its place."""
        now, until, _ = entry
        entries, order = self.entries, self.order
        if text not in entries:  # else another thread was as fast, or the clock was set back
            while order and (self.bytes + weight > max_bytes or len(order) >= max_entries or order[0][1] <= now):
                oldest, _, freed = order.popleft()
                entries.pop(oldest, None)
                self.bytes -= freed
            self.bytes += weight
            order.append((text, until, weight))
        entries[text] = entry


class TokenCache:
    """At most `max_entries` tokens and about `max_bytes` bytes, first in, first out. Shared by all threads.

    `claims_type` is the policy's: what `find_typed` reads claims into.
    """

    def __init__(self, max_entries: int, max_bytes: int, claims_type: type[Struct] | None = None) -> None:
        self._claims_type = claims_type
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.forget()
        _everyone.add(self)

    def forget(self) -> None:
        """Start empty, with counts at 0 and a lock that nobody holds."""
        self._lock = Lock()
        self._generation = _Generation(None)
        # [hits, misses] for each thread, which alone adds to them. The name of a thread that has ended passes to a
        # later one, and the counts with it.
        self._counts: dict[int, list[int]] = {}
        self._others = [0, 0]  # of threads beyond the bound, who may overwrite each other's counts
        self._mine = local()  # where a thread finds its own counts, in half the time of a look-up by its name

    def find(self, token: str | bytes, keys: KeySet, now: int) -> Claims | None:
        """Give the claims of a token that `keys` proved before and that has begun and not ended at `now`."""
        try:
            counts = self._mine.counts
        except AttributeError:
            counts = self._mine.counts = self._count_thread()
        text = token if type(token) is str else _text(token)
        generation = self._generation
        # Longer texts are not even hashed.
        if generation.keys is keys and len(text) <= MAX_TOKEN_BYTES:
            since, until, claims = generation.entries.get(text, _NOTHING)
            if since <= now < until:
                counts[0] += 1
                return claims
        counts[1] += 1
        return None

    def find_typed(self, token: str | bytes, keys: KeySet, now: int) -> Claims | None:
        """Do the same where claims are read into an own type: anew at each use, as whoever gets one may change it.

        Raises ClaimRefused, should that type's own code refuse now what it took before.
        """
        known = self.find(token, keys, now)
        return None if known is None else known.as_type(self._claims_type)

    def add(self, token: str | bytes, keys: KeySet, claims: Claims, now: int, leeway_s: int) -> None:
        """Remember what `verify_token` has just said of a token, with these keys, at `now`.

        From `now` on its answer stands until the token ends: what has begun stays so. Where a clock is set back behind
        `now`, the token is proved anew.
        """
        text = token if type(token) is str else _text(token)
        if text == "":
            return
        if claims.custom is not None:
            claims = claims.as_type(None)
        until = claims.expires_at + leeway_s
        weight = _ENTRY_BYTES + sys.getsizeof(text) + _size_of(claims._members)  # noqa: SLF001 # a copy would cost more
        if weight > self._max_bytes or not self._lock.acquire(blocking=False):
            return
        try:
            generation = self._generation
            if generation.keys is not keys:
                generation = self._generation = _Generation(keys)
            generation.add(text, (now, until, claims), weight, self._max_entries, self._max_bytes)
        finally:
            self._lock.release()

    def status(self) -> CacheStatus:
        """Count. While other threads go on, the numbers need not be of one moment."""
        generation = self._generation
        counts = [self._others, *self._counts.copy().values()]
        return CacheStatus(
            entries=len(generation.order),
            bytes=generation.bytes,
            hits=sum(each[0] for each in counts),
            misses=sum(each[1] for each in counts),
        )

    def _count_thread(self) -> list[int]:
        if len(self._counts) >= _MOST_THREADS:  # not threads, rather a library's that gives each task a name of its own
            return self._others
        return self._counts.setdefault(get_ident(), [0, 0])


def _text(token: object) -> str:
    """Give what a token's text is found by; "" for what is none, and for a str whose class may lie about itself."""
    if type(token) is bytes and token.isascii():
        return token.decode("ascii")
    return ""


def _size_of(value: Any) -> int:  # noqa: ANN401 # whatever JSON can say
    size = sys.getsizeof(value)
    if type(value) is dict:
        for name, member in value.items():
            size += sys.getsizeof(name) + _size_of(member)
    elif type(value) is list:
        size += size  # `aud` has one copy more, in what Claims reads its attributes from
        for member in value:
            size += _size_of(member)
    return size


# A fork copies one thread only: in the child, another one's lock would stay held, and its entry half added.
_everyone: weakref.WeakSet[TokenCache] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for cache in _everyone:
        cache.forget()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork_in_child)
