"""The server's own keys in memory, and what is done with them: made, rotated, revoked, brought in.

The database holds them sealed; `rules.keys` decides. One ring in each process has an immutable picture of them, which
is replaced whole: whoever signs or verifies reads it without a lock. It knows no HTTP and no event loop; methods that
say so block.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog

from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import JotgateError, KeyRefused, RequestRefused, SettingsError
from jotgate.core.jwk import Key, KeySet
from jotgate.issuer import Issuer
from jotgate.keygen import generate_key
from jotgate.server.device_tokens import DEVICE_LIFE_S, DeviceTokens
from jotgate.server.factor_keys import FactorKeys
from jotgate.server.mail.courier import GIVEN_UP_AFTER_S
from jotgate.server.mail_seals import MailSeals
from jotgate.server.records import Actor, AuditEvent, AuditName, SealedKey, audit_detail
from jotgate.server.refresh_tokens import MAC_KEY_BYTES, RefreshTokens, new_mac_kid
from jotgate.server.refusals import Busy
from jotgate.server.rules.clocks import ClockWatch
from jotgate.server.rules.keys import (
    KeyChange,
    KeyEvent,
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

Purpose = Literal["access", "feed", "refresh", "device", "mail", "factor"]
PURPOSES: Final[tuple[Purpose, ...]] = ("access", "feed", "refresh", "device", "mail", "factor")
"""Access tokens are signed by one key, the revocation feed by another; refresh tokens have a MAC under a third, and
device tokens under a fourth; mails that wait to be sent are sealed under a fifth, authenticator apps' secrets under a
sixth."""

# The longest life that a setting allows, the most leeway that a policy allows, and a minute for requests under way:
# whatever this server, or one with another setting, signs for a session that ends now has expired by then.
REVOCATION_LIFE_S: Final = MAX_ACCESS_TOKEN_TTL_S + 60 + 60
PUBLISHED_AHEAD: Final = 3
"""For how many cache times a key is published before it signs: many clients keep keys for ten minutes, whatever the
server says of five."""
_FEED_ALGORITHM: Final = "ES256"
_MAC_ALGORITHM: Final = "HS256"
_MACS: Final[frozenset[str]] = frozenset({"refresh", "device", "mail", "factor"})
_NEEDED: Final[tuple[Purpose, ...]] = ("access", "feed", "refresh")
"""Without one of these a server does nothing. Without a device key, every device is a stranger; without
one for mail, whatever needs a mail waits, and without one for factors, whoever has a second one."""

_Decide = Callable[[Sequence[SealedKey]], KeyChange]
_DecideWith = Callable[[Sequence[SealedKey], int, Spare], KeyChange]


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """The keys at one moment. What signs is None where its key cannot be used by this process."""

    signing: Key | None
    """Signs access tokens."""
    issuer: Issuer | None
    """Does it."""
    trusted: KeySet
    """What access tokens are verified with in this process."""
    published: KeySet
    """The public halves of those: the JWK set. Empty where access tokens are signed with a secret."""
    feed: Key | None
    """Signs the revocation feed and nothing else."""
    feed_published: KeySet
    refresh_tokens: RefreshTokens | None
    device_tokens: DeviceTokens | None
    mail_seals: MailSeals | None
    factors: FactorKeys | None


class KeyRing:
    """The keys of one issuer.

    Args:
        clock: Unix time in seconds.
        monotonic: seconds that nobody sets; the clock is believed while both go alike.
        random: returns as many random bytes as it is asked for.
        actor: who changes keys here, for the audit trail.
    """

    def __init__(
        self,
        store: Store,
        master: MasterKey,
        settings: Settings,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes],
        log: structlog.stdlib.BoundLogger,
        actor: Actor = "server",
    ) -> None:
        self._store = store
        self._master = master
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        # What a wrong clock has made to look old is old by then: nothing that was signed before lives longer.
        trust_after_s = max(REVOCATION_LIFE_S, PUBLISHED_AHEAD * settings.jwks_max_age_s)
        self._watch = ClockWatch(clock(), monotonic(), trust_after_s=trust_after_s)
        self._clock_jumped = False
        self._random = random
        self._log = log
        self._actor: Actor = actor
        self._changing = threading.Lock()
        self._rows: list[SealedKey] = []
        self._opened: dict[_Name, bytes | Key] = {}
        self._closed: dict[_Name, JotgateError | ValueError] = {}
        self._told: set[_Name] = set()  # what the log says of those
        self._asked: set[_Name] = set()  # those that the command for the master key was run for
        self._command_fault = ""
        self._revoked: set[str] = set()  # grows by what people revoke, one command a key
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
        with self._changing:  # or a change that comes in between would be overtaken by what was before it
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
        self._open_rows(self._store.load_keys(), strict=True)
        wanted = self._settings.signing_algorithm
        try:
            self._commit(_adopt(self._settings.issuer))
            self._turn_all()
            # After that, so that the setting counts at the very first start on a database from before it.
            self._rows = self.rows()
            self._change("access", lambda rows, now, spare: prefer(rows, algorithm=wanted, now=now, spare=spare))
            self._turn_all()
        except KeyRefused as refused:
            raise SettingsError((f"signing_algorithm: {refused}",)) from None
        self.load()
        if ALGORITHMS[wanted].symmetric:
            self._log.warning(
                "symmetric_signing",
                algorithm=wanted,
                reason="who can verify such a token can also make one: only this server does, and publishes no key",
            )

    def load(self, *, besides: Collection[str] = ()) -> None:
        """Read the keys for somebody who is about to change them, or to start with them. Blocks.

        Args:
            besides: the `kid`s of those that need not be usable: they are about to be revoked.

        Raises:
            SettingsError: there is none that signs, or one that cannot be used here: a new key beside it would be
                sealed under a wrong master key.
        """
        with self._changing:
            self._read(strict=True, besides=besides)
            for purpose in _NEEDED:
                if _active(self._of(purpose)) is None:
                    fault = f"the database has no {purpose} key of {self._settings.issuer}"
                    raise SettingsError((f"{fault}: `jotgate serve` makes it when it starts",))

    def reload(self) -> bool:
        """Read the keys anew, and tell listeners. Blocks. Tells whether each of them can be used here.

        One that cannot is left out, and the log says why: what was revoked is not believed any more, whatever else is
        wrong. A key that was revoked once, and is in use again in a database that was restored from a copy, is revoked
        again. No command is run for the master key, which may hang while a key is revoked: see `waits_for_command`.

        Raises:
            StoreError: they could not be read, or revoked again; those that are known stay.
        """
        with self._changing:
            back = self._read(strict=False)
            for kid in back:
                try:
                    self.revoke(kid)
                except NoSuchKey:  # another replica was faster
                    continue
            if back:
                self._read(strict=False)
            return not self._closed

    def _read(self, *, strict: bool, besides: Collection[str] = ()) -> list[str]:
        """Take over what the database holds, without what was ever revoked; returns the `kid`s that are back of that.

        To be called under the lock, so that listeners hear of changes in their order.
        """
        rows = self.rows()
        self._revoked |= {row.kid for row in rows if standing(row) is Standing.REVOKED}
        back = [row.kid for row in rows if row.kid in self._revoked and is_published(row)]
        usable = [row for row in rows if row.kid not in (*besides, *back)]
        self._open_rows(usable, strict=strict)
        self._rows = rows
        self._now = now = self._picture(usable)
        for listener in self._listeners:
            listener(now)
        return back

    @property
    def waits_for_command(self) -> bool:
        """Whether a key might open if the operator's command for the master key were run again."""
        return self._master.from_command and any(isinstance(error, SettingsError) for error in self._closed.values())

    def run_command(self) -> None:
        """Run the operator's command for the master key, for the next `reload`. Blocks for as long as that takes."""
        closed = set(self._closed)
        try:
            self._master.read_again()
            self._command_fault = ""
        except SettingsError as error:
            self._command_fault = f"; {error}"
        self._asked = closed

    @property
    def is_usable(self) -> bool:
        """Whether this process can sign whatever it has to sign."""
        now = self.now
        return now.issuer is not None and now.feed is not None and now.refresh_tokens is not None

    def check_usable(self) -> None:
        """Raises `Busy` unless this process can sign whatever it has to sign."""
        if not self.is_usable:
            raise Busy(_UNUSABLE, retry_after_s=_UNUSABLE_FOR_S)

    @property
    def issuer(self) -> Issuer:
        """Signs access tokens with the key that signs now. Raises `Busy` where it cannot be used here."""
        if self.now.issuer is None:
            raise Busy(_UNUSABLE, retry_after_s=_UNUSABLE_FOR_S)
        return self.now.issuer

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """Makes and checks refresh tokens with the keys of now. Raises `Busy` where they cannot be used here."""
        if self.now.refresh_tokens is None:
            raise Busy(_UNUSABLE, retry_after_s=_UNUSABLE_FOR_S)
        return self.now.refresh_tokens

    @property
    def mail_seals(self) -> MailSeals:
        """Seals mails with the key of now. Raises `Busy` where it cannot be used here."""
        if self.now.mail_seals is None:
            raise Busy(_UNUSABLE, retry_after_s=_UNUSABLE_FOR_S)
        return self.now.mail_seals

    @property
    def factors(self) -> FactorKeys:
        """Protects second factors with the keys of now. Raises `Busy` where they cannot be used here."""
        if self.now.factors is None:
            raise Busy(_UNUSABLE, retry_after_s=_UNUSABLE_FOR_S)
        return self.now.factors

    def may_turn(self) -> bool:
        """Tell whether the schedule may be gone by: the clock goes as it should. That it does not is told once."""
        now = self._clock()
        believed = self._watch.believes(now, self._monotonic())
        if not believed and not self._clock_jumped:
            self._log.error("clock_jumped", now=now, reason=_JUMPED)
        self._clock_jumped = not believed
        return believed

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
            SettingsError: a key is needed, and could not be sealed as the others are.
        """
        if not self.is_due:
            return False
        self._turn_all()
        self.reload()
        return True

    def _turn_all(self) -> None:
        self._rows = self.rows()
        for purpose in PURPOSES:
            self._change(purpose, self._turn(purpose))

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
        """What a key that is in use is for. Raises NoSuchKey."""
        for purpose in PURPOSES:
            if any(row.kid == kid and is_published(row) for row in self._of(purpose)):
                return purpose
        raise NoSuchKey(f"There is no key {kid} that is in use.")

    def bring(self, key: Key) -> KeyChange:
        """Take a key pair that was made elsewhere as the next one for access tokens. Blocks.

        Raises:
            AlgorithmNotUsed: it is of another algorithm than the one that access tokens are to be signed with.
            KeyInUse: its material, or its kid, is a key here already.
            KeyRefused: it has no private half, or a kid that nobody can type.
        """
        if key.symmetric or not key.can_sign:
            raise KeyRefused("A private key is needed: one that may sign.")
        if not key.kid.isprintable():  # one with a NUL could not be revoked: a command line cannot name it
            raise KeyRefused("The key's kid has characters that cannot be printed: give it another one.")
        row = self._seal(key, "access")

        def decide(rows: Sequence[SealedKey]) -> KeyChange:
            given_way = check_unused(rows, row)
            change = bring(self._only(rows, "access"), row)
            return msgspec.structs.replace(change, forgotten=given_way)

        return self._commit(decide, imported=True)

    def schedule(self, purpose: Purpose) -> Schedule:
        """How long the parts of a key's life are for this purpose."""
        return Schedule(
            rotate_every_s=self._settings.key_rotation_s,
            publish_ahead_s=PUBLISHED_AHEAD * self._settings.jwks_max_age_s,
            # A refresh token lies unused for as long as any setting allows, and its key must still be there.
            keep_s=_KEPT_FOR_S.get(purpose, REVOCATION_LIFE_S),
        )

    # Changing

    def _turn(self, purpose: Purpose) -> _DecideWith:
        algorithm = {"access": self._settings.signing_algorithm, "feed": _FEED_ALGORITHM}
        first, schedule = algorithm.get(purpose, _MAC_ALGORITHM), self.schedule(purpose)
        correcting = self._watch.has_lasted(self._monotonic())
        return lambda rows, now, spare: turn(
            rows, algorithm=first, now=now, schedule=schedule, spare=spare, correcting=correcting
        )

    def _change(self, purpose: Purpose, decide: _DecideWith) -> KeyChange:
        spares = _Spares(lambda algorithm: self._make(purpose, algorithm))

        def decide_anew(rows: Sequence[SealedKey]) -> KeyChange:
            spares.begin()
            return decide(self._only(rows, purpose), self._clock(), spares)

        with suppress(RequestRefused):  # what is there by then decides
            decide_anew(self._rows)  # whatever keys that takes are made before a transaction holds up others
        return self._commit(decide_anew)

    def _commit(self, decide: _Decide, *, imported: bool = False) -> KeyChange:
        now = self._clock()

        def audit(event: KeyEvent) -> AuditEvent:
            detail = {"kid": event.kid, "purpose": event.purpose, "algorithm": event.algorithm}
            if event.early is not None:
                detail["early"] = event.early
            name: AuditName = "key_imported" if imported and event.name == "key_made" else event.name
            issuer = self._settings.issuer
            return AuditEvent(at=now, event=name, actor=self._actor, detail=audit_detail(**detail, issuer=issuer))

        change = self._store.change_keys(decide, now=now, until_s=REVOCATION_LIFE_S, audit=audit)
        for event in change.events:
            alarming = event.early == "emergency" or event.name == "key_revoked"
            told = self._log.warning if alarming else self._log.info
            told(event.name, kid=event.kid, purpose=event.purpose, algorithm=event.algorithm, early=event.early)
        return change

    def _make(self, purpose: Purpose, algorithm: str) -> SealedKey:
        while True:
            if purpose in _MACS:
                raw = self._random(MAC_KEY_BYTES)
                key, sealed = Key.from_secret(raw, algorithm, kid=new_mac_kid(self._random)), raw
            else:
                key, sealed = generate_key(algorithm), None
            if not key.kid.startswith("-"):  # a command line would take it for an option
                return self._seal(key, purpose, sealed)

    def _seal(self, key: Key, purpose: Purpose, raw: bytes | None = None) -> SealedKey:
        if self._closed:  # perhaps the master key was replaced, and this process has not been given the new one
            (kid, _), error = next(iter(self._closed.items()))
            raise SettingsError((f"no key can be made while {kid} cannot be used here: {error}",))
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
            ahead_s=self.schedule(purpose).publish_ahead_s,
        )

    # Loading

    def _only(self, rows: Sequence[SealedKey], purpose: Purpose) -> list[SealedKey]:
        return [row for row in rows if row.purpose == purpose and row.issuer == self._settings.issuer]

    def _of(self, purpose: Purpose) -> list[SealedKey]:
        return self._only(self._rows, purpose)

    def _open_rows(self, rows: Sequence[SealedKey], *, strict: bool) -> None:
        """Unseal what has not been so far, access keys first: theirs is the error that says most.

        Raises, where it is `strict`:
            SettingsError: one cannot be used here.
        """
        live = [row for row in rows if is_published(row) and row.purpose in PURPOSES]
        opened: dict[_Name, bytes | Key] = {}
        closed: dict[_Name, JotgateError | ValueError] = {}
        for row in sorted(live, key=lambda row: (PURPOSES.index(_purpose(row)), row.created_at)):
            name = row.kid, row.thumbprint
            known = self._opened.get(name)
            try:
                # The first that does not open has the master key's file or command asked anew, for all of them.
                ask_again = not closed and (strict or not self._master.from_command)
                opened[name] = known if known is not None else self._unseal(row, ask_again=ask_again)
            except (JotgateError, ValueError) as error:
                if strict:
                    raise error if isinstance(error, SettingsError) else _unusable(row, error) from None
                closed[name] = error
                waits = isinstance(error, SettingsError) and self._master.from_command and name not in self._asked
                if name not in self._told and not waits:
                    told = {"kid": row.kid, "purpose": row.purpose, "algorithm": row.algorithm}
                    self._log.error("key_unusable", **told, reason=f"{error}{self._command_fault}")
                    self._told.add(name)
        self._opened, self._closed = opened, closed
        self._told &= closed.keys()

    def _unseal(self, row: SealedKey, *, ask_again: bool) -> bytes | Key:
        raw = self._master.unseal(row.sealed, purpose=row.purpose, kid=row.kid, ask_again=ask_again)
        if row.purpose in _MACS:
            return raw
        if row.algorithm not in ALGORITHMS:
            raise KeyRefused(f"This version knows no algorithm {row.algorithm}.")
        if ALGORITHMS[row.algorithm].symmetric:
            return Key.from_jwk(raw, kid=row.kid)
        return Key.from_pem(raw, row.algorithm, kid=row.kid)

    def _picture(self, rows: Sequence[SealedKey]) -> ServerKeys:
        signing, trusted = self._pairs(rows, "access")
        feed, feed_trusted = self._pairs(rows, "feed")
        refresh, active_refresh = self._macs(rows, "refresh")
        device, active_device = self._macs(rows, "device")
        mail, active_mail = self._macs(rows, "mail")
        factor, active_factor = self._macs(rows, "factor")
        issuer = None
        if signing is not None:
            ttl_s = self._settings.access_token_ttl_s
            issuer = Issuer(issuer=self._settings.issuer, keys=signing, ttl_s=ttl_s, clock=self._clock)
        # Nobody verifies with a set of secrets, so none is published.
        published = KeySet() if any(key.symmetric for key in trusted) else trusted
        before = self._now
        return ServerKeys(
            signing=signing,
            issuer=issuer,
            trusted=_same(None if before is None else before.trusted, trusted),
            published=_same(None if before is None else before.published, published),
            feed=feed,
            feed_published=_same(None if before is None else before.feed_published, feed_trusted),
            refresh_tokens=RefreshTokens(refresh, active=active_refresh) if active_refresh in refresh else None,
            device_tokens=DeviceTokens(device, active=active_device) if active_device in device else None,
            mail_seals=MailSeals(mail, active=active_mail) if active_mail in mail else None,
            factors=FactorKeys(factor, active=active_factor) if active_factor in factor else None,
        )

    def _macs(self, rows: Sequence[SealedKey], purpose: Purpose) -> tuple[Mapping[str, bytes], str]:
        """The secrets of a purpose by their `kid`, and which of them is used for what is new; "" for none."""
        rows = self._only(rows, purpose)
        macs = {
            row.kid: opened for row in rows if isinstance(opened := self._opened.get((row.kid, row.thumbprint)), bytes)
        }
        return macs, _active(rows) or ""

    def _pairs(self, rows: Sequence[SealedKey], purpose: Purpose) -> tuple[Key | None, KeySet]:
        """The key that signs, and all that are believed, in an order that stays: the next ones last."""
        keys = {
            row.kid: opened
            for row in sorted(self._only(rows, purpose), key=_order)
            if isinstance(opened := self._opened.get((row.kid, row.thumbprint)), Key)
        }
        signing = keys.get(_active(self._only(rows, purpose)) or "")
        # Secrets and key pairs do not go into one set. Who switches between them has people refresh their tokens once.
        symmetric = all(key.symmetric for key in keys.values()) if signing is None else signing.symmetric
        return signing, KeySet(
            key if key.symmetric else key.public for key in keys.values() if key.symmetric == symmetric
        )


