"""Verified tokens are remembered, and a remembered one is judged as any other: by the time and revocations of now."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import tracemalloc
from itertools import count
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate import (
    ClaimRefused,
    Claims,
    JotgateError,
    Key,
    KeySet,
    Policy,
    SettingsError,
    TokenError,
    TokenExpired,
    TokenNotYetValid,
    TokenRevoked,
    UnknownKey,
    Verifier,
    generate_key,
    issue_token,
    sign_jws,
    verify_jws,
)
from jotgate.core.revocations import Revocations
from jotgate.verifier import Snapshot
from jotgate.verifier.cache import CacheStatus

NOW = 1_800_000_000
ISSUER = "https://issuer.example"
KEY = generate_key("ES256")
KEYS = KeySet([KEY.public])
SECRET = generate_key("HS256")
NAMES = count()


def token(key: Key = KEY, **claims: object) -> str:
    good = {
        "iss": ISSUER,
        "aud": "api",
        "sub": "alice",
        "exp": NOW + 300,
        "iat": NOW,
        "jti": f"t{next(NAMES)}",
        "sid": "s1",
        "scope": "orders:read orders:write",
    }
    return issue_token(good | claims, key)


class World:
    """One verifier, and all that it decides by in the test's hands."""

    def __init__(self, keys: KeySet = KEYS, **options: object) -> None:
        self.now = NOW
        self.decides = Snapshot(keys, Revocations())
        if "policy" not in options:
            named = {"issuer": ISSUER, "audience": "api", "algorithms": ("HS256",) if keys.symmetric else ("ES256",)}
            options = named | options
        self.verifier = Verifier(source=self, clock=lambda: self.now, **options)  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        return self.decides

    def revoke(self, *sessions: str) -> None:
        self.decides = Snapshot(self.decides.keys, Revocations(dict.fromkeys(sessions, NOW + 999)))

    @property
    def cache(self) -> CacheStatus:
        status = self.verifier.status().cache
        assert status is not None
        return status

    def counts(self) -> tuple[int, int]:
        return self.cache.hits, self.cache.misses


@pytest.fixture
def world() -> World:
    return World()


def test_a_token_is_proved_once_and_its_claims_are_given_again(world: World) -> None:
    given = token()
    first = world.verifier.verify(given)
    for each in (given, "".join(list(given)), given.encode()):
        assert world.verifier.verify(each).to_dict() == first.to_dict()
    assert world.counts() == (3, 1)
    assert world.cache.entries == 1


async def test_averify_uses_the_same_memory(world: World) -> None:
    given = token()
    world.verifier.verify(given)
    assert (await world.verifier.averify(given)).subject == "alice"
    assert world.counts() == (1, 1)


def test_nobody_changes_what_others_get_from_memory(world: World) -> None:
    given = token(roles=["reader"])
    world.verifier.verify(given)["roles"].append("admin")
    world.verifier.verify(given).to_dict()["roles"].append("admin")
    assert world.verifier.verify(given)["roles"] == ["reader"]


def test_a_remembered_token_ends_in_the_same_second_as_any_other(world: World) -> None:
    given = token()
    world.verifier.verify(given)
    world.now = NOW + 304
    world.verifier.verify(given)
    assert world.counts() == (1, 1)
    world.now = NOW + 305
    for _ in range(2):
        with pytest.raises(TokenExpired):
            world.verifier.verify(given)


def test_a_clock_that_is_set_back_makes_a_remembered_token_not_yet_valid(world: World) -> None:
    given = token(nbf=NOW)
    world.verifier.verify(given)
    world.now = NOW - 6
    with pytest.raises(TokenNotYetValid):
        world.verifier.verify(given)
    world.now = NOW - 5
    assert world.verifier.verify(given).subject == "alice"
    world.now = NOW
    world.verifier.verify(given)
    assert world.counts() == (1, 3)
    assert world.cache.entries == 1


def test_a_remembered_token_is_refused_at_once_when_its_session_is_revoked(world: World) -> None:
    revoked, other = token(sid="s1"), token(sid="s2")
    for each in (revoked, other):
        world.verifier.verify(each)
    world.revoke("s1")
    with pytest.raises(TokenRevoked):
        world.verifier.verify(revoked)
    assert world.verifier.verify(other).session_id == "s2"
    assert world.counts() == (2, 2)


def test_another_key_set_forgets_all_that_the_old_one_proved(world: World) -> None:
    old = token()
    world.verifier.verify(old)
    successor = generate_key("ES256", kid=KEY.kid)
    world.decides = Snapshot(KeySet([successor.public]), Revocations())
    with pytest.raises(TokenError):
        world.verifier.verify(old)
    world.decides = Snapshot(KeySet([generate_key("ES256").public]), Revocations())
    with pytest.raises(UnknownKey):
        world.verifier.verify(old)


