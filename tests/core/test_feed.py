"""The revocation feed's messages: what is signed comes back, and nothing else is believed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.core.encoding import decode_segment
from jotgate.core.feed import (
    EVENT_TYP,
    SNAPSHOT_TYP,
    FeedKeyUnknown,
    FeedRefused,
    Message,
    parse_event,
    parse_snapshot,
    sign_event,
    sign_snapshot,
)
from jotgate.core.jwk import Key, KeySet
from jotgate.core.jws import sign_jws
from jotgate.core.revocations import Revocation
from jotgate.keygen import generate_key

ISSUER = "https://auth.example.com"
KEY: Key = generate_key("ES256")
KEYS = KeySet([KEY.public])
SOME = [
    Revocation("session", ("a" * 22, "b" * 22, "short")),
    Revocation("token", ("jti",)),
    Revocation("client", ("web",), 1_000),
    Revocation("all", (), 2_000),
    Revocation("key", ("kid",)),
]


def snapshot(key: Key = KEY, **changed: object) -> str:
    given: dict[str, Any] = {"issuer": ISSUER, "log_id": "log", "seq": 7, "now": 1_000, "keep_s": 3_720}
    return sign_snapshot(key, **({"revocations": SOME} | given | changed))


def event(key: Key = KEY, **changed: object) -> str:
    given: dict[str, Any] = {"issuer": ISSUER, "log_id": "log", "prev": 6, "seq": 7, "now": 1_000, "keep_s": 3_720}
    return sign_event(key, **({"revocations": SOME} | given | changed))


def flat(revocations: Iterable[Revocation]) -> set[tuple[str, str, int]]:
    return {
        (each.kind, name, each.at if each.kind in ("client", "all") else 0)
        for each in revocations
        for name in (each.ids or ("",))
    }


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
some_ids = st.lists(ids, min_size=1, max_size=5).map(tuple)
revocations = st.lists(
    st.one_of(
        st.builds(Revocation, st.sampled_from(["session", "token", "key"]), some_ids),
        st.builds(
            Revocation, st.just("client"), st.lists(ids, min_size=1, max_size=3).map(tuple), st.integers(0, 2**53 - 1)
        ),
        st.builds(Revocation, st.just("all"), st.just(()), st.integers(0, 2**53 - 1)),
    ),
    max_size=4,
)


@given(revocations)
def test_what_is_signed_comes_back(told: list[Revocation]) -> None:
    whole = parse_snapshot(snapshot(revocations=told), KEYS, ISSUER)
    assert (whole.log_id, whole.prev, whole.seq, whole.sent_at, whole.keep_s) == ("log", None, 7, 1_000, 3_720)
    assert flat(whole.revocations) == flat(told)
    part = parse_event(event(revocations=told), KEYS, ISSUER)
    assert (part.log_id, part.prev, part.seq, part.sent_at, part.keep_s) == ("log", 6, 7, 1_000, 3_720)
    assert flat(part.revocations) == flat(told)


def test_an_event_without_entries_is_a_heartbeat() -> None:
    beat = parse_event(event(prev=7, revocations=()), KEYS, ISSUER)
    assert (beat.prev, beat.seq, beat.revocations) == (7, 7, ())


def test_snapshots_and_events_are_not_taken_for_each_other_nor_either_for_anything_else() -> None:
    with pytest.raises(FeedRefused):
        parse_event(snapshot(), KEYS, ISSUER)
    with pytest.raises(FeedRefused):
        parse_snapshot(event(), KEYS, ISSUER)
    payload = json.dumps({"iss": ISSUER, "log_id": "l", "seq": 1, "iat": 1, "keep_s": 1, "entries": []}).encode()
    assert parse_snapshot(sign_jws(payload, KEY, typ=SNAPSHOT_TYP), KEYS, ISSUER).seq == 1
    for typ in (None, "at+jwt", "JWT", EVENT_TYP):
        with pytest.raises(FeedRefused):
            parse_snapshot(sign_jws(payload, KEY, typ=typ), KEYS, ISSUER)


def test_another_key_or_issuer_is_not_believed() -> None:
    other = generate_key("ES256")
    for raw in (snapshot(other), snapshot(issuer=ISSUER + "/"), snapshot()[:-4] + "AAAA", "", "a.b.c", b"\xff"):
        with pytest.raises(FeedRefused):
            parse_snapshot(raw, KEYS, ISSUER)
    for raw in (event(other), event(issuer="https://auth.example.co"), event()[1:]):
        with pytest.raises(FeedRefused):
            parse_event(raw, KEYS, ISSUER)


def test_a_message_under_a_key_that_is_not_given_is_refused_as_such_and_a_forged_one_is_not() -> None:
    other = generate_key("ES256")
    for parse, raw in ((parse_snapshot, snapshot(other)), (parse_event, event(other))):
        with pytest.raises(FeedKeyUnknown):
            parse(raw, KEYS, ISSUER)
    for raw in (snapshot()[:-4] + "AAAA", "a.b.c"):
        with pytest.raises(FeedRefused) as refused:
            parse_snapshot(raw, KEYS, ISSUER)
        assert type(refused.value) is FeedRefused


GOOD = {"iss": ISSUER, "log_id": "log", "prev": 6, "seq": 7, "iat": 1, "keep_s": 1, "entries": []}
GROUP = {"kind": "session", "ids": "aabb", "size": 2}


@pytest.mark.parametrize(
    "changed",
    [
        {"log_id": ""},
        {"log_id": 7},
        {"prev": 8},
        {"prev": None},
        {"prev": -1},
        {"prev": True},
        {"seq": 2**53},
        {"seq": "7"},
        {"seq": -1},
        {"iat": -1},
        {"iat": 1.5},
        {"keep_s": 0},
        {"keep_s": 86_401},
        {"entries": {}},
        {"entries": None},
        {"entries": [GROUP | {"kind": "account"}]},
        {"entries": [GROUP | {"size": 0}]},
        {"entries": [GROUP | {"size": 3}]},
        {"entries": [GROUP | {"size": 257, "ids": "x" * 257}]},
        {"entries": [GROUP | {"size": -2}]},
        {"entries": [GROUP | {"ids": ["aa"]}]},
        {"entries": [{"kind": "client", "ids": "web", "size": 3, "at": -1}]},
        {"prev": 7, "entries": [GROUP]},
    ],
)
def test_a_message_that_is_signed_but_not_well_formed_is_refused(changed: dict[str, Any]) -> None:
    assert parse_event(sign_jws(json.dumps(GOOD).encode(), KEY, typ=EVENT_TYP), KEYS, ISSUER).seq == 7
    raw = sign_jws(json.dumps(GOOD | changed).encode(), KEY, typ=EVENT_TYP)
    with pytest.raises(FeedRefused):
        parse_event(raw, KEYS, ISSUER)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_member_has_to_be_there(name: str) -> None:
    raw = sign_jws(json.dumps({k: v for k, v in GOOD.items() if k != name}).encode(), KEY, typ=EVENT_TYP)
    with pytest.raises(FeedRefused):
        parse_event(raw, KEYS, ISSUER)


def test_a_snapshot_that_follows_something_is_refused() -> None:
    with pytest.raises(FeedRefused):
        parse_snapshot(sign_jws(json.dumps(GOOD).encode(), KEY, typ=SNAPSHOT_TYP), KEYS, ISSUER)


def test_an_event_over_256_kib_is_refused() -> None:
    with pytest.raises(FeedRefused):
        parse_event(event(revocations=[Revocation("session", tuple(f"{n:022}" for n in range(10_000)))]), KEYS, ISSUER)


def test_a_hundred_thousand_sessions_fit_into_three_megabytes() -> None:
    many = Revocation("session", tuple(f"{n:022}" for n in range(100_000)))
    raw = snapshot(revocations=[many])
    assert len(raw) < 3_000_000
    assert parse_snapshot(raw, KEYS, ISSUER).revocations == (many,)


@given(st.text() | st.binary())
def test_anything_else_raises_feed_refused(raw: str | bytes) -> None:
    for parse in (parse_snapshot, parse_event):
        with pytest.raises(FeedRefused):
            parse(raw, KEYS, ISSUER)


def content(raw: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(decode_segment(raw.split(".")[1]))
    return said


def test_on_the_wire_ids_of_one_length_share_a_text_and_what_says_nothing_is_left_out() -> None:
    assert content(snapshot()) == {
        "iss": ISSUER,
        "log_id": "log",
        "seq": 7,
        "iat": 1_000,
        "keep_s": 3_720,
        "entries": [
            {"kind": "session", "ids": "a" * 22 + "b" * 22, "size": 22},
            {"kind": "session", "ids": "short", "size": 5},
            {"kind": "token", "ids": "jti", "size": 3},
            {"kind": "client", "ids": "web", "size": 3, "at": 1_000},
            {"kind": "all", "at": 2_000},
            {"kind": "key", "ids": "kid", "size": 3},
        ],
    }
    assert content(event(revocations=[Revocation("token", ("jti",), 5)]))["entries"] == [
        {"kind": "token", "ids": "jti", "size": 3}
    ]
    assert content(event())["prev"] == 6


def read(**changed: object) -> Message:
    return parse_event(sign_jws(json.dumps(GOOD | changed).encode(), KEY, typ=EVENT_TYP), KEYS, ISSUER)


def test_messages_are_taken_up_to_the_borders_of_their_numbers_and_texts() -> None:
    assert read(seq=2**53 - 1, prev=2**53 - 1, iat=2**53 - 1).seq == 2**53 - 1
    assert read(seq=0, prev=0, iat=0).seq == 0
    assert read(keep_s=86_400).keep_s == 86_400
    assert read(log_id="x" * 64).log_id == "x" * 64
    with pytest.raises(FeedRefused):
        read(log_id="x" * 65)
    assert read(entries=[GROUP | {"size": 256, "ids": "x" * 256}]).revocations[0].ids == ("x" * 256,)


def test_a_group_says_nothing_that_it_leaves_out() -> None:
    assert read(entries=[{"kind": "session", "size": 1}]).revocations == (Revocation("session", ()),)
    assert read(entries=[{"kind": "all"}]).revocations == (Revocation("all", (), 0),)
    with pytest.raises(FeedRefused):
        read(entries=[{"kind": "session", "ids": "ab"}])


@pytest.mark.parametrize(
    ("parse", "longest"), [(parse_event, 256 * 1024), (parse_snapshot, 32 * 1024 * 1024)], ids=["event", "snapshot"]
)
def test_the_longest_message_is_looked_at_and_one_byte_more_is_not(
    parse: Callable[[str, KeySet, str], Message], longest: int
) -> None:
    head, _, _ = event().split(".")
    for length, said in ((longest, "bad_signature"), (longest + 1, "malformed_token")):
        for tail in ("A" * 86, "A" * 87):  # the body must not be one character longer than whole groups
            body = "A" * (length - len(head) - len(tail) - 2)
            if len(body) % 4 != 1:
                with pytest.raises(FeedRefused, match=said):
                    parse(f"{head}.{body}.{tail}", KEYS, ISSUER)
                break


def test_a_message_is_a_value_and_its_refusal_has_a_code() -> None:
    with pytest.raises(AttributeError):
        read().seq = 8  # type: ignore[misc] # the promise
    assert FeedRefused.code == "feed_refused"
    assert FeedKeyUnknown.code == "feed_key_unknown"


@pytest.mark.parametrize("payload", [b"[]", b"text", b'{"iss":1,"iss":1}', b"\xff"])
def test_a_content_that_is_no_json_object_is_refused(payload: bytes) -> None:
    with pytest.raises(FeedRefused, match="content"):
        parse_event(sign_jws(payload, KEY, typ=EVENT_TYP), KEYS, ISSUER)
