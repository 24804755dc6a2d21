"""A closed loop of HTTP/1.1 connections against one server on this machine; it knows no product and no endpoint.

One thread, `epoll`, one request under way on each connection, the next as soon as the answer has been judged. That
costs this process about a quarter of what the fastest server here spends on an answer, and it has a core of its own.
Every answer is judged: one that is wrong ends the run.
"""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

_STALLED_AFTER_S = 30.0
_POLL_S = 1.0
_READ_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"


class WrongAnswer(Exception):
    """The server did not do what is measured."""


class Work(Protocol):
    """What is asked of a server again and again."""

    def ask(self) -> tuple[bytes, object]:
        """Return the next request, whole, and whatever `judge` needs to know of it."""

    def judge(self, asked: object, status: int, body: bytes) -> None:
        """Take the answer. Raises WrongAnswer."""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it: how many answers in how many seconds, and how long each took, in seconds."""

    answers: int
    seconds: float
    took_s: tuple[float, ...]

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


def drive(port: int, work: Work, *, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so long; what is under way at the end is waited for, and counts.

    Raises:
        WrongAnswer: the first answer that is not what was asked for, or none for half a minute.
    """
    took: list[float] = []
    with _opened(port, connections) as (poll, lines):
        clock = time.perf_counter
        began = last = clock()
        deadline = began + seconds
        for line in lines.values():
            line.send(work)
        busy = len(lines)
        while busy:
            for number, _ in poll.poll(_POLL_S):
                line = lines[number]
                answer = line.receive()
                if answer is None:
                    continue
                last = clock()
                took.append(last - line.sent_at)
                work.judge(line.asked, *answer)
                if last < deadline:
                    line.send(work)
                else:
                    busy -= 1
            if clock() - last > _STALLED_AFTER_S:
                raise WrongAnswer(f"no answer for {_STALLED_AFTER_S:.0f} s")
    return Load(len(took), last - began, tuple(took))


class _Line:
    """One connection, and the request under way on it."""

    __slots__ = ("asked", "received", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.asked: object = None
        self.sent_at = 0.0

    def send(self, work: Work) -> None:
        request, self.asked = work.ask()
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, bytes] | None:
        """Return status and body; None while the answer is not whole."""
        read = self.socket.recv(_READ_BYTES)
        if not read:
            raise WrongAnswer("the server closed the connection")
        self.received += read
        answer = parse_answer(self.received)
        if answer is not None:
            self.received = b""
        return answer


def parse_answer(raw: bytes) -> tuple[int, bytes] | None:
    """Return status and body of one whole HTTP/1.1 response (RFC 9112); None while some of it is missing.

    Raises:
        WrongAnswer: there is more than one response, or no telling where it ends.
    """
    end = raw.find(_HEAD_END)
    if end < 0:
        return None
    status, head, body = int(raw[9:12]), raw[:end].lower() + b"\r\n", raw[end + len(_HEAD_END) :]
    found = head.find(b"\r\ncontent-length:")
    if found >= 0:
        start = found + len(b"\r\ncontent-length:")
        missing = int(head[start : head.index(b"\r\n", start)]) - len(body)
    elif b"\r\ntransfer-encoding: chunked\r\n" in head:
        if not body.endswith(b"0\r\n\r\n"):
            return None
        return status, _joined(body)
    elif status == 204:
        missing = -len(body)
    else:
        raise WrongAnswer("the answer does not say where it ends")
    if missing < 0:
        raise WrongAnswer("more than one answer to one request")
    return (status, body) if missing == 0 else None


def _joined(chunks: bytes) -> bytes:
    body, start = b"", 0
    while True:
        line_end = chunks.index(b"\r\n", start)
        size = int(chunks[start:line_end], 16)
        if size == 0:
            return body
        body += chunks[line_end + 2 : line_end + 2 + size]
        start = line_end + 2 + size + 2


@contextmanager
def _opened(port: int, connections: int) -> Iterator[tuple[select.epoll, dict[int, _Line]]]:
    with ExitStack() as stack, select.epoll() as poll:
        lines: dict[int, _Line] = {}
        for _ in range(connections):
            line = _Line(port)
            stack.enter_context(line.socket)
            poll.register(line.socket, select.EPOLLIN)
            lines[line.socket.fileno()] = line
        yield poll, lines
