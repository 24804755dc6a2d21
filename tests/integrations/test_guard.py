"""Every rule about where a token may stand, on bare ASGI scopes: no framework is in between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from jotgate import Claims, KeySet, KeySourceError, SettingsError, Verifier
from jotgate.integrations.asgi import BearerMiddleware, Message, Receive, Send
from jotgate.integrations.guard import Guard, Refused, Scope, StepUp
from jotgate.testing import TestAuth
from jotgate.verifier import Snapshot
from tests.integrations.answers import AMBIGUOUS, EXPIRED, OLD_OR_ONE_FACTOR, ONE_FACTOR, REALM, TOO_OLD

Headers = Sequence[tuple[str, str]]


def scope(headers: Headers = (), **members: object) -> dict[str, Any]:
    """An ASGI scope as a server makes it."""
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "scheme": "https",
        "client": ("203.0.113.7", 5000),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        **members,
    }


def bearer(kit: TestAuth) -> tuple[str, str]:
    return ("Authorization", f"Bearer {kit.token('alice')}")


async def refusal(kit: TestAuth, given: dict[str, Any], **options: object) -> Refused:
    with pytest.raises(Refused) as raised:
        await Guard(kit.verifier, **options).admit(given)  # type: ignore[arg-type]
    return raised.value


async def test_a_bearer_header_is_admitted_and_its_claims_left_in_the_scope(kit: TestAuth) -> None:
    given = scope([bearer(kit)])
    claims = await Guard(kit.verifier).admit(given)
    assert claims.subject == "alice"
    assert given["jotgate.claims"] is claims
    assert given["state"]["claims"] is claims


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_schemes_case_does_not_matter(kit: TestAuth, scheme: str) -> None:
    given = scope([("Authorization", f"{scheme} {kit.token('alice')}")])
    assert (await Guard(kit.verifier).admit(given)).subject == "alice"


@pytest.mark.parametrize("headers", [[], [("Authorization", "Basic YTpi")], [("Authorization", "")]])
async def test_without_a_bearer_credential_the_challenge_names_no_error(kit: TestAuth, headers: Headers) -> None:
    refused = await refusal(kit, scope(headers))
    assert (refused.status, refused.code, refused.challenge) == (401, "missing_credential", REALM)


async def test_two_authorization_headers_are_refused_whatever_they_hold(kit: TestAuth) -> None:
    for other in (bearer(kit), ("Authorization", "Basic YTpi"), ("AUTHORIZATION", "")):
        for headers in ([bearer(kit), other], [other, bearer(kit)]):
            refused = await refusal(kit, scope(headers))
            assert (refused.status, refused.code, refused.challenge) == (400, "ambiguous_credential", AMBIGUOUS)


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer a b", "Bearer a, Bearer b", "Bearer \xe4", "Bearer a\tb"]
)
async def test_a_malformed_bearer_header_is_an_invalid_token(kit: TestAuth, value: str) -> None:
    refused = await refusal(kit, scope([("Authorization", value)]))
    assert (refused.status, refused.code) == (401, "malformed_token")
    assert refused.challenge is not None
    assert 'error="invalid_token"' in refused.challenge


async def test_a_token_counts_in_the_authorization_header_only(kit: TestAuth) -> None:
    token = kit.token("alice")
    elsewhere = [
        ("Cookie", f"access_token={token}"),
        ("X-Access-Token", token),
        ("Proxy-Authorization", f"Bearer {token}"),
    ]
    given = scope(elsewhere, query_string=f"access_token={token}&token={token}".encode())
    assert (await refusal(kit, given)).code == "missing_credential"


@pytest.mark.parametrize("option", ["expired", "early", "forged"])
async def test_a_bad_token_is_told_by_its_own_code(kit: TestAuth, option: str) -> None:
    token = kit.token("alice", **{option: True})  # type: ignore[arg-type]
    refused = await refusal(kit, scope([("Authorization", f"Bearer {token}")]))
    codes = {"expired": "token_expired", "early": "token_not_yet_valid", "forged": "bad_signature"}
    assert (refused.status, refused.code) == (401, codes[option])
    if option == "expired":
        assert refused.challenge == EXPIRED


async def test_no_refusal_repeats_the_token_or_its_claims(kit: TestAuth) -> None:
    tokens = [
        kit.token("alice-canary", expired=True),
        kit.token("alice-canary", forged=True),
        kit.token("alice-canary", audience="canary"),
        kit.token("alice-canary", issuer="https://canary.test"),
        "canary",
        "canary.canary.canary",
        "canary" * 4000,
    ]
    for token in tokens:
        refused = await refusal(kit, scope([("Authorization", f"Bearer {token}")]))
        told = f"{refused!r} {refused} {refused.headers} {refused.body!r}"
        assert "canary" not in told
        assert all(part not in told for part in token.split(".") if part)


async def test_missing_scopes_are_named_and_those_that_are_there_do_not_matter(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    given = scope([("Authorization", f"Bearer {kit.token('alice', scopes=['a', 'b'])}")])
    assert (await guard.admit(given, ("a", "b"))).scopes == {"a", "b"}
    with pytest.raises(Refused) as raised:
        await guard.admit(given, ("b", "c"))
    refused = raised.value
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    assert refused.challenge == (
        f'{REALM}, error="insufficient_scope", '
        'error_description="The access token lacks a scope that this needs.", scope="b c"'
    )


async def stepped_up(kit: TestAuth, demanded: StepUp, leeway_s: int = 5, **login: Any) -> Refused | None:  # noqa: ANN401
    verifier = Verifier(issuer=kit.issuer, audience="api", keys=kit.keys, clock=kit.clock, leeway_s=leeway_s)
    given = scope([("Authorization", f"Bearer {kit.token('alice', **login)}")])
    try:
        await Guard(verifier).admit(given, step_up=demanded)
    except Refused as refused:
        return refused
    return None


async def test_a_login_of_ten_minutes_ago_is_too_old_for_five_minutes_and_not_for_fifteen(kit: TestAuth) -> None:
    ago = kit.clock() - 600
    refused = await stepped_up(kit, StepUp(max_age_s=300), auth_time=ago)
    assert refused is not None
    assert (refused.status, refused.code, refused.challenge) == (401, "insufficient_user_authentication", TOO_OLD)
    assert refused.detail == "Log in again: this needs a login in the last 300 seconds."
    assert await stepped_up(kit, StepUp(max_age_s=900), auth_time=ago) is None
    assert await stepped_up(kit, StepUp(), auth_time=ago) is None


async def test_a_token_that_does_not_say_when_its_login_was_is_too_old(kit: TestAuth) -> None:
    refused = await stepped_up(kit, StepUp(max_age_s=2**40))
    assert refused is not None
    assert refused.code == "insufficient_user_authentication"
    assert await stepped_up(kit, StepUp(max_age_s=2**40), auth_time=0) is None


@pytest.mark.parametrize("leeway_s", [0, 5, 60])
@pytest.mark.parametrize("max_age_s", [0, 300])
async def test_clocks_may_differ_by_the_verifiers_leeway_either_way(
    kit: TestAuth, leeway_s: int, max_age_s: int
) -> None:
    demanded, now = StepUp(max_age_s=max_age_s), kit.clock()
    for good in (now, now + leeway_s, now - max_age_s - leeway_s):
        assert await stepped_up(kit, demanded, leeway_s, auth_time=good) is None
    # The last is an issuer that counts milliseconds.
    for bad in (now + leeway_s + 1, now - max_age_s - leeway_s - 1, now * 1000):
        assert await stepped_up(kit, demanded, leeway_s, auth_time=bad) is not None


async def test_a_token_that_lives_on_does_not_keep_its_login_young(kit: TestAuth) -> None:
    guard, token = Guard(kit.verifier), kit.token("alice", auth_time=kit.clock() - 100)
    given = [("Authorization", f"Bearer {token}")]
    await guard.admit(scope(given), step_up=StepUp(max_age_s=200))
    kit.clock.advance(106)
    with pytest.raises(Refused, match="Log in again"):
        await guard.admit(scope(given), step_up=StepUp(max_age_s=200))


@pytest.mark.parametrize("methods", [(), ("pwd",), ("otp",), ("pwd", "otp"), ("hwk",), ("MFA",), ("mfa2",)])
async def test_without_a_second_factor_the_challenge_asks_for_one(kit: TestAuth, methods: tuple[str, ...]) -> None:
    refused = await stepped_up(kit, StepUp(factor="second"), methods=methods)
    assert refused is not None
    assert (refused.status, refused.code, refused.challenge) == (401, "insufficient_user_authentication", ONE_FACTOR)
    assert refused.detail == "Log in again: this needs a login with a second factor or a passkey."


async def test_a_second_factor_or_a_passkey_that_verified_its_user_is_enough(kit: TestAuth) -> None:
    for methods in (["pwd", "otp", "mfa"], ["mfa"], ["hwk", "user", "mfa"]):
        assert await stepped_up(kit, StepUp(factor="second"), methods=methods) is None


async def test_of_two_demands_both_have_to_be_met_and_the_challenge_names_both(kit: TestAuth) -> None:
    demanded, now = StepUp(300, "second"), kit.clock()
    strong, weak = ["pwd", "otp", "mfa"], ["pwd"]
    for auth_time, methods in ((now, weak), (now - 600, strong), (now - 600, weak)):
        refused = await stepped_up(kit, demanded, auth_time=auth_time, methods=methods)
        assert refused is not None
        assert refused.challenge == OLD_OR_ONE_FACTOR
    assert await stepped_up(kit, demanded, auth_time=now, methods=strong) is None


async def test_the_scope_comes_first_for_logging_in_again_gives_none(kit: TestAuth) -> None:
    given = scope([bearer(kit)])
    with pytest.raises(Refused) as raised:
        await Guard(kit.verifier).admit(given, ("a",), step_up=StepUp(300, "second"))
    assert (raised.value.status, raised.value.code) == (403, "insufficient_scope")


async def test_what_an_earlier_check_of_the_same_request_did_not_demand_is_demanded(kit: TestAuth) -> None:
    guard, given = Guard(kit.verifier), scope([bearer(kit)])
    await guard.admit(given)
    with pytest.raises(Refused, match="Log in again"):
        await guard.admit(given, step_up=StepUp(factor="second"))


@pytest.mark.parametrize("max_age_s", [-1, 1.5, True, "300"])
def test_a_greatest_age_that_is_none_is_a_fault_of_the_program(kit: TestAuth, max_age_s: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="max_age_s"):
        BearerMiddleware(Inner(), kit.verifier, max_age_s=max_age_s)


@pytest.mark.parametrize("factor", ["", "first", "mfa", 2, True, ["second"]])
def test_a_factor_that_is_not_known_is_a_fault_of_the_program(kit: TestAuth, factor: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="factor"):
        BearerMiddleware(Inner(), kit.verifier, factor=factor)


async def test_without_keys_the_answer_is_503_and_tells_nothing_of_the_inside() -> None:
    class Nothing:
        def snapshot(self) -> Snapshot:
            raise KeySourceError("Connection refused by 10.1.2.3.")

    kit = TestAuth()
    guard = Guard(Verifier(issuer=kit.issuer, audience="api", source=Nothing()))
    with pytest.raises(Refused) as raised:
        await guard.admit(scope([bearer(kit)]))
    refused = raised.value
    assert (refused.status, refused.code, refused.challenge) == (503, "key_source_unavailable", None)
    assert refused.headers["retry-after"] == "2"
    assert "10.1.2.3" not in repr(refused.headers) + repr(refused.body)


async def test_two_checks_of_one_request_verify_once_and_two_requests_twice(kit: TestAuth) -> None:
    asked: list[int] = []

    class Counting:
        def snapshot(self) -> Snapshot:
            asked.append(1)
            return Snapshot(KeySet(list(kit.keys)), kit.verifier._source.snapshot().revocations)

    guard = Guard(Verifier(issuer=kit.issuer, audience="api", source=Counting(), clock=kit.clock))
    given = scope([bearer(kit)])
    assert await guard.admit(given) is await guard.admit(given)
    assert len(asked) == 1
    await guard.admit(scope([bearer(kit)]))
    assert len(asked) == 2


async def test_what_another_guard_admitted_is_judged_anew(kit: TestAuth) -> None:
    given = scope([bearer(kit)])
    await Guard(kit.verifier).admit(given)
    other = TestAuth(audience="other", clock=kit.clock)
    with pytest.raises(Refused, match="another audience"):
        await Guard(other.verifier).admit(given)


# Clear text


@pytest.mark.parametrize(
    "members",
    [
        {"scheme": "https"},
        {"scheme": "wss", "type": "websocket"},
        {"scheme": "http", "client": ("127.0.0.1", 1)},
        {"scheme": "http", "client": ("127.9.9.9", 1)},
        {"scheme": "http", "client": ("::1", 1)},
        {"scheme": "http", "client": ("::ffff:127.0.0.1", 1)},
    ],
)
async def test_a_token_is_taken_over_tls_and_on_loopback(kit: TestAuth, members: dict[str, Any]) -> None:
    assert (await Guard(kit.verifier).admit(scope([bearer(kit)], **members))).subject == "alice"


@pytest.mark.parametrize(
    ("members", "headers"),
    [
        ({"scheme": "http"}, []),
        ({"scheme": "ws", "type": "websocket"}, []),
        ({"scheme": "http", "client": None}, []),
        ({"scheme": "http", "client": ("testclient", 1)}, []),
        ({"scheme": "http", "client": ("10.0.0.1", 1)}, []),
        ({"scheme": "http"}, [("X-Forwarded-Proto", "https")]),
        ({"scheme": "http"}, [("Forwarded", "proto=https;for=127.0.0.1")]),
        ({"scheme": "http"}, [("X-Forwarded-For", "127.0.0.1")]),
        ({"scheme": "http"}, [("Host", "localhost")]),
    ],
)
async def test_a_token_over_clear_text_is_refused_whatever_the_sender_says(
    kit: TestAuth, members: dict[str, Any], headers: Headers
) -> None:
    refused = await refusal(kit, scope([bearer(kit), *headers], **members))
    assert (refused.status, refused.code, refused.challenge) == (403, "clear_text_refused", REALM)


@pytest.mark.parametrize("proxies", [("203.0.113.0/24",), ("203.0.113.7",), 1])
async def test_a_trusted_proxy_is_believed_about_tls_either_way(kit: TestAuth, proxies: tuple[str, ...] | int) -> None:
    def through(proto: str) -> dict[str, Any]:
        return scope([bearer(kit), ("X-Forwarded-Proto", proto), ("X-Forwarded-For", "198.51.100.1")], scheme="http")

    guard = Guard(kit.verifier, trusted_proxies=proxies)
    assert (await guard.admit(through("https"))).subject == "alice"
    with pytest.raises(Refused) as raised:
        await guard.admit(through("http"))
    assert raised.value.code == "clear_text_refused"


async def test_another_sender_than_the_trusted_proxy_is_not_believed(kit: TestAuth) -> None:
    given = scope([bearer(kit), ("X-Forwarded-Proto", "https")], scheme="http")
    assert (await refusal(kit, given, trusted_proxies=["203.0.113.8"])).code == "clear_text_refused"


def test_wrong_settings_are_told_all_at_once(kit: TestAuth) -> None:
    with pytest.raises(SettingsError) as raised:
        Guard(kit.verifier, realm='a"b', trusted_proxies=["nonsense"])
    assert len(raised.value.faults) == 2


# The stream cookie


STREAM: Headers = (("Accept", "text/event-stream"), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Dest", "empty"))


async def cookie_of(guard: Guard, kit: TestAuth, note: str = "") -> str:
    posted = scope([("Authorization", f"Bearer {kit.token('alice', note=note)}")], method="POST")
    await guard.admit(posted)
    return guard.stream_cookie(posted)


async def test_the_stream_cookie_is_bound_to_host_browser_site_and_the_tokens_end(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    posted = scope([bearer(kit)], method="POST")
    await guard.admit(posted)
    kit.clock.advance(100)
    name, *attributes = guard.stream_cookie(posted).split("; ")
    assert name.startswith("__Host-Http-jotgate-stream-")
    assert attributes == ["Max-Age=200", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"]


async def test_two_apis_on_one_host_have_cookies_of_their_own(kit: TestAuth) -> None:
    other = TestAuth(audience="other", clock=kit.clock)
    assert Guard(kit.verifier).cookie_name != Guard(other.verifier).cookie_name
    assert Guard(kit.verifier).cookie_name == Guard(kit.verifier).cookie_name


async def test_the_stream_cookie_opens_a_stream_route_of_the_same_site(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    cookie = (await cookie_of(guard, kit)).split(";")[0]
    for site in ("same-origin", "same-site"):
        headers = [("Cookie", f"theme=dark; {cookie}"), STREAM[0], ("Sec-Fetch-Site", site), STREAM[2]]
        assert (await guard.admit(scope(headers), stream=True)).subject == "alice"


@pytest.mark.parametrize(
    ("members", "headers", "status", "code"),
    [
        ({"method": "POST"}, STREAM, 401, "missing_credential"),
        ({"method": "HEAD"}, STREAM, 401, "missing_credential"),
        ({"type": "websocket"}, STREAM, 401, "missing_credential"),
        ({}, STREAM[1:], 401, "missing_credential"),
        ({}, (("Accept", "*/*"), *STREAM[1:]), 401, "missing_credential"),
        ({}, STREAM[:1], 403, "cross_site_refused"),
        ({}, (STREAM[0], STREAM[2]), 403, "cross_site_refused"),
        ({}, (STREAM[0], STREAM[2], ("Sec-Fetch-Site", "cross-site")), 403, "cross_site_refused"),
        ({}, (STREAM[0], STREAM[2], ("Sec-Fetch-Site", "none")), 403, "cross_site_refused"),
        ({}, (*STREAM, ("Sec-Fetch-Site", "cross-site")), 403, "cross_site_refused"),
        ({}, STREAM[:2], 403, "not_an_event_source"),
        ({}, (*STREAM[:2], ("Sec-Fetch-Dest", "document")), 403, "not_an_event_source"),
        ({}, (*STREAM[:2], ("Sec-Fetch-Dest", "iframe")), 403, "not_an_event_source"),
        ({}, (*STREAM, ("Sec-Fetch-Dest", "image")), 403, "not_an_event_source"),
        ({"scheme": "http"}, STREAM, 403, "clear_text_refused"),
    ],
)
async def test_the_stream_cookie_opens_nothing_else(
    kit: TestAuth, members: dict[str, Any], headers: Headers, status: int, code: str
) -> None:
    guard = Guard(kit.verifier)
    cookie = (await cookie_of(guard, kit)).split(";")[0]
    with pytest.raises(Refused) as raised:
        await guard.admit(scope([("Cookie", cookie), *headers], **members), stream=True)
    assert (raised.value.status, raised.value.code) == (status, code)


async def test_a_route_that_is_no_stream_ignores_the_cookie_also_after_a_stream_check(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    given = scope([("Cookie", (await cookie_of(guard, kit)).split(";")[0]), *STREAM])
    await guard.admit(given, stream=True)
    with pytest.raises(Refused) as raised:
        await guard.admit(given)
    assert raised.value.code == "missing_credential"


async def test_a_stream_cookie_that_stands_twice_is_refused(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    cookie = (await cookie_of(guard, kit)).split(";")[0]
    for cookies in ([("Cookie", f"{cookie}; {cookie}")], [("Cookie", cookie), ("Cookie", cookie)]):
        with pytest.raises(Refused) as raised:
            await guard.admit(scope([*cookies, *STREAM]), stream=True)
        assert raised.value.code == "ambiguous_credential"


async def test_the_bearer_header_is_preferred_to_a_cookie_that_came_along(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    cookie = (await cookie_of(guard, kit)).split(";")[0]
    given = scope([("Cookie", cookie), ("Authorization", f"Bearer {kit.token('bob')}"), *STREAM])
    assert (await guard.admit(given, stream=True)).subject == "bob"


async def test_no_cookie_is_made_without_an_admitted_bearer_header(kit: TestAuth) -> None:
    guard = Guard(kit.verifier)
    cookie = (await cookie_of(guard, kit)).split(";")[0]
    by_cookie = scope([("Cookie", cookie), *STREAM])
    await guard.admit(by_cookie, stream=True)
    by_other = scope([bearer(kit)])
    await Guard(kit.verifier).admit(by_other)
    for given in (scope([bearer(kit)]), by_cookie, by_other):
        with pytest.raises(RuntimeError):
            guard.stream_cookie(given)


async def test_a_token_too_long_for_a_cookie_is_refused_instead_of_lost(kit: TestAuth) -> None:
    with pytest.raises(Refused) as raised:
        await cookie_of(Guard(kit.verifier), kit, "x" * 3000)
    assert (raised.value.status, raised.value.code) == (400, "token_too_long")


# The middleware around any app


async def call(app: BearerMiddleware, given: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if given["type"] == "websocket" else "http.request"}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    await app(given, receive, send)
    return sent


class Inner:
    """The app inside: remembers what reached it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, given: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(dict(given))
        if given["type"] == "websocket":
            await send({"type": "websocket.accept"})

    @property
    def claims(self) -> Claims:
        given = self.scopes[-1]
        assert given["state"]["claims"] is given["jotgate.claims"]
        assert isinstance(given["jotgate.claims"], Claims)
        return given["jotgate.claims"]


