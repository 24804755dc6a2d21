"""The courier: no mail is lost, none is sent twice, and none is tried for ever."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from functools import partial
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.errors import JotgateError
from jotgate.server.log import get_log
from jotgate.server.mail.courier import (
    AT_ONCE,
    BATCH,
    GIVEN_UP_AFTER_S,
    LEASE_S,
    PAUSE_S,
    Courier,
    next_try_at,
)
from jotgate.server.mail.messages import DECOY, Branding, Mail, MailMalformed
from jotgate.server.mail.transports import MailFailed, MailRefused, MailServerDown, Transport, make_transport
from jotgate.server.records import QueuedMail
from jotgate.server.secret import Secret
from tests.conftest import free_port
from tests.smtp import SmtpServer

NOW = 1_795_000_000
WITHIN_S = 30  # only a failing test waits so long


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Row(msgspec.Struct):
    id: str
    kind: str
    sealed: bytes
    created_at: int
    due_at: int
    claim: str = ""
    leased_until: int = 0
    attempts: int = 0


class OutboxFailed(JotgateError):
    code = "store_failed"


class MemoryOutbox:
    """The outbox as the courier knows it, in memory; `broken` names methods that fail."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.given_up: list[str] = []
        self.broken: set[str] = set()
        self.claims = 0

    def put(self, mail: Mail, now: int, *, kind: str = "") -> None:
        self.rows[mail.id] = Row(mail.id, kind or mail.kind, msgspec.json.encode(mail), now, now)

    async def claim_mails(self, *, now: int, limit: int, lease_s: int) -> list[QueuedMail]:
        self.claims += 1
        self._check("claim_mails")
        due = [row for row in self.rows.values() if row.due_at <= now and row.leased_until <= now][:limit]
        for row in due:
            row.claim, row.leased_until, row.attempts = f"claim {self.claims}", now + lease_s, row.attempts + 1
        return [
            QueuedMail(
                id=row.id,
                claim=row.claim,
                kind=row.kind,
                sealed=row.sealed,
                attempts=row.attempts,
                created_at=row.created_at,
            )
            for row in due
        ]

    async def mail_sent(self, id: str, claim: str) -> None:  # noqa: A002
        self._check("mail_sent")
        if self._has(id, claim):
            del self.rows[id]

    async def mail_failed(self, id: str, claim: str, *, due_at: int | None) -> None:  # noqa: A002
        self._check("mail_failed")
        if self._has(id, claim):
            row = self.rows[id]
            if due_at is None:
                self.given_up.append(id)
                del self.rows[id]
            else:
                row.due_at, row.leased_until, row.claim = due_at, 0, ""

    def was_asked(self, times: int) -> bool:
        return self.claims >= times

    def _has(self, mail_id: str, claim: str) -> bool:
        return mail_id in self.rows and self.rows[mail_id].claim == claim

    def _check(self, method: str) -> None:
        if method in self.broken:
            raise OutboxFailed("away")


class Post:
    """A transport that keeps what it is given, and fails as it is told: by the recipient's name, or for all."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.fails: dict[str, Exception] = {}
        self.fails_all: Exception | None = None
        self.at_once = self.most_at_once = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def send(self, message: EmailMessage) -> None:
        name = str(message["To"]).partition("@")[0]
        self.tried[name] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.meanwhile()
        error = self.fails.get(name, self.fails_all)
        if error is not None:
            raise error
        self.sent[name] += 1


def unseal(queued: QueuedMail) -> Mail:
    return msgspec.json.decode(queued.sealed, type=Mail)


class World:
    """A courier with all that is around it."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.clock = Clock()
        self.outbox = MemoryOutbox()
        self.post = Post()
        self.transport = transport or self.post
        self.unseal: Callable[[QueuedMail], Mail] = unseal
        self.courier = self.another_courier()

    def another_courier(self) -> Courier:
        return Courier(
            self.outbox,
            self._unseal,
            self.transport,
            Branding("The Shop"),
            "no-reply@example.com",
            "https://auth.example.com",
            self.clock,
            get_log("json"),
        )

    def _unseal(self, queued: QueuedMail) -> Mail:
        return self.unseal(queued)

    def put(self, name: str, *, expires_in_s: int = 10 * 86_400, decoy: bool = False) -> None:
        values = {"link": "https://auth.example.com/x", "expires_at": str(self.clock.now + expires_in_s)}
        mail = Mail(name, "reset", f"{name}@example.org", values)
        self.outbox.put(mail, self.clock.now, kind=DECOY if decoy else "")

    async def at(self, now: int) -> int:
        self.clock.now = now
        return await self.courier.run_once()


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO, "jotgate")
    return World()


