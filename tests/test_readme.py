"""The README shows what works: its endpoint runs, and its curl session gives the output that stands there."""

import asyncio
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from msgspec.structs import fields
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import jotgate
import jotgate.throttle
from jotgate import KeySet, Revocation
from jotgate.cli.program import run
from jotgate.core.revocations import RevocationList
from jotgate.integrations.fastapi import Auth
from jotgate.server import Settings
from jotgate.server.http.routes import ROUTES
from jotgate.server.passwords import Passwords
from jotgate.server.store.sqlite import SqliteStore
from jotgate.testing import TestAuth
from jotgate.throttle import MemoryStore
from jotgate.verifier import Snapshot
from tests.conftest import jotgate_command

if TYPE_CHECKING:
    from tests.conftest import Need, RunningServer

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MARK = "@@@@ command %d @@@@"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_it_begins_with_what_it_is_then_the_two_commands() -> None:
    _, what, *_ = README.split("\n\n")
    assert what.count(". ") == 1, "two sentences"
    commands = [block.strip() for block in blocks("sh")[:2]]
    assert [command.splitlines()[-1] for command in commands] == ["make demo", "make test"]
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in commands:
        assert f"\n{command.split()[-1]}:" in makefile


def test_every_setting_is_in_the_table() -> None:
    table = set(re.findall(r"^\| `JOTGATE_(\w+)` \|", README, re.MULTILINE))
    assert table == {each.name.upper() for each in fields(Settings)}


def test_every_endpoint_is_in_the_table() -> None:
    for route in ROUTES:
        assert route.page or route.path in README


def test_the_mounting_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = next(block for block in blocks("python") if "create_app" in block)
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    with TestClient(names["app"], base_url="https://localhost:8443") as client:
        metadata = client.get("/.well-known/oauth-authorization-server/auth").json()
        assert client.get("/auth/healthz").status_code == 200
    assert metadata["issuer"] == "https://localhost:8443/auth"


def test_the_protected_endpoint_is_short_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    source = blocks("python")[0]
    assert len(source.strip().splitlines()) < 15
    kit = TestAuth(issuer="https://localhost:8443/auth", audience="shop")
    # The README's verifier finds its keys over the network; here the same endpoint trusts the test issuer.
    monkeypatch.setattr(jotgate, "Verifier", lambda **_: kit.verifier, raising=False)
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    app = names["app"]
    assert isinstance(app, FastAPI)
    with kit.client(app) as client:
        answer = client.get("/orders", headers=kit.bearer("ada", scopes=["orders:read"]))
        assert (answer.status_code, answer.json()) == (200, {"customer": "ada"})
        assert client.get("/orders").status_code == 401
        assert client.get("/orders", headers=kit.bearer("ada", scopes=["other"])).status_code == 403


def check_shown(answer: httpx2.Response, about: str) -> None:
    """Check an answer against the one that the README shows and in which this text stands."""
    (shown,) = (block for block in blocks("http") if about in block)
    head, body = shown.rstrip().split("\n\n")
    first, *fields = head.splitlines()
    assert first == f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"
    for field in fields:
        name, _, value = field.partition(": ")
        assert answer.headers[name] == value
    assert answer.text == body


def test_a_route_that_demands_more_of_a_login_answers_as_the_readme_shows() -> None:
    kit = TestAuth(audience="shop")
    app = FastAPI()
    names: dict[str, Any] = {"app": app, "auth": Auth(kit.verifier), "Depends": Depends, "Claims": jotgate.Claims}
    (code,) = (block for block in blocks("python") if "max_age_s" in block)
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    good: dict[str, Any] = {"scopes": ["orders:write"], "auth_time": kit.clock(), "methods": ["pwd", "otp", "mfa"]}
    with kit.client(app) as client:
        answer = client.post("/refunds", headers=kit.bearer("ada", **good))
        assert (answer.status_code, answer.json()) == (200, {"refunded_by": "ada"})
        for name, value in (("auth_time", kit.clock() - 600), ("auth_time", None), ("methods", ["pwd"])):
            lacking = {name: value}
            check_shown(client.post("/refunds", headers=kit.bearer("ada", **good | lacking)), "max_age")


