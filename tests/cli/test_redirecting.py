"""The redirect from plain HTTP: where it leads to, what it refuses, and that it ends with the server."""

import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.cli.redirecting import answer
from tests.cli.test_serve import is_one_sentence, serve, wait_until_free, workers
from tests.conftest import RunningServer, StartServer, free_port, launch

ORIGIN = "https://auth.shop.example:8443"
WITHIN_S = 30


def request(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, "Host: evil.example", *fields, "", ""]).encode()


def parse(response: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = response.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z ]+", line)
    assert status, line
    headers = dict(field.split(": ", 1) for field in fields)
    assert len(headers) == len(fields)
    assert headers["Connection"] == "close"
    assert int(headers["Content-Length"]) == len(body)
    return int(status[1]), headers, body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("/", "/"),
        ("/reset?token=a%2Fb&next=/x", "/reset?token=a%2Fb&next=/x"),
        ("//evil.example", "/evil.example"),
        ("///evil.example//a", "/evil.example//a"),
        ("/\\evil.example", "/%5Cevil.example"),
        ("/@evil.example", "/@evil.example"),
        ("/a%0d%0aSet-Cookie:x", "/a%0d%0aSet-Cookie:x"),
        ('/"><script>#', "/%22%3E%3Cscript%3E%23"),
    ],
)
def test_whoever_comes_is_sent_to_the_same_path_of_the_issuer(method: str, target: str, to: str) -> None:
    status, headers, _ = parse(answer(request(f"{method} {target} HTTP/1.1"), ORIGIN))
    assert (status, headers["Location"]) == (308, ORIGIN + to)


@pytest.mark.parametrize(
    "raw",
    [
        request("POST /v1/login HTTP/1.1", "Content-Length: 40"),
        request("DELETE /v1/sessions/1 HTTP/1.1"),
        request("get / HTTP/1.1"),
        request("GET /v1/account HTTP/1.1", "Authorization: Bearer x"),
        request("GET /v1/account HTTP/1.1", "aUTHORIZATION : Bearer x"),
        request("GET / HTTP/1.1", "content-length: 40"),
        request("GET / HTTP/1.1", "Transfer-Encoding: chunked"),
    ],
)
def test_what_carries_something_is_refused_and_not_led_on(raw: bytes) -> None:
    status, headers, body = parse(answer(raw, ORIGIN))
    problem = json.loads(body)
    assert (status, problem["status"], problem["code"]) == (403, 403, "clear_text_refused")
    assert headers["Content-Type"] == "application/problem+json"
    assert "Location" not in headers
    assert ORIGIN in problem["detail"]


def test_a_refusal_of_head_has_no_body() -> None:
    head, _, body = answer(request("HEAD / HTTP/1.1", "Authorization: Bearer x"), ORIGIN).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 ")
    assert body == b""


def test_an_empty_body_carries_nothing() -> None:
    assert parse(answer(request("GET / HTTP/1.1", "Content-Length: 0"), ORIGIN))[0] == 308


@pytest.mark.parametrize(
    "line",
    [
        "GET http://evil.example/ HTTP/1.1",
        "GET evil.example HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET /",
        "GET / HTTP/2.0",
        "GET /\xff HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\n HTTP/1.1",
        "GET /\tx HTTP/1.1",
        "\x16\x03\x01",
        "",
    ],
)
def test_what_is_no_request_for_a_path_is_refused(line: str) -> None:
    assert parse(answer(request(line), ORIGIN))[0] == 400


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda part: b"GET /" + part + b" HTTP/1.1\r\n\r\n"))
def test_whatever_comes_leads_to_the_issuer_or_nowhere(raw: bytes) -> None:
    status, headers, _ = parse(answer(raw, ORIGIN))
    if status == 308:
        assert headers["Location"].startswith(ORIGIN + "/")
        assert not headers["Location"].startswith(ORIGIN + "//")


@pytest.fixture(scope="module")
def redirecting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, int]]:
    """A running server, and the port from which it redirects."""
    port = free_port()
    server = launch(["serve", "--redirect-port", str(port)], tmp_path_factory.mktemp("redirecting") / "data")
    yield server, port
    assert server.stop() == 0, server.output
    assert not server.left_processes
    wait_until_free(port)


