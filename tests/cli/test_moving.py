"""`jotgate accounts import`, `export`, `disable`, `enable` and `delete`, beside a running server."""

import base64
import hashlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import argon2
import bcrypt
import httpx2
import pytest

from jotgate import Verifier
from jotgate.core.errors import TokenRevoked
from jotgate.server.store.sqlite import SqliteStore
from tests.cli.conftest import Jotgate
from tests.conftest import PASSWORD, RunningServer, jotgate_command, log_in, sign_up

NewEmail = Callable[[], str]


def _pbkdf2(iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"saltysalt", iterations)


def _scrypt(n: int, r: int, p: int, size: int, salt: bytes = b"saltysalt") -> bytes:
    return hashlib.scrypt(PASSWORD.encode(), salt=salt, n=n, r=r, p=p, dklen=size, maxmem=2**27)


HASHES: dict[str, Callable[[], str]] = {
    "argon2id": lambda: argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD),
    "Django's argon2": lambda: (
        "argon2" + argon2.PasswordHasher(time_cost=2, memory_cost=102_400, parallelism=8).hash(PASSWORD)
    ),
    "bcrypt": lambda: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
    "Werkzeug's scrypt": lambda: f"scrypt:32768:8:1$saltysalt${_scrypt(32768, 8, 1, 64).hex()}",
    "better-auth's scrypt": lambda: f"{'ab' * 16}:{_scrypt(16384, 16, 1, 64, b'ab' * 16).hex()}",
    "Django's pbkdf2": lambda: f"pbkdf2_sha256$1000$saltysalt${base64.b64encode(_pbkdf2(1000)).decode()}",
    "Werkzeug's pbkdf2": lambda: f"pbkdf2:sha256:1000$saltysalt${_pbkdf2(1000).hex()}",
}


def stored_hash(jotgate: Jotgate, server: RunningServer, email: str, tmp_path: Path) -> str:
    """What the account's password hash is now, as an export tells it."""
    file = tmp_path / f"{time.monotonic_ns()}.jsonl"
    assert jotgate("accounts", "export", str(file), "--data", str(server.data_dir)).status == 0
    (found,) = [row for row in map(json.loads, file.read_text().splitlines()) if row["email"] == email]
    return str(found["password_hash"])


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_each_kind_of_hash_logs_in_with_its_old_password_and_is_replaced(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail, tmp_path: Path, form: str
) -> None:
    hashes = {new_email(): make() for make in HASHES.values()}
    file = tmp_path / f"accounts.{form}"
    if form == "jsonl":
        file.write_text("".join(json.dumps({"email": e, "password_hash": h}) + "\n" for e, h in hashes.items()))
    else:
        rows = [f'{email},"{password_hash}"\n' for email, password_hash in hashes.items()]
        file.write_text("\ufeffemail,password_hash\n" + "".join(rows), encoding="utf-8")
    ran = jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{len(HASHES)} added, 0 there already, 0 not taken\n"
    with running_server.client() as client:
        for email in hashes:
            wrong = client.post("/v1/login", json={"email": email, "password": "x" * 20, "delivery": "body"})
            assert wrong.status_code == 401
            log_in(client, email)
    for email, before in hashes.items():
        now = stored_hash(jotgate, running_server, email, tmp_path)
        assert now.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
        assert now != before
    with running_server.client() as client:
        log_in(client, next(iter(hashes)))


def test_what_a_line_says_of_its_account_is_kept(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail, tmp_path: Path
) -> None:
    name, email = f"user-{time.monotonic_ns()}", new_email()
    row = {
        "email": email,
        "password_hash": HASHES["argon2id"](),
        "id": name,
        "scopes": ["account:read", "orders:read"],
        "created_at": 1_600_000_000,
        "disabled": False,
    }
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(row) + "\n\n")
    assert jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir)).status == 0
    with running_server.client() as client:
        tokens = log_in(client, email)
        account = client.get("/v1/account", headers={"authorization": f"Bearer {tokens['access_token']}"}).json()
    assert account == {"id": name, "email": email, "scopes": row["scopes"], "created_at": 1_600_000_000}


