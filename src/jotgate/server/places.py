"""URLs of databases and of Redis: what they may look like, and how to name them without what is secret in them.

Opens nothing. Faults never repeat any part of a URL, which may be a password in the wrong place.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from jotgate.server.secret import Secret

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql", "postgres")
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:,/]*)(:[0-9]{1,5})?")
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


def _hosts(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _database(parts: SplitResult) -> str:
    query = parse_qs(parts.query)
    return unquote(parts.path.strip("/")) or "".join(query.get("database", query.get("dbname", [])))


def _port_is_valid(host: str) -> bool:
    port = re.search(r":([0-9]+)$", host)
    return port is None or 0 < int(port[1]) < 65_536
