"""One HTTPS GET under one deadline and one size cap, on the standard library; it must not know what it fetches.

Loaded only by verifiers that use the network: `ssl` and `http.client` cost more to import than all of jotgate's core.
"""

import http.client
import math
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from msgspec import Struct

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BODY_BYTES = 256 * 1024
# Whatever comes before the body (status lines, headers, chunk sizes) has to fit into this, however it is cut up.
_MAX_OVERHEAD_BYTES = 64 * 1024


class FetchError(Exception):
    """Nothing usable came; the text says why, for a log line: what the other side sent is named, never copied out."""


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
        parts = urlsplit(url)
        deadline = time.monotonic() + timeout_s
        connection = _Connection(parts.hostname or "", parts.port or 443, self._context(), deadline)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "application/json", "User-Agent": "jotgate", "Connection": "close"}
        try:
            connection.request("GET", target, headers=headers)  # http.client itself asks for the identity encoding
            with connection.getresponse() as response:
                return _read(response)
        except TimeoutError:
            raise FetchError(f"no complete answer within {timeout_s:.3g} s") from None
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
        finally:
            connection.close()

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


def _read(response: http.client.HTTPResponse) -> Answer:
    if response.getheader("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchError("the answer is compressed although that was not asked for")
    body = response.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise FetchError(_TOO_LARGE)
    if response.length:  # what Content-Length still promises
        raise FetchError("the answer was cut off")
    return Answer(response.status, body, response.getheader("Cache-Control", ""))


_TOO_LARGE = f"the answer is larger than {MAX_BODY_BYTES // 1024} KiB"


class _LimitedSocket(ssl.SSLSocket):
    """A TLS socket whose every read counts against one deadline and one number of bytes.

    A timeout alone starts anew with each read: a server that drips one byte a second would hold us for good.
    """

    deadline = math.inf
    bytes_left = MAX_BODY_BYTES + _MAX_OVERHEAD_BYTES

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(_seconds_until(self.deadline))
        count = super().recv_into(buffer, nbytes, flags)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise FetchError(_TOO_LARGE)
        return count


class _Connection(http.client.HTTPConnection):
    default_port = 443

    def __init__(self, host: str, port: int, context: ssl.SSLContext, deadline: float) -> None:
        super().__init__(host, port)
        self._context = context
        self._deadline = deadline

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
        self.sock = limited


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
