"""The servers of `bench.sessions`: how each is set up, and what is asked of it; it measures nothing.

Every side has the same accounts, `light0@example.com`… and `costly0@example.com`…: the passwords of the first are
hashed by Argon2id at its least (8 KiB, one pass: microseconds), those of the others at jotgate's own parameters. Both
are checked by the same code, so that what a login costs besides the hash is measured rather than subtracted. Sessions
come from real logins.
"""

import asyncio
import http.client
import itertools
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from argon2 import PasswordHasher

from bench.revocation_servers import UNLIMITED
from bench.sessions_api import OPEN_PATHS, PROTECTED_PATH
from bench.sessions_install import better_auth_modules, peers_python
from bench.sessions_load import Work, WrongAnswer
from bench.sessions_processes import ROOT, Server, free_port, granian, make_database, running
from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.server import Settings
from jotgate.server.records import Account
from jotgate.server.rules.hashing import ARGON2_SETS
from jotgate.server.secret import Secret
from jotgate.server.store.opening import make_store

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"
JOTGATE = "jotgate"
JOTGATE_IN_FASTAPI, JOTGATE_AROUND_FASTAPI = "jotgate's Depends in FastAPI", "jotgate's middleware around FastAPI"
JOTGATE_AROUND_ASGI = "jotgate's middleware around plain ASGI"
APIS: Final[Mapping[str, str]] = {
    JOTGATE_IN_FASTAPI: "make_fastapi",
    JOTGATE_AROUND_FASTAPI: "make_fastapi_behind_middleware",
    JOTGATE_AROUND_ASGI: "make_asgi",
}
"""The function of `bench.sessions_api` that makes each."""
REFRESH, LOGIN, COSTLY_LOGIN, READ = "refresh", "login less its hash", "login", "protected GET"
OPEN_READ = "open GET"
HEALTH = "healthz"
_OWN: Final = ARGON2_SETS[0]
ARGON2: Final[Mapping[str, int]] = {
    "time_cost": _OWN.passes,
    "memory_cost": _OWN.memory_kib,
    "parallelism": _OWN.lanes,
}
# As durable as jotgate's own SQLite: a commit has reached the disk before it is answered.
_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA busy_timeout=30000")
# Nobody's light hashes are replaced while they are measured: see the peers.
_SERVE = """
import sys
from jotgate.cli import main
from jotgate.server.passwords import Passwords
Passwords.is_current = lambda passwords, password_hash: True
sys.exit(main())
"""
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_AUTH_PATH = "/auth"

COOKIE = "cookie"
_LOGIN_WITHIN_S = 30.0
# Connections of a peer's pool, threads of Django: of 1 to 32, none did clearly better on one core.
_SQLITE_POOL, _POSTGRESQL_POOL = 5, 10
_SQLITE_THREADS, _POSTGRESQL_THREADS = 1, 4


@dataclass(frozen=True, slots=True)
class Side:
    """One running server, and what can be asked of it by the operation's name."""

    name: str
    database: str
    server: Server
    works: Mapping[str, Work]


@dataclass(frozen=True, slots=True)
class Accounts:
    """So many accounts of each kind, the same for all sides; the first of the light ones begin with a session."""

    count: int
    sessions: int
    passwords: Mapping[str, str]
    hashes: Mapping[str, str]

    @classmethod
    def make(cls, count: int, sessions: int) -> "Accounts":
        """Hash two passwords: all accounts of a kind have the same."""
        passwords = {"light": "a quick brown fox for the bench", "costly": "a slow brown fox for the bench"}
        hashers = {
            "light": PasswordHasher(time_cost=1, memory_cost=8, parallelism=1),
            "costly": PasswordHasher(time_cost=_OWN.passes, memory_cost=_OWN.memory_kib, parallelism=_OWN.lanes),
        }
        hashes = {kind: hashers[kind].hash(password) for kind, password in passwords.items()}
        return cls(count, sessions, passwords, hashes)

    def emails(self, kind: str) -> list[str]:
        """Return the addresses of one kind."""
        return [f"{kind}{number}@example.com" for number in range(self.count)]

    @property
    def with_sessions(self) -> list[str]:
        """Return the addresses of those that begin with a session."""
        return self.emails("light")[: self.sessions]

    @property
    def orders(self) -> dict[str, Any]:
        """Return what a server that makes the accounts has to know."""
        return {"accounts": self.count, "hashes": self.hashes, "argon2": dict(ARGON2)}

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Return address and hash of each account."""
        return [(email, hashed) for kind, hashed in self.hashes.items() for email in self.emails(kind)]


@dataclass(frozen=True, slots=True)
class Post:
    """One request with a body."""

    path: str
    body: bytes
    content_type: str = _JSON

    @classmethod
    def json(cls, path: str, **members: str) -> "Post":
        """Send an object."""
        return cls(path, json.dumps(members).encode())

    @property
    def raw(self) -> bytes:
        """The request as it goes over the wire."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {self.content_type}\r\n"
        return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body