async def test_the_middleware_hands_the_claims_to_the_app_and_to_nobody_outside(kit: TestAuth) -> None:
    inner = Inner()
    shared: dict[str, Any] = {"pool": 1}
    given = scope([bearer(kit)], state=shared)
    await call(BearerMiddleware(inner, kit.verifier), given)
    assert inner.claims.subject == "alice"
    assert inner.scopes[0]["state"]["pool"] == 1
    assert shared == {"pool": 1}
    assert "jotgate.claims" not in given


async def test_the_middleware_answers_refusals_itself(kit: TestAuth) -> None:
    inner = Inner()
    start, body = await call(BearerMiddleware(inner, kit.verifier, scopes=["a"]), scope([bearer(kit)]))
    assert inner.scopes == []
    assert start["status"] == 403
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"www-authenticate"].endswith(b', scope="a"')
    assert json.loads(body["body"])["code"] == "insufficient_scope"


@pytest.mark.parametrize("anonymous", [False, True])
async def test_the_middleware_may_demand_a_recent_login_and_a_second_factor(kit: TestAuth, anonymous: bool) -> None:
    inner = Inner()
    app = BearerMiddleware(inner, kit.verifier, max_age_s=300, factor="second", anonymous=anonymous)
    login: dict[str, Any] = {"auth_time": kit.clock() - 60, "methods": ["pwd", "otp", "mfa"]}
    for lacking in ({"methods": ["pwd"]}, {"auth_time": kit.clock() - 600}):
        start, _ = await call(app, scope([("Authorization", f"Bearer {kit.token('alice', **login | lacking)}")]))
        assert start["status"] == 401
        assert dict(start["headers"])[b"www-authenticate"] == OLD_OR_ONE_FACTOR.encode()
    assert inner.scopes == []
    await call(app, scope([("Authorization", f"Bearer {kit.token('alice', **login)}")]))
    assert inner.claims.subject == "alice"


