"""Sessions over HTTP: shown to their owner, ended one by one or all at once, and all others with a new password."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from typing import Any

import httpx2
import pytest

from jotgate import TokenRevoked
from jotgate.server.flows import revoking
from jotgate.server.store.sqlite import SqliteStore
from tests.server.http.support import BROWSER, EMAIL, PASSWORD, Api, bearer, client_of, code

NEW_PASSWORD = "another correct horse battery"
FIREFOX = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


async def delete(api: Api, sid: str, body: object = None, headers: dict[str, str] | None = None) -> httpx2.Response:
    content = None if body is None else json.dumps(body).encode()
    typed = {} if body is None else {"content-type": "application/json"}
    return await api.http.request("DELETE", f"/v1/sessions/{sid}", content=content, headers=typed | (headers or {}))


def sid_of(api: Api, tokens: dict[str, Any]) -> str:
    sid = api.app.verifier().verify(tokens["access_token"]).session_id
    assert sid is not None
    return sid


async def listed(api: Api, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await api.http.get("/v1/sessions", headers=bearer(tokens["access_token"]))
    assert answer.status_code == 200, answer.text
    sessions: list[dict[str, Any]] = answer.json()["sessions"]
    return sessions


async def test_each_session_is_shown_with_where_it_comes_from_and_the_current_one_is_marked(api: Api) -> None:
    await api.signup()
    first = await api.login()
    began = api.clock.now
    api.clock.now += 100
    await api.post("/v1/login", {"email": EMAIL, "password": PASSWORD}, headers=BROWSER | FIREFOX)
    sessions = (await api.http.get("/v1/sessions", headers=BROWSER)).json()["sessions"]
    assert [each["current"] for each in sessions] == [True, False]
    assert sessions[0] == {
        "id": sessions[0]["id"],
        "current": True,
        "device": "Firefox on Linux",
        "address": "127.0.0.1",
        "methods": ["pwd"],
        "auth_time": began + 100,
        "created_at": began + 100,
        "seen_at": began + 100,
        "idle_ends_at": began + 100 + api.settings.session_idle_s,
        "ends_at": began + 100 + api.settings.session_absolute_s,
    }
    assert sessions[1]["id"] == sid_of(api, first)
    assert [each["current"] for each in await listed(api, first)] == [False, True]


async def test_the_list_needs_the_cookie_or_a_token_with_the_scope(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    assert code(await api.http.get("/v1/sessions")) == (401, "missing_credential")
    assert code(await api.http.get("/v1/sessions", headers=bearer("x.y.z"))) == (401, "malformed_token")
    narrow = await api.http.post(
        "/oauth/token",
        data={"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "scope": "account:read"},
    )
    assert len(await listed(api, narrow.json())) == 1


async def test_of_very_many_sessions_the_current_one_is_shown_though_it_was_used_first(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "MAX_SHOWN", 3)
    await api.signup()
    first = await api.login()
    later = []
    for _ in range(4):
        api.clock.now += 10
        later.append(sid_of(api, await api.login()))
    sessions = await listed(api, first)
    assert [each["id"] for each in sessions] == [later[3], later[2], sid_of(api, first)]
    assert [each["current"] for each in sessions] == [False, False, True]


async def test_what_has_ended_is_not_shown(api: Api) -> None:
    await api.signup()
    kept, ended, idle = await api.login(), await api.login(), await api.login()
    await api.post("/v1/logout", {"refresh_token": ended["refresh_token"]})
    assert {each["id"] for each in await listed(api, kept)} == {sid_of(api, kept), sid_of(api, idle)}
    api.clock.now += api.settings.session_idle_s - 1
    kept = (await api.refresh(kept["refresh_token"])).json()
    api.clock.now += 1
    assert {each["id"] for each in await listed(api, kept)} == {sid_of(api, kept)}


async def test_one_session_is_ended_and_counts_at_once_and_for_good(api: Api) -> None:
    await api.signup()
    mine, other = await api.login(), await api.login()
    verifier = api.app.verifier()
    answer = await delete(api, sid_of(api, other), {"refresh_token": mine["refresh_token"]})
    assert (answer.status_code, answer.content) == (204, b"")
    with pytest.raises(TokenRevoked):
        verifier.verify(other["access_token"])
    assert code(await api.refresh(other["refresh_token"])) == (401, "session_ended")
    assert (await api.refresh(mine["refresh_token"])).status_code == 200


async def test_the_current_session_can_be_ended_and_its_cookie_goes(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    sessions = (await api.http.get("/v1/sessions", headers=BROWSER)).json()["sessions"]
    answer = await delete(api, sessions[0]["id"], headers=BROWSER)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_another_ones_session_an_unknown_one_and_one_that_has_ended_get_the_same_answer(api: Api) -> None:
    await api.signup()
    await api.signup("eve@example.com")
    mine, ended, hers = await api.login(), await api.login(), await api.login("eve@example.com")
    await api.post("/v1/logout", {"refresh_token": ended["refresh_token"]})
    over = next(iter(api.app.live_snapshot().revocations.sessions))
    theirs, unknown, gone = [
        await delete(api, sid, {"refresh_token": mine["refresh_token"]}) for sid in (sid_of(api, hers), "A" * 22, over)
    ]
    assert code(theirs) == code(unknown) == code(gone) == (404, "session_not_found")
    assert theirs.content == unknown.content == gone.content
    assert (await api.refresh(hers["refresh_token"])).status_code == 200


@pytest.mark.parametrize("sid", ["%00", "%ff", "a" * 65, "%F0%9F%98%80", "..%2F.."])
async def test_what_no_session_is_called_is_nobodys(api: Api, sid: str) -> None:
    await api.signup()
    mine = await api.login()
    answer = await delete(api, sid, {"refresh_token": mine["refresh_token"]})
    assert code(answer) in ((404, "session_not_found"), (404, "not_found"))


async def test_everything_is_logged_out_at_once(api: Api) -> None:
    await api.signup()
    await api.signup("eve@example.com")
    sessions = [await api.login() for _ in range(3)]
    hers = await api.login("eve@example.com")
    answer = await api.post("/v1/logout/everywhere", {"refresh_token": sessions[1]["refresh_token"]})
    assert (answer.status_code, answer.content) == (204, b"")
    for each in sessions:
        with pytest.raises(TokenRevoked):
            api.app.verifier().verify(each["access_token"])
        assert code(await api.refresh(each["refresh_token"])) == (401, "session_ended")
    assert (await api.refresh(hers["refresh_token"])).status_code == 200
    assert code(await api.post("/v1/logout/everywhere", {"refresh_token": sessions[0]["refresh_token"]})) == (
        401,
        "session_ended",
    )


async def test_a_browser_logs_out_everywhere_with_its_cookie_which_goes(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    answer = await api.post("/v1/logout/everywhere", headers=BROWSER)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]


async def test_a_new_password_ends_all_sessions_and_begins_another(api: Api) -> None:
    await api.signup()
    mine, other = await api.login(), await api.login()
    before = {sid_of(api, mine), sid_of(api, other)}
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "refresh_token": mine["refresh_token"]}
    answer = await api.post("/v1/password", body)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    new = answer.json()
    for each in (mine, other):
        with pytest.raises(TokenRevoked):
            api.app.verifier().verify(each["access_token"])
        assert code(await api.refresh(each["refresh_token"])) == (401, "session_ended")
    assert sid_of(api, new) not in before
    assert (await api.refresh(new["refresh_token"])).status_code == 200
    old = await api.post("/v1/login", {"email": EMAIL, "password": PASSWORD, "delivery": "body"})
    assert code(old) == (401, "invalid_credentials")
    await api.login(password=NEW_PASSWORD)


async def test_a_browser_that_changes_the_password_gets_another_cookie_and_no_refresh_token_to_read(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    before = dict(api.http.cookies)
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = await api.post("/v1/password", body, headers=BROWSER)
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()
    assert before.keys() == dict(api.http.cookies).keys()
    assert before != dict(api.http.cookies)
    assert (await api.post("/v1/refresh", headers=BROWSER)).status_code == 200


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"current_password": PASSWORD + "x"}, (401, "invalid_credentials")),
        ({"new_password": "short"}, (422, "password_too_short")),
        ({"new_password": "ada.example-2026"}, (422, "password_too_common")),
        ({"new_password": "x" * 1025}, (422, "password_too_long")),
        ({"current_password": "x" * 1025}, (422, "password_too_long")),
        ({"new_password": PASSWORD}, (422, "password_unchanged")),
        ({"new_password": None}, (422, "wrong_type")),
        ({"more": 1}, (422, "unknown_member")),
    ],
)
async def test_a_refused_change_of_password_changes_nothing(
    api: Api, changed: dict[str, object], expected: tuple[int, str]
) -> None:
    await api.signup()
    mine, other = await api.login(), await api.login()
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "refresh_token": mine["refresh_token"]}
    before = api.dump()
    assert code(await api.post("/v1/password", body | changed)) == expected
    assert api.dump() == before
    api.app.verifier().verify(other["access_token"])


async def test_of_two_changes_of_password_at_once_one_counts(api: Api) -> None:
    import asyncio

    await api.signup()
    sessions = [await api.login() for _ in range(2)]
    words = ["first new password here", "second new password here"]
    answers = await asyncio.gather(
        *(
            api.post(
                "/v1/password",
                {"current_password": PASSWORD, "new_password": word, "refresh_token": each["refresh_token"]},
            )
            for word, each in zip(words, sessions, strict=True)
        )
    )
    won = [answer.status_code for answer in answers].index(200)
    assert answers[1 - won].status_code == 401
    await api.login(password=words[won])
    assert (await api.refresh(sessions[1 - won]["refresh_token"])).status_code == 401


async def test_an_apis_bearer_token_changes_nothing(api: Api) -> None:
    """Confused deputy: an API must not act as its user."""
    await api.signup()
    tokens = await api.login()
    authorization = bearer(tokens["access_token"])
    assert code(await delete(api, sid_of(api, tokens), headers=authorization)) == (401, "missing_credential")
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    for path, sent in (("/v1/logout/everywhere", None), ("/v1/password", body)):
        assert code(await api.post(path, sent, headers=authorization)) == (401, "missing_credential")
    assert (await api.refresh(tokens["refresh_token"])).status_code == 200


async def test_another_sites_page_changes_nothing(api: Api) -> None:
    await api.signup()
    await api.browser_login()
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site", "jotgate-client": "1"}
    sessions = (await api.http.get("/v1/sessions", headers=BROWSER)).json()["sessions"]
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert code(await delete(api, sessions[0]["id"], headers=foreign)) == (403, "cross_site_refused")
    for path, sent in (("/v1/logout/everywhere", None), ("/v1/password", body)):
        assert code(await api.post(path, sent, headers=foreign)) == (403, "cross_site_refused")
    assert len((await api.http.get("/v1/sessions", headers=BROWSER)).json()["sessions"]) == 1


async def test_a_session_id_is_one_segment_of_a_path_and_methods_are_its_own(api: Api) -> None:
    for path in ("/v1/sessions/", "/v1/sessions/a/b", "/v1/nothing/a"):
        assert code(await api.http.request("DELETE", path)) == (404, "not_found")
    for method in ("GET", "POST", "PUT"):
        answer = await api.http.request(method, "/v1/sessions/a")
        assert code(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "DELETE"
    told = await api.http.request("OPTIONS", "/v1/sessions/a")
    assert told.headers["access-control-allow-methods"] == "DELETE"


async def test_sessions_are_ended_in_every_process(api: Api) -> None:
    from jotgate.server import create_app

    await api.signup()
    mine, other = await api.login(), await api.login()
    elsewhere = create_app(api.settings, clock=api.clock)
    async with elsewhere.lifespan(), client_of(elsewhere) as http:
        answer = await http.post("/v1/logout/everywhere", json={"refresh_token": mine["refresh_token"]})
        assert answer.status_code == 204
        async with asyncio.timeout(10):
            while True:
                try:
                    api.app.verifier().verify(other["access_token"])
                except TokenRevoked:
                    break
                await asyncio.sleep(0.02)


async def test_a_login_whose_password_is_changed_while_it_is_checked_is_refused_and_leaves_no_session(
    api: Api,
) -> None:
    await api.signup()
    mine = await api.login()
    store = api.app.start().store
    assert isinstance(store, SqliteStore)
    assert store._writer is not None
    with closing(sqlite3.connect(api.settings.data_dir / "jotgate.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE jotgate_accounts SET password_hash = 'another'")
        login = asyncio.ensure_future(api.post("/v1/login", {"email": EMAIL, "password": PASSWORD, "delivery": "body"}))
        async with asyncio.timeout(10):
            # Until the login wants to write, it reads the old password, and finds it right.
            while not store._writer._using_connection.locked():  # noqa: ASYNC110  a thread tells no event loop
                await asyncio.sleep(0.001)
        other.execute("COMMIT")
        late = await login
    assert code(late) == (401, "invalid_credentials")
    assert len(await listed(api, (await api.refresh(mine["refresh_token"])).json())) == 1
