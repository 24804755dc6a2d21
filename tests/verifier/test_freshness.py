"""How long keys are believed, with a transport and clocks that the test holds in its hands."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from jotgate import Issuer, KeySet, KeySourceError, TokenExpired, UnknownKey, Verifier, generate_key
from jotgate.verifier.transport import Answer, FetchError

ISSUER = "https://issuer.example"
WITHIN_S = 30


class World:
    """The network and the clocks of one verifier. While `gate` is shut, every exchange waits."""

    def __init__(self) -> None:
        self.now = 1_800_000_000
        self.monotonic = 1000.0
        self.key = generate_key("ES256")
        self.down = False
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.gave_up = False  # nobody opened the gate: somebody waited who should not have
        self.before_answer: Callable[[], object] = lambda: None
        self.before_judging: Callable[[], object] = lambda: None
        self.fetches = 0
        self.verifier = Verifier(
            issuer=ISSUER,
            audience="api",
            key_wait_s=3 * WITHIN_S,
            clock=self.clock,
            monotonic=lambda: self.monotonic,
            transport=self.transport,
            jitter=lambda: 0.0,
        )

    def clock(self) -> int:
        self.before_judging()
        return self.now

    def transport(self, url: str, timeout_s: float) -> Answer:
        assert 0 < timeout_s <= 5
        self.asked.set()
        if not self.gate.wait(WITHIN_S):
            self.gave_up = True
        if self.down:
            raise FetchError("the network is down")
        if self.broken:
            raise ZeroDivisionError
        if url.endswith("/.well-known/oauth-authorization-server"):
            document: object = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}
        else:
            assert url == f"{ISSUER}/keys"
            document = KeySet([self.key]).to_jwks()
            self.fetches += 1
            self.before_answer()
        return Answer(200, json.dumps(document).encode())

    def token(self) -> str:
        return Issuer(issuer=ISSUER, keys=self.key, clock=lambda: self.now).issue("alice", audience="api")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.verifier.close()


def test_keys_are_believed_for_max_key_age_offline_and_no_longer(world: World) -> None:
    world.verifier.verify(world.token())
    world.down = True
    world.monotonic += 3599
    assert world.verifier.verify(world.token()).subject == "alice"
    world.monotonic += 1
    with pytest.raises(KeySourceError, match="too long ago"):
        world.verifier.verify(world.token())
    assert not world.verifier.status().ready


def test_an_issuer_that_comes_back_makes_the_verifier_work_again(world: World) -> None:
    world.verifier.verify(world.token())
    world.monotonic += 4000
    # A token that cannot be judged asks for nothing by itself; the thread does, when its time has come.
    with pytest.raises(KeySourceError):
        world.verifier.verify(world.token())
    world.verifier.close()
    assert world.verifier.verify(world.token()).subject == "alice"


def test_the_wall_clock_decides_about_tokens_and_never_about_keys(world: World) -> None:
    token = world.token()
    world.verifier.verify(token)
    world.now += 86_400 * 365
    with pytest.raises(TokenExpired):
        world.verifier.verify(token)
    assert world.verifier.verify(world.token()).subject == "alice"
    world.now -= 86_400 * 700
    assert world.verifier.verify(world.token()).subject == "alice"
    assert world.fetches == 1


def test_after_the_cooldown_an_unknown_key_is_looked_for_again(world: World) -> None:
    world.verifier.verify(world.token())
    stranger = Issuer(issuer=ISSUER, keys=generate_key("ES256"), clock=lambda: world.now).issue("eve", audience="api")
    for _ in range(3):
        with pytest.raises(UnknownKey):
            world.verifier.verify(stranger)
    assert world.fetches == 2
    world.monotonic += 29.9
    with pytest.raises(UnknownKey):
        world.verifier.verify(stranger)
    assert world.fetches == 2
    world.monotonic += 0.1
    with pytest.raises(UnknownKey):
        world.verifier.verify(stranger)
    assert world.fetches == 3


def test_an_outage_during_the_search_for_an_unknown_key_leaves_the_known_ones(world: World) -> None:
    token = world.token()
    world.verifier.verify(token)
    world.key = generate_key("ES256")
    world.down = True
    with pytest.raises(UnknownKey):
        world.verifier.verify(world.token())
    assert world.verifier.verify(token).subject == "alice"
    assert "the network is down" in str(world.verifier.status().last_error)


def test_a_surprise_in_the_transport_is_an_outage_and_not_the_end_of_the_thread(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = world.token()
    world.verifier.verify(token)
    world.key = generate_key("ES256")
    world.broken = True
    with pytest.raises(UnknownKey):
        world.verifier.verify(world.token())
    assert world.verifier.status().last_error == "unexpected ZeroDivisionError"
    world.broken = False
    world.monotonic += 30
    assert world.verifier.verify(world.token()).subject == "alice"
    assert "unexpected fault" in caplog.text


def test_status_tells_times_and_names_and_no_secret(world: World) -> None:
    token = world.token()
    world.verifier.verify(token)
    status = world.verifier.status()
    assert (status.mode, status.issuer, status.keys) == ("network", ISSUER, (world.key.kid,))
    assert status.fetched_at == world.now
    assert token not in repr(status)
    assert token not in repr(world.verifier)


def test_an_outage_is_logged_once_and_so_is_its_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jotgate.verifier")
    world.down = True
    for _ in range(3):
        with pytest.raises(KeySourceError):
            world.verifier.verify(world.token())
        world.verifier.close()
        world.monotonic += 60
    world.down = False
    world.verifier.verify(world.token())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_keys_that_cannot_be_had_are_told_at_once_while_no_fetch_is_under_way(world: World) -> None:
    world.down = True
    with pytest.raises(KeySourceError, match="the network is down"):
        world.verifier.verify(world.token())  # waits for the first fetch
    # Were this one to wait for the retry, it would wait for good: the monotonic clock stands still.
    with pytest.raises(KeySourceError, match="the network is down"):
        world.verifier.verify(world.token())


def test_a_process_that_can_start_no_thread_says_so_and_recovers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(KeySourceError, match="can't start new thread"):
            world.verifier.verify(world.token())
    assert world.verifier.verify(world.token()).subject == "alice"


def test_an_event_loop_that_ends_during_a_fetch_leaves_the_verifier_whole(world: World) -> None:
    world.gate.clear()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.verifier.averify(world.token()), 0.05)

    asyncio.run(give_up())  # the loop is closed now, and a waiter of it is still on the list
    world.gate.set()
    assert world.verifier.verify(world.token()).subject == "alice"
    assert world.fetches == 1


def test_waiters_that_are_left_when_a_verifier_is_closed_are_woken(world: World) -> None:
    world.gate.clear()
    told: list[str] = []

    def wait() -> None:
        with pytest.raises(KeySourceError) as raised:
            world.verifier.verify(world.token())
        told.append(str(raised.value))

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert world.asked.wait(WITHIN_S)
    # Closing wakes the waiter, whose second try starts a thread anew, and the network is slow for that one too.
    while waiting.is_alive():
        world.verifier.close()
        waiting.join(0.01)
    assert told
    assert not world.gave_up
    world.gate.set()
    assert world.verifier.verify(world.token()).subject == "alice"


def test_what_a_closed_verifiers_thread_still_brings_does_not_replace_newer_keys(world: World) -> None:
    held, late = threading.Event(), threading.Event()
    first: list[threading.Thread] = []

    def hold_the_first_thread() -> None:
        if not first:
            first.append(threading.current_thread())
            held.set()  # with the old keys in its hands
            assert late.wait(WITHIN_S)

    def close_meanwhile() -> None:
        assert held.wait(WITHIN_S)
        world.verifier.close()

    world.before_answer = hold_the_first_thread
    closer = threading.Thread(target=close_meanwhile)
    closer.start()
    with pytest.raises(KeySourceError):
        world.verifier.verify(world.token())
    closer.join()
    world.key = generate_key("ES256")
    assert world.verifier.verify(world.token()).subject == "alice"
    late.set()
    first[0].join(WITHIN_S)
    assert world.verifier.status().keys == (world.key.kid,)


async def test_verify_never_blocks_a_running_event_loop(world: World) -> None:
    world.gate.clear()
    with pytest.raises(KeySourceError):
        world.verifier.verify(world.token())
    assert not world.gave_up
    world.gate.set()
    assert (await world.verifier.averify(world.token())).subject == "alice"
    world.gate.clear()
    stranger = Issuer(issuer=ISSUER, keys=generate_key("ES256"), clock=lambda: world.now).issue("eve", audience="api")
    with pytest.raises(UnknownKey):
        world.verifier.verify(stranger)
    assert not world.gave_up
    world.gate.set()


def test_keys_that_others_fetched_while_a_token_was_judged_by_older_ones_count_for_it_too(world: World) -> None:
    world.verifier.verify(world.token())
    world.key = generate_key("ES256")
    token = world.token()
    others: list[threading.Thread] = []

    def let_another_thread_fetch() -> None:
        if not others:
            others.append(threading.Thread(target=world.verifier.verify, args=(token,)))
            others[0].start()
            others[0].join(WITHIN_S)

    world.before_judging = let_another_thread_fetch  # the keys are in this thread's hands already, and the clock is not
    assert world.verifier.verify(token).subject == "alice"
    assert world.fetches == 2


def test_the_first_refusal_tells_the_reason_however_fast_the_fetch_failed() -> None:
    for _ in range(50):
        world = World()
        world.down = True
        with pytest.raises(KeySourceError, match="the network is down"):
            world.verifier.verify(world.token())
        world.verifier.close()
