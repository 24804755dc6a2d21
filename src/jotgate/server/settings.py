"""What an operator decides, read once at start and passed down by hand; it knows no request and opens nothing.

Every setting has a default that works on one machine, so ``Settings()`` is a running server. Every fault is
found before anything is opened, and all of them are told at once.
"""

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct, field
from msgspec.structs import fields
from publicsuffixlist import PublicSuffixList

from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.errors import SettingsError
from jotgate.core.forwarded import TrustedProxies
from jotgate.server.places import database_faults, is_sqlite, mail_faults, name_of, redis_faults, sqlite_path
from jotgate.server.rules.accounts import is_email, is_scope_token
from jotgate.server.rules.hashing import ARGON2_SETS, parse_argon2
from jotgate.server.rules.return_addresses import is_origin
from jotgate.server.sealing import MasterKey, MasterKeySource, command_faults
from jotgate.server.secret import Secret
from jotgate.throttle import InvalidLimit, parse_limit

MAX_ACCESS_TOKEN_TTL_S: Final = 3600
MAX_SESSION_IDLE_S: Final = 31_536_000
SIGNUPS: Final = ("verified", "open")
MAX_BRAND_CHARS: Final = 64
LOG_FORMATS: Final = ("auto", "json", "console")
_LOCAL_SENDER: Final = "no-reply@jotgate.test"  # no mail comes from localhost
MAIL_FOLDER: Final = "mail"
DATABASE_NAME: Final = "jotgate.sqlite3"
_PREFIX: Final = "JOTGATE_"
# Where the test suite finds its public vectors; a developer's shell may have it while a server starts.
_NOT_SETTINGS: Final = frozenset({"JOTGATE_VECTORS"})


