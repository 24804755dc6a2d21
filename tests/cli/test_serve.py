"""`jotgate serve` as a real process: how it listens, whom it refuses to start for, how it ends."""

import datetime as dt
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from jotgate.cli.process import check_can_listen, resolve_host
from jotgate.cli.serving import ServeOptions, tls_faults
from jotgate.core.errors import SettingsError
from jotgate.server.settings import Settings
from tests.conftest import (
    PASSWORD,
    Need,
    RunningServer,
    StartServer,
    free_port,
    jotgate_command,
    log_in,
    sign_up,
)

ENDED_WITHIN_S = 30
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused


def run(arguments: Sequence[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `jotgate …` that is expected to end by itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    if "PYTHONPATH" in inherited:
        inherited["PYTHONPATH"] = str(Path(inherited["PYTHONPATH"]).resolve())
    return subprocess.run(
        [*jotgate_command(), *arguments],
        env=inherited | environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ENDED_WITHIN_S,
        check=False,
    )


def serve(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A `jotgate serve` that is expected to refuse its start."""
    return run(["serve", "--data", str(folder / "data"), "--port", str(free_port()), *options], folder, **environment)


def make_certificate(
    folder: Path,
    *,
    first_day: int = -60,
    last_day: int = 30,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
) -> tuple[Path, Path]:
    """A self-signed certificate for auth.shop.example, and its key, in the same two files each time."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "auth.shop.example")])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today + dt.timedelta(days=first_day))
        .not_valid_after(today + dt.timedelta(days=last_day))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("auth.shop.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "own.pem", folder / "own-key.pem"
    key_file.touch(0o600)
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def rewrite_in_the_old_form(key: Path) -> bytes:
    """Makes SEC1 out of a PKCS#8 file, and returns it."""
    parsed = serialization.load_pem_private_key(key.read_bytes(), None)
    old = parsed.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert old.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    key.write_bytes(old)
    return old


def turn(link: Path, to: Path) -> None:
    """Lets a link name another file, in one step."""
    beside = link.with_name("new-link")
    beside.symlink_to(to)
    beside.replace(link)


def der(cert: Path) -> bytes:
    return x509.load_pem_x509_certificate(cert.read_bytes()).public_bytes(serialization.Encoding.DER)


@contextmanager
def program(
    command: Sequence[str], *, stdin: int | None = None, stderr: int = subprocess.STDOUT
) -> Iterator[subprocess.Popen[str]]:
    """A program of its own process group, which is gone at the end, or after a while, also when a test fails."""
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
    ) as running:
        too_long = threading.Timer(ENDED_WITHIN_S, os.killpg, (running.pid, signal.SIGKILL))
        too_long.start()
        try:
            yield running
        finally:
            too_long.cancel()
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def handshake(port: int, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=ENDED_WITHIN_S)
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def wait_until_free(port: int) -> None:
    """Returns once nobody listens on the port any more; AssertionError if somebody goes on."""
    give_up_at = time.monotonic() + ENDED_WITHIN_S
    while time.monotonic() < give_up_at:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=ENDED_WITHIN_S).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("somebody still listens")


# How it listens


def test_its_certificate_is_trusted_through_its_authority_and_not_without(running_server: RunningServer) -> None:
    with handshake(running_server.port, running_server.trust()) as connection:
        assert connection.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(running_server.port, ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn't match|mismatch"):
        handshake(running_server.port, running_server.trust(), "shop.example")


def test_tls_1_2_is_taken_and_nothing_older(running_server: RunningServer) -> None:
    context = running_server.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with handshake(running_server.port, context) as connection:
        assert connection.version() == "TLSv1.2"
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that this side would speak what is older, too
    with handshake(running_server.port, context) as connection:
        assert connection.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|HANDSHAKE_FAILURE"):
        handshake(running_server.port, context)


@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_curl_speaks_http_2_and_http_1_1(running_server: RunningServer, need: Need, option: str, version: str) -> None:
    command = [need("curl"), "-sS", option, "--cacert", str(running_server.ca_file), "-w", "\n%{http_version}"]
    answer = subprocess.run([*command, f"{running_server.url}/healthz"], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ['{"status":"ok"}', version]


def test_clear_text_on_the_tls_port_gets_no_answer(running_server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", running_server.port), timeout=ENDED_WITHIN_S) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not raw.recv(1000).startswith(b"HTTP/")


def test_a_head_that_is_too_long_is_refused(running_server: RunningServer, need: Need) -> None:
    command = [need("curl"), "-sS", "--http1.1", "--cacert", str(running_server.ca_file), "-o", os.devnull]
    for length, status in ((30_000, "200"), (70_000, "431")):
        answer = subprocess.run(
            [*command, "-w", "%{http_code}", "-H", f"X: {'a' * length}", f"{running_server.url}/healthz"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout == status


def test_the_printed_lines_name_the_address_the_folder_and_how_to_trust(running_server: RunningServer) -> None:
    folder = running_server.data_dir
    assert (
        f"listens on  127.0.0.1 port {running_server.port} (HTTP/1.1 and HTTP/2, TLS 1.2 and up)"
        in running_server.output
    )
    assert f"data        {folder}" in running_server.output
    assert f"curl --cacert {folder}/tls/ca.pem {running_server.url}/healthz" in running_server.output
    for system in ("Debian", "Fedora", "macOS", "Windows", "Chrome", "Firefox"):
        assert f"  {system}" in running_server.output
    assert f"ready: {running_server.url}" in running_server.output


def test_the_curl_line_that_it_prints_works(running_server: RunningServer, need: Need) -> None:
    need("curl")
    line = running_server.wait_for(r"  curl +(curl .*)")[1]
    answer = subprocess.run([need("sh"), "-c", line], capture_output=True, text=True, check=True)
    assert answer.stdout == '{"status":"ok"}'


def test_secrets_on_disk_are_for_their_owner_alone(running_server: RunningServer) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((running_server.data_dir / name).stat().st_mode)

    assert [mode("."), mode("tls")] == [0o700, 0o700]
    assert [mode(name) for name in ("tls/key.pem", "tls/ca-key.pem", "master.key")] == [0o600] * 3


def test_workers_share_the_port(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", "--workers", "2", data_dir=tmp_path / "data")
    with server.client() as client:
        sign_up(client, "a@shop.example")
        for _ in range(8):
            with server.client() as another:
                log_in(another, "a@shop.example")
    assert server.stop() == 0


def test_a_brought_certificate_is_served_and_no_local_one_is_made(start_server: StartServer, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--issuer", "https://auth.shop.example"]
    server = start_server("serve", *options, data_dir=tmp_path / "data")
    context = ssl.create_default_context(cafile=str(cert))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    with handshake(server.port, context, "auth.shop.example") as connection:
        served = connection.getpeercert(binary_form=True)
    assert served == der(cert)
    assert not (tmp_path / "data" / "tls" / "ca.pem").exists()
    assert "local CA" not in server.output
    assert server.stop() == 0


def test_a_key_that_no_worker_could_read_is_served_from_a_copy_that_goes_with_the_server(
    start_server: StartServer, tmp_path: Path, need: Need
) -> None:
    explicit = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-param_enc", "explicit"]  # no curve's name
    spelled_out = subprocess.run([need("openssl"), *explicit], check=True, capture_output=True).stdout
    private = serialization.load_pem_private_key(spelled_out, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    cert, key = make_certificate(
        tmp_path, key=ec.derive_private_key(private.private_numbers().private_value, ec.SECP256R1())
    )
    convert = [need("openssl"), "pkcs8", "-topk8", "-nocrypt"]
    in_pkcs8 = subprocess.run(convert, input=spelled_out, check=True, capture_output=True).stdout
    key.write_bytes(in_pkcs8)
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--issuer", "https://auth.shop.example"]
    server = start_server("serve", *options, data_dir=tmp_path / "data")
    assert served_certificate(server.port) == der(cert)
    assert key.read_bytes() == in_pkcs8
    (copy,) = (tmp_path / "data" / "tls").rglob("key.pem")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert server.stop() == 0
    assert list((tmp_path / "data" / "tls").iterdir()) == []


def test_clear_text_is_served_on_loopback_when_asked_for(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", "--http", data_dir=tmp_path / "data")
    with socket.create_connection(("127.0.0.1", server.port), timeout=ENDED_WITHIN_S) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert "clear text" in server.output
    assert not (tmp_path / "data" / "tls").exists()
    assert server.stop() == 0


def test_settings_come_from_the_environment_and_options_win(start_server: StartServer, tmp_path: Path) -> None:
    environment = {
        "JOTGATE_ISSUER": "https://ignored.example",
        "JOTGATE_AUDIENCE": "orders",
        "JOTGATE_DATA_DIR": str(tmp_path / "ignored"),
    }
    issuer = "https://localhost/auth"
    server = start_server("serve", "--issuer", issuer, data_dir=tmp_path / "data", env=environment)
    assert f"issuer      {issuer}" in server.output
    assert not (tmp_path / "ignored").exists()
    assert f"ready: {issuer}" in server.output  # readiness is asked for below the issuer's path
    assert server.stop() == 0


# Whom it refuses to start for


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """What `jotgate serve` says when it refuses to start before it makes anything."""

    def refusal(*options: str, **environment: str) -> str:
        ended = serve(tmp_path, *options, **environment)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert not (tmp_path / "data").exists()
        return ended.stderr

    return refusal


def assert_one_sentence(ended: subprocess.CompletedProcess[str], status: int, sentence: str) -> None:
    assert is_one_sentence(ended.stderr, sentence), ended.stderr
    assert "ready" not in ended.stdout
    assert ended.returncode == status


def is_one_sentence(told: str, sentence: str) -> bool:
    return re.fullmatch(rf"error: [^\n]*{sentence}[^\n]*\n", told) is not None


def test_a_port_in_use_is_told_and_its_server_goes_on(
    refused: Callable[..., str], running_server: RunningServer
) -> None:
    port = running_server.port
    told = refused("--port", str(port))
    assert told == (
        f"error: port {port} on 127.0.0.1 is in use: stop the program that listens there, or choose another --port\n"
    )
    with running_server.client() as client:
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "192.0.2.1"], "--host 192.0.2.1 is not an address of this machine"),
        (["--host", "no.such.host.invalid"], "neither an address nor a name"),
        (["--http", "--host", EVERYWHERE], "would send passwords and tokens over the network unencrypted"),
        (["--tls-cert", "x.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-key", "x.pem"], "--tls-cert and --tls-key belong together"),
        (["--http", "--tls-cert", "x.pem", "--tls-key", "x.pem"], "--http means no TLS"),
        (["--issuer", "http://auth.shop.example"], "issuer must be an https:// URL"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_sentence(
    refused: Callable[..., str], options: list[str], sentence: str
) -> None:
    assert is_one_sentence(refused(*options), sentence)


def test_a_secret_that_signs_is_refused_for_several_processes(refused: Callable[..., str]) -> None:
    told = refused("--workers", "2", JOTGATE_SIGNING_ALGORITHM="HS256")
    assert is_one_sentence(told, "JOTGATE_SIGNING_ALGORITHM=HS256 is for one process alone, so not for --workers 2")


def test_clear_text_from_the_environment_is_refused_alike(refused: Callable[..., str]) -> None:
    told = refused("--host", EVERYWHERE, JOTGATE_HTTP="true")
    assert is_one_sentence(told, "would send passwords and tokens over the network")


@pytest.mark.parametrize("proxies", [("10.0.0.0/8",), 1])
def test_clear_text_is_taken_behind_a_trusted_proxy(proxies: tuple[str, ...] | int) -> None:
    options = ServeOptions(
        data=None,
        host=EVERYWHERE,
        port=80,
        issuer=None,
        tls_cert=None,
        tls_key=None,
        http=True,
        workers=1,
        log_level="warning",
    )
    behind = Settings(issuer="https://auth.shop.example", trusted_proxies=proxies, http=True)
    assert tls_faults(options, behind, EVERYWHERE) == []
    assert len(tls_faults(options, Settings(http=True), EVERYWHERE)) == 1


def test_a_certificate_that_cannot_be_served_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, last_day=-1)
    assert is_one_sentence(refused("--tls-cert", str(cert), "--tls-key", str(key)), "own.pem expired on")


def test_a_key_that_everybody_can_read_is_refused_with_what_to_do(refused: Callable[..., str], tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    key.chmod(0o644)
    told = refused("--tls-cert", str(cert), "--tls-key", str(key))
    assert is_one_sentence(told, r"everybody on this machine can read the private key .*: chmod 640 ")


def test_all_wrong_settings_are_told_at_once_and_nothing_is_made(
    refused: Callable[..., str], running_server: RunningServer
) -> None:
    told = refused(
        *("--port", str(running_server.port), "--tls-cert", "missing.pem"),
        JOTGATE_AUDIENC="shop",
        JOTGATE_ACCESS_TOKEN_TTL_S="9999",
        JOTGATE_TRUSTED_PROXIES="nonsense",
    )
    assert told.count("\n") == 5
    for part in ("JOTGATE_AUDIENC is not", "access_token_ttl_s must be", "trusted_proxies", "in use", "belong"):
        assert len(re.findall(rf"^error: .*{part}", told, re.MULTILINE)) == 1, told


def test_the_wrong_master_key_is_told_in_one_sentence(start_server: StartServer, tmp_path: Path) -> None:
    start_server("serve", data_dir=tmp_path / "data").stop()
    ended = serve(tmp_path, JOTGATE_MASTER_KEY="A" * 43)
    assert_one_sentence(ended, 2, "the master key does not open the access key")


def test_a_database_that_is_none_is_told_in_one_sentence(start_server: StartServer, tmp_path: Path) -> None:
    start_server("serve", data_dir=tmp_path / "data").stop()
    for left in (tmp_path / "data").glob("jotgate.sqlite3-*"):  # which may hold a whole database still
        left.unlink()
    (tmp_path / "data" / "jotgate.sqlite3").write_bytes(b"no database at all " * 500)
    ended = serve(tmp_path)
    assert_one_sentence(ended, ended.returncode, "jotgate.sqlite3")
    assert ended.returncode in (1, 2)


def test_a_hook_that_cannot_be_imported_is_told_in_one_sentence(tmp_path: Path) -> None:
    assert_one_sentence(
        serve(tmp_path, JOTGATE_CLAIMS_FOR="nothing.here:claims"), 2, "nothing.here:claims cannot be imported"
    )


def test_a_hook_lies_in_the_folder_where_the_server_is_started(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "shop_claims.py").write_text("def of(account):\n    return {'level': 7}\n")
    server = start_server("serve", data_dir=tmp_path / "data", env={"JOTGATE_CLAIMS_FOR": "shop_claims:of"})
    with server.client() as client:
        sign_up(client, "a@shop.example")
        text = log_in(client, "a@shop.example")["access_token"]
    assert server.stop() == 0
    shown = subprocess.run([*jotgate_command(), "inspect"], input=text, capture_output=True, text=True, check=True)
    assert re.search(r"level +7", shown.stdout)


def test_without_the_server_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; from jotgate.cli import main; sys.exit(main(['serve']))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert_one_sentence(ended, 1, r"typer is not installed; the command needs it: pip install 'jotgate\[server\]'")


def test_without_the_demo_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['fastapi'] = None; from jotgate.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "demo", "--data", str(tmp_path / "data"), "--port", str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_one_sentence(ended, 1, r"fastapi is not installed; the command needs it: pip install 'jotgate\[demo\]'")


def test_checks_of_an_address_leave_it_free() -> None:
    port = free_port()
    check_can_listen("127.0.0.1", port)
    check_can_listen("127.0.0.1", port)
    assert resolve_host("localhost") == "127.0.0.1"
    assert resolve_host("::1") == "::1"


def test_a_port_below_1024_is_refused_to_those_who_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)  # tests run as root, whom nothing is refused
    with pytest.raises(SettingsError, match="port 443 needs the rights of an administrator"):
        check_can_listen("127.0.0.1", 443)


# How it ends


def stop_group(server: RunningServer) -> int:
    """SIGTERM for all processes at once, as systemd does it."""
    os.killpg(server.process.pid, signal.SIGTERM)
    return server.stop()


@pytest.mark.parametrize("end", [RunningServer.interrupt, RunningServer.stop, stop_group])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_is_clean(
    start_server: StartServer, tmp_path: Path, end: Callable[[RunningServer], int], workers: str
) -> None:
    server = start_server("serve", "--workers", workers, data_dir=tmp_path / "data")
    assert end(server) == 0
    assert server.output.splitlines()[-1].startswith("ready: ")
    assert not server.left_processes


def test_an_open_idle_connection_does_not_hold_the_stop_up(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    with handshake(server.port, server.trust()) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
    assert "Killing" not in server.output


def test_a_login_under_way_is_answered_before_the_end(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    with server.client() as client:
        sign_up(client, "a@shop.example")
    body = f'{{"email": "a@shop.example", "password": "{PASSWORD}", "delivery": "body"}}'.encode()
    head = (
        f"POST /v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        "\r\nExpect: 100-continue"
    )
    with handshake(server.port, server.trust()) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # the request is under way: its body is asked for
        os.kill(server.process.pid, signal.SIGTERM)
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0


# Python's own start cannot be covered: the first moment is that in which main() has set the signals' handlers.
MAIN = """
import sys
from jotgate import cli
set_handlers = cli._stop_at_once
cli._stop_at_once = lambda: (set_handlers(), print("begun", flush=True))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "after"),
    [
        (signal.SIGINT, "begun"),
        (signal.SIGTERM, "begun"),
        (signal.SIGINT, "jotgate"),
        (signal.SIGINT, "  Firefox"),
        (signal.SIGTERM, "  Firefox"),
    ],
)
def test_a_stop_in_the_middle_of_the_start_is_as_clean(tmp_path: Path, number: signal.Signals, after: str) -> None:
    command = [sys.executable, "-c", MAIN, "serve", "--data", str(tmp_path / "data"), "--port", str(free_port())]
    with program(command) as starting:
        assert starting.stdout is not None
        assert any(line.startswith(after) for line in starting.stdout)
        os.killpg(starting.pid, number)
        rest, _ = starting.communicate(timeout=ENDED_WITHIN_S)
    assert "Traceback" not in rest
    assert starting.returncode == 0


def test_a_killed_main_process_leaves_nobody_on_the_port(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", "--workers", "2", data_dir=tmp_path / "data")
    os.kill(server.process.pid, signal.SIGKILL)
    wait_until_free(server.port)


def served_certificate(port: int) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only looked at
    with handshake(port, context) as connection:
        return connection.getpeercert(binary_form=True) or b""


def test_sighup_replaces_the_workers_without_a_gap(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    before = workers(server)
    os.kill(server.process.pid, signal.SIGHUP)
    give_up_at = time.monotonic() + ENDED_WITHIN_S
    # Until there is one, and another one: processes come and go meanwhile.
    while set(workers(server)) & set(before) or len(workers(server)) != 1:
        assert served_certificate(server.port)  # raises if nobody listens meanwhile
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert server.stop() == 0
    assert server.output.splitlines()[-1].startswith("ready: ")


def test_a_stop_does_not_wait_until_every_worker_has_been_replaced(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", "--workers", "2", "--log-level", "info", data_dir=tmp_path / "data")
    os.kill(server.process.pid, signal.SIGHUP)
    server.wait_for(".*Respawning worker-1")
    assert server.stop() == 0
    assert "Respawning worker-2" not in server.output
    assert not server.left_processes


def workers(server: RunningServer) -> list[str]:
    return Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"JOTGATE_ISSUER": "https://localhost:9/auth"}, "JOTGATE_ISSUER: the demo is at"),
        ({"JOTGATE_ISSUER": "https://localhost:{port}/elsewhere"}, "JOTGATE_ISSUER: the demo is at"),
        ({"JOTGATE_HTTP": "1"}, "JOTGATE_HTTP: the demo shows HTTPS"),
        ({"JOTGATE_MASTER_KEY": "short", "JOTGATE_FOO": "1"}, "JOTGATE_FOO is not a setting"),
    ],
)
def test_the_demo_refuses_settings_that_its_session_could_not_work_with(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    port = free_port()
    command = [*jotgate_command(), "demo", "--data", str(tmp_path / "data"), "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    given = {name: value.format(port=port) for name, value in environment.items()}
    ended = subprocess.run(
        command, env=clean | given, capture_output=True, text=True, timeout=ENDED_WITHIN_S, check=False
    )
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("error: ") == len(environment)
    assert not (tmp_path / "data").exists()


def test_a_closed_standard_output_is_no_reason_not_to_serve(tmp_path: Path, need: Need) -> None:
    port = free_port()
    command = [*jotgate_command(), "serve", "--data", str(tmp_path / "data"), "--port", str(port)]
    with program(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.STDOUT) as server:
        give_up_at = time.monotonic() + ENDED_WITHIN_S
        ask = [need("curl"), "-fsk", f"https://localhost:{port}/readyz"]
        while subprocess.run(ask, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < give_up_at
            assert server.poll() is None
            time.sleep(0.05)
        server.terminate()
        assert server.wait(ENDED_WITHIN_S) == 0


def test_a_closed_terminal_ends_what_was_started_in_it(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [*jotgate_command(), "serve", "--data", str(tmp_path / "data"), "--port", str(free_port())]
    with program(command, stdin=theirs) as server:
        assert server.stdout is not None
        assert any(line.startswith("ready: ") for line in server.stdout)
        os.kill(server.pid, signal.SIGHUP)
        rest, _ = server.communicate(timeout=ENDED_WITHIN_S)
    os.close(ours)
    os.close(theirs)
    assert (server.returncode, rest) == (0, "")


def test_a_reader_that_has_gone_is_no_reason_to_stop_serving(tmp_path: Path, need: Need) -> None:
    port = free_port()
    command = [*jotgate_command(), "serve", "--data", str(tmp_path / "data"), "--port", str(port)]
    with program(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.stdout.close()
        give_up_at = time.monotonic() + ENDED_WITHIN_S
        ask = [need("curl"), "-fsk", f"https://localhost:{port}/readyz"]
        while subprocess.run(ask, capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        server.terminate()
        assert server.wait(ENDED_WITHIN_S) == 0


def test_a_worker_that_dies_ends_the_server_with_a_sentence(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    (worker,) = workers(server)
    os.kill(int(worker), signal.SIGKILL)
    server.wait_for("error: a worker process ended unexpectedly, so the server stopped")
    assert server.interrupt() == 1  # it has ended by itself, which is what its status says


def test_nothing_secret_is_told_at_any_log_level(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", "--log-level", "debug", data_dir=tmp_path / "data")
    with server.client() as client:
        sign_up(client, "a@shop.example")
        tokens = log_in(client, "a@shop.example")
        client.post("/v1/login", json={"email": "a@shop.example", "password": "wrong " + PASSWORD})
        client.get("/v1/account", headers={"Authorization": f"Bearer {tokens['access_token']}"})
        again = client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
        client.post("/v1/logout", json={"refresh_token": again["refresh_token"]})
        client.get("/v1/account?token=" + tokens["access_token"])
    server.stop()
    told = server.output
    assert '"event": "login"' in told  # so the log is really on
    master_key = (tmp_path / "data" / "master.key").read_text().strip()
    for secret in (
        PASSWORD,
        master_key,
        *tokens["access_token"].split("."),
        tokens["refresh_token"],
        again["refresh_token"],
    ):
        assert secret not in told