class Refreshes:
    """Many lines of refresh tokens: each request uses up the current token of the line that has rested longest."""

    def __init__(self, path: str, member: str, tokens: Sequence[bytes]) -> None:
        self._path, self._member, self._marker = path, member, _marker(member)
        self._tokens = deque(tokens)

    def ask(self) -> tuple[bytes, bytes]:
        """Use the next token."""
        token = self._tokens.popleft()
        return Post.json(self._path, **{self._member: token.decode("ascii")}).raw, token

    def judge(self, asked: object, status: int, body: bytes) -> None:
        """Demand a successor, and keep it."""
        successor = _member(body, self._marker) if status == 200 else b""
        if not successor or successor == asked:
            raise WrongAnswer(f"a refresh was answered with {status} {body[:500]!r}")
        self._tokens.append(successor)


class Logins:
    """Logins of the accounts of one kind, one after the other."""

    def __init__(self, logins: Sequence[Post], member: str) -> None:
        self._requests = itertools.cycle([each.raw for each in logins])
        self._marker = _marker(member)

    def ask(self) -> tuple[bytes, None]:
        """Log the next one in."""
        return next(self._requests), None

    def judge(self, _: object, status: int, body: bytes) -> None:
        """Demand a token."""
        if status != 200 or not _member(body, self._marker):
            raise WrongAnswer(f"a login was answered with {status} {body[:500]!r}")


class Reads:
    """GETs, each with what must stand in its answer."""

    def __init__(self, requests: Sequence[tuple[bytes, bytes]]) -> None:
        self._requests = itertools.cycle(requests)

    def ask(self) -> tuple[bytes, bytes]:
        """Ask for the next one."""
        return next(self._requests)

    def judge(self, asked: object, status: int, body: bytes) -> None:
        """Demand what is this session's own."""
        assert isinstance(asked, bytes)
        if status != 200 or asked not in body:
            raise WrongAnswer(f"a GET was answered with {status} {body[:500]!r} instead of {asked!r}")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the sides need to start: the cores of the servers, a folder, the accounts, and PostgreSQL's port."""

    cores: Sequence[int]
    folder: Path
    accounts: Accounts
    postgresql_port: int | None

    def folder_for(self, name: str) -> Path:
        """Make a folder."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        return folder

    def database_for(self, name: str) -> str:
        """Make a database of PostgreSQL; returns `user@host:port/name` of a URL."""
        assert self.postgresql_port is not None
        make_database(self.postgresql_port, name)
        return f"bench@127.0.0.1:{self.postgresql_port}/{name}"

    @contextmanager
    def run(self, folder: Path, port: int, command: Sequence[str], **variables: str) -> Iterator[Server]:
        """Start a server with these variables besides the inherited ones."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
        inherited |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with running(command, port=port, folder=folder, environment=inherited | variables, cores=self.cores) as server:
            yield server


