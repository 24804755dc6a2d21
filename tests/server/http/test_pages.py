"""The hosted pages over HTTP: the real app, driven as a browser without scripts drives it."""

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pyotp
import pytest

from jotgate.server import Settings, create_app
from jotgate.server.flows.signup import signup
from jotgate.server.http.browser import cookie_name
from jotgate.server.http.forms import visitor_cookie_name
from jotgate.server.http.routes import ROUTES
from jotgate.server.secret import Secret
from jotgate.server.store import EMAIL_TAKEN
from tests.server.http.support import BROWSER, EMAIL, ORIGIN, PASSWORD, Api, Clock, client_of

OTHER = "another battery staples the horse"
HERE = {"origin": ORIGIN, "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
ELSEWHERE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
SESSION = cookie_name(ORIGIN)
VISITOR = visitor_cookie_name(ORIGIN)
SHOP = "https://shop.example.com"
# The pages that show a session's forms, and where these are sent to.
OWNED = sorted({route.path for route in ROUTES if route.page and route.credential == "session"})
ASKING = sorted(
    route.path for route in ROUTES if route.path in OWNED and route.method == "GET" and "{id}" not in route.path
)


def token_in(page: httpx2.Response) -> str:
    """The token of the page's forms, which all of them share."""
    (token,) = set(re.findall(r'name="form_token" value="([A-Za-z0-9_-]+)"', page.text))
    return str(token)


def hidden_in(page: httpx2.Response, name: str) -> str:
    (value,) = set(re.findall(rf'type="hidden" name="{name}" value="([^"]*)"', page.text))
    return unescape(str(value))


async def see(api: Api, path: str, **headers: str) -> httpx2.Response:
    return await api.http.get(path, headers={"sec-fetch-site": "same-origin", **headers})


async def send(api: Api, path: str, form: dict[str, str]) -> httpx2.Response:
    return await api.http.post(path, data=form, headers=HERE)


async def fill(api: Api, shown: str, path: str | None = None, **form: str) -> httpx2.Response:
    """Look at a page and send a form of it."""
    page = await see(api, shown)
    assert page.status_code == 200, page.text
    return await send(api, path or urlsplit(shown).path, form | {"form_token": token_in(page)})


async def log_in(api: Api, password: str = PASSWORD, back: str = "") -> httpx2.Response:
    return await fill(api, "/login", email=EMAIL, password=password, return_to=back)


def goes_to(answer: httpx2.Response) -> str:
    assert answer.status_code == 303, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.headers["location"])


async def elsewhere_in(api: Api, email: str = EMAIL) -> dict[str, str]:
    """Log in with another device, which is a program."""
    async with client_of(api.app) as http:
        return await Api(api.app, http, api.clock, api.settings).login(email)


async def is_over(api: Api, refresh_token: str) -> bool:
    async with client_of(api.app) as http:
        answer = await http.post("/v1/refresh", json={"refresh_token": refresh_token})
    return answer.status_code != 200


@pytest.fixture
async def ada(api: Api) -> Api:
    """Somebody who has an account and is logged in by the page."""
    assert (await api.signup()).status_code == 201
    assert goes_to(await log_in(api)) == "/account"
    return api


async def second_factor(api: Api) -> tuple[pyotp.TOTP, list[str]]:
    """Add an app; the codes to recover come along."""
    page = await fill(api, "/account/app", current_password=PASSWORD)
    assert "<svg" in page.text
    (secret,) = re.findall(r"<code dir=\"ltr\">([A-Z2-7]+)</code>", page.text)
    app = pyotp.TOTP(secret)
    code = {"code": app.at(api.clock.now), "form_token": token_in(page)}
    done = await send(api, "/account/app/confirm", code)
    assert done.status_code == 200, done.text
    api.clock.now += 30
    return app, re.findall(r"<li><code>([0-9A-Z-]+)</code></li>", done.text)


async def test_a_person_signs_up_and_is_logged_in(api: Api) -> None:
    assert goes_to(await fill(api, "/signup", email=EMAIL, new_password=PASSWORD)) == "/account"
    page = await see(api, "/account")
    assert EMAIL in page.text
    assert (await see(api, "/signup")).status_code == 200
    again = await fill(api, "/signup", email=EMAIL, new_password=PASSWORD)
    assert again.status_code == 422
    assert EMAIL_TAKEN in unescape(again.text)