def test_of_an_old_key_set_nothing_is_kept_once_another_has_proved_a_token(world: World) -> None:
    for _ in range(5):
        world.verifier.verify(token())
    successor = generate_key("ES256")
    world.decides = Snapshot(KeySet([KEY.public, successor.public]), Revocations())
    world.verifier.verify(token(successor))
    assert world.cache.entries == 1


def test_new_revocations_with_the_same_keys_keep_the_memory(world: World) -> None:
    given = token(sid="s2")
    world.verifier.verify(given)
    world.revoke("s1")
    world.verifier.verify(given)
    assert world.counts() == (1, 1)


def test_verifiers_share_nothing() -> None:
    given = token()
    Verifier(issuer=ISSUER, audience="api", keys=KEYS, clock=lambda: NOW).verify(given)
    for issuer, audience in ((ISSUER, "other"), ("https://other.example", "api")):
        with pytest.raises(ClaimRefused):
            Verifier(issuer=issuer, audience=audience, keys=KEYS, clock=lambda: NOW).verify(given)


def test_a_changed_text_of_a_remembered_token_is_not_found() -> None:
    world = World(KeySet([SECRET]))
    given = token(SECRET)
    world.verifier.verify(given)
    for position in range(len(given)):
        for wrong in (
            given[:position] + ("A" if given[position] != "A" else "B") + given[position + 1 :],
            given[:position] + given[position + 1 :],
            given[:position] + "\u00e9" + given[position + 1 :],
        ):
            for each in (wrong, wrong.encode()):
                with pytest.raises(TokenError):
                    world.verifier.verify(each)
    for wrong in (given + "=", given + "\n", " " + given, given + ".", given.upper()):
        with pytest.raises(TokenError):
            world.verifier.verify(wrong)
    assert (world.cache.hits, world.cache.entries) == (0, 1)


def test_what_was_refused_is_never_remembered(world: World) -> None:
    refused = [token(aud="other"), token(exp=NOW - 10, iat=NOW - 60), token(generate_key("ES256")), "x.y.z"]
    world.revoke("gone")
    refused.append(token(sid="gone"))
    for _ in range(2):
        for each in refused:
            with pytest.raises(TokenError):
                world.verifier.verify(each)
    assert world.counts() == (0, 10)
    assert (world.cache.entries, world.cache.bytes) == (0, 0)


class Liar(str):  # noqa: SLOT000 # it carries a lie
    """Text that says it equals a remembered token."""

    other: str

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash(self.other)


def test_text_of_a_class_that_lies_about_itself_is_judged_by_what_it_says(world: World) -> None:
    given = token()
    world.verifier.verify(given)
    liar = Liar("x.y.z")
    liar.other = given
    with pytest.raises(TokenError):
        world.verifier.verify(liar)
    honest = Liar(given)
    honest.other = "x"
    assert world.verifier.verify(honest).subject == "alice"
    assert (world.cache.hits, world.cache.entries) == (0, 1)


@pytest.mark.parametrize("wrong", [None, 5, ["x"], bytearray(b"x.y.z"), "x" * 20_000, b"x" * 20_000])
def test_what_is_no_token_is_refused_as_ever(world: World, wrong: object) -> None:
    world.verifier.verify(token())
    with pytest.raises(TokenError):
        world.verifier.verify(wrong)  # type: ignore[arg-type]


class Own(msgspec.Struct):
    roles: list[str]

    anything: Any = None
    left: ClassVar[int] = 99

    def __post_init__(self) -> None:
        if Own.left == 0:
            raise ValueError
        Own.left -= 1


class Typed(World):
    """The same with claims in an own type."""

    def __init__(self) -> None:
        super().__init__(policy=Policy(issuer=ISSUER, audience="api", algorithms=("ES256",), claims_type=Own))


async def test_typed_claims_are_remembered_and_read_anew_for_each_who_gets_them() -> None:
    world = Typed()
    given = token(roles=["reader"], anything={"deep": [1]})
    for use in range(3):
        claims = world.verifier.verify(given) if use else await world.verifier.averify(given)
        assert claims.custom == Own(["reader"], {"deep": [1]})
        assert claims["anything"] == {"deep": [1]}
        claims.custom.roles.append("admin")
        claims.custom.anything["deep"].append(2)
        assert claims["anything"] == {"deep": [1]}
    assert world.counts() == (2, 1)