async def test_public_paths_are_compared_exactly(kit: TestAuth) -> None:
    inner = Inner()
    app = BearerMiddleware(inner, kit.verifier, public=["/healthz"])
    await call(app, scope(path="/healthz"))
    assert len(inner.scopes) == 1
    for path in ("/healthz/", "/healthz/x", "//healthz", "/x/../healthz", "/HEALTHZ", ""):
        start, _ = await call(app, scope(path=path))
        assert start["status"] == 401
    assert len(inner.scopes) == 1


async def test_anonymous_lets_no_token_pass_and_no_bad_one(kit: TestAuth) -> None:
    inner = Inner()
    app = BearerMiddleware(inner, kit.verifier, anonymous=True, scopes=["a"])
    await call(app, scope())
    assert inner.scopes[0]["state"]["claims"] is None
    assert inner.scopes[0]["jotgate.claims"] is None
    for token in (kit.token("alice", expired=True), kit.token("alice")):
        start, _ = await call(app, scope([("Authorization", f"Bearer {token}")]))
        assert start["status"] in (401, 403)
    await call(app, scope([("Authorization", f"Bearer {kit.token('alice', scopes=['a'])}")]))
    assert inner.claims.subject == "alice"
    assert len(inner.scopes) == 2


async def test_the_lifespan_passes_untouched(kit: TestAuth) -> None:
    inner = Inner()
    given = {"type": "lifespan"}
    await call(BearerMiddleware(inner, kit.verifier), given)
    assert inner.scopes[0] == given == {"type": "lifespan"}


