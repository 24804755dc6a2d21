"""Bad input: each kind answers with its own code and leaves the database as it was."""

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.http.support import EMAIL, PASSWORD, Api, code

GOOD = {"email": "grace@example.com", "password": PASSWORD}
BAD_BODIES = {
    "invalid_utf8": (400, b'{"email": "\xff"}'),
    "invalid_json": (400, b'{"email": '),
    "duplicate_member": (400, b'{"email": "a@example.com", "email": "b@example.com"}'),
    "nesting_too_deep": (400, b'{"email": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "number_out_of_range": (400, b'{"email": 1e999}'),
    "not_an_object": (400, b'["email"]'),
    "nul_in_text": (400, b'{"email": "a@example.com", "password": "abc\\u0000defghijklmnop"}'),
    "unknown_member": (422, json.dumps(GOOD | {"admin": True}).encode()),
    "missing_member": (422, b'{"email": "a@example.com"}'),
    "wrong_type": (422, b'{"email": "a@example.com", "password": 5}'),
    "invalid_email": (422, json.dumps(GOOD | {"email": "not an address"}).encode()),
    "password_too_short": (422, json.dumps(GOOD | {"password": "fourteen chars"}).encode()),
    "password_too_common": (422, json.dumps(GOOD | {"password": "Grace@example 2026"}).encode()),
    "password_too_long": (422, json.dumps(GOOD | {"password": "x" * 1025}).encode()),
    "body_too_large": (413, json.dumps(GOOD | {"password": "x" * 66_000}).encode()),
}


@pytest.mark.parametrize("expected", BAD_BODIES)
async def test_each_bad_body_has_its_own_code_and_changes_nothing(api: Api, expected: str) -> None:
    status, body = BAD_BODIES[expected]
    before = api.dump()
    answer = await api.http.post("/v1/signup", content=body, headers={"content-type": "application/json"})
    assert code(answer) == (status, expected)
    assert api.dump() == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/jsonp"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_other_content_types_are_refused(api: Api, headers: dict[str, str]) -> None:
    before = api.dump()
    answer = await api.http.post("/v1/signup", content=json.dumps(GOOD).encode(), headers=headers)
    assert code(answer) == (415, "unsupported_media_type")
    assert api.dump() == before


@pytest.mark.parametrize(
    "value", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
async def test_json_in_utf8_is_taken_however_it_is_spelled(api: Api, value: str) -> None:
    answer = await api.http.post("/v1/signup", content=json.dumps(GOOD).encode(), headers={"content-type": value})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "email",
    ["", "a", "@example.com", "a@", "a@b@example.com", "a b@example.com", "a@exa mple.com", "a@example..com",
     "a@localhost", "a@[127.0.0.1]", "a\n@example.com", "a@" + "x" * 250 + ".com", "x" * 65 + "@example.com",
     "a@пример", "\N{CYRILLIC SMALL LETTER A}da@example.com", "ada\N{ZERO WIDTH SPACE}@example.com"],
)  # fmt: skip
async def test_what_is_no_address_is_refused(api: Api, email: str) -> None:
    assert code(await api.signup(email)) == (422, "invalid_email")


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_read(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in iter(int, 1):
            yield b"x" * 1000

    headers = {"content-type": "application/json", "content-length": "65537"}
    assert code(await api.http.post("/v1/signup", content=endless(), headers=headers)) == (413, "body_too_large")


async def test_refusals_never_repeat_what_was_sent(api: Api) -> None:
    canary = "kanarienvogel"
    bodies = [
        {canary: 1},
        {"email": canary, "password": PASSWORD},
        {"email": f"<{canary}>\\@x y", "password": PASSWORD},
        {"email": f"a@{canary}", "password": PASSWORD},
        {"email": EMAIL, "password": canary},
        {"email": [canary], "password": PASSWORD},
        {"email": EMAIL, "password": PASSWORD, "delivery": canary},
        {"refresh_token": canary},
    ]
    for path in ("/v1/signup", "/v1/login", "/v1/refresh", "/v1/logout", f"/{canary}"):
        for body in bodies:
            answer = await api.post(path, body)
            assert answer.status_code >= 400
            assert canary not in answer.text + str(answer.headers)


async def test_unknown_paths_and_methods(api: Api) -> None:
    assert code(await api.http.get("/v1/nothing")) == (404, "not_found")
    assert code(await api.http.get("/v1/login/")) == (404, "not_found")
    refused = await api.http.get("/v1/login")
    assert code(refused) == (405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
    refused = await api.http.delete("/v1/sessions")
    assert (code(refused), refused.headers["allow"]) == ((405, "method_not_allowed"), "GET, HEAD")


@pytest.mark.parametrize("path", ["/v1/account", "/.well-known/jwks.json", "/healthz"])
async def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    get, head = await api.http.get(path), await api.http.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    each_time_another = {"ratelimit": "", "x-request-id": ""}  # how many are left; which request it was
    assert {**head.headers, **each_time_another} == {**get.headers, **each_time_another}


async def test_a_repeated_authorization_header_is_refused(api: Api) -> None:
    headers = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    assert code(await api.http.get("/v1/account", headers=headers)) == (400, "invalid_header")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
            max_leaves=9,
        ).map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries(
            {},
            optional={
                "email": st.text(max_size=30) | st.none() | st.just(EMAIL),
                "password": st.text(max_size=14) | st.integers() | st.lists(st.text(), max_size=2),
                "delivery": st.sampled_from(["body", "cookie", "both", ""]),
                "refresh_token": st.text(max_size=90) | st.just("jgr_" + "A" * 80),
            },
        ).map(lambda value: json.dumps(value).encode()),
    ),
    path=st.sampled_from(["/v1/signup", "/v1/login", "/v1/refresh", "/v1/logout", "/oauth/token"]),
    media_type=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", ""]),
)
async def test_whatever_is_posted_gets_a_4xx_with_a_code(api: Api, body: bytes, path: str, media_type: str) -> None:
    answer = await api.http.post(path, content=body, headers={"content-type": media_type} if media_type else {})
    assert 400 <= answer.status_code < 500
    problem = answer.json()
    assert problem["error" if path == "/oauth/token" else "code"]