def test_an_own_type_that_refuses_what_it_took_before_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Typed()
    given = token(roles=["reader"])
    world.verifier.verify(given)
    monkeypatch.setattr(Own, "left", 0)
    with pytest.raises(ClaimRefused):
        world.verifier.verify(given)
    assert world.counts() == (1, 1)


def test_a_remembered_token_with_typed_claims_ends_with_its_time_and_its_session() -> None:
    world = Typed()
    given = token(roles=[])
    world.verifier.verify(given)
    world.revoke("s1")
    with pytest.raises(TokenRevoked):
        world.verifier.verify(given)
    world.revoke()
    world.now = NOW + 305
    with pytest.raises(TokenExpired):
        world.verifier.verify(given)
    assert world.counts() == (1, 2)


def test_0_entries_is_no_cache() -> None:
    world = World(cache_entries=0)
    given = token()
    for _ in range(2):
        world.verifier.verify(given)
    assert world.verifier.status().cache is None
    world.revoke("s1")
    with pytest.raises(TokenRevoked):
        world.verifier.verify(given)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "8"])
def test_bounds_are_whole_numbers(wrong: object) -> None:
    with pytest.raises(SettingsError) as refused:
        World(cache_entries=wrong, cache_bytes=wrong)
    assert [fault.partition(" ")[0] for fault in refused.value.faults] == ["cache_entries", "cache_bytes"]


# Bounds


def test_the_first_in_are_the_first_out() -> None:
    world = World(cache_entries=3)
    given = [token() for _ in range(4)]
    for each in given:
        world.verifier.verify(each)
    assert world.cache.entries == 3
    for each in given[1:]:
        world.verifier.verify(each)
    assert world.counts() == (3, 4)
    world.verifier.verify(given[0])
    assert world.counts() == (3, 5)


def test_tokens_that_have_ended_make_room_first(world: World) -> None:
    for seconds in (10, 20, 300):
        world.verifier.verify(token(exp=NOW + seconds))
    assert world.cache.entries == 3
    world.now = NOW + 25
    world.verifier.verify(token())
    assert world.cache.entries == 2


def test_a_token_larger_than_all_the_room_is_not_remembered() -> None:
    world = World(cache_bytes=8000)
    small = token()
    world.verifier.verify(small)
    for _ in range(2):
        world.verifier.verify(token(own=[[]] * 1000))
    world.verifier.verify(small)
    assert (world.cache.hits, world.cache.entries) == (1, 1)


def check_bounds(distinct: int, max_bytes: int, **claims: object) -> None:
    """Send that many distinct tokens through a cache and measure what it holds in memory at the worst."""
    world = World(KeySet([SECRET]), cache_bytes=max_bytes)
    verify = world.verifier.verify
    # The issuer's own care would take longer than all the rest.
    before, after = verify_jws(token(SECRET, jti="here", **claims), SECRET).payload.split(b"here")

    def use(number: int) -> None:
        verify(sign_jws(b"%s%s-%d%s" % (before, b"x" * 20, number, after), SECRET, typ="at+jwt"))

    use(-1)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(distinct):
            use(number)
            if not number % 512:
                assert world.cache.bytes <= max_bytes
                assert world.cache.entries <= 4096
        _, worst = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A token at work, and the pages that the allocator keeps for the next one, are none of the cache's.
    assert worst <= max_bytes + 32 * 1024, worst
    assert world.cache.bytes > max_bytes / 2, "the cache was never full, and nothing was shown"
    assert world.counts() == (0, distinct + 1)


def test_memory_stays_under_its_bound_for_20_000_distinct_tokens() -> None:
    check_bounds(20_000, 1024 * 1024)


@pytest.mark.parametrize(
    "claims",
    [
        {"own": [[]] * 500},
        {"own": [{}] * 500},
        {"own": {f"name{number}": number for number in range(1000, 1200)}},
        {"own": [number / 7 for number in range(200)]},
        {"own": {"a": {"b": {"c": ["text"] * 100}}}},
        {f"x{number}": "" for number in range(300)},
        {"aud": ["api", *(f"other{number}" for number in range(200))]},
        {"own": "x" * 3000},
    ],
    ids=["lists", "objects", "numbers", "floats", "deep", "members", "audiences", "text"],
)
def test_memory_stays_under_its_bound_whatever_the_claims(claims: dict[str, object]) -> None:
    check_bounds(100, 256 * 1024, **claims)


@pytest.mark.soak
def test_memory_stays_under_its_bound_for_a_million_distinct_tokens() -> None:
    check_bounds(1_000_000, 8 * 1024 * 1024)


