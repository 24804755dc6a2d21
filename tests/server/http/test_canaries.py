"""No secret of a request comes out anywhere: not in the log, the audit trail, an error or a header of the answer.

Made from the route table: each route is asked with secrets in every place that a request has, to succeed and to be
refused. A route that nobody has written a good request for fails here.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
import pytest

from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.http.askers import device_cookie_name
from jotgate.server.http.bodies import FactorAddedAnswer, TokenAnswer
from jotgate.server.http.browser import cookie_name
from jotgate.server.http.forms import visitor_cookie_name
from jotgate.server.http.routes import ROUTES, Route
from jotgate.server.secret import Secret
from tests.server.http.support import BROWSER, Clock, client_of

CANARY: Final = "kanarienvogel"  # in every secret that is planted, and in nothing else
TOKEN: Final = "jgr_" + CANARY * 6
JWT: Final = "eyJhbGciOiJFUzI1NiJ9.eyJrYW5hcmllbnZvZ2VsIjoxfQ." + CANARY * 4
DEVICE: Final = "jgd_" + CANARY * 6
VISITOR: Final = "V" * 22
OPERATORS: Final = CANARY + "-that-only-programs-of-the-operator-have"
PASSWORDS: Final = (CANARY + " and three words", CANARY + " and four more words")
QUERY: Final = "?" + urlencode({"token": TOKEN, "password": CANARY, "after": CANARY})
PLANTED: Final = {
    "user-agent": f"Mozilla/5.0 {CANARY}",
    "x-request-id": CANARY,
    "referer": f"https://localhost:8443/?token={TOKEN}",
    "x-forwarded-for": CANARY,
    "forwarded": f"for={CANARY}",
    "x-api-key": CANARY,
    "if-none-match": f'"{CANARY}"',
}


@dataclass
class Person:
    """Somebody whose password is a canary, with a live session."""

    http: httpx2.AsyncClient
    app: AuthApp
    email: str = "ada@example.com"
    password: str = PASSWORDS[0]
    sid: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=lambda: {CANARY})

    async def log_in(self) -> None:
        """Begin another session, whatever became of the last one and of the password."""
        for password in PASSWORDS:
            body = {"email": self.email, "password": password, "delivery": "body"}
            answer = await self.http.post("/v1/login", json=body)
            if answer.status_code == 200:
                self.password, self.tokens = password, answer.json()
                break
        self.secrets |= {value for name, value in self.tokens.items() if name.endswith("_token")}
        sessions = (await self.http.get("/v1/sessions", headers=self.bearer)).json()["sessions"]
        self.sid = next(each["id"] for each in sessions if each["current"])

    @property
    def credential(self) -> dict[str, str]:
        return {"refresh_token": self.tokens["refresh_token"]}

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens['access_token']}"}

    @property
    def cookies(self) -> dict[str, str]:
        """What a browser of theirs would hold."""
        issuer = self.app.settings.issuer
        session = f"{cookie_name(issuer)}={self.tokens['refresh_token']}"
        return {"cookie": f"{session}; {visitor_cookie_name(issuer)}={VISITOR}"}

    @property
    def session_form(self) -> str:
        return self._form(f"session {self.sid}")

    @property
    def visitor_form(self) -> str:
        return self._form(f"visitor {VISITOR}")

    def _form(self, holder: str) -> str:
        return self.app.start().keys.factors.make_form_token(holder, random=secrets.token_bytes)

    @property
    def change(self) -> dict[str, str]:
        other = PASSWORDS[self.password == PASSWORDS[0]]
        return self.credential | {"current_password": self.password, "new_password": other}


Body = Callable[[Person], dict[str, Any]]


def nothing(_: Person) -> dict[str, Any]:
    return {}


def leaving(who: Person) -> dict[str, str]:
    return {"current_password": who.password, **who.credential}


def on_page(who: Person) -> dict[str, str]:
    return {"current_password": who.password, "form_token": who.session_form}


# The body of one good request for each route.
GOOD: Final[dict[tuple[str, str], Body]] = {
    ("POST", "/v1/signup"): lambda who: {"email": "new@example.com", "password": PASSWORDS[0]},
    ("POST", "/v1/signup/confirm"): lambda who: {"code": CODE, "password": who.password},
    ("POST", "/v1/password/forgot"): lambda who: {"email": who.email},
    ("POST", "/v1/password/reset"): lambda who: {"code": CODE, "new_password": PASSWORDS[0]},
    ("POST", "/v1/email"): lambda who: {"new_email": "b@example.com"} | leaving(who),
    ("POST", "/v1/email/confirm"): lambda who: {"code": CODE},
    ("POST", "/v1/email/undo"): lambda who: {"code": CODE},
    ("DELETE", "/v1/account"): leaving,
    ("POST", "/v1/login"): lambda who: {"email": who.email, "password": who.password, "delivery": "body"},
    ("POST", "/v1/login/second-factor"): lambda _: {"ticket": CODE, "code": "123456", "delivery": "body"},
    ("POST", "/v1/login/passkey/options"): nothing,
    ("POST", "/v1/login/passkey"): lambda _: {"passkey": {"id": CODE}, "delivery": "body"},
    ("GET", "/v1/factors"): nothing,
    ("POST", "/v1/factors/totp"): leaving,
    ("POST", "/v1/factors/totp/confirm"): lambda who: {"code": "123456", **who.credential},
    ("DELETE", "/v1/factors/totp"): leaving,
    ("POST", "/v1/factors/undo"): lambda who: {"code": CODE, "password": who.password},
    ("POST", "/v1/password/undo"): lambda who: {"code": CODE, "password": who.password},
    ("POST", "/v1/factors/recovery-codes"): leaving,
    ("POST", "/v1/factors/passkeys/options"): leaving,
    ("POST", "/v1/factors/passkeys"): lambda who: {"passkey": {"id": CODE}, "name": "Phone", **who.credential},
    ("DELETE", "/v1/factors/passkeys/{id}"): leaving,
    ("POST", "/v1/refresh"): lambda who: who.credential,
    ("POST", "/v1/logout"): lambda who: who.credential,
    ("POST", "/v1/logout/everywhere"): lambda who: who.credential,
    ("GET", "/v1/sessions"): nothing,
    ("DELETE", "/v1/sessions/{id}"): lambda who: who.credential,
    ("POST", "/v1/password"): lambda who: who.change,
    ("GET", "/v1/account"): nothing,
    ("POST", "/oauth/token"): lambda who: {"grant_type": "refresh_token", **who.credential},
    ("GET", "/revocations"): nothing,
    ("GET", "/revocations/stream"): nothing,
    ("GET", "/client/v1.js"): nothing,
    ("GET", "/metrics"): nothing,
    ("GET", "/healthz"): nothing,
    ("GET", "/readyz"): nothing,
    ("GET", "/pages/style.css"): nothing,
    ("GET", "/pages/strength.js"): nothing,
    ("GET", "/pages/passkeys.js"): nothing,
    ("GET", "/login"): nothing,
    ("POST", "/login"): lambda who: {"email": who.email, "password": who.password, "form_token": who.visitor_form},
    ("GET", "/login/second-factor"): nothing,
    ("POST", "/login/second-factor"): lambda who: {"ticket": CODE, "code": "123456", "form_token": who.visitor_form},
    ("POST", "/login/passkey"): lambda who: {"passkey": CODE, "form_token": who.visitor_form},
    ("GET", "/signup"): nothing,
    ("POST", "/signup"): lambda who: {
        "email": "new@example.com",
        "new_password": PASSWORDS[0],
        "form_token": who.visitor_form,
    },
    ("GET", "/signup/sent"): nothing,
    ("GET", "/logged-out"): nothing,
    ("GET", "/account"): nothing,
    ("GET", "/account/address"): nothing,
    ("POST", "/account/address"): lambda who: {"new_email": "b@example.com", **on_page(who)},
    ("GET", "/account/password"): nothing,
    ("POST", "/account/password"): lambda who: {"new_password": who.change["new_password"], **on_page(who)},
    ("GET", "/account/app"): nothing,
    ("POST", "/account/app"): on_page,
    ("POST", "/account/app/confirm"): lambda who: {"code": "123456", **on_page(who)},
    ("GET", "/account/app/remove"): nothing,
    ("POST", "/account/app/remove"): on_page,
    ("GET", "/account/recovery-codes"): nothing,
    ("POST", "/account/recovery-codes"): on_page,
    ("GET", "/account/passkeys"): nothing,
    ("POST", "/account/passkeys"): lambda who: {"name": "Phone", **on_page(who)},
    ("POST", "/account/passkeys/add"): lambda who: {"name": "Phone", "passkey": CODE, **on_page(who)},
    ("GET", "/account/passkeys/{id}"): nothing,
    ("POST", "/account/passkeys/{id}"): on_page,
    ("POST", "/account/sessions/{id}"): on_page,
    ("POST", "/account/logout"): on_page,
    ("POST", "/account/logout-everywhere"): on_page,
    ("GET", "/account/delete"): nothing,
    ("POST", "/account/delete"): on_page,
    ("GET", "/signup/confirm"): nothing,
    ("POST", "/signup/confirm"): lambda who: {"code": CODE, "password": who.password},
    ("GET", "/password/forgot"): nothing,
    ("POST", "/password/forgot"): lambda who: {"email": who.email},
    ("GET", "/password/reset"): nothing,
    ("POST", "/password/reset"): lambda who: {"code": CODE, "new_password": PASSWORDS[0]},
    ("GET", "/email/confirm"): nothing,
    ("POST", "/email/confirm"): lambda who: {"code": CODE},
    ("GET", "/email/undo"): nothing,
    ("POST", "/email/undo"): lambda who: {"code": CODE},
    ("GET", "/factors/undo"): nothing,
    ("GET", "/password/undo"): nothing,
    ("POST", "/password/undo"): lambda who: {"code": CODE, "password": who.password},
    ("POST", "/factors/undo"): lambda who: {"code": CODE, "password": who.password},
}
CODE: Final = "A" * 43
"""Of the form of a code, and none that works."""


def test_every_route_has_a_good_request() -> None:
    assert {(route.method, route.path) for route in ROUTES} == set(GOOD)


def needs_code(route: Route) -> bool:
    """Whether nobody without a mail can use it."""
    return route.path.rpartition("/")[2] in ("confirm", "undo", "reset")


def needs_factor(route: Route) -> bool:
    """Whether nobody without an app or an authenticator can use it."""
    last = route.path.removeprefix("/v1/factors/").removeprefix("/v1/login/")
    if route.page:
        return last in (
            "/login/second-factor",
            "/login/passkey",
            "/account/app/confirm",
            "/account/app/remove",
            "/account/recovery-codes",
            "/account/passkeys/add",
            "/account/passkeys/{id}",
        )
    return last in ("second-factor", "passkey", "passkeys", "passkeys/{id}", "totp/confirm", "recovery-codes") or (
        route.method == "DELETE" and last == "totp"
    )


def refused_headers(settings: Settings) -> Iterator[dict[str, str]]:
    """Headers with which no route that wants a credential lets anybody pass, and others that it should not mind."""
    names = (cookie_name(settings.issuer), device_cookie_name(settings.issuer))
    cookie = {"cookie": f"{names[0]}={TOKEN}; {names[1]}={DEVICE}; other={CANARY}"}
    yield PLANTED | {"authorization": f"Bearer {JWT}"}
    yield PLANTED | {"authorization": f"Basic {CANARY}"}
    yield PLANTED | cookie | BROWSER
    yield PLANTED | {"origin": f"https://{CANARY}.example", "sec-fetch-site": CANARY}
    yield PLANTED | {"content-type": CANARY}
    yield PLANTED | {"last-event-id": CANARY}


def refused_bodies(who: Person) -> Iterator[dict[str, str]]:
    yield {CANARY: CANARY}
    yield {"refresh_token": TOKEN, "grant_type": "refresh_token"}
    yield {"refresh_token": TOKEN}
    yield {"grant_type": CANARY, "scope": CANARY, "client_id": CANARY}
    yield {"email": CANARY, "password": CANARY, "delivery": "body"}
    yield {"email": f"{CANARY}@example.com", "password": CANARY + " is not it", "delivery": "body"}
    yield {"email": who.email, "password": CANARY + " is not it", "delivery": "body"}
    yield {"email": who.email, "password": CANARY}
    yield {"email": who.email, "password": CANARY, "delivery": "body", "device_token": DEVICE}
    yield who.change | {"current_password": CANARY + " is not it"}
    yield who.change | {"new_password": CANARY}


# How a line is written is nothing to a page: the API's routes stand for all there.
@pytest.mark.parametrize(
    ("route", "form"),
    [(route, form) for route in ROUTES for form in ("json", "console") if form == "json" or not route.page],
    ids=lambda value: value if isinstance(value, str) else f"{value.method}-{value.path}",
)
async def test_no_secret_of_a_request_comes_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, route: Route, form: str
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings(
        signup="open",
        data_dir=tmp_path / "data",
        hash_workers=1,
        log_format=form,
        metrics_token=Secret(OPERATORS),
        verifier_tokens=(Secret(OPERATORS + "-too"),),
    )
    app = create_app(settings, clock=Clock())
    async with app.lifespan(), client_of(app) as http:
        who = Person(http, app)
        await http.post("/v1/signup", json={"email": who.email, "password": who.password})
        await who.log_in()

        async def ask(body: dict[str, Any], headers: dict[str, str], sid: str, query: str = QUERY) -> httpx2.Response:
            content: dict[str, Any] = (
                {} if route.method == "GET" else {"data" if route.form or route.page else "json": body}
            )
            path = route.path.replace("{id}", sid)
            answer = await http.request(route.method, path + query, headers=headers, **content)
            check(answer, who.secrets)
            return answer

        for headers in refused_headers(settings):
            answer = await ask(GOOD[route.method, route.path](who), headers, CANARY)
            if route.page and route.credential != "none":
                assert is_refused(answer)
            elif answer.status_code < 400 and route.credential != "none":
                await http.post("/v1/signup", json={"email": who.email, "password": who.password})  # if it is gone
                await who.log_in()
        for body in refused_bodies(who) if route.method != "GET" else ():
            if route.page and route.credential == "none":  # or nothing of it would be looked at
                answer = await ask(body | {"form_token": who.visitor_form}, PLANTED | who.cookies, CANARY)
            else:
                answer = await ask(body, PLANTED, CANARY)
            # A form that asks for nothing but an address takes any, and tells nobody whether it knows it.
            assert is_refused(answer) or route.path in ("/password/forgot", "/v1/login/passkey/options")
        if route.media_type != "text/event-stream":  # which has no end
            authorization = {} if route.credential == "none" else who.bearer
            if route.page:
                authorization = who.cookies
            if route.path == "/metrics" or route.limit == "feed":
                program = OPERATORS if route.path == "/metrics" else OPERATORS + "-too"
                authorization = {"authorization": f"Bearer {program}"}
            answer = await ask(GOOD[route.method, route.path](who), PLANTED | authorization, who.sid, "")
            assert answer.status_code in (
                route.success,
                409,
                *((400, 422) if needs_code(route) else ()),
                *((401, 404, 422) if needs_factor(route) else ()),
            ), answer.text
            # Who asks for tokens gets them; nothing else tells any, a metric least of all.
            gives_tokens = route.output in (TokenAnswer, FactorAddedAnswer)
            assert gives_tokens or not [each for each in who.secrets if each in answer.text]
        trail = repr(await app.start().store.audit_after(0, limit=10_000))
    assert "account_created" in trail
    assert [each for each in caplog.records if each.name == "jotgate"]
    # The test's own client logs where it went.
    told = [f"{each.getMessage()} {each.exc_text}" for each in caplog.records if not each.name.startswith("httpx2")]
    for secret in who.secrets:
        assert secret not in trail
        assert not [each for each in told if secret in each]
    check_lines(caplog)
    check_database(tmp_path)


def is_refused(answer: httpx2.Response) -> bool:
    """Whether nothing was done; pages send on to the login."""
    return answer.status_code >= 400 or answer.headers.get("location", "").startswith("/login?")


def check(answer: httpx2.Response, secrets: set[str]) -> None:
    """What is told in headers and in errors; a good answer may hold the tokens that were asked for."""
    assert len(answer.headers["x-request-id"]) == 16
    for name, value in answer.headers.items():
        assert name == "set-cookie" or not any(secret in value for secret in secrets)
    if answer.status_code >= 400:
        assert not any(secret in answer.text for secret in secrets)


def check_lines(caplog: pytest.LogCaptureFixture) -> None:
    for record in caplog.records:
        if record.name == "jotgate":
            assert record.getMessage().isascii()
            assert record.getMessage().isprintable()


def check_database(folder: Path) -> None:
    """What was written when the server stopped, too."""
    for file in (folder / "data").glob("jotgate.sqlite3*"):
        assert CANARY.encode() not in file.read_bytes()
