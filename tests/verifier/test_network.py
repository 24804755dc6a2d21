"""A verifier that finds its keys over HTTPS, against a real TLS server that behaves well or badly."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable

import pytest

from jotgate import KeySourceError, UnknownKey, Verifier, generate_key
from tests.verifier.servers import WITHIN_S, Answering, FakeIssuer, IssuerServer, http_answer

Start = Callable[..., Verifier]


def failure(verifier: Verifier, token: str) -> str:
    """The reason why no keys could be had, as the error, the status and nothing else tell it."""
    with pytest.raises(KeySourceError) as raised:
        verifier.verify(token)
    status = verifier.status()
    assert not status.ready
    assert status.last_error is not None
    assert status.last_error in str(raised.value)
    return status.last_error


def test_the_first_token_is_verified_by_keys_found_from_the_issuers_name_alone(
    issuer: FakeIssuer, start: Start
) -> None:
    verifier = start()
    assert issuer.server.requests == []  # nothing happens before it is used
    assert verifier.verify(issuer.token()).subject == "alice"
    assert issuer.server.requests == ["/.well-known/oauth-authorization-server", "/jwks.json"]
    assert verifier.status().keys == (issuer.key.kid,)
    assert verifier.status().ready


def test_further_tokens_ask_nobody(issuer: FakeIssuer, start: Start) -> None:
    verifier = start()
    for _ in range(20):
        verifier.verify(issuer.token())
    assert issuer.server.requests.count("/jwks.json") == 1


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/auth",
        "/auth/.well-known/openid-configuration",
        "/auth/.well-known/oauth-authorization-server",
    ],
)
def test_an_issuer_with_a_path_is_found_at_each_of_the_three_places(server: IssuerServer, path: str) -> None:
    issuer = FakeIssuer(server, "/auth")
    issuer.publish()
    server.answers[path] = server.answers.pop(issuer.metadata_path)
    with issuer.verifier() as verifier:
        assert verifier.verify(issuer.token()).issuer == issuer.issuer


def test_an_answer_that_is_something_else_is_passed_over_for_the_next_place(server: IssuerServer) -> None:
    issuer = FakeIssuer(server, "/auth")
    issuer.publish()
    server.answers["/auth/.well-known/openid-configuration"] = server.answers[issuer.metadata_path]
    server.answers[issuer.metadata_path] = http_answer(b"<!doctype html><title>A shop</title>")
    with issuer.verifier() as verifier:
        assert verifier.verify(issuer.token()).issuer == issuer.issuer


def test_jwks_uri_makes_metadata_needless(issuer: FakeIssuer, start: Start) -> None:
    verifier = start(jwks_uri=f"{issuer.server.url}/jwks.json")
    verifier.verify(issuer.token())
    assert issuer.server.requests == ["/jwks.json"]


def unequal_issuers(issuer: str) -> list[object]:
    return [issuer + "/", issuer.upper(), issuer.replace("localhost", "127.0.0.1"), [issuer], None, 7]


@pytest.mark.parametrize("index", range(6))
def test_metadata_of_another_issuer_is_refused_however_similar(issuer: FakeIssuer, start: Start, index: int) -> None:
    named = unequal_issuers(issuer.issuer)[index]
    issuer.server.answers[issuer.metadata_path] = http_answer(issuer.metadata | {"issuer": named})
    assert "it is the metadata of" in failure(start(), issuer.token())


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost/jwks.json",
        "file:///etc/passwd",
        "ftp://localhost/jwks.json",
        "data:application/json,{}",
        "//localhost/jwks.json",
        "/jwks.json",
        "https://user@localhost/jwks.json",
        "https:///jwks.json",
        "https://localhost\\@evil/jwks.json",
        "https://localhost\\jwks.json",
        "https://localhost/jwks json",
        "https://localhost:99999/jwks.json",
        "https://[::1/jwks.json",
        "https://localhost/jwks.json#here",
        "https://löcalhost/",
        7,
        None,
    ],
)
def test_a_jwks_uri_that_is_not_plain_https_is_refused(issuer: FakeIssuer, start: Start, uri: object) -> None:
    issuer.server.answers[issuer.metadata_path] = http_answer(issuer.metadata | {"jwks_uri": uri})
    assert "jwks_uri" in failure(start(), issuer.token())
    assert "/jwks.json" not in issuer.server.requests


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/jwks.json"])
def test_redirects_are_not_followed(issuer: FakeIssuer, start: Start, status: str, path: str) -> None:
    issuer.server.answers["/elsewhere"] = issuer.server.answers[path]
    issuer.server.answers[path] = http_answer({}, status=status, headers=("Location: /elsewhere",))
    assert "are not followed" in failure(start(), issuer.token())
    assert "/elsewhere" not in issuer.server.requests


def drip(issuer: FakeIssuer) -> Answering:
    """One byte after the other, for ever: each arrives well within any timeout of a single read."""

    def answer(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        while not issuer.server.stopping.wait(0.01):
            connection.sendall(b" ")

    return answer


def drip_headers(issuer: FakeIssuer) -> Answering:
    def answer(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not issuer.server.stopping.wait(0.01):
            connection.sendall(b"x")

    return answer


def silence(issuer: FakeIssuer) -> Answering:
    def answer(connection: ssl.SSLSocket) -> None:
        del connection
        issuer.server.stopping.wait(WITHIN_S)

    return answer


@pytest.mark.parametrize("slow", [drip, drip_headers, silence])
@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/jwks.json"])
def test_a_slow_answer_ends_at_the_deadline_however_it_drips(
    issuer: FakeIssuer, start: Start, slow: Callable[[FakeIssuer], Answering], path: str
) -> None:
    issuer.server.answers[path] = slow(issuer)
    assert "no complete answer within" in failure(start(timeout_s=0.3), issuer.token())


def endless(connection: ssl.SSLSocket) -> None:
    """A body without a length that never ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 65536)


