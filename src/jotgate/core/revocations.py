"""Which sessions have been revoked while a token of theirs can be alive, as a value; knows no store and no network."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from jotgate.core.claims import Claims
from jotgate.core.errors import TokenRevoked


class Revocations:
    """One frozen snapshot: replaced as a whole, read by any number of threads without a lock."""

    __slots__ = ("_sessions",)

    def __init__(self, sessions: Mapping[str, int] | None = None) -> None:
        """`sessions` maps a session id (`sid`) to the Unix second from which no token of it can be alive."""
        self._sessions: Mapping[str, int] = dict(sessions or {})

    @classmethod
    def view(cls, sessions: Mapping[str, int]) -> "Revocations":
        """Give what `sessions` says at any moment: its owner may add to it, and nothing is copied."""
        revocations = cls()
        revocations._sessions = sessions
        return revocations

    @property
    def sessions(self) -> Mapping[str, int]:
        """Session ids, each with the time until which it matters."""
        return MappingProxyType(self._sessions)

    def check_revoked(self, claims: Claims) -> None:
        """Raise TokenRevoked if the token's session has been revoked."""
        if claims.session_id in self._sessions:
            raise TokenRevoked("The token's session has ended.")

    def with_sessions(self, entries: Mapping[str, int] | Iterable[tuple[str, int]], now: int) -> "Revocations":
        """Give a snapshot with `entries` (`sid`, until) besides, and without those that no longer matter at `now`.

        A session that is known already keeps the later of its two times.
        """
        sessions = dict(self._sessions)
        for sid, until in entries.items() if isinstance(entries, Mapping) else entries:
            sessions[sid] = max(until, sessions.get(sid, until))
        return Revocations({sid: until for sid, until in sessions.items() if until > now})

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        return f"<Revocations sessions={len(self._sessions)}>"