@pytest.mark.parametrize("scopes", [["orders:read orders:write"], [""], ["a\n"], ["ä"], [["a"]], "orders:read"])
def test_required_scopes_that_no_token_could_have_are_a_fault_of_the_program(kit: TestAuth, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="scope"):
        BearerMiddleware(Inner(), kit.verifier, scopes=scopes)


# WebSockets


def websocket(headers: Headers = (), **members: object) -> dict[str, Any]:
    offered = [value for name, value in headers if name.lower() == "sec-websocket-protocol"]
    return scope(
        headers,
        type="websocket",
        scheme="wss",
        subprotocols=[part.strip() for value in offered for part in value.split(",")],
        **members,
    )


async def test_a_websocket_takes_the_header_and_selects_nothing(kit: TestAuth) -> None:
    inner = Inner()
    sent = await call(BearerMiddleware(inner, kit.verifier), websocket([bearer(kit)]))
    assert sent == [{"type": "websocket.accept"}]
    assert inner.claims.subject == "alice"


@pytest.mark.parametrize("offered", ["jotgate.bearer, {}", "jotgate.bearer,{}", "chat, jotgate.bearer, {}, other"])
async def test_a_websocket_takes_the_subprotocol_pair_and_selects_its_name(kit: TestAuth, offered: str) -> None:
    inner = Inner()
    token = kit.token("alice")
    given = websocket([("Sec-WebSocket-Protocol", offered.format(token))])
    sent = await call(BearerMiddleware(inner, kit.verifier), given)
    assert sent == [{"type": "websocket.accept", "subprotocol": "jotgate.bearer"}]
    left = inner.scopes[0]["subprotocols"]
    assert token not in left
    assert "jotgate.bearer" not in left
    assert ("chat" in left) is ("chat" in offered)


