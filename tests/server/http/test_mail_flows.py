"""Whole stories with mails, over the API: the real app, a real database, a real mail server that the tests start."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jotgate.server import Settings, create_app
from jotgate.server.secret import Secret
from tests.server.http.support import EMAIL, PASSWORD, Api, Clock, bearer, client_of, code
from tests.smtp import ReceivedMail, SmtpServer

OTHER = "another battery staples the horse"
SENT = {"status": "look_into_your_mail"}


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture
async def api(tmp_path: Path, smtp: SmtpServer) -> AsyncIterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(smtp.url))
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        yield Api(app, http, clock, settings)


async def mails(smtp: SmtpServer, count: int) -> list[ReceivedMail]:
    """All mails, once there are so many."""
    return list(await asyncio.to_thread(smtp.wait_for, count))


def code_in(mail: ReceivedMail) -> str:
    (found,) = set(re.findall(r"https://localhost:8443/[a-z/]+\?code=([A-Za-z0-9_-]{43})", mail.text))
    return str(found)


async def sign_up(api: Api, smtp: SmtpServer, email: str = EMAIL) -> None:
    """Make an account as a person does."""
    so_far = len(smtp.messages)
    assert (await api.signup(email)).status_code == 202
    *_, mail = await mails(smtp, so_far + 1)
    assert (await confirm(api, mail)).status_code == 204


async def confirm(api: Api, mail: ReceivedMail, password: str = PASSWORD) -> httpx2.Response:
    return await api.post("/v1/signup/confirm", {"code": code_in(mail), "password": password})


async def try_login(api: Api, email: str = EMAIL, password: str = PASSWORD) -> httpx2.Response:
    return await api.post("/v1/login", {"email": email, "password": password, "delivery": "body"})


def is_ok(answer: httpx2.Response) -> bool:
    return answer.status_code == 200


async def test_sign_up_verify_log_in(api: Api, smtp: SmtpServer) -> None:
    answer = await api.signup()
    assert (answer.status_code, answer.json()) == (202, SENT)
    assert code(await try_login(api)) == (401, "invalid_credentials")
    (mail,) = await mails(smtp, 1)
    assert (mail.recipient, mail.sender) == (EMAIL, "no-reply@jotgate.test")
    # A mail scanner opens the link, and what it finds, as often as it likes.
    for _ in range(3):
        page = await api.http.get("/signup/confirm", params={"code": code_in(mail)})
        assert page.status_code == 200
        assert code_in(mail) in page.text
    assert code(await try_login(api)) == (401, "invalid_credentials")
    confirmed = await confirm(api, mail)
    assert (confirmed.status_code, confirmed.text) == (204, "")
    assert not confirmed.headers.get_list("set-cookie")  # nobody is logged in by it
    assert is_ok(await try_login(api))
    assert code(await confirm(api, mail)) == (422, "invalid_code")


async def test_to_log_in_before_verification_sends_the_link_again(api: Api, smtp: SmtpServer) -> None:
    await api.signup()
    await mails(smtp, 1)
    answers = [await try_login(api), await try_login(api, "nobody@example.com")]
    assert [code(each) for each in answers] == [(401, "invalid_credentials")] * 2
    assert answers[0].json() == answers[1].json()
    first, again = await mails(smtp, 2)
    assert again.recipient == EMAIL
    assert again.message["subject"] == first.message["subject"]
    assert code_in(again) != code_in(first)
    # Limited: three mails to one address, and no more however often somebody tries.
    for _ in range(3):
        await try_login(api)
    await mails(smtp, 3)
    assert (await confirm(api, again)).status_code == 204
    assert is_ok(await try_login(api))
    # Who has an account, or none, gets nothing for a wrong password.
    await try_login(api, password=OTHER)
    assert [mail.recipient for mail in smtp.messages] == [EMAIL] * 3


async def test_who_has_an_account_is_told_so_by_mail_alone(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    known, unknown = await api.signup("ADA@example.com", OTHER), await api.signup("eve@example.com", OTHER)
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    assert set(known.headers) == set(unknown.headers)
    *_, told = [mail for mail in await mails(smtp, 3) if mail.recipient == EMAIL]
    assert "code=" not in told.text
    assert "https://localhost:8443/password/forgot" in told.text
    assert is_ok(await try_login(api))
    assert not is_ok(await try_login(api, password=OTHER))


async def test_a_link_takes_the_password_of_its_own_sign_up_and_voids_the_others(api: Api, smtp: SmtpServer) -> None:
    await api.signup(password=OTHER)  # by somebody else, with her address
    await api.signup()
    first, second = await mails(smtp, 2)
    # She opens the wrong one: it makes nothing that she would share.
    assert code(await confirm(api, first)) == (401, "invalid_credentials")
    page = await api.http.post("/signup/confirm", data={"code": code_in(first), "password": PASSWORD})
    assert page.status_code == 422
    assert "This is not the password" in page.text
    assert not is_ok(await try_login(api, password=OTHER))
    assert (await confirm(api, second)).status_code == 204
    assert code(await confirm(api, first, OTHER)) == (422, "invalid_code")
    assert is_ok(await try_login(api))
    assert not is_ok(await try_login(api, password=OTHER))


async def test_a_forgotten_password_is_set_anew_and_all_sessions_are_over(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    tokens = await api.login()
    answers = [await api.post("/v1/password/forgot", {"email": each}) for each in (EMAIL, "nobody@example.com")]
    assert [(each.status_code, each.json()) for each in answers] == [(202, SENT)] * 2
    assert set(answers[0].headers) == set(answers[1].headers)
    *_, mail = await mails(smtp, 2)
    reset = {"code": code_in(mail), "new_password": OTHER}
    weak = await api.post("/v1/password/reset", reset | {"new_password": "short"})
    assert code(weak) == (422, "password_too_short")  # and the link still works
    done = await api.post("/v1/password/reset", reset)
    assert (done.status_code, done.text) == (204, "")
    assert not done.headers.get_list("set-cookie")
    assert code(await api.post("/v1/password/reset", reset)) == (422, "invalid_code")
    assert code(await api.refresh(tokens["refresh_token"])) == (401, "session_ended")
    old = await api.http.get("/v1/account", headers=bearer(tokens["access_token"]))
    assert code(old) == (401, "token_revoked")
    assert not is_ok(await try_login(api))
    assert is_ok(await try_login(api, password=OTHER))
    *_, notice = await mails(smtp, 3)
    assert notice.recipient == EMAIL
    assert "code=" not in notice.text
    assert [each.recipient for each in smtp.messages] == [EMAIL] * 3  # nobody@ got nothing


async def test_a_link_for_a_new_password_works_for_half_an_hour(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    await api.post("/v1/password/forgot", {"email": EMAIL})
    *_, mail = await mails(smtp, 2)
    reset = {"code": code_in(mail), "new_password": OTHER}
    api.clock.now += 1_800
    assert code(await api.post("/v1/password/reset", reset)) == (422, "invalid_code")
    api.clock.now -= 1
    assert (await api.post("/v1/password/reset", reset)).status_code == 204


async def test_a_change_of_password_voids_the_links_of_before_and_is_told(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    await api.post("/v1/password/forgot", {"email": EMAIL})
    tokens = await api.login()
    *_, mail = await mails(smtp, 2)
    changed = await api.post(
        "/v1/password",
        {"current_password": PASSWORD, "new_password": OTHER, "refresh_token": tokens["refresh_token"]},
    )
    assert is_ok(changed)
    reset = {"code": code_in(mail), "new_password": "yet another long enough one"}
    assert code(await api.post("/v1/password/reset", reset)) == (422, "invalid_code")
    assert len(await mails(smtp, 3)) == 3


async def test_an_address_changes_once_the_new_one_is_proven_and_the_old_one_can_undo_it(
    api: Api, smtp: SmtpServer
) -> None:
    await sign_up(api, smtp)
    tokens = await api.login()
    change = {"new_email": "new@example.com", "refresh_token": tokens["refresh_token"]}
    assert code(await api.post("/v1/email", change | {"current_password": OTHER})) == (401, "invalid_credentials")
    asked = await api.post("/v1/email", change | {"current_password": PASSWORD})
    assert (asked.status_code, asked.json()) == (202, SENT)
    *_, proof = await mails(smtp, 2)
    assert proof.recipient == "new@example.com"
    assert is_ok(await try_login(api))  # nothing has changed so far
    assert (await api.post("/v1/email/confirm", {"code": code_in(proof)})).status_code == 204
    assert not is_ok(await try_login(api))
    assert is_ok(await try_login(api, "new@example.com"))
    *_, notice = await mails(smtp, 3)
    assert notice.recipient == EMAIL
    api.clock.now += 7 * 86_400 - 1
    assert (await api.post("/v1/email/undo", {"code": code_in(notice)})).status_code == 204
    assert code(await api.refresh(tokens["refresh_token"])) == (401, "session_ended")
    # Whoever changed it knew the password, which is of no use any more.
    assert not is_ok(await try_login(api))
    assert not is_ok(await try_login(api, "new@example.com"))
    reset, told = sorted((await mails(smtp, 5))[-2:], key=lambda mail: mail.recipient != EMAIL)
    assert (reset.recipient, told.recipient) == (EMAIL, "new@example.com")
    assert "code=" not in told.text
    fresh = {"code": code_in(reset), "new_password": OTHER}
    assert (await api.post("/v1/password/reset", fresh)).status_code == 204
    assert is_ok(await try_login(api, password=OTHER))
    assert code(await api.post("/v1/email/undo", {"code": code_in(notice)})) == (422, "invalid_code")


async def test_an_address_of_somebody_elses_looks_like_any_other_and_they_are_told(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    await sign_up(api, smtp, "eve@example.com")
    tokens = await api.login()
    change = {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"]}
    taken = await api.post("/v1/email", change | {"new_email": "EVE@example.com"})
    free = await api.post("/v1/email", change | {"new_email": "free@example.com"})
    assert (taken.status_code, taken.content) == (free.status_code, free.content) == (202, free.content)
    *_, told, proof = sorted(await mails(smtp, 4), key=lambda mail: mail.recipient == "free@example.com")
    assert (told.recipient, proof.recipient) == ("eve@example.com", "free@example.com")
    assert "code=" not in told.text


async def test_a_code_is_good_for_its_own_purpose_alone(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    await api.post("/v1/password/forgot", {"email": EMAIL})
    *_, mail = await mails(smtp, 2)
    assert code(await confirm(api, mail)) == (422, "invalid_code")
    for path in ("/v1/email/confirm", "/v1/email/undo"):
        assert code(await api.post(path, {"code": code_in(mail)})) == (422, "invalid_code")
    for wrong in ("", "x", "A" * 43, code_in(mail) + "A", code_in(mail)[:-1]):
        answer = await api.post("/v1/password/reset", {"code": wrong, "new_password": OTHER})
        assert code(answer) == (422, "invalid_code")
    assert is_ok(await try_login(api))
    reset = {"code": code_in(mail), "new_password": OTHER}
    assert (await api.post("/v1/password/reset", reset)).status_code == 204


async def test_an_account_that_is_deleted_is_gone_with_its_tokens_and_its_owner_is_told(
    api: Api, smtp: SmtpServer
) -> None:
    await sign_up(api, smtp)
    tokens = await api.login()

    async def leave(password: str) -> httpx2.Response:
        body = {"current_password": password, "refresh_token": tokens["refresh_token"]}
        return await api.http.request("DELETE", "/v1/account", json=body)

    assert code(await leave(OTHER)) == (401, "invalid_credentials")
    assert (await leave(PASSWORD)).status_code == 204
    assert not is_ok(await try_login(api))
    old = await api.http.get("/v1/account", headers=bearer(tokens["access_token"]))
    assert code(old) == (401, "token_revoked")
    assert [mail.recipient for mail in await mails(smtp, 2)] == [EMAIL] * 2
    await sign_up(api, smtp)
    assert is_ok(await try_login(api))


async def test_the_owner_is_asked_about_a_new_device_and_not_about_a_known_one(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    known = (await try_login(api)).json()["device_token"]  # right after the sign-up: no news
    api.clock.now += 3_600
    body = {"email": EMAIL, "password": PASSWORD, "delivery": "body", "device_token": known}
    assert is_ok(await api.post("/v1/login", body))
    firefox = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
    del body["device_token"]
    assert is_ok(await api.post("/v1/login", body, headers=firefox))
    _, told = await mails(smtp, 2)
    assert told.recipient == EMAIL
    assert "Firefox on Linux" in told.text
    assert "https://localhost:8443/password/forgot" in told.text
    for _ in range(5):
        assert is_ok(await api.post("/v1/login", body))
    await sign_up(api, smtp, "eve@example.com")  # whose mail comes after all that wait
    assert [mail.recipient for mail in smtp.messages].count(EMAIL) == 4  # three at once


async def test_the_owner_is_asked_about_a_session_that_was_used_twice(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    tokens = await api.login()
    for _ in range(2):
        newer = (await api.refresh(tokens["refresh_token"])).json()
        assert is_ok(await api.refresh(newer["refresh_token"]))
    api.clock.now += 120
    assert code(await api.refresh(tokens["refresh_token"])) == (401, "refresh_reused")
    _, told = await mails(smtp, 2)
    assert told.recipient == EMAIL
    assert "https://localhost:8443/password/forgot" in told.text


async def test_one_address_gets_only_so_many_mails_and_nobody_is_told(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    answers = [await api.post("/v1/password/forgot", {"email": EMAIL}) for _ in range(6)]
    assert {each.status_code for each in answers} == {202}
    await mails(smtp, 3)
    await sign_up(api, smtp, "eve@example.com")  # whose mail comes after all that wait
    assert [mail.recipient for mail in smtp.messages].count(EMAIL) == 3


async def test_no_code_is_in_the_database_and_no_address_in_the_log(
    api: Api, smtp: SmtpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    smtp.mode, smtp.answer = "refuse", "450 4.2.1 not now"
    await api.signup()
    await api.post("/v1/password/forgot", {"email": EMAIL})
    async with asyncio.timeout(20):
        while not any("mail_failed" in each.getMessage() for each in caplog.records):
            await api.http.get("/healthz")
            await asyncio.to_thread(lambda: None)
    told = [each.getMessage() for each in caplog.records if each.name == "jotgate"]
    assert told
    assert not [line for line in told if "example.com" in line or "code=" in line]
    with closing(sqlite3.connect(api.settings.data_dir / "jotgate.sqlite3")) as database:
        assert database.execute("SELECT count(*) FROM jotgate_outbox").fetchone() >= (1,)
        dump = "\n".join(database.iterdump())
    assert "code=" not in dump


async def test_while_the_mail_server_is_away_requests_are_answered_and_nothing_is_lost_or_sent_twice(
    tmp_path: Path,
) -> None:
    with SmtpServer() as gone:
        url = gone.url
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(url))
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, clock, settings)
        for n in range(5):
            assert (await api.signup(f"p{n}@example.com")).status_code == 202
        clock.now += 3_600
    with SmtpServer() as back:
        settings = Settings(data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(back.url))
        clock.now += 3_600
        app = create_app(settings, clock=clock)
        async with app.lifespan():
            arrived = await mails(back, 5)
        assert sorted(mail.recipient for mail in arrived) == [f"p{n}@example.com" for n in range(5)]
        assert len(back.messages) == 5


PAGES: dict[str, dict[str, Any]] = {
    "/signup/confirm": {},
    "/password/reset": {"new_password": OTHER},
    "/email/confirm": {},
    "/email/undo": {},
}


@pytest.mark.parametrize("path", PAGES)
async def test_a_link_that_does_not_work_is_told_on_a_page(api: Api, path: str) -> None:
    for link in (path, f"{path}?code=", f"{path}?code={'x' * 65}"):
        page = await api.http.get(link)
        assert page.status_code == 400
        assert page.headers["content-type"] == "text/html; charset=utf-8"
    form = {"code": "A" * 43, **PAGES[path]}
    answer = await api.http.post(path, data=form, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 422
    assert "This link does not work" in answer.text
    assert "A" * 43 not in answer.text


@pytest.mark.parametrize("path", [*PAGES, "/password/forgot"])
async def test_a_page_runs_nothing_of_others_and_another_site_cannot_send_its_form(api: Api, path: str) -> None:
    page = await api.http.get(f"{path}?code={'A' * 43}", headers={"sec-fetch-site": "cross-site"})
    assert page.status_code == 200  # a mail client of the web is another site
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "same-origin"
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=", page.text)
    assert not page.headers.get_list("set-cookie")
    form = {"code": "A" * 43, "email": EMAIL, "new_password": OTHER}
    elsewhere = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert (await api.http.post(path, data=form, headers=elsewhere)).status_code == 403


async def test_what_a_person_typed_wrong_is_asked_again_with_the_reason(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    await api.post("/v1/password/forgot", {"email": EMAIL})
    *_, mail = await mails(smtp, 2)
    page = await api.http.post("/password/reset", data={"code": code_in(mail), "new_password": "short"})
    assert page.status_code == 422
    assert "at least 15 characters" in page.text
    assert code_in(mail) in page.text
    assert "short" not in page.text.replace("too short so far", "").replace("data-short", "")
    page = await api.http.post("/password/forgot", data={"email": '"><script>'})
    assert page.status_code == 422
    assert "<script>" not in page.text


async def test_a_password_that_is_changed_while_it_is_checked_is_of_no_use_any_more(
    api: Api, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_up(api, smtp)
    tokens = await api.login()
    store = api.app.start().store
    account = await store.account_by_email(EMAIL)
    assert account is not None
    change_account = store.change_account

    async def owner_is_faster(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  whatever the store takes
        now = await store.account_by_id(account.id)
        assert now is not None
        await store.set_password(
            now.id,
            expected_hash=now.password_hash,
            expected_version=now.credential_version,
            password_hash=now.password_hash,
            now=api.clock(),
            until_s=1,
        )
        return await change_account(*arguments, **named)

    monkeypatch.setattr(store, "change_account", owner_is_faster)
    body = {"current_password": PASSWORD, "refresh_token": tokens["refresh_token"]}
    changed = await api.post("/v1/email", body | {"new_email": "new@example.com"})
    assert code(changed) == (401, "session_ended")
    body["refresh_token"] = (await api.login())["refresh_token"]
    left = await api.http.request("DELETE", "/v1/account", json=body)
    assert code(left) == (401, "session_ended")
    assert await store.account_by_id(account.id) is not None
    assert len(smtp.messages) == 1


async def change_address(api: Api, smtp: SmtpServer, token: str, to: str) -> ReceivedMail:
    """Change the address as a person does; returns what the one of before is told."""
    so_far = len(smtp.messages)
    body = {"new_email": to, "current_password": PASSWORD, "refresh_token": token}
    assert (await api.post("/v1/email", body)).status_code == 202
    *_, proof = await mails(smtp, so_far + 1)
    assert (await api.post("/v1/email/confirm", {"code": code_in(proof)})).status_code == 204
    *_, notice = await mails(smtp, so_far + 2)
    return notice


async def test_who_changes_an_address_twice_cannot_void_the_first_owners_undo(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    token = (await api.login())["refresh_token"]
    owners = await change_address(api, smtp, token, "thief@evil.example")
    thiefs = await change_address(api, smtp, token, "thief@other.example")  # in the same second
    assert (await api.post("/v1/email/undo", {"code": code_in(thiefs)})).status_code == 204
    assert (await api.post("/v1/email/undo", {"code": code_in(owners)})).status_code == 204
    account = await api.app.start().store.account_by_email(EMAIL)
    assert account is not None
    api.clock.now += 1
    reset = [mail for mail in await mails(smtp, 9) if mail.recipient == "thief@evil.example" and "code=" in mail.text]
    spent = {"code": code_in(reset[-1]), "new_password": OTHER}
    assert code(await api.post("/v1/password/reset", spent)) == (422, "invalid_code")


async def test_the_owners_undo_voids_those_of_later_changes(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    token = (await api.login())["refresh_token"]
    owners = await change_address(api, smtp, token, "thief@evil.example")
    thiefs = await change_address(api, smtp, token, "thief@other.example")
    assert (await api.post("/v1/email/undo", {"code": code_in(owners)})).status_code == 204
    assert code(await api.post("/v1/email/undo", {"code": code_in(thiefs)})) == (422, "invalid_code")


async def test_asking_again_and_again_takes_nobodys_links_away(api: Api, smtp: SmtpServer) -> None:
    await sign_up(api, smtp)
    for _ in range(8):
        assert (await api.post("/v1/password/forgot", {"email": EMAIL})).status_code == 202
        assert (await api.signup("eve@example.com")).status_code == 202
        api.clock.now += 1
    arrived = await mails(smtp, 6)
    _, reset, _ = [mail for mail in arrived if mail.recipient == EMAIL]
    first, *_ = [mail for mail in arrived if mail.recipient == "eve@example.com"]
    assert (await confirm(api, first)).status_code == 204
    spent = {"code": code_in(reset), "new_password": OTHER}
    assert (await api.post("/v1/password/reset", spent)).status_code == 204


async def test_a_link_that_is_asked_for_while_the_password_changes_does_not_outlive_that(
    api: Api, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sign_up(api, smtp)
    token = (await api.login())["refresh_token"]
    store = api.app.start().store
    queue = store.queue

    async def owner_is_faster(**named: Any) -> None:  # noqa: ANN401  whatever the store takes
        monkeypatch.undo()
        body = {"current_password": PASSWORD, "new_password": OTHER, "refresh_token": token}
        assert is_ok(await api.post("/v1/password", body))
        await queue(**named)

    monkeypatch.setattr(store, "queue", owner_is_faster)
    await api.post("/v1/password/forgot", {"email": EMAIL})
    (reset,) = [mail for mail in await mails(smtp, 3) if "/password/reset" in mail.text]
    spent = {"code": code_in(reset), "new_password": "quite another one than these"}
    assert code(await api.post("/v1/password/reset", spent)) == (422, "invalid_code")


async def test_who_signs_up_with_an_address_that_a_thief_has_moved_away_is_told_of_the_link(
    api: Api, smtp: SmtpServer
) -> None:
    await sign_up(api, smtp)
    notice = await change_address(api, smtp, (await api.login())["refresh_token"], "thief@evil.example")
    so_far = len(smtp.messages)
    assert (await api.signup(password=OTHER)).status_code == 202
    *_, told = await mails(smtp, so_far + 1)
    assert (told.recipient, "code=" in told.text) == (EMAIL, False)
    assert "may get it back" in told.text
    assert (await api.post("/v1/email/undo", {"code": code_in(notice)})).status_code == 204


async def test_an_address_that_can_be_had_back_is_nobody_elses_meanwhile(tmp_path: Path, smtp: SmtpServer) -> None:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(smtp.url))
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, clock, settings)
        assert (await api.signup()).status_code == 201
        notice = await change_address(api, smtp, (await api.login())["refresh_token"], "thief@evil.example")
        assert code(await api.signup(EMAIL.upper(), OTHER)) == (409, "email_taken")
        assert (await api.post("/v1/email/undo", {"code": code_in(notice)})).status_code == 204
        assert code(await api.signup()) == (409, "email_taken")


async def test_wrong_passwords_on_the_page_count_as_anywhere(tmp_path: Path, smtp: SmtpServer) -> None:
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1, mail_url=Secret(smtp.url), limit_logins="3/hour")
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        await http.post("/v1/signup", json={"email": EMAIL, "password": PASSWORD})
        (mail,) = await mails(smtp, 1)
        form = {"code": code_in(mail), "password": OTHER}
        answers = [(await http.post("/signup/confirm", data=form)).status_code for _ in range(4)]
        assert answers == [422, 422, 422, 429]


@pytest.mark.parametrize(("colour", "on"), [("#ffee00", "#000000"), ("#1f5fbf", "#ffffff")])
async def test_a_button_can_be_read_whatever_colour_the_operator_chose(tmp_path: Path, colour: str, on: str) -> None:
    app = create_app(Settings(data_dir=tmp_path / "data", hash_workers=1, brand_colour=colour), clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        style = (await http.get("/pages/style.css")).text
    assert f"--accent: {colour};" in style
    assert f"--on-accent: {on};" in style
