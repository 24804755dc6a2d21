"""The feed over HTTP: what an app in this process answers, and what a real server streams."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from jotgate import KeySet, Policy, TokenError, verify_token
from jotgate.core.feed import FeedRefused, Message, parse_event, parse_snapshot
from tests.conftest import RunningServer, StartServer, log_in, sign_up
from tests.server.http.support import EMAIL, ORIGIN, Api, code


async def feed_keys(api: Api) -> KeySet:
    return KeySet.from_jwks((await api.http.get("/.well-known/revocation-keys.json")).content)


def events(text: str, keys: KeySet, issuer: str) -> Iterator[Message]:
    for block in text.split("\n\n")[:-1]:
        yield parse_event(block.rpartition("data: ")[2], keys, issuer)


def sids(message: Message) -> set[str]:
    return {sid for each in message.revocations for sid in each.ids}


async def log_in_and_out(api: Api) -> tuple[str, str]:
    """The session's id and its access token."""
    tokens = await api.login()
    sid = api.app.verifier().verify(tokens["access_token"]).session_id
    assert sid is not None
    assert (await api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]})).status_code == 204
    return sid, tokens["access_token"]


async def published(api: Api, sid: str) -> None:
    """Wait until the follower has read the log."""
    keys = await feed_keys(api)
    async with asyncio.timeout(10):
        while True:
            if sid in sids(parse_snapshot((await api.http.get("/revocations")).content, keys, ORIGIN)):
                return
            await asyncio.sleep(0.02)


async def test_the_metadata_names_the_feed(api: Api) -> None:
    for path in ("openid-configuration", "oauth-authorization-server"):
        told = (await api.http.get(f"/.well-known/{path}")).json()
        assert told["jotgate_revocations_uri"] == f"{ORIGIN}/revocations"
        assert told["jotgate_revocations_stream_uri"] == f"{ORIGIN}/revocations/stream"
        assert told["jotgate_revocations_jwks_uri"] == f"{ORIGIN}/.well-known/revocation-keys.json"


async def test_a_logout_is_in_the_snapshot_and_in_the_events(api: Api) -> None:
    await api.signup()
    keys = await feed_keys(api)
    before = await api.http.get("/revocations")
    assert before.headers["content-type"] == "application/revocations+jwt"
    assert before.headers["cache-control"] == "no-cache"
    message = parse_snapshot(before.content, keys, ORIGIN)
    assert (message.seq, message.revocations, message.sent_at) == (0, (), api.clock.now)
    sid, _ = await log_in_and_out(api)
    await published(api, sid)
    after = await api.http.get("/revocations", params={"after": before.headers["etag"].strip('"')})
    assert after.headers["content-type"] == "text/event-stream"
    assert after.headers["cache-control"] == "no-store"
    first, heartbeat = events(after.text, keys, ORIGIN)
    assert (first.prev, first.seq, sids(first)) == (0, 1, {sid})
    assert (heartbeat.prev, heartbeat.seq) == (1, 1)


