"""Who did what, and when: whatever changes something, or is refused as a guess, leaves its line, and nothing secret."""

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jotgate.server import Settings, create_app
from jotgate.server.keys import PURPOSES
from jotgate.server.records import AuditEvent
from jotgate.server.store.sqlite import SqliteStore
from tests.server.http.support import BROWSER, EMAIL, PASSWORD, Api, Clock, client_of

WITHIN_S = 15
NEW_PASSWORD = "another horse battery staple"
WRONG = "not the one that it is"


async def people_did(api: Api, *, count: int) -> list[AuditEvent]:
    """The lines that people caused, as soon as there are so many: what tells of a refusal is written a moment later."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        told = [each for each in await api.app.start().store.audit_after(0, limit=1_000) if each.actor != "server"]
        if len(told) >= count:
            return told
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.02)


async def test_the_life_of_an_account_is_told_line_by_line(api: Api) -> None:
    asked: dict[str, str] = {}

    async def ask(event: str, path: str, body: dict[str, Any]) -> httpx2.Response:
        method = "DELETE" if "/sessions/" in path else "POST"
        answer = await api.http.request(method, path, json=body, headers={"user-agent": "curl/8"})
        asked[answer.headers["x-request-id"]] = event
        return answer

    async def log_in(password: str, event: str = "login") -> str:
        form = {"email": EMAIL, "password": password, "delivery": "body"}
        token: str = (await ask(event, "/v1/login", form)).json().get("refresh_token", "")
        return token

    await ask("account_created", "/v1/signup", {"email": EMAIL, "password": PASSWORD})
    first = await log_in(PASSWORD)
    await log_in(WRONG, "login_failed")
    second = await log_in(PASSWORD)
    sid = next(each.sid for each in await people_did(api, count=3) if each.event == "login")
    await ask("session_revoked", f"/v1/sessions/{sid}", {"refresh_token": second})
    await ask("nothing", "/v1/refresh", {"refresh_token": first})  # it has ended
    change = {"refresh_token": second, "new_password": NEW_PASSWORD}
    await ask("password_change_refused", "/v1/password", change | {"current_password": WRONG})
    answer = await ask("password_changed", "/v1/password", change | {"current_password": PASSWORD})
    third = answer.json()["refresh_token"]
    for _ in range(2):
        token = (await ask("nothing", "/v1/refresh", {"refresh_token": third})).json()["refresh_token"]
    api.clock.now += 100
    await ask("nothing", "/v1/refresh", {"refresh_token": token})
    api.clock.now += 100
    await ask("refresh_reused", "/v1/refresh", {"refresh_token": third})
    await ask("logout", "/v1/logout", {"refresh_token": await log_in(NEW_PASSWORD)})
    await ask("logout_everywhere", "/v1/logout/everywhere", {"refresh_token": await log_in(NEW_PASSWORD)})

    told = await people_did(api, count=13)
    expected = Counter(name for name in asked.values() if name != "nothing")
    expected["login"] += 1  # the session that a change of password begins
    assert Counter(each.event for each in told) == expected
    account = await api.app.start().store.account_by_email(EMAIL)
    assert account is not None
    for each in told:
        assert each.account_id == account.id
        assert each.actor == ("anonymous" if each.event in ("login_failed", "refresh_reused") else "account")
        assert (each.address, each.device) == ("127.0.0.1", "curl")
        began = each.event == "login" and each.detail == '{"after":"password_changed"}'
        assert asked[each.request_id] == ("password_changed" if began else each.event)
        assert bool(each.sid) == (each.event not in ("account_created", "login_failed", "logout_everywhere"))


async def test_a_login_that_takes_a_sessions_place_is_told_as_such(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    await api.browser_login()
    told = await people_did(api, count=4)
    assert [(each.event, each.detail) for each in told] == [
        ("account_created", ""),
        ("login", ""),
        ("login", ""),
        ("logout", '{"replaced":true}'),
    ]
    assert told[3].sid == told[1].sid
    assert told[3].request_id == told[2].request_id


async def test_of_an_unknown_address_not_a_letter_is_kept(api: Api) -> None:
    await api.signup()
    for email in ("my-secret-passphrase@example.com", EMAIL):
        await api.post("/v1/login", {"email": email, "password": WRONG, "delivery": "body"})
    await people_did(api, count=3)
    assert "passphrase" not in "".join(api.dump())
    known = [bool(each.account_id) for each in await people_did(api, count=3) if each.event == "login_failed"]
    assert known == [False, True]


async def test_no_line_tells_an_address_of_mail_or_a_secret(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    await api.post("/v1/login", {"email": EMAIL, "password": WRONG}, headers=BROWSER)
    await people_did(api, count=3)
    for each in await api.app.start().store.audit_after(0, limit=1_000):
        text = repr(each)
        for secret in (EMAIL, "ada", PASSWORD, WRONG, tokens["refresh_token"], tokens["access_token"]):
            assert secret not in text


async def test_keys_and_settings_are_told_at_the_first_start_and_settings_when_they_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for ttl_s in (300, 300, 600):
        app = create_app(
            Settings(signup="open", data_dir=data, hash_workers=1, access_token_ttl_s=ttl_s), clock=Clock()
        )
        async with app.lifespan():
            pass
    store = SqliteStore(data / "jotgate.sqlite3")
    store.open()
    told = await store.audit_after(0, limit=1_000)
    store.close_now()
    assert {each.actor for each in told} == {"server"}
    purposes = len(PURPOSES)
    expected = {"key_made": 3 * purposes, "key_activated": purposes, "settings_changed": 2}
    assert Counter(each.event for each in told) == expected
    made = json.loads(next(each.detail for each in told if each.event == "key_made"))
    assert set(made) == {"kid", "purpose", "algorithm", "issuer"}
    assert json.loads(told[-1].detail)["changed"] == ["access_token_ttl_s"]


async def test_refusals_are_written_when_the_server_stops(tmp_path: Path) -> None:
    data = tmp_path / "data"
    app = create_app(Settings(signup="open", data_dir=data, hash_workers=1), clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        await http.post("/v1/login", json={"email": EMAIL, "password": WRONG, "delivery": "body"})
    store = SqliteStore(data / "jotgate.sqlite3")
    store.open()
    told = await store.audit_after(0, limit=1_000, event="login_failed")
    store.close_now()
    assert len(told) == 1


# Request ids


async def test_each_answer_has_an_id_of_its_own_and_no_stranger_chooses_it(api: Api) -> None:
    seen = set()
    for headers in ({}, {"x-request-id": "mine"}, {"x-request-id": "mine"}):
        for path in ("/healthz", "/nothing-here", "/v1/account", "/.well-known/jwks.json"):
            seen.add((await api.http.get(path, headers=headers)).headers["x-request-id"])
    assert len(seen) == 12
    assert all(len(each) == 16 for each in seen)  # 96 bits


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("edge-1.A_b", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("two words", False),
        ("é", False),
        ("a\x1b[31m", False),
        ("jgr_" + "a" * 20, False),
    ],
)
async def test_a_trusted_proxys_id_is_taken_if_it_is_one(tmp_path: Path, given: str, taken: bool) -> None:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, trusted_proxies=("10.0.0.1",))
    app = create_app(settings, clock=Clock())
    async with app.lifespan():
        for peer, believed in (("10.0.0.1", taken), ("10.0.0.2", False)):
            async with client_of(app, peer=peer) as http:
                answer = await http.get("/healthz", headers=[(b"x-request-id", given.encode("latin-1"))])
                assert (answer.headers["x-request-id"] == given) is believed
        async with client_of(app, peer="10.0.0.1") as http:
            twice = await http.get("/healthz", headers=[("x-request-id", "one"), ("x-request-id", "two")])
            assert twice.headers["x-request-id"] not in ("one", "two")


async def test_counted_proxies_are_believed_where_they_have_left_their_trace(tmp_path: Path) -> None:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, trusted_proxies=1)
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app, peer="10.0.0.1") as http:
        for trace, believed in (({"x-forwarded-for": "192.0.2.7"}, True), ({}, False)):
            answer = await http.get("/healthz", headers={"x-request-id": "edge-1"} | trace)
            assert (answer.headers["x-request-id"] == "edge-1") is believed


async def test_a_page_of_another_origin_may_read_the_id_and_the_time(tmp_path: Path) -> None:
    origin = "https://shop.example.com"
    settings = Settings(
        signup="open",
        data_dir=tmp_path / "data",
        hash_workers=1,
        issuer="https://auth.example.com",
        allowed_origins=(origin,),
    )
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app, "https://auth.example.com") as http:
        answer = await http.get("/v1/account", headers={"origin": origin})
        assert {"x-request-id", "date"} <= set(answer.headers["access-control-expose-headers"].split(", "))


async def test_the_lines_of_the_log_name_the_request_and_nothing_else_that_a_host_binds(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    import structlog

    caplog.set_level("INFO")
    with structlog.contextvars.bound_contextvars(user="ada@example.com", request_id="the-hosts"):
        answer = await api.signup()
    told = [json.loads(each.getMessage()) for each in caplog.records if each.name == "jotgate"]
    (line,) = [each for each in told if each["event"] == "account_created"]
    assert line["request_id"] == answer.headers["x-request-id"] != "the-hosts"
    assert "user" not in line


async def test_a_guess_that_has_to_wait_leaves_its_line_without_saying_at_whom(api: Api) -> None:
    form = {"email": EMAIL, "password": WRONG, "delivery": "body"}
    answers = [(await api.post("/v1/login", form)).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]
    told = await people_did(api, count=6)
    assert [(each.event, each.account_id, each.detail) for each in told][-1] == (
        "login_failed",
        "",
        '{"limited":"account"}',
    )


async def test_guesses_beyond_a_limit_leave_their_line_wherever_they_are_refused(tmp_path: Path) -> None:
    settings = Settings(
        signup="open", data_dir=tmp_path / "data", hash_workers=1, limit_logins="4/hour", limit_device="2/hour"
    )
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, clock, settings)
        await api.signup()
        session = (await api.login())["refresh_token"]
        guess = {"refresh_token": session, "current_password": WRONG, "new_password": NEW_PASSWORD}
        answers = [(await api.post("/v1/password", guess)).status_code for _ in range(3)]
        assert answers == [401, 401, 429]
        answers = [
            (await api.post("/v1/login", {"email": EMAIL, "password": WRONG, "delivery": "body"})).status_code
            for _ in range(2)
        ]
        assert answers == [401, 429]
        told = await people_did(api, count=7)
        account = await app.start().store.account_by_email(EMAIL)
        assert account is not None
        assert [(each.event, each.account_id, each.detail) for each in told][2:] == [
            ("password_change_refused", account.id, ""),
            ("password_change_refused", account.id, ""),
            ("password_change_refused", account.id, '{"limited":"device"}'),
            ("login_failed", account.id, ""),
            ("login_failed", "", '{"limited":"logins"}'),
        ]


async def test_failures_at_many_accounts_do_not_hide_those_at_one(api: Api) -> None:
    audit = api.app.start().audit
    for n in range(100):
        audit.put(AuditEvent(at=api.clock.now, event="login_failed", actor="anonymous", account_id=f"own{n}"))
    for _ in range(10):
        audit.put(AuditEvent(at=api.clock.now, event="login_failed", actor="anonymous", account_id="victim"))
    told = Counter(each.account_id for each in await people_did(api, count=103))
    assert told["victim"] == 3
    assert len(told) == 101


async def test_a_setting_that_is_no_text_keeps_no_line_from_the_trail(tmp_path: Path) -> None:
    settings = Settings(signup="open", data_dir=tmp_path / os.fsdecode(b"d\xff"), hash_workers=1)
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, Clock(), settings)
        await api.post("/v1/login", {"email": EMAIL, "password": WRONG, "delivery": "body"})
        assert [each.event for each in await people_did(api, count=1)] == ["login_failed"]
        told = await app.start().store.audit_after(0, limit=100, event="settings_changed")
        assert [r"d\\udcff" in each.detail for each in told] == [True]
