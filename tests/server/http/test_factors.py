"""Second factors over the API: an authenticator app and recovery codes, with the real app and mail server."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pyotp
import pytest

from jotgate.server import Settings, create_app
from jotgate.server.secret import Secret
from tests.server.http.support import BROWSER, EMAIL, PASSWORD, Api, Clock, bearer, client_of, code
from tests.smtp import ReceivedMail, SmtpServer

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


class App:
    """An authenticator app, which knows what a person has scanned."""

    def __init__(self, uri: str, clock: Clock) -> None:
        totp = pyotp.parse_uri(uri)
        assert isinstance(totp, pyotp.TOTP)
        self.totp, self.clock = totp, clock

    def code(self, *, later_s: int = 0) -> str:
        return self.totp.at(self.clock.now + later_s)


async def begin(api: Api, token: str, password: str = PASSWORD) -> httpx2.Response:
    return await api.post("/v1/factors/totp", {"current_password": password, "refresh_token": token})


async def enrol(api: Api) -> tuple[App, dict[str, Any]]:
    """Log in, add an app, and go on in the session that this begins."""
    token = (await api.login())["refresh_token"]
    begun = await begin(api, token)
    assert begun.status_code == 200, begun.text
    app = App(begun.json()["uri"], api.clock)
    done = await api.post("/v1/factors/totp/confirm", {"code": app.code(), "refresh_token": token})
    assert done.status_code == 200, done.text
    api.clock.now += 60  # the code is used
    return app, done.json()


async def first_step(api: Api, password: str = PASSWORD) -> httpx2.Response:
    return await api.post("/v1/login", {"email": EMAIL, "password": password, "delivery": "body"})


async def second_step(api: Api, ticket: str, typed: str) -> httpx2.Response:
    return await api.post("/v1/login/second-factor", {"ticket": ticket, "code": typed, "delivery": "body"})


async def ticket_of(api: Api) -> str:
    answer = await first_step(api)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["ticket"])


async def newest(smtp: SmtpServer, count: int) -> ReceivedMail:
    return list(await asyncio.to_thread(smtp.wait_for, count))[-1]


async def sessions(api: Api, tokens: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await api.http.get("/v1/sessions", headers=bearer(tokens["access_token"]))
    found: list[dict[str, Any]] = answer.json()["sessions"]
    return found


async def test_enrol_log_in_recover_disable(api: Api, smtp: SmtpServer) -> None:
    app, tokens = await enrol(api)
    codes = tokens["recovery_codes"]
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", each) for each in codes)

    answer = await first_step(api)
    assert answer.status_code == 202
    asked = answer.json()
    ticket = asked.pop("ticket")
    assert asked == {"status": "second_factor_required", "expires_in": 300, "factors": ["totp", "recovery_code"]}
    assert not answer.headers.get_list("set-cookie")
    logged_in = await second_step(api, ticket, app.code())
    assert logged_in.status_code == 200, logged_in.text
    (current,) = [each for each in await sessions(api, logged_in.json()) if each["current"]]
    assert current["methods"] == ["pwd", "otp", "mfa"]

    # A code to recover, typed as people type: once, and a mail tells of it.
    typed = codes[3].lower().replace("-", " ").replace("0", "o").replace("1", "l")
    recovered = await second_step(api, await ticket_of(api), typed)
    assert recovered.status_code == 200, recovered.text
    assert "Codes that are left: 9" in (await newest(smtp, 2)).text
    assert code(await second_step(api, await ticket_of(api), codes[3])) == (401, "invalid_second_factor")

    token = recovered.json()["refresh_token"]
    gone = await api.http.request(
        "DELETE", "/v1/factors/totp", json={"current_password": PASSWORD, "refresh_token": token}
    )
    assert gone.status_code == 204
    assert (await first_step(api)).status_code == 200
    assert "removed" in (await newest(smtp, 3)).text
    shown = await api.http.get("/v1/factors", headers=bearer(recovered.json()["access_token"]))
    assert shown.json() == {"totp": None, "passkeys": [], "recovery_codes_left": 0}


async def test_what_an_app_is_shown(api: Api) -> None:
    token = (await api.login())["refresh_token"]
    made = (await begin(api, token)).json()
    assert made["uri"] == f"otpauth://totp/jotgate:ada%40example.com?secret={made['secret']}&issuer=jotgate"
    assert re.fullmatch("[A-Z2-7]{32}", made["secret"])
    assert made["qr_svg"].startswith("<svg")
    assert "style=" not in made["qr_svg"]
    # Nothing counts until a code has come back.
    assert (await first_step(api)).status_code == 200


async def test_a_new_factor_ends_all_sessions_and_begins_one(api: Api) -> None:
    elsewhere = await api.login()
    _, tokens = await enrol(api)
    assert code(await api.refresh(elsewhere["refresh_token"])) == (401, "session_ended")
    old = await api.http.get("/v1/account", headers=bearer(elsewhere["access_token"]))
    assert code(old) == (401, "token_revoked")
    assert [each["methods"] for each in await sessions(api, tokens)] == [["pwd", "otp", "mfa"]]


async def test_a_code_works_once_and_not_after_a_later_one(api: Api) -> None:
    app, _ = await enrol(api)
    ticket = await ticket_of(api)
    early, late = app.code(later_s=-30), app.code()
    assert (await second_step(api, ticket, late)).status_code == 200
    for used in (late, early):
        assert code(await second_step(api, await ticket_of(api), used)) == (401, "invalid_second_factor")
    api.clock.now += 30
    assert (await second_step(api, await ticket_of(api), app.code())).status_code == 200


async def test_the_code_that_confirmed_does_not_log_in(api: Api) -> None:
    app, _ = await enrol(api)
    api.clock.now -= 60
    assert code(await second_step(api, await ticket_of(api), app.code())) == (401, "invalid_second_factor")


@pytest.mark.parametrize(("later_s", "status"), [(-60, 401), (-30, 200), (0, 200), (30, 200), (60, 401)])
async def test_a_clock_may_be_half_a_minute_off(api: Api, later_s: int, status: int) -> None:
    app, _ = await enrol(api)
    api.clock.now += 120
    assert (await second_step(api, await ticket_of(api), app.code(later_s=later_s))).status_code == status


async def test_of_many_who_show_one_code_at_once_one_gets_through(api: Api) -> None:
    app, tokens = await enrol(api)
    ticket = await ticket_of(api)
    for typed in (app.code(), tokens["recovery_codes"][0]):
        answers = await asyncio.gather(*(second_step(api, ticket, typed) for _ in range(5)))
        assert sorted(each.status_code for each in answers) == [200, 401, 401, 401, 401]


async def test_a_ticket_is_for_five_minutes_and_for_the_password_of_then(api: Api) -> None:
    app, tokens = await enrol(api)
    ticket = await ticket_of(api)
    api.clock.now += 300
    assert code(await second_step(api, ticket, app.code())) == (401, "login_expired")
    ticket = await ticket_of(api)
    change = {"current_password": PASSWORD, "new_password": OTHER, "refresh_token": tokens["refresh_token"]}
    changed = await api.post("/v1/password", change)
    assert changed.status_code == 200, changed.text
    assert code(await second_step(api, ticket, app.code())) == (401, "login_expired")


@pytest.mark.parametrize("forged", ["", "x", "A" * 600, "ä", "AAAA", "A" * 200])
async def test_no_other_ticket_will_do(api: Api, forged: str) -> None:
    app, _ = await enrol(api)
    assert code(await second_step(api, forged, app.code())) == (401, "login_expired")
    ticket = await ticket_of(api)
    for place in (0, len(ticket) // 2, len(ticket) - 1):
        other = "B" if ticket[place] != "B" else "C"
        bent = ticket[:place] + other + ticket[place + 1 :]
        assert code(await second_step(api, bent, app.code())) == (401, "login_expired")


async def test_guesses_at_the_second_factor_are_few_and_right_ones_are_free(api: Api) -> None:
    app, tokens = await enrol(api)
    for _ in range(12):
        api.clock.now += 30
        right = await second_step(api, await ticket_of(api), app.code())
        assert right.status_code == 200, right.text
    ticket = await ticket_of(api)
    wrong = [await second_step(api, ticket, f"{n:06}") for n in range(11) if f"{n:06}" != app.code()]
    assert [each.status_code for each in wrong] == [401] * 10 + [429] * (len(wrong) - 10)
    # A right one is not tried then, either; a device that has logged in before has its own allowance.
    refused = await second_step(api, ticket, app.code())
    assert (refused.status_code, refused.json()["violated-policies"]) == (429, ["second factors"])
    # What nobody guesses is no guess: whoever knows the password keeps its owner out by none of this.
    assert (await second_step(api, ticket, tokens["recovery_codes"][0])).status_code == 200
    known = {"ticket": ticket, "code": app.code(), "delivery": "body", "device_token": right.json()["device_token"]}
    api.clock.now += 30
    known["code"] = app.code()
    assert (await api.post("/v1/login/second-factor", known)).status_code == 200


async def test_a_new_password_leaves_a_session_as_strong_and_as_old_as_it_was(api: Api) -> None:
    _, tokens = await enrol(api)
    (before,) = await sessions(api, tokens)
    change = {"current_password": PASSWORD, "new_password": OTHER, **token_of(tokens)}
    (after,) = await sessions(api, (await api.post("/v1/password", change)).json())
    assert after["methods"] == before["methods"] == ["pwd", "otp", "mfa"]
    assert after["auth_time"] == before["auth_time"] < after["created_at"]


async def test_it_takes_the_password_to_change_factors(api: Api) -> None:
    token = (await api.login())["refresh_token"]
    assert code(await begin(api, token, OTHER)) == (401, "invalid_credentials")
    _, tokens = await enrol(api)
    body = {"current_password": OTHER, "refresh_token": tokens["refresh_token"]}
    for method, path in (("DELETE", "/v1/factors/totp"), ("POST", "/v1/factors/recovery-codes")):
        assert code(await api.http.request(method, path, json=body)) == (401, "invalid_credentials")


async def test_a_session_of_before_cannot_touch_the_factor(api: Api) -> None:
    _, tokens = await enrol(api)
    with closing(sqlite3.connect(api.settings.data_dir / "jotgate.sqlite3")) as database, database:
        database.execute("UPDATE jotgate_families SET methods = 'pwd'")
    body = {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"]}
    for method, path in (
        ("DELETE", "/v1/factors/totp"),
        ("POST", "/v1/factors/totp"),
        ("POST", "/v1/factors/recovery-codes"),
        ("POST", "/v1/factors/passkeys/options"),
        ("DELETE", "/v1/account"),
    ):
        assert code(await api.http.request(method, path, json=body)) == (401, "insufficient_user_authentication")


async def test_new_recovery_codes_replace_the_old(api: Api) -> None:
    _, tokens = await enrol(api)
    made = await api.post(
        "/v1/factors/recovery-codes", {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"]}
    )
    (new, *_), (old, *_) = made.json()["recovery_codes"], tokens["recovery_codes"]
    assert code(await second_step(api, await ticket_of(api), old)) == (401, "invalid_second_factor")
    assert (await second_step(api, await ticket_of(api), new)).status_code == 200


async def test_an_app_that_waits_too_long_has_to_be_shown_anew(api: Api) -> None:
    token = (await api.login())["refresh_token"]
    app = App((await begin(api, token)).json()["uri"], api.clock)
    api.clock.now += 900
    late = await api.post("/v1/factors/totp/confirm", {"code": app.code(), "refresh_token": token})
    assert code(late) == (401, "invalid_second_factor")


async def test_without_a_factor_there_is_nothing_to_remove_or_recover(api: Api) -> None:
    body = {"current_password": PASSWORD, "refresh_token": (await api.login())["refresh_token"]}
    for method, path in (("DELETE", "/v1/factors/totp"), ("POST", "/v1/factors/recovery-codes")):
        assert code(await api.http.request(method, path, json=body)) == (404, "factor_not_found")
    assert code(await api.http.request("DELETE", "/v1/factors/passkeys/AAAA", json=body)) == (404, "factor_not_found")


async def test_the_owner_of_the_address_takes_a_factor_back_that_a_thief_has_added(api: Api, smtp: SmtpServer) -> None:
    _, thief = await enrol(api)
    notice = await newest(smtp, 1)
    assert "authenticator app" in notice.text
    (undo,) = set(re.findall(r"/factors/undo\?code=([A-Za-z0-9_-]{43})", notice.text))
    change = {"current_password": PASSWORD, "new_password": "only the thief knows this", **token_of(thief)}
    changed = await api.post("/v1/password", change)
    assert changed.status_code == 200, changed.text
    # Whoever only reads her mail does not get around her factor by it: it takes the password of then.
    guessed = await api.post("/v1/factors/undo", {"code": undo, "password": OTHER})
    assert code(guessed) == (401, "invalid_credentials")
    assert code(await api.post("/v1/email/undo", {"code": undo})) == (422, "invalid_code")
    page = await api.http.get("/factors/undo", params={"code": undo})
    assert 'autocomplete="current-password"' in page.text
    done = await api.http.post("/factors/undo", data={"code": undo, "password": PASSWORD})
    assert done.status_code == 200
    assert "Your account is yours again" in done.text
    thief = changed.json()
    assert code(await api.refresh(thief["refresh_token"])) == (401, "session_ended")
    reset = await newest(smtp, 3)
    assert [each.recipient for each in smtp.messages] == [EMAIL] * 3  # nobody else is told that the address is lost
    (new,) = set(re.findall(r"/password/reset\?code=([A-Za-z0-9_-]{43})", reset.text))
    assert (await api.post("/v1/password/reset", {"code": new, "new_password": OTHER})).status_code == 204
    assert (await first_step(api, OTHER)).status_code == 200


def token_of(tokens: dict[str, Any]) -> dict[str, Any]:
    return {"refresh_token": tokens["refresh_token"]}


async def test_the_owners_own_factor_outlives_that_of_a_thief(api: Api, smtp: SmtpServer) -> None:
    app, tokens = await enrol(api)
    body = {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"], "new_email": "thief@evil.example"}
    await api.post("/v1/email", body)
    change = await newest(smtp, 2)
    (confirm,) = set(re.findall(r"/email/confirm\?code=([A-Za-z0-9_-]{43})", change.text))
    assert (await api.post("/v1/email/confirm", {"code": confirm})).status_code == 204
    notice = await newest(smtp, 3)
    (undo,) = set(re.findall(r"/email/undo\?code=([A-Za-z0-9_-]{43})", notice.text))
    assert (await api.post("/v1/email/undo", {"code": undo})).status_code == 204
    resets = [mail for mail in (await asyncio.to_thread(smtp.wait_for, 5)) if "/password/reset" in mail.text]
    (new,) = set(re.findall(r"/password/reset\?code=([A-Za-z0-9_-]{43})", resets[-1].text))
    assert (await api.post("/v1/password/reset", {"code": new, "new_password": OTHER})).status_code == 204
    answer = await first_step(api, OTHER)
    assert answer.status_code == 202
    assert (await second_step(api, answer.json()["ticket"], app.code())).status_code == 200


async def test_what_a_thief_was_mailed_does_not_bring_the_account_back_to_them(api: Api, smtp: SmtpServer) -> None:
    thief = await api.login()
    body = {"current_password": PASSWORD, "new_email": "thief@evil.example", **token_of(thief)}
    await api.post("/v1/email", body)
    confirm = code_at("/email/confirm", await newest(smtp, 1))
    assert (await api.post("/v1/email/confirm", {"code": confirm})).status_code == 204
    owners = code_at("/email/undo", await newest(smtp, 2))
    begun = (await begin(api, thief["refresh_token"])).json()
    added = await api.post("/v1/factors/totp/confirm", {"code": App(begun["uri"], api.clock).code(), **token_of(thief)})
    assert added.status_code == 200
    mail = await newest(smtp, 3)
    assert mail.recipient == "thief@evil.example"
    thiefs = code_at("/factors/undo", mail)
    # Her former mailbox alone gets nobody around a factor that was added since.
    assert code(await api.post("/v1/email/undo", {"code": owners})) == (401, "invalid_credentials")
    page = await api.http.post("/email/undo", data={"code": owners})
    assert page.status_code == 422
    assert 'name="password"' in page.text
    done = await api.http.post("/email/undo", data={"code": owners, "password": PASSWORD})
    assert done.status_code == 200
    undone = await api.post("/v1/factors/undo", {"code": thiefs, "password": PASSWORD})
    assert code(undone) == (422, "invalid_code")


def code_at(path: str, mail: ReceivedMail) -> str:
    (found,) = set(re.findall(rf"{path}\?code=([A-Za-z0-9_-]{{43}})", mail.text))
    return str(found)


async def test_a_thief_who_changes_the_password_first_keeps_nothing(api: Api, smtp: SmtpServer) -> None:
    thief = await api.login()
    change = {"current_password": PASSWORD, "new_password": OTHER, **token_of(thief)}
    thief = (await api.post("/v1/password", change)).json()
    owners = code_at("/password/undo", await newest(smtp, 1))
    begun = (await begin(api, thief["refresh_token"], OTHER)).json()
    app = App(begun["uri"], api.clock)
    added = await api.post("/v1/factors/totp/confirm", {"code": app.code(), **token_of(thief)})
    later = code_at("/factors/undo", await newest(smtp, 2))
    wrong = await api.post("/v1/password/undo", {"code": owners, "password": OTHER})
    assert code(wrong) == (401, "invalid_credentials")
    undone = await api.post("/v1/password/undo", {"code": owners, "password": PASSWORD})
    assert undone.status_code == 204
    assert code(await api.refresh(added.json()["refresh_token"])) == (401, "session_ended")
    assert code(await api.post("/v1/factors/undo", {"code": later, "password": OTHER})) == (422, "invalid_code")
    new = code_at("/password/reset", await newest(smtp, 3))
    assert (await api.post("/v1/password/reset", {"code": new, "new_password": PASSWORD + " again"})).status_code == 204
    assert (await first_step(api, PASSWORD + " again")).status_code == 200


async def test_guesses_with_a_link_are_few_from_however_many_addresses(api: Api, smtp: SmtpServer) -> None:
    await enrol(api)
    undo = code_at("/factors/undo", await newest(smtp, 1))
    statuses = []
    for n in range(7):
        async with client_of(api.app, peer=f"192.0.2.{n}") as stranger:
            tried = await stranger.post("/v1/factors/undo", json={"code": undo, "password": f"guess number {n}"})
            statuses.append(tried.status_code)
    assert statuses == [401] * 5 + [429] * 2
    store = api.app.start().store
    await api.app.start().audit.write(store)
    trail = await store.audit_last(limit=9, event="undo_refused")
    assert {each.actor for each in trail} == {"anonymous"}


async def test_devices_of_before_do_not_multiply_guesses(api: Api) -> None:
    devices = [(await api.login())["device_token"] for _ in range(5)]
    await enrol(api)
    ticket = await ticket_of(api)
    statuses = []
    for number, device in enumerate(devices * 9):
        body = {"ticket": ticket, "code": f"{number:06}", "delivery": "body", "device_token": device}
        async with client_of(api.app, peer=f"192.0.2.{number}") as stranger:
            statuses.append((await stranger.post("/v1/login/second-factor", json=body)).status_code)
    assert statuses.count(401) == 30


async def test_whoever_knows_the_password_alone_uses_up_nothing_of_the_owners(api: Api) -> None:
    app, tokens = await enrol(api)
    for number in range(70):
        async with client_of(api.app, peer=f"192.0.2.{number}") as stranger:
            await stranger.post("/v1/login", json={"email": EMAIL, "password": PASSWORD, "delivery": "body"})
    change = {"current_password": PASSWORD, "new_password": OTHER, **token_of(tokens)}
    changed = await api.post("/v1/password", change)
    assert changed.status_code == 200, changed.text
    body = {"email": EMAIL, "password": OTHER, "delivery": "body", "device_token": changed.json()["device_token"]}
    asked = await api.post("/v1/login", body)
    assert asked.status_code == 202
    assert (await second_step(api, asked.json()["ticket"], app.code())).status_code == 200


async def test_the_owner_hears_of_wrong_codes_after_the_right_password(api: Api, smtp: SmtpServer) -> None:
    await enrol(api)
    ticket = await ticket_of(api)
    for typed in ("000000", "111111", "222222", "333333", "444444"):
        await second_step(api, ticket, typed)
    told = await newest(smtp, 2)
    assert told.message["subject"] == "Somebody knows your password for jotgate"
    assert len(smtp.messages) == 2


async def test_codes_of_a_thief_do_not_outlive_the_undo_and_are_told(api: Api, smtp: SmtpServer) -> None:
    app, thief = await enrol(api)
    body = {"current_password": PASSWORD, "new_email": "thief@evil.example", **token_of(thief)}
    await api.post("/v1/email", body)
    confirm = code_at("/email/confirm", await newest(smtp, 2))
    assert (await api.post("/v1/email/confirm", {"code": confirm})).status_code == 204
    owners = code_at("/email/undo", await newest(smtp, 3))
    made = await api.post("/v1/factors/recovery-codes", {"current_password": PASSWORD, **token_of(thief)})
    stolen = made.json()["recovery_codes"][0]
    assert (await newest(smtp, 4)).recipient == "thief@evil.example"
    assert (await api.post("/v1/email/undo", {"code": owners})).status_code == 204
    resets = [mail for mail in (await asyncio.to_thread(smtp.wait_for, 6)) if "/password/reset" in mail.text]
    new = {"code": code_at("/password/reset", resets[-1]), "new_password": OTHER}
    assert (await api.post("/v1/password/reset", new)).status_code == 204
    ticket = (await first_step(api, OTHER)).json()["ticket"]
    assert code(await second_step(api, ticket, stolen)) == (401, "invalid_second_factor")
    assert (await second_step(api, ticket, app.code())).status_code == 200


async def test_codes_that_a_thief_made_before_anything_else_are_taken_back_by_their_own_mail(
    api: Api, smtp: SmtpServer
) -> None:
    app, thief = await enrol(api)
    made = await api.post("/v1/factors/recovery-codes", {"current_password": PASSWORD, **token_of(thief)})
    stolen = made.json()["recovery_codes"][0]
    undo = code_at("/factors/undo", await newest(smtp, 2))
    change = {"current_password": PASSWORD, "new_password": "only the thief knows this", **token_of(thief)}
    assert (await api.post("/v1/password", change)).status_code == 200
    done = await api.post("/v1/factors/undo", {"code": undo, "password": PASSWORD})
    assert done.status_code == 204
    resets = [mail for mail in (await asyncio.to_thread(smtp.wait_for, 4)) if "/password/reset" in mail.text]
    new = {"code": code_at("/password/reset", resets[-1]), "new_password": OTHER}
    assert (await api.post("/v1/password/reset", new)).status_code == 204
    ticket = (await first_step(api, OTHER)).json()["ticket"]
    assert code(await second_step(api, ticket, stolen)) == (401, "invalid_second_factor")
    assert (await second_step(api, ticket, app.code())).status_code == 200


@pytest.mark.parametrize("what", ["confirm", "recovery-codes", "remove", "email", "leave"])
async def test_a_session_that_ends_meanwhile_changes_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    token = (await api.login())["refresh_token"]
    app = App((await begin(api, token)).json()["uri"], api.clock)
    if what != "confirm":
        body = {"code": app.code(), "refresh_token": token}
        token = (await api.post("/v1/factors/totp/confirm", body)).json()["refresh_token"]
    store = api.app.start().store
    change_account = store.change_account

    async def owner_is_faster(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the store takes
        monkeypatch.undo()
        assert (await api.post("/v1/logout/everywhere", {"refresh_token": token})).status_code == 204
        return await change_account(*arguments, **named)

    before = await store.account_by_email(EMAIL)
    monkeypatch.setattr(store, "change_account", owner_is_faster)
    credential = {"refresh_token": token, "current_password": PASSWORD}
    method, path, body = {
        "confirm": ("POST", "/v1/factors/totp/confirm", {"code": app.code(), "refresh_token": token}),
        "recovery-codes": ("POST", "/v1/factors/recovery-codes", credential),
        "remove": ("DELETE", "/v1/factors/totp", credential),
        "email": ("POST", "/v1/email", credential | {"new_email": "thief@evil.example"}),
        "leave": ("DELETE", "/v1/account", credential),
    }[what]
    assert code(await api.http.request(method, path, json=body)) == (401, "session_ended")
    assert await store.account_by_email(EMAIL) == before


async def test_a_session_that_ends_meanwhile_sets_no_password(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await api.login())["refresh_token"]
    store = api.app.start().store
    set_password = store.set_password

    async def owner_is_faster(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the store takes
        monkeypatch.undo()
        assert (await api.post("/v1/logout/everywhere", {"refresh_token": token})).status_code == 204
        return await set_password(*arguments, **named)

    monkeypatch.setattr(store, "set_password", owner_is_faster)
    change = {"current_password": PASSWORD, "new_password": OTHER, "refresh_token": token}
    assert code(await api.post("/v1/password", change)) == (401, "session_ended")
    assert (await first_step(api)).status_code == 200


async def test_a_secret_is_sealed_anew_once_its_key_has_been_replaced(api: Api) -> None:
    app, _ = await enrol(api)
    deps = api.app.start()

    async def sealed() -> bytes:
        account = await deps.store.account_by_email(EMAIL)
        assert account is not None
        assert account.factors.totp is not None
        return account.factors.totp.sealed

    before = await sealed()
    api.clock.now += 31 * 86_400
    await asyncio.to_thread(deps.keys.turn)
    assert not deps.keys.factors.is_current(before)
    assert (await second_step(api, await ticket_of(api), app.code())).status_code == 200
    assert deps.keys.factors.is_current(await sealed())


async def test_an_app_that_was_begun_with_another_password_does_not_count(api: Api) -> None:
    tokens = await api.login()
    app = App((await begin(api, tokens["refresh_token"])).json()["uri"], api.clock)
    change = {"current_password": PASSWORD, "new_password": OTHER, **token_of(tokens)}
    changed = (await api.post("/v1/password", change)).json()
    late = await api.post("/v1/factors/totp/confirm", {"code": app.code(), **token_of(changed)})
    assert code(late) == (401, "invalid_second_factor")


async def test_a_browser_gets_its_cookie_with_the_second_step_alone(api: Api) -> None:
    app, _ = await enrol(api)
    first = await api.post("/v1/login", {"email": EMAIL, "password": PASSWORD}, headers=BROWSER)
    assert first.status_code == 202
    assert not first.headers.get_list("set-cookie")
    body = {"ticket": first.json()["ticket"], "code": app.code()}
    done = await api.post("/v1/login/second-factor", body, headers=BROWSER)
    assert done.status_code == 200
    assert "refresh_token" not in done.json()
    assert len(done.headers.get_list("set-cookie")) == 2
    stranger = BROWSER | {"sec-fetch-site": "cross-site"}
    assert code(await api.post("/v1/login/second-factor", body, headers=stranger)) == (403, "cross_site_refused")


async def test_a_copy_of_the_database_makes_no_codes(api: Api) -> None:
    token = (await api.login())["refresh_token"]
    secret = (await begin(api, token)).json()["secret"]
    confirmed = await api.post(
        "/v1/factors/totp/confirm", {"code": pyotp.TOTP(secret).at(api.clock.now), "refresh_token": token}
    )
    dump = "\n".join(api.dump())
    assert secret not in dump
    assert all(each not in dump for each in confirmed.json()["recovery_codes"])


async def test_a_disabled_account_gets_no_second_step(api: Api) -> None:
    app, _ = await enrol(api)
    ticket = await ticket_of(api)
    with closing(sqlite3.connect(api.settings.data_dir / "jotgate.sqlite3")) as database, database:
        database.execute("UPDATE jotgate_accounts SET disabled_at = 1")
    assert code(await second_step(api, ticket, app.code())) == (401, "login_expired")
