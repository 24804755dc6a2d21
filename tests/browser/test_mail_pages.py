"""The pages behind the links in mails, in Chromium: a real server, and a real mail server that it sends by."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import WITHIN_MS, launched
from tests.conftest import PASSWORD, Need, RunningServer, launch
from tests.smtp import ReceivedMail, SmtpServer

EMAIL = "ada@example.com"
NEW_EMAIL = "ada@new.example.com"
OTHER = "another battery staples the horse"
BROWSER = {"Jotgate-Client": "1"}


@pytest.fixture(scope="module")
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer() as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smtp: SmtpServer) -> Iterator[RunningServer]:
    settings = {
        "JOTGATE_SIGNUP": "verified",
        "JOTGATE_MAIL_URL": smtp.url,
        "JOTGATE_BRAND_NAME": "Café & Söhne",
        "JOTGATE_HOME_URL": "https://shop.example.com",
    }
    running = launch(["serve"], tmp_path_factory.mktemp("mail") / "data", settings)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def browser(server: RunningServer, need: Need) -> Iterator[Browser]:
    with launched(server, need("chromium")) as chromium:
        yield chromium


@pytest.fixture(params=["with scripts", "without scripts"])
def context(browser: Browser, server: RunningServer, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    context = browser.new_context(
        base_url=server.url, locale="en-GB", java_script_enabled=request.param == "with scripts"
    )
    context.set_default_timeout(WITHIN_MS)
    yield context
    context.close()


def link_in(mail: ReceivedMail) -> str:
    (found,) = set(re.findall(r"https://localhost:\d+/[a-z/]+\?code=[A-Za-z0-9_-]+", mail.text))
    return str(found)


def logs_in(client: httpx2.Client, email: str, password: str) -> bool:
    body = {"email": email, "password": password, "delivery": "body"}
    return client.post("/v1/login", json=body).status_code == 200


def test_a_person_confirms_forgets_changes_and_undoes(
    context: BrowserContext, server: RunningServer, smtp: SmtpServer, request: pytest.FixtureRequest
) -> None:
    name = "js" if "with scripts" in request.node.name and "without" not in request.node.name else "plain"
    email, new_email = f"{name}.{EMAIL}", f"{name}.{NEW_EMAIL}"
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    with httpx2.Client(base_url=server.url, verify=server.trust(), trust_env=False) as client:
        so_far = len(smtp.messages)

        def next_mail(to: str) -> ReceivedMail:
            nonlocal so_far
            so_far += 1
            mail = smtp.wait_for(so_far)[so_far - 1]
            assert mail.recipient == to
            return mail

        answer = client.post("/v1/signup", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 202
        _confirm(page, link_in(next_mail(email)), "Your account is ready", password=PASSWORD)
        expect(page.get_by_role("link", name="Go on to Café & Söhne")).to_have_attribute(
            "href", "https://shop.example.com"
        )
        assert logs_in(client, email, PASSWORD)

        page.goto("/password/forgot")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_role("button").click()
        expect(page.get_by_role("heading")).to_have_text("Look into your mail")
        page.goto(link_in(next_mail(email)))
        if name == "js":
            page.get_by_label("New password").fill("short")
            expect(page.get_by_role("status")).to_have_text("too short so far")
            page.get_by_label("New password").fill("a" * 20)
            expect(page.get_by_role("status")).to_have_text("easy to guess")
        page.get_by_label("New password").fill("passwordpassword")
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_be_visible()  # a common one, and the form is there again
        page.get_by_label("New password").fill(OTHER)
        page.get_by_role("button").click()
        expect(page.get_by_role("heading")).to_have_text("Your new password is set")
        assert logs_in(client, email, OTHER)
        assert not logs_in(client, email, PASSWORD)
        next_mail(email)  # which says so

        tokens = client.post("/v1/login", json={"email": email, "password": OTHER, "delivery": "body"}).json()
        change = {"new_email": new_email, "current_password": OTHER, "refresh_token": tokens["refresh_token"]}
        assert client.post("/v1/email", json=change).status_code == 202
        _confirm(page, link_in(next_mail(new_email)), "Your address has changed")
        assert logs_in(client, new_email, OTHER)
        _confirm(page, link_in(next_mail(email)), "Your address is back")
        assert not logs_in(client, new_email, OTHER)
        assert {mail.recipient for mail in smtp.wait_for(so_far + 2)[so_far:]} == {email, new_email}
    # What Chromium tells of the form that was refused (422) is no fault of the page's.
    assert [fault for fault in faults if "422" not in fault] == []


def _confirm(page: Page, link: str, then: str, *, password: str = "") -> None:
    """Open a link, look at it again, press the button once; the link is of no use any more."""
    page.goto(link)
    page.reload()
    if password:
        page.get_by_label("The password that you chose").fill(OTHER)
        page.get_by_role("button").click()
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        page.get_by_label("The password that you chose").fill(password)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading")).to_have_text(then)
    page.goto(link)
    if password:
        page.get_by_label("The password that you chose").fill(password)
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text("This link does not work")
