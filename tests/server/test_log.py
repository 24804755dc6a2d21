"""Nothing secret reaches the log, whatever happens."""

import io
import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest
from structlog.contextvars import bound_contextvars

from jotgate.server import Settings, create_app
from jotgate.server.log import get_log
from tests.server.http.support import BROWSER, Clock, client_of

CANARY = "kanarienvogel-im-schacht"


async def test_a_whole_story_leaves_no_secret_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def failing_hook(_: object) -> dict[str, str]:
        raise RuntimeError(CANARY)

    secrets = [CANARY]
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1)
    clock = Clock()
    app = create_app(settings, clock=clock)
    form = {"email": "ada@example.com", "password": CANARY}
    async with app.lifespan(), client_of(app) as http:
        await http.post("/v1/signup", json=form)
        await http.post("/v1/signup", json=form)
        answers = [(await http.post("/v1/login", json=form | {"delivery": "body"})).json()]
        await http.post("/v1/login", json=form | {"password": CANARY + "x", "delivery": "body"})
        await http.post("/v1/login", json=form, headers=BROWSER)
        secrets += list(http.cookies.values())
        await http.post("/v1/refresh", headers=BROWSER)
        secrets += list(http.cookies.values())
        http.cookies.clear()
        for _ in range(2):
            answers.append(
                (await http.post("/v1/refresh", json={"refresh_token": answers[-1]["refresh_token"]})).json()
            )
        clock.now += 11
        await http.post("/v1/refresh", json={"refresh_token": answers[0]["refresh_token"]})
        await http.get("/v1/account", headers={"authorization": f"Bearer {answers[0]['access_token']}"})
        await http.post("/v1/logout", json={"refresh_token": answers[-1]["refresh_token"]})
        answers += [(await http.post("/v1/login", json=form | {"delivery": "body"})).json() for _ in range(3)]
        mine = answers[-1]
        credential = {"refresh_token": mine["refresh_token"]}
        for current, new in ((CANARY + "x", CANARY + "y"), (CANARY, CANARY), (CANARY, CANARY + "y")):
            answer = await http.post(
                "/v1/password", json=credential | {"current_password": current, "new_password": new}
            )
        mine = answer.json()
        answers.append(mine)
        credential = {"refresh_token": mine["refresh_token"]}
        form["password"] = CANARY + "y"
        answers += [(await http.post("/v1/login", json=form | {"delivery": "body"})).json() for _ in range(2)]
        other = answers[-1]
        bearer = {"authorization": f"Bearer {mine['access_token']}"}
        sessions = (await http.get("/v1/sessions", headers=bearer)).json()["sessions"]
        ended = next(each["id"] for each in sessions if not each["current"])
        for sid in (ended, "A" * 22):
            await http.request("DELETE", f"/v1/sessions/{sid}", json=credential)
        await http.post("/v1/logout/everywhere", json={"refresh_token": other["refresh_token"]})
        await http.post("/v1/logout/everywhere", json=credential)
        await http.post("/v1/refresh", json={"refresh_token": CANARY})
        await http.get("/v1/account", headers={"authorization": f"Bearer {CANARY}"})
    broken = create_app(settings, clock=clock, claims_for=failing_hook)
    async with broken.lifespan(), client_of(broken) as http:
        assert (await http.post("/v1/login", json=form | {"delivery": "body"})).status_code == 500
    secrets += [value for answer in answers for name, value in answer.items() if name.endswith("_token")]
    secrets += [(tmp_path / "data" / "master.key").read_text().strip()]

    ours = [record for record in caplog.records if record.name == "jotgate"]
    events = {json.loads(record.getMessage())["event"] for record in ours}
    assert events >= {
        "account_created",
        "claims_for_failed",
        "login",
        "login_refused",
        "logout_everywhere",
        "password_change_refused",
        "password_changed",
        "refresh_reused",
        "refreshed",
        "session_revoked",
    }
    for secret in secrets:
        assert secret not in caplog.text
    assert "ada@example.com" not in caplog.text