async def test_a_password_alone_is_not_enough_where_there_is_a_second_factor(ada: Api) -> None:
    app, codes = await second_factor(ada)
    assert len(codes) == 10
    ada.http.cookies.clear()
    page = await log_in(ada)
    assert page.status_code == 200
    assert SESSION not in ada.http.cookies
    form = {"ticket": hidden_in(page, "ticket"), "form_token": token_in(page)}
    wrong = await send(ada, "/login/second-factor", form | {"code": "000000"})
    assert wrong.status_code == 422
    assert hidden_in(wrong, "ticket") == form["ticket"]
    assert 'href="#code"' in wrong.text
    assert SESSION not in ada.http.cookies
    assert goes_to(await send(ada, "/login/second-factor", form | {"code": app.at(ada.clock.now)})) == "/account"
    assert SESSION in ada.http.cookies
    ada.http.cookies.clear()
    page = await log_in(ada)
    form = {"ticket": hidden_in(page, "ticket"), "form_token": token_in(page), "code": codes[0].lower()}
    assert goes_to(await send(ada, "/login/second-factor", form)) == "/account"
    assert "9 left" in (await see(ada, "/account")).text


async def test_a_first_step_that_is_too_long_ago_begins_anew(ada: Api) -> None:
    app, _ = await second_factor(ada)
    ada.http.cookies.clear()
    page = await log_in(ada)
    ada.clock.now += 300
    form = {"ticket": hidden_in(page, "ticket"), "form_token": token_in(page), "code": app.at(ada.clock.now)}
    again = await send(ada, "/login/second-factor", form)
    assert again.status_code == 422
    assert 'name="password"' in again.text
    assert goes_to(await see(ada, "/login/second-factor")) == "/login"


async def test_a_session_without_the_second_factor_is_asked_for_it_before_factors_change(ada: Api) -> None:
    await second_factor(ada)
    assert (await see(ada, "/account/app/remove")).status_code == 200
    with closing(sqlite3.connect(ada.settings.data_dir / "jotgate.sqlite3")) as database, database:
        database.execute("UPDATE jotgate_families SET methods = 'pwd'")
    there = urlsplit(goes_to(await see(ada, "/account/app/remove")))
    assert there.path == "/login"
    assert parse_qs(there.query) == {"notice": ["step_up"], "return_to": [f"{ORIGIN}/account/app/remove"]}
    sent = await fill(ada, "/account", "/account/app/remove", current_password=PASSWORD)
    assert goes_to(sent).startswith("/login?notice=step_up")
    assert "second step" in (await see(ada, "/login?notice=step_up")).text


async def test_a_person_changes_the_password_and_everybody_else_is_logged_out(ada: Api) -> None:
    elsewhere = (await elsewhere_in(ada))["refresh_token"]
    wrong = await fill(ada, "/account/password", current_password=OTHER, new_password=OTHER)
    assert wrong.status_code == 422
    assert 'href="#current_password"' in wrong.text
    short = await fill(ada, "/account/password", current_password=PASSWORD, new_password="x")
    assert short.status_code == 422
    assert 'href="#new_password"' in short.text
    done = await fill(ada, "/account/password", current_password=PASSWORD, new_password=OTHER)
    assert goes_to(done) == "/account?notice=password_changed"
    assert "Your password is changed" in (await see(ada, goes_to(done))).text
    assert await is_over(ada, elsewhere)
    ada.http.cookies.clear()
    assert (await log_in(ada)).status_code == 422
    assert goes_to(await log_in(ada, OTHER)) == "/account"


async def test_a_person_asks_for_another_address(ada: Api) -> None:
    wrong = await fill(ada, "/account/address", current_password=PASSWORD, new_email="nobody")
    assert wrong.status_code == 422
    assert 'href="#new_email"' in wrong.text
    done = await fill(ada, "/account/address", current_password=PASSWORD, new_email="b@example.com")
    assert goes_to(done) == "/account?notice=address_asked"


async def test_a_person_makes_new_codes_and_removes_the_app(ada: Api) -> None:
    _, old = await second_factor(ada)
    page = await fill(ada, "/account/recovery-codes", current_password=PASSWORD)
    new = re.findall(r"<li><code>([0-9A-Z-]+)</code></li>", page.text)
    assert len(new) == 10
    assert not {*new} & {*old}
    assert goes_to(await fill(ada, "/account/app/remove", current_password=PASSWORD)) == "/account?notice=app_removed"
    assert "Nothing but your password" in (await see(ada, "/account")).text