def endless_headers(connection: ssl.SSLSocket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n" + b"X-Filler: x\r\n" * 90 + b"\r\n")


def endless_chunks(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b" " * 0x1000 + b"\r\n")


@pytest.mark.parametrize(
    "large",
    [http_answer(b" " * (256 * 1024 + 1)), endless, endless_headers, endless_chunks],
    ids=["a byte too many", "endless body", "endless headers", "endless chunks"],
)
@pytest.mark.parametrize("path", ["/.well-known/oauth-authorization-server", "/jwks.json"])
def test_an_answer_over_256_kib_is_refused(issuer: FakeIssuer, start: Start, large: Answering, path: str) -> None:
    issuer.server.answers[path] = large
    assert "larger than 256 KiB" in failure(start(), issuer.token())


def test_an_answer_of_exactly_256_kib_is_taken(issuer: FakeIssuer, start: Start) -> None:
    sent = bytearray(b'{"keys":[' + b" " * (256 * 1024 - 11) + b"]}")
    issuer.server.answers["/jwks.json"] = http_answer(bytes(sent))
    assert len(sent) == 256 * 1024
    assert "no usable key" in failure(start(), issuer.token())  # it was read to its end and understood


def not_http(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" * 3)


def hang_up(connection: ssl.SSLSocket) -> None:
    connection.shutdown(2)


def cut_off_without_length(connection: ssl.SSLSocket) -> None:
    """The TCP connection ends in the middle of a body that only its end would delimit: TLS says nothing of an end."""
    connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"keys":[]}')
    connection.shutdown(2)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (http_answer(b"\xff\xfe garbage"), "not the JSON object"),
        (http_answer(b""), "not the JSON object"),
        (http_answer([]), "not the JSON object"),
        (http_answer(b'{"keys":[],"keys":[]}'), "duplicate_member"),
        (http_answer(b'{"keys":' + b"[" * 2000 + b"]" * 2000 + b"}"), "nesting_too_deep"),
        (http_answer({}, status="500 Internal Server Error"), "status 500"),
        (http_answer({}, status="204 No Content"), "status 204"),
        (http_answer({}, headers=("Content-Encoding: gzip",)), "compressed"),
        (http_answer({"keys": []}, length=500), "cut off"),
        (not_http, "not an HTTP answer"),
        (hang_up, "broke off"),
        (cut_off_without_length, "broke off"),
    ],
)
def test_a_broken_key_set_gives_a_reason_and_no_keys(
    issuer: FakeIssuer, start: Start, bad: Answering, said: str
) -> None:
    issuer.server.answers["/jwks.json"] = bad
    reason = failure(start(), issuer.token())
    assert said in reason
    assert "garbage" not in reason