def test_the_limits_answer_as_the_readme_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = TestAuth(audience="shop")
    # The README's store goes by the real time, of which a slow machine would see some pass.
    monkeypatch.setattr(jotgate.throttle, "MemoryStore", lambda: MemoryStore(clock=kit.clock))
    app = FastAPI()
    names: dict[str, Any] = {"app": app, "auth": Auth(kit.verifier), "Depends": Depends}
    for code in (block for block in blocks("python") if "jotgate.throttle" in block):
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    with kit.client(app) as client:
        answers = [client.get("/report", headers=kit.bearer("ada")) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        assert client.get("/search", headers=kit.bearer("ada")).status_code == 429
        assert client.get("/search", headers=kit.bearer("bob")).headers["ratelimit"] == '"100/60s";r=99;t=60'
    check_shown(answers[-1], "quota")


class Source:
    """Keys and revocations of this process, as a server in it has them."""

    def __init__(self, keys: KeySet) -> None:
        self._keys, self._list = keys, RevocationList()
        self._listeners: list[Callable[[Sequence[Revocation]], None]] = []

    def snapshot(self) -> Snapshot:
        return Snapshot(keys=self._keys, revocations=self._list.revocations)

    def subscribe(self, listener: Callable[[Sequence[Revocation]], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def revoke(self, session: str) -> None:
        new = self._list.add([Revocation("session", (session,))], keep_until=2**40)
        for listener in self._listeners:
            listener(new)


def test_the_websocket_example_closes_the_sockets_of_sessions_that_end() -> None:
    kit = TestAuth(audience="shop")
    source = Source(kit.keys)
    verifier = jotgate.Verifier(issuer=kit.verifier.issuer, audience="shop", source=source, clock=kit.clock)
    app = FastAPI()
    names: dict[str, Any] = {"app": app, "auth": Auth(verifier), "verifier": verifier}
    names |= {"Claims": jotgate.Claims, "Depends": Depends}
    code = next(block for block in blocks("python") if "on_revoked" in block)
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the README's own code
    mine, other = (kit.bearer(who, scopes=["chat"], session=f"{who}'s") for who in ("ada", "bob"))
    with (
        ThreadPoolExecutor(1) as waiting,
        kit.client(app) as client,
        client.websocket_connect("/chat", headers=mine) as socket,
        client.websocket_connect("/chat", headers=other) as bystander,
    ):
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
        source.revoke("ada's")
        with pytest.raises(WebSocketDisconnect) as ended:
            waiting.submit(socket.receive_text).result(30)
        assert ended.value.code == 1008
        bystander.send_text("still here")
        assert bystander.receive_text() == "still here"
    assert names["sockets"] == {}


def test_the_doctor_says_what_the_readme_shows(running_shop: "RunningServer", tmp_path: Path) -> None:
    session = next(block for block in blocks("console") if "doctor" in block)
    command, _, expected = session.partition("\n")
    command = command.removeprefix("$ jotgate ").replace("https://localhost:8443", running_shop.url)
    command = command.replace("jotgate-demo/", f"{running_shop.data_dir}/")
    done = subprocess.run(
        [*jotgate_command(), *command.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    output = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    assert re.fullmatch(pattern, output, re.DOTALL), output


def test_the_curl_session_gives_the_output_that_the_readme_shows(
    running_shop: "RunningServer", need: "Need", tmp_path: Path
) -> None:
    need("curl")
    session = next(block for block in blocks("console") if "curl" in block)
    shown: list[tuple[str, str]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            shown.append((line[2:], ""))
        elif line.startswith("> "):
            shown[-1] = (f"{shown[-1][0]}\n{line[2:]}", "")
        else:
            shown[-1] = (shown[-1][0], f"{shown[-1][1]}{line}\n")
    assert len(shown) >= 6
    script = "".join(f"{command}\necho '{MARK % number}'\n" for number, (command, _) in enumerate(shown))
    script = script.replace("https://localhost:8443", running_shop.url)
    script = script.replace("jotgate-demo/", f"{running_shop.data_dir}/")
    done = subprocess.run(
        ["bash", "-eu"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    rest = done.stdout
    for number, (command, expected) in enumerate(shown):
        output, _, rest = rest.partition(MARK % number + "\n")
        pattern = '[^"]*'.join(re.escape(part) for part in expected.split("…"))
        assert re.fullmatch(pattern, output), f"$ {command}\nshows\n{expected}\nand gives\n{output}"


def test_the_line_of_an_existing_user_is_taken_and_its_password_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = (block for block in blocks("json") if "password_hash" in block)
    store = SqliteStore(tmp_path / "data" / "jotgate.sqlite3")
    store.open()
    monkeypatch.delenv("JOTGATE_VECTORS", raising=False)
    (tmp_path / "users.jsonl").write_text(line)
    assert run(("accounts", "import", str(tmp_path / "users.jsonl"), "--data", str(tmp_path / "data"))) == 0
    assert capsys.readouterr().out == "1 added, 0 there already, 0 not taken\n"
    account = asyncio.run(store.account_by_email("ada@example.com"))
    store.close_now()
    assert account is not None
    passwords = Passwords(1)
    assert asyncio.run(passwords.verify(account.password_hash, "correct horse battery staple"))
    passwords.close()