async def test_a_code_that_does_not_fit_the_app_is_asked_for_again(ada: Api) -> None:
    page = await fill(ada, "/account/app", current_password=PASSWORD)
    form = {"form_token": token_in(page), "code": "000000"}
    again = await send(ada, "/account/app/confirm", form)
    assert again.status_code == 422
    assert 'href="#code"' in again.text
    assert "<svg" not in again.text


async def test_a_person_sees_devices_and_logs_one_out(ada: Api) -> None:
    other = (await elsewhere_in(ada))["refresh_token"]
    page = await see(ada, "/account")
    (path,) = re.findall(r'action="(/account/sessions/[A-Za-z0-9_-]+)"', page.text)
    assert "this browser" in page.text
    done = await send(ada, path, {"form_token": token_in(page)})
    assert goes_to(done) == "/account?notice=session_ended"
    assert await is_over(ada, other)
    assert goes_to(await send(ada, path, {"form_token": token_in(page)})) == "/account?notice=session_gone"


async def test_another_accounts_session_and_passkey_are_not_there(ada: Api) -> None:
    await ada.signup("eve@example.com")
    eve = await elsewhere_in(ada, "eve@example.com")
    headers = {"authorization": f"Bearer {eve['access_token']}"}
    async with client_of(ada.app) as http:
        (session,) = (await http.get("/v1/sessions", headers=headers)).json()["sessions"]
    assert goes_to(await fill(ada, "/account", f"/account/sessions/{session['id']}")) == "/account?notice=session_gone"
    assert not await is_over(ada, eve["refresh_token"])
    assert (await see(ada, "/account/passkeys/AAAA")).status_code == 404


@pytest.mark.parametrize("everywhere", [False, True])
async def test_a_person_logs_out(ada: Api, everywhere: bool) -> None:
    cookie = ada.http.cookies[SESSION]
    path = "/account/logout-everywhere" if everywhere else "/account/logout"
    done = await fill(ada, "/account", path)
    assert goes_to(done).startswith("/logged-out")
    assert SESSION not in ada.http.cookies
    assert "You are logged out" in (await see(ada, goes_to(done))).text
    ada.http.cookies.set(SESSION, cookie, domain="localhost.local")
    assert goes_to(await see(ada, "/account")).startswith("/login?")


async def test_a_person_deletes_the_account(ada: Api) -> None:
    assert (await fill(ada, "/account/delete", current_password=OTHER)).status_code == 422
    done = await fill(ada, "/account/delete", current_password=PASSWORD)
    assert goes_to(done) == "/logged-out?notice=deleted"
    assert SESSION not in ada.http.cookies
    assert (await log_in(ada)).status_code == 422


async def test_a_login_begins_another_session_and_ends_the_one_before(ada: Api) -> None:
    before = ada.http.cookies[SESSION]
    await log_in(ada)
    assert ada.http.cookies[SESSION] != before
    ada.http.cookies.delete(SESSION)
    ada.http.cookies.set(SESSION, before, domain="localhost.local")
    assert goes_to(await see(ada, "/account")).startswith("/login?")


async def test_to_look_at_pages_changes_nothing(ada: Api) -> None:
    before, cookie = ada.dump(), ada.http.cookies[SESSION]
    for path in [*ASKING, "/login", "/signup", "/signup/sent", "/logged-out"]:
        for _ in range(2):
            assert (await see(ada, path)).status_code == 200, path
    assert ada.http.cookies[SESSION] == cookie
    assert ada.dump() == before
    assert (await ada.post("/v1/refresh", headers=BROWSER)).status_code == 200


async def test_no_page_is_kept_and_none_runs_anything_but_the_servers_own_files(ada: Api) -> None:
    pages = [await see(ada, path) for path in [*ASKING, "/login", "/signup", "/signup/sent", "/logged-out"]]
    pages += [await see(ada, "/account", **ELSEWHERE), await send(ada, "/login", {}), await log_in(ada, OTHER)]
    pages.append(await fill(ada, "/account/app", current_password=PASSWORD))
    for page in pages:
        assert page.headers["cache-control"] == "no-store"
        policy = page.headers["content-security-policy"].split("; ")
        assert policy[:3] == ["default-src 'none'", "style-src 'self'", "script-src 'self'"]
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<script(?![^>]*src=\"/pages/)|<style|\sstyle=|\son[a-z]+=|javascript:", page.text)
        assert PASSWORD not in page.text