def test_a_certificate_of_another_authority_is_refused(issuer: FakeIssuer, start: Start) -> None:
    reason = failure(start(ca_file=issuer.server.certificates.other_ca), issuer.token())
    assert "the certificate is not trusted" in reason
    assert issuer.server.requests == []


def test_the_systems_authorities_do_not_vouch_for_a_private_one(issuer: FakeIssuer, start: Start) -> None:
    assert "the certificate is not trusted" in failure(start(ca_file=None), issuer.token())


def test_a_certificate_for_another_name_is_refused(issuer: FakeIssuer, start: Start) -> None:
    wrong = f"https://127.0.0.2:{issuer.server.port}/jwks.json"
    reason = failure(start(jwks_uri=wrong), issuer.token())
    assert "no connection" in reason or "the certificate is not trusted" in reason


def test_a_missing_ca_file_is_named(issuer: FakeIssuer, start: Start) -> None:
    assert "/nowhere/ca.pem" in failure(start(ca_file="/nowhere/ca.pem"), issuer.token())


def test_keys_that_the_issuer_replaces_are_fetched_when_a_token_names_the_new_one(
    issuer: FakeIssuer, start: Start
) -> None:
    verifier = start()
    old = issuer.token()
    verifier.verify(old)
    issuer.key = generate_key("ES256")
    issuer.publish()
    assert verifier.verify(issuer.token()).subject == "alice"
    with pytest.raises(UnknownKey):  # and the old one is gone, as the issuer says
        verifier.verify(old)


def test_a_flood_of_unknown_keys_causes_one_fetch(issuer: FakeIssuer, start: Start) -> None:
    verifier = start(cooldown_s=WITHIN_S * 100)
    verifier.verify(issuer.token())
    strangers = [issuer.token(generate_key("ES256")) for _ in range(40)]
    refused = threading.Semaphore(0)

    def present(token: str) -> None:
        with pytest.raises(UnknownKey):
            verifier.verify(token)
        refused.release()

    threads = [threading.Thread(target=present, args=(token,)) for token in strangers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(refused.acquire(blocking=False) for _ in strangers)
    assert issuer.server.requests.count("/jwks.json") == 2
    assert verifier.verify(issuer.token()).subject == "alice"


def test_fetching_the_same_keys_again_forgets_no_verified_token(issuer: FakeIssuer, start: Start) -> None:
    """Else a stranger's token under an unknown key could empty the cache again and again."""
    verifier, token = start(), issuer.token()
    verifier.verify(token)
    with pytest.raises(UnknownKey):
        verifier.verify(issuer.token(generate_key("ES256")))
    assert issuer.server.requests.count("/jwks.json") == 2
    before = verifier.status().cache
    assert verifier.verify(token).subject == "alice"
    after = verifier.status().cache
    assert before is not None
    assert after is not None
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_many_threads_at_the_first_start_share_one_fetch(issuer: FakeIssuer, start: Start) -> None:
    verifier, token = start(), issuer.token()
    gate, subjects = threading.Barrier(16), list[str]()

    def present() -> None:
        gate.wait(WITHIN_S)
        subjects.append(verifier.verify(token).subject)

    threads = [threading.Thread(target=present) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert subjects == ["alice"] * 16
    assert issuer.server.requests.count("/jwks.json") == 1


def test_the_keys_are_refreshed_in_the_background_without_anybody_asking(issuer: FakeIssuer, start: Start) -> None:
    verifier = start(refresh_s=0.05)
    verifier.verify(issuer.token())
    issuer.server.wait_requests(3, "/jwks.json")


@pytest.mark.parametrize(
    "bad",
    [
        http_answer({"keys": []}),
        http_answer({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "x"}]}),
        http_answer(b"garbage"),
        http_answer({}, status="500 Internal Server Error"),
        http_answer({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}),
        hang_up,
    ],
    ids=["empty", "malformed key", "garbage", "500", "symmetric", "hang-up"],
)
def test_a_failed_or_worse_fetch_never_drops_good_keys(issuer: FakeIssuer, start: Start, bad: Answering) -> None:
    verifier = start(refresh_s=0.05)
    token = issuer.token()
    verifier.verify(token)
    fetched = issuer.server.requests.count("/jwks.json")
    issuer.server.answers["/jwks.json"] = bad
    issuer.server.wait_requests(fetched + 4, "/jwks.json")  # at least two of them began after the change
    assert verifier.verify(token).subject == "alice"
    assert verifier.status().last_error is not None
    issuer.publish()
    fetched = issuer.server.requests.count("/jwks.json")
    issuer.server.wait_requests(fetched + 4, "/jwks.json")
    assert verifier.status().last_error is None


