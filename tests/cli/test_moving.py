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
import pyotp
import pytest

from jotgate import Verifier
from jotgate.cli import moving
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
        json.dumps(good | {"email": new_email(), "created_at": "yesterday"}),
        json.dumps({"email": new_email()}),
        json.dumps(good | {"email": new_email(), "disabled": secret}),
        json.dumps(good | {"email": new_email(), f"{secret}@example.com": 1}),
        json.dumps(good | {"email": new_email(), "bio": secret * 10_000}),
        json.dumps(good),
        json.dumps(good),
    ]
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(lines))
    ran = jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir), "--json")
    assert ran.status == 1
    report = json.loads(ran.out)
    assert {name: report[name] for name in ("added", "exists", "refused")} == {"added": 1, "exists": 1, "refused": 13}
    assert [(each["line"], each["field"], each["code"]) for each in report["refusals"]] == [
        (1, "email", "invalid_email"),
        (2, "password_hash", "unknown_password_hash"),
        (3, "", "unknown_column"),
        (4, "id", "invalid_id"),
        (5, "scopes", "invalid_scope"),
        (6, "created_at", "invalid_time"),
        (7, "", "invalid_row"),
        (8, "", "invalid_row"),
        (9, "created_at", "invalid_time"),
        (10, "password_hash", "invalid_row"),
        (11, "disabled", "invalid_row"),
        (12, "", "unknown_column"),
        (13, "", "line_too_long"),
    ]
    assert "not known here: colour." in report["refusals"][2]["detail"]
    assert secret not in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", b"", "does not name email and password_hash"),
        ("a.csv", b"email,hash\n", "does not name password_hash"),
        ("a.csv", b"email,password_hash,email\n", "names a column twice"),
        ("a.csv", b"email,password_hash,colour,kana@rien.vogel\n", "not known here: colour, one without a plain name."),
        ("a.csv", b'email,password_hash\n"a"b,c\n', "line 2 is no CSV"),
        ("a.csv", b'email,password_hash\n"a', "line 2 is no CSV"),
        ("a.csv", b'email,password_hash\n"' + b"kana@rien.vogel\n" * 5_000, "of more than 65536 bytes"),
        ("missing.jsonl", None, "No such file"),
        ("", None, "Is a directory"),
    ],
)
def test_a_file_that_is_no_list_of_accounts_is_told_in_a_sentence(
    jotgate: Jotgate, running_server: RunningServer, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    ran = jotgate("accounts", "import", str(file), "--data", str(running_server.data_dir))
    assert (ran.status, ran.out) == (1, "")
    assert sentence in ran.err
    assert "vogel" not in ran.err
    assert ran.err.count("\n") == 1


def test_in_csv_a_text_may_go_over_lines_and_is_never_taken_for_accounts(jotgate: Jotgate, tmp_path: Path) -> None:
    hashed = HASHES["bcrypt"]()
    file = tmp_path / "users.txt"
    rows = [
        "email,password_hash,bio,scopes,created_at",
        f'ada@example.com,{hashed},"I am\neve@example.com,{hashed},,admin,\n",account:read a,2020-09-13T12:26:40Z',
        "",
        f"bob@example.com,{hashed},,,",
        f"cleo@example.com,{hashed},,",
        f"d\udcffora@example.com,{hashed},,,",
    ]
    file.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape"))
    data = tmp_path / "data"
    _make_database(data)
    arguments = ("accounts", "import", str(file), "--format", "csv", "--data", str(data), "--json")
    assert jotgate(*arguments).status == 1
    ran = jotgate(*arguments, "--ignore-columns")
    refusals = json.loads(ran.out)["refusals"]
    assert [(each["line"], each["code"]) for each in refusals] == [(7, "invalid_row"), (8, "invalid_utf8")]
    there = json.loads(jotgate("accounts", "list", "--data", str(data), "--json").out)
    assert [(each["email"], each["scopes"]) for each in there] == [
        ("ada@example.com", ["account:read", "a"]),
        ("bob@example.com", []),
    ]
    assert there[0]["created_at"] == 1_600_000_000


def test_an_id_that_another_account_has_is_told_and_never_passed_over(jotgate: Jotgate, tmp_path: Path) -> None:
    row = {"password_hash": HASHES["bcrypt"]()}
    emails_and_ids = [("a@example.com", "1"), ("b@example.com", "1"), ("A@example.com", "1"), ("c@example.com", "3")]
    file = tmp_path / "some.jsonl"
    file.write_text("\n".join(json.dumps(row | {"email": email, "id": its}) for email, its in emails_and_ids))
    data = tmp_path / "data"
    _make_database(data)
    arguments = ("accounts", "import", str(file), "--data", str(data), "--json")
    for more, added, exists in (("--dry-run",), 2, 1), ((), 2, 1), ((), 0, 3), (("--dry-run",), 0, 3):
        ran = jotgate(*arguments, *more)
        report = json.loads(ran.out)
        assert (ran.status, report["added"], report["exists"], report["refused"]) == (1, added, exists, 1)
        (told,) = report["refusals"]
        assert (told["line"], told["field"], told["code"]) == (2, "id", "id_taken")


def test_one_bad_line_keeps_a_strict_import_from_writing_anything(jotgate: Jotgate, tmp_path: Path) -> None:
    row = {"password_hash": HASHES["bcrypt"]()}
    file, data = tmp_path / "some.jsonl", tmp_path / "data"
    good = [json.dumps(row | {"email": f"person{n}@example.com"}) for n in range(600)]
    file.write_text("\n".join([*good, "{}"]))
    _make_database(data)
    arguments = ("accounts", "import", str(file), "--data", str(data), "--strict")
    ran = jotgate(*arguments)
    assert (ran.status, ran.out) == (1, "600 would be added, 0 there already, 1 not taken\n")
    assert _count(data / "jotgate.sqlite3") == 0
    file.write_text("\n".join(good))
    ran = jotgate(*arguments)
    assert (ran.status, ran.out) == (0, "600 added, 0 there already, 0 not taken\n")
    assert _count(data / "jotgate.sqlite3") == 600
    events = [json.loads(each) for each in jotgate("audit", "tail", "--json", "--data", str(data)).out.splitlines()]
    imported = [each["detail"] for each in events if each["event"] == "account_imported"]
    assert imported == [{"accounts": 500}, {"accounts": 100}]


def test_a_strict_import_reads_its_file_twice_and_takes_no_pipe(jotgate: Jotgate, tmp_path: Path) -> None:
    _make_database(tmp_path / "data")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ran = jotgate("accounts", "import", str(pipe), "--strict", "--data", str(tmp_path / "data"))
    assert ran.status == 1
    assert "read twice" in ran.err


def test_a_report_tells_of_all_lines_and_the_terminal_of_the_first_hundred(jotgate: Jotgate, tmp_path: Path) -> None:
    file, data, report = tmp_path / "some.jsonl", tmp_path / "data", tmp_path / "report.jsonl"
    file.write_text("{}\n" * 120)
    _make_database(data)
    arguments = ("accounts", "import", str(file), "--data", str(data), "--dry-run", "--report", str(report))
    ran = jotgate(*arguments)
    assert ran.err.splitlines()[-1] == "… and 20 more"
    assert len(ran.err.splitlines()) == 101
    told = [json.loads(each) for each in report.read_text().splitlines()]
    assert [each["line"] for each in told] == list(range(1, 121))
    assert {each["code"] for each in told} == {"invalid_row"}
    assert report.stat().st_mode & 0o777 == 0o600
    assert "File exists" in jotgate(*arguments).err  # nothing is written over


def test_scopes_of_lines_without_any_can_be_said(jotgate: Jotgate, tmp_path: Path) -> None:
    file, data = tmp_path / "some.jsonl", tmp_path / "data"
    file.write_text(json.dumps({"email": "ada@example.com", "password_hash": ""}))
    _make_database(data)
    arguments = ("accounts", "import", str(file), "--data", str(data), "--default-scopes")
    assert "A scope is printable ASCII" in jotgate(*arguments, 'a "b').err
    assert jotgate(*arguments, "account:read b").status == 0
    (there,) = json.loads(jotgate("accounts", "list", "--data", str(data), "--json").out)
    assert there["scopes"] == ["account:read", "b"]


def test_where_nobody_watches_a_line_tells_now_and_then_how_far_it_is(
    jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_TELL_EVERY_S", 0.0)
    row = {"password_hash": ""}
    file, data = tmp_path / "some.jsonl", tmp_path / "data"
    file.write_text("\n".join(json.dumps(row | {"email": f"person{n}@example.com"}) for n in range(1_000)))
    _make_database(data)
    lines = jotgate("accounts", "import", str(file), "--data", str(data)).err.splitlines()
    assert [line.split(" lines, ")[0] for line in lines] == ["500", "1000"]
    assert lines[-1].endswith("%")


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


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_exported_can_be_imported_elsewhere_and_its_file_is_private(
    jotgate: Jotgate, tmp_path: Path, form: str
) -> None:
    row = {"password_hash": HASHES["bcrypt"](), "scopes": [], "created_at": 5, "disabled": True}
    rows = [row | {"id": f"id{n}", "email": f"p{n}@example.com"} for n in range(3)]
    rows.append(
        {"id": '="1,2"', "email": "z@bücher.example", "password_hash": "", "scopes": ["a", "b"], "created_at": 1}
    )
    first = tmp_path / "first.jsonl"
    first.write_text("\n".join(map(json.dumps, rows)))
    files: list[Path] = []
    for n in range(2):
        data = str(tmp_path / f"data{n}")
        _make_database(Path(data))
        assert jotgate("accounts", "import", str(files[-1] if files else first), "--data", data).status == 0
        files.append(tmp_path / f"out{n}.{form}")
        assert jotgate("accounts", "export", str(files[-1]), "--data", data).status == 0
        assert jotgate("accounts", "export", "-", "--format", form, "--data", data).out == files[-1].read_text("utf-8")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_mode & 0o777 == 0o600
    there = jotgate("accounts", "export", "-", "--data", str(tmp_path / "data1")).out
    assert [json.loads(line) for line in there.splitlines()] == [*rows[:3], rows[3] | {"disabled": False}]
    again = jotgate("accounts", "export", str(files[0]), "--data", str(tmp_path / "data0"))
    assert again.status != 0  # nothing is written over


def test_an_export_that_fails_leaves_no_half_of_a_file(jotgate: Jotgate, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "out.jsonl"
    _make_database(data)
    with closing(sqlite3.connect(data / "jotgate.sqlite3")) as connection:
        connection.execute("ALTER TABLE jotgate_accounts RENAME TO elsewhere")
    ran = jotgate("accounts", "export", str(file), "--data", str(data))
    assert ran.status == 1
    assert not file.exists()


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
        listed = json.loads(jotgate("accounts", "list", "--limit", "10000", "--json", *data).out)
        assert [each["email"] for each in listed if each["disabled_at"] is not None] == [email]
        assert jotgate("accounts", "disable", email, *data).out == f"{email} was disabled already\n"
        assert jotgate("accounts", "enable", email, *data).out == f"enabled {email}\n"
        log_in(client, email)


def test_whoever_has_lost_every_second_factor_gets_in_again(
    jotgate: Jotgate, running_server: RunningServer, new_email: NewEmail
) -> None:
    email, data = new_email(), ("--data", str(running_server.data_dir))
    with running_server.client() as client:
        sign_up(client, email)
        token = {"refresh_token": log_in(client, email)["refresh_token"]}
        begun = client.post("/v1/factors/totp", json=token | {"current_password": PASSWORD}).json()
        code = pyotp.TOTP(begun["secret"]).now()
        assert client.post("/v1/factors/totp/confirm", json=token | {"code": code}).status_code == 200
        asked = client.post("/v1/login", json={"email": email, "password": PASSWORD, "delivery": "body"})
        assert asked.status_code == 202
        ran = jotgate("accounts", "reset-factors", email, *data)
        assert (ran.status, ran.out) == (0, f"{email} is without second factor now; 1 session ended\n")
        assert jotgate("accounts", "reset-factors", email, *data).out == f"{email} was without second factor already\n"
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