BEFORE = {
    "/login": {"email": EMAIL, "password": PASSWORD},
    "/login/second-factor": {"ticket": "A" * 43, "code": "123456"},
    "/login/passkey": {"passkey": "{}"},
    "/signup": {"email": "new@example.com", "new_password": PASSWORD},
}


@pytest.mark.parametrize("path", BEFORE)
async def test_a_form_before_the_login_works_for_whom_it_was_shown_to_alone(ada: Api, path: str) -> None:
    shown = await see(ada, "/login")
    session_form = token_in(await see(ada, "/account"))
    before = ada.dump()
    async with client_of(ada.app) as eve:
        foreign = token_in(await eve.get("/login"))
    own = token_in(shown)
    tokens: list[dict[str, str]] = [
        {},
        {"form_token": ""},
        {"form_token": "A" * 75},
        {"form_token": own[:-1]},
        {"form_token": own.swapcase()},
        {"form_token": foreign},
        {"form_token": session_form},
    ]
    for token in tokens:
        refused = await send(ada, path, BEFORE[path] | token)
        assert refused.status_code == 403
        assert "Open the page anew" in refused.text
        assert not refused.headers.get_list("set-cookie")
    ada.http.cookies.delete(VISITOR)
    assert (await send(ada, path, BEFORE[path] | {"form_token": own})).status_code == 403
    for value in ("", "x", f"{'V' * 22}; {VISITOR}={'V' * 22}"):
        headers = HERE | {"cookie": f"{VISITOR}={value}"}
        refused = await ada.http.post(path, data=BEFORE[path] | {"form_token": own}, headers=headers)
        assert refused.status_code == 403
    assert ada.dump() == before


@pytest.mark.parametrize("path", [path for path in OWNED if path != "/account"])
async def test_a_form_of_a_session_works_in_that_session_alone(ada: Api, path: str) -> None:
    visitor_form = token_in(await see(ada, "/login"))
    old = token_in(await see(ada, "/account"))
    await log_in(ada)  # the same person, in another session
    before = ada.dump()
    form = {"current_password": PASSWORD, "new_password": OTHER, "new_email": "b@example.com", "name": "Phone"}
    there = path.replace("{id}", "AAAA")
    for token in ({}, {"form_token": "A" * 75}, {"form_token": old}, {"form_token": visitor_form}):
        refused = await send(ada, there, form | token)
        assert refused.status_code == 403
        assert 'href="/account"' in refused.text
    own = {"form_token": token_in(await see(ada, "/account"))}
    for headers in (
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ):
        assert (await ada.http.post(there, data=form | own, headers=headers)).status_code == 403
    assert ada.dump() == before
    ada.http.cookies.delete(SESSION)
    assert goes_to(await send(ada, there, form | own)).startswith("/login?")


@pytest.mark.parametrize("path", ASKING)
async def test_who_is_not_logged_in_logs_in_first_and_comes_back(api: Api, path: str) -> None:
    await api.signup()
    there = urlsplit(goes_to(await see(api, path)))
    assert there.path == "/login"
    assert parse_qs(there.query) == {"notice": ["log_in_first"], "return_to": [f"{ORIGIN}{path}"]}
    page = await see(api, there.geturl())
    assert "Log in to go on" in page.text
    back = hidden_in(page, "return_to")
    assert goes_to(await log_in(api, back=back)) == f"{ORIGIN}{path}"