# What survives every client's way of tidying up URLs, so that an exact comparison stays one.
_PLAIN_ISSUER: Final = re.compile(r"https://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]+)?(?:/[A-Za-z0-9._~-]+)*")


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(Struct, frozen=True, kw_only=True):
    """The server's settings.

    Raises:
        SettingsError: on construction, naming every fault at once.
    """

    issuer: str = "https://localhost:8443"
    """URL that names this server in tokens (claim ``iss``); links and metadata are built from it alone."""
    audience: str = "api"
    """Name of the API that access tokens are for (claim ``aud``); never the auth server itself."""
    data_dir: Path = Path("jotgate-data")
    """Folder of the SQLite database, the master key and the local certificate; made with mode 0700."""
    master_key: Secret | None = None
    """32 bytes in base64url that seal the private keys; without it, the file ``master.key`` in the data folder."""
    master_key_file: Path | None = None
    """File that holds the master key instead, readable for its owner alone; it is never made."""
    master_key_command: Secret | None = None
    """Command that prints the master key (for Vault, KMS and the like); no shell, 30 s at most."""
    master_key_previous: Secret | None = None
    """The master key before this one, while it is being changed: it opens sealed keys, and seals none."""
    database_url: Secret | None = None
    """``postgresql://…``, or ``sqlite:///…``; without it, the file ``jotgate.sqlite3`` in the data folder."""
    redis_url: Secret | None = None
    """``redis://…`` or ``rediss://…``: wakes replicas faster than the database does. Nothing is kept there."""
    signing_algorithm: str = "ES256"
    """Algorithm of access tokens. Another value switches by a rotation, which fails no request."""
    key_rotation_s: int = 2_592_000
    """Every so many seconds the next key signs (30 days); at least three times ``jwks_max_age_s``."""
    jwks_max_age_s: int = 300
    """How long anybody may keep the published keys without asking again; a key is published three times as long before
    it signs. Verifiers of jotgate ask once a minute at most."""
    default_scopes: tuple[str, ...] = ("account:read",)
    """Scopes that a new account is granted."""
    access_token_ttl_s: int = 300
    """Life of an access token in seconds, 10 to 3600."""
    session_idle_s: int = 1_209_600
    """A session ends when it has not been refreshed for so many seconds (14 days)."""
    session_absolute_s: int = 7_776_000
    """A session ends so many seconds after the login, whatever happens (90 days)."""
    signup: str = "verified"
    """``verified``: a link in a mail makes the account, and nothing tells who has one. ``open``: it is made at once,
    and an address that has one is refused, which tells that it has."""
    mail_url: Secret | None = None
    """``smtp://user:password@host:587`` (STARTTLS), ``smtps://…:465``, ``file:folder`` or ``console:``; without it
    mails are files in the folder ``mail`` of the data folder."""
    mail_from: str | None = None
    """Address that mails come from; without it ``no-reply@`` and the issuer's host."""
    brand_name: str = "jotgate"
    """Name of your site, as mails and pages show it."""
    brand_colour: str = "#1f5fbf"
    """Colour of buttons and links, ``#rrggbb``."""
    brand_logo_url: str | None = None
    """Picture that pages show in place of the name, https."""
    home_url: str | None = None
    """Where a person goes on from the pages here: your site, https."""
    password_min_length: int = 15
    """Least length of a new password in characters (NIST SP 800-63B-4: 15 without a second factor), at least 8."""
    passkey_domain: str | None = None
    """Name that passkeys belong to, which the issuer's and the front ends' hosts are or end with; without it the
    issuer's own."""
    trusted_proxies: tuple[str, ...] | int = ()
    """Addresses or networks of the proxies whose Forwarded headers count, or how many proxies there always are."""
    allowed_origins: tuple[str, ...] = ()
    """Further origins, on the issuer's own site, whose pages may use the session cookie (credentialed CORS)."""
    http: bool = False
    """The server listens without TLS: only for loopback, or behind a trusted proxy that speaks TLS."""
    hash_workers: int = field(default_factory=lambda: max(1, usable_cores() - 1))
    """Threads that check passwords, so that the event loop never does."""
    argon2: str = str(ARGON2_SETS[0])
    """What a password hash costs, as memory in KiB / passes: one of OWASP's sets, equally strong. A login replaces a
    stored hash of another cost."""
    feed_connections: int = 1000
    """How many verifiers may listen to one process's stream of revocations at once; others poll. Those with a verifier
    token have as many places of their own."""
    feed_connections_per_address: int = 100
    """How many of them from one address (IPv6: one /64), of those without a verifier token."""
    verifier_tokens: tuple[Secret, ...] = ()
    """Texts of 32 characters and more, by which this server knows its verifiers (``Verifier(verifier_token=…)``): no
    limit of the feed's counts for them. Several while one is being changed."""
    metrics_token: Secret | None = None
    """Text of 32 characters and more by which Prometheus may read ``/metrics``; without it there is no such page."""
    limit_logins: str = "30/minute"
    """Failed logins and changes of password from one address (IPv6: one /64), as ``20/10s; burst=5`` and the like."""
    guesses_before_backoff: int = 5
    """So many failed logins to one account may come at once; the next ones 1, 2, 4, … seconds after the first."""
    backoff_max_s: int = 256
    """The longest wait between two logins to an account under attack: a power of two, in seconds."""
    limit_device: str = "10/hour"
    """Failed logins to an account from a browser that has logged in to it before; the back-off is not its own."""
    limit_strangers: str = "3000/minute; burst=500"
    """Sign-ups and failed logins of everybody together, known devices apart."""
    limit_sessions: str = "120/hour; burst=60"
    """Sessions that one account begins."""
    limit_client: str | None = None
    """Logins and refreshes of one client, from everywhere. Beyond it everybody waits, known devices, too: choose it by
    what the database can do."""
    limit_global: str | None = None
    """Everything but the feed that has a limit, of everybody together; the same applies."""
    limit_signups: str = "60/hour; burst=20"
    """Sign-ups from one address."""
    limit_mails: str = "60/hour; burst=20"
    """Questions from one address that a mail answers: forgotten passwords, changes of address."""
    limit_mails_to: str = "6/hour; burst=3"
    """Mails that strangers can have sent to one e-mail address; beyond that none goes out, and nobody is told."""
    limit_refreshes: str = "1200/minute"
    """Refreshes from one address."""
    limit_feed: str = "3000/minute"
    """Questions for revocations from one address: a verifier without a stream asks 75 times a minute."""
    limit_requests: str = "1200/minute"
    """Everything else that asks the database, from one address."""
    audit_keep_s: int = 34_560_000
    """How long lines of the audit trail are kept (400 days), a day to ten years."""
    log_format: str = "auto"
    """``json``, one line an event; ``console``, to read; ``auto``: to read where standard error is a terminal."""
    claims_for: str | None = None
    """``module:function`` that returns an account's own claims for its access tokens."""

    def __post_init__(self) -> None:
        faults = tuple(_faults(self))
        if faults:
            raise SettingsError(faults)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> "Settings":  # noqa: ANN401 - any field's value
        """Read ``JOTGATE_<FIELD>`` variables; keyword arguments win over them.

        Raises:
            SettingsError: for unknown ``JOTGATE_`` names and bad values, all at once.
        """
        faults: list[str] = []
        values: dict[str, Any] = {}
        for name, text in sorted(environ.items()):
            if not name.startswith(_PREFIX) or name in _NOT_SETTINGS:
                continue
            setting = name.removeprefix(_PREFIX).lower()
            if setting not in _READERS:
                faults.append(f"{name} is not a setting; known are {', '.join(_PREFIX + s.upper() for s in _READERS)}")
            elif setting not in overrides:
                try:
                    values[setting] = _READERS[setting](text)
                except ValueError as error:
                    faults.append(f"{name} {error}")
        try:
            settings = cls(**values, **overrides)
        except SettingsError as error:
            raise SettingsError((*faults, *error.faults)) from None
        if faults:
            raise SettingsError(tuple(faults))
        return settings

    @property
    def master_key_source(self) -> MasterKeySource:
        """Where the master key comes from."""
        return MasterKeySource(
            data_dir=self.data_dir,
            text=self.master_key,
            file=self.master_key_file,
            command=self.master_key_command,
            previous=self.master_key_previous,
        )

    @property
    def shared_database(self) -> Secret | None:
        """The URL of a database that several machines can share; None for a file on this one."""
        return None if self.database_url is None or is_sqlite(self.database_url) else self.database_url

    @property
    def sqlite_path(self) -> Path:
        """The file of the SQLite database, where there is no shared one."""
        return self.data_dir / DATABASE_NAME if self.database_url is None else sqlite_path(self.database_url)

    @property
    def database_name(self) -> str:
        """Where the database is, for people: without user and password."""
        shared = self.shared_database
        return str(self.sqlite_path) if shared is None else f"PostgreSQL, {name_of(shared)}"

    @property
    def mail_folder(self) -> Path:
        """Where mails lie that no mail server takes, because none is set."""
        return self.data_dir / MAIL_FOLDER

    @property
    def mail_sender(self) -> str:
        """Address that mails come from."""
        of_host = f"no-reply@{urlsplit(self.issuer).hostname}"
        return self.mail_from or (of_host if is_email(of_host) else _LOCAL_SENDER)

    @property
    def passkey_domain_name(self) -> str | None:
        """The name that passkeys belong to (WebAuthn's RP ID); None where the issuer has no name but an address."""
        host = (urlsplit(self.issuer).hostname or "").lower()
        return self.passkey_domain or (None if _is_address(host) else host)

    @property
    def verified_algorithms(self) -> tuple[str, ...]:
        """What access tokens may be signed with here: any kind of key pair, or the one kind of secret that is used."""
        return ASYMMETRIC if self.signing_algorithm in ASYMMETRIC else (self.signing_algorithm,)

    @property
    def proxies(self) -> TrustedProxies:
        """The trusted proxies, parsed."""
        return TrustedProxies.parse(self.trusted_proxies)

    @property
    def issuer_path(self) -> str:
        """The path of the issuer, without a trailing slash: where the app is mounted."""
        return urlsplit(self.issuer).path.rstrip("/")

    @property
    def origin(self) -> str:
        """The issuer's own origin, as a browser writes it (RFC 6454)."""
        return origin_of(self.issuer)


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL as a browser writes an origin: without a default port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.scheme}://{host}" if parts.port in (None, default) else f"{parts.scheme}://{host}:{parts.port}"