async def test_verify_inside_a_running_loop_does_not_wait_and_averify_lets_other_tasks_run(
    issuer: FakeIssuer, start: Start
) -> None:
    verifier, token = start(), issuer.token()
    held = threading.Event()
    serve = issuer.server.answers["/jwks.json"]

    def wait_then_serve(connection: ssl.SSLSocket) -> None:
        held.wait(WITHIN_S)
        serve(connection)

    issuer.server.answers["/jwks.json"] = wait_then_serve
    with pytest.raises(KeySourceError):
        verifier.verify(token)
    waiting = [asyncio.create_task(verifier.averify(token)) for _ in range(5)]
    await asyncio.sleep(0)  # they all wait now; had one blocked the loop, this line would not go on to open the gate
    waiting.pop().cancel()  # one that gives up takes nothing from the others
    held.set()
    assert [claims.subject for claims in await asyncio.gather(*waiting)] == ["alice"] * 4
    assert issuer.server.requests.count("/jwks.json") == 1


async def test_averify_finds_a_replaced_key(issuer: FakeIssuer, start: Start) -> None:
    verifier = start()
    await verifier.averify(issuer.token())
    issuer.key = generate_key("ES256")
    issuer.publish()
    assert (await verifier.averify(issuer.token())).subject == "alice"


def test_wait_ready_lasts_through_failed_fetches(issuer: FakeIssuer, start: Start) -> None:
    good = issuer.server.answers.pop("/jwks.json")
    verifier = start()

    def mend() -> None:
        issuer.server.wait_requests(1, "/jwks.json")
        issuer.server.answers["/jwks.json"] = good

    late = threading.Thread(target=mend)
    late.start()
    verifier.wait_ready(WITHIN_S)
    late.join()
    assert verifier.status().ready


async def test_await_ready_does_the_same_in_a_loop(issuer: FakeIssuer, start: Start) -> None:
    verifier = start()
    await verifier.await_ready(WITHIN_S)
    assert verifier.verify(issuer.token()).subject == "alice"


def test_wait_ready_raises_with_the_reason_when_time_is_up(issuer: FakeIssuer, start: Start) -> None:
    issuer.server.answers.pop("/jwks.json")
    verifier = start()
    assert "status 404" in failure(verifier, issuer.token())
    with pytest.raises(KeySourceError, match="status 404"):
        verifier.wait_ready(0.1)


def test_close_ends_the_thread_and_the_next_use_starts_it_again(issuer: FakeIssuer, start: Start) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "jotgate-verifier"]

    before = threads()
    verifier = start()
    assert threads() == before
    verifier.verify(issuer.token())
    (thread,) = set(threads()) - set(before)
    assert thread.daemon
    verifier.close()
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    verifier.verify(issuer.token())
    assert set(threads()) - set(before)


def test_a_verifier_that_nobody_holds_any_more_ends_its_thread(issuer: FakeIssuer) -> None:
    before = set(threading.enumerate())
    verifier = issuer.verifier()
    verifier.verify(issuer.token())
    started = [thread for thread in set(threading.enumerate()) - before if thread.name == "jotgate-verifier"]
    del verifier
    for thread in started:
        thread.join(WITHIN_S)
    assert started
    assert not any(thread.is_alive() for thread in started)