@contextmanager
def jotgate(setting: Setting, database: str) -> Iterator[list[Side]]:
    """`jotgate serve --http`, as it comes."""
    folder, port, accounts = setting.folder_for(f"jotgate {database}"), free_port(), setting.accounts
    settings = Settings(issuer=f"https://localhost:{port}", data_dir=folder / "data", http=True)
    variables = dict(UNLIMITED)
    if database == POSTGRESQL:
        url, master_key = f"postgresql://{setting.database_for('jotgate')}", encode_segment(os.urandom(32))
        settings = msgspec.structs.replace(settings, database_url=Secret(url), master_key=Secret(master_key))
        variables |= {"JOTGATE_DATABASE_URL": url, "JOTGATE_MASTER_KEY": master_key}
    seed_jotgate(settings, accounts)
    command = (sys.executable, "-c", _SERVE, "serve", "--data", str(settings.data_dir), "--issuer", settings.issuer)
    options = ("--http", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    with setting.run(folder, port, (*command, *options), **variables) as server:
        yield [Side(JOTGATE, database, server, _jotgate_works(port, accounts))]


def seed_jotgate(settings: Settings, accounts: Accounts) -> None:
    """Make the accounts in the database of a server that does not run yet."""
    store = make_store(settings)
    store.open()

    async def add() -> None:
        for email, hashed in accounts.rows:
            await store.add_account(
                Account(
                    id=encode_segment(os.urandom(16)),
                    email=email,
                    password_hash=hashed,
                    scopes=settings.default_scopes,
                    created_at=0,
                )
            )

    try:
        asyncio.run(add())
    finally:
        store.close_now()


def _jotgate_works(port: int, accounts: Accounts, prefix: str = "") -> dict[str, Work]:
    logins = {
        kind: [
            Post.json(f"{prefix}/v1/login", email=email, password=accounts.passwords[kind], delivery="body")
            for email in accounts.emails(kind)
        ]
        for kind in accounts.passwords
    }
    sessions = log_in(port, logins["light"][: accounts.sessions], "access_token", "refresh_token")
    return {
        REFRESH: Refreshes(f"{prefix}/v1/refresh", "refresh_token", [each["refresh_token"] for each in sessions]),
        LOGIN: Logins(logins["light"], "access_token"),
        COSTLY_LOGIN: Logins(logins["costly"], "access_token"),
        HEALTH: Reads([(_get("/healthz"), b'"ok"')]),
    }


@contextmanager
def jotgate_api(setting: Setting, name: str) -> Iterator[list[Side]]:
    """An API with jotgate mounted."""
    folder, port, accounts = setting.folder_for(name), free_port(), setting.accounts
    issuer, data_dir = f"https://localhost:{port}{_AUTH_PATH}", folder / "data"
    seed_jotgate(Settings(issuer=issuer, data_dir=data_dir, http=True), accounts)
    command = granian(f"bench.sessions_api:{APIS[name]}", port, "--interface", "asgi", "--factory")
    orders = json.dumps({"issuer": issuer, "data_dir": str(data_dir)})
    with setting.run(folder, port, command, BENCH_SERVER=orders) as server:
        logins = [
            Post.json(f"{_AUTH_PATH}/v1/login", email=email, password=accounts.passwords["light"], delivery="body")
            for email in accounts.with_sessions
        ]
        tokens = [each["access_token"] for each in log_in(port, logins, "access_token")]
        works: dict[str, Work] = {
            READ: Reads([(_get(PROTECTED_PATH, bearer=token), b'"%s"' % _subject_of(token)) for token in tokens]),
            OPEN_READ: Reads([(_get(path, bearer=token), b'"anybody"') for token in tokens for path in OPEN_PATHS]),
        }
        yield [Side(name, SQLITE, server, works)]


@contextmanager
def fastapi_users(setting: Setting, database: str) -> Iterator[list[Side]]:
    """fastapi-users with SQLAlchemy's asyncio engine; one server, two sides."""
    folder, port, accounts = setting.folder_for(f"fastapi-users {database}"), free_port(), setting.accounts
    if database == SQLITE:
        url, pool = f"sqlite+aiosqlite:///{folder / 'users.sqlite3'}", _SQLITE_POOL
    else:
        url, pool = f"postgresql+asyncpg://{setting.database_for('fastapi_users')}", _POSTGRESQL_POOL
    orders = {"database": url, "pool": pool, "pragmas": _PRAGMAS, **accounts.orders}
    command = granian("bench.sessions_fastapi_users:app", port, "--interface", "asgi", python=peers_python())
    with setting.run(folder, port, command, BENCH_SERVER=json.dumps(orders)) as server:
        yield [
            Side(f"fastapi-users, {strategy}", database, server, _fastapi_users_works(port, accounts, path))
            for strategy, path in (("JWT strategy", "/jwt"), ("database strategy", "/db"))
        ]


def _fastapi_users_works(port: int, accounts: Accounts, path: str) -> dict[str, Work]:
    logins = {
        kind: [
            Post(f"{path}/login", urlencode({"username": email, "password": accounts.passwords[kind]}).encode(), _FORM)
            for email in accounts.emails(kind)
        ]
        for kind in accounts.passwords
    }
    sessions = log_in(port, logins["light"][: accounts.sessions], "access_token")
    pairs = zip([each["access_token"] for each in sessions], accounts.with_sessions, strict=True)
    return {
        LOGIN: Logins(logins["light"], "access_token"),
        COSTLY_LOGIN: Logins(logins["costly"], "access_token"),
        READ: Reads([(_get(f"{path}/me", bearer=token), b'"%s"' % email.encode()) for token, email in pairs]),
    }


@contextmanager
def simplejwt(setting: Setting, database: str) -> Iterator[list[Side]]:
    """Django, its REST framework and SimpleJWT with rotation and blacklist."""
    folder, port, accounts = setting.folder_for(f"simplejwt {database}"), free_port(), setting.accounts
    connect: dict[str, Any]
    if database == SQLITE:
        threads = _SQLITE_THREADS
        connect = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "django.sqlite3"),
            "OPTIONS": {"init_command": ";".join(_PRAGMAS), "transaction_mode": "IMMEDIATE", "timeout": 30},
        }
    else:
        threads = _POSTGRESQL_THREADS
        connect = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": setting.postgresql_port,
            "USER": "bench",
            "NAME": setting.database_for("simplejwt").rpartition("/")[2],
        }
    orders = json.dumps({"database": connect, **accounts.orders})
    options = ("--interface", "wsgi", "--factory", "--blocking-threads", str(threads))
    command = granian("bench.sessions_django:make_app", port, *options, python=peers_python())
    with setting.run(folder, port, command, BENCH_SERVER=orders) as server:
        logins = {
            kind: [
                Post.json("/token/", username=email, password=accounts.passwords[kind])
                for email in accounts.emails(kind)
            ]
            for kind in accounts.passwords
        }
        emails = accounts.with_sessions
        sessions = log_in(port, logins["light"][: accounts.sessions], "access", "refresh")
        pairs = zip(sessions, emails, strict=True)
        works: dict[str, Work] = {
            REFRESH: Refreshes("/token/refresh/", "refresh", [each["refresh"] for each in sessions]),
            LOGIN: Logins(logins["light"], "access"),
            COSTLY_LOGIN: Logins(logins["costly"], "access"),
            READ: Reads([(_get("/me/", bearer=each["access"]), b'"%s"' % email.encode()) for each, email in pairs]),
        }
        yield [Side("Django SimpleJWT", database, server, works)]


