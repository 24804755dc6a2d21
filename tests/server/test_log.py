"""Nothing secret reaches the log, whatever happens."""

import json
import logging
from pathlib import Path

import pytest

from jotgate.server import Settings, create_app
from jotgate.server.log import get_log
from tests.server.http.support import BROWSER, Clock, client_of

CANARY = "kanarienvogel-im-schacht"


async def test_a_whole_story_leaves_no_secret_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    def failing_hook(_: object) -> dict[str, str]:
        raise RuntimeError(CANARY)

    secrets = [CANARY]
    settings = Settings(data_dir=tmp_path / "data", hash_workers=1)
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


def test_what_looks_like_a_secret_is_masked_and_lines_stay_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    get_log().info(
        "odd",
        jwt="eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
        refresh="x jgr_" + "A" * 80,
        header="Authorization: Bearer abc.def",
        phc="$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA",
        crlf="a\r\nb\x1b[31m",
    )
    (line,) = [record.getMessage() for record in caplog.records if record.name == "jotgate"]
    for secret in ("c2lnbmF0dXJl", "AAAA", "abc.def", "aGFzaA", "\n", "\r", "\x1b"):
        assert secret not in line
    assert json.loads(line)["crlf"] == "a\r\nb\x1b[31m"