def _read_int(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}", text.strip()):
        raise ValueError("must be a whole number")
    return int(text)


def _read_bool(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.strip().lower() not in values:
        raise ValueError("must be true or false")
    return values[text.strip().lower()]


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(re.split(r"[,\s]+", text.strip())) if text.strip() else ()


def _read_proxies(text: str) -> tuple[str, ...] | int:
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text.strip()) else _read_list(text)


def _read_url(text: str) -> Secret:
    return Secret(text.strip())


def _read_tokens(text: str) -> tuple[Secret, ...]:
    return tuple(map(Secret, _read_list(text)))


_LIMITS: Final = (
    "limit_logins",
    "limit_device",
    "limit_strangers",
    "limit_sessions",
    "limit_client",
    "limit_global",
    "limit_signups",
    "limit_mails",
    "limit_mails_to",
    "limit_refreshes",
    "limit_feed",
    "limit_requests",
)
_SHORTEST_TOKEN: Final = 32
_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "issuer": str.strip,
    "audience": str.strip,
    "data_dir": Path,
    "master_key": Secret,
    "master_key_file": Path,
    "master_key_command": Secret,
    "master_key_previous": Secret,
    "database_url": _read_url,
    "redis_url": _read_url,
    "signing_algorithm": str.strip,
    "key_rotation_s": _read_int,
    "jwks_max_age_s": _read_int,
    "default_scopes": _read_list,
    "access_token_ttl_s": _read_int,
    "session_idle_s": _read_int,
    "session_absolute_s": _read_int,
    "signup": str.strip,
    "mail_url": _read_url,
    "mail_from": str.strip,
    "brand_name": str.strip,
    "brand_colour": str.strip,
    "brand_logo_url": str.strip,
    "home_url": str.strip,
    "password_min_length": _read_int,
    "trusted_proxies": _read_proxies,
    "allowed_origins": _read_list,
    "passkey_domain": str.strip,
    "http": _read_bool,
    "hash_workers": _read_int,
    "argon2": str.strip,
    "feed_connections": _read_int,
    "feed_connections_per_address": _read_int,
    "verifier_tokens": _read_tokens,
    "metrics_token": Secret,
    "guesses_before_backoff": _read_int,
    "backoff_max_s": _read_int,
    **dict.fromkeys(_LIMITS, str.strip),
    "audit_keep_s": _read_int,
    "log_format": str.strip,
    "claims_for": str.strip,
}
_RANGES: Final = {
    "access_token_ttl_s": (10, MAX_ACCESS_TOKEN_TTL_S),
    "session_idle_s": (60, MAX_SESSION_IDLE_S),
    "session_absolute_s": (60, 31_536_000),
    "key_rotation_s": (1, 31_536_000),
    "jwks_max_age_s": (1, 86_400),
    "password_min_length": (8, 128),
    "hash_workers": (1, 64),
    "feed_connections": (1, 100_000),
    "feed_connections_per_address": (1, 100_000),
    "guesses_before_backoff": (1, 100),
    "backoff_max_s": (1, 4096),
    "audit_keep_s": (86_400, 315_360_000),
}


