"""`jotgate accounts` and `jotgate keys`, on the folder of a server that runs meanwhile."""

import getpass
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from jotgate.cli import administration
from tests.cli.conftest import Jotgate
from tests.conftest import PASSWORD, RunningServer, jotgate_command, log_in, sign_up


@pytest.fixture
def email(new_email: Callable[[], str]) -> str:
    return new_email()


def test_an_added_account_logs_in_at_the_running_server(
    jotgate: Jotgate, running_server: RunningServer, email: str
) -> None:
    ran = jotgate("accounts", "add", email, "--data", str(running_server.data_dir), stdin=f"{PASSWORD}\n".encode())
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"added {email} (id ")
    assert ran.out.endswith("with account:read\n")
    with running_server.client() as client:
        assert log_in(client, email)["scope"] == "account:read"


@pytest.mark.parametrize("typed", [f"{PASSWORD}\r\n", PASSWORD, f"{PASSWORD}\nand another line\n"])
def test_the_first_line_of_standard_input_is_the_password(
    jotgate: Jotgate, running_server: RunningServer, email: str, typed: str
) -> None:
    ran = jotgate("accounts", "add", email, "--data", str(running_server.data_dir), "--json", stdin=typed.encode())
    assert json.loads(ran.out)["email"] == email
    with running_server.client() as client:
        log_in(client, email)


@pytest.mark.parametrize(
    ("address", "password", "sentence"),
    [
        ("no address", PASSWORD, "not a valid e-mail address"),
        ("short@shop.example", "short", "needs at least 15 characters"),
        ("empty@shop.example", "", "needs at least 15 characters"),
        ("long@shop.example", "x" * 5000, "longer than 1024 bytes"),
    ],
)
def test_what_sign_up_refuses_is_refused_here_in_one_sentence(
    jotgate: Jotgate, running_server: RunningServer, address: str, password: str, sentence: str
) -> None:
    ran = jotgate("accounts", "add", address, "--data", str(running_server.data_dir), stdin=password.encode())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_a_password_that_is_no_text_is_refused(jotgate: Jotgate, running_server: RunningServer, email: str) -> None:
    ran = jotgate("accounts", "add", email, "--data", str(running_server.data_dir), stdin=b"\xff" * 20 + b"\n")
    assert (ran.status, ran.err) == (1, "error: Text must be valid Unicode.\n")


def test_an_address_is_taken_once_whatever_its_case(
    jotgate: Jotgate, running_server: RunningServer, email: str
) -> None:
    folder = str(running_server.data_dir)
    for address, status in ((email, 0), (email.upper(), 1)):
        assert jotgate("accounts", "add", address, "--data", folder, stdin=PASSWORD.encode()).status == status


def test_a_password_on_the_command_line_is_not_taken(jotgate: Jotgate, tmp_path: Path) -> None:
    ran = jotgate("accounts", "add", "a@shop.example", PASSWORD, "--data", str(tmp_path / "data"))
    assert ran.status == 2
    assert "password" not in jotgate("accounts", "add", "--help").out.partition("Options")[2].lower()
    assert not (tmp_path / "data").exists()


def test_a_password_that_is_guessed_first_is_refused_before_anything_is_made(jotgate: Jotgate, tmp_path: Path) -> None:
    for line in (b"passwordpassword", b"grace-shop.example"):
        ran = jotgate("accounts", "add", "grace@shop.example", "--data", str(tmp_path / "data"), stdin=line)
        assert ran.status == 1
        assert "guessed first" in ran.err
    assert not (tmp_path / "data").exists()


