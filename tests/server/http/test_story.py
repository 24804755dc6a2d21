"""The main job through the JSON API: sign up, log in, prove it, refresh, log out."""

import asyncio

import pytest

from jotgate import Claims, TokenRevoked
from tests.server.http.support import BROWSER, EMAIL, PASSWORD, Api, bearer, client_of, code


async def test_sign_up_log_in_refresh_log_out(api: Api) -> None:
    signup = await api.signup()
    assert signup.status_code == 201
    account = signup.json()["account"]
    assert account["email"] == EMAIL
    assert account["scopes"] == ["account:read"]

    tokens = await api.login()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 300
    assert tokens["scope"] == "account:read"
    shown = await api.http.get("/v1/account", headers=bearer(tokens["access_token"]))
    assert shown.json() == account

    refreshed = await api.refresh(tokens["refresh_token"])
    assert refreshed.status_code == 200
    assert refreshed.json()["refresh_token"] != tokens["refresh_token"]

    logout = await api.post("/v1/logout", {"refresh_token": refreshed.json()["refresh_token"]})
    assert (logout.status_code, logout.content) == (204, b"")
    assert code(await api.refresh(refreshed.json()["refresh_token"])) == (401, "session_ended")


async def test_after_logout_the_sessions_access_tokens_are_refused_at_once(api: Api) -> None:
    await api.signup()
    tokens, other = await api.login(), await api.login()
    verifier = api.app.verifier()
    assert isinstance(verifier.verify(tokens["access_token"]), Claims)

    await api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]})

    refused = await api.http.get("/v1/account", headers=bearer(tokens["access_token"]))
    assert code(refused) == (401, "token_revoked")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    with pytest.raises(TokenRevoked):
        verifier.verify(tokens["access_token"])
    # Another session of the same person lives on.
    assert (await api.http.get("/v1/account", headers=bearer(other["access_token"]))).status_code == 200


async def test_a_logout_in_one_process_reaches_the_verifiers_of_another(api: Api) -> None:
    """Two apps on one data folder stand for two processes: they share nothing but the database."""
    from jotgate.server import create_app

    await api.signup()
    tokens = await api.login()
    other = create_app(api.settings, clock=api.clock)
    async with other.lifespan():
        verifier = other.verifier()
        assert verifier.verify(tokens["access_token"]).subject
        await api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]})
        async with asyncio.timeout(10):
            while True:
                try:
                    verifier.verify(tokens["access_token"])
                except TokenRevoked:
                    break
                await asyncio.sleep(0.02)


async def test_a_restart_forgets_neither_accounts_nor_sessions_nor_logouts(api: Api) -> None:
    from jotgate.server import create_app

    await api.signup()
    kept, ended = await api.login(), await api.login()
    await api.post("/v1/logout", {"refresh_token": ended["refresh_token"]})
    await asyncio.to_thread(api.app.close)

    app = create_app(api.settings, clock=api.clock)
    async with app.lifespan(), client_of(app) as http:
        assert (await http.post("/v1/refresh", json={"refresh_token": kept["refresh_token"]})).status_code == 200
        assert code(await http.get("/v1/account", headers=bearer(ended["access_token"]))) == (401, "token_revoked")
        with pytest.raises(TokenRevoked):
            app.verifier().verify(ended["access_token"])


async def test_the_access_token_is_lean_and_holds_no_personal_data(api: Api) -> None:
    await api.signup()
    token = (await api.login())["access_token"]
    assert len(token) <= 700
    claims = api.app.verifier().verify(token)
    assert set(claims.to_dict()) == {
        "iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "sid", "auth_time", "acr", "amr",
    }  # fmt: skip
    assert claims.client_id == "web"
    assert claims.audience == ("api",)
    assert claims.auth_time == api.clock.now


async def test_an_address_that_looks_like_an_accounts_is_nobodys(api: Api) -> None:
    await api.signup()
    login = {"email": "\N{CYRILLIC SMALL LETTER A}" + EMAIL[1:], "password": PASSWORD, "delivery": "body"}
    assert code(await api.post("/v1/login", login)) == (422, "invalid_email")


async def test_wrong_password_and_unknown_account_get_the_same_answer(api: Api) -> None:
    await api.signup()
    wrong = await api.post("/v1/login", {"email": EMAIL, "password": "x" * 20, "delivery": "body"})
    unknown = await api.post("/v1/login", {"email": "nobody@example.com", "password": "x" * 20, "delivery": "body"})
    assert code(wrong) == (401, "invalid_credentials")
    for answer in (wrong, unknown):
        assert answer.headers.pop("ratelimit")  # the second has one try less
        assert len(answer.headers.pop("x-request-id")) == 16
    assert (wrong.status_code, wrong.content, wrong.headers.raw) == (
        unknown.status_code,
        unknown.content,
        unknown.headers.raw,
    )


async def test_an_address_can_sign_up_once_however_it_is_written(api: Api) -> None:
    await api.signup()
    for same in ("ADA@Example.COM", "\uff41da@example.com"):
        assert code(await api.signup(same)) == (409, "email_taken")
    assert (await api.login("Ada@EXAMPLE.com"))["access_token"]


async def test_a_password_is_the_same_in_every_unicode_form(api: Api) -> None:
    await api.signup(password="caf\u00e9 au lait, s'il vous pla\u00eet")
    assert await api.login(password="cafe\u0301 au lait, s'il vous plai\u0302t")


