"""Asks a running server what anybody may ask, and collects what it shows. It judges nothing.

Each exchange has a time limit; nothing is sent that changes anything.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from jotgate.cli.checkup_outside import FOREIGN_ORIGIN, HEARTBEAT_WITHIN_S, Answer, Server
from jotgate.core.algorithms import ASYMMETRIC
from jotgate.core.errors import SettingsError
from jotgate.core.feed import MAX_EVENT_BYTES, MAX_SNAPSHOT_BYTES, FeedRefused, parse_event, parse_snapshot
from jotgate.verifier.addresses import check_https_url, metadata_urls
from jotgate.verifier.discovery import FeedAddresses, parse_feed, parse_key_set, parse_metadata
from jotgate.verifier.transport import FetchError, HttpsTransport, Silence

_WITHIN_S: Final = 5.0
_LONGEST_ANSWER: Final = 1024
_FORM: Final = "application/x-www-form-urlencoded"
# OpenSSL's own reasons: this side cannot speak it, which says nothing of the other.
_CANNOT: Final = frozenset({"NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE", "UNSUPPORTED_PROTOCOL"})


def probe(url: str, ca_file: Path | None) -> Server:
    """Ask the server whose issuer is `url`.

    Raises:
        SettingsError: that is no https URL, or the file of the authority cannot be read.
    """
    try:
        check_https_url(url, query=False)
    except ValueError as error:
        raise SettingsError((f"--url {error}: give the issuer's https URL",)) from None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsError((f"--ca-file {ca_file} cannot be used: {error.strerror or 'no certificates'}",)) from None
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((host, port), _WITHIN_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            found = connection.getpeercert() or {}
            seen = Server(
                url=url,
                certificate_ends_at=int(ssl.cert_time_to_seconds(str(found["notAfter"]))),
                tls_version=connection.version() or "",
                alpn=connection.selected_alpn_protocol(),
            )
    except ssl.SSLCertVerificationError as error:
        return Server(url=url, fault=f"its certificate is not trusted ({error.verify_message})")
    except ssl.SSLError as error:
        return Server(url=url, fault=f"TLS failed ({error.reason or 'no reason'})")
    except OSError as error:
        return Server(url=url, fault=f"no connection ({error.strerror or error})")
    except ValueError:  # UnicodeError, for one, where no name of a host could be so
        return Server(url=url, fault=f"{host} is no name of a host")
    context.set_alpn_protocols(["http/1.1"])
    asks = _Asks(host, port, parts.path.rstrip("/"), context)
    # Together: what comes after may take some seconds, by which the clocks would seem to differ.
    seen = msgspec.structs.replace(seen, ready=asks.ask("GET", "/readyz"), now=int(time.time()))
    seen = msgspec.structs.replace(
        seen,
        old_tls=_old_tls(host, port),
        clear_text=_clear_text(host, port),
        port_80=_port_80(host) if port == 443 else None,
        token_error=asks.ask("POST", "/oauth/token", body="grant_type=none", content=_FORM),
        preflight=asks.ask("OPTIONS", "/v1/refresh", origin=FOREIGN_ORIGIN),
        account=asks.ask("GET", "/v1/account", origin=FOREIGN_ORIGIN),
    )
    return _documents(seen, HttpsTransport(ca_file))


class _Asks:
    """Requests to one server, each on a connection of its own."""

    def __init__(self, host: str, port: int, prefix: str, context: ssl.SSLContext) -> None:
        self._host, self._port, self._prefix, self._context = host, port, prefix, context

    def ask(
        self, method: str, path: str, *, body: str | None = None, content: str | None = None, origin: str | None = None
    ) -> Answer | None:
        """Return what came; None where nothing did."""
        headers = {"User-Agent": "jotgate-doctor"}
        if content is not None:
            headers["Content-Type"] = content
        if origin is not None:
            headers |= {"Origin": origin}
        if method == "OPTIONS":
            headers |= {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "jotgate-client"}
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_WITHIN_S, context=self._context)
        return _answer(connection, method, self._prefix + path, body, headers)


def _answer(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None, headers: Mapping[str, str]
) -> Answer | None:
    try:
        connection.connect()
    except OSError:
        return None
    # The socket's own time limit is for each byte, and a head may drip in one by one.
    limit = threading.Timer(_WITHIN_S, _cut, (connection.sock,))
    limit.start()
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()})
    except (OSError, http.client.HTTPException):
        return None
    finally:
        limit.cancel()
        connection.close()


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which would take away what is being read


def _old_tls(host: str, port: int) -> Literal["refused", "taken", "not tried", "not seen"]:
    """Offer TLS 1.1 at the most, and any cipher."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # nothing is told to whoever answers: it is the handshake that counts
    context.verify_mode = ssl.CERT_NONE
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection((host, port), _WITHIN_S) as plain, context.wrap_socket(plain):
            return "taken"
    except ssl.SSLError as error:
        return "not tried" if error.reason in _CANNOT else "refused"
    except ValueError:
        return "not tried"
    except (ConnectionResetError, BrokenPipeError):
        return "refused"
    except OSError:  # it took too long, or there was no connection
        return "not seen"


