"""What a verifier makes of the feed's messages, in whatever order and from whichever replica they come."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate.core.feed import Message
from jotgate.core.revocations import Revocation
from jotgate.verifier import following as module
from jotgate.verifier.following import OLDEST_S, REGRESS_S, FeedFull, Following

WALL = 1_000
KEEP_S = 3_720


def said(
    seq: int, *sids: str, prev: int | None = None, log: str = "log", sent_at: int = WALL, keep_s: int = KEEP_S
) -> Message:
    revocations = (Revocation("session", sids),) if sids else ()
    return Message(log_id=log, prev=prev, seq=seq, sent_at=sent_at, keep_s=keep_s, revocations=revocations)


def sids(following: Following) -> set[str]:
    return {sid for each in following.known for sid in each.ids}


def snapshot(following: Following, message: Message, wall: int = WALL) -> module.Taken:
    return following.take_snapshot(message, monotonic=0, wall=wall)


def event(following: Following, message: Message, wall: int = WALL) -> module.Taken:
    return following.take_event(message, monotonic=0, wall=wall)


def following_at(seq: int, *known: str) -> Following:
    following = Following()
    assert snapshot(following, said(seq, *known)).heard
    return following


def test_a_snapshot_is_the_beginning_and_events_go_on_from_it() -> None:
    assert Following().position is None
    following = Following()
    taken = snapshot(following, said(3, "a"))
    assert (taken.new, taken.heard, taken.resync) == ([Revocation("session", ("a",))], True, False)
    assert following.position == "log.3"
    taken = event(following, said(5, "b", "c", prev=3))
    assert (taken.new, taken.heard, taken.resync) == ([Revocation("session", ("b", "c"))], True, False)
    assert following.position == "log.5"
    assert event(following, said(5, prev=5)) == ([], True, False)
    assert sids(following) == {"a", "b", "c"}


def test_after_a_gap_nothing_counts_as_heard_until_it_is_closed() -> None:
    following = following_at(3)
    assert event(following, said(6, "f", prev=5)) == ([Revocation("session", ("f",))], False, True)
    assert following.position == "log.3"
    assert event(following, said(6, prev=6)) == ([], False, True)
    assert event(following, said(5, "d", "e", prev=3)).heard
    assert event(following, said(6, "f", prev=5)).heard
    assert sids(following) == {"d", "e", "f"}


def test_what_came_before_the_snapshot_did_is_not_lost() -> None:
    following = Following()
    assert event(following, said(6, "f", prev=5)).resync
    assert snapshot(following, said(5, "e")).heard
    assert following.position == "log.6"
    assert sids(following) == {"e", "f"}


def test_events_that_were_cut_otherwise_or_come_twice_do_no_harm() -> None:
    """Another replica may put the log into other events."""
    following = following_at(5)
    assert event(following, said(8, "d", "e", "f", "g", "h", prev=3)).heard
    assert following.position == "log.8"
    assert event(following, said(6, "f", prev=5)) == ([], False, False)
    assert following.position == "log.8"


def test_an_old_snapshot_takes_nothing_back_and_is_no_news() -> None:
    following = following_at(9, "a", "b")
    assert snapshot(following, said(3, "a", sent_at=WALL - 50)) == ([], False, False)
    assert following.position == "log.9"
    assert sids(following) == {"a", "b"}


def test_recordings_that_are_played_back_are_no_news() -> None:
    following = following_at(3)
    event(following, said(3, prev=3, sent_at=WALL + 5), wall=WALL + 5)
    for recorded in (WALL, WALL + 4):
        assert not event(following, said(3, prev=3, sent_at=recorded), wall=WALL + 10).heard
    assert event(following, said(3, prev=3, sent_at=WALL + 10), wall=WALL + 10).heard
    fresh = Following()
    assert not snapshot(fresh, said(3, "a", sent_at=WALL - OLDEST_S - 1)).heard
    assert sids(fresh) == {"a"}
    assert snapshot(Following(), said(3, sent_at=WALL - OLDEST_S)).heard


def test_a_clock_that_was_ahead_and_is_put_right_is_believed_after_a_while() -> None:
    following = following_at(3)
    event(following, said(3, prev=3, sent_at=WALL + 3_600))
    for second in range(REGRESS_S):
        assert not following.take_event(said(3, prev=3, sent_at=WALL + second), monotonic=second, wall=WALL).heard
    assert following.take_event(said(3, prev=3, sent_at=WALL + REGRESS_S), monotonic=REGRESS_S, wall=WALL).heard
    assert following.take_event(said(3, prev=3, sent_at=WALL + REGRESS_S + 1), monotonic=REGRESS_S, wall=WALL).heard
    # One message again and again is a recording, however long that goes on.
    assert not following.take_event(said(3, prev=3, sent_at=WALL), monotonic=100, wall=WALL).heard
    assert not following.take_event(said(3, prev=3, sent_at=WALL), monotonic=200, wall=WALL).heard
    # And so are many that are played back at once.
    assert not following.take_event(said(3, prev=3, sent_at=WALL + REGRESS_S), monotonic=100, wall=WALL).heard


def test_another_log_is_followed_from_its_snapshot_and_what_was_known_stays() -> None:
    following = following_at(9, "a")
    assert event(following, said(2, "b", prev=1, log="new")).resync
    assert following.position == "log.9"
    assert snapshot(following, said(1, log="new")).heard
    assert following.position == "new.2"
    assert sids(following) == {"a", "b"}


def test_a_replica_that_lags_is_no_news_and_one_that_stays_behind_is_the_log() -> None:
    following = following_at(9, "a")
    assert event(following, said(8, prev=8, sent_at=WALL + REGRESS_S), wall=WALL + REGRESS_S) == ([], False, False)
    late = WALL + REGRESS_S + 1
    assert event(following, said(8, prev=8, sent_at=late), wall=late) == ([], False, True)
    assert not snapshot(following, said(8, sent_at=WALL + REGRESS_S)).heard
    assert following.position == "log.9"
    assert snapshot(following, said(8, sent_at=late), wall=late).heard
    assert following.position == "log.8"
    assert sids(following) == {"a"}


def test_entries_are_kept_for_their_life_on_the_monotonic_clock() -> None:
    following = Following()
    following.take_snapshot(said(1, "a", keep_s=100), monotonic=50.9, wall=WALL)
    following.drop(150.0)
    assert sids(following) == {"a"}
    following.drop(151.0)
    assert sids(following) == set()


def test_more_than_can_be_kept_is_refused_and_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    following = following_at(1, "a", "b", "c")
    with pytest.raises(FeedFull):
        event(following, said(3, "d", "e", prev=1))
    assert following.position == "log.1"


@dataclass
class Issuer:
    """Two replicas of one log, each of which has read a part of it, and a database that can be put back."""

    log_id: str = "log0"
    log: list[str] = field(default_factory=list)
    read: list[int] = field(default_factory=lambda: [0, 0])
    ever: set[str] = field(default_factory=set)
    restores: int = 0

    def revoke(self, sid: str) -> None:
        self.log.append(sid)
        self.ever.add(sid)

    def restore(self, length: int) -> None:
        """An older copy: the log gets a new id, and what was lost is logged again, as the server does it."""
        self.restores += 1
        lost = self.log[length:]
        self.log = self.log[:length] + lost
        self.log_id = f"log{self.restores}"
        self.read = [len(self.log), len(self.log)]


@settings(max_examples=300)
@given(st.data())
def test_nothing_that_arrived_is_forgotten_and_heard_means_that_nothing_is_missing(data: st.DataObject) -> None:
    issuer, following = Issuer(), Following()
    recorded: list[tuple[bool, Message]] = []
    arrived: set[str] = set()
    now = WALL
    for step in range(data.draw(st.integers(5, 25))):
        action = data.draw(st.sampled_from(["revoke", "read", "event", "snapshot", "replay", "restore", "tick"]))
        replica = data.draw(st.integers(0, 1))
        if action == "revoke":
            issuer.revoke(f"s{step}")
        elif action == "read":
            issuer.read[replica] = len(issuer.log)
        elif action == "tick":
            now += data.draw(st.integers(1, 4))
        elif action == "restore":
            issuer.restore(data.draw(st.integers(0, len(issuer.log))))
        else:
            head = issuer.read[replica]
            if action == "replay" and recorded:
                is_snapshot, message = data.draw(st.sampled_from(recorded))
            elif action == "snapshot":
                is_snapshot, message = True, said(head, *issuer.log[:head], log=issuer.log_id, sent_at=now)
            else:
                prev = data.draw(st.integers(0, head))
                is_snapshot = False
                message = said(head, *issuer.log[prev:head], prev=prev, log=issuer.log_id, sent_at=now)
            recorded.append((is_snapshot, message))
            taken = (snapshot if is_snapshot else event)(following, message, now)
            arrived |= {sid for each in message.revocations for sid in each.ids}
            assert arrived <= sids(following) <= issuer.ever
            if taken.heard:
                # All that this replica had read when it spoke is known.
                assert message.log_id == following.log_id
                assert set(issuer.log[: message.seq] if message.log_id == issuer.log_id else ()) <= sids(following)
    taken = snapshot(following, said(len(issuer.log), *issuer.log, log=issuer.log_id, sent_at=now + 20), now + 20)
    assert taken.heard
    assert sids(following) >= set(issuer.log)
    assert following.position == f"{issuer.log_id}.{len(issuer.log)}"
