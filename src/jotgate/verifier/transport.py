"""One HTTPS GET under one deadline and one size cap, on the standard library; it must not know what it fetches.

Loaded only by verifiers that use the network: `ssl` and `http.client` cost more to import than all of jotgate's core.
"""

import contextlib
import http.client
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from msgspec import Struct

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BODY_BYTES = 256 * 1024
# Whatever comes before the body (status lines, headers, chunk sizes) has to fit into this, however it is cut up.
_MAX_OVERHEAD_BYTES = 64 * 1024
_HEADERS = {"User-Agent": "jotgate", "Connection": "close"}
_NO_HEADERS: Mapping[str, str] = {}


class FetchError(Exception):
    """Nothing usable came; the text says why, for a log line: what the other side sent is named, never copied out."""


class NoStream(FetchError):
    """The other side answers, but no stream of events comes from there; `for_now` if that is likely to pass soon."""

    def __init__(self, reason: str, *, for_now: bool = False, status: int | None = None) -> None:
        super().__init__(reason)
        self.for_now = for_now
        self.status = status


class Silence(FetchError):
    """Nothing came in time, although nobody has ended the connection."""


class Answer(Struct, frozen=True):
    """What came back: the status, the body (at most 256 KiB), and the only header that matters here."""

    status: int
    body: bytes
    cache_control: str = ""


Transport = Callable[[str, float], Answer]
"""`transport(url, timeout_s)`: one GET that ends within `timeout_s` seconds in all, or raises FetchError.

It follows no redirects: an answer of any status is handed back as it is.
"""


