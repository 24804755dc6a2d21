"""The README's example for web pages, in Chromium, on a page of the demo."""

import re
from collections.abc import Callable

from playwright.sync_api import BrowserContext

from tests.conftest import PASSWORD, RunningServer
from tests.test_readme import blocks


def test_the_example_for_web_pages_works(
    context: BrowserContext, running_shop: RunningServer, new_email: Callable[[], str]
) -> None:
    (example,) = blocks("js")
    code = re.sub(r"^import ({.*}) from (\".*\");", r"const \1 = await import(\2);", example, flags=re.MULTILINE)
    assert code != example
    email = new_email()
    with running_shop.client() as client:
        answer = client.post("/auth/v1/signup", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
    page = context.new_page()
    page.goto("/mails")  # where nothing else asks for the session
    wrapped = f"async ([email, password]) => {{ const shown = []; const show = (each) => shown.push(each);\n{code}\n"
    told = page.evaluate(wrapped + "return shown; }", [email, PASSWORD])
    assert told == ["out", "in", 0, "out"]