def said(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The log's lines of that event."""
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "jotgate"]
    return [line for line in lines if line["event"] == event]


DEFERRED = MailFailed("mail_deferred", "not now", status=451)
DOWN = MailServerDown("mail_connect_failed", "nobody there")
REFUSED = MailRefused("mail_recipient_refused", "never", status=550)


async def test_each_mail_is_sent_once(world: World) -> None:
    names = [f"n{number}" for number in range(3 * BATCH + 1)]
    for name in names:
        world.put(name)
    taken = [await world.courier.run_once() for _ in range(5)]
    assert taken == [BATCH, BATCH, BATCH, 1, 0]
    assert world.post.sent == Counter(names)
    assert world.outbox.rows == {}
    assert world.post.most_at_once == AT_ONCE


async def test_two_couriers_share_one_outbox(world: World) -> None:
    names = [f"n{number}" for number in range(2 * BATCH)]
    for name in names:
        world.put(name)
    other = world.another_courier()
    assert list(await asyncio.gather(world.courier.run_once(), other.run_once())) == [BATCH, BATCH]
    assert world.post.sent == Counter(names)


async def test_a_mail_that_fails_waits_longer_each_time(world: World) -> None:
    world.put("ada")
    world.post.fails["ada"] = DEFERRED
    now = NOW
    waits: list[int] = []
    for _ in range(8):
        assert await world.at(now) == 1
        due_at = world.outbox.rows["ada"].due_at
        assert await world.at(due_at - 1) == 0, "not before its time"
        waits.append(due_at - now)
        now = due_at
    assert waits == [10, 30, 120, 600, 1800, 3600, 3600, 3600]
    del world.post.fails["ada"]
    assert await world.at(now) == 1
    assert world.post.sent == {"ada": 1}