def test_lines_that_cannot_be_taken_are_told_without_what_stands_in_them_and_the_rest_goes_on(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail, tmp_path: Path
) -> None:
    good = {"email": new_email(), "password_hash": HASHES["bcrypt"]()}
    secret = "kanarienvogel"
    lines = [
        json.dumps({"email": secret, "password_hash": good["password_hash"]}),
        json.dumps({"email": new_email(), "password_hash": f"$md5${secret}"}),
        json.dumps(good | {"email": new_email(), "colour": secret}),
        json.dumps(good | {"email": new_email(), "id": "with space"}),
        json.dumps(good | {"email": new_email(), "scopes": ['"']}),
        json.dumps(good | {"email": new_email(), "created_at": -1}),
        f'{{"email": "{secret}',
        "[" * 5_000,
        json.dumps(good),
        json.dumps(good),
    ]
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(lines))
    ran = jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir), "--json")
    assert ran.status == 1
    report = json.loads(ran.out)
    assert {name: report[name] for name in ("added", "exists", "refused")} == {"added": 1, "exists": 1, "refused": 8}
    assert [(each["line"], each["code"]) for each in report["refusals"]] == [
        (1, "invalid_email"),
        (2, "unknown_password_hash"),
        (3, "invalid_row"),
        (4, "invalid_id"),
        (5, "invalid_scope"),
        (6, "invalid_time"),
        (7, "invalid_row"),
        (8, "invalid_row"),
    ]
    assert secret not in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"email,hash\n"),
        ("a.csv", b"email,password_hash,colour\n"),
        ("a.csv", b"email,password_hash\n\xff,x\n"),
        ("a.csv", b'email,password_hash\n"a"b,c\n'),
        ("a.jsonl", b"x" * 70_000),
        ("missing.jsonl", None),
    ],
)
def test_a_file_that_is_no_list_of_accounts_is_told_in_a_sentence(
    jotgate: Jotgate, running_server: RunningServer, tmp_path: Path, name: str, content: bytes | None
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    ran = jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir))
    assert ran.status not in (0, 1) or "Traceback" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_dry_run_writes_nothing_and_tells_what_would_be(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail, tmp_path: Path
) -> None:
    taken, free = new_email(), new_email()
    with running_server.client() as client:
        sign_up(client, taken)
    row = {"password_hash": HASHES["bcrypt"]()}
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps(row | {"email": each}) for each in (taken, free, free.upper())))
    arguments = ("accounts", "import", str(file), "--data", str(running_server.data_dir))
    assert jotgate(*arguments, "--dry-run").out == "1 would be added, 2 there already, 0 not taken\n"
    assert jotgate(*arguments).out == "1 added, 2 there already, 0 not taken\n"


def _make_database(data: Path) -> None:
    """What the first start of a server does."""
    store = SqliteStore(data / "jotgate.sqlite3")
    store.open()
    store.close_now()


def _count(database: Path) -> int:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM jotgate_accounts").fetchone()[0])


