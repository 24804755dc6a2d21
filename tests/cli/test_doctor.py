"""`jotgate doctor` on real folders and databases, and against a real server."""

import http.client
import json
import os
import shutil
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from jotgate.cli import doctor, probing
from jotgate.cli.findings import PRACTICES, TITLES
from jotgate.core.encoding import encode_segment
from jotgate.server import Settings, create_app
from jotgate.server.rules.hashing import ARGON2_SETS
from jotgate.server.secret import Secret
from tests.cli.conftest import Jotgate, Ran
from tests.conftest import RunningServer, free_port
from tests.services import RedisServer

CANARY = "kanarienvogel"
Findings = dict[str, dict[str, str]]


def findings(ran: Ran) -> Findings:
    """What `--json` says, by check, after checking its form."""
    said = json.loads(ran.out)
    for each in said:
        assert set(each) == {"practice", "check", "status", "detail", "remedy"}
        assert each["practice"] in PRACTICES
        assert each["status"] in ("pass", "warn", "fail")
        assert each["detail"]
        assert bool(each["remedy"]) == (each["status"] != "pass")
    assert [each["practice"] for each in said] == sorted((e["practice"] for e in said), key=PRACTICES.index)
    assert ran.status == int(any(each["status"] == "fail" for each in said))
    return {each["check"]: each for each in said}