async def test_whom_another_site_sends_arrives_by_a_page_that_goes_on_once(ada: Api) -> None:
    async with client_of(ada.app) as http:  # the browser withholds its cookies
        page = await http.get("/account?arrivals=1", headers=ELSEWHERE)
        assert page.status_code == 200
        assert not page.headers.get_list("set-cookie")
        (there,) = set(re.findall(r'<meta http-equiv="refresh" content="0; url=([^"]+)">', page.text))
        assert f'<a href="{there}">' in page.text
        assert unescape(there) == "/account?arrived=1"
        # Still without: it goes to the login, and does not come here again, whatever the browser says.
        again = await http.get(unescape(there), headers=ELSEWHERE)
        assert goes_to(again).startswith("/login?")
        login = await http.get("/login?return_to=/account&arrived=1", headers=ELSEWHERE)
        assert 'name="password"' in login.text
        http.cookies.clear()
        kept = await http.get("/login", params={"return_to": "/account/app"}, headers=ELSEWHERE)
        (there,) = set(re.findall(r'<a href="([^"]+)">', kept.text))
        assert parse_qs(urlsplit(unescape(there)).query)["return_to"] == [f"{ORIGIN}/account/app"]
        evil = await http.get("/login", params={"return_to": "https://evil.example"}, headers=ELSEWHERE)
        assert "evil" not in evil.text
        for site in ("none", "same-origin", "same-site"):
            assert (await http.get("/account", headers={"sec-fetch-site": site})).status_code == 303
        odd = await http.get('/account/passkeys/"><script>', headers=ELSEWHERE)
        assert "<script>" not in odd.text
    assert EMAIL in (await see(ada, "/account?arrived=1")).text


async def test_another_sites_page_puts_no_words_on_ours(ada: Api) -> None:
    said = "Your password is changed"
    assert said in (await see(ada, "/account?notice=password_changed")).text
    for site in ("cross-site", "same-site", "none"):
        page = await ada.http.get("/account?notice=password_changed", headers={"sec-fetch-site": site})
        assert said not in page.text
    assert (await see(ada, "/account?notice=%3Cscript%3E")).text.count("<script") == 0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Api]:
    """A server with a front end and a home beside it."""
    settings = Settings(
        signup="open",
        issuer="https://auth.example.com",
        data_dir=tmp_path / "data",
        allowed_origins=(SHOP,),
        home_url="https://www.example.com/start",
        hash_workers=1,
        guesses_before_backoff=100,
    )
    clock = Clock()
    app = create_app(settings, clock=clock)
    async with app.lifespan(), client_of(app, settings.issuer) as http:
        yield Api(app, http, clock, settings)


BACK = {
    "/account/app": "https://auth.example.com/account/app",
    "https://auth.example.com/account": "https://auth.example.com/account",
    f"{SHOP}/cart?a=1&b=2#top": f"{SHOP}/cart?a=1&b=2#top",
    "https://www.example.com/elsewhere": "https://www.example.com/elsewhere",
    "https://evil.example/": "/account",
    "//evil.example": "/account",
    "/\\evil.example": "/account",
    f"{SHOP}@evil.example/": "/account",
    f"{SHOP}.evil.example/": "/account",
    f"{SHOP}\\@evil.example/": "/account",
    "http://shop.example.com/": "/account",
    "javascript:alert(1)": "/account",
    "https://example.com/": "/account",
    "/a\r\nset-cookie: a=b": "/account",
}


async def test_a_login_goes_back_to_allowed_places_alone(shop: Api) -> None:
    await shop.signup()
    headers = HERE | {"origin": shop.settings.origin}
    for asked, there in BACK.items():
        page = await shop.http.get("/login", params={"return_to": asked})
        kept = re.findall(r'name="return_to" value="([^"]*)"', page.text)
        assert {unescape(each) for each in kept} == ({there} if there != "/account" else set())
        # Whatever the page says, the form may say something else.
        form = {"email": EMAIL, "password": PASSWORD, "form_token": token_in(page), "return_to": asked}
        done = await shop.http.post("/login", data=form, headers=headers)
        assert goes_to(done) == there
        assert "a=b" not in str(done.headers.get_list("set-cookie"))
    policy = page.headers["content-security-policy"].split("; ")
    assert f"form-action 'self' {SHOP} https://www.example.com" in policy


async def test_the_operators_logo_stands_on_every_page_and_no_other_picture_may(tmp_path: Path) -> None:
    logo = "https://cdn.example.com/logo.svg"
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1, brand_name='"Ada" & Co', brand_logo_url=logo)
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        for path in ("/login", "/password/forgot", "/logged-out"):
            page = await http.get(path)
            assert f'<img src="{logo}" alt="&#34;Ada&#34; &amp; Co">' in page.text
            assert "img-src https://cdn.example.com" in page.headers["content-security-policy"].split("; ")