SECRETS = {
    "jwt": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
    "refresh": "x jgr_" + "A" * 80,
    "header": "Authorization: Bearer abc.def",
    "phc": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA",
}
LEFT_OF_THEM = ("c2lnbmF0dXJl", "AAAA", "abc.def", "aGFzaA")
EVIL = "a\r\nb\x1b[31m\x00\x07\x7f\x85\x9b2J\u2028\u202e\u200b fake=1"


class Odd:
    """Something that nobody foresaw in a log."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(CANARY)


def written(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = [record.getMessage() for record in caplog.records if record.name == "jotgate"]
    return line


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_looks_like_a_secret_is_masked_however_deep_it_lies(caplog: pytest.LogCaptureFixture, form: str) -> None:
    caplog.set_level(logging.INFO)
    values = list(SECRETS.values())
    get_log(form).info(
        values[0],
        **SECRETS,
        nested={"a": [values, {values[1]: tuple(values)}], "set": set(values)},
        odd=Odd(values[2]),
        path=Path(values[0]),
        error=ValueError(*values),
        raw=values[1].encode(),
        deep=[[[[[[[[[values]]]]]]]]],
        broken=Broken(),
        **{values[1]: 1},
    )
    line = written(caplog)
    for secret in (*LEFT_OF_THEM, CANARY):
        assert secret not in line
    assert line.count("[hidden]") > 20


@pytest.mark.parametrize("form", ["json", "console"])
def test_arguments_in_the_way_of_the_standard_library_are_masked_too(
    caplog: pytest.LogCaptureFixture, form: str
) -> None:
    caplog.set_level(logging.INFO)
    get_log(form).bind(bound=SECRETS["jwt"]).info("said %s", SECRETS["header"])
    assert not [each for each in LEFT_OF_THEM if each in written(caplog)]


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_ends_a_line_or_steers_a_terminal(caplog: pytest.LogCaptureFixture, form: str) -> None:
    caplog.set_level(logging.INFO)
    with bound_contextvars(request_id=EVIL):
        get_log(form).info(EVIL, value=EVIL, nested=[{EVIL: EVIL}], odd=Odd(EVIL), **{EVIL: EVIL})
    line = written(caplog)
    assert line.isascii()
    assert line.isprintable()


def test_json_is_what_it_was_made_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    get_log("json").warning("odd", text=EVIL, number=7, nothing=None, truth=True, part=0.5, no_number=float("nan"))
    told = json.loads(written(caplog))
    assert {name: told[name] for name in told if name != "timestamp"} == {
        "level": "warning",
        "event": "odd",
        "text": EVIL,
        "number": 7,
        "nothing": None,
        "truth": True,
        "part": 0.5,
        "no_number": "nan",
    }


def test_people_read_the_time_the_level_the_event_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    get_log("console").info("login", account="a-1", number=7, reason='two "words"', empty="", forged="x level=error")
    at, _, rest = written(caplog).partition(" ")
    assert datetime.fromisoformat(at).tzinfo is not None
    expected = r'account=a-1 number=7 reason="two \"words\"" empty="" forged="x level=error"'
    assert rest == f"info     login {expected}"


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("form", ["auto", "json", "console"])
def test_a_person_at_a_terminal_gets_the_form_to_read_unless_told_otherwise(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    watched: bool,
    form: str,
) -> None:
    caplog.set_level(logging.INFO)
    terminal = io.StringIO()
    terminal.isatty = lambda: watched  # type: ignore[method-assign]  # a terminal, as far as the log asks
    monkeypatch.setattr(sys, "stderr", terminal)
    get_log(form).info("seen")
    assert written(caplog).startswith("{") is (form == "json" or (form == "auto" and not watched))


def test_a_standard_error_that_is_closed_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        caplog.clear()
        monkeypatch.setattr(sys, "stderr", stream)
        get_log().info("seen")
        assert json.loads(written(caplog))["event"] == "seen"