def _faults(settings: Settings) -> Iterator[str]:
    yield from _type_faults(settings)
    if list(_type_faults(settings)):
        return  # the checks below rely on the types
    yield from _issuer_faults(settings)
    yield from _master_key_faults(settings)
    if settings.database_url is not None:
        yield from database_faults(settings.database_url)
    if settings.redis_url is not None:
        yield from redis_faults(settings.redis_url)
    if not settings.audience:
        yield "audience must name your API, for example 'shop'"
    elif settings.audience == settings.issuer:
        yield "audience must name your API, not the auth server: an API token must not be good for the account itself"
    for name, (least, most) in _RANGES.items():
        if not least <= getattr(settings, name) <= most:
            yield f"{name} must be from {least} to {most}, not {getattr(settings, name)}"
    yield from _signing_faults(settings)
    if settings.backoff_max_s & (settings.backoff_max_s - 1):
        yield f"backoff_max_s must be a power of two, not {settings.backoff_max_s}"
    if settings.session_idle_s > settings.session_absolute_s:
        yield "session_idle_s must not be longer than session_absolute_s"
    for scope in settings.default_scopes:
        if not is_scope_token(scope):
            yield f"default_scopes: {scope!r} is not a scope (RFC 6749 section 3.3: no spaces, quotes or backslashes)"
    try:
        TrustedProxies.parse(settings.trusted_proxies)
    except ValueError as error:
        yield f"trusted_proxies: {error}"
    try:
        parse_argon2(settings.argon2)
    except ValueError as error:
        yield f"argon2 {error}, not {settings.argon2!r}"
    for name in _LIMITS:
        try:
            if getattr(settings, name) is not None:
                parse_limit(getattr(settings, name))
        except InvalidLimit as fault:
            yield f"{name}: {fault}"
    if settings.signup not in SIGNUPS:
        yield f"signup must be one of {', '.join(SIGNUPS)}"
    if settings.mail_url is not None:
        yield from mail_faults(settings.mail_url)
    if settings.mail_from is not None and not is_email(settings.mail_from):
        yield "mail_from is not an e-mail address, for example no-reply@example.com"
    if not 1 <= len(settings.brand_name) <= MAX_BRAND_CHARS or not settings.brand_name.isprintable():
        yield f"brand_name must be one line of 1 to {MAX_BRAND_CHARS} characters"
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", settings.brand_colour):
        yield "brand_colour must be written #rrggbb"
    for name in ("brand_logo_url", "home_url"):
        url = getattr(settings, name)
        if url is not None and (refused := _url_fault(url)):
            yield f"{name} {refused}"
    if settings.brand_logo_url is not None and not is_origin(origin_of(settings.brand_logo_url)):
        yield "brand_logo_url must name its host in plain letters, as a Content-Security-Policy does"
    if settings.log_format not in LOG_FORMATS:
        yield f"log_format must be one of {', '.join(LOG_FORMATS)}"
    if settings.passkey_domain is not None:
        yield from _passkey_faults(settings, settings.passkey_domain)
    for origin in settings.allowed_origins:
        yield from _origin_faults(settings, origin)
    yield from _token_faults("verifier_tokens", settings.verifier_tokens)
    yield from _token_faults("metrics_token", () if settings.metrics_token is None else (settings.metrics_token,))
    if settings.claims_for is not None and not re.fullmatch(r"[\w.]+:\w+", settings.claims_for):
        yield "claims_for must look like 'module:function'"