async def test_an_unchanged_snapshot_is_not_sent_again(api: Api) -> None:
    answer = await api.http.get("/revocations")
    again = await api.http.get("/revocations", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_the_feed_has_its_own_key_and_neither_is_taken_for_the_other(api: Api) -> None:
    """A feed event offered as a token, and a token offered as a feed event."""
    await api.signup()
    keys = await feed_keys(api)
    access_keys = KeySet.from_jwks((await api.http.get("/.well-known/jwks.json")).content)
    assert {key.kid for key in keys}.isdisjoint({key.kid for key in access_keys})
    _, token = await log_in_and_out(api)
    answer = await api.http.get("/revocations", params={"after": "x.0"})
    event = answer.text.rpartition("data: ")[2].strip()
    policy = Policy(issuer=ORIGIN, audience="api")
    for offered in (event, (await api.http.get("/revocations")).text):
        for trusted in (access_keys, keys):
            with pytest.raises(TokenError):
                verify_token(offered, trusted, policy, api.clock.now)
    for trusted in (access_keys, keys):
        for parse in (parse_event, parse_snapshot):
            with pytest.raises(FeedRefused):
                parse(token, trusted, ORIGIN)


async def test_the_feed_tells_nobodys_name_and_no_secret(api: Api) -> None:
    await api.signup()
    tokens = await api.login()
    claims = api.app.verifier().verify(tokens["access_token"])
    await api.post("/v1/logout", {"refresh_token": tokens["refresh_token"]})
    await published(api, str(claims.session_id))
    keys = await feed_keys(api)
    message = parse_snapshot((await api.http.get("/revocations")).content, keys, ORIGIN)
    told = repr(message.revocations)
    assert str(claims.session_id) in told
    for secret in (EMAIL, claims.subject, claims.token_id, tokens["refresh_token"][4:40]):
        assert str(secret) not in told


@pytest.mark.parametrize("after", ["", "x", "x.y", "x.-1", "x" * 200 + ".1"])
async def test_what_is_no_position_is_refused(api: Api, after: str) -> None:
    for path in ("/revocations", "/revocations/stream"):
        assert code(await api.http.get(path, params={"after": after})) == (400, "invalid_parameter")


async def test_a_position_given_twice_is_refused(api: Api) -> None:
    assert code(await api.http.get("/revocations?after=x.1&after=x.2")) == (400, "invalid_parameter")


async def test_other_methods_are_refused_and_any_origin_may_read(api: Api) -> None:
    for path in ("/revocations", "/revocations/stream"):
        answer = await api.http.request("POST", path)
        assert code(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
        told = await api.http.head(path)
        assert (told.status_code, told.content) == (200, b"")
        assert told.headers["access-control-allow-origin"] == "*"


class Stream:
    """A reader of a real server's stream."""

    def __init__(self, server: RunningServer, client: httpx2.Client, position: str | None = None) -> None:
        headers = {"last-event-id": position} if position else {}
        self._keys = KeySet.from_jwks(client.get("/.well-known/revocation-keys.json").content)
        self._issuer = server.url
        self._context = client.stream("GET", "/revocations/stream", headers=headers, timeout=15)
        self.response = self._context.__enter__()
        assert self.response.headers["content-type"] == "text/event-stream"
        self._lines = self.response.iter_lines()
        self.position = position

    def next(self) -> Message:
        said: dict[str, str] = {}
        for line in self._lines:
            if not line:
                break
            name, _, value = line.partition(": ")
            said[name] = value
        self.position = said["id"]
        return parse_event(said["data"], self._keys, self._issuer)

    def until(self, wanted: Callable[[Message], bool]) -> list[Message]:
        told = [self.next()]
        while not wanted(told[-1]):
            told.append(self.next())
        return told

    def close(self) -> None:
        self._context.__exit__(None, None, None)


def end_session(client: httpx2.Client, email: str) -> None:
    tokens = log_in(client, email)
    assert client.post("/v1/logout", json={"refresh_token": tokens["refresh_token"]}).status_code == 204


def test_a_real_server_streams_logouts_and_heartbeats_and_goes_on_where_a_reader_was(
    running_server: RunningServer, new_email: Callable[[], str]
) -> None:
    email = new_email()
    with running_server.client() as client:
        sign_up(client, email)
        stream = Stream(running_server, client)
        beat = stream.next()
        assert beat.prev == beat.seq
        end_session(client, email)
        told = stream.until(lambda message: bool(message.revocations))
        assert told[-1].prev == beat.seq
        following = stream.until(lambda message: not message.revocations)  # within 5 s
        assert following[-1].seq == told[-1].seq
        position = stream.position
        stream.close()
        end_session(client, email)
        resumed = Stream(running_server, client, position)
        missed = resumed.until(lambda message: bool(message.revocations))
        assert missed[-1].prev == told[-1].seq
        resumed.close()


def test_a_real_server_serves_no_more_streams_than_it_may_however_many_come_at_once(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("serve", data_dir=tmp_path / "data", env={"JOTGATE_FEED_CONNECTIONS": "3"})

    async def ask(method: str) -> tuple[int, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("localhost", server.port, ssl=server.trust())
        writer.write(f"{method} /revocations/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return int((await reader.readline()).split()[1]), writer

    async def ask_all(method: str) -> list[int]:
        answers = await asyncio.gather(*(ask(method) for _ in range(20)))
        for _, writer in answers:
            writer.close()
        return sorted(status for status, _ in answers)

    def wait_until(true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not true():  # the streams before have not ended yet
            assert time.monotonic() < deadline
            time.sleep(0.05)

    for _ in range(2):
        wait_until(lambda: asyncio.run(ask_all("GET")) == [200] * 3 + [503] * 17)
        wait_until(lambda: 200 in asyncio.run(ask_all("HEAD")))
    assert server.stop() == 0


def test_open_streams_do_not_hold_up_the_end_of_a_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("serve", data_dir=tmp_path / "data")
    with server.client() as client:
        streams = [Stream(server, client) for _ in range(3)]
        for stream in streams:
            stream.next()
        began = time.monotonic()
        assert server.stop() == 0, server.output
        assert time.monotonic() - began < 9  # after 10 s they would have been cut
        assert not server.left_processes


def test_a_log_restored_from_a_copy_gets_a_new_id(start_server: StartServer, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    first = start_server("serve", data_dir=data)
    with first.client() as client:
        sign_up(client, "a@shop.example")
    assert first.stop() == 0
    shutil.copytree(data, copy)
    second = start_server("serve", data_dir=data)
    with second.client() as client:
        end_session(client, "a@shop.example")
        stream = Stream(second, client)
        lived = stream.until(lambda message: message.seq == 1)[-1]
    second.kill()
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    third = start_server("serve", data_dir=data)
    with third.client() as client:
        restored = Stream(third, client).next()
    assert restored.seq == 0
    assert restored.log_id != lived.log_id