def ask(port: int, raw: bytes) -> bytes:
    """Sends all of it, and returns what comes until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as connection:
        connection.sendall(raw)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_the_listener_answers_and_closes(redirecting: tuple[RunningServer, int]) -> None:
    server, port = redirecting
    assert f"  redirects   127.0.0.1 port {port} (plain HTTP) to {server.url}" in server.output
    status, headers, _ = parse(ask(port, request("GET /a?b HTTP/1.1")))
    assert (status, headers["Location"]) == (308, f"{server.url}/a?b")


def test_who_still_sends_a_body_can_do_so_and_read_the_refusal(redirecting: tuple[RunningServer, int]) -> None:
    _, port = redirecting
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as connection:
        connection.sendall(request("POST /v1/login HTTP/1.1", "Content-Length: 30000"))
        assert select.select([connection], [], [], WITHIN_S)[0]  # it has been answered
        for _ in range(6):  # slowly; raises where the other side has closed
            connection.sendall(b"a" * 5000)
            time.sleep(0.05)
        connection.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert parse(answered)[0] == 403


def test_a_head_that_is_too_long_is_refused(redirecting: tuple[RunningServer, int]) -> None:
    _, port = redirecting
    assert ask(port, request("GET / HTTP/1.1", "X: " + "a" * 20_000)).startswith(b"HTTP/1.1 431 ")


def test_who_says_nothing_is_let_go(redirecting: tuple[RunningServer, int]) -> None:
    _, port = redirecting
    began_at = time.monotonic()
    assert ask(port, b"GET / HT") == b""
    assert time.monotonic() - began_at < 15


def test_connections_are_bounded_and_https_does_not_feel_them(redirecting: tuple[RunningServer, int]) -> None:
    server, port = redirecting
    held = [socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) for _ in range(128)]
    wait_until(lambda: not answers(port), "all of them have been accepted, and nobody else is")
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
    for connection in held:
        connection.close()
    wait_until(lambda: answers(port), "others are welcome again")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.02)


def answers(port: int) -> bool:
    try:
        return ask(port, request("GET / HTTP/1.1")).startswith(b"HTTP/1.1 308 ")
    except ConnectionError:
        return False


def test_many_at_once_are_all_answered(redirecting: tuple[RunningServer, int]) -> None:
    _, port = redirecting
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(answers, [port] * 200))


def test_it_ends_with_a_main_process_that_is_killed(start_server: StartServer, tmp_path: Path) -> None:
    port = free_port()
    server = start_server("serve", "--redirect-port", str(port), data_dir=tmp_path / "data")
    os.kill(server.process.pid, signal.SIGKILL)
    wait_until_free(port)
    wait_until_free(server.port)


def test_its_own_end_is_told_and_https_goes_on(start_server: StartServer, tmp_path: Path) -> None:
    port = free_port()
    server = start_server("serve", "--redirect-port", str(port), data_dir=tmp_path / "data")
    os.kill(int(listening_child(server, port)), signal.SIGKILL)
    server.wait_for("error: the redirect from plain HTTP ended unexpectedly; HTTPS goes on without it")
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
    assert server.interrupt() == 0


def listening_child(server: RunningServer, port: int) -> str:
    """The one process that has the port's socket: no worker may."""
    wanted = f":{port:04X} "
    lines = Path("/proc/net/tcp").read_text().splitlines()
    inode = next(line.split()[9] for line in lines if wanted in line.split(maxsplit=2)[1] + " " and " 0A " in line)
    having = [
        pid
        for pid in [str(server.process.pid), *workers(server)]
        if any(os.readlink(link) == f"socket:[{inode}]" for link in Path(f"/proc/{pid}/fd").iterdir())
    ]
    assert len(having) == 1
    assert having[0] != str(server.process.pid)
    return having[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--http", "--redirect-port", "{free}"], "--redirect-port has no use with --http"),
        (["--port", "{free}", "--redirect-port", "{free}"], "--redirect-port .* is the --port itself"),
        (["--redirect-port", "{taken}"], "in use: stop the program .*, or choose another --redirect-port"),
    ],
)
def test_a_redirect_that_cannot_be_is_refused_in_one_sentence(
    running_server: RunningServer, tmp_path: Path, options: list[str], sentence: str
) -> None:
    given_ports = {"free": free_port(), "taken": running_server.port}
    ended = serve(tmp_path, *(option.format(**given_ports) for option in options))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert is_one_sentence(ended.stderr, sentence), ended.stderr
    assert not (tmp_path / "data").exists()
