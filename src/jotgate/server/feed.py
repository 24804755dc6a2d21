"""The revocation feed as this process serves it: signed messages, made once and shared by everybody who listens.

It knows messages and positions; it knows no store and no HTTP. Whoever follows the log appends to it, from one thread;
any number of readers on any event loops take frames from it. A reader has a position and no queue, so that a slow one
costs nothing: one that falls behind what is remembered is told to fetch the snapshot again.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from itertools import islice
from typing import Final

from msgspec import Struct

from jotgate.core.feed import sign_event, sign_snapshot
from jotgate.core.jwk import Key
from jotgate.core.revocations import Revocation
from jotgate.server.refusals import Busy

HEARTBEAT_S: Final = 5.0
SNAPSHOT_EVERY_S: Final = 1.0
RESYNC: Final = b"event: resync\ndata: -\n\n"

_RING_FRAMES: Final = 2_048
_RING_BYTES: Final = 8 * 1024 * 1024
# Who is further behind fetches the snapshot, which is one text for all: a thousand who come back at once with old
# positions must not get a copy of the ring each.
_MOST_AT_ONCE_BYTES: Final = 256 * 1024
_RESIGN_S: Final = 5.0  # a snapshot says when it was made, so that an old one can be told from a new one


class Position(Struct, frozen=True):
    """How far a reader has read: a log, and a sequence number in it."""

    log_id: str
    seq: int

    def __str__(self) -> str:
        return f"{self.log_id}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """Read what `str` writes; None for anything else, which no reader of ours sends."""
        log_id, _, digits = text.rpartition(".")
        if not log_id or len(text) > 128 or not (digits.isascii() and digits.isdecimal() and len(digits) <= 16):
            return None
        return cls(log_id, int(digits))


class _Frame(Struct, frozen=True):
    prev: int
    seq: int
    text: bytes


class _Snapshot(Struct, frozen=True):
    position: Position
    raw: bytes
    made_at: float


class Bell:
    """Wakes whoever waits, on whichever event loops, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        self._rung = 0

    @property
    def rung(self) -> int:
        """How often it has rung."""
        return self._rung

    def ring(self) -> None:
        """Wake all; each event loop is told once."""
        with self._lock:
            self._rung += 1
            waiting, self._waiting = self._waiting, {}
        for loop, futures in waiting.items():
            try:
                loop.call_soon_threadsafe(_finish, futures)
            except RuntimeError:  # that loop was closed meanwhile, so nobody waits there any more
                continue

    async def wait(self, rung: int, timeout_s: float) -> None:
        """Return once it has rung more than `rung` times, or after the time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._rung != rung:
                return
            futures = self._waiting.setdefault(loop, [])
            futures.append(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            if not future.done():  # the time is over, or the reader is gone
                future.cancel()
                with self._lock:
                    if future in futures:
                        futures.remove(future)


def _finish(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Feed:
    """Signed messages of one log.

    Args:
        key: signs the feed and nothing else.
        entries: gives what is revoked, at once and complete as of the last `append`.
        keep_s: how long an entry matters.
        connections: how many streams this process serves at once, and how many more to known verifiers.
        connections_per_address: how many of them to one address.
    """

    def __init__(
        self,
        key: Key | None,
        *,
        issuer: str,
        entries: Callable[[], tuple[Revocation, ...]],
        keep_s: int,
        connections: int,
        connections_per_address: int,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = key
        self._issuer = issuer
        self._entries = entries
        self._keep_s = keep_s
        self._connections = connections
        self._connections_per_address = connections_per_address
        self._clock = clock
        self._monotonic = monotonic
        self._bell = Bell()
        self._lock = threading.Lock()  # guards what follows
        self._head = Position("", 0)
        self._ring: deque[_Frame] = deque()
        self._ring_bytes = 0
        self._number = 0  # of the first frame in the ring: grows with everything that is dropped there
        self._signing = threading.Lock()
        self._snapshot: _Snapshot | None = None
        self._open = 0
        self._open_to_known = 0
        self._open_by_address: dict[str, int] = {}  # without those that have none
        self._closed = False
        self._confirmed_at = float("-inf")
        self._confirmed_when = 0

    @property
    def head(self) -> Position:
        """How far the feed goes."""
        return self._head

    @property
    def open_streams(self) -> int:
        """How many readers are connected."""
        return self._open + self._open_to_known

    def begin(self, log_id: str, seq: int) -> None:
        """Start, or start again in another log: whoever reads is told to fetch the snapshot."""
        with self._lock:
            self._number += len(self._ring) + 1  # behind every reader's position
            self._ring.clear()
            self._ring_bytes = 0
            self._head = Position(log_id, seq)
        self.confirm()
        self._bell.ring()

    def use_key(self, key: Key | None) -> None:
        """Sign with this key from now on. What another key has signed is not sent any more: it may be revoked.

        Readers that are behind fetch the snapshot; the others notice nothing. Without a key there is silence: streams
        end, and whoever asks hears that this process is busy.
        """
        if key is self._key:
            return
        with self._signing, self._lock:
            self._key = key
            self._snapshot = None
            self._forget()
        self._bell.ring()

    def _forget(self) -> None:
        """Drop what is remembered; under the lock."""
        self._number += len(self._ring)
        self._ring.clear()
        self._ring_bytes = 0

    def confirm(self) -> None:
        """Note that the log has just been read, and that the feed has all of it."""
        self._confirmed_at, self._confirmed_when = self._monotonic(), self._clock()

    @property
    def _is_current(self) -> bool:
        """Whether this process may say that nothing is missing: not while it cannot read the log."""
        return self._monotonic() - self._confirmed_at <= HEARTBEAT_S

    def append(self, seq: int, revocations: Iterable[Revocation]) -> None:
        """Publish what was logged up to `seq`, in the order of the log: at most a few hundred ids at once."""
        self._push(seq, b"revocations", revocations)

    def beat(self) -> None:
        """Tell everybody that nothing came since the last event. To be called only by who knows that."""
        self._push(self._head.seq, b"heartbeat")

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._bell.ring()

    def snapshot(self) -> tuple[Position, bytes]:
        """Give all that is revoked, signed. Blocks while it signs, at most once a second however many ask."""
        made = self._snapshot
        if made is not None and not self._is_old(made):
            return made.position, made.raw
        with self._signing:
            made = self._snapshot
            if made is None or self._is_old(made):
                key = self._usable_key()
                # The position first: an entry that comes in between is in the snapshot, and comes again as an event.
                position = self._head
                raw = sign_snapshot(
                    key,
                    issuer=self._issuer,
                    log_id=position.log_id,
                    seq=position.seq,
                    # Nobody who starts anew goes without what is known; when that was, it has to say.
                    now=self._clock() if self._is_current else self._confirmed_when,
                    keep_s=self._keep_s,
                    revocations=self._entries(),
                ).encode("ascii")
                made = self._snapshot = _Snapshot(position, raw, self._monotonic())
            return made.position, made.raw

    def _is_old(self, made: _Snapshot) -> bool:
        age_s = self._monotonic() - made.made_at
        if made.position.log_id != self._head.log_id:
            return True
        return age_s >= (SNAPSHOT_EVERY_S if made.position != self._head else _RESIGN_S)

    def since(self, position: Position | None) -> bytes:
        """Give the frames after a position and a heartbeat, for those who ask again and again.

        Raises Busy while the log cannot be read: a heartbeat would say that nothing is missing.
        """
        self._check_current()
        with self._lock:
            frames, _ = self._after(position)
            head = self._head
        return frames + self._heartbeat(head)

    def _check_current(self) -> None:
        self._usable_key()
        if not self._is_current:
            raise Busy("The revocations cannot be read at the moment: try again shortly.", retry_after_s=1)

    def _usable_key(self) -> Key:
        key = self._key
        if key is None:
            raise Busy("The revocations cannot be signed at the moment: try again shortly.", retry_after_s=1)
        return key

    async def open_stream(self, position: Position | None, *, address: str | None) -> AsyncGenerator[bytes]:
        """Give the frames after a position as they come, until the feed closes; without a position, from now on.

        The stream has its place from here on, until it is closed (`aclose`) or ends.

        Args:
            address: whose places it takes one of; None for a verifier that is known, with places nobody else takes.

        Raises Busy when this process serves as many streams as it may, or cannot read the log.
        """
        self._check_current()
        stream = self._stream(position, address)
        await anext(stream)
        return stream

    def _take_place(self, address: str | None) -> None:
        with self._lock:
            if address is None:
                if self._open_to_known >= self._connections:
                    raise Busy(_TOO_MANY, retry_after_s=5)
                self._open_to_known += 1
                return
            here = self._open_by_address.get(address, 0)
            if self._open >= self._connections or here >= self._connections_per_address:
                raise Busy(_TOO_MANY, retry_after_s=5)
            self._open += 1
            self._open_by_address[address] = here + 1

    def _leave_place(self, address: str | None) -> None:
        with self._lock:
            if address is None:
                self._open_to_known -= 1
                return
            self._open -= 1
            self._open_by_address[address] -= 1
            if not self._open_by_address[address]:
                del self._open_by_address[address]

    async def _stream(self, position: Position | None, address: str | None) -> AsyncGenerator[bytes]:
        self._take_place(address)
        try:
            yield b""  # to have begun, so that closing it gives the place back whatever happens meanwhile
            rung = self._bell.rung
            with self._lock:
                frames, number = self._after(position)
                head = self._head
            yield frames + self._heartbeat(head)
            while not self._closed and self._key is not None:
                await self._bell.wait(rung, 2 * HEARTBEAT_S)
                rung = self._bell.rung
                with self._lock:
                    frames, number = self._from(number)
                    head = self._head
                if frames:
                    yield frames + self._heartbeat(head) if frames == RESYNC else frames
        except Busy:  # there is no key to sign with any more: the stream ends
            return
        finally:
            self._leave_place(address)

    def _push(self, seq: int, kind: bytes, revocations: Iterable[Revocation] = ()) -> None:
        self.confirm()
        told = tuple(revocations)
        while True:
            key = self._key
            frame = None if key is None else self._frame(key, self._head, seq, kind, told)
            with self._lock:
                if key is not self._key:  # revoked while it signed
                    continue
                if frame is None:
                    self._forget()
                    self._number += 1  # who reads on when there is a key again has missed something
                else:
                    self._remember(frame)
                self._head = Position(self._head.log_id, seq)
                break
        self._bell.ring()

    def _remember(self, frame: _Frame) -> None:
        """Keep what readers that are behind may still ask for; under the lock."""
        self._ring.append(frame)
        self._ring_bytes += len(frame.text)
        while len(self._ring) > _RING_FRAMES or self._ring_bytes > _RING_BYTES:
            self._ring_bytes -= len(self._ring.popleft().text)
            self._number += 1

    def _heartbeat(self, head: Position) -> bytes:
        return self._frame(self._usable_key(), head, head.seq, b"heartbeat").text

    def _frame(self, key: Key, head: Position, seq: int, kind: bytes, revocations: Iterable[Revocation] = ()) -> _Frame:
        signed = sign_event(
            key,
            issuer=self._issuer,
            log_id=head.log_id,
            prev=head.seq,
            seq=seq,
            now=self._clock(),
            keep_s=self._keep_s,
            revocations=revocations,
        )
        position = str(Position(head.log_id, seq)).encode("ascii")
        return _Frame(head.seq, seq, b"id: %s\nevent: %s\ndata: %s\n\n" % (position, kind, signed.encode("ascii")))

    def _after(self, position: Position | None) -> tuple[bytes, int]:
        """Give the frames after a position, and the number of the next one; under the lock."""
        end = self._number + len(self._ring)
        if position is None or position == self._head:
            return b"", end
        known = position.log_id == self._head.log_id and position.seq < self._head.seq
        if not known or not self._ring or self._ring[0].prev > position.seq:
            return RESYNC, end
        return _joined([frame.text for frame in self._ring if frame.seq > position.seq]), end

    def _from(self, number: int) -> tuple[bytes, int]:
        """Give the frames from a number on, and the number of the next one; under the lock."""
        end = self._number + len(self._ring)
        if number < self._number:
            return RESYNC, end
        return _joined([frame.text for frame in islice(self._ring, number - self._number, None)]), end


_TOO_MANY: Final = "Too many verifiers listen here: poll instead, or try again shortly."


def _joined(frames: list[bytes]) -> bytes:
    """Put frames together, unless that would be more than anybody gets at once."""
    return RESYNC if sum(map(len, frames)) > _MOST_AT_ONCE_BYTES else b"".join(frames)