@pytest.mark.parametrize(
    ("offered", "status", "code"),
    [
        ("chat", 401, "missing_credential"),
        ("jotgate.bearer", 401, "malformed_token"),
        ("jotgate.bearer, x", 401, "malformed_token"),
        ("JOTGATE.BEARER, {}", 401, "missing_credential"),
        ("{}, jotgate.bearer", 401, "malformed_token"),
        ("jotgate.bearer, {}, jotgate.bearer, {}", 400, "ambiguous_credential"),
    ],
)
async def test_a_websocket_is_refused_before_it_is_accepted_with_the_answer_of_a_request(
    kit: TestAuth, offered: str, status: int, code: str
) -> None:
    token = kit.token("alice")
    given = websocket(
        [("Sec-WebSocket-Protocol", offered.format(token, token))], extensions={"websocket.http.response": {}}
    )
    start, body = await call(BearerMiddleware(Inner(), kit.verifier), given)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert b"www-authenticate" in dict(start["headers"])
    assert body["type"] == "websocket.http.response.body"
    assert json.loads(body["body"])["code"] == code


async def test_header_and_subprotocol_at_once_are_refused(kit: TestAuth) -> None:
    given = websocket([bearer(kit), ("Sec-WebSocket-Protocol", f"jotgate.bearer, {kit.token('alice')}")])
    sent = await call(BearerMiddleware(Inner(), kit.verifier), given)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "ambiguous_credential"}]


async def test_the_subprotocol_pair_means_nothing_to_a_request(kit: TestAuth) -> None:
    given = scope([("Sec-WebSocket-Protocol", f"jotgate.bearer, {kit.token('alice')}")])
    assert (await refusal(kit, given)).code == "missing_credential"


async def test_a_server_without_denial_responses_closes_with_1008(kit: TestAuth) -> None:
    sent = await call(BearerMiddleware(Inner(), kit.verifier), websocket())
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "missing_credential"}]