def test_an_import_that_is_killed_is_run_again_and_each_account_is_there_once(tmp_path: Path, jotgate: Jotgate) -> None:
    row = {"password_hash": HASHES["bcrypt"]()}
    emails = [f"person{n}@example.com" for n in range(4_000)]
    file = tmp_path / "many.jsonl"
    file.write_text("\n".join(json.dumps(row | {"email": each}) for each in emails))
    data = tmp_path / "data"
    _make_database(data)
    command = [*jotgate_command(), "accounts", "import", str(file), "--data", str(data)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while process.poll() is None and not _count(data / "jotgate.sqlite3"):
        assert time.monotonic() < deadline
    process.kill()
    process.wait(30)
    ran = jotgate("accounts", "import", str(file), "--data", str(data), "--json")
    report = json.loads(ran.out)
    assert report["added"] + report["exists"] == len(emails)
    assert report["exists"] % 500 == 0  # a batch is there as a whole, or not at all
    there = json.loads(jotgate("accounts", "list", "--data", str(data), "--limit", "10000", "--json").out)
    assert sorted(each["email"] for each in there) == sorted(emails)


def test_what_is_exported_can_be_imported_elsewhere_and_its_file_is_private(jotgate: Jotgate, tmp_path: Path) -> None:
    row = {"password_hash": HASHES["bcrypt"](), "scopes": [], "created_at": 5, "disabled": True}
    rows = [row | {"id": f"id{n}", "email": f"p{n}@example.com"} for n in range(3)]
    rows.append({"id": "empty", "email": "z@example.com", "password_hash": "", "scopes": ["a"], "created_at": 1})
    first = tmp_path / "first.jsonl"
    first.write_text("\n".join(map(json.dumps, rows)))
    files: list[Path] = []
    for n in range(2):
        data = str(tmp_path / f"data{n}")
        _make_database(Path(data))
        assert jotgate("accounts", "import", str(files[-1] if files else first), "--data", data).status == 0
        files.append(tmp_path / f"out{n}.jsonl")
        assert jotgate("accounts", "export", str(files[-1]), "--data", data).status == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_mode & 0o777 == 0o600
    exported = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert exported == [*rows[:3], rows[3] | {"disabled": False}]
    again = jotgate("accounts", "export", str(files[0]), "--data", str(tmp_path / "data0"))
    assert again.status != 0  # nothing is written over


def verify_on(verifier: Verifier, token: str) -> None:
    """Verify again and again, until that raises."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        verifier.verify(token)


def test_a_disabled_account_is_out_at_once_and_in_again_when_it_is_enabled(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail
) -> None:
    email, data = new_email(), ("--data", str(running_server.data_dir))
    with (
        running_server.client() as client,
        Verifier(
            issuer=running_server.url, audience="api", ca_file=str(running_server.data_dir / "tls" / "ca.pem")
        ) as verifier,
    ):
        sign_up(client, email)
        tokens = log_in(client, email)
        verifier.wait_ready(30)
        verifier.verify(tokens["access_token"])
        ran = jotgate("accounts", "disable", email, *data)
        assert (ran.status, ran.out) == (0, f"disabled {email}; 1 session ended\n")
        with pytest.raises(TokenRevoked):
            verify_on(verifier, tokens["access_token"])
        refused = client.post("/v1/login", json={"email": email, "password": PASSWORD, "delivery": "body"})
        wrong = client.post("/v1/login", json={"email": email, "password": "x" * 20, "delivery": "body"})
        assert (refused.status_code, refused.content) == (wrong.status_code, wrong.content)
        assert client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 401
        assert "disabled" in jotgate("accounts", "list", "--limit", "10000", *data).out
        assert jotgate("accounts", "disable", email, *data).out == f"{email} was disabled already\n"
        assert jotgate("accounts", "enable", email, *data).out == f"enabled {email}\n"
        log_in(client, email)


def test_a_deleted_account_is_gone_and_is_not_deleted_by_mistake(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail
) -> None:
    email, data = new_email(), ("--data", str(running_server.data_dir))
    with running_server.client() as client:
        sign_up(client, email)
        tokens = log_in(client, email)
        asked = jotgate("accounts", "delete", email, *data)
        assert asked.status != 0
        assert "--yes" in asked.err
        log_in(client, email)
        assert jotgate("accounts", "delete", email, *data, "--yes").out == f"deleted {email}; 2 sessions ended\n"
        answer: httpx2.Response = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 401
        sign_up(client, email)
    assert jotgate("accounts", "disable", new_email(), *data).status != 0
