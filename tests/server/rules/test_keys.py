"""The life of a key, for any schedule and clock: one key signs, and whoever has to verify knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jotgate.server.keys import PUBLISHED_AHEAD
from jotgate.server.records import CLOCK_MARGIN_S, SealedKey
from jotgate.server.rules.clocks import TOLERANCE_S, ClockWatch
from jotgate.server.rules.keys import (
    AlgorithmNotUsed,
    KeyChange,
    KeyInUse,
    KeyNotMature,
    NoSuchKey,
    Schedule,
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
        return self.take(self.turned(self.now, algorithm))

    def turned(self, now: int, algorithm: str = "ES256", *, correcting: bool = True) -> KeyChange:
        return turn(
            self.keys, algorithm=algorithm, now=now, schedule=self.schedule, spare=self.spare, correcting=correcting
        )

    def take(self, change: KeyChange) -> KeyChange:
        self.keys = apply(self.keys, change)
        return change

    def one(self, wanted: Standing) -> SealedKey:
        [key] = of(self.keys, wanted)
        return key

    @property
    def next(self) -> list[SealedKey]:
        return sorted(of(self.keys, Standing.NEXT), key=lambda key: (key.created_at, key.kid))

    def rotate(self) -> KeyChange:
        return self.take(rotate(self.keys, now=self.now, schedule=self.schedule, spare=self.spare))

    def prefer(self, algorithm: str) -> KeyChange:
        return self.take(prefer(self.keys, algorithm=algorithm, now=self.now, spare=self.spare))

    def revoke(self, kid: str) -> KeyChange:
        return self.take(revoke(self.keys, kid, now=self.now, schedule=self.schedule, spare=self.spare))


@pytest.fixture
def story() -> Story:
    story = Story()
    story.turn()
    return story


def test_the_first_key_signs_at_once_and_has_two_successors_and_the_log_says_that_nobody_knew_it() -> None:
    story = Story()
    change = story.turn()
    assert [(each.name, each.early) for each in change.events] == [
        ("key_made", None),
        ("key_activated", "first"),
        ("key_made", None),
        ("key_made", None),
    ]
    assert (len(of(story.keys, Standing.ACTIVE)), len(story.next)) == (1, 2)
    assert story.turn() == KeyChange()


def test_the_newest_next_key_takes_over_after_the_time_of_a_rotation_and_not_a_second_before(story: Story) -> None:
    first, (stays, following) = story.one(Standing.ACTIVE), story.next
    story.now += SCHEDULE.rotate_every_s - 1
    assert story.turn() == KeyChange()
    story.now += 1
    story.turn()
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.one(Standing.RETIRED).kid == first.kid
    assert story.next[0] == stays
    assert [key.created_at for key in story.next] == [NOW, story.now]


def test_a_successor_that_verifiers_know_is_there_right_after_a_rotation(story: Story) -> None:
    story.now += SCHEDULE.rotate_every_s
    story.turn()
    stays = story.next[0]
    change = story.revoke(story.one(Standing.ACTIVE).kid)
    assert [(each.kid, each.early) for each in change.events if each.name == "key_activated"] == [(stays.kid, None)]


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
    story.revoke(story.one(Standing.ACTIVE).kid)
    revoked = story.one(Standing.REVOKED)
    story.now += SCHEDULE.forget_s - 1
    story.turn()
    assert revoked in story.keys
    story.now += 1
    assert story.turn().forgotten == (revoked.kid,)


def test_what_never_signed_is_forgotten_a_day_after_it_went(story: Story) -> None:
    story.prefer("Ed25519")
    story.turn()
    story.now += SCHEDULE.publish_ahead_s + 2
    story.turn()
    gone = [key.kid for key in of(story.keys, Standing.REMOVED)]
    assert len(gone) == 2
    story.now += CLOCK_MARGIN_S - 1
    assert story.turn() == KeyChange()
    story.now += 1
    assert sorted(story.turn().forgotten) == sorted(gone)


def test_a_rotation_by_hand_waits_until_the_next_keys_are_known_everywhere(story: Story) -> None:
    story.now += SCHEDULE.publish_ahead_s
    with pytest.raises(KeyNotMature, match="again in 1 s"):
        story.rotate()
    story.now += 1
    stays, following = story.next
    story.rotate()
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.next[0] == stays
    with pytest.raises(KeyNotMature, match="again in 901 s"):
        story.rotate()


def test_a_key_waits_as_long_as_was_announced_when_it_was_made(story: Story) -> None:
    patient = Story(msgspec.structs.replace(SCHEDULE, publish_ahead_s=900))
    patient.keys = [msgspec.structs.replace(key, ahead_s=900) for key in story.keys]
    patient.schedule = msgspec.structs.replace(SCHEDULE, publish_ahead_s=3)  # a command line without the setting
    patient.now += 900
    with pytest.raises(KeyNotMature, match="again in 1 s"):
        patient.rotate()
    patient.now += 1
    patient.rotate()
    assert {key.ahead_s for key in patient.next} == {900}
    patient.revoke(patient.one(Standing.ACTIVE).kid)
    assert {key.ahead_s for key in patient.next} == {900}


def test_there_is_nothing_to_rotate_where_no_key_is() -> None:
    with pytest.raises(NoSuchKey):
        rotate([], now=NOW, schedule=SCHEDULE, spare=spares(lambda: NOW))


def test_another_algorithm_takes_over_as_soon_as_its_keys_are_known_and_stays(story: Story) -> None:
    before = story.next
    story.prefer("Ed25519")
    story.turn()
    assert [key.algorithm for key in story.next] == ["ES256", "ES256", "Ed25519", "Ed25519"]
    assert story.turn() == KeyChange()
    story.now += SCHEDULE.publish_ahead_s + 2
    story.turn("ES256")  # a replica with the setting of before has nothing to say
    assert story.one(Standing.ACTIVE).algorithm == "Ed25519"
    assert [key.algorithm for key in story.next] == ["Ed25519", "Ed25519"]
    assert story.one(Standing.RETIRED).algorithm == "ES256"
    assert {key.kid for key in of(story.keys, Standing.REMOVED)} == {key.kid for key in before}
    assert story.prefer("Ed25519") == KeyChange()


def test_through_a_switch_an_emergency_has_a_successor_that_verifiers_know(story: Story) -> None:
    story.now += SCHEDULE.publish_ahead_s + 1
    story.prefer("Ed25519")
    change = story.revoke(story.one(Standing.ACTIVE).kid)
    assert [each.early for each in change.events if each.name == "key_activated"] == [None]
    assert story.one(Standing.ACTIVE).algorithm == "ES256"
    story.now += SCHEDULE.publish_ahead_s + 2
    story.turn()
    assert story.one(Standing.ACTIVE).algorithm == "Ed25519"


def test_a_switch_that_is_taken_back_before_it_happened_leaves_the_algorithm_and_its_keys(story: Story) -> None:
    before = story.next
    for algorithm in ("Ed25519", "ES256"):
        story.prefer(algorithm)
        story.turn()
    assert story.next == before
    story.now += SCHEDULE.publish_ahead_s + 2
    assert story.turn() == KeyChange()
    assert story.one(Standing.ACTIVE).algorithm == "ES256"


def test_a_revoked_key_is_erased_and_a_successor_that_is_known_signs(story: Story) -> None:
    active, following = story.one(Standing.ACTIVE), story.next[-1]
    story.now += SCHEDULE.publish_ahead_s + 1
    change = story.revoke(active.kid)
    assert change.revoked == (active.kid,)
    assert [each.early for each in change.events if each.name == "key_activated"] == [None]
    assert story.one(Standing.ACTIVE).kid == following.kid
    assert story.one(Standing.REVOKED).sealed == b""


def test_where_no_successor_is_known_yet_one_signs_all_the_same_and_the_log_says_so(story: Story) -> None:
    change = story.revoke(story.one(Standing.ACTIVE).kid)
    assert [each.early for each in change.events if each.name == "key_activated"] == ["emergency"]


@pytest.mark.parametrize("wanted", [Standing.NEXT, Standing.RETIRED])
def test_to_revoke_a_key_that_does_not_sign_changes_not_which_one_does(story: Story, wanted: Standing) -> None:
    story.now += SCHEDULE.rotate_every_s
    story.turn()
    active = story.one(Standing.ACTIVE)
    story.revoke(of(story.keys, wanted)[0].kid)
    assert story.one(Standing.ACTIVE) == active
    assert len(story.next) == 2


def test_what_is_revoked_or_unknown_cannot_be_revoked(story: Story) -> None:
    kid = story.one(Standing.ACTIVE).kid
    story.revoke(kid)
    for gone in (kid, "nobody's"):
        with pytest.raises(NoSuchKey):
            story.revoke(gone)


def test_a_key_from_elsewhere_signs_next_and_waits_like_any_other(story: Story) -> None:
    story.now += 1
    brought = msgspec.structs.replace(story.spare("ES256"), kid="theirs", thumbprint="theirs")
    before = story.next
    story.take(bring(story.keys, brought))
    assert story.next == [*before, brought]
    with pytest.raises(KeyNotMature):
        story.rotate()
    story.now += SCHEDULE.publish_ahead_s + 1
    story.rotate()
    assert story.one(Standing.ACTIVE).kid == "theirs"


def test_a_key_from_elsewhere_waits_as_long_as_was_announced_by_whoever_made_the_others(story: Story) -> None:
    patience_s = 4 * SCHEDULE.publish_ahead_s
    story.keys = [msgspec.structs.replace(key, ahead_s=patience_s) for key in story.keys]
    story.now += patience_s + 1
    story.take(bring(story.keys, msgspec.structs.replace(story.spare("ES256"), kid="theirs", thumbprint="theirs")))
    story.now += patience_s
    story.rotate()
    assert story.one(Standing.ACTIVE).kid != "theirs"
    story.now += 1
    story.turn()
    story.rotate()
    assert story.one(Standing.ACTIVE).kid == "theirs"


def test_of_next_keys_that_verifiers_know_two_are_enough(story: Story) -> None:
    oldest = story.next[0]
    story.now += 1
    story.take(bring(story.keys, story.spare("ES256")))
    story.now += SCHEDULE.publish_ahead_s
    assert story.turn() == KeyChange()
    story.now += 1
    story.turn()
    assert len(story.next) == 2
    assert story.one(Standing.REMOVED).kid == oldest.kid


def test_a_key_of_an_algorithm_that_is_not_in_use_is_not_taken_in(story: Story) -> None:
    with pytest.raises(AlgorithmNotUsed, match="JOTGATE_SIGNING_ALGORITHM=RS256 first"):
        bring(story.keys, story.spare("RS256"))
    story.prefer("RS256")
    story.take(bring(story.keys, story.spare("RS256")))
    with pytest.raises(AlgorithmNotUsed):
        bring(story.keys, story.spare("ES256"))


@pytest.mark.parametrize("years", [-2, 2])
def test_a_clock_that_was_years_off_does_not_keep_keys_from_turning(story: Story, years: int) -> None:
    story.now += years * 365 * 86_400
    story.turn()
    for _ in range(2):
        before = story.one(Standing.ACTIVE)
        story.now += SCHEDULE.rotate_every_s
        story.turn()
        assert story.one(Standing.ACTIVE) != before


@pytest.mark.parametrize("days", [2, 30, 10_000])
def test_who_starts_with_a_clock_that_is_behind_makes_no_key_look_older(story: Story, days: int) -> None:
    story.now += SCHEDULE.publish_ahead_s + 1
    story.rotate()
    assert story.turned(story.now - days * 86_400, correcting=False) == KeyChange()


@pytest.mark.parametrize("same", ["kid", "thumbprint"])
def test_the_material_and_the_name_of_a_key_are_used_once_whatever_has_become_of_it(story: Story, same: str) -> None:
    story.revoke(story.one(Standing.ACTIVE).kid)
    fresh = msgspec.structs.replace(story.spare("RS256"), purpose="feed")
    assert check_unused(story.keys, fresh) == ()
    for known in story.keys:
        with pytest.raises(KeyInUse):
            check_unused(story.keys, msgspec.structs.replace(fresh, **{same: getattr(known, same)}))


@pytest.mark.parametrize("same", ["kid", "thumbprint"])
def test_a_key_that_went_before_it_signed_may_come_again_for_the_same_purpose(story: Story, same: str) -> None:
    brought = story.next[-1]
    gone = msgspec.structs.replace(brought, sealed=b"", removed_at=NOW)
    again = msgspec.structs.replace(story.spare("ES256"), **{same: getattr(brought, same)})
    assert check_unused([gone], again) == (brought.kid,)
    with pytest.raises(KeyInUse):
        check_unused([gone], msgspec.structs.replace(again, purpose="feed"))
    with pytest.raises(KeyInUse):
        check_unused([msgspec.structs.replace(gone, activated_at=NOW)], again)


LIFE_S = 3_600
LEEWAY_S = 60
DAY_S = 86_400
JUMPS = st.sampled_from([1, 50, 3_600, DAY_S, 3 * DAY_S, 400 * DAY_S, 30 * 365 * DAY_S])


class Lifecycle(RuleBasedStateMachine):
    """Any schedule, turns that happen late, twice or not at all, and a clock that jumps by seconds or decades.

    `true` is what no clock shows: how much time has gone by. What people do by hand they do while the clock goes well.
    """

    @initialize(rotate=st.integers(180, 100_000), cache=st.integers(60, 2_000), ttl=st.integers(10, LIFE_S))
    def begin(self, rotate: int, cache: int, ttl: int) -> None:
        self.cache_s = cache
        ahead = PUBLISHED_AHEAD * cache
        keep_s = LIFE_S + LEEWAY_S + 60
        self.story = Story(Schedule(rotate_every_s=max(rotate, ahead), publish_ahead_s=ahead, keep_s=keep_s))
        self.ttl_s = ttl
        self.true = 0
        self.has_jumped = False
        self.watch = ClockWatch(self.story.now, self.true, trust_after_s=max(keep_s, ahead))
        self.tokens: list[tuple[str, int]] = []  # the key of each that lives, and when it has truly expired
        self.published_at: dict[str, int] = {}
        self.revoked: set[str] = set()
        self._take(self._turned())

    def _goes_well(self) -> bool:
        return self.watch.believes(self.story.now, self.true)

    def _turned(self) -> KeyChange:
        return self.story.turned(self.story.now, correcting=self.watch.has_lasted(self.true))

    def _take(self, change: KeyChange) -> None:
        for each in change.events:
            if each.name == "key_made":
                self.published_at[each.kid] = self.true
            # None signs before it was published for longer than anybody caches, unless the log says so.
            if each.name == "key_activated" and not each.early:
                assert self.true - self.published_at[each.kid] > self.cache_s
        self.revoked |= set(change.revoked)
        self.story.take(change)

    def _known(self) -> list[SealedKey]:
        """Next keys that have truly been published for as long as the schedule asks, whatever the clock says."""
        since = self.true - self.story.schedule.publish_ahead_s - 2 * TOLERANCE_S
        return [key for key in of(self.story.keys, Standing.NEXT) if self.published_at[key.kid] < since]

    def _cached_everywhere(self) -> bool:
        """Whether an emergency has a successor that whoever keeps to the cache time knows."""
        return any(self.true - self.published_at[key.kid] > self.cache_s for key in self.story.next)

    @rule(seconds=st.integers(0, 200_000))
    def time_goes_on(self, seconds: int) -> None:
        self._goes_well()  # a server looks all the time
        self.true += seconds
        self.story.now += seconds
        self._goes_well()

    @rule(seconds=JUMPS, ahead=st.booleans())
    def the_clock_jumps(self, seconds: int, ahead: bool) -> None:
        self.has_jumped = True
        self.story.now = max(86_400, self.story.now + (seconds if ahead else -seconds))

    @rule(seconds=JUMPS, ahead=st.booleans(), back_after_s=st.integers(0, 3_600))
    def the_clock_jumps_and_is_put_right(self, seconds: int, ahead: bool, back_after_s: int) -> None:
        right_by = self.story.now - self.true
        self.the_clock_jumps(seconds, ahead)
        self.a_replica_turns()
        self.time_goes_on(back_after_s)
        self.a_replica_turns()
        self.story.now = self.true + right_by

    @rule()
    def a_replica_turns(self) -> None:
        if not self._goes_well():
            return
        one_was_known = bool(self._known())
        self._take(self._turned())
        assert self._cached_everywhere() or not one_was_known
        newest = max(of(self.story.keys, Standing.NEXT), key=lambda key: (key.created_at, key.kid))
        assert [key.algorithm for key in of(self.story.keys, Standing.NEXT)].count(newest.algorithm) >= 2

    @rule()
    def a_replica_dies_before_it_has_committed(self) -> None:
        self._turned()

    @rule(algorithm=st.sampled_from(["ES256", "Ed25519", "RS256", "ML-DSA-44"]))
    def a_server_starts(self, algorithm: str) -> None:
        if self._goes_well():
            story = self.story
            one_was_known = bool(self._known())
            self._take(prefer(story.keys, algorithm=algorithm, now=story.now, spare=story.spare))
            assert self._cached_everywhere() or not one_was_known

    @rule(algorithm=st.sampled_from(["ES256", "Ed25519"]))
    def somebody_brings_a_key(self, algorithm: str) -> None:
        if self._goes_well():
            with suppress(AlgorithmNotUsed):
                self._take(bring(self.story.keys, self.story.spare(algorithm)))

    @rule()
    def somebody_rotates(self) -> None:
        if not self._goes_well():
            return
        story = self.story
        known = self._known()
        try:
            self._take(rotate(story.keys, now=story.now, schedule=story.schedule, spare=story.spare))
        except KeyNotMature:
            newest = max(of(story.keys, Standing.NEXT), key=lambda key: (key.created_at, key.kid))
            assert self.has_jumped or len(known) < 2 or all(key.algorithm != newest.algorithm for key in known)

    @rule(seconds=JUMPS)
    def a_replica_starts_whose_clock_is_behind(self, seconds: int) -> None:
        if self._goes_well():
            self._take(self.story.turned(max(DAY_S, self.story.now - seconds), correcting=False))

    @rule(data=st.data())
    def somebody_revokes(self, data: st.DataObject) -> None:
        if not self._goes_well():
            return
        story = self.story
        kid = data.draw(st.sampled_from([key.kid for key in story.keys if is_published(key)]))
        successor_is_known = any(key.kid != kid for key in self._known())
        change = revoke(story.keys, kid, now=story.now, schedule=story.schedule, spare=story.spare)
        assert self.has_jumped or not successor_is_known or not any(each.early for each in change.events)
        self._take(change)

    @rule()
    def a_token_is_signed(self) -> None:
        self.tokens.append((self.story.one(Standing.ACTIVE).kid, self.true + self.ttl_s))

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def exactly_one_key_signs_and_there_is_a_next(self) -> None:
        self.story.one(Standing.ACTIVE)
        assert of(self.story.keys, Standing.NEXT)

    @precondition(lambda self: hasattr(self, "story"))
    @invariant()
    def every_token_that_lives_has_its_key_published(self) -> None:
        published = {key.kid for key in self.story.keys if is_published(key)}
        for kid, expires_at in self.tokens:
            if self.true < expires_at + LEEWAY_S and kid not in self.revoked:
                assert kid in published

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
