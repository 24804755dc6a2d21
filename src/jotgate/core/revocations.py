"""What has been revoked while a token that it concerns can be alive, as values; knows no store, network or clock.

A revocation matters only until the last token that it concerns has expired, so that what verifiers need to know stays
small however many sessions live. One owner adds to a `RevocationList`; any number of threads read its `Revocations`.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from jotgate.core.claims import Claims
from jotgate.core.errors import TokenRevoked

Kind = Literal["session", "token", "client", "all", "key"]


class Revocation(Struct, frozen=True):
    """Tokens that must not be taken any more, although they have not expired.

    `session` names sessions (`sid`), `token` single tokens (`jti`), and `key` signing keys (`kid`): every token of
    theirs is meant. `client` names clients (`client_id`), and `all` names nobody: meant are tokens that were issued up
    to and in the second `at`. An account is its sessions.
    """

    kind: Kind
    ids: tuple[str, ...] = ()
    at: int = 0
    """Unix time in seconds; decides for `client` and `all` alone."""

    def covers(self, claims: Claims) -> bool:
        """Tell whether a token with these claims is meant. Of `key`, claims know nothing: it is never said to cover."""
        match self.kind:
            case "session":
                return claims.session_id in self.ids
            case "token":
                return claims.token_id in self.ids
            case "client":
                return claims.client_id in self.ids and _issued_by(claims, self.at)
            case "all":
                return _issued_by(claims, self.at)
            case _:
                return False


class Revocations:
    """What is revoked, for readers: checking is a look-up or two, without a lock.

    Sessions may be added by the owner while others read. All else is rare, and comes with a new `Revocations`.
    """

    __slots__ = ("_all_at", "_clients", "_rare", "_sessions", "_tokens")

    def __init__(
        self,
        sessions: Mapping[str, int] | None = None,
        *,
        tokens: Mapping[str, int] | None = None,
        clients: Mapping[str, int] | None = None,
        all_at: int | None = None,
    ) -> None:
        """`sessions` and `tokens` map a `sid` and a `jti` to any number, `clients` a `client_id` to the last `iat`
        that is refused, and `all_at` is the last one that is refused of anybody.
        """
        self._sessions: Mapping[str, int] = dict(sessions or {})
        self._tokens: Mapping[str, int] = dict(tokens or {})
        self._clients: Mapping[str, int] = dict(clients or {})
        self._all_at = all_at
        self._rare = bool(self._tokens or self._clients or all_at is not None)

    @classmethod
    def view(
        cls,
        sessions: Mapping[str, int],
        *,
        tokens: Mapping[str, int] | None = None,
        clients: Mapping[str, int] | None = None,
        all_at: int | None = None,
    ) -> "Revocations":
        """Give what `sessions` says at any moment: its owner may add to it, and it is not copied."""
        revocations = cls(tokens=tokens, clients=clients, all_at=all_at)
        revocations._sessions = sessions
        return revocations

    @property
    def sessions(self) -> Mapping[str, int]:
        """The revoked session ids."""
        return MappingProxyType(self._sessions)

    def check_revoked(self, claims: Claims) -> None:
        """Raise TokenRevoked if the token, its session, its client or everything of its time has been revoked."""
        # As `claims.session_id`, without its call: a tenth of the time that a remembered token takes.
        sid = claims._registered.sid  # noqa: SLF001
        if sid and sid in self._sessions:
            raise TokenRevoked("The token's session has ended.")
        if self._rare:
            self._check_rare(claims)

    def _check_rare(self, claims: Claims) -> None:
        if claims.token_id in self._tokens:
            raise TokenRevoked("The token has been revoked.")
        last = self._clients.get(claims.client_id) if claims.client_id is not None else None
        if any(at is not None and _issued_by(claims, at) for at in (last, self._all_at)):
            raise TokenRevoked("The tokens of this time have been revoked.")

    def __len__(self) -> int:
        return len(self._sessions) + len(self._tokens) + len(self._clients) + (self._all_at is not None)

    def __repr__(self) -> str:
        return f"<Revocations {len(self)} entries>"


class RevocationList:
    """The revocations that still matter, as their one owner gathers them.

    Every entry is kept for a time after it was learnt, on a clock that is never set: a wall clock that jumps ahead and
    back must not make anybody forget. Its owner has to see to it that one thread at a time adds or drops.
    """

    __slots__ = ("_all", "_clients", "_keys", "_sessions", "_tokens", "revocations")

    revocations: Revocations
    """What readers look into. Another object after every change but added sessions."""

    def __init__(self) -> None:
        self._sessions: dict[str, int] = {}  # what is revoked -> the second until which to keep it
        self._tokens: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._clients: dict[str, tuple[int, int]] = {}  # client -> (at, keep until)
        self._all: tuple[int, int] | None = None
        self._show()

    @property
    def revoked_keys(self) -> frozenset[str]:
        """The `kid`s of revoked keys: no key set may offer them, wherever it comes from."""
        return frozenset(self._keys)

    def add(self, revocations: Iterable[Revocation], *, keep_until: int) -> list[Revocation]:
        """Take in revocations, to be kept until the monotonic second `keep_until`; give what was new of them.

        What is known already keeps its time: being told again is no reason to keep it longer.
        """
        added = [new for each in revocations if (new := self._add(each, keep_until)) is not None]
        if any(each.kind != "session" for each in added):
            self._show()
        return added

    def _add(self, each: Revocation, keep_until: int) -> Revocation | None:
        if each.kind == "all":
            if self._all is not None and self._all[0] >= each.at:
                return None
            self._all = (each.at, keep_until)
            return each
        if each.kind == "client":
            ids = tuple(name for name in each.ids if name not in self._clients or self._clients[name][0] < each.at)
            self._clients.update(dict.fromkeys(ids, (each.at, keep_until)))
        else:
            known = {"session": self._sessions, "token": self._tokens, "key": self._keys}[each.kind]
            ids = tuple(name for name in each.ids if name not in known)
            known.update(dict.fromkeys(ids, keep_until))
        return Revocation(each.kind, ids, each.at) if ids else None

    def drop(self, now: int) -> None:
        """Forget what was to be kept until the monotonic second `now` or an earlier one."""
        self._sessions = {sid: until for sid, until in self._sessions.items() if until > now}
        self._tokens = {jti: until for jti, until in self._tokens.items() if until > now}
        self._keys = {kid: until for kid, until in self._keys.items() if until > now}
        self._clients = {name: cut for name, cut in self._clients.items() if cut[1] > now}
        if self._all is not None and self._all[1] <= now:
            self._all = None
        self._show()

    def _show(self) -> None:
        clients = {name: at for name, (at, _) in self._clients.items()}
        all_at = self._all[0] if self._all else None
        self.revocations = Revocations.view(self._sessions, tokens=self._tokens, clients=clients, all_at=all_at)

    def __iter__(self) -> Iterator[Revocation]:
        """All entries, grouped."""
        if self._sessions:
            yield Revocation("session", tuple(self._sessions))
        if self._tokens:
            yield Revocation("token", tuple(self._tokens))
        if self._keys:
            yield Revocation("key", tuple(self._keys))
        for name, (at, _) in self._clients.items():
            yield Revocation("client", (name,), at)
        if self._all is not None:
            yield Revocation("all", (), self._all[0])

    def __len__(self) -> int:
        entries = len(self._sessions) + len(self._tokens) + len(self._keys) + len(self._clients)
        return entries + (self._all is not None)

    def __repr__(self) -> str:
        return f"<RevocationList {len(self)} entries>"


def _issued_by(claims: Claims, at: int) -> bool:
    """Whether a token was issued up to and in the second `at`; one that does not say when, was."""
    return claims.issued_at is None or claims.issued_at <= at
