"""The server's own keys in memory, and what is done with them: made, rotated, revoked, brought in.

The database holds them sealed; `rules.keys` decides. One ring in each process has an immutable picture of them, which
is replaced whole: whoever signs or verifies reads it without a lock. It knows no HTTP and no event loop; methods that
say so block.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog

from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import KeyRefused, SettingsError
from jotgate.core.jwk import Key, KeySet
from jotgate.issuer import Issuer
from jotgate.keygen import generate_key
from jotgate.server.records import SealedKey
from jotgate.server.refresh_tokens import MAC_KEY_BYTES, RefreshTokens, new_mac_kid
from jotgate.server.rules.keys import (
    KeyChange,
    NoSuchKey,
    Schedule,
    Spare,
    Standing,
    bring,
    check_unused,
    is_published,
    prefer,
    revoke,
    rotate,
    standing,
    turn,
)
from jotgate.server.sealing import MasterKey
from jotgate.server.settings import MAX_ACCESS_TOKEN_TTL_S, MAX_SESSION_IDLE_S, Settings
from jotgate.server.store import Store

Purpose = Literal["access", "feed", "refresh"]
PURPOSES: Final[tuple[Purpose, ...]] = ("access", "feed", "refresh")
"""Access tokens are signed by one key, the revocation feed by another; refresh tokens have a MAC under a third."""

# The longest life that a setting allows, the most leeway that a policy allows, and a minute for requests under way:
# whatever this server, or one with another setting, signs for a session that ends now has expired by then.
REVOCATION_LIFE_S: Final = MAX_ACCESS_TOKEN_TTL_S + 60 + 60
PUBLISHED_AHEAD: Final = 3
"""For how many cache times a key is published before it signs: many clients keep keys for ten minutes, whatever the
server says of five."""
_FEED_ALGORITHM: Final = "ES256"
_MAC_ALGORITHM: Final = "HS256"

_Decide = Callable[[Sequence[SealedKey]], KeyChange]
_DecideWith = Callable[[Sequence[SealedKey], int, Spare], KeyChange]


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The keys at one moment."""

    signing: Key
    """Signs access tokens."""
    issuer: Issuer
    """Does it."""
    trusted: KeySet
    """What access tokens are verified with in this process."""
    published: KeySet
    """The public halves of those: the JWK set. Empty where access tokens are signed with a secret."""
    feed: Key
    """Signs the revocation feed and nothing else."""
    feed_published: KeySet
    refresh_tokens: RefreshTokens