async def test_a_session_lives_until_its_idle_end_and_not_a_second_longer(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    api.clock.now += api.settings.session_idle_s - 1
    refreshed = await api.refresh(tokens["refresh_token"])
    assert refreshed.status_code == 200
    api.clock.now += api.settings.session_idle_s
    assert code(await api.refresh(refreshed.json()["refresh_token"])) == (401, "session_ended")


async def test_rotation_never_extends_the_absolute_end(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    began = api.clock.now
    step = api.settings.session_idle_s - 1
    while api.clock.now + step < began + api.settings.session_absolute_s:
        api.clock.now += step
        answer = await api.refresh(tokens["refresh_token"])
        assert answer.status_code == 200
        tokens = answer.json()
    api.clock.now = began + api.settings.session_absolute_s
    assert code(await api.refresh(tokens["refresh_token"])) == (401, "session_ended")


async def test_reuse_after_the_grace_ends_the_session_durably(api: Api) -> None:
    await api.signup()
    stolen = await api.login()
    current = (await api.refresh(stolen["refresh_token"])).json()
    current = (await api.refresh(current["refresh_token"])).json()
    api.clock.now += 11
    assert code(await api.refresh(stolen["refresh_token"])) == (401, "refresh_reused")
    assert code(await api.refresh(current["refresh_token"])) == (401, "session_ended")
    assert code(await api.http.get("/v1/account", headers=bearer(current["access_token"]))) == (401, "token_revoked")
    with pytest.raises(TokenRevoked):
        api.app.verifier().verify(current["access_token"])


async def test_many_refreshes_at_once_have_one_successor_and_all_callers_get_it(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    answers = await asyncio.gather(*(api.refresh(tokens["refresh_token"]) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def test_a_lost_answer_is_forgiven_for_a_minute(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    lost = (await api.refresh(tokens["refresh_token"])).json()
    api.clock.now += 59
    again = await api.refresh(tokens["refresh_token"])
    assert again.json()["refresh_token"] == lost["refresh_token"]


async def test_once_the_successor_has_been_seen_the_predecessor_is_reuse(api: Api) -> None:
    await api.signup()
    first = (await api.browser_login()).cookies
    await api.post("/v1/refresh", headers=BROWSER)
    api.clock.now += 11
    # Reading the account presents the current token: its predecessor's long grace is over.
    assert (await api.http.get("/v1/account", headers=BROWSER)).status_code == 200
    api.http.cookies.clear()
    api.http.cookies.update(first)
    assert code(await api.post("/v1/refresh", headers=BROWSER)) == (401, "refresh_reused")


async def test_a_logout_that_races_refreshes_wins(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    answers = await asyncio.gather(
        *(api.refresh(tokens["refresh_token"]) for _ in range(10)),
        api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]}),
        *(api.refresh(tokens["refresh_token"]) for _ in range(10)),
    )
    verifier = api.app.verifier()
    for answer in answers:
        if answer.status_code == 200:
            assert code(await api.refresh(answer.json()["refresh_token"])) == (401, "session_ended")
            with pytest.raises(TokenRevoked):
                verifier.verify(answer.json()["access_token"])


async def test_scopes_granted_later_come_with_the_next_refresh(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    await api.app.start().store.grant_scope(EMAIL, "orders:read")
    refreshed = (await api.refresh(tokens["refresh_token"])).json()
    assert refreshed["scope"].split() == ["account:read", "orders:read"]


async def test_a_bearer_token_without_the_scope_reads_no_account(api: Api) -> None:
    await api.signup()
    await api.app.start().store.revoke_scope(EMAIL, "account:read")
    tokens = await api.login()
    refused = await api.http.get("/v1/account", headers=bearer(tokens["access_token"]))
    assert code(refused) == (403, "insufficient_scope")
    assert 'error="insufficient_scope", scope="account:read"' in refused.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/v1/refresh", "/v1/logout"])
async def test_an_apis_bearer_token_changes_nothing_about_a_session(api: Api, path: str) -> None:
    await api.signup()
    tokens = await api.login()
    before = api.dump()
    answers = [
        await api.post(path, headers=bearer(tokens["access_token"])),
        await api.post(path, {}, headers=bearer(tokens["access_token"])),
        await api.post(path, {"refresh_token": tokens["access_token"]}, headers=bearer(tokens["access_token"])),
        await api.post(path, {}, headers=BROWSER | bearer(tokens["access_token"])),
    ]
    assert [code(answer)[1] for answer in answers] == [
        "missing_credential",
        "missing_credential",
        "invalid_refresh_token",
        "missing_credential",
    ]
    assert api.dump() == before


async def test_own_claims_come_from_the_hook_and_cannot_replace_ours(api: Api) -> None:
    from jotgate.server import create_app

    await api.signup()
    app = create_app(api.settings, clock=api.clock, claims_for=lambda account: {"tier": "gold", "n": len(account.id)})
    async with client_of(app) as http:
        form = {"email": EMAIL, "password": PASSWORD, "delivery": "body"}
        token = (await http.post("/v1/login", json=form)).json()["access_token"]
        claims = app.verifier().verify(token)
        assert (claims["tier"], claims["n"]) == ("gold", 22)
    app.close()

    greedy = create_app(api.settings, clock=api.clock, claims_for=lambda _: {"scope": "admin"})
    async with client_of(greedy) as http:
        assert code(await http.post("/v1/login", json=form)) == (500, "own_claims_failed")
    greedy.close()