@contextmanager
def better_auth(setting: Setting) -> Iterator[list[Side]]:
    """better-auth on Node and PostgreSQL; its session is a row, which `get-session` reads."""
    modules, node = better_auth_modules(), shutil.which("node")
    assert modules is not None
    assert node is not None
    folder, port, accounts = setting.folder_for("better-auth"), free_port(), setting.accounts
    orders = {
        "port": port,
        "database": f"postgresql://{setting.database_for('better_auth')}",
        "pool": _POSTGRESQL_POOL,
        "passwords": accounts.passwords,
        **accounts.orders,
    }
    command = (node, str(ROOT / "bench" / "sessions_better_auth.mjs"), str(modules))
    with setting.run(folder, port, command, BENCH_SERVER=json.dumps(orders), NODE_ENV="production") as server:
        logins = {
            kind: [
                Post.json("/api/auth/sign-in/email", email=email, password=accounts.passwords[kind])
                for email in accounts.emails(kind)
            ]
            for kind in accounts.passwords
        }
        cookies = [each[COOKIE] for each in log_in(port, logins["light"][: accounts.sessions])]
        pairs = zip(cookies, accounts.with_sessions, strict=True)
        get = "/api/auth/get-session"
        works: dict[str, Work] = {
            LOGIN: Logins(logins["light"], "token"),
            COSTLY_LOGIN: Logins(logins["costly"], "token"),
            READ: Reads([(_get(get, cookie=cookie), b'"%s"' % email.encode()) for cookie, email in pairs]),
        }
        yield [Side("better-auth", POSTGRESQL, server, works)]