def _clear_text(host: str, port: int) -> int | Literal["closed", "not seen"]:
    """Speak HTTP without TLS to the port."""
    try:
        with socket.create_connection((host, port), _WITHIN_S) as plain:
            plain.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            head = plain.recv(_LONGEST_ANSWER)
    except (ConnectionResetError, BrokenPipeError):
        return "closed"
    except OSError:  # it took too long, or there was no connection
        return "not seen"
    if not head:
        return "closed"
    words = head.split(b" ", 2)
    return int(words[1]) if head.startswith(b"HTTP/") and len(words) == 3 and words[1].isdigit() else 0


def _port_80(host: str) -> Answer | None:
    return _answer(http.client.HTTPConnection(host, 80, timeout=_WITHIN_S), "GET", "/", None, {})


def _documents(seen: Server, transport: HttpsTransport) -> Server:
    """Read metadata and keys, and follow the feed until it was heard once."""
    faults = []
    for url in metadata_urls(seen.url):
        try:
            body = _get(transport, url)
            jwks_uri, feed = parse_metadata(body, seen.url), parse_feed(body)
        except FetchError as fault:
            faults.append(str(fault))
            continue
        break
    else:
        return msgspec.structs.replace(seen, metadata_fault="; ".join(dict.fromkeys(faults)))
    try:
        algorithms = tuple(key.algorithm for key in parse_key_set(_get(transport, jwks_uri), ASYMMETRIC))
        seen = msgspec.structs.replace(seen, algorithms=algorithms)
    except FetchError as fault:
        seen = msgspec.structs.replace(seen, keys_fault=str(fault))
    if feed is None or feed.stream_uri is None:
        return msgspec.structs.replace(seen, feed_fault="the metadata name none")
    try:
        return msgspec.structs.replace(seen, heartbeat_s=_hear(seen.url, feed, feed.stream_uri, transport))
    except (FetchError, FeedRefused) as fault:
        return msgspec.structs.replace(seen, feed_fault=str(fault).rstrip("."))


def _hear(issuer: str, feed: FeedAddresses, stream_uri: str, transport: HttpsTransport) -> float | None:
    """Return the seconds until a signed event came, with entries or without; None where none did."""
    keys = parse_key_set(_get(transport, feed.jwks_uri), ASYMMETRIC)
    body = transport.get(feed.snapshot_uri, _WITHIN_S, max_bytes=MAX_SNAPSHOT_BYTES).body
    snapshot = parse_snapshot(body, keys, issuer)
    begun = time.monotonic()
    position = f"{snapshot.log_id}.{snapshot.seq}"
    stream = transport.open(
        stream_uri, _WITHIN_S, headers={"Last-Event-ID": position}, max_frame_bytes=MAX_EVENT_BYTES + 1024
    )
    try:
        while (left_s := begun + HEARTBEAT_WITHIN_S - time.monotonic()) > 0:
            try:
                kind, data = stream.next(left_s)
            except Silence:
                return None
            if kind != "resync":
                parse_event(data, keys, issuer)
                return time.monotonic() - begun
    finally:
        stream.close()
    return None


def _get(transport: HttpsTransport, url: str) -> bytes:
    answer = transport.get(url, _WITHIN_S)
    if answer.status != 200:
        raise FetchError(f"status {answer.status}")
    return answer.body