_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "issuer": (str,),
    "audience": (str,),
    "data_dir": (Path,),
    "master_key": (Secret, type(None)),
    "master_key_file": (Path, type(None)),
    "master_key_command": (Secret, type(None)),
    "master_key_previous": (Secret, type(None)),
    "database_url": (Secret, type(None)),
    "redis_url": (Secret, type(None)),
    "signing_algorithm": (str,),
    "key_rotation_s": (int,),
    "jwks_max_age_s": (int,),
    "default_scopes": (tuple,),
    "access_token_ttl_s": (int,),
    "session_idle_s": (int,),
    "session_absolute_s": (int,),
    "signup": (str,),
    "mail_url": (Secret, type(None)),
    "mail_from": (str, type(None)),
    "brand_name": (str,),
    "brand_colour": (str,),
    "brand_logo_url": (str, type(None)),
    "home_url": (str, type(None)),
    "password_min_length": (int,),
    "trusted_proxies": (tuple, int),
    "allowed_origins": (tuple,),
    "passkey_domain": (str, type(None)),
    "http": (bool,),
    "hash_workers": (int,),
    "argon2": (str,),
    "feed_connections": (int,),
    "feed_connections_per_address": (int,),
    "verifier_tokens": (tuple,),
    "metrics_token": (Secret, type(None)),
    "guesses_before_backoff": (int,),
    "backoff_max_s": (int,),
    **dict.fromkeys(_LIMITS, (str,)),
    **dict.fromkeys(("limit_client", "limit_global"), (str, type(None))),
    "audit_keep_s": (int,),
    "log_format": (str,),
    "claims_for": (str, type(None)),
}


_ITEMS: Final[dict[str, type]] = {"verifier_tokens": Secret}


