"""A login flood, as a program of its own: guesses at many accounts over many connections, each from another address.

``python -m bench.front_flood PORT SECONDS PER_SECOND``. Every connection has one request under way, and sends the next
as soon as its answer is there, or at its own pace where PER_SECOND (of all connections together) is not 0. What came of
it goes to standard output as JSON: how many answers of each status. Answers are counted and not judged: whoever floods
does not care.
"""

import heapq
import itertools
import json
import select
import socket
import sys
import time
from collections import Counter

from bench.sessions_load import parse_answer
from bench.sessions_sides import Post

CONNECTIONS = 200
ACCOUNTS = 5_000
"""So many addresses are guessed at; the first of them are those of accounts."""
_READ_BYTES = 65_536
_POLL_S = 0.05


def guesses() -> "itertools.cycle[bytes]":
    """Return the requests, one after the other and for ever."""
    emails = [f"costly{number}@example.com" for number in range(ACCOUNTS)]
    return itertools.cycle(
        [
            Post.json("/auth/v1/login", email=email, password="a guess that is wrong", delivery="body").raw
            for email in emails
        ]
    )


def flood(port: int, seconds: float, per_second: float) -> Counter[str]:
    """Guess for so long; returns how many answers there were of each status."""
    told: Counter[str] = Counter()
    requests = guesses()
    pause_s = CONNECTIONS / per_second if per_second else 0.0
    lines: dict[int, tuple[socket.socket, bytes]] = {}
    due: list[tuple[float, int]] = []
    began = time.perf_counter()
    with select.epoll() as poll:
        for number in range(CONNECTIONS):
            # All of 127.0.0.0/8 is this machine; to the server these are 200 neighbours.
            line = socket.create_connection(
                ("127.0.0.1", port), source_address=(f"127.1.{number // 250}.{number % 250 + 1}", 0)
            )
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(line, select.EPOLLIN)
            lines[line.fileno()] = line, b""
            heapq.heappush(due, (began + pause_s * number / CONNECTIONS, line.fileno()))
        try:
            while (now := time.perf_counter()) < began + seconds:
                while due and due[0][0] <= now:
                    _, number = heapq.heappop(due)
                    lines[number][0].sendall(next(requests))
                wait_s = min(max(due[0][0] - now, 0.0), _POLL_S) if due else _POLL_S
                for number, _ in poll.poll(wait_s):
                    line, received = lines[number]
                    received += line.recv(_READ_BYTES)
                    answer = parse_answer(received)
                    if answer is None:
                        lines[number] = line, received
                        continue
                    lines[number] = line, b""
                    told[str(answer[0])] += 1
                    heapq.heappush(due, (time.perf_counter() + pause_s, number))
        finally:
            for line, _ in lines.values():
                line.close()
    return told


if __name__ == "__main__":
    print(json.dumps(flood(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
