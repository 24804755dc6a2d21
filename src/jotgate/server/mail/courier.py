"""The courier: takes mails out of the outbox, sends them, and says what became of each.

A mail is claimed for a time, so that of several couriers one has it, and a courier that is killed loses none. What is
promised is at least once: a mail is sent twice when the courier dies, or the mail server breaks off, between the
server's taking it and the outbox's knowing; both have one Message-ID. Nothing of a mail but its id and kind is logged.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from jotgate.core.errors import JotgateError
from jotgate.server.log import where
from jotgate.server.mail.messages import DECOY, Branding, Mail, MailMalformed, check_address, render
from jotgate.server.mail.transports import SEND_WITHIN_S, MailFailed, MailRefused, MailServerDown, Transport
from jotgate.server.records import QueuedMail

BACK_OFF_S: Final = (10, 30, 120, 600, 1_800, 3_600)
"""How long a mail waits after its first failure, its second, and so on; the last is for all that follow."""
GIVEN_UP_AFTER_S: Final = 3 * 86_400
PAUSE_S: Final = 10
"""How long nothing is tried once the mail server cannot be used; then one mail is, to see."""
BATCH: Final = 8
AT_ONCE: Final = 4
LEASE_S: Final = 180
"""For two rounds of `AT_ONCE` mails, and as much again for the outbox."""
_ONE_MAIL_S: Final = SEND_WITHIN_S + 5  # the transports keep their own time; this is for one that does not
_BUSY_WAIT_S: Final = 1.0
_IDLE_WAIT_S: Final = 5.0
_REMEMBERED: Final = 1_000


class Outbox(Protocol):
    """Where mails wait. Its methods raise JotgateError when the database does not answer."""

    async def claim_mails(self, *, now: int, limit: int, lease_s: int) -> Sequence[QueuedMail]:
        """Take mails that are due and nobody's; each is this claim's until `now + lease_s`, then due again."""

    async def mail_sent(self, id: str, claim: str) -> None:  # noqa: A002  the field's name
        """Take the mail out; without effect if the claim is no longer the mail's."""

    async def mail_failed(self, id: str, claim: str, *, due_at: int | None) -> None:  # noqa: A002  the field's name
        """Let the mail wait until then, or, with None, take it out unsent; without effect if the claim is not its."""


def next_try_at(attempts: int, created_at: int, now: int) -> int | None:
    """When a mail that has failed so many times is due again; None if it has been tried for long enough."""
    due_at = now + BACK_OFF_S[min(max(attempts, 1), len(BACK_OFF_S)) - 1]
    return due_at if due_at <= created_at + GIVEN_UP_AFTER_S else None