async def test_a_mail_is_given_up_after_three_days(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.put("ada")
    world.post.fails["ada"] = DEFERRED
    now = NOW
    while world.outbox.rows:
        assert await world.at(now) == 1
        if world.outbox.rows:
            now = world.outbox.rows["ada"].due_at
    assert NOW + GIVEN_UP_AFTER_S - 3600 < now <= NOW + GIVEN_UP_AFTER_S
    assert world.outbox.given_up == ["ada"]
    (line,) = said(caplog, "mail_given_up")
    assert line.keys() == {"event", "level", "timestamp", "mail_id", "kind"}
    assert (line["mail_id"], line["kind"]) == ("ada", "reset")


async def test_a_refusal_is_for_good_and_holds_up_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("ada", "bob"):
        world.put(name)
    world.post.fails["ada"] = REFUSED
    assert await world.courier.run_once() == 2
    assert world.outbox.given_up == ["ada"]
    assert world.outbox.rows == {}
    assert world.post.sent == {"bob": 1}
    assert "example" not in caplog.text, "no address is logged"
    (failed,) = said(caplog, "mail_failed")
    assert (failed["code"], failed["status"]) == ("mail_recipient_refused", 550)


async def test_a_link_that_has_expired_is_not_sent(world: World) -> None:
    world.put("ada", expires_in_s=60)
    assert await world.at(NOW + 60) == 1
    assert world.post.tried == {}
    assert world.outbox.given_up == ["ada"]


async def test_a_mail_that_would_expire_before_its_next_try_is_given_up(world: World) -> None:
    world.put("ada", expires_in_s=10)
    world.post.fails["ada"] = DEFERRED
    assert await world.courier.run_once() == 1
    assert world.outbox.given_up == ["ada"]


async def test_a_mail_server_that_is_down_is_asked_by_few(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(BATCH):
        world.put(f"n{number}")
    world.post.fails_all = DOWN
    assert await world.courier.run_once() == BATCH
    assert world.post.tried.total() <= AT_ONCE
    assert {row.due_at for row in world.outbox.rows.values()} == {NOW + PAUSE_S}
    claims = world.outbox.claims
    assert await world.at(NOW + PAUSE_S - 1) == 0
    assert world.outbox.claims == claims, "nothing is even claimed"
    tried = world.post.tried.total()
    assert await world.at(NOW + PAUSE_S) == 1
    assert world.post.tried.total() == tried + 1, "one mail goes to see"
    world.post.fails_all = None
    now = NOW + 2 * PAUSE_S
    while world.outbox.rows:
        await world.at(now)
        now += PAUSE_S
    assert world.post.sent == Counter({f"n{number}": 1 for number in range(BATCH)})
    assert len(said(caplog, "mail_server_down")) == 1
    assert len(said(caplog, "mail_server_back")) == 1


async def test_a_clock_that_is_set_back_does_not_make_the_pause_longer(world: World) -> None:
    world.put("ada")
    world.post.fails_all = DOWN
    await world.courier.run_once()
    world.outbox.rows["ada"].due_at = 0
    assert await world.at(NOW - 86_400) == 1


async def test_a_courier_that_dies_loses_nothing(world: World) -> None:
    world.put("ada")

    def die() -> None:
        raise asyncio.CancelledError

    world.post.meanwhile = die
    with pytest.raises(asyncio.CancelledError):
        await world.courier.run_once()
    world.post.meanwhile = lambda: None
    heir = world.another_courier()
    world.clock.now = NOW + LEASE_S - 1
    assert await heir.run_once() == 0
    world.clock.now = NOW + LEASE_S
    assert await heir.run_once() == 1
    assert world.post.sent == {"ada": 1}


async def test_a_mail_whose_sending_could_not_be_noted_is_not_sent_again(world: World) -> None:
    for name in ("ada", "bob"):
        world.put(name)
    world.outbox.broken = {"mail_sent"}
    with pytest.raises(OutboxFailed):
        await world.courier.run_once()
    assert world.post.sent == {"ada": 1, "bob": 1}
    world.outbox.broken = set()
    assert await world.at(NOW + LEASE_S) == 2
    assert world.post.sent == {"ada": 1, "bob": 1}
    assert world.outbox.rows == {}


async def test_what_another_has_claimed_since_is_anothers(world: World) -> None:
    world.put("ada")
    world.post.fails["ada"] = REFUSED

    def take_over() -> None:
        world.outbox.rows["ada"].claim = "another's"

    world.post.meanwhile = take_over
    await world.courier.run_once()
    assert "ada" in world.outbox.rows


async def test_a_mail_is_not_begun_when_its_lease_is_nearly_over(world: World) -> None:
    for number in range(BATCH):
        world.put(f"n{number}")

    def stall() -> None:
        world.clock.now = NOW + LEASE_S

    world.post.meanwhile = stall
    await world.courier.run_once()
    assert world.post.sent.total() == AT_ONCE
    assert len(world.outbox.rows) == BATCH - AT_ONCE


@pytest.mark.parametrize("error", [RuntimeError("ada@example.org"), OutboxFailed("no key")])
async def test_a_mail_that_cannot_be_made_now_is_tried_again(
    world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ada", "bob"):
        world.put(name)

    def unseal_some(queued: QueuedMail) -> Mail:
        if queued.id == "ada":
            raise error
        return unseal(queued)

    world.unseal = unseal_some
    assert await world.courier.run_once() == 2
    assert world.post.sent == {"bob": 1}
    assert world.outbox.rows["ada"].due_at == NOW + 10
    assert "example" not in caplog.text


async def test_a_mail_that_can_never_be_made_is_given_up(world: World) -> None:
    world.put("ada")
    world.outbox.rows["ada"].sealed = b'{"id":"ada","kind":"reset","to":"ada@example.org","values":{}}'
    await world.courier.run_once()
    assert world.outbox.given_up == ["ada"]


def test_a_sender_that_is_no_address_is_found_at_the_start(world: World) -> None:
    with pytest.raises(MailMalformed):
        Courier(world.outbox, unseal, world.post, Branding(), "nobody", "https://a.example", world.clock, get_log())


@given(st.integers(0, 10_000), st.integers(0, 400_000))
def test_the_next_try_is_soon_and_never_after_three_days(attempts: int, age_s: int) -> None:
    due_at = next_try_at(attempts, NOW, NOW + age_s)
    if due_at is None:
        assert age_s > GIVEN_UP_AFTER_S - 3600
    else:
        assert NOW + age_s + 10 <= due_at <= min(NOW + age_s + 3600, NOW + GIVEN_UP_AFTER_S)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Running:
    """The courier's loop, for as long as the test is inside."""

    def __init__(self, world: World) -> None:
        self.wake, self._stop = asyncio.Event(), asyncio.Event()
        self._courier = world.courier

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._courier.run(self.wake, self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.wait_for(self._task, WITHIN_S)


async def test_a_mail_leaves_as_soon_as_the_courier_is_woken(world: World) -> None:
    async with Running(world) as running:
        await until(lambda: world.outbox.claims)
        began = time.monotonic()
        world.put("ada")
        running.wake.set()
        await until(lambda: world.post.sent["ada"])
        assert time.monotonic() - began < 4, "sooner than the courier looks by itself"


async def test_the_courier_outlives_an_outbox_that_fails_and_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.put("ada")
    world.outbox.broken = {"claim_mails"}
    async with Running(world) as running:
        for count in range(1, 4):
            await until(partial(world.outbox.was_asked, count))
            running.wake.set()
        world.outbox.broken = set()
        running.wake.set()
        await until(lambda: world.post.sent["ada"])
    assert [line["code"] for line in said(caplog, "mail_outbox_failed")] == ["store_failed"]


async def test_a_courier_that_has_nothing_to_do_stops_at_once(world: World) -> None:
    async with Running(world):
        await until(partial(world.outbox.was_asked, 1))
        began = time.monotonic()
    assert time.monotonic() - began < 4, "sooner than the courier looks by itself"


async def test_to_stop_means_to_finish_what_is_under_way(world: World) -> None:
    world.put("ada")
    running = Running(world)
    async with running:
        await until(lambda: world.post.tried["ada"])
    assert world.post.sent == {"ada": 1}
    assert world.outbox.rows == {}


async def test_once_it_is_to_stop_no_further_mail_is_begun_and_those_left_are_there_for_the_next(world: World) -> None:
    names = [f"n{number}" for number in range(AT_ONCE + 2)]
    for name in names:
        world.put(name)
    stop = asyncio.Event()
    world.post.meanwhile = stop.set
    await world.courier.run(asyncio.Event(), stop)
    assert 1 <= sum(world.post.sent.values()) <= AT_ONCE
    assert sum(world.post.sent.values()) + len(world.outbox.rows) == len(names)
    world.clock.now += LEASE_S
    await world.another_courier().run_once()
    assert Counter(names) == world.post.sent


async def test_decoys_before_the_first_mail_after_an_outage_are_not_waited_for(world: World) -> None:
    world.put("first")
    world.post.fails_all = DOWN
    await world.courier.run_once()
    world.post.fails_all = None
    world.clock.now += PAUSE_S
    del world.outbox.rows["first"]
    decoys = [f"decoy{number}" for number in range(30)]
    for name in decoys:
        world.put(name, decoy=True)
    world.put("ada")
    began = time.monotonic()
    async with Running(world):
        await until(lambda: world.post.sent["ada"])
    assert time.monotonic() - began < len(decoys) / 2, "a second for each would be twice as long"
    assert world.post.tried == {"first": 1, "ada": 1}


async def test_a_mail_server_that_refuses_a_mail_is_there_again(world: World) -> None:
    world.put("nobody")
    world.post.fails_all = DOWN
    await world.courier.run_once()
    world.post.fails_all = None
    world.post.fails["nobody"] = REFUSED
    world.clock.now += PAUSE_S
    assert await world.courier.run_once() == 1
    for number in range(BATCH):
        world.put(f"n{number}")
    assert await world.courier.run_once() == BATCH


async def test_through_a_real_mail_server_that_comes_and_goes() -> None:
    with SmtpServer() as server:
        world = World(make_transport(Secret(server.url)))
        names = {f"n{number}" for number in range(BATCH + 2)}
        for name in names:
            world.put(name)
        server.mode, server.answer = "refuse", "451 later"
        await world.courier.run_once()
        assert server.messages == []
        server.mode = "die_after_answer"
        while world.outbox.rows:
            world.clock.now += 10
            await world.courier.run_once()
        recipients = [mail.recipient.partition("@")[0] for mail in server.wait_for(len(names))]
        assert Counter(recipients) == Counter(names)


async def test_an_unsure_end_comes_twice_with_one_message_id() -> None:
    with SmtpServer() as server:
        world = World(make_transport(Secret(server.url)))
        world.put("ada")
        server.mode = "die_before_answer"
        await world.courier.run_once()
        server.mode = "take"
        assert await world.at(NOW + 10) == 1
        first, second = server.wait_for(2)
        assert first.message["Message-ID"] == second.message["Message-ID"]
        assert world.outbox.rows == {}


async def test_a_mail_server_that_is_away() -> None:
    world = World(make_transport(Secret(f"smtp://127.0.0.1:{free_port()}?tls=none")))
    world.put("ada")
    assert await world.courier.run_once() == 1
    assert world.outbox.rows["ada"].due_at == NOW + 10
    assert await world.at(NOW + 5) == 0
