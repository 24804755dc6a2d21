"""A request read whole and a response to send: the only code that speaks ASGI's events; it knows no endpoint.

Bodies are bounded in size and in time before anything looks at them.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

from msgspec import Struct, structs

from jotgate.core.forwarded import Sender, TrustedProxies, is_vouched_for, resolve_sender
from jotgate.server.limits import Asker
from jotgate.server.log import looks_secret
from jotgate.server.refusals import BodyIncomplete, BodyTimeout, BodyTooLarge, HeaderRefused, ParameterRefused

MAX_BODY_BYTES: Final = 65_536
BODY_TIMEOUT_S: Final = 10.0
REQUEST_ID_HEADER: Final = b"x-request-id"
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


class Request(Struct, frozen=True):
    """One request. ``path`` is the path within the app, wherever that is mounted."""

    method: str
    path: str
    headers: Headers
    sender: Sender
    body: bytes = b""
    query: bytes = b""
    asker: Asker = Asker()
    request_id: str = ""

    def all(self, name: bytes) -> list[str]:
        """Return every value of a header, in order; the name in lower case."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    def one(self, name: bytes) -> str | None:
        """Return the value of a header that may stand once.

        Raises:
            HeaderRefused: it stands there twice: which one counts would be a guess.
        """
        values = self.all(name)
        if len(values) > 1:
            raise HeaderRefused(f"The header {name.decode('ascii')} must not be repeated.")
        return values[0] if values else None

    def has_etag(self, etag: str) -> bool:
        """Whether the client has this version of what it asks for already (RFC 9110 section 13.1.2)."""
        asked = {part.strip().removeprefix("W/") for line in self.all(b"if-none-match") for part in line.split(",")}
        return etag in asked or "*" in asked

    def has_browser_marks(self) -> bool:
        """Whether a browser's own headers are on it: Origin, or any of Sec-Fetch-* (Fetch Metadata)."""
        return any(name == b"origin" or name.startswith(b"sec-fetch-") for name, _ in self.headers)

    def parameter(self, name: str) -> str | None:
        """Return the value of a parameter of the query.

        Raises:
            ParameterRefused: it stands there twice, or the query cannot be read.
        """
        try:
            pairs = parse_qsl(self.query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=16)
        except ValueError:
            raise ParameterRefused("The query cannot be read.") from None
        values = [value for key, value in pairs if key == name]
        if len(values) > 1:
            raise ParameterRefused(f"The parameter {name} must not be repeated.")
        return values[0] if values else None


class Response(Struct, frozen=True):
    """One response."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    def with_headers(self, *more: tuple[bytes, bytes]) -> "Response":
        """Return the response with further headers."""
        return Response(self.status, self.body, (*self.headers, *more))


class StreamResponse(Struct, frozen=True):
    """A response whose body comes in parts, until it ends or the client goes; then `parts` is closed."""

    parts: AsyncGenerator[bytes]
    headers: Headers = ()

    def with_headers(self, *more: tuple[bytes, bytes]) -> "StreamResponse":
        """Return the response with further headers."""
        return StreamResponse(self.parts, (*self.headers, *more))


def local_path(scope: Scope, issuer_path: str) -> str:
    """Return the request's path within the app.

    A host app that mounts us names the prefix as ``root_path`` and leaves it in ``path`` (ASGI); a proxy in front
    of a server of its own passes the issuer's path through.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/") or issuer_path
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return path[len(prefix) :] or "/"
    return path


def read_head(scope: Scope, *, issuer_path: str, proxies: TrustedProxies, new_id: Callable[[], str]) -> Request:
    """Return the request without its body.

    Its id is the one that a trusted proxy gave it, so that both logs go together, else a new one.
    """
    headers: Headers = tuple((name.lower(), value) for name, value in scope["headers"])
    head = Request(
        method=scope["method"],
        path=local_path(scope, issuer_path),
        headers=headers,
        sender=Sender(None, secure=False),
    )
    client = scope.get("client")
    peer, scheme = client[0] if client else None, scope.get("scheme", "http")
    sender = resolve_sender(
        peer,
        scheme,
        forwarded=head.all(b"forwarded"),
        forwarded_for=head.all(b"x-forwarded-for"),
        forwarded_proto=head.all(b"x-forwarded-proto"),
        proxies=proxies,
    )
    given = head.all(REQUEST_ID_HEADER)
    keep = len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) and not looks_secret(given[0])
    return Request(
        head.method,
        head.path,
        headers,
        sender,
        query=scope.get("query_string", b""),
        asker=Asker(sender.address),
        request_id=given[0] if keep and is_vouched_for(peer, scheme, sender, proxies) else new_id(),
    )


async def read_body(head: Request, receive: Receive) -> Request:
    """Return the request with its body.

    Raises:
        BodyTooLarge: over 64 KiB, announced or sent.
        BodyTimeout: not whole after 10 seconds.
        BodyIncomplete: the connection, or its framing, broke.
    """
    announced = head.one(b"content-length")
    if announced is not None and not re.fullmatch(r"[0-9]{1,18}", announced):
        raise HeaderRefused("Content-Length must be a number.")
    if announced is not None and int(announced) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"A body may have at most {MAX_BODY_BYTES} bytes.")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise BodyIncomplete("The body broke off before its end.")
                chunks.append(event.get("body", b""))
                size += len(chunks[-1])
                if size > MAX_BODY_BYTES:
                    raise BodyTooLarge(f"A body may have at most {MAX_BODY_BYTES} bytes.")
                if not event.get("more_body", False):
                    break
    except TimeoutError:
        raise BodyTimeout(f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds.") from None
    return structs.replace(head, body=b"".join(chunks))


async def send_response(response: Response, send: Send, *, with_body: bool = True) -> None:
    """Send the response; without its body in answer to HEAD."""
    length = str(len(response.body)).encode()
    headers = [*response.headers]
    if response.status != 204:  # RFC 9110 section 8.6: no Content-Length on 204
        headers.append((b"content-length", length))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})


async def send_stream(response: StreamResponse, receive: Receive, send: Send, *, with_body: bool = True) -> None:
    """Send the parts of the body as they come. Returns when they end, and when the client has gone or takes no more."""
    async with contextlib.aclosing(response.parts):
        await send({"type": "http.response.start", "status": 200, "headers": [*response.headers]})
        if with_body and not await _send_parts(response.parts, receive, send):
            return
    await send({"type": "http.response.body", "body": b""})


async def _send_parts(parts: AsyncGenerator[bytes], receive: Receive, send: Send) -> bool:
    """Send them; whether the client took all there was, or has gone."""
    gone = asyncio.create_task(_until_gone(receive))
    try:
        while (part := await _next_unless(gone, parts)) is not None:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        return False
    finally:
        gone.cancel()  # and not waited for: a server's `receive` may end with the connection alone
    return True


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _next_unless(gone: asyncio.Task[None], parts: AsyncGenerator[bytes]) -> bytes | None:
    """Return the next part; None when there is none, or nobody to send it to."""
    coming = asyncio.ensure_future(anext(parts, None))
    try:
        await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
        return None if gone.done() else coming.result()
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
