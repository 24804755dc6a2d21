"""A real TLS server that plays an issuer, well or badly, and certificates for it; it knows nothing of the verifier."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jotgate import Issuer, Key, KeySet, Verifier, generate_key

WITHIN_S = 30  # only a failing test waits so long

Answering = Callable[[ssl.SSLSocket], None]


@dataclass(frozen=True)
class Certificates:
    ca: Path
    other_ca: Path
    chain: Path
    key: Path


def _authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _certificate(name, key.public_key(), name, key, authority=True)


def _certificate(
    subject: str, public: ec.EllipticCurvePublicKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if authority:
        others = "digital_signature content_commitment key_encipherment data_encipherment key_agreement"
        usage = dict.fromkeys([*others.split(), "encipher_only", "decipher_only"], False)
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


def make_certificates(folder: Path) -> Certificates:
    """Write an authority, a certificate of it for localhost, and an authority that has nothing to do with them."""
    ca_key, ca = _authority("test CA")
    _, other = _authority("another CA")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _certificate("localhost", key.public_key(), "test CA", ca_key, authority=False)
    made = Certificates(folder / "ca.pem", folder / "other.pem", folder / "chain.pem", folder / "key.pem")
    made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.other_ca.write_bytes(other.public_bytes(serialization.Encoding.PEM))
    made.chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def http_answer(
    body: bytes | object, *, status: str = "200 OK", headers: tuple[str, ...] = (), length: int | None = None
) -> Answering:
    """An ordinary answer; anything but bytes is written as JSON. `length` may lie."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(connection: ssl.SSLSocket) -> None:
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(raw) if length is None else length}", *headers, "", "")
        connection.sendall("\r\n".join(lines).encode() + raw)

    return answer


@dataclass(eq=False)
class IssuerServer:
    """Listens on a free loopback port. `answers` maps a path to what is sent there; other paths get 404."""

    certificates: Certificates
    listener: socket.socket
    answers: dict[str, Answering] = field(default_factory=dict)
    """By the address with its query, else by the path alone."""
    requests: list[str] = field(default_factory=list)
    heads: dict[ssl.SSLSocket, bytes] = field(default_factory=dict)
    """What is being answered, for those who want to know more than the address."""
    stopping: threading.Event = field(default_factory=threading.Event)
    _seen: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def serve(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.chain, self.certificates.key)
        while not self.stopping.is_set():
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            raw.settimeout(WITHIN_S)
            thread = threading.Thread(target=self._answer, args=(context, raw), daemon=True)
            thread.start()
            self._threads.append(thread)  # now that `stop` may wait for it

    def _answer(self, context: ssl.SSLContext, raw: socket.socket) -> None:
        try:
            with raw, context.wrap_socket(raw, server_side=True) as connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(4096)
                    if not received:
                        return
                    head += received
                path = head.split(b" ", 2)[1].decode()
                with self._seen:
                    self.requests.append(path)
                    self._seen.notify_all()
                self.heads[connection] = head
                missing = http_answer({}, status="404 Not Found")
                self.answers.get(path, self.answers.get(path.partition("?")[0], missing))(connection)
                connection.unwrap()
        except (OSError, ValueError):  # one side hung up, which many of these tests are about
            return

    def wait_requests(self, count: int, path: str) -> None:
        """Wait until `path` has been asked for so often."""
        with self._seen:
            assert self._seen.wait_for(lambda: self.requests.count(path) >= count, WITHIN_S), self.requests

    def stop(self) -> None:
        self.stopping.set()
        # A close alone would leave the other thread in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self._threads:
            thread.join(WITHIN_S)


@dataclass(eq=False)
class FakeIssuer:
    """An issuer with its server: publishes `keys`, signs with the first of them."""

    server: IssuerServer
    path: str = ""
    key: Key = field(default_factory=lambda: generate_key("ES256"))

    @property
    def issuer(self) -> str:
        return self.server.url + self.path

    @property
    def metadata_path(self) -> str:
        return f"/.well-known/oauth-authorization-server{self.path}"

    @property
    def jwks_path(self) -> str:
        return f"{self.path}/jwks.json"

    @property
    def metadata(self) -> dict[str, object]:
        return {"issuer": self.issuer, "jwks_uri": self.server.url + self.jwks_path}

    def publish(self, *keys: Key, headers: tuple[str, ...] = ()) -> None:
        """Answer with the metadata and with the public halves of `keys`, the own one unless any are named."""
        self.server.answers[self.metadata_path] = http_answer(self.metadata)
        self.server.answers[self.jwks_path] = http_answer(KeySet(keys or [self.key]).to_jwks(), headers=headers)

    def token(self, key: Key | None = None, *, session: str | None = None) -> str:
        return Issuer(issuer=self.issuer, keys=key or self.key).issue("alice", audience="api", session=session)

    def verifier(self, **options: object) -> Verifier:
        settings: dict[str, object] = {
            "issuer": self.issuer,
            "audience": "api",
            "ca_file": self.server.certificates.ca,
            "key_wait_s": WITHIN_S,
            "timeout_s": WITHIN_S,
        }
        return Verifier(**(settings | options))  # type: ignore[arg-type]
