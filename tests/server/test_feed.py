"""The feed of one process: snapshot and events together are the log, in its order, for whoever reads from wherever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate.core.feed import Message, parse_event, parse_snapshot
from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocation, RevocationList
from jotgate.keygen import generate_key
from jotgate.server import feed as module
from jotgate.server.feed import RESYNC, Bell, Feed, Position
from jotgate.server.refusals import Busy

ISSUER = "https://auth.example.com"
KEY = generate_key("ES256")
KEYS = KeySet([KEY.public])


@dataclass
class Log:
    """What the follower knows, and a clock that tests set."""

    now: int = 1_000
    ticks: float = 0.0
    known: RevocationList = field(default_factory=RevocationList)
    connections: int = 10
    connections_per_address: int = 10

    def __post_init__(self) -> None:
        self.feed = Feed(
            KEY,
            issuer=ISSUER,
            entries=lambda: tuple(self.known),
            keep_s=3_720,
            connections=self.connections,
            connections_per_address=self.connections_per_address,
            clock=lambda: self.now,
            monotonic=lambda: self.ticks,
        )
        self.feed.begin("log", 0)

    def revoke(self, *sids: str) -> None:
        revocation = Revocation("session", sids)
        self.known.add([revocation], keep_until=9_999)
        self.feed.append(self.feed.head.seq + len(sids), [revocation])


def frames(text: bytes) -> Iterator[tuple[str, str, Message]]:
    """(id, event, message) of each frame; a resync has neither id nor message and must not be among them."""
    for block in text.decode("ascii").split("\n\n")[:-1]:
        said = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(said) == {"id", "event", "data"}
        yield said["id"], said["event"], parse_event(said["data"], KEYS, ISSUER)


def sids(revocations: tuple[Revocation, ...]) -> list[str]:
    return [sid for each in revocations for sid in each.ids]


def test_events_come_in_the_order_of_the_log_each_after_the_one_before() -> None:
    log = Log()
    log.revoke("a")
    log.revoke("b", "c")
    log.feed.beat()
    log.revoke("d")
    told = list(frames(log.feed.since(Position("log", 0))))
    assert [(place, event) for place, event, _ in told] == [
        ("log.1", "revocations"),
        ("log.3", "revocations"),
        ("log.3", "heartbeat"),
        ("log.4", "revocations"),
        ("log.4", "heartbeat"),
    ]
    assert [(each.prev, each.seq) for _, _, each in told] == [(0, 1), (1, 3), (3, 3), (3, 4), (4, 4)]
    assert [sids(each.revocations) for _, _, each in told] == [["a"], ["b", "c"], [], ["d"], []]
    assert {(each.log_id, each.sent_at, each.keep_s) for _, _, each in told} == {("log", 1_000, 3_720)}


def test_who_is_up_to_date_or_has_no_position_hears_a_heartbeat_alone() -> None:
    log = Log()
    log.revoke("a")
    for position in (None, Position("log", 1)):
        ((place, event, message),) = frames(log.feed.since(position))
        assert (place, event, message.prev, message.seq) == ("log.1", "heartbeat", 1, 1)


@pytest.mark.parametrize("position", [Position("other", 1), Position("log", 3), Position("log", 0)])
def test_a_position_that_the_feed_cannot_go_on_from_is_told_to_resync(
    position: Position, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RING_FRAMES", 1)
    log = Log()
    log.revoke("a")
    log.revoke("b")
    text = log.feed.since(position)
    assert text.startswith(RESYNC)
    ((_, event, message),) = frames(text.removeprefix(RESYNC))
    assert (event, message.seq) == ("heartbeat", 2)
    (first, _) = frames(log.feed.since(Position("log", 1)))
    assert sids(first[2].revocations) == ["b"]


def test_who_is_far_behind_gets_no_copy_of_everything_but_the_snapshots_address() -> None:
    log = Log()
    for n in range(20):
        log.revoke(*(f"{n:04}{index:018}" for index in range(500)))
    assert len(log.feed.since(Position("log", 9_500))) < 50_000
    assert log.feed.since(Position("log", 0)).startswith(RESYNC)


def test_a_position_between_two_events_of_this_process_gets_the_whole_later_one() -> None:
    """Another replica may have cut the log into other events."""
    log = Log()
    log.revoke("a", "b", "c")
    (first, _) = frames(log.feed.since(Position("log", 2)))
    assert (first[2].prev, first[2].seq, sids(first[2].revocations)) == (0, 3, ["a", "b", "c"])


def test_memory_is_bounded_by_count_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RING_BYTES", 5_000)
    log = Log()
    for n in range(50):
        log.revoke(f"{n:022}")
    assert len(log.feed._ring) < 15
    assert sum(len(frame.text) for frame in log.feed._ring) == log.feed._ring_bytes <= 5_000
    monkeypatch.setattr(module, "_RING_FRAMES", 3)
    log.revoke("x")
    assert len(log.feed._ring) == 3


def test_a_snapshot_holds_everything_and_is_signed_at_most_once_a_second() -> None:
    log = Log()
    log.revoke("a")
    position, raw = log.feed.snapshot()
    message = parse_snapshot(raw, KEYS, ISSUER)
    assert (str(position), message.log_id, message.seq, message.sent_at) == ("log.1", "log", 1, 1_000)
    assert sids(message.revocations) == ["a"]
    log.revoke("b")
    log.ticks, log.now = 0.99, 1_001
    assert log.feed.snapshot() == (position, raw)
    log.ticks = 1.0
    position, again = log.feed.snapshot()
    assert sids(parse_snapshot(again, KEYS, ISSUER).revocations) == ["a", "b"]
    log.ticks, log.now = 5.99, 1_006
    assert log.feed.snapshot() == (position, again)
    log.ticks = 6.0
    log.feed.confirm()
    assert parse_snapshot(log.feed.snapshot()[1], KEYS, ISSUER).sent_at == 1_006


async def test_who_cannot_read_the_log_says_nothing_that_sounds_as_if_nothing_was_missing() -> None:
    log = Log()
    log.revoke("a")
    log.ticks, log.now = 5.0, 1_005
    assert parse_snapshot(log.feed.snapshot()[1], KEYS, ISSUER).sent_at == 1_005
    assert list(frames(log.feed.since(None)))
    log.ticks, log.now = 10.1, 1_010
    with pytest.raises(Busy):
        log.feed.since(None)
    with pytest.raises(Busy):
        await log.feed.open_stream(None, address="192.0.2.1")
    # What is known is given to whoever starts anew, with the time as of which it is known.
    message = parse_snapshot(log.feed.snapshot()[1], KEYS, ISSUER)
    assert (message.sent_at, sids(message.revocations)) == (1_000, ["a"])
    log.feed.confirm()
    assert list(frames(log.feed.since(None)))


def test_another_log_makes_another_snapshot_at_once() -> None:
    log = Log()
    log.feed.snapshot()
    log.feed.begin("new", 7)
    position, raw = log.feed.snapshot()
    assert (position, parse_snapshot(raw, KEYS, ISSUER).log_id) == (Position("new", 7), "new")


@settings(max_examples=60)
@given(st.data())
def test_snapshot_and_events_are_the_log_whenever_they_are_read(data: st.DataObject) -> None:
    log = Log()
    everything: list[str] = []
    mine: set[str] = set()
    position: Position | None = None
    for n in range(data.draw(st.integers(1, 15))):
        match data.draw(st.sampled_from(["revoke", "beat", "wait", "snapshot", "events"])):
            case "revoke":
                more = [f"{n}.{index}" for index in range(data.draw(st.integers(1, 3)))]
                everything += more
                log.revoke(*more)
            case "beat":
                log.feed.beat()
            case "wait":
                log.ticks += data.draw(st.sampled_from([0.5, 1.0, 6.0]))
                log.feed.confirm()  # the follower has read the log meanwhile
            case "snapshot":
                position, raw = log.feed.snapshot()
                mine |= set(sids(parse_snapshot(raw, KEYS, ISSUER).revocations))
            case "events" if position is not None:
                for _, _, message in frames(log.feed.since(position)):
                    assert message.prev is not None
                    assert message.prev <= position.seq
                    position = Position(message.log_id, message.seq)
                    mine |= set(sids(message.revocations))
                assert mine == set(everything)


async def take(stream: AsyncIterator[bytes], count: int) -> list[tuple[str, str, Message]]:
    told: list[tuple[str, str, Message]] = []
    async with asyncio.timeout(10):
        while len(told) < count:
            told += frames(await anext(stream))
    return told


async def test_a_stream_goes_on_from_a_position_as_things_happen_and_ends_with_the_feed() -> None:
    log = Log()
    log.revoke("a")
    stream = await log.feed.open_stream(Position("log", 0), address="192.0.2.1")
    told = await take(stream, 2)
    assert [(event, sids(message.revocations)) for _, event, message in told] == [
        ("revocations", ["a"]),
        ("heartbeat", []),
    ]
    assert log.feed.open_streams == 1
    coming = asyncio.ensure_future(take(stream, 1))
    await asyncio.sleep(0)
    await asyncio.to_thread(log.revoke, "b")  # the follower's thread
    assert [sids(message.revocations) for _, _, message in await coming] == [["b"]]
    log.feed.close()
    async with asyncio.timeout(10):
        assert [part async for part in stream] == []
    assert log.feed.open_streams == 0


async def test_a_reader_that_fell_behind_is_told_to_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RING_FRAMES", 2)
    log = Log()
    stream = await log.feed.open_stream(None, address="192.0.2.1")
    await take(stream, 1)
    for sid in "abc":
        log.revoke(sid)
    text = await anext(stream)
    assert text.startswith(RESYNC)
    ((_, event, message),) = frames(text.removeprefix(RESYNC))
    assert (event, message.seq) == ("heartbeat", 3)
    log.revoke("d")
    assert [sids(message.revocations) for _, _, message in await take(stream, 1)] == [["d"]]


async def test_a_new_log_sends_every_reader_to_the_snapshot() -> None:
    log = Log()
    stream = await log.feed.open_stream(None, address="192.0.2.1")
    await take(stream, 1)
    log.feed.begin("new", 5)
    log.feed.beat()
    text = await anext(stream)
    assert text.startswith(RESYNC)
    ((place, event, message),) = frames(text.removeprefix(RESYNC))
    assert (place, event, message.log_id) == ("new.5", "heartbeat", "new")


async def test_only_so_many_streams_are_served_at_once_though_none_has_been_read_from() -> None:
    log = Log(connections=2)
    streams = [await log.feed.open_stream(None, address="192.0.2.1") for _ in range(2)]
    for _ in range(2):
        with pytest.raises(Busy):
            await log.feed.open_stream(None, address="192.0.2.1")
    assert log.feed.open_streams == 2
    await streams[0].aclose()
    streams.append(await log.feed.open_stream(None, address="192.0.2.1"))
    await take(streams[2], 1)
    for stream in streams:
        await stream.aclose()
    assert log.feed.open_streams == 0


async def test_one_address_takes_only_its_share_of_the_places_and_known_verifiers_have_their_own() -> None:
    log = Log(connections=3, connections_per_address=2)
    here = [await log.feed.open_stream(None, address="192.0.2.1") for _ in range(2)]
    with pytest.raises(Busy):
        await log.feed.open_stream(None, address="192.0.2.1")
    there = await log.feed.open_stream(None, address="192.0.2.2")
    with pytest.raises(Busy):  # all are taken
        await log.feed.open_stream(None, address="192.0.2.3")
    known = [await log.feed.open_stream(None, address=None) for _ in range(3)]
    with pytest.raises(Busy):
        await log.feed.open_stream(None, address=None)
    assert log.feed.open_streams == 6
    await known.pop().aclose()
    with pytest.raises(Busy):  # their places are nobody else's
        await log.feed.open_stream(None, address="192.0.2.3")
    await here.pop().aclose()
    here.append(await log.feed.open_stream(None, address="192.0.2.1"))
    for stream in (*here, there, *known):
        await stream.aclose()
    assert log.feed.open_streams == 0


async def test_a_bell_wakes_waiters_on_every_loop_and_forgets_those_who_gave_up() -> None:
    bell = Bell()

    def elsewhere() -> None:
        asyncio.run(bell.wait(0, 10))

    waiting = [asyncio.ensure_future(bell.wait(0, 10)) for _ in range(3)]
    waiting.append(asyncio.ensure_future(asyncio.to_thread(elsewhere)))
    async with asyncio.timeout(10):
        while len(bell._waiting) < 2:  # noqa: ASYNC110 - it tells nobody when somebody begins to wait
            await asyncio.sleep(0.001)
        bell.ring()
        await asyncio.gather(*waiting)
    await bell.wait(0, 10)  # it has rung since
    await bell.wait(1, 0.001)
    assert [each for futures in bell._waiting.values() for each in futures] == []


@pytest.mark.parametrize(
    "text", ["", "7", ".7", "log.", "log.-1", "log.x", "log.²", "log." + "9" * 17, "l" * 130 + ".7"]
)
def test_what_is_no_position_is_none(text: str) -> None:
    assert Position.parse(text) is None


def test_a_position_is_read_as_it_is_written() -> None:
    assert Position.parse(str(Position("a.b-c_", 7))) == Position("a.b-c_", 7)
