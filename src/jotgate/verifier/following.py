"""What a verifier makes of the revocation feed's messages: pure; knows no network, thread or clock.

Whatever the issuer has signed for the feed is believed, and never forgotten before its time: an entry only ever makes
the verifier refuse. What may be wrong is to believe that nothing is missing. So a verifier has *heard* only when a
message that is newer than all before says that the log goes no further than what the verifier has; after a gap, or in
another log, it fetches the snapshot first, and keeps what it knew besides.
"""

from typing import Final, NamedTuple

from jotgate.core.errors import JotgateError
from jotgate.core.feed import Message
from jotgate.core.revocations import Revocation, RevocationList

MAX_ENTRIES: Final = 1_000_000
OLDEST_S: Final = 120
"""A message that the issuer signed longer ago than this is no news, however it got here: both clocks together may be
off by as much."""
REGRESS_S: Final = 10
"""A log that ends earlier than before is a replica that lags behind. After so much time it is the log."""

_MAX_AHEAD: Final = 4_096


class FeedFull(JotgateError):
    """The issuer has revoked more than a verifier keeps. What it cannot keep it does not know: it has not heard."""

    code = "feed_full"


class Taken(NamedTuple):
    """What came of a message."""

    new: list[Revocation]
    """What was not known before."""
    heard: bool
    """Whether nothing was missing when the issuer signed the message, a moment ago."""
    resync: bool
    """Whether the snapshot has to be fetched before that can be said again."""


class Following:
    """How far a verifier has followed an issuer's log, and what it knows of it."""

    def __init__(self) -> None:
        self.known = RevocationList()
        self.log_id: str | None = None
        """None until there was a snapshot."""
        self.seq = 0
        self.sent_at = 0
        """The newest time that the issuer has signed so far, Unix seconds."""
        self._set_back: tuple[int, float] | None = None  # (issuer's clock, monotonic) of the first message before that
        self._ahead: list[tuple[str, int, int]] = []  # (log, prev, seq) of events that came before the snapshot did

    @property
    def position(self) -> str | None:
        """The id of the last event that nothing is missing before; None where there is none to go on from."""
        return None if self.log_id is None else f"{self.log_id}.{self.seq}"

    def take_snapshot(self, message: Message, *, monotonic: float, wall: int) -> Taken:
        """Take in a snapshot that has been verified. Raises FeedFull."""
        new = self._learn(message, monotonic)
        same = message.log_id == self.log_id
        if same and message.seq < self.seq and message.sent_at <= self.sent_at + REGRESS_S:
            return Taken(new, heard=False, resync=False)
        self.log_id, self.seq = message.log_id, message.seq
        for log_id, prev, seq in self._ahead:
            if log_id == self.log_id and prev <= self.seq:
                self.seq = max(self.seq, seq)
        self._ahead.clear()
        return Taken(new, heard=self._is_news(message, monotonic, wall), resync=False)

    def take_event(self, message: Message, *, monotonic: float, wall: int) -> Taken:
        """Take in an event or heartbeat that has been verified. Raises FeedFull."""
        new = self._learn(message, monotonic)
        prev = message.prev or 0
        if message.log_id != self.log_id or prev > self.seq:
            if len(self._ahead) < _MAX_AHEAD:
                self._ahead.append((message.log_id, prev, message.seq))
            return Taken(new, heard=False, resync=True)
        behind = message.seq < self.seq
        self.seq = max(self.seq, message.seq)
        if behind:
            # A replica that lags; or a log that was put back, which the snapshot tells once the time has come.
            return Taken(new, heard=False, resync=message.sent_at > self.sent_at + REGRESS_S)
        return Taken(new, heard=self._is_news(message, monotonic, wall), resync=False)

    def drop(self, monotonic: float) -> None:
        """Forget entries whose time is over."""
        self.known.drop(int(monotonic))

    def _learn(self, message: Message, monotonic: float) -> list[Revocation]:
        coming = sum(max(len(each.ids), 1) for each in message.revocations)
        if len(self.known) + coming > 2 * MAX_ENTRIES:
            raise FeedFull("The issuer has revoked more than this verifier keeps.")
        return self.known.add(message.revocations, keep_until=int(monotonic) + message.keep_s + 1)

    def _is_news(self, message: Message, monotonic: float, wall: int) -> bool:
        """Note the issuer's time, which a recording that somebody plays back cannot carry on.

        A clock that was ahead and has been put right goes on from an earlier time, though: after REGRESS_S it is the
        clock.
        """
        if message.sent_at < wall - OLDEST_S:
            return False
        if message.sent_at < self.sent_at:
            if self._set_back is None or message.sent_at < self._set_back[0]:
                self._set_back = (message.sent_at, monotonic)
            first_at, since = self._set_back
            if min(message.sent_at - first_at, monotonic - since) < REGRESS_S:
                return False
        self.sent_at = message.sent_at
        self._set_back = None
        return True