def listing(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def _measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """For these tests it is no matter how long a hash takes."""
    monkeypatch.setattr(doctor, "_MEASURE_S", 0.1)


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The data folder of a server that has run."""
    folder = tmp_path / "data"
    app = create_app(Settings(data_dir=folder, hash_workers=1))
    app.start()
    app.close()
    return folder


def test_a_folder_that_is_not_there_is_judged_and_not_made(jotgate: Jotgate, tmp_path: Path) -> None:
    found = findings(jotgate("doctor", "--json", "--data", str(tmp_path / "new")))
    assert found["database"]["status"] == "pass"
    assert found["data-folder"]["status"] == "warn"
    assert "19456/2" in found["argon2"]["detail"]
    assert not (tmp_path / "new").exists()


def test_a_data_folder_that_is_none_or_cannot_be_looked_at_fails(jotgate: Jotgate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        found = findings(jotgate("doctor", "--json", "--data", str(path)))
        assert found["data-folder"]["status"] == "fail", path


def test_a_data_folder_of_another_user_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o000)
    tmp_path.chmod(0o711)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # to root, every folder is open
    try:
        assert doctor._folder(folder) == "unreadable"
        assert doctor._folder(folder / "below") == "unreadable"
    finally:
        os.seteuid(user)


def test_all_private_keys_and_files_of_the_database_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "tls" / "old").mkdir(parents=True)
    private = b"-----BEGIN PRIVATE KEY-----\n"
    for name, text in {
        "jotgate.sqlite3-wal": b"",
        "jotgate.sqlite3-shm": b"",
        "tls/pkcs8-1.pem": private,
        "tls/old/key.pem": private,
        "tls/ca.pem": b"-----BEGIN CERTIFICATE-----\n",
    }.items():
        (tmp_path / name).write_bytes(text)
        (tmp_path / name).chmod(0o644)
    modes = doctor._modes(Settings(data_dir=tmp_path))
    assert {str(Path(name).relative_to(tmp_path)) for name, mode in modes.items() if mode == 0o644} == {
        *("jotgate.sqlite3-wal", "jotgate.sqlite3-shm", "tls/pkcs8-1.pem", "tls/old/key.pem")
    }


def test_a_used_folder_passes_and_is_left_byte_for_byte(jotgate: Jotgate, served: Path) -> None:
    before = listing(served)
    found = findings(jotgate("doctor", "--json", "--data", str(served)))
    assert listing(served) == before
    assert {name: found[name]["status"] for name in ("database", "schema", "sealed", "permissions", "clock")} == {
        **dict.fromkeys(("database", "schema", "sealed", "permissions", "clock"), "pass")
    }
    assert {found[f"{purpose}-keys"]["status"] for purpose in ("access", "feed", "refresh")} == {"pass"}


def test_a_database_that_was_not_closed_is_left_as_it_is(jotgate: Jotgate, served: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(served / "jotgate.sqlite3")) as connection, connection:
        connection.execute("UPDATE jotgate_keys SET created_at = created_at + 100000")
        connection.commit()
        copy = shutil.copytree(served, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    before = listing(copy)
    assert before["jotgate.sqlite3-wal"][2], "what was written last is there alone"
    found = findings(jotgate("doctor", "--json", "--data", str(copy)))
    assert found["clock"]["status"] == "fail", "what was written last counts"
    assert listing(copy) == before


def test_a_folder_that_is_in_use_can_be_looked_at(jotgate: Jotgate, running_server: RunningServer) -> None:
    found = findings(jotgate("doctor", "--json", "--data", str(running_server.data_dir)))
    assert found["schema"]["status"] == "pass"
    assert found["certificate-expiry"]["status"] == "pass"


def test_what_is_wrong_with_a_folder_is_found(jotgate: Jotgate, served: Path) -> None:
    served.chmod(0o755)
    (served / "master.key").write_text(encode_segment(b"x" * 32))
    ran = jotgate("doctor", "--json", "--data", str(served))
    found = findings(ran)
    assert ran.status == 1
    assert found["permissions"]["status"] == "fail"
    assert found["sealed"]["status"] == "fail"
    (served / "jotgate.sqlite3").write_bytes(b"no database" * 100)
    assert findings(jotgate("doctor", "--json", "--data", str(served)))["database"]["status"] == "fail"


def test_a_master_key_that_is_gone_is_found_and_not_made_anew(jotgate: Jotgate, served: Path) -> None:
    (served / "master.key").unlink()
    assert findings(jotgate("doctor", "--json", "--data", str(served)))["master-key"]["status"] == "fail"
    assert not (served / "master.key").exists()


def test_a_bad_configuration_is_told_without_what_is_secret_in_it(
    jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master_key = encode_segment(b"secret master key of 32 bytes..!")
    (tmp_path / "leaky_hook.py").write_text(f"def claims(account):\n    return {{'password': '{CANARY}'}}\n")
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "ISSUER": "https://auth.example.com",
        "DATABASE_URL": f"postgresql://user:{CANARY}@127.0.0.1:{free_port()}/auth?connect_timeout=1",
        "REDIS_URL": f"redis://:{CANARY}@redis.invalid/0",
        "MASTER_KEY": master_key,
        "ACCESS_TOKEN_TTL_S": "3600",
        "PASSWORD_MIN_LENGTH": "8",
        "LIMIT_LOGINS": "1000000/s",
        "TRUSTED_PROXIES": "0.0.0.0/0",
        "HTTP": "true",
        "HASH_WORKERS": "64",
        "CLAIMS_FOR": "leaky_hook:claims",
    }.items():
        monkeypatch.setenv(f"JOTGATE_{name}", value)
    ran, shown = jotgate("doctor", "--json"), jotgate("doctor")
    found = findings(ran)
    assert {name for name, each in found.items() if each["status"] == "fail"} == {
        *("database", "redis-tls", "redis", "proxies", "claims-for")
    }
    assert {name for name, each in found.items() if each["status"] == "warn"} >= {
        *("access-token", "password-length", "limits", "hash-workers", "audience")
    }
    assert (ran.status, shown.status) == (1, 1)
    for text in (ran.out, ran.err, shown.out, shown.err):
        assert CANARY not in text
        assert master_key not in text
    for title in TITLES.values():
        assert title in shown.out


def test_settings_that_cannot_be_are_wrong_usage(jotgate: Jotgate, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (
        ("--ca-file", "x"),
        ("--url", "http://localhost"),
        ("--url", "https://localhost", "--data", "x"),
        ("--url", "https://localhost", "--ca-file", "not-there"),
        ("--tls-cert", "x"),
        ("--fail-on", "never"),
    ):
        ran = jotgate("doctor", *arguments)
        assert (ran.status, ran.out) == (2, "")
    monkeypatch.setenv("JOTGATE_AUDIENSE", "x")
    assert jotgate("doctor").status == 2


def test_a_warning_counts_when_it_is_told_to(jotgate: Jotgate, tmp_path: Path) -> None:
    folder = ("--data", str(tmp_path / "new"))
    assert jotgate("doctor", *folder).status == 0
    assert jotgate("doctor", "--fail-on", "warn", *folder).status == 1, "the issuer is localhost"


def test_where_the_url_names_no_host_the_environment_does(
    jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOTGATE_DATA_DIR", str(tmp_path / "new"))
    monkeypatch.setenv("JOTGATE_DATABASE_URL", "postgresql:///auth")
    monkeypatch.setenv("PGHOST", "nobody.invalid")
    assert findings(jotgate("doctor", "--json"))["database-tls"]["status"] == "fail"


def test_sets_of_parameters_take_turns_so_that_a_busy_while_is_one_for_each() -> None:
    busy = [float((look + 1) // 2) for look in range(10)]  # in the first round each hash takes a second
    times = iter([0.0, *busy, 5.0, *([5.0] * 11)])
    took = doctor.measure_hashes(lambda: next(times))
    assert took == {str(each): 0.0 for each in ARGON2_SETS}, "by then the machine was idle again"


def test_hashes_are_measured_for_two_seconds_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MEASURE_S", 2.0)
    looks = count()
    doctor.measure_hashes(lambda: next(looks) / 32)  # a round is 11 looks
    assert next(looks) / 32 < 2.1


def test_keys_in_postgresql_are_looked_at_and_nothing_is_changed(
    jotgate: Jotgate, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    master_key = encode_segment(b"k" * 32)
    monkeypatch.setenv("JOTGATE_DATABASE_URL", postgres_url)
    monkeypatch.setenv("JOTGATE_MASTER_KEY", master_key)
    assert findings(jotgate("doctor", "--json"))["schema"]["status"] == "warn", "there are no tables yet"
    settings = Settings(data_dir=tmp_path, hash_workers=1)
    app = create_app(
        msgspec.structs.replace(settings, database_url=Secret(postgres_url), master_key=Secret(master_key))
    )
    app.start()
    app.close()
    found = findings(jotgate("doctor", "--json"))
    assert (found["schema"]["status"], found["sealed"]["status"]) == ("pass", "pass")
    assert found["shared-limits"]["status"] == "warn"
    monkeypatch.setenv("JOTGATE_MASTER_KEY", encode_segment(b"o" * 32))
    assert findings(jotgate("doctor", "--json"))["sealed"]["status"] == "fail"


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("def claims(account): return {'plan': 'free'}", "pass"),
        ("async def claims(account): return {'plan': 'free'}", "pass"),
        ("def claims(account): return {'contact': account.email}", "warn"),
        ("def claims(account): return {'password': 'x'}", "fail"),
        ("def claims(account): return {'when': object()}", "fail"),
        ("def claims(account): return 5", "warn"),
        (f"def claims(account): raise KeyError('{CANARY}')", "warn"),
        (f"raise RuntimeError('{CANARY}')", "fail"),
        (f"import sys; sys.exit('{CANARY}')", "fail"),
        ("def claims(account):\n    claims = {}\n    claims['more'] = claims\n    return claims", "fail"),
        (f"import sys\ndef claims(account): sys.exit('{CANARY}')", "warn"),
    ],
)
def test_the_claims_of_a_made_up_account_are_judged(
    jotgate: Jotgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, status: str
) -> None:
    module = f"hook_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOTGATE_CLAIMS_FOR", f"{module}:claims")
    ran = jotgate("doctor", "--json")
    assert findings(ran)["claims-for"]["status"] == status
    assert CANARY not in ran.out + ran.err


@pytest.mark.parametrize(
    "source", ["import threading; threading.Event().wait(60)", "import threading\ndef claims(account): gone.wait(60)"]
)
def test_a_hook_that_does_not_answer_or_end_its_import_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(doctor, "_WITHIN_S", 0.3)
    module = f"slow_hook_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(f"import threading\ngone = threading.Event()\n{source}\n")
    monkeypatch.chdir(tmp_path)
    assert "within 0 s" in str(doctor._hook(f"{module}:claims").fault)


def test_redis_is_asked_and_its_password_not_told(
    jotgate: Jotgate, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOTGATE_DATA_DIR", str(tmp_path / "new"))
    monkeypatch.setenv("JOTGATE_REDIS_URL", redis_server.url)
    assert findings(jotgate("doctor", "--json"))["redis"]["status"] == "pass"
    for url in (
        f"redis://:{CANARY}@127.0.0.1:{redis_server.port}/0",
        f"redis://:{CANARY}@127.0.0.1:{free_port()}/0",
    ):
        monkeypatch.setenv("JOTGATE_REDIS_URL", url)
        ran = jotgate("doctor", "--json")
        assert findings(ran)["redis"]["status"] == "fail"
        assert CANARY not in ran.out + ran.err


def test_a_redis_that_says_nothing_is_not_waited_for(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_WITHIN_S", 0.3)
    assert doctor._redis_fault(Secret(f"redis://:{CANARY}@127.0.0.1:{silent}/0")) == "it takes too long"


def test_a_running_server_is_found_good(jotgate: Jotgate, running_server: RunningServer) -> None:
    ran = jotgate("doctor", "--json", "--url", running_server.url, "--ca-file", str(running_server.ca_file))
    found = findings(ran)
    assert {name: each["status"] for name, each in found.items() if each["status"] != "pass"} == {}
    assert {each["practice"] for each in found.values()} == set(PRACTICES)
    shown = jotgate("doctor", "--url", running_server.url, "--ca-file", str(running_server.ca_file))
    assert shown.status == 0
    assert shown.out.endswith(f"{len(found)} passed, 0 warned, 0 failed\n")


def test_a_server_of_another_issuer_is_told(jotgate: Jotgate, running_server: RunningServer) -> None:
    url = f"https://127.0.0.1:{running_server.port}"
    found = findings(jotgate("doctor", "--json", "--url", url, "--ca-file", str(running_server.ca_file)))
    assert found["metadata"]["status"] == "fail"
    assert running_server.url in found["metadata"]["detail"]


def one_row(ran: Ran) -> dict[str, str]:
    (only,) = findings(ran).values()
    assert (ran.status, ran.err, only["check"], only["status"]) == (1, "", "reachable", "fail")
    return only


def test_a_server_that_is_not_trusted_or_not_there_is_one_row(jotgate: Jotgate, running_server: RunningServer) -> None:
    assert "not trusted" in one_row(jotgate("doctor", "--json", "--url", running_server.url))["detail"]
    nobody = f"https://localhost:{free_port()}"
    assert "no connection" in one_row(jotgate("doctor", "--json", "--url", nobody))["detail"]
    assert "no connection" in one_row(jotgate("doctor", "--json", "--url", "https://nobody.invalid"))["detail"]
    assert "no name" in one_row(jotgate("doctor", "--json", "--url", "https://two..dots"))["detail"]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def test_a_server_that_says_nothing_is_one_row_after_a_while(
    jotgate: Jotgate, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jotgate.cli.probing._WITHIN_S", 0.5)
    one_row(jotgate("doctor", "--json", "--url", f"https://127.0.0.1:{silent}"))


@contextmanager
def answering(reply: bytes, drip_s: float = 0.0, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers whatever comes, byte by byte if told to, and speaks TLS if given a context."""

    def serve(listener: socket.socket) -> None:
        with (
            suppress(OSError),
            listener,
            listener.accept()[0] as plain,
            suppress(OSError),
            plain if context is None else context.wrap_socket(plain, server_side=True) as connection,
        ):
            connection.recv(1024)
            for part in [reply] if not drip_s else [bytes([byte]) for byte in reply]:
                connection.sendall(part)
                gone.wait(drip_s)

    gone = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        gone.set()
        thread.join(30)


def test_old_tls_and_clear_text_are_noticed_where_they_are_taken(running_server: RunningServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(running_server.data_dir / "tls" / "cert.pem", running_server.data_dir / "tls" / "key.pem")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with answering(b"", context=context) as port:
        assert probing._old_tls("127.0.0.1", port) == "taken"
    assert probing._old_tls("localhost", running_server.port) == "refused"
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert probing._clear_text("127.0.0.1", port) == 200
    assert probing._clear_text("localhost", running_server.port) in ("closed", 0, 400)


def test_a_server_that_says_nothing_is_not_taken_for_one_that_refuses(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_WITHIN_S", 0.2)
    for port in (silent, free_port()):
        assert probing._old_tls("127.0.0.1", port) == "not seen"
        assert probing._clear_text("127.0.0.1", port) == "not seen"


def test_an_answer_that_drips_in_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_WITHIN_S", 0.5)
    with answering(b"HTTP/1.1 200 OK\r\n" + b"x" * 1000, drip_s=0.1) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
        begun = time.monotonic()
        assert probing._answer(connection, "GET", "/", None, {}) is None
        assert time.monotonic() - begun < 20, "byte by byte it would have been a hundred seconds"