# Threads


def test_threads_get_the_right_claims_and_every_use_is_counted() -> None:
    world = World(KeySet([SECRET]), cache_entries=50)
    given = [token(SECRET, sub=f"u{number}") for number in range(100)]
    sets = [KeySet([SECRET]) for _ in range(3)]
    wrong: list[object] = []
    uses = 2000

    def use(start: int) -> None:
        for step in range(uses):
            number = (start * 13 + step * (1 + start)) % len(given)
            try:
                subject = world.verifier.verify(given[number]).subject
            except Exception as fault:  # noqa: BLE001 # told below
                subject = repr(fault)
            if subject != f"u{number}":
                wrong.append((number, subject))
            if not step % 100:
                world.decides = Snapshot(sets[step % len(sets)], Revocations())
                if world.cache.entries > 50:
                    wrong.append(world.cache)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong
    assert sum(world.counts()) == 6 * uses
    cache = world.verifier._cache
    assert cache is not None
    generation = cache._generation
    assert generation.entries.keys() == {text for text, _, _ in generation.order}
    assert len(generation.order) == len(generation.entries)
    assert generation.bytes == sum(weight for _, _, weight in generation.order)


def test_where_another_thread_is_adding_a_token_is_verified_without_waiting(world: World) -> None:
    cache = world.verifier._cache
    assert cache is not None
    given = token()
    with cache._lock:
        assert world.verifier.verify(given).subject == "alice"
    assert world.cache.entries == 0
    world.verifier.verify(given)
    world.verifier.verify(given)
    assert world.counts() == (1, 2)


def test_counts_of_threads_that_have_ended_remain_and_countless_threads_are_counted_in_bounded_space(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = token()
    for _ in range(3):
        thread = threading.Thread(target=world.verifier.verify, args=(given,))
        thread.start()
        thread.join()
    assert world.counts() == (2, 1)
    # As with a library that gives each of its tasks a name and thread-local values of its own.
    idents = count(1)
    monkeypatch.setattr("jotgate.verifier.cache.get_ident", lambda: next(idents))
    cache = world.verifier._cache
    assert cache is not None
    for _ in range(3000):
        cache._mine = threading.local()
        world.verifier.verify(given)
    assert world.counts() == (3002, 1)
    assert len(cache._counts) == 1024


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_remembers_anew_though_another_thread_was_adding() -> None:
    script = """
import os, threading, time
from jotgate import Verifier, generate_key, Issuer
key = generate_key()
verifier = Verifier(issuer="https://i", audience="a", keys=key.public)
token = Issuer(issuer="https://i", keys=key).issue("alice", audience="a")
verifier.verify(token)
held, done = threading.Event(), threading.Event()
def hold():
    with verifier._cache._lock:
        held.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if pid == 0:
    status = 1
    try:
        for _ in range(3):
            verifier.verify(token)
        counts = verifier.status().cache
        status = 0 if (counts.hits, counts.misses, counts.entries) == (2, 1, 1) else 2
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
done.set()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


# The whole, against a verifier that remembers nothing

POOL = [
    token(SECRET),
    token(SECRET, sid="s2", nbf=NOW + 20),
    token(SECRET, exp=NOW + 40),
    token(SECRET, exp=NOW + 3590, iat=NOW - 10.5),
    token(SECRET, aud="other"),
    token(generate_key("HS256", kid=SECRET.kid)),
    "x.y.z",
]
STEPS = st.tuples(
    st.integers(0, len(POOL) - 1),
    st.sampled_from([0, 0, 0, 1, 10, 100, -1, -30, -4000]),
    st.sampled_from(["", "", "s1", "s2"]),
    st.booleans(),
)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=30), st.integers(1, 3))
def test_with_and_without_a_cache_every_answer_is_the_same(
    steps: list[tuple[int, int, str, bool]], entries: int
) -> None:
    cached, plain = World(KeySet([SECRET]), cache_entries=entries), World(KeySet([SECRET]), cache_entries=0)
    keys = cached.decides.keys
    for number, seconds, revoked, swap in steps:
        keys = KeySet([SECRET]) if swap else keys
        answers: list[object] = []
        for world in (cached, plain):
            world.now += seconds
            world.decides = Snapshot(keys, Revocations({revoked: NOW + 9999}))
            answers.append(_answer(world, POOL[number]))
        assert answers[0] == answers[1]


def _answer(world: World, given: str) -> object:
    try:
        claims: Claims = world.verifier.verify(given)
    except JotgateError as refused:
        return type(refused), str(refused)
    return claims.to_dict()
