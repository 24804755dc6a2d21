"""Passkeys over the API: the real app and mail server, and an authenticator in software."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jotgate.server import Settings, create_app
from jotgate.server.secret import Secret
from tests.authenticator import Authenticator
from tests.server.http.support import BROWSER, EMAIL, ORIGIN, PASSWORD, Api, Clock, bearer, client_of, code
from tests.smtp import SmtpServer

OTHER = "another battery staples the horse"


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
async def api(tmp_path: Path, smtp: SmtpServer) -> AsyncIterator[Api]:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(smtp.url))
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, clock, settings)
        assert (await api.signup()).status_code == 201
        yield api


async def options_to_create(api: Api, token: str) -> dict[str, Any]:
    answer = await api.post("/v1/factors/passkeys/options", {"current_password": PASSWORD, "refresh_token": token})
    assert answer.status_code == 200, answer.text
    options: dict[str, Any] = answer.json()["passkey"]
    return options


async def add(api: Api, passkey: dict[str, Any], token: str, name: str = "Phone") -> httpx2.Response:
    return await api.post("/v1/factors/passkeys", {"passkey": passkey, "name": name, "refresh_token": token})


async def register(api: Api, device: Authenticator, token: str | None = None) -> dict[str, Any]:
    token = (await api.login())["refresh_token"] if token is None else token
    done = await add(api, device.create(await options_to_create(api, token), ORIGIN), token)
    assert done.status_code == 200, done.text
    tokens: dict[str, Any] = done.json()
    return tokens


async def options_to_log_in(api: Api) -> dict[str, Any]:
    answer = await api.post("/v1/login/passkey/options", {})
    assert answer.status_code == 200, answer.text
    options: dict[str, Any] = answer.json()["passkey"]
    return options


async def log_in(api: Api, passkey: dict[str, Any]) -> httpx2.Response:
    return await api.post("/v1/login/passkey", {"passkey": passkey, "delivery": "body"})


async def first_step(api: Api, password: str = PASSWORD) -> httpx2.Response:
    return await api.post("/v1/login", {"email": EMAIL, "password": password, "delivery": "body"})


async def second_step(api: Api, ticket: str, passkey: dict[str, Any]) -> httpx2.Response:
    return await api.post("/v1/login/second-factor", {"ticket": ticket, "passkey": passkey, "delivery": "body"})


async def methods(api: Api, tokens: dict[str, Any]) -> list[str]:
    sessions = (await api.http.get("/v1/sessions", headers=bearer(tokens["access_token"]))).json()["sessions"]
    (current,) = [each for each in sessions if each["current"]]
    found: list[str] = current["methods"]
    return found


async def test_register_log_in_without_a_password_and_remove(api: Api, smtp: SmtpServer) -> None:
    device = Authenticator()
    elsewhere = await api.login()
    tokens = await register(api, device)
    assert len(tokens["recovery_codes"]) == 10
    assert code(await api.refresh(elsewhere["refresh_token"])) == (401, "session_ended")
    options = await options_to_log_in(api)
    assert (options["rpId"], options["allowCredentials"], options["userVerification"]) == ("localhost", [], "required")
    logged_in = await log_in(api, device.get(options, ORIGIN))
    assert logged_in.status_code == 200, logged_in.text
    assert await methods(api, logged_in.json()) == ["pop", "mfa"]
    account = await api.http.get("/v1/account", headers=bearer(logged_in.json()["access_token"]))
    assert account.json()["email"] == EMAIL
    assert "passkey" in next(iter(await asyncio.to_thread(smtp.wait_for, 1))).text
    shown = (await api.http.get("/v1/factors", headers=bearer(logged_in.json()["access_token"]))).json()
    ((passkey,), left) = shown["passkeys"], shown["recovery_codes_left"]
    assert (passkey["name"], passkey["created_at"], passkey["used_at"], left) == (
        "Phone",
        api.clock.now,
        api.clock.now,
        10,
    )
    body = {"current_password": PASSWORD, "refresh_token": logged_in.json()["refresh_token"]}
    gone = await api.http.request("DELETE", f"/v1/factors/passkeys/{passkey['id']}", json=body)
    assert gone.status_code == 204
    assert code(await log_in(api, device.get(await options_to_log_in(api), ORIGIN))) == (422, "passkey_refused")
    assert (await first_step(api)).status_code == 200


async def test_as_the_second_factor(api: Api) -> None:
    device, other = Authenticator(), Authenticator()
    await register(api, device)
    asked = (await first_step(api)).json()
    assert asked["factors"] == ["passkey", "recovery_code"]
    assert [each["transports"] for each in asked["passkey"]["allowCredentials"]] == [["internal", "hybrid"]]
    done = await second_step(api, asked["ticket"], device.get(asked["passkey"], ORIGIN))
    assert done.status_code == 200, done.text
    assert await methods(api, done.json()) == ["pwd", "pop", "mfa"]
    # Somebody else's passkey proves nothing here, however good it is.
    await api.signup("eve@example.com", OTHER)
    token = (await api.login("eve@example.com", OTHER))["refresh_token"]
    body = {"current_password": OTHER, "refresh_token": token}
    made = (await api.post("/v1/factors/passkeys/options", body)).json()["passkey"]
    assert (await add(api, other.create(made, ORIGIN), token)).status_code == 200
    asked = (await first_step(api)).json()
    foreign = other.get({**asked["passkey"], "allowCredentials": []}, ORIGIN)
    assert code(await second_step(api, asked["ticket"], foreign)) == (422, "passkey_refused")


@pytest.mark.parametrize("counts", [True, False])
async def test_an_answer_works_once_even_where_nothing_counts(api: Api, counts: bool) -> None:
    device = Authenticator(counts=counts)
    await register(api, device)
    shown = device.get(await options_to_log_in(api), ORIGIN)
    answers = await asyncio.gather(*(log_in(api, shown) for _ in range(5)))
    assert sorted(each.status_code for each in answers) == [200, 422, 422, 422, 422]
    assert (await log_in(api, device.get(await options_to_log_in(api), ORIGIN))).status_code == 200


async def test_a_copied_authenticator_is_noticed_by_its_counter(api: Api) -> None:
    device = Authenticator()
    await register(api, device)
    device.count = 10
    assert (await log_in(api, device.get(await options_to_log_in(api), ORIGIN))).status_code == 200
    device.count = 5
    assert code(await log_in(api, device.get(await options_to_log_in(api), ORIGIN))) == (422, "passkey_refused")


async def test_options_are_for_five_minutes_and_for_what_they_were_made(api: Api) -> None:
    device = Authenticator()
    tokens = await register(api, device)
    options = await options_to_log_in(api)
    api.clock.now += 300
    assert code(await log_in(api, device.get(options, ORIGIN))) == (422, "passkey_refused")
    asked = (await first_step(api)).json()
    # Those of a second step do not log in alone, and those for a passkey alone are no second step.
    alone = device.get(asked["passkey"], ORIGIN)
    assert code(await log_in(api, alone)) == (422, "passkey_refused")
    options = await options_to_log_in(api)
    assert code(await second_step(api, asked["ticket"], device.get(options, ORIGIN))) == (422, "passkey_refused")
    made = await options_to_create(api, tokens["refresh_token"])
    api.clock.now += 300
    late = await add(api, Authenticator().create(made, ORIGIN), tokens["refresh_token"])
    assert code(late) == (422, "passkey_refused")


async def test_options_to_create_are_one_accounts_and_count_once(api: Api) -> None:
    await api.signup("eve@example.com", OTHER)
    eve = (await api.login("eve@example.com", OTHER))["refresh_token"]
    token = (await api.login())["refresh_token"]
    made = Authenticator().create(await options_to_create(api, token), ORIGIN)
    assert code(await add(api, made, eve)) == (422, "passkey_refused")
    added = await add(api, made, token)
    assert added.status_code == 200
    assert code(await add(api, made, added.json()["refresh_token"])) == (422, "passkey_refused")


async def test_another_sites_page_gets_nothing(api: Api) -> None:
    device = Authenticator()
    await register(api, device)
    options = await options_to_log_in(api)
    assert code(await log_in(api, device.get(options, "https://evil.example"))) == (422, "passkey_refused")
    shown = {"passkey": device.get(options, ORIGIN)}
    stranger = BROWSER | {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert code(await api.post("/v1/login/passkey", shown, headers=stranger)) == (403, "cross_site_refused")
    own = await api.post("/v1/login/passkey", shown, headers=BROWSER)
    assert own.status_code == 200
    assert len(own.headers.get_list("set-cookie")) == 2


async def test_a_passkey_does_not_open_a_disabled_account_or_one_that_is_gone(api: Api) -> None:
    device = Authenticator()
    tokens = await register(api, device)
    options = await options_to_log_in(api)
    body = {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"]}
    assert (await api.http.request("DELETE", "/v1/account", json=body)).status_code == 204
    assert code(await log_in(api, device.get(options, ORIGIN))) == (422, "passkey_refused")


async def test_a_changed_password_leaves_passkeys_as_they_are(api: Api) -> None:
    device = Authenticator()
    tokens = await register(api, device)
    change = {"current_password": PASSWORD, "new_password": OTHER, "refresh_token": tokens["refresh_token"]}
    assert (await api.post("/v1/password", change)).status_code == 200
    assert (await log_in(api, device.get(await options_to_log_in(api), ORIGIN))).status_code == 200


async def test_either_a_code_or_a_passkey(api: Api) -> None:
    for body in ({}, {"code": "123456", "passkey": {}}):
        answer = await api.post("/v1/login/second-factor", {"ticket": "x", "delivery": "body", **body})
        assert code(answer) == (422, "missing_member")


@pytest.mark.parametrize("junk", [{}, {"id": 1}, {"id": "A" * 2000, "rawId": "A" * 2000, "type": "public-key"}])
async def test_junk_is_refused_like_anything_else(api: Api, junk: dict[str, Any]) -> None:
    await register(api, Authenticator())
    asked = (await first_step(api)).json()
    assert code(await log_in(api, junk)) == (422, "passkey_refused")
    assert code(await second_step(api, asked["ticket"], junk)) == (422, "passkey_refused")
    assert (await api.signup("eve@example.com", OTHER)).status_code == 201
    token = (await api.login("eve@example.com", OTHER))["refresh_token"]
    assert code(await add(api, junk, token)) == (422, "passkey_refused")


async def test_passkeys_need_a_name_to_belong_to(tmp_path: Path) -> None:
    settings = Settings(
        signup="open", issuer="https://127.0.0.1:8443", data_dir=tmp_path / "data", hash_workers=1, argon2="7168/5"
    )
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        answer = await http.post("/v1/login/passkey/options", json={})
        assert code(answer) == (404, "passkeys_unavailable")


async def test_a_front_end_beside_the_server_uses_the_domain_of_both(tmp_path: Path) -> None:
    settings = Settings(
        signup="open",
        issuer="https://auth.shop.example",
        allowed_origins=("https://www.shop.example",),
        passkey_domain="shop.example",
        data_dir=tmp_path / "data",
        hash_workers=1,
        argon2="7168/5",
    )
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app, "https://auth.shop.example") as http:
        api = Api(app, http, Clock(), settings)
        await api.signup()
        token = (await api.login())["refresh_token"]
        device = Authenticator()
        options = await options_to_create(api, token)
        assert options["rp"]["id"] == "shop.example"
        assert (await add(api, device.create(options, "https://www.shop.example"), token)).status_code == 200
        shown = device.get(await options_to_log_in(api), "https://www.shop.example")
        assert (await log_in(api, shown)).status_code == 200
        evil = device.get(await options_to_log_in(api), "https://blog.shop.example")
        assert code(await log_in(api, evil)) == (422, "passkey_refused")


async def test_sixteen_are_enough(api: Api) -> None:
    token = (await register(api, Authenticator()))["refresh_token"]
    for _ in range(15):
        api.clock.now += 20
        token = (await register(api, Authenticator(), token))["refresh_token"]
    made = Authenticator().create(await options_to_create(api, token), ORIGIN)
    assert code(await add(api, made, token)) == (409, "too_many_passkeys")
    assert code(await add(api, made, token, "")) == (422, "invalid_name")


async def test_an_authenticator_learns_no_more_of_a_person_than_it_shows(api: Api) -> None:
    device = Authenticator()
    account = (await api.http.get("/v1/account", headers=bearer((await api.login())["access_token"]))).json()
    await register(api, device)
    (held,) = device.passkeys.values()
    assert held.user_handle == account["id"].encode()