class Courier:
    """Empties one outbox, on one event loop. Others may empty the same outbox at the same time.

    Args:
        unseal: makes a `Mail` of what the outbox keeps; raises JotgateError, of which `MailMalformed` is for good.
        sender: the address that mails come from.
        issuer: the issuer's URL.
        clock: Unix time in seconds.

    Raises:
        MailMalformed: the sender is no address; no mail could be written.
    """

    def __init__(
        self,
        outbox: Outbox,
        unseal: Callable[[QueuedMail], Mail],
        transport: Transport,
        branding: Branding,
        sender: str,
        issuer: str,
        clock: Callable[[], int],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        check_address(sender)
        self._outbox = outbox
        self._unseal = unseal
        self._transport = transport
        self._branding = branding
        self._sender = sender
        self._issuer = issuer
        self._clock = clock
        self._log = log
        self._down_since: int | None = None  # the last time that the mail server could not be used
        self._sent: dict[str, None] = {}  # sent, but the outbox does not know yet; in the order of their sending
        self._failing = False

    async def run(self, wake: asyncio.Event, stop: asyncio.Event) -> None:
        """Send what comes until `stop` is set; the mails that are under way then are finished.

        Args:
            wake: set by whoever has put a mail into the outbox; the courier clears it. Without it a mail waits for
                5 s at most.
        """
        while not stop.is_set():
            limit = self._limit
            try:
                taken = await self.run_once(stop)
            except Exception as error:  # noqa: BLE001  whatever it is, mails must go on once it is over
                self._tell_failing(error)
                taken = 0
            else:
                self._failing = False
            if taken < limit:
                await _first_of(wake, stop, within_s=_BUSY_WAIT_S if taken else _IDLE_WAIT_S)
            wake.clear()

    @property
    def _limit(self) -> int:
        """So many at a time: one, to see, where the mail server could not be used the last time."""
        return BATCH if self._down_since is None else 1

    async def run_once(self, stop: asyncio.Event | None = None) -> int:
        """Claim mails that are due and send them; return how many were claimed.

        Once `stop` is set none is begun: those that were claimed are due again when their lease ends. Of a mail server
        that cannot be used nothing more is asked for `PAUSE_S`, and then by one mail. The rest of those claimed goes
        back meanwhile, untried.

        Raises:
            JotgateError: the outbox failed; what was sent is not sent again by this courier.
        """
        now = self._clock()
        if self._is_paused(now):
            return 0
        claimed = await self._outbox.claim_mails(now=now, limit=self._limit, lease_s=LEASE_S)
        slots = asyncio.Semaphore(AT_ONCE)

        async def take(queued: QueuedMail) -> None:
            async with slots:
                # Later than that, the lease might end while the mail is on its way, and another would send it, too.
                in_time = self._clock() - now <= LEASE_S - 2 * _ONE_MAIL_S
                if in_time and not (stop is not None and stop.is_set()):
                    await self._deal_with(queued)

        ends = await asyncio.gather(*map(take, claimed), return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end
        return len(claimed)

    async def _deal_with(self, queued: QueuedMail) -> None:
        now = self._clock()
        if queued.id in self._sent:
            await self._record_sent(queued)
            return
        if self._is_paused(now):
            await self._outbox.mail_failed(queued.id, queued.claim, due_at=now + PAUSE_S)
            return
        expires_at = None
        try:
            mail = self._unseal(queued)
            expires_at = mail.expires_at
            if expires_at is not None and expires_at <= now:
                await self._give_up(queued)
                return
            message = render(mail, self._branding, self._sender, self._issuer, now)
            if queued.kind == DECOY:
                await self._outbox.mail_sent(queued.id, queued.claim)
                return
            async with asyncio.timeout(_ONE_MAIL_S):
                await self._transport.send(message)
        except (MailRefused, MailMalformed) as error:
            self._tell_failed(queued, error)
            if isinstance(error, MailRefused):  # it answers
                self._go_on()
            await self._give_up(queued)
        except Exception as error:  # noqa: BLE001  one mail that cannot be made or sent must not hold up the others
            self._tell_failed(queued, error)
            if isinstance(error, MailServerDown):
                self._pause(error)
            await self._try_again(queued, expires_at)
        else:
            self._sent[queued.id] = None
            while len(self._sent) > _REMEMBERED:
                del self._sent[next(iter(self._sent))]
            self._go_on()
            await self._record_sent(queued)

    async def _record_sent(self, queued: QueuedMail) -> None:
        await self._outbox.mail_sent(queued.id, queued.claim)
        del self._sent[queued.id]
        self._log.info("mail_sent", mail_id=queued.id, kind=queued.kind)

    async def _try_again(self, queued: QueuedMail, expires_at: int | None) -> None:
        due_at = next_try_at(queued.attempts, queued.created_at, self._clock())
        if due_at is None or (expires_at is not None and expires_at <= due_at):
            await self._give_up(queued)
        else:
            await self._outbox.mail_failed(queued.id, queued.claim, due_at=due_at)

    async def _give_up(self, queued: QueuedMail) -> None:
        await self._outbox.mail_failed(queued.id, queued.claim, due_at=None)
        if queued.kind != DECOY:
            self._log.error("mail_given_up", mail_id=queued.id, kind=queued.kind)

    def _is_paused(self, now: int) -> bool:
        # A clock that was set back does not make the pause longer.
        return self._down_since is not None and 0 <= now - self._down_since < PAUSE_S

    def _pause(self, error: MailServerDown) -> None:
        if self._down_since is None:
            self._log.error("mail_server_down", reason=str(error), **_what(error))
        self._down_since = self._clock()

    def _go_on(self) -> None:
        if self._down_since is not None:
            self._log.info("mail_server_back")
        self._down_since = None

    def _tell_failed(self, queued: QueuedMail, error: Exception) -> None:
        told = _what(error)
        self._log.warning("mail_failed", mail_id=queued.id, kind=queued.kind, attempts=queued.attempts, **told)

    def _tell_failing(self, error: Exception) -> None:
        if not self._failing:
            self._log.error("mail_outbox_failed", **_what(error))
        self._failing = True


def _what(error: Exception) -> dict[str, object]:
    if isinstance(error, MailFailed | MailRefused) and error.status is not None:
        return {"code": error.code, "status": error.status}
    if isinstance(error, JotgateError):
        return {"code": error.code}
    return {"code": "unexpected", "error": type(error).__name__, "where": where(error)}


async def _first_of(*events: asyncio.Event, within_s: float) -> None:
    """Return when one of them is set, or when the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
