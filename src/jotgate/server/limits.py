"""What may be asked of the server in a time: by one address, about one account, by one client, by everybody.

Addresses count before a request's body is read, accounts before a password is hashed. Knows the settings and the stores
of `jotgate.throttle`; knows no HTTP. With Redis all servers count together, and each for itself while Redis is away.
"""

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Literal, get_args

import msgspec
import structlog
from msgspec import Struct

from jotgate.server.device_tokens import DeviceToken
from jotgate.server.refusals import TooManyRequests
from jotgate.server.settings import Settings
from jotgate.throttle import (
    Charge,
    Decision,
    FallbackStore,
    Limit,
    MemoryStore,
    RedisStore,
    Standing,
    Store,
    address_key,
    parse_limit,
)
from jotgate.throttle.limits import MAX_UNITS

Kind = Literal["logins", "signups", "mails", "refreshes", "feed", "requests"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_OF_A_CLIENT: Final[Collection[Kind]] = ("logins", "refreshes")

_REDIS_WITHIN_S: Final = 0.25  # a login waits so long for a Redis that has gone, once
# At an account under attack, every step of the back-off has an entry of its own.
MAX_ENTRIES: Final = 131_072
_EVERYBODY: Final = "everybody"
_DEVICES: Final = 3
"""All known devices of an account together guess so many times as much as one."""
_SPREAD: Final = 64
_HERE: Final = 8
"""At an account under attack, one address gets one turn in so many."""

_SECOND_FACTOR: Final = Limit(quota=30, window_s=86_400, burst=10, name="second factors")
"""Whoever knows a password guesses at the second factor so often: at six digits, for years."""
_BY_DEVICES: Final = Limit(quota=90, window_s=86_400, burst=30, name="second factors by devices")
"""All known devices of an account together: whoever knows the password may have made themselves many."""
_WRONG_CODES: Final = Limit(quota=3, window_s=86_400, burst=3, name="wrong codes")
_WRONG_CODES_TOLD: Final = Limit(quota=1, window_s=86_400, burst=1, name="wrong codes told")
_FIRST_STEPS: Final = Limit(quota=120, window_s=3_600, burst=60, name="first steps")
_BY_PASSKEY: Final = Limit(quota=120, window_s=3_600, burst=60, name="logins by passkey")
_WITH_A_LINK: Final = Limit(quota=10, window_s=86_400, burst=5, name="guesses with a link")
_NEW_DEVICE: Final = Limit(quota=1, window_s=86_400, burst=3, name="new devices")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address | None


class Asker(Struct, frozen=True):
    """Who asks, as far as it counts: an address, a browser that has logged in before, a verifier that is known."""

    address: Address = None
    devices: tuple[DeviceToken, ...] = ()
    """Those that it showed before its body was read."""
    known: bool = False
    """It is a verifier with a token of the server's."""

    @property
    def key(self) -> str:
        """Whose allowance a request uses: an address's, of IPv6 its /64's."""
        return address_key(None if self.address is None else str(self.address))

    @property
    def login_key(self) -> str:
        """The same for a login: known devices at an address have one more, which strangers there cannot use up."""
        return f"devices {self.key}" if self.devices else self.key


class Ticket:
    """What a request was charged, to be given back where it turns out not to count."""

    __slots__ = ("_charges", "_store", "decision")

    def __init__(self, store: Store, charges: Sequence[Charge], decision: Decision) -> None:
        self._store = store
        self._charges = charges
        self.decision = decision

    async def give_back(self) -> None:
        """Count it not, after all: a login that succeeded is no guess."""
        await self._store.refund(self._charges)


class Guess:
    """What a guess at a password was charged, with the session that it would begin."""

    __slots__ = ("_guess", "_session", "_store", "by_device")

    def __init__(self, store: Store, guess: Sequence[Charge], session: Charge, *, by_device: bool) -> None:
        self._store = store
        self._guess = guess
        self._session = session
        self.by_device = by_device

    async def was_right(self) -> None:
        """Count the session alone."""
        await self._store.refund(self._guess)

    async def was_wrong(self) -> None:
        """Count the guess alone."""
        await self._store.refund([self._session])

    async def was_none(self) -> None:
        """Count nothing: nobody could tell, or nothing came of it."""
        await self._store.refund([*self._guess, self._session])


class Limits:
    """The limits of one server, and where they are counted.

    Args:
        monotonic: seconds that nobody sets, for what is counted in this process.
        max_entries: how many allowances are kept apart in this process; see `MemoryStore`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        monotonic: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._log = log
        self._limits = {kind: parse_limit(getattr(settings, f"limit_{kind}"), name=kind) for kind in KINDS}
        self._device = parse_limit(settings.limit_device, name="device")
        self._devices = msgspec.structs.replace(
            self._device,
            quota=min(_DEVICES * self._device.quota, MAX_UNITS),
            burst=min(_DEVICES * self._device.burst, MAX_UNITS),
            name="devices",
        )
        self._client = settings.limit_client and parse_limit(settings.limit_client, name="client")
        self._strangers = parse_limit(settings.limit_strangers, name="strangers")
        self._global = settings.limit_global and parse_limit(settings.limit_global, name="global")
        self._mails_to = parse_limit(settings.limit_mails_to, name="mails to one address")
        self._sessions = parse_limit(settings.limit_sessions, name="sessions")
        self._backoff = Backoff(settings.guesses_before_backoff, settings.backoff_max_s)
        memory = MemoryStore(max_entries=max_entries, clock=monotonic)
        self._store: Store = memory
        if settings.redis_url is not None:
            # Servers of another issuer may use the same Redis.
            issuer = hashlib.sha256(settings.issuer.encode()).hexdigest()[:16]
            prefix = f"{{jotgate:limit:{issuer}}}:"  # in a cluster, on one node: they are decided upon together
            shared = RedisStore(settings.redis_url.reveal(), timeout_s=_REDIS_WITHIN_S, prefix=prefix)
            self._store = FallbackStore(shared, memory, on_change=self._tell)

    async def admit(self, kind: Kind, asker: Asker, client_id: str) -> Ticket:
        """Count one request of an address; and of its client, and of everybody, where these have limits.

        The decision tells of the address alone: how busy others keep the server is none of a sender's business.

        Raises:
            TooManyRequests: it is beyond a limit, and does not count.
        """
        key = asker.login_key if kind == "logins" else asker.key
        charges = [Charge(self._limits[kind], key)]
        if self._global and kind != "feed":  # which anybody may ask at little cost, and nobody may keep others from
            charges.append(Charge(self._global, _EVERYBODY))
        if self._client and kind in _OF_A_CLIENT:
            charges.append(Charge(self._client, client_id))
        ticket = await self._take(charges)
        own = ticket.decision.standings[0]
        return Ticket(self._store, charges[:1], Decision(True, (own,)))

    async def sign_up(self) -> None:
        """Count a stranger for whom a password is about to be hashed.

        Raises:
            TooManyRequests: there are too many of them.
        """
        await self._take([Charge(self._strangers, "signups")])

    async def mail_to(self, identity: str) -> bool:
        """Count a mail that a stranger has sent to an address; False where that has had enough of them.

        It is not told to whoever asks: they would learn what others ask for.
        """
        return (await self._store.take([Charge(self._mails_to, _digest(identity))])).allowed

    async def new_device(self, account_id: str) -> bool:
        """Count a mail to the owner of an account about a new device; False where there were enough."""
        return (await self._store.take([Charge(_NEW_DEVICE, _digest(account_id))])).allowed

    async def guess(self, identity: str, asker: Asker, known: DeviceToken | None) -> Guess:
        """Count a guess at the password of an account, and the session that it would begin, account or none.

        A device that has logged in to it before has an allowance of its own, so that nobody else's guesses make its
        owner wait. All others wait longer and longer, the more guesses there were; whoever goes on from one address
        waits longer than others then, so that there is a turn for these, too.

        Args:
            identity: what writings of one address have in common (`rules.accounts.email_identity`).
            known: a device that has logged in to this account before.

        Raises:
            TooManyRequests: it has to wait. Nothing was counted.
        """
        account = _digest(identity)
        session = Charge(self._sessions, account)
        if known is not None:
            # And all devices together: whoever knows the password may have made themselves many.
            own = [Charge(self._device, known.id), Charge(self._devices, account)]
            decision = await self._store.take([*own, session])
            if decision.allowed:
                return Guess(self._store, own, session, by_device=True)
        charges = [*self._backoff.charges(account, asker.key), Charge(self._strangers, "logins")]
        if asker.devices:  # it was admitted as a device of some account, but is none of this one
            charges.append(Charge(self._limits["logins"], asker.key))
        try:
            await self._take([*charges, session])
        except TooManyRequests as refused:
            raise TooManyRequests(self._backoff.told(refused.decision)) from None
        return Guess(self._store, charges, session, by_device=False)

    async def guess_factor(self, account_id: str, known: DeviceToken | None) -> Ticket:
        """Count a guess at the second factor of an account; give it back where it was none, or right.

        Args:
            known: a device that has logged in to this account before, which has an allowance of its own.

        Raises:
            TooManyRequests: there were too many.
        """
        account = _digest(account_id)
        if known is None:
            return await self._take([Charge(_SECOND_FACTOR, account)])
        return await self._take([Charge(_SECOND_FACTOR, f"device {known.id}"), Charge(_BY_DEVICES, account)])

    async def guess_factor_in_session(self, sid: str) -> Ticket:
        """Count a guess at the code of an app that somebody adds in their session.

        Raises:
            TooManyRequests: there were too many.
        """
        return await self._take([Charge(_SECOND_FACTOR, f"session {sid}")])

    async def wrong_factor(self, account_id: str) -> bool:
        """Count a wrong code after a right password; True where it is time to tell the account's owner."""
        account = _digest(account_id)
        if (await self._store.take([Charge(_WRONG_CODES, account)])).allowed:
            return False
        return (await self._store.take([Charge(_WRONG_CODES_TOLD, account)])).allowed

    async def first_step(self, account_id: str, known: DeviceToken | None) -> None:
        """Count a right password that is not enough. It uses up no session: whoever knows it alone begins none.

        Raises:
            TooManyRequests: there were too many.
        """
        key = _digest(account_id) if known is None else f"device {known.id}"
        await self._take([Charge(_FIRST_STEPS, key)])

    async def finish_login(self, identity: str) -> Ticket:
        """Count the session of a login with both steps, before a code is used up for it; given back where it is none.

        Raises:
            TooManyRequests: the account has begun too many.
        """
        return await self._take([Charge(self._sessions, _digest(identity))])

    async def login_by_passkey(self, account_id: str) -> None:
        """Count the session of a login by a passkey, which nobody's guesses at the password can use up.

        Raises:
            TooManyRequests: there were too many.
        """
        await self._take([Charge(_BY_PASSKEY, _digest(account_id))])

    async def guess_with_link(self, code_hash: bytes) -> Ticket:
        """Count a guess at the password that goes with the link in a mail; give it back where it was none, or right.

        Raises:
            TooManyRequests: there were too many with this link.
        """
        return await self._take([Charge(_WITH_A_LINK, code_hash.hex())])

    async def guess_in_session(self, sid: str, identity: str) -> Guess:
        """Count a guess at the password by whoever holds a session of the account: they have an allowance of their own.

        Raises:
            TooManyRequests: it is used up, or the account has begun too many sessions.
        """
        own, session = Charge(self._device, f"session {sid}"), Charge(self._sessions, _digest(identity))
        await self._take([own, session])
        return Guess(self._store, [own], session, by_device=True)

    @property
    def shared(self) -> bool:
        """Whether servers count together just now."""
        return isinstance(self._store, FallbackStore) and self._store.counting == "shared"

    async def aclose(self) -> None:
        """Let go of this event loop's connections."""
        await self._store.aclose()

    async def _take(self, charges: Sequence[Charge]) -> Ticket:
        decision = await self._store.take(charges)
        if not decision.allowed:
            raise TooManyRequests(decision)
        return Ticket(self._store, charges, decision)

    def _tell(self, counting: Literal["shared", "local"], fault: BaseException | None) -> None:
        if counting == "local":
            self._log.warning("limits_local", error=type(fault).__name__, reason="Redis is away: each process counts")
        else:
            self._log.info("limits_shared")


class Slowdown:
    """Makes those wait who are refused again and again, so that they do not keep the server busy with refusals.

    A refusal that goes out a second later is as good as at once for whoever means well, and a flood over so many
    connections asks only so many times a second. While few are refused, nobody waits.

    Args:
        monotonic: seconds that nobody sets.
        sleep: waits for so many seconds.
    """

    FREE_PER_S: Final = 20
    WAIT_S: Final = 1.0
    """About so long; not all alike, or those who came together would come together again."""
    MOST_WAIT: Final = 2_000

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._second = 0
        self._refused = 0
        self._waiting = 0

    async def wait(self) -> None:
        """Return at once, or about a second later where many have been refused in this one."""
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        if self._refused <= self.FREE_PER_S or self._waiting >= self.MOST_WAIT:
            return
        self._waiting += 1
        try:
            await self._sleep(self.WAIT_S * (0.5 + self._refused % _SPREAD / _SPREAD))
        finally:
            self._waiting -= 1


class Backoff:
    """Waits that double: some guesses at once, and the next ones 1, 2, 4, … seconds after the first, up to a cap.

    It is made of ordinary limits, so that it is decided in one step, by many servers together, and given back, as they
    are: one unit a second with a burst of five, one in two seconds with a burst of six, one in four with seven … all of
    which have to agree. Without guesses all of it is forgotten in a few times the cap. Who has gone through all of
    these from one address gets one guess in eight times the cap from there: the others' turn comes between.

    Args:
        free: so many guesses may come at once.
        cap_s: the longest wait between two, in seconds, a power of two.
    """

    NAME: Final = "account"

    def __init__(self, free: int, cap_s: int) -> None:
        steps = cap_s.bit_length()
        self._steps = tuple(
            Limit(quota=1, window_s=2**step, burst=free + step, name=f"{self.NAME} {step}") for step in range(steps)
        )
        self._here = Limit(
            quota=1, window_s=_HERE * 2 ** (steps - 1), burst=free + steps, name=f"{self.NAME} and address"
        )
        self._names = frozenset(each.name for each in (*self._steps, self._here))
        self._shown = Limit(quota=1, window_s=2 ** (steps - 1), burst=free, name=self.NAME)

    def charges(self, account: str, address: str) -> list[Charge]:
        """Return what one guess costs."""
        return [*(Charge(limit, account) for limit in self._steps), Charge(self._here, f"{account} {address}")]

    def told(self, refused: Decision) -> Decision:
        """Return a refusal as it is told: the steps are one limit for whoever has to wait."""
        steps = [each for each in refused.standings if each.limit.name in self._names]
        others = [each for each in refused.standings if each.limit.name not in self._names and not each.allowed]
        if all(each.allowed for each in steps):
            return Decision(False, tuple(others))
        wait_s = max(each.retry_after_s for each in steps)
        return Decision(False, (Standing(self._shown, False, 0, wait_s, wait_s), *others))


def _digest(identity: str) -> str:
    """Return a short text for an identity of any length: the key of many limits at once."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