def make_sides(setting: Setting, stack: ExitStack) -> tuple[list[Side], dict[str, str]]:
    """Start all that can be started; and for each other one, say why it cannot."""
    sides: list[Side] = []
    absent: dict[str, str] = {}
    has_peers, has_database = peers_python() is not None, setting.postgresql_port is not None
    no_peers = None if has_peers else "not installed"
    no_database = None if has_database else "PostgreSQL is not installed"
    makers: list[tuple[str, str | None, Callable[[Setting], Any]]] = [
        ("jotgate, SQLite", None, partial(jotgate, database=SQLITE)),
        ("jotgate, PostgreSQL", no_database, partial(jotgate, database=POSTGRESQL)),
        *((name, None, partial(jotgate_api, name=name)) for name in APIS),
        ("fastapi-users, SQLite", no_peers, partial(fastapi_users, database=SQLITE)),
        ("fastapi-users, PostgreSQL", no_peers or no_database, partial(fastapi_users, database=POSTGRESQL)),
        ("Django SimpleJWT, SQLite", no_peers, partial(simplejwt, database=SQLITE)),
        ("Django SimpleJWT, PostgreSQL", no_peers or no_database, partial(simplejwt, database=POSTGRESQL)),
        (
            "better-auth, PostgreSQL",
            no_database or (None if better_auth_modules() is not None else "node or npm is not installed"),
            better_auth,
        ),
    ]
    for name, why_not, maker in makers:
        if why_not is not None:
            absent[name] = why_not
        else:
            sides += stack.enter_context(maker(setting))
    return sides, absent


def log_in(port: int, logins: Sequence[Post], *members: str) -> list[Mapping[str, bytes]]:
    """Make one session with each login; returns what stands in these members of the answers, and the cookies.

    Raises:
        WrongAnswer: one was refused.
    """
    sessions: list[Mapping[str, bytes]] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LOGIN_WITHIN_S)
    with closing(connection):
        for login in logins:
            connection.request("POST", login.path, login.body, {"Content-Type": login.content_type})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise WrongAnswer(f"a login was answered with {answer.status} {body[:500]!r}")
            cookies = [line.partition(";")[0] for line in answer.headers.get_all("set-cookie", [])]
            gave = json.loads(body)
            sessions.append({name: gave[name].encode() for name in members} | {COOKIE: "; ".join(cookies).encode()})
    return sessions


def _subject_of(token: bytes) -> bytes:
    claims = json.loads(decode_segment(token.split(b".")[1].decode("ascii")))
    return str(claims["sub"]).encode()


def _get(path: str, *, bearer: bytes = b"", cookie: bytes = b"") -> bytes:
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    if bearer:
        head += b"Authorization: Bearer " + bearer + b"\r\n"
    if cookie:
        head += b"Cookie: " + cookie + b"\r\n"
    return head + b"\r\n"


def _marker(member: str) -> bytes:
    return b'"' + member.encode() + b'":"'


def _member(body: bytes, marker: bytes) -> bytes:
    """Return a member that is a text without escapes; nothing where there is none."""
    found = body.find(marker)
    if found < 0:
        return b""
    start = found + len(marker)
    return body[start : body.index(b'"', start)]
