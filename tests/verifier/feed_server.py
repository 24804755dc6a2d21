"""A revocation feed that a `FakeIssuer` serves, well or badly; it signs by jotgate's core, and knows no verifier."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jotgate import Key, KeySet, Revocation, generate_key
from jotgate.core.feed import sign_event, sign_snapshot
from tests.verifier.servers import WITHIN_S, Answering, FakeIssuer, http_answer

KEEP_S = 3_720
HEARTBEAT_S = 0.1  # the real one has 5 s; tests do not want to wait so long

SNAPSHOT, STREAM, KEYS = "/revocations", "/revocations/stream", "/revocation-keys.json"
RESYNC = b"event: resync\ndata: -\n\n"


@dataclass(eq=False)
class FakeFeed:
    """The log and who reads from it. `seq` is how many entries there are."""

    issuer: FakeIssuer
    key: Key = field(default_factory=lambda: generate_key("ES256"))
    signer: Key | None = None
    """Signs instead of `key`."""
    named: str | None = None
    """The issuer that messages name, if another one."""
    log_id: str = "log"
    log: list[Revocation] = field(default_factory=list)
    clock_ahead_s: int = 0
    positions: list[str] = field(default_factory=list)
    """From where streams were read."""
    _cuts: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def publish(self, *, stream: bool = True) -> None:
        """Name the feed in the issuer's metadata, and serve it."""
        server = self.issuer.server
        members = {
            "jotgate_revocations_uri": server.url + SNAPSHOT,
            "jotgate_revocations_jwks_uri": server.url + KEYS,
        }
        if stream:
            members["jotgate_revocations_stream_uri"] = server.url + STREAM
        server.answers[self.issuer.metadata_path] = http_answer(self.issuer.metadata | members)
        server.answers |= self.answers

    @property
    def answers(self) -> dict[str, Answering]:
        """What a feed that works answers."""
        return {SNAPSHOT: self.answer, STREAM: self.stream, KEYS: http_answer(KeySet([self.key]).to_jwks())}

    def revoke(self, *sids: str, kind: str = "session") -> None:
        with self._changed:
            self.log.append(Revocation(kind, sids, self.now))  # type: ignore[arg-type] # one of its kinds
            self._changed.notify_all()

    def cut(self) -> None:
        """End all streams without a word."""
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()

    @property
    def now(self) -> int:
        return int(time.time()) + self.clock_ahead_s

    def snapshot(self, seq: int | None = None, *, now: int | None = None) -> bytes:
        seq = len(self.log) if seq is None else seq
        return sign_snapshot(
            self.signer or self.key,
            issuer=self.named or self.issuer.issuer,
            log_id=self.log_id,
            seq=seq,
            now=self.now if now is None else now,
            keep_s=KEEP_S,
            revocations=self.log[:seq],
        ).encode()

    def frame(self, prev: int, seq: int, *, now: int | None = None, revocations: Sequence[Revocation] = ()) -> bytes:
        signed = sign_event(
            self.signer or self.key,
            issuer=self.named or self.issuer.issuer,
            log_id=self.log_id,
            prev=prev,
            seq=seq,
            now=self.now if now is None else now,
            keep_s=KEEP_S,
            revocations=revocations or self.log[prev:seq],
        )
        kind = "heartbeat" if prev == seq else "revocations"
        return f"id: {self.log_id}.{seq}\nevent: {kind}\ndata: {signed}\n\n".encode()

    def frames(self, position: str) -> bytes:
        """What a server sends at once to whoever comes with that position."""
        head = len(self.log)
        log_id, _, seq = position.rpartition(".")
        if not position or position == f"{self.log_id}.{head}":
            missing = b""
        elif log_id == self.log_id and int(seq) < head:
            missing = self.frame(int(seq), head)
        else:
            missing = RESYNC
        return missing + self.frame(head, head)

    def answer(self, connection: ssl.SSLSocket) -> None:
        """Answer `/revocations`, with and without `after`."""
        asked = re.search(rb"\?after=(\S+)", self.issuer.server.heads[connection])
        http_answer(self.frames(asked[1].decode()) if asked else self.snapshot())(connection)

    def open(self, connection: ssl.SSLSocket) -> str:
        """Begin a stream; gives the position from which it is to go on."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        sent = re.search(rb"(?i)\r\nlast-event-id: ?(\S*)\r\n", self.issuer.server.heads[connection])
        position = sent[1].decode() if sent else ""
        self.positions.append(position)
        return position

    def stream(self, connection: ssl.SSLSocket) -> None:
        """Answer `/revocations/stream`, as it should be."""
        self.serve(connection, connection.sendall)

    def serve(self, connection: ssl.SSLSocket, send: Callable[[bytes], object]) -> None:
        """Send everything by `send` until the feed is cut."""
        position = self.open(connection)
        cuts = self._cuts
        log_id, seq = self.log_id, len(self.log)
        send(self.frames(position))
        while not self.issuer.server.stopping.is_set():
            with self._changed:
                if self._cuts == cuts and len(self.log) == seq:
                    self._changed.wait(HEARTBEAT_S)
            if self._cuts != cuts:
                connection.shutdown(2)
                return
            head = len(self.log)
            if self.log_id != log_id:
                log_id, seq = self.log_id, head
                send(RESYNC)
            send((self.frame(seq, head) if head > seq else b"") + self.frame(head, head))
            seq = head


def wait_until(true: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)