def _type_faults(settings: Settings) -> Iterator[str]:
    for each in fields(Settings):
        value, allowed = getattr(settings, each.name), _TYPES[each.name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            yield f"{each.name} must be {' or '.join(kind.__name__ for kind in allowed)}, not {type(value).__name__}"
        elif isinstance(value, tuple) and not all(isinstance(item, _ITEMS.get(each.name, str)) for item in value):
            yield f"{each.name} must hold {_ITEMS.get(each.name, str).__name__} values only"


_MASTER_KEY_SOURCES: Final = ("master_key", "master_key_file", "master_key_command")


def _master_key_faults(settings: Settings) -> Iterator[str]:
    given = [_PREFIX + name.upper() for name in _MASTER_KEY_SOURCES if getattr(settings, name) is not None]
    if len(given) > 1:
        yield f"{' and '.join(given)} are given together: the master key comes from one of them"
    for name in ("master_key", "master_key_previous"):
        text: Secret | None = getattr(settings, name)
        if text is not None:
            try:
                MasterKey.from_text(text.reveal(), _PREFIX + name.upper())
            except SettingsError as error:
                yield from error.faults
    if settings.master_key_command is not None:
        yield from command_faults(settings.master_key_command)


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError:
        return "is not a URL"
    if parts.scheme != "https" or not parts.hostname or not port_is_valid:
        return "must be an https:// URL"
    if "@" in parts.netloc or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        return "must not hold user names, spaces or control characters"
    if "?" in url or "#" in url:
        return "must not have a query or a fragment (RFC 8414 section 2)"
    return None


def _issuer_faults(settings: Settings) -> Iterator[str]:
    if fault := _url_fault(settings.issuer):
        yield f"issuer {fault}, for example https://auth.example.com"
    elif settings.issuer.endswith("/"):
        yield "issuer must not end with a slash: verifiers compare it letter by letter"
    elif not _PLAIN_ISSUER.fullmatch(settings.issuer) or "/." in settings.issuer:
        yield "issuer must be written plainly: lower-case host, and a path of letters, digits and - . _ ~ only"


def _signing_faults(settings: Settings) -> Iterator[str]:
    row = ALGORITHMS.get(settings.signing_algorithm)
    if row is None or row.verify_only:
        names = ", ".join(name for name, each in ALGORITHMS.items() if not each.verify_only)
        yield f"signing_algorithm must be one of {names}"
    elif row.symmetric and settings.shared_database is not None:
        yield (
            f"signing_algorithm {row.name} is for one process alone: whoever verifies its tokens could also make them. "
            "With a shared database use a key pair, for example ES256"
        )
    if settings.key_rotation_s < 3 * settings.jwks_max_age_s:
        yield "key_rotation_s must be at least three times jwks_max_age_s: a key is published that long before it signs"


def _token_faults(name: str, tokens: Sequence[Secret]) -> Iterator[str]:
    for token in tokens:
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token.reveal()) or len(token.reveal()) < _SHORTEST_TOKEN:
            yield (
                f"{name}: a token has {_SHORTEST_TOKEN} characters or more, of letters, digits and - . _ ~ + /: "
                "make one with `openssl rand -hex 32`"
            )
            return


def _site(host: str) -> str:
    """Return the registrable domain of a host; an address or a bare name is its own site."""
    if re.fullmatch(r"[0-9.]+|.*:.*", host) or "." not in host:
        return host
    return PublicSuffixList().privatesuffix(host) or host


def _passkey_faults(settings: Settings, domain: str) -> Iterator[str]:
    if _url_fault(settings.issuer):
        return
    hosts = [urlsplit(each).hostname or "" for each in (settings.issuer, *settings.allowed_origins)]
    fits = all(host == domain or host.endswith(f".{domain}") for host in hosts)
    if not fits or _is_address(domain) or _site(domain) != _site(hosts[0]):
        yield (
            f"passkey_domain: {domain!r} must be the host of the issuer and of all allowed_origins, or a domain that "
            "these belong to, and not one under which anybody may register names"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _origin_faults(settings: Settings, origin: str) -> Iterator[str]:
    if (fault := _url_fault(origin)) or origin_of(origin) != origin:
        yield f"allowed_origins: {origin!r} {fault or 'must be an origin only: https://host[:port]'}"
    elif not _url_fault(settings.issuer):
        own, other = urlsplit(settings.issuer).hostname or "", urlsplit(origin).hostname or ""
        if _site(own) != _site(other):
            yield (
                f"allowed_origins: {origin} is not on the same site as {settings.origin}, so browsers would withhold "
                f"the session cookie there. Give the API a subdomain of the front end's site (auth.{_site(other)}), or "
                "let the front end's server pass a path such as /auth through to jotgate."
            )