class HttpsTransport:
    """The real one.

    With `ca_file` (PEM) only certificates of that authority are trusted, without it those that the system trusts.
    The file is read anew for each exchange, so that a renewed authority is taken without a restart. The environment's
    proxy settings are not looked at.
    """

    def __init__(self, ca_file: str | os.PathLike[str] | None = None) -> None:
        self._ca_file = ca_file

    def __call__(self, url: str, timeout_s: float) -> Answer:
        """Fetch `url` (see `Transport`)."""
        return self.get(url, timeout_s)

    def get(
        self, url: str, timeout_s: float, *, max_bytes: int = MAX_BODY_BYTES, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Answer:
        """Fetch `url` as `Transport` says, with another bound on the body and further headers."""
        connection, target = self._connection(url, timeout_s, max_bytes)
        with _told("no complete answer within the time allowed"):  # one sentence for each cause: it is logged once
            try:
                # http.client itself asks for the identity encoding.
                connection.request("GET", target, headers={**_HEADERS, "Accept": "application/json", **headers})
                with connection.getresponse() as response:
                    return _read(response, max_bytes)
            finally:
                connection.close()

    def open(self, url: str, timeout_s: float, *, headers: Mapping[str, str], max_frame_bytes: int) -> "EventStream":
        """Begin to read server-sent events (WHATWG HTML section 9.2) from `url`; the head arrives within `timeout_s`.

        Raises FetchError: nobody answers; NoStream: not with a stream.
        """
        connection, target = self._connection(url, timeout_s, max_frame_bytes)
        with _told(f"no answer within {timeout_s:.3g} s"):
            try:
                connection.request("GET", target, headers={**_HEADERS, "Accept": "text/event-stream", **headers})
                response = connection.getresponse()
                _check_event_stream(response)
            except BaseException:
                connection.close()
                raise
        return EventStream(connection, response, max_frame_bytes)

    def _connection(self, url: str, timeout_s: float, max_bytes: int) -> tuple["_Connection", str]:
        parts = urlsplit(url)
        deadline = time.monotonic() + timeout_s
        context = self._context()
        connection = _Connection(parts.hostname or "", parts.port or 443, context, deadline, max_bytes)
        return connection, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as fault:  # ssl.SSLError is one too
            raise FetchError(f"the CA file {self._ca_file} cannot be used ({fault.strerror or fault})") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # An end without close_notify in the middle of a body is a cut-off answer, and no end.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        context.sslsocket_class = _LimitedSocket
        return context


@contextlib.contextmanager
def _told(too_late: str) -> Iterator[None]:
    """Say as a FetchError what went wrong with an exchange."""
    try:
        yield
    except TimeoutError:
        raise Silence(too_late) from None
    except ssl.SSLCertVerificationError as fault:
        raise FetchError(f"the certificate is not trusted ({fault.verify_message})") from None
    except ssl.SSLError as fault:
        # Which of the two it is depends on Python's version.
        if isinstance(fault, ssl.SSLEOFError) or fault.reason == "UNEXPECTED_EOF_WHILE_READING":
            raise FetchError("the other side broke off the connection") from None
        raise FetchError(f"TLS failed ({fault.reason or type(fault).__name__})") from None
    except OSError as fault:
        raise FetchError(f"no connection ({fault.strerror or fault})") from None
    except (http.client.HTTPException, ValueError) as fault:  # their texts repeat what the server sent
        raise FetchError(f"not an HTTP answer ({type(fault).__name__})") from None


class EventStream:
    """Server-sent events, read one by one, each under a deadline and a bound of its own."""

    def __init__(self, connection: "_Connection", response: http.client.HTTPResponse, max_frame_bytes: int) -> None:
        self._connection = connection
        self._response = response
        self._max_frame_bytes = max_frame_bytes

    def next(self, timeout_s: float) -> tuple[str, str]:
        """Wait for the next event, and give its type and its data.

        Raises Silence: none came within `timeout_s`, however its bytes drip in; FetchError: it is too large or not well
        formed, or the other side has ended the stream.
        """
        self._connection.allow(timeout_s, self._max_frame_bytes)
        kind, data = "", ""
        with _told(f"nothing heard for {timeout_s:.3g} s"):
            while True:
                line = self._response.readline(self._max_frame_bytes + 1)
                if not line.endswith(b"\n"):
                    raise FetchError(_too_large(self._max_frame_bytes) if line else "the stream has ended")
                text = line.rstrip(b"\r\n").decode("ascii")  # a UnicodeDecodeError is a ValueError: told as such
                if not text and data:
                    return kind, data
                name, _, value = text.partition(":")
                if name == "event":
                    kind = value.removeprefix(" ")
                elif name == "data":
                    data += value.removeprefix(" ")

    def cut(self) -> None:
        """End it from another thread: whoever reads gets a FetchError."""
        self._connection.cut()

    def abandon(self) -> None:
        """Close this process's copy, after a fork, of a connection that the other process goes on with."""
        self._connection.abandon()

    def close(self) -> None:
        """End the connection, also where a forked process has a copy of it: the other side would not notice else."""
        self.cut()
        self._response.close()
        self._connection.close()


def _check_event_stream(response: http.client.HTTPResponse) -> None:
    _check_identity(response)
    if response.status != 200:
        # 429 and 5xx: too many listen, or a proxy whose server is just being replaced.
        for_now = response.status == 429 or response.status >= 500
        raise NoStream(f"status {response.status}", for_now=for_now, status=response.status)
    if response.headers.get_content_type() != "text/event-stream":
        raise NoStream("the answer is not a stream of events")


def _check_identity(response: http.client.HTTPResponse) -> None:
    if response.getheader("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchError("the answer is compressed although that was not asked for")


def _read(response: http.client.HTTPResponse, max_bytes: int) -> Answer:
    _check_identity(response)
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise FetchError(_too_large(max_bytes))
    if response.length:  # what Content-Length still promises
        raise FetchError("the answer was cut off")
    return Answer(response.status, body, response.getheader("Cache-Control", ""))


def _too_large(max_bytes: int) -> str:
    return f"the answer is larger than {max_bytes // 1024} KiB"


class _LimitedSocket(ssl.SSLSocket):
    """A TLS socket whose every read counts against one deadline and one number of bytes.

    A timeout alone starts anew with each read: a server that drips one byte a second would hold us for good.
    """

    deadline = math.inf
    max_bytes = MAX_BODY_BYTES
    bytes_left = MAX_BODY_BYTES + _MAX_OVERHEAD_BYTES

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(_seconds_until(self.deadline))
        count = super().recv_into(buffer, nbytes, flags)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise FetchError(_too_large(self.max_bytes))
        return count


class _Connection(http.client.HTTPConnection):
    default_port = 443

    def __init__(self, host: str, port: int, context: ssl.SSLContext, deadline: float, max_bytes: int) -> None:
        super().__init__(host, port)
        self._context = context
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._limited: _LimitedSocket | None = None

    def connect(self) -> None:
        raw = _connect(self.host, self.port, self._deadline)
        raw.settimeout(_seconds_until(self._deadline))  # of the whole handshake
        try:
            wrapped = self._context.wrap_socket(raw, server_hostname=self.host, suppress_ragged_eofs=False)
        except BaseException:
            raw.close()
            raise
        limited = cast("_LimitedSocket", wrapped)  # as the context says
        limited.deadline = self._deadline
        limited.max_bytes = self._max_bytes
        limited.bytes_left = self._max_bytes + _MAX_OVERHEAD_BYTES
        self.sock = self._limited = limited

    def allow(self, timeout_s: float, max_bytes: int) -> None:
        """Let so many bytes more come within so many seconds."""
        if self._limited is not None:
            self._limited.deadline = time.monotonic() + timeout_s
            self._limited.bytes_left = max_bytes + _MAX_OVERHEAD_BYTES

    def cut(self) -> None:
        """End the connection under whoever reads from it."""
        if self._limited is not None:
            # Not `SSLSocket.shutdown`, which takes away what the reading thread is using.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._limited, socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the file descriptor and send nothing. The object may have been in the middle of anything."""
        if self._limited is not None:
            with contextlib.suppress(OSError):
                os.close(self._limited.detach())


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers; each gets an equal share of the time that is left."""
    fault: OSError = OSError("the name has no address")
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        candidate = socket.socket(family, kind, protocol)
        try:
            candidate.settimeout(_seconds_until(deadline) / (len(addresses) - index))
            candidate.connect(address)
        except OSError as failed:
            candidate.close()
            fault = failed
        else:
            return candidate
    raise fault


def _seconds_until(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:  # a socket takes 0 for "do not wait", not for "too late"
        raise TimeoutError
    return left
