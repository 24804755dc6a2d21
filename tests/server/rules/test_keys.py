"""The life of a key, for any schedule and clock: one key signs, and whoever has to verify knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jotgate.server.records import CLOCK_MARGIN_S, SealedKey
from jotgate.server.rules.keys import (
    KeyChange,
    KeyInUse,
    KeyNotMature,
    NoSuchKey,
    Schedule,
    Standing,
    bring,
    check_unused,
    is_mature,
    is_published,
    prefer,
    revoke,
    rotate,
    standing,
    turn,
)

NOW = 1_800_000_000
SCHEDULE = Schedule(rotate_every_s=30 * 86_400, publish_ahead_s=900, keep_s=3_720)
Spares = Callable[[str], SealedKey]


def spares(now: Callable[[], int]) -> Spares:
    numbers = count()

    def make(algorithm: str) -> SealedKey:
        name = f"key-{next(numbers)}"
        return SealedKey(
            kid=name,
            issuer="https://a.example",
            purpose="access",
            algorithm=algorithm,
            sealed=b"sealed",
            thumbprint=name,
            created_at=now(),
        )

    return make


def apply(keys: Sequence[SealedKey], change: KeyChange) -> list[SealedKey]:
    after = {key.kid: key for key in keys} | {key.kid: key for key in change.keys}
    return [key for key in after.values() if key.kid not in change.forgotten]


def of(keys: Sequence[SealedKey], wanted: Standing) -> list[SealedKey]:
    return [key for key in keys if standing(key) is wanted]


class Story:
    """Keys, a clock, and what is done with them."""

    def __init__(self, schedule: Schedule = SCHEDULE) -> None:
        self.now = NOW
        self.schedule = schedule
        self.keys: list[SealedKey] = []
        self.spare = spares(lambda: self.now)

    def turn(self, algorithm: str = "ES256") -> KeyChange:
        return self.take(turn(self.keys, algorithm=algorithm, now=self.now, schedule=self.schedule, spare=self.spare))

    def take(self, change: KeyChange) -> KeyChange:
        self.keys = apply(self.keys, change)
        return change

    def one(self, wanted: Standing) -> SealedKey:
        [key] = of(self.keys, wanted)
        return key


@pytest.fixture
def story() -> Story:
    story = Story()
    story.turn()
    return story


def test_the_first_key_signs_at_once_and_has_a_successor_and_the_log_says_that_nobody_knew_it() -> None:
    story = Story()
    change = story.turn()
    assert [(each.name, each.early) for each in change.events] == [
        ("key_made", None),
        ("key_activated", "first"),
        ("key_made", None),
    ]
    assert len(of(story.keys, Standing.ACTIVE)) == len(of(story.keys, Standing.NEXT)) == 1
    assert story.turn() == KeyChange()


def test_the_next_key_takes_over_after_the_time_of_a_rotation_and_not_a_second_before(story: Story) -> None:
    first, following = story.one(Standing.ACTIVE), story.one(Standing.NEXT)
    story.now += SCHEDULE.rotate_every_s - 1
    assert story.turn() == KeyChange()
    story.now += 1
    story.turn()
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.one(Standing.RETIRED).kid == first.kid
    assert story.one(Standing.NEXT).created_at == story.now


def test_a_retired_key_stays_until_nothing_it_signed_lives_and_a_day_longer_and_is_erased_then(story: Story) -> None:
    story.now += SCHEDULE.rotate_every_s
    story.turn()
    retired = story.one(Standing.RETIRED)
    story.now += SCHEDULE.keep_s + CLOCK_MARGIN_S - 1
    assert story.turn() == KeyChange()
    story.now += 1
    story.turn()
    gone = story.one(Standing.REMOVED)
    assert (gone.kid, gone.sealed) == (retired.kid, b"")


def test_what_is_gone_is_forgotten_after_its_time(story: Story) -> None:
    story.take(revoke(story.keys, story.one(Standing.ACTIVE).kid, now=NOW, schedule=SCHEDULE, spare=story.spare))
    revoked = story.one(Standing.REVOKED)
    story.now += SCHEDULE.forget_s - 1
    story.turn()
    assert revoked in story.keys
    story.now += 1
    assert story.turn().forgotten == (revoked.kid,)


def test_a_rotation_by_hand_waits_until_the_next_key_is_known_everywhere(story: Story) -> None:
    story.now += SCHEDULE.publish_ahead_s
    with pytest.raises(KeyNotMature, match="again in 1 s"):
        rotate(story.keys, now=story.now, schedule=SCHEDULE, spare=story.spare)
    story.now += 1
    following = story.one(Standing.NEXT)
    story.take(rotate(story.keys, now=story.now, schedule=SCHEDULE, spare=story.spare))
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.one(Standing.NEXT).kid != following.kid


def test_there_is_nothing_to_rotate_where_no_key_is() -> None:
    with pytest.raises(NoSuchKey):
        rotate([], now=NOW, schedule=SCHEDULE, spare=spares(lambda: NOW))


def test_another_algorithm_takes_over_as_soon_as_its_key_is_known_and_stays(story: Story) -> None:
    before = story.one(Standing.NEXT)
    story.take(prefer(story.keys, algorithm="Ed25519", now=story.now, spare=story.spare))
    assert story.one(Standing.REMOVED).kid == before.kid
    assert story.turn() == KeyChange()
    story.now += SCHEDULE.publish_ahead_s + 1
    story.turn("ES256")  # a replica with the setting of before has nothing to say
    assert story.one(Standing.ACTIVE).algorithm == story.one(Standing.NEXT).algorithm == "Ed25519"
    assert story.one(Standing.RETIRED).algorithm == "ES256"
    assert prefer(story.keys, algorithm="Ed25519", now=story.now, spare=story.spare) == KeyChange()


def test_a_switch_that_is_taken_back_before_it_happened_leaves_the_algorithm(story: Story) -> None:
    for algorithm in ("Ed25519", "ES256"):
        story.take(prefer(story.keys, algorithm=algorithm, now=story.now, spare=story.spare))
    story.now += SCHEDULE.publish_ahead_s + 1
    assert story.turn() == KeyChange()
    assert story.one(Standing.ACTIVE).algorithm == story.one(Standing.NEXT).algorithm == "ES256"


def test_a_revoked_key_is_erased_and_a_successor_that_is_known_signs(story: Story) -> None:
    active, following = story.one(Standing.ACTIVE), story.one(Standing.NEXT)
    story.now += SCHEDULE.publish_ahead_s + 1
    change = story.take(revoke(story.keys, active.kid, now=story.now, schedule=SCHEDULE, spare=story.spare))
    assert change.revoked == (active.kid,)
    assert [each.early for each in change.events if each.name == "key_activated"] == [None]
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.one(Standing.REVOKED).sealed == b""


def test_where_no_successor_is_known_yet_one_signs_all_the_same_and_the_log_says_so(story: Story) -> None:
    change = story.take(
        revoke(story.keys, story.one(Standing.ACTIVE).kid, now=NOW, schedule=SCHEDULE, spare=story.spare)
    )
    assert [each.early for each in change.events if each.name == "key_activated"] == ["emergency"]


@pytest.mark.parametrize("wanted", [Standing.NEXT, Standing.RETIRED])
def test_to_revoke_a_key_that_does_not_sign_changes_not_which_one_does(story: Story, wanted: Standing) -> None:
    story.now += SCHEDULE.rotate_every_s
    story.turn()
    active = story.one(Standing.ACTIVE)
    story.take(revoke(story.keys, story.one(wanted).kid, now=story.now, schedule=SCHEDULE, spare=story.spare))
    assert story.one(Standing.ACTIVE) == active
    story.one(Standing.NEXT)


def test_what_is_revoked_or_unknown_cannot_be_revoked(story: Story) -> None:
    kid = story.one(Standing.ACTIVE).kid
    story.take(revoke(story.keys, kid, now=NOW, schedule=SCHEDULE, spare=story.spare))
    for gone in (kid, "nobody's"):
        with pytest.raises(NoSuchKey):
            revoke(story.keys, gone, now=NOW, schedule=SCHEDULE, spare=story.spare)


def test_a_key_from_elsewhere_is_the_next_one_and_waits_like_any_other(story: Story) -> None:
    made_here = story.one(Standing.NEXT)
    brought = msgspec.structs.replace(story.spare("RS256"), kid="theirs", thumbprint="theirs")
    story.take(bring(story.keys, brought, now=NOW))
    assert story.one(Standing.NEXT) == brought
    assert story.one(Standing.REMOVED).kid == made_here.kid
    with pytest.raises(KeyNotMature):
        rotate(story.keys, now=NOW, schedule=SCHEDULE, spare=story.spare)


@pytest.mark.parametrize("same", ["kid", "thumbprint"])
def test_the_material_and_the_name_of_a_key_are_used_once_whatever_has_become_of_it(story: Story, same: str) -> None:
    story.take(revoke(story.keys, story.one(Standing.ACTIVE).kid, now=NOW, schedule=SCHEDULE, spare=story.spare))
    fresh = msgspec.structs.replace(story.spare("RS256"), purpose="feed")
    check_unused(story.keys, fresh)
    for known in story.keys:
        with pytest.raises(KeyInUse):
            check_unused(story.keys, msgspec.structs.replace(fresh, **{same: getattr(known, same)}))


LIFE_S = 3_600
LEEWAY_S = 60


class Lifecycle(RuleBasedStateMachine):
    """Any schedule, any clock (a jump is an hour at most, either way), turns that happen late, twice or not at all."""

    @initialize(rotate=st.integers(60, 100_000), ahead=st.integers(1, 5_000), ttl=st.integers(10, LIFE_S))
    def begin(self, rotate: int, ahead: int, ttl: int) -> None:
        self.story = Story(
            Schedule(rotate_every_s=max(rotate, ahead), publish_ahead_s=ahead, keep_s=LIFE_S + LEEWAY_S + 60)
        )
        self.ttl_s = ttl
        self.wrong_s = 0
        self.tokens: list[tuple[str, int]] = []  # the key and the end of each that lives
        self.early: set[str] = set()
        self.revoked: set[str] = set()
        self._take(self._turned())

    def _turned(self) -> KeyChange:
        story = self.story
        return turn(story.keys, algorithm="ES256", now=story.now, schedule=story.schedule, spare=story.spare)

    def _take(self, change: KeyChange) -> None:
        self.early |= {each.kid for each in change.events if each.early}
        self.revoked |= set(change.revoked)
        self.story.take(change)

    @rule(seconds=st.integers(0, 200_000))
    def time_goes_on(self, seconds: int) -> None:
        self.story.now += seconds

    @rule(seconds=st.integers(-3_600, 3_600))
    def the_clock_jumps(self, seconds: int) -> None:
        self.story.now += seconds - self.wrong_s
        self.wrong_s = seconds

    @rule()
    def a_replica_turns(self) -> None:
        self._take(self._turned())

    @rule()
    def a_replica_dies_before_it_has_committed(self) -> None:
        self._turned()

    @rule(algorithm=st.sampled_from(["ES256", "Ed25519", "RS256", "ML-DSA-44"]))
    def a_server_starts(self, algorithm: str) -> None:
        self._take(prefer(self.story.keys, algorithm=algorithm, now=self.story.now, spare=self.story.spare))

    @rule()
    def somebody_rotates(self) -> None:
        try:
            self._take(
                rotate(self.story.keys, now=self.story.now, schedule=self.story.schedule, spare=self.story.spare)
            )
        except KeyNotMature:
            assert not is_mature(self.story.one(Standing.NEXT), now=self.story.now, schedule=self.story.schedule)

    @rule(data=st.data())
    def somebody_revokes(self, data: st.DataObject) -> None:
        kid = data.draw(st.sampled_from([key.kid for key in self.story.keys if is_published(key)]))
        story = self.story
        self._take(revoke(story.keys, kid, now=story.now, schedule=story.schedule, spare=story.spare))

    @rule()
    def a_token_is_signed(self) -> None:
        self.tokens.append((self.story.one(Standing.ACTIVE).kid, self.story.now + self.ttl_s))

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def exactly_one_key_signs_and_one_is_next(self) -> None:
        self.story.one(Standing.ACTIVE)
        self.story.one(Standing.NEXT)

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def every_token_that_lives_has_its_key_published(self) -> None:
        published = {key.kid for key in self.story.keys if is_published(key)}
        for kid, expires_at in self.tokens:
            if self.story.now < expires_at + LEEWAY_S and kid not in self.revoked:
                assert kid in published

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def no_key_signs_before_it_was_published_long_enough_unless_the_log_says_so(self) -> None:
        for key in self.story.keys:
            if key.activated_at is not None and key.kid not in self.early:
                assert key.activated_at - key.created_at > self.story.schedule.publish_ahead_s

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def what_is_gone_has_no_private_half(self) -> None:
        for key in self.story.keys:
            assert (key.sealed == b"") == (not is_published(key))


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.soak
def test_many_long_lives_of_keys() -> None:
    Lifecycle.TestCase.settings = settings(max_examples=2_000, stateful_step_count=60, deadline=None)
    Lifecycle.TestCase("runTest").runTest()


@given(turns=st.integers(2, 5), at=st.integers(0, 100_000_000))
def test_replicas_that_turn_at_one_moment_do_it_once(turns: int, at: int) -> None:
    story = Story()
    story.turn()
    story.now += at
    first = story.turn()
    for _ in range(turns - 1):
        assert story.turn() == KeyChange()
    assert sum(each.name == "key_activated" for each in first.events) <= 1
