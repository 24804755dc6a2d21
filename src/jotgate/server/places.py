"""URLs of databases, Redis and mail servers: what they may look like, and how to name them without their secrets.

Opens nothing. Faults never repeat any part of a URL, which may be a password in the wrong place.
"""

import ipaddress
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from jotgate.server.secret import Secret

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql", "postgres")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:,/]*)(:[0-9]{1,5})?")
_SMTP_PORTS: Final = {"smtp": 587, "smtps": 465}
_QUOTE: Final = "characters such as @ : / ? # in a password are written %40 %3A %2F %3F %23"


def is_sqlite(url: Secret) -> bool:
    """Whether the URL names a file on this machine."""
    return url.reveal().startswith("sqlite:")


def sqlite_path(url: Secret) -> Path:
    """The file of ``sqlite:///relative`` or ``sqlite:////absolute``."""
    return Path(unquote(url.reveal().removeprefix(_SQLITE)))


def name_of(url: Secret) -> str:
    """The database's host, port and name, without user and password."""
    parts = urlsplit(url.reveal())
    return f"{_database(parts) or 'of its user'} at {_hosts(parts) or 'this machine'}"


def database_faults(url: Secret) -> Iterator[str]:
    """What is wrong with the URL of a database."""
    text = url.reveal()
    if text.startswith("sqlite:"):
        path = text.removeprefix(_SQLITE)
        if not text.startswith(_SQLITE) or not path or path.startswith(":") or re.search(r"[?#\x00]", path):
            yield "database_url must be sqlite:///folder/file or, from the root, sqlite:////folder/file"
        return
    try:
        parts = urlsplit(text)
    except ValueError:
        yield f"database_url is not a URL; {_QUOTE}"
        return
    if parts.scheme not in _POSTGRES:
        yield "database_url must begin with sqlite:/// or postgresql://"
        return
    if not all(_HOST.fullmatch(host) and _port_is_valid(host) for host in _hosts(parts).split(",")) or parts.fragment:
        yield f"database_url must be postgresql://user:password@host:port/database; {_QUOTE}"
    elif not _database(parts):
        yield "database_url must name a database: postgresql://user:password@host:port/database"
    query = parse_qs(parts.query)
    if any(mode not in _SSL_MODES for mode in query.get("sslmode", ())):
        yield f"database_url: sslmode must be one of {', '.join(_SSL_MODES)}"
    elif "system" in query.get("sslrootcert", ()) and query.get("sslmode") != ["verify-full"]:
        yield "database_url: sslrootcert=system goes with sslmode=verify-full: anybody can have some certificate"
    if find_spec("asyncpg") is None or find_spec("greenlet") is None:
        yield "database_url names PostgreSQL, which needs more packages: pip install 'jotgate[postgres,server]'"


def redis_faults(url: Secret) -> Iterator[str]:
    """What is wrong with the URL of a Redis."""
    try:
        parts = urlsplit(url.reveal())
    except ValueError:
        yield f"redis_url is not a URL; {_QUOTE}"
        return
    host = _hosts(parts)
    plain = parts.scheme in {"redis", "rediss"} and re.fullmatch(r"/?|/[0-9]{1,4}", parts.path)
    if not plain or parts.query or parts.fragment or not parts.hostname:
        yield f"redis_url must be redis://user:password@host:port/0, or rediss:// for TLS; {_QUOTE}"
    elif not _HOST.fullmatch(host) or not _port_is_valid(host):
        yield "redis_url must name one host and its port"
    if find_spec("redis") is None:
        yield "redis_url needs one more package: pip install 'jotgate[redis,server]'"


class SmtpPlace(NamedTuple):
    """A mail server, and how to talk to it. Its repr hides user and password.

    Args:
        implicit_tls: TLS from the first byte (RFC 8314).
        starttls: TLS before anything that matters (RFC 3207); neither of both is for this machine alone.
        ca_file: the authorities to trust instead of the system's.
    """

    host: str
    port: int
    user: Secret | None
    password: Secret | None
    implicit_tls: bool
    starttls: bool
    ca_file: Path | None


def smtp_place(url: Secret) -> SmtpPlace:
    """What a URL of ``smtp://`` or ``smtps://`` says that `mail_faults` found good."""
    parts = urlsplit(url.reveal())
    query = parse_qs(parts.query)
    implicit = parts.scheme == "smtps"
    return SmtpPlace(
        host=parts.hostname or "",
        port=parts.port or _SMTP_PORTS[parts.scheme],
        user=None if parts.username is None else Secret(unquote(parts.username)),
        password=None if parts.password is None else Secret(unquote(parts.password)),
        implicit_tls=implicit,
        starttls=not implicit and query.get("tls") != ["none"],
        ca_file=Path(query["ca_file"][0]) if "ca_file" in query else None,
    )


def mail_folder(url: Secret) -> Path:
    """The folder of ``file:relative`` or ``file:///absolute``."""
    return Path(unquote(re.sub("^file:(//)?", "", url.reveal())))


def mail_faults(url: Secret) -> Iterator[str]:
    """What is wrong with the URL that says where mail goes."""
    text = url.reveal()
    if text == "console:":
        return
    if text.startswith("file:"):
        if not re.fullmatch(r"file:(///)?[^/?#\x00][^?#\x00]*", text):
            yield "mail_url must be file:folder or, from the root, file:///folder"
        return
    try:
        parts = urlsplit(text)
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=8)
    except ValueError:
        yield f"mail_url is not a URL; {_QUOTE}"
        return
    if parts.scheme not in _SMTP_PORTS:
        yield "mail_url must begin with smtps://, smtp:// or file:, or be console:"
        return
    host = _hosts(parts)
    if not _HOST.fullmatch(host) or not _port_is_valid(host) or not parts.hostname or parts.path.strip("/"):
        yield f"mail_url must be smtps://user:password@host:465 or smtp://user:password@host:587; {_QUOTE}"
        return
    if parts.fragment:
        yield f"mail_url must not have a fragment; {_QUOTE}"
    if "@" in parts.netloc and not (parts.username and parts.password):
        yield "mail_url must have both a user and a password, or neither"
    if query.keys() - {"tls", "ca_file"} or any(len(values) > 1 for values in query.values()):
        yield "mail_url: after the ? may stand tls=none and ca_file=FILE, each once"
    if "tls" in query:
        if query["tls"] != ["none"] or parts.scheme == "smtps":
            yield "mail_url: tls may only be none, and only with smtp://; without it TLS is required"
        elif not _is_loopback(parts.hostname):
            yield "mail_url: tls=none is for a mail server on this machine (localhost, 127.0.0.1, ::1)"
        elif "ca_file" in query:
            yield "mail_url: tls=none and ca_file exclude each other"
    if query.get("ca_file") == [""] or any("\0" in value for value in query.get("ca_file", ())):
        yield "mail_url: ca_file must name a file"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _database(parts: SplitResult) -> str:
    query = parse_qs(parts.query)
    return unquote(parts.path.strip("/")) or "".join(query.get("database", query.get("dbname", [])))


def _port_is_valid(host: str) -> bool:
    port = re.search(r":([0-9]+)$", host)
    return port is None or 0 < int(port[1]) < 65_536