_KEPT_FOR_S: Final[Mapping[Purpose, int]] = {
    "refresh": MAX_SESSION_IDLE_S,
    "device": DEVICE_LIFE_S,
    "mail": GIVEN_UP_AFTER_S,
    "factor": 100 * 365 * 86_400,  # what is sealed with it stays for as long as its owner's app has the secret
}
_Name = tuple[str, str]
"""A key's `kid` and thumbprint: one that was brought in anew may have the `kid` of another that went."""
_JUMPED: Final = "keys are made, rotated and removed again once the clock has gone on from there for an hour"
_UNUSABLE_FOR_S: Final = 5
_UNUSABLE: Final = (
    "This server cannot use its present keys; its operators find the reason in its log, under key_unusable. Try again."
)


def _active(rows: Sequence[SealedKey]) -> str | None:
    """The `kid` of the key that signs, of one issuer's and one purpose's."""
    return next((row.kid for row in rows if standing(row) is Standing.ACTIVE), None)


def _purpose(row: SealedKey) -> Purpose:
    return next(purpose for purpose in PURPOSES if purpose == row.purpose)


def _unusable(row: SealedKey, error: Exception) -> SettingsError:
    return SettingsError((f"the {row.purpose} key {row.kid} ({row.algorithm}) cannot be used here: {error}",))


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
    if before is None or [(key.kid, key.thumbprint) for key in before] != [(key.kid, key.thumbprint) for key in after]:
        return after
    return before
