"""What has been revoked, as values: whom an entry covers, and what a list keeps and forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.claims import Claims, Policy
from jotgate.core.errors import TokenRevoked
from jotgate.core.jwk import Key
from jotgate.core.revocations import Kind, Revocation, RevocationList, Revocations
from jotgate.core.token import issue_token, verify_token
from jotgate.keygen import generate_key

KEY: Key = generate_key("ES256")


def claims(**members: object) -> Claims:
    given = {"iss": "i", "aud": "a", "sub": "s", "iat": 1_000, "exp": 1_300} | members
    policy = Policy(issuer="i", audience="a", required=("sub",))
    return verify_token(issue_token({k: v for k, v in given.items() if v is not None}, KEY), KEY.public, policy, 1_001)


MINE = claims(sid="mine", jti="token", client_id="web")
BARE = claims()
REVOCATIONS = [
    (Revocation("session", ("mine", "other")), True),
    (Revocation("session", ("other",)), False),
    (Revocation("token", ("token",)), True),
    (Revocation("token", ("mine",)), False),
    (Revocation("client", ("web",), 1_000), True),
    (Revocation("client", ("web",), 999), False),
    (Revocation("client", ("cli",), 1_000), False),
    (Revocation("all", (), 1_000), True),
    (Revocation("all", (), 999), False),
    (Revocation("key", (KEY.kid,)), False),
]


@pytest.mark.parametrize(("revocation", "covered"), REVOCATIONS)
def test_an_entry_covers_the_tokens_that_it_names(revocation: Revocation, covered: bool) -> None:
    assert revocation.covers(MINE) is covered
    kept = RevocationList()
    kept.add([revocation], keep_until=10)
    if covered:
        with pytest.raises(TokenRevoked):
            kept.revocations.check_revoked(MINE)
    else:
        kept.revocations.check_revoked(MINE)


@pytest.mark.parametrize("revocation", [each for each, _ in REVOCATIONS if each.kind != "all"])
def test_tokens_without_a_session_token_id_or_client_are_not_taken_for_somebody(revocation: Revocation) -> None:
    assert not revocation.covers(BARE)
    kept = RevocationList()
    kept.add([revocation], keep_until=10)
    kept.revocations.check_revoked(BARE)


def test_a_token_that_does_not_say_when_it_was_issued_is_covered_by_what_ends_all() -> None:
    timeless = claims(iat=None, client_id="web", exp=1_300)
    for revocation in (Revocation("all", (), 1), Revocation("client", ("web",), 1)):
        assert revocation.covers(timeless)


def test_what_is_new_is_told_and_what_is_known_is_not() -> None:
    kept = RevocationList()
    assert kept.add([Revocation("session", ("a", "b"))], keep_until=10) == [Revocation("session", ("a", "b"))]
    assert kept.add([Revocation("session", ("b", "c"))], keep_until=10) == [Revocation("session", ("c",))]
    assert kept.add([Revocation("session", ("a",)), Revocation("token", ())], keep_until=10) == []
    for later in (Revocation("client", ("web",), 5), Revocation("all", (), 5)):
        assert kept.add([later], keep_until=10) == [later]
        assert kept.add([later], keep_until=10) == []
        assert kept.add([Revocation(later.kind, later.ids, 4)], keep_until=10) == []
        assert kept.add([Revocation(later.kind, later.ids, 6)], keep_until=10) == [Revocation(later.kind, later.ids, 6)]
    assert len(kept) == 5
    assert list(kept) == [
        Revocation("session", ("a", "b", "c")),
        Revocation("client", ("web",), 6),
        Revocation("all", (), 6),
    ]


def test_every_entry_is_dropped_at_its_time_and_not_before() -> None:
    everything = [
        Revocation("session", ("mine",)),
        Revocation("token", ("token",)),
        Revocation("key", ("kid",)),
        Revocation("client", ("web",), 1_000),
        Revocation("all", (), 1_000),
    ]
    kept = RevocationList()
    for n, each in enumerate(everything):
        kept.add([each], keep_until=10 + n)
    for n in range(len(everything)):
        kept.drop(9 + n)
        assert list(kept) == everything[n:]
        assert kept.revoked_keys == (frozenset({"kid"}) if n <= 2 else frozenset())
        with pytest.raises(TokenRevoked):
            kept.revocations.check_revoked(MINE)
    kept.drop(14)
    assert len(kept) == 0
    kept.revocations.check_revoked(MINE)


def test_being_told_again_does_not_keep_an_entry_longer() -> None:
    kept = RevocationList()
    kept.add([Revocation("session", ("a",))], keep_until=10)
    kept.add([Revocation("session", ("a",))], keep_until=20)
    kept.drop(10)
    assert len(kept) == 0


@pytest.mark.parametrize("kind", ["session", "token", "client"])
def test_an_empty_id_in_a_token_is_none_also_where_an_empty_one_is_revoked(kind: Kind) -> None:
    nameless, revocation = claims(sid="", jti="", client_id=""), Revocation(kind, ("",), 1_000)
    assert not revocation.covers(nameless)
    kept = RevocationList()
    kept.add([revocation], keep_until=10)
    kept.revocations.check_revoked(nameless)


def test_sessions_are_added_to_what_readers_hold_already_and_nothing_else_is_taken_from_them() -> None:
    kept = RevocationList()
    held = kept.revocations
    kept.add([Revocation("session", ("mine",))], keep_until=10)
    assert kept.revocations is held
    with pytest.raises(TokenRevoked):
        held.check_revoked(MINE)
    kept.drop(10)
    with pytest.raises(TokenRevoked):
        held.check_revoked(MINE)
    kept.revocations.check_revoked(MINE)


names = st.sampled_from(["a", "b", "mine", "token", "web"])
entries = st.one_of(
    st.builds(Revocation, st.sampled_from(["session", "token", "key"]), st.lists(names, max_size=3).map(tuple)),
    st.builds(
        Revocation, st.just("client"), st.lists(names, max_size=3, unique=True).map(tuple), st.integers(990, 1010)
    ),
    st.builds(Revocation, st.just("all"), st.just(()), st.integers(990, 1010)),
)


@given(st.lists(st.lists(entries, max_size=4), max_size=5))
def test_a_list_refuses_exactly_what_any_of_its_entries_covers(told: list[list[Revocation]]) -> None:
    kept, again = RevocationList(), RevocationList()
    for some in told:
        kept.add(some, keep_until=10)
    again.add(list(kept), keep_until=10)
    covered = any(each.covers(MINE) for some in told for each in some)
    for each in (kept, again):
        try:
            each.revocations.check_revoked(MINE)
        except TokenRevoked:
            assert covered
        else:
            assert not covered
    assert list(again) == list(kept)


def test_sessions_given_once_are_a_copy_that_cannot_be_changed_from_outside() -> None:
    source = {"a": 100}
    revocations = Revocations(source, tokens=source, clients=source)
    source |= {"b": 100, "token": 100, "web": 2_000}
    revocations.check_revoked(MINE)
    with pytest.raises(TypeError):
        revocations.sessions["b"] = 100  # type: ignore[index]
    assert dict(revocations.sessions) == {"a": 100}


def test_the_length_counts_every_entry_of_every_kind() -> None:
    everything = Revocations({"a": 1, "b": 1}, tokens={"c": 1}, clients={"d": 1, "e": 1, "f": 1}, all_at=0)
    assert len(everything) == 7
    kept = RevocationList()
    two = ("a", "b")
    entries = Revocation("session", two), Revocation("token", two), Revocation("key", two), Revocation("client", two)
    kept.add([*entries, Revocation("all", (), 1)], keep_until=1)
    assert len(kept) == 9
    assert len(kept.revocations) == 7  # keys are the key sets' matter


def test_an_entry_is_a_value_that_dates_from_the_beginning_of_time_unless_it_says_otherwise() -> None:
    revocation = Revocation("all")
    assert revocation.at == 0
    with pytest.raises(AttributeError):
        revocation.at = 1  # type: ignore[misc] # the promise


def test_neither_a_list_nor_what_it_shows_tells_an_id_when_printed() -> None:
    kept = RevocationList()
    kept.add([Revocation("session", ("secret-id",)), Revocation("token", ("secret-id",))], keep_until=1)
    assert repr(kept) == "<RevocationList 2 entries>"
    assert repr(kept.revocations) == "<Revocations 2 entries>"