class KeyRing:
    """The keys of one issuer.

    Args:
        clock: Unix time in seconds.
        random: returns as many random bytes as it is asked for.
    """

    def __init__(
        self,
        store: Store,
        master: MasterKey,
        settings: Settings,
        *,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._store = store
        self._master = master
        self._settings = settings
        self._clock = clock
        self._random = random
        self._log = log
        self._changing = threading.Lock()
        self._rows: list[SealedKey] = []
        self._opened: dict[str, bytes | Key] = {}
        self._now: ServerKeys | None = None
        self._listeners: list[Callable[[ServerKeys], None]] = []

    @property
    def now(self) -> ServerKeys:
        """The keys as they are known here."""
        if self._now is None:
            raise RuntimeError("the key ring was not opened")
        return self._now

    def on_change(self, listener: Callable[[ServerKeys], None]) -> None:
        """Call `listener` with the keys now, and whenever they are other ones."""
        self._listeners.append(listener)
        listener(self.now)

    def rows(self) -> list[SealedKey]:
        """This issuer's keys as they stand in the database. Blocks."""
        return [row for row in self._store.load_keys() if row.issuer == self._settings.issuer]

    def open(self) -> None:
        """Make what is missing, begin to switch the algorithm if the setting says so, and load. Blocks.

        Raises:
            SettingsError: the master key is another one, or the algorithm cannot be used here.
        """
        # Before anything is changed, and for every issuer: a wrong master key must not leave keys behind that the right
        # one cannot open.
        self._open_rows(self._store.load_keys())
        wanted = self._settings.signing_algorithm
        try:
            self._commit(_adopt(self._settings.issuer))
            self._change("access", lambda rows, now, spare: prefer(rows, algorithm=wanted, now=now, spare=spare))
            self.turn()
        except KeyRefused as refused:
            raise SettingsError((f"signing_algorithm: {refused}",)) from None
        if ALGORITHMS[wanted].symmetric:
            self._log.warning(
                "symmetric_signing",
                algorithm=wanted,
                reason="who can verify such a token can also make one: only this server does, and publishes no key",
            )

    def reload(self) -> None:
        """Read the keys anew, and tell listeners. Blocks.

        A key that was revoked, and is in use again in a database that was restored from a copy, is revoked again.

        Raises:
            StoreError: they could not be read; those that are known stay.
            SettingsError: a new one was sealed under another master key; those that are known stay.
        """
        with self._changing:
            gone = {row.kid for row in self._rows if standing(row) is Standing.REVOKED}
            rows = self.rows()
            for row in rows:
                if row.kid in gone and is_published(row):
                    self._rows = rows
                    self.revoke(row.kid)
            rows = self.rows() if gone else rows
            self._open_rows(rows)
            self._rows = rows
            self._now = now = self._picture(rows)
            for listener in self._listeners:  # under the lock: what was read later must not be overtaken
                listener(now)

    @property
    def is_due(self) -> bool:
        """Whether `turn` would do anything."""
        now = self._clock()
        try:
            return any(self._turn(each)(self._of(each), now, _no_spare) != KeyChange() for each in PURPOSES)
        except _NeededError:
            return True

    def turn(self) -> bool:
        """Do what the schedule says. Blocks. Tells whether anything was done, here or by another process meanwhile.

        Raises:
            StoreError: it could not be done; it is due again.
        """
        due = self.is_due
        for purpose in PURPOSES:
            self._change(purpose, self._turn(purpose))
        if due or self._now is None:
            self.reload()
        return due

    def rotate(self, purpose: Purpose) -> KeyChange:
        """Let the next key of a purpose sign from now on. Blocks.

        Raises:
            KeyNotMature, NoSuchKey: there is none that verifiers know for certain.
        """
        schedule = self.schedule(purpose)
        return self._change(purpose, lambda rows, now, spare: rotate(rows, now=now, schedule=schedule, spare=spare))

    def revoke(self, kid: str) -> KeyChange:
        """Have nothing believed any more that this key has signed. Blocks.

        Raises:
            NoSuchKey: there is none that is in use.
        """
        purpose = self.purpose_of(kid)
        schedule = self.schedule(purpose)
        return self._change(
            purpose, lambda rows, now, spare: revoke(rows, kid, now=now, schedule=schedule, spare=spare)
        )

    def purpose_of(self, kid: str) -> Purpose:
        """What a key is for. Raises NoSuchKey."""
        for purpose in PURPOSES:
            if any(row.kid == kid for row in self._of(purpose)):
                return purpose
        raise NoSuchKey(f"There is no key {kid}.")

    def bring(self, key: Key) -> KeyChange:
        """Take a key pair that was made elsewhere as the next one for access tokens. Blocks.

        Raises:
            KeyInUse: its material, or its kid, is a key here already.
            KeyRefused: it has no private half.
        """
        if key.symmetric or not key.can_sign:
            raise KeyRefused("A private key is needed: one that may sign.")
        row = self._seal(key, "access")

        def decide(rows: Sequence[SealedKey]) -> KeyChange:
            check_unused(rows, row)
            return bring(self._only(rows, "access"), row, now=self._clock())

        return self._commit(decide)

    def schedule(self, purpose: Purpose) -> Schedule:
        """How long the parts of a key's life are for this purpose."""
        return Schedule(
            rotate_every_s=self._settings.key_rotation_s,
            publish_ahead_s=PUBLISHED_AHEAD * self._settings.jwks_max_age_s,
            # A refresh token lies unused for as long as any setting allows, and its key must still be there.
            keep_s=MAX_SESSION_IDLE_S if purpose == "refresh" else REVOCATION_LIFE_S,
        )

    # Changing

    def _turn(self, purpose: Purpose) -> _DecideWith:
        algorithm = {"access": self._settings.signing_algorithm, "feed": _FEED_ALGORITHM, "refresh": _MAC_ALGORITHM}
        first, schedule = algorithm[purpose], self.schedule(purpose)
        return lambda rows, now, spare: turn(rows, algorithm=first, now=now, schedule=schedule, spare=spare)

    def _change(self, purpose: Purpose, decide: _DecideWith) -> KeyChange:
        spares = _Spares(lambda algorithm: self._make(purpose, algorithm))

        def decide_anew(rows: Sequence[SealedKey]) -> KeyChange:
            spares.begin()
            return decide(self._only(rows, purpose), self._clock(), spares)

        if self._rows:
            decide_anew(self._rows)  # whatever keys that takes are made before a transaction holds up others
        return self._commit(decide_anew)

    def _commit(self, decide: _Decide) -> KeyChange:
        change = self._store.change_keys(decide, now=self._clock(), until_s=REVOCATION_LIFE_S)
        for event in change.events:
            alarming = event.early == "emergency" or event.name == "key_revoked"
            told = self._log.warning if alarming else self._log.info
            told(event.name, kid=event.kid, purpose=event.purpose, algorithm=event.algorithm, early=event.early)
        return change

    def _make(self, purpose: Purpose, algorithm: str) -> SealedKey:
        while True:
            if purpose == "refresh":
                raw = self._random(MAC_KEY_BYTES)
                key, sealed = Key.from_secret(raw, algorithm, kid=new_mac_kid(self._random)), raw
            else:
                key, sealed = generate_key(algorithm), None
            if not key.kid.startswith("-"):  # a command line would take it for an option
                return self._seal(key, purpose, sealed)

    def _seal(self, key: Key, purpose: Purpose, raw: bytes | None = None) -> SealedKey:
        if raw is None:
            raw = msgspec.json.encode(key.to_private_jwk()) if key.symmetric else key.to_pem().encode()
        return SealedKey(
            kid=key.kid,
            issuer=self._settings.issuer,
            purpose=purpose,
            algorithm=key.algorithm,
            sealed=self._master.seal(raw, purpose=purpose, kid=key.kid),
            thumbprint=key.thumbprint,
            created_at=self._clock(),
        )

    # Loading

    def _only(self, rows: Sequence[SealedKey], purpose: Purpose) -> list[SealedKey]:
        return [row for row in rows if row.purpose == purpose and row.issuer == self._settings.issuer]

    def _of(self, purpose: Purpose) -> list[SealedKey]:
        return self._only(self._rows, purpose)

    def _open_rows(self, rows: Sequence[SealedKey]) -> None:
        """Unseal what has not been so far, access keys first: theirs is the error that says most."""
        live = sorted(
            (row for row in rows if is_published(row)), key=lambda row: (PURPOSES.index(row.purpose), row.created_at)
        )
        for row in live:
            if row.kid not in self._opened:
                self._opened[row.kid] = self._unseal(row)
        kids = {row.kid for row in live}
        self._opened = {kid: opened for kid, opened in self._opened.items() if kid in kids}

    def _unseal(self, row: SealedKey) -> bytes | Key:
        raw = self._master.unseal(row.sealed, purpose=row.purpose, kid=row.kid)
        if row.purpose == "refresh":
            return raw
        if ALGORITHMS[row.algorithm].symmetric:
            return Key.from_jwk(raw, kid=row.kid)
        return Key.from_pem(raw, row.algorithm, kid=row.kid)

    def _picture(self, rows: Sequence[SealedKey]) -> ServerKeys:
        signing, trusted = self._pairs(rows, "access")
        feed, feed_trusted = self._pairs(rows, "feed")
        macs: Mapping[str, bytes] = {
            row.kid: opened
            for row in rows
            if row.purpose == "refresh" and isinstance(opened := self._opened.get(row.kid), bytes)
        }
        before = self._now
        return ServerKeys(
            signing=signing,
            issuer=Issuer(
                issuer=self._settings.issuer,
                keys=signing,
                ttl_s=self._settings.access_token_ttl_s,
                clock=self._clock,
            ),
            trusted=_same(None if before is None else before.trusted, trusted),
            published=KeySet() if signing.symmetric else _same(None if before is None else before.published, trusted),
            feed=feed,
            feed_published=_same(None if before is None else before.feed_published, feed_trusted),
            refresh_tokens=RefreshTokens(macs, active=self._active(rows, "refresh")),
        )

    def _pairs(self, rows: Sequence[SealedKey], purpose: Purpose) -> tuple[Key, KeySet]:
        """The key that signs, and all that are believed, in an order that stays: the next one last."""
        keys = {
            row.kid: opened
            for row in sorted(rows, key=_order)
            if row.purpose == purpose and isinstance(opened := self._opened.get(row.kid), Key)
        }
        signing = keys[self._active(rows, purpose)]
        # Secrets and key pairs do not go into one set. Who switches between them has people refresh their tokens once.
        return signing, KeySet(
            key if key.symmetric else key.public for key in keys.values() if key.symmetric == signing.symmetric
        )

    def _active(self, rows: Sequence[SealedKey], purpose: Purpose) -> str:
        for row in rows:
            if row.purpose == purpose and standing(row) is Standing.ACTIVE:
                return row.kid
        fault = f"the database has no {purpose} key of {self._settings.issuer}: `jotgate serve` makes it when it starts"
        raise SettingsError((fault,))


class _NeededError(Exception):
    """A new key would be made."""


def _order(row: SealedKey) -> tuple[bool, int, int, str]:
    return row.activated_at is None, row.activated_at or 0, row.created_at, row.kid


def _no_spare(algorithm: str) -> SealedKey:
    raise _NeededError(algorithm)


class _Spares:
    """New keys, made once however often a decision is tried anew: some take a while to make."""

    def __init__(self, make: Callable[[str], SealedKey]) -> None:
        self._make = make
        self._made: list[SealedKey] = []
        self._left: list[SealedKey] = []

    def begin(self) -> None:
        """Give those that were made already first."""
        self._left = list(self._made)

    def __call__(self, algorithm: str) -> SealedKey:
        known = next((key for key in self._left if key.algorithm == algorithm), None)
        if known is not None:
            self._left.remove(known)
            return known
        self._made.append(made := self._make(algorithm))
        return made


def _adopt(issuer: str) -> _Decide:
    """Make keys from before there were issuers this one's."""

    def decide(rows: Sequence[SealedKey]) -> KeyChange:
        return KeyChange(tuple(msgspec.structs.replace(row, issuer=issuer) for row in rows if not row.issuer))

    return decide


def _same(before: KeySet | None, after: KeySet) -> KeySet:
    """The set of before, where the keys are the same: what was proved under it stays proved."""
    return before if before is not None and [key.kid for key in before] == [key.kid for key in after] else after