async def test_where_to_go_back_to_is_kept_through_the_second_step(ada: Api) -> None:
    app, _ = await second_factor(ada)
    ada.http.cookies.clear()
    page = await log_in(ada, back="/account/devices")
    back = hidden_in(page, "return_to")
    assert back == f"{ORIGIN}/account/devices"
    form = {"ticket": hidden_in(page, "ticket"), "form_token": token_in(page)}
    wrong = await send(ada, "/login/second-factor", form | {"code": "000000", "return_to": back})
    assert hidden_in(wrong, "return_to") == back
    right = form | {"code": app.at(ada.clock.now)}
    assert goes_to(await send(ada, "/login/second-factor", right | {"return_to": "//evil.example"})) == "/account"


async def test_pages_tell_no_more_of_who_has_an_account_than_the_api(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1)
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, Clock(), settings)
        await signup(app.start(), EMAIL, Secret(PASSWORD), Clock().now)

        def alike(one: httpx2.Response, two: httpx2.Response) -> None:
            hide = re.compile(r'name="form_token" value="[^"]+"|data-options="[^"]+"')
            assert one.status_code == two.status_code
            assert hide.sub("", one.text) == hide.sub("", two.text)
            assert {*one.headers} - {"x-request-id"} == {*two.headers} - {"x-request-id"}

        known = await fill(api, "/login", email=EMAIL, password=OTHER)
        assert known.status_code == 422
        alike(known, await fill(api, "/login", email="nobody@example.com", password=OTHER))
        taken = await fill(api, "/signup", email=EMAIL, new_password=OTHER)
        assert "Look into your mail" in (await see(api, goes_to(taken))).text
        alike(taken, await fill(api, "/signup", email="nobody@example.com", new_password=OTHER))
        assert SESSION not in http.cookies


async def test_what_somebody_typed_is_not_repeated(ada: Api) -> None:
    for email in ('"><script>alert(1)</script>', "canary@example.com"):
        page = await fill(ada, "/login", email=email, password="canary of a password")
        assert page.status_code == 422
        assert "canary" not in page.text
        assert "alert(1)" not in page.text


async def test_guesses_on_the_page_wait_as_those_over_the_api_do(api: Api) -> None:
    await api.signup()
    answers = [await log_in(api, OTHER) for _ in range(7)]
    assert [each.status_code for each in answers][:5] == [422] * 5
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].headers["content-type"].startswith("text/html")


async def test_a_browser_that_logged_in_by_the_page_is_known_the_next_time(ada: Api) -> None:
    device = ada.http.cookies[f"{SESSION}-device"]
    assert device.startswith("jgd_")
    async with client_of(ada.app, peer="203.0.113.9") as eve:
        for _ in range(8):
            page = await eve.get("/login")
            form = {"email": EMAIL, "password": OTHER, "form_token": token_in(page)}
            await eve.post("/login", data=form, headers=HERE)
    assert goes_to(await log_in(ada)) == "/account"


async def test_under_a_path_every_link_stays_there(tmp_path: Path) -> None:
    settings = Settings(signup="open", issuer="https://localhost:8443/auth", data_dir=tmp_path / "data", hash_workers=1)
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, Clock(), settings)
        assert goes_to(await fill(api, "/auth/signup", email=EMAIL, new_password=PASSWORD)) == "/auth/account"
        for path in ("/auth/login", "/auth/signup", "/auth/account", "/auth/account/password", "/auth/logged-out"):
            page = await see(api, path)
            links = re.findall(r'(?:href|src|action)="([^"#]+)"', page.text)
            assert links
            assert all(link.startswith("/auth/") for link in links)
        http.cookies.clear()
        query = parse_qs(urlsplit(goes_to(await see(api, "/auth/account"))).query)
        assert query["return_to"] == [f"{ORIGIN}/auth/account"]


async def test_no_other_origin_reads_a_page_not_even_one_that_may_use_the_api(tmp_path: Path) -> None:
    friend = "https://www.shop.example"
    settings = Settings(
        issuer="https://auth.shop.example", data_dir=tmp_path / "data", hash_workers=1, allowed_origins=(friend,)
    )
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app, "https://auth.shop.example") as http:
        headers = {"origin": friend, "sec-fetch-site": "same-site"}
        page = await http.get("/login", headers=headers)
        api = await http.get("/v1/account", headers=headers)
    assert "access-control-allow-origin" not in page.headers
    assert api.headers["access-control-allow-origin"] == friend