def test_a_prompted_password_is_asked_for_twice(
    jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([PASSWORD, PASSWORD + "!"])
    monkeypatch.setattr(administration, "_on_terminal", lambda: True)
    monkeypatch.setattr(getpass, "getpass", lambda _: next(typed))
    ran = jotgate("accounts", "add", "a@shop.example", "--data", str(tmp_path / "data"))
    assert (ran.status, ran.err) == (1, "error: the two passwords differ; nothing was changed\n")
    assert not (tmp_path / "data").exists()


def test_a_granted_scope_comes_with_the_next_refresh_and_goes_when_revoked(
    jotgate: Jotgate, running_server: RunningServer, email: str
) -> None:
    folder = ["--data", str(running_server.data_dir)]
    with running_server.client() as client:
        sign_up(client, email)
        tokens = log_in(client, email)
        assert jotgate("accounts", "grant", email, "orders:read", *folder).out == (
            f"{email} now has account:read orders:read\n"
        )
        refreshed = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
        assert refreshed["scope"] == "account:read orders:read"
        taken = jotgate("accounts", "revoke", email, "orders:read", "--json", *folder)
        assert json.loads(taken.out)["scopes"] == ["account:read"]
        assert log_in(client, email)["scope"] == "account:read"


def test_granting_twice_is_granting_once(jotgate: Jotgate, running_server: RunningServer, email: str) -> None:
    folder = ["--data", str(running_server.data_dir)]
    with running_server.client() as client:
        sign_up(client, email)
    for _ in range(2):
        ran = jotgate("accounts", "grant", email, "admin", "--json", *folder)
        assert json.loads(ran.out)["scopes"] == ["account:read", "admin"]


@pytest.mark.parametrize(
    ("address", "scope", "sentence"),
    [
        ("nobody@shop.example", "admin", "there is no account with the address nobody@shop.example"),
        ("nobody", "admin", "not a valid e-mail address"),
        ("nobody@shop.example", "two words", "A scope is printable ASCII without spaces"),
    ],
)
@pytest.mark.parametrize("verb", ["grant", "revoke"])
def test_a_change_that_cannot_be_is_refused_in_one_sentence(
    jotgate: Jotgate, running_server: RunningServer, verb: str, address: str, scope: str, sentence: str
) -> None:
    ran = jotgate("accounts", verb, address, scope, "--data", str(running_server.data_dir))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert sentence in ran.err


def test_accounts_are_listed_in_order_page_by_page(jotgate: Jotgate, tmp_path: Path) -> None:
    folder = ["--data", str(tmp_path / "data")]
    names = ["cleo@shop.example", "ada@shop.example", "bob@shop.example"]
    for name in names:
        assert jotgate("accounts", "add", name, *folder, stdin=PASSWORD.encode()).status == 0
    first = jotgate("accounts", "list", "--limit", "2", *folder)
    assert [line.split()[:2] for line in first.out.splitlines()] == [
        ["e-mail", "scopes"],
        ["ada@shop.example", "account:read"],
        ["bob@shop.example", "account:read"],
    ]
    assert first.err == "There may be more: --after bob@shop.example\n"
    rest = jotgate("accounts", "list", "--limit", "2", "--after", "bob@shop.example", "--json", *folder)
    assert [each["email"] for each in json.loads(rest.out)] == ["cleo@shop.example"]
    assert set(json.loads(rest.out)[0]) == {"id", "email", "scopes", "created_at", "disabled_at"}


def test_a_list_is_not_cut_off_where_a_terminal_would_end(jotgate: Jotgate, tmp_path: Path) -> None:
    folder = ["--data", str(tmp_path / "data")]
    long = f"{'a' * 60}@{'b' * 60}.example"
    jotgate("accounts", "add", long, *folder, stdin=PASSWORD.encode())
    for number in range(20):
        jotgate("accounts", "grant", long, f"scope:{number}", *folder)
    lines = jotgate("accounts", "list", *folder).out.splitlines()
    assert len(lines) == 2
    assert long in lines[1]
    assert "scope:19" in lines[1]


def test_a_folder_without_a_database_is_refused_and_not_filled(jotgate: Jotgate, tmp_path: Path) -> None:
    for command in (["accounts", "list"], ["accounts", "grant", "a@shop.example", "x"], ["keys", "list"]):
        ran = jotgate(*command, "--data", str(tmp_path / "mistyped"))
        assert (ran.status, ran.out) == (2, "")
        assert "there is no database " in ran.err
    assert list(tmp_path.iterdir()) == []


def test_keys_are_listed_without_anything_secret(jotgate: Jotgate, running_server: RunningServer) -> None:
    folder = ["--data", str(running_server.data_dir)]
    told = json.loads(jotgate("keys", "list", "--json", *folder).out)
    assert sorted((each["purpose"], each["state"]) for each in told) == [
        (purpose, state)
        for purpose in ("access", "device", "factor", "feed", "mail", "refresh")
        for state in ("active", "next", "next")
    ]
    assert {name for each in told for name in each} == {
        *("kid", "issuer", "purpose", "algorithm", "state"),
        *("created_at", "activated_at", "retired_at", "revoked_at", "removed_at"),
    }
    with running_server.client() as client:
        published = client.get("/.well-known/jwks.json").json()["keys"]
    access = {each["kid"] for each in told if each["purpose"] == "access"}
    assert {each["kid"] for each in published} == access
    shown = jotgate("keys", "list", *folder).out
    for kid in access:
        assert f"{kid}  signs access tokens" in shown


def test_settings_from_the_environment_count(jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOTGATE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JOTGATE_DEFAULT_SCOPES", "account:read orders:read")
    added = jotgate("accounts", "add", "a@shop.example", "--json", stdin=PASSWORD.encode())
    assert json.loads(added.out)["scopes"] == ["account:read", "orders:read"]
    monkeypatch.setenv("JOTGATE_NO_SUCH", "1")
    assert jotgate("accounts", "list").status == 2


@pytest.mark.parametrize(
    "words",
    [
        "",
        "serve",
        "demo",
        "inspect",
        "doctor",
        "keys list",
        "accounts add",
        "accounts list",
        "accounts grant",
        "accounts revoke",
        "accounts import",
        "accounts export",
        "accounts disable",
        "accounts enable",
        "accounts delete",
    ],
)
def test_each_command_explains_itself_and_its_exit_status(jotgate: Jotgate, words: str) -> None:
    ran = jotgate(*words.split(), "--help")
    assert ran.status == 0
    assert "Exit status: 0" in ran.out


def test_the_installed_program_answers(tmp_path: Path) -> None:
    ran = subprocess.run([*jotgate_command(), "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("jotgate ")
    wrong = subprocess.run([*jotgate_command(), "bogus"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "No such command 'bogus'" in wrong.stderr
