"""Snapshots of what has been revoked."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from jotgate import Claims, TokenRevoked
from jotgate.core.claims import read_registered
from jotgate.core.revocations import Revocations

Json: TypeAlias = Any


def claims(**members: Json) -> Claims:
    return Claims({"exp": 1, **members}, read_registered({"exp": 1, **members}))


def test_a_token_of_a_revoked_session_is_revoked_and_no_other() -> None:
    revocations = Revocations({"gone": 100})
    with pytest.raises(TokenRevoked) as refused:
        revocations.check_revoked(claims(sid="gone"))
    assert "gone" not in str(refused.value)
    for other in (claims(sid="here"), claims(), claims(sid=""), claims(sub="gone", jti="gone")):
        revocations.check_revoked(other)
        Revocations().check_revoked(other)


def test_an_addition_gives_a_new_snapshot_and_leaves_the_old() -> None:
    old = Revocations({"a": 100})
    for entries in ({"b": 200}, [("b", 200)], iter([("b", 200)])):
        new = old.with_sessions(entries, 50)
        assert new.sessions == {"a": 100, "b": 200}
        assert old.sessions == {"a": 100}
    assert len(old) == 1


def test_entries_that_no_longer_matter_are_dropped() -> None:
    revocations = Revocations({"a": 100, "b": 101}).with_sessions({"c": 100, "d": 101}, 100)
    assert revocations.sessions == {"b": 101, "d": 101}


def test_a_session_keeps_its_later_end() -> None:
    revocations = Revocations({"a": 100})
    assert revocations.with_sessions({"a": 90}, 0).sessions == {"a": 100}
    assert revocations.with_sessions({"a": 110}, 0).sessions == {"a": 110}
    assert revocations.with_sessions([("a", 120), ("a", 110)], 0).sessions == {"a": 120}


def test_a_snapshot_cannot_be_changed() -> None:
    source = {"a": 100}
    revocations = Revocations(source)
    source["b"] = 100
    with pytest.raises(TypeError):
        revocations.sessions["b"] = 100  # type: ignore[index]
    assert dict(revocations.sessions) == {"a": 100}
    assert "a" not in repr(revocations).replace("Revocations", "").replace("sessions", "")
