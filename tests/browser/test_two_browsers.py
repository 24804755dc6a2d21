"""Two browsers that hold the same session (a restored profile, a cloned machine) refresh at once and both stay in.

Who asks first, whom the server answers first and whose answer arrives first differ from round to round, and are decided
here: each request is held until its turn, and so is each answer, cookie included.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Cookie, Page, Route

from tests.browser.conftest import WITHIN_MS
from tests.conftest import PASSWORD, RunningServer

CALL = """async ([path, body]) => {
    const answer = await fetch("/auth/v1/" + path, {
        method: "POST",
        headers: {"Jotgate-Client": "1", "Content-Type": "application/json"},
        body: JSON.stringify(body),
    });
    return answer.status;
}"""
BEGIN_REFRESH = f"() => {{ window.refreshed = ({CALL})(['refresh', {{}}]); }}"


def session_cookie(context: BrowserContext) -> Cookie:
    """The one beside that of the device."""
    (cookie,) = [each for each in context.cookies() if not each["name"].endswith("-device")]
    return cookie


@dataclass
class Holder:
    """One browser with the session, whose refreshes wait for their turn."""

    context: BrowserContext
    page: Page
    server: httpx2.Client
    origin: str
    held: list[Route] = field(default_factory=list)

    @property
    def token(self) -> str:
        cookie = session_cookie(self.context)
        return cookie["value"]

    def hold(self, route: Route) -> None:
        self.held.append(route)

    def ask(self) -> None:
        """Begin a refresh; return when it is held."""
        self.page.evaluate(BEGIN_REFRESH)
        while not self.held:
            self.page.wait_for_timeout(1)  # lets Playwright deliver what it has

    def reach_server(self) -> tuple[Route, httpx2.Response]:
        """Let the request reach the server, and hold the answer: the browser knows nothing of it yet."""
        route = self.held.pop()
        cookie = session_cookie(self.context)
        sent = route.request
        headers = sent.headers | {"origin": self.origin, "cookie": f"{cookie['name']}={cookie['value']}"}
        answer = self.server.post(sent.url, headers=headers, content=sent.post_data_buffer or b"")
        assert answer.status_code == 200, answer.text
        self.server.cookies.clear()
        return route, answer

    def hear(self, route: Route, answer: httpx2.Response) -> None:
        """Let the answer arrive, with its cookie."""
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)
        assert self.page.evaluate("() => window.refreshed") == 200

    def refresh(self) -> None:
        self.ask()
        self.hear(*self.reach_server())


@pytest.fixture
def holders(browser: Browser, running_shop: RunningServer, new_email: Callable[[], str]) -> Iterator[list[Holder]]:
    """Two browsers with one session."""
    email = new_email()
    contexts = [browser.new_context(base_url=running_shop.url) for _ in range(2)]
    with running_shop.client() as server:
        server.post("/auth/v1/signup", json={"email": email, "password": PASSWORD}).raise_for_status()
        holders = []
        for context in contexts:
            context.set_default_timeout(WITHIN_MS)
            page = context.new_page()
            page.goto("/nothing-here")  # a page without scripts: nothing but this test refreshes
            holders.append(Holder(context, page, server, running_shop.url))
        first, second = holders
        assert first.page.evaluate(CALL, ["login", {"email": email, "password": PASSWORD}]) == 200
        cookie = session_cookie(first.context)
        second.context.add_cookies(
            [
                {
                    "name": cookie["name"],
                    "value": cookie["value"],
                    "url": running_shop.url,
                    "httpOnly": True,
                    "secure": True,
                    "sameSite": "Strict",
                }
            ]
        )
        for holder in holders:
            holder.page.route("**/auth/v1/refresh", holder.hold)
        yield holders
    for context in contexts:
        context.close()


def play(holders: list[Holder], rounds: int) -> None:
    chance = random.Random(4)  # noqa: S311 - it decides about orders, nothing secret

    def any_order() -> list[Holder]:
        return chance.sample(holders, k=2)

    tokens = {holders[0].token}
    for _ in range(rounds):
        assert holders[0].token == holders[1].token
        for holder in any_order():
            holder.ask()
        answers = {id(holder): holder.reach_server() for holder in any_order()}
        early, late = any_order()
        early.hear(*answers[id(early)])
        overtaken = chance.random() < 0.3
        if overtaken:
            early.refresh()  # and so the late answer brings a token that is not the current one any more
        late.hear(*answers[id(late)])
        assert (late.token != early.token) is overtaken
        if overtaken:
            late.refresh()
        assert late.token == early.token
        assert early.token not in tokens
        tokens.add(early.token)
    for holder in holders:
        account = holder.page.evaluate(
            "() => fetch('/auth/v1/account', {headers: {'Jotgate-Client': '1'}}).then((answer) => answer.status)"
        )
        assert account == 200


def test_two_browsers_that_refresh_one_session_at_once_both_stay_logged_in(holders: list[Holder]) -> None:
    play(holders, rounds=100)
