"""The redirect from plain HTTP: a listener, in a process of its own, that sends whoever comes to the https address.

It knows one origin and reads nothing else of a request than its first line and whether it carries something. It has its
own process because the main one splits off workers, which must not find themselves with half of its connections.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Final
from urllib.parse import quote

_LONGEST_HEAD: Final = 8192
_MAX_CONNECTIONS: Final = 128
# From the first byte to the last one of the answer; then what the other side still sends is thrown away for a while.
_ANSWER_WITHIN_S: Final = 5.0
_LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 65_536
# RFC 9112 section 3: a method, a target in origin form, a version; anything else is nobody that a redirect would help.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[\x21-\x7e]*) HTTP/1\.[01]")
# A body, or a secret in a header.
_CARRIES: Final = re.compile(
    rb"^(?:authorization|transfer-encoding|content-length(?!:[ \t]*0+[ \t]*\r?$))[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_KEPT: Final = "/?%:@!$&'()*+,;=-._~"  # RFC 3986 sections 3.3 and 3.4: all that a path and a query may hold

_LAST: Final = "Cache-Control: no-store\r\nConnection: close\r\n"
_TOO_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def answer(head: bytes, origin: str) -> bytes:
    """Return the response to the head of a request: 308 to the same path and query of the origin, for GET and HEAD.

    Whatever carries something is refused and not redirected: a client would send it once more, over https, and nobody
    would notice that it has crossed the network in clear text each time.
    """
    line, _, fields = head.partition(b"\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        return _refusal(400, "Bad Request", "malformed_request", "This is no HTTP request that can be redirected.")
    method, target = found[1], found[2].decode("ascii")
    if method not in {b"GET", b"HEAD"} or _CARRIES.search(fields):
        detail = f"Send this to {origin} instead. If it held a secret, anybody on the way could read it: replace it."
        refusal = _refusal(403, "Forbidden", "clear_text_refused", detail)
        return refusal if method != b"HEAD" else refusal[: refusal.index(b"\r\n\r\n") + 4]
    location = origin + quote("/" + target.lstrip("/"), safe=_KEPT)
    return f"HTTP/1.1 308 Permanent Redirect\r\nLocation: {location}\r\n{_LAST}Content-Length: 0\r\n\r\n".encode()


def _refusal(status: int, title: str, code: str, detail: str) -> bytes:
    problem = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
    body = json.dumps(problem).encode()
    fields = f"Content-Type: application/problem+json\r\n{_LAST}Content-Length: {len(body)}"
    return f"HTTP/1.1 {status} {title}\r\n{fields}\r\n\r\n".encode() + body


@contextlib.contextmanager
def redirecting(listener: socket.socket, origin: str) -> Iterator[None]:
    """Answer on the listening socket, which is closed here, for as long as the body lasts and this process lives."""
    with listener:
        process = multiprocessing.Process(target=_run, args=(listener, origin), name="jotgate-redirect", daemon=True)
        process.start()
    over = threading.Event()

    def tell() -> None:
        wait([process.sentinel])
        if not over.is_set():
            sys.stderr.write("error: the redirect from plain HTTP ended unexpectedly; HTTPS goes on without it\n")

    threading.Thread(target=tell, name="jotgate-redirect-end", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        process.kill()
        process.join()


def _run(listener: socket.socket, origin: str) -> None:
    """Runs in the process of its own. The main process alone ends it, so signals for the whole group are not for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="jotgate-parent", daemon=True).start()
    asyncio.run(serve(listener, origin))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


async def serve(listener: socket.socket, origin: str) -> None:
    """Answer on a listening socket until cancelled."""
    open_now = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        if open_now >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        open_now += 1
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                writer.write(await _read_and_answer(reader, origin))
                await writer.drain()
                writer.write_eof()
            # Closed at once, with something unread, the answer could be lost on its way.
            async with asyncio.timeout(_LINGER_S):
                for _ in range(_LINGER_BYTES // _LONGEST_HEAD):
                    if not await reader.read(_LONGEST_HEAD):
                        break
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # nobody is left to answer, or has let us wait too long
        finally:
            open_now -= 1
            writer.transport.abort()

    server = await asyncio.start_server(connected, sock=listener, limit=_LONGEST_HEAD)
    async with server:
        await server.serve_forever()


async def _read_and_answer(reader: asyncio.StreamReader, origin: str) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _TOO_LONG
    return answer(head, origin)
