"""What a configuration, and what lies in its data folder, means for the eight practices.

Pure: facts in, findings out. It reads no file, asks no database and looks at no clock.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct
from msgspec.structs import fields

from jotgate.cli.findings import Finding, failed, passed, warned
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.forwarded import TrustedProxies
from jotgate.server.records import SealedKey
from jotgate.server.rules.keys import Standing, is_published, standing
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.throttle import parse_limit

DAY_S: Final = 86_400
CERTIFICATE_WARN_S: Final = 21 * DAY_S
LONG_TOKEN_S: Final = 900
LONG_IDLE_S: Final = 30 * DAY_S
LONG_SESSION_S: Final = 180 * DAY_S
LONG_ROTATION_S: Final = 90 * DAY_S
SHORT_PASSWORD: Final = 15
# Times the default: beyond, a limit is one in name only.
ABSURD_LIMIT: Final = 20
# A set of Argon2 parameters has to be so much faster before anybody is told to change: what is less, a busy machine
# makes of equal ones.
_WORTH_CHANGING: Final = 1.5
_CLOCK_LEEWAY_S: Final = 60
# By version of IP. Networks of proxies that anybody can rent are narrower: the widest of a known one are /10 and /24.
_WIDE_PREFIX: Final = {4: 10, 6: 24}
# Wide, and of nobody but those who stand in one's own networks.
_OWN_NETWORKS: Final = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.0/8", "fc00::/7", "fe80::/10")))
LIBPQ_NAMES: Final = ("PGHOST", "PGSERVICE", "PGSSLMODE")
_OWN_PATHS: Final = ("/.well-known", "/v1", "/oauth", "/revocations")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Certificate(Struct, frozen=True, kw_only=True):
    """What is known of the certificate that the server would serve."""

    local: bool
    """It is the one of the data folder, which vouches for localhost alone."""
    faults: tuple[str, ...] = ()
    ends_at: int = 0
    names: tuple[str, ...] = ()
    chain: int = 1
    self_signed: bool = False
    key_mode: int = 0o600


class Database(Struct, frozen=True, kw_only=True):
    """What is known of the database."""

    name: str
    exists: bool = True
    fault: str | None = None
    schema: Literal["current", "older", "newer"] | None = None
    keys: tuple[SealedKey, ...] = ()
    unopened: frozenset[str] = frozenset()
    """The `kid`s that the master key does not open."""
    master_key_fault: str | None = None


class Hook(Struct, frozen=True, kw_only=True):
    """What `claims_for` gave for a made-up account."""

    fault: str | None = None
    """It cannot be imported or called."""
    raised: str | None = None
    """The class of what it raised."""
    refused: str | None = None
    warnings: tuple[str, ...] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """All that the checks of a configuration are about."""

    settings: Settings
    now: int
    cores: int = 1
    folder: Literal["there", "missing", "no folder", "unreadable"] = "there"
    """What is found where the data folder should be; it, or one above it, may be no folder."""
    modes: dict[str, int] = {}
    """Permission bits of the folder and of files in it that nobody else may read."""
    certificate: Certificate | None = None
    """None where there is none, or none yet."""
    database: Database
    libpq: dict[str, str] = {}
    """Those of `LIBPQ_NAMES` that the environment has: the driver reads them where the URL is silent."""
    redis_fault: str | None = None
    """Why Redis does not answer, where one is named; without its URL."""
    hook: Hook | None = None
    hash_s: dict[str, float] = {}
    """Seconds that one hash took on one core, by set of parameters."""


def check_configuration(facts: Facts) -> Iterator[Finding]:
    """Make all checks."""
    for check in (
        check_issuer,
        check_listening,
        check_certificate,
        check_database_tls,
        check_redis_tls,
        check_origins,
        check_database,
        check_clock,
        check_lives,
        check_data_folder,
        check_permissions,
        check_master_key,
        check_rotation,
        check_keys,
        check_algorithm,
        check_revocation_bound,
        check_claims,
        check_limits,
        check_redis,
        check_shared_limits,
        check_proxies,
        check_password_length,
        check_mail,
        check_signup,
        check_hashing,
    ):
        yield from check(facts)


def is_local(host: str) -> bool:
    """Whether a name means this machine alone; written out, as nobody is asked for it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(settings: Settings) -> str:
    return urlsplit(settings.issuer).hostname or ""


def check_issuer(facts: Facts) -> Iterator[Finding]:
    """The issuer is a name by which others reach the server, and its path takes none of the server's own."""
    settings = facts.settings
    path = settings.issuer_path
    if path.startswith(_OWN_PATHS) or path.endswith(_OWN_PATHS):
        detail = f"The issuer's path {path} looks like one of the server's own."
        yield warned("https", "issuer", detail, "Let the issuer be the root of the server, or where it is mounted.")
    elif is_local(_host(settings)):
        detail = f"The issuer is {settings.issuer}, which only this machine can reach."
        yield warned("https", "issuer", detail, "For other than development, set JOTGATE_ISSUER to the public URL.")
    else:
        yield passed("https", "issuer", f"The issuer is {settings.issuer}.")


def check_listening(facts: Facts) -> Iterator[Finding]:
    """Clear text only behind a proxy that speaks TLS."""
    settings = facts.settings
    if not settings.http:
        yield passed("https", "listening", "The server itself speaks TLS 1.2 and 1.3, and nothing else.")
    elif not settings.proxies:
        detail = "The server listens without TLS, and no proxy is trusted: it can serve this machine only."
        yield warned("https", "listening", detail, "Drop JOTGATE_HTTP, or name the proxy in JOTGATE_TRUSTED_PROXIES.")
    else:
        yield passed("https", "listening", "The server listens without TLS, behind proxies that are named.")


def check_certificate(facts: Facts) -> Iterator[Finding]:
    """There is a certificate for the issuer's name, with its chain, for weeks to come, and nobody else has its key."""
    settings, found = facts.settings, facts.certificate
    host = _host(settings)
    if settings.http:
        return
    if found is None or found.local:
        if not is_local(host):
            detail = f"No certificate for {host} is named, and the local one vouches for localhost alone."
            yield warned("https", "certificate", detail, "Give --tls-cert and --tls-key, here as to `jotgate serve`.")
        if found is None:
            if is_local(host):
                yield passed("https", "certificate", "A certificate for localhost is made at the first start.")
            return
    if found.faults:
        for fault in found.faults:
            yield failed("https", "certificate", f"{_capital(fault)}.", "Mend or renew the certificate and its key.")
        return
    left_s = found.ends_at - facts.now
    if left_s <= 0 or (left_s < CERTIFICATE_WARN_S and not found.local):
        detail = f"The certificate expires in {max(0, left_s // DAY_S)} days."
        yield warned("https", "certificate-expiry", detail, "Renew it, and see why that did not happen by itself.")
    else:
        yield passed("https", "certificate-expiry", f"The certificate is good for {left_s // DAY_S} more days.")
    if not any(_covers(name, host) for name in found.names) and not (found.local and not is_local(host)):
        detail = f"The certificate is not for {host}."
        yield failed("https", "certificate-name", detail, "Get one for the issuer's host, or mend JOTGATE_ISSUER.")
    if not found.local and found.chain == 1 and not found.self_signed:
        detail = "The certificate file holds one certificate without those that vouch for it."
        yield warned("https", "certificate-chain", detail, "Give the full chain, the server's own certificate first.")
    elif not found.local and found.self_signed:
        detail = "The certificate is signed by itself, so that every client has to be told of it."
        yield warned("https", "certificate-chain", detail, "Get one from an authority that clients trust.")
    # A group may read a key that was brought, as for `jotgate serve`: so Debian's ssl-cert hands keys to a service.
    if found.key_mode & (0o077 if found.local else 0o007):
        detail = f"Others can read the private key of the certificate (mode {found.key_mode:04o})."
        yield failed("https", "certificate-key", detail, "Get a new key and certificate, and chmod 600 the key.")


def _covers(name: str, host: str) -> bool:
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:].lower()
    return name.lower() == host


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:].rstrip(".")


def _hosts(url: Secret) -> list[str]:
    netloc = urlsplit(url.reveal()).netloc.rpartition("@")[2]
    return [urlsplit(f"//{each}").hostname or "" for each in netloc.split(",")]


def check_database_tls(facts: Facts) -> Iterator[Finding]:
    """The way to PostgreSQL is encrypted, and the server at its end is the right one."""
    url = facts.settings.shared_database
    if url is None:
        return
    query, libpq = parse_qs(urlsplit(url.reveal()).query), facts.libpq
    if "service" in query or libpq.get("PGSERVICE"):
        detail = "Where the database is, and whether the way is encrypted, a service file says, which is not looked at."
        remedy = "Say both in JOTGATE_DATABASE_URL, and unset PGSERVICE."
        yield warned("https", "database-tls", detail, remedy)
        return
    hosts = [host for host in (*_hosts(url), *",".join(query.get("host", [])).split(",")) if host]
    hosts = hosts or [host for host in libpq.get("PGHOST", "").split(",") if host]
    if all(is_local(host) or host.startswith("/") for host in hosts):
        yield passed("https", "database-tls", "The database is on this machine.")
        return
    mode = (query.get("sslmode") or [libpq.get("PGSSLMODE") or "prefer"])[-1]
    remedy = "Say sslmode=verify-full in JOTGATE_DATABASE_URL."
    if mode == "verify-full":
        yield passed("https", "database-tls", "The database's certificate and name are checked (sslmode=verify-full).")
    elif mode in {"require", "verify-ca"}:
        detail = f"The way to the database is encrypted, but any server could stand at its end (sslmode={mode})."
        yield warned("https", "database-tls", detail, remedy)
    else:
        detail = f"The way to the database may not be encrypted (sslmode={mode})."
        yield failed("https", "database-tls", detail, remedy)


def check_redis_tls(facts: Facts) -> Iterator[Finding]:
    """The way to Redis is encrypted."""
    url = facts.settings.redis_url
    if url is None:
        return
    if all(map(is_local, _hosts(url))):
        yield passed("https", "redis-tls", "Redis is on this machine.")
    elif url.reveal().startswith("rediss:"):
        yield passed("https", "redis-tls", "Redis is reached by TLS, and its certificate is checked.")
    else:
        detail = "Redis is reached over the network without TLS, its password included."
        yield failed("https", "redis-tls", detail, "Use rediss:// in JOTGATE_REDIS_URL.")


def check_origins(facts: Facts) -> Iterator[Finding]:
    """Few other origins may use the session cookie."""
    count = len(facts.settings.allowed_origins)
    if count > 10:
        detail = f"Pages of {count} further origins may use the session cookie: a hole in one of them is one here."
        yield warned("https", "allowed-origins", detail, "Name in JOTGATE_ALLOWED_ORIGINS only those that are used.")
    else:
        yield passed("https", "allowed-origins", f"Pages of {count} further origins may use the session cookie.")


def check_database(facts: Facts) -> Iterator[Finding]:
    """The database answers, and its tables are those of this version."""
    found = facts.database
    if not found.exists:
        yield passed("stateless", "database", f"There is no database yet ({found.name}): the first start makes it.")
        return
    if found.fault is not None:
        detail = f"The database ({found.name}) does not answer: {found.fault.rstrip('.')}."
        yield failed("stateless", "database", detail, "Start it, or mend JOTGATE_DATABASE_URL or --data.")
        return
    yield passed("stateless", "database", f"The database answers ({found.name}).")
    if found.schema == "current":
        yield passed("stateless", "schema", "The tables are those of this version.")
    elif found.schema == "newer":
        detail = "The tables are of a newer jotgate, which this one refuses."
        yield failed("stateless", "schema", detail, "Upgrade jotgate on this machine.")
    else:
        detail = "The tables are older than this version, or not there: keys could not be looked at."
        yield warned("stateless", "schema", detail, "Run `jotgate db upgrade`, or start the server, which does it.")


def check_clock(facts: Facts) -> Iterator[Finding]:
    """Nothing in the database is from the future."""
    latest = max((key.created_at for key in facts.database.keys), default=0)
    if latest > facts.now + _CLOCK_LEEWAY_S:
        detail = f"A key was made {latest - facts.now} s from now: this machine's clock, or another's, is wrong."
        yield failed("expire", "clock", detail, "Set the clocks of all servers by NTP.")
    elif facts.database.keys:
        yield passed("expire", "clock", "No key is from the future, by this machine's clock.")


def check_lives(facts: Facts) -> Iterator[Finding]:
    """Tokens and sessions end soon enough."""
    settings = facts.settings
    life = settings.access_token_ttl_s
    if life > LONG_TOKEN_S:
        detail = f"An access token lives {life // 60} minutes, and as long a verifier that is cut off believes it."
        yield warned("expire", "access-token", detail, "Set JOTGATE_ACCESS_TOKEN_TTL_S to 900 or less.")
    else:
        yield passed("expire", "access-token", f"An access token lives {life} s.")
    if settings.session_idle_s > LONG_IDLE_S or settings.session_absolute_s > LONG_SESSION_S:
        detail = (
            f"A session lives {settings.session_idle_s // DAY_S} days unused, "
            f"and {settings.session_absolute_s // DAY_S} days in all."
        )
        remedy = "Set JOTGATE_SESSION_IDLE_S to 30 days or less, and JOTGATE_SESSION_ABSOLUTE_S to 180 days or less."
        yield warned("expire", "sessions", detail, remedy)
    else:
        yield passed("expire", "sessions", "Sessions end when unused, and in any case within half a year.")


def check_data_folder(facts: Facts) -> Iterator[Finding]:
    """The data folder is one, and the one that is meant."""
    path, remedy = facts.settings.data_dir, "Mend --data or JOTGATE_DATA_DIR."
    if facts.folder == "no folder":
        yield failed("keys", "data-folder", f"{path}, or what it lies in, is no folder.", remedy)
    elif facts.folder == "unreadable":
        detail = f"The data folder {path} cannot be looked at."
        yield failed("keys", "data-folder", detail, "Run the doctor as the server's own user, or mend --data.")
    elif facts.folder == "there":
        yield passed("keys", "data-folder", f"The data folder is {path}.")
    elif facts.settings.shared_database is None:
        detail = f"The data folder {path} is not there: the first start makes it, with keys and accounts of its own."
        yield warned("keys", "data-folder", detail, "If a server has run already, mend --data or JOTGATE_DATA_DIR.")
    else:
        yield passed("keys", "data-folder", f"The data folder {path} is made at the first start.")


def check_permissions(facts: Facts) -> Iterator[Finding]:
    """Nobody else reads the data folder and what is secret in it."""
    open_ones = [f"{name} (mode {mode:04o})" for name, mode in sorted(facts.modes.items()) if mode & 0o077]
    if open_ones:
        detail = f"Others on this machine can get at {', '.join(open_ones)}."
        yield failed("keys", "permissions", detail, "chmod 700 the folder and 600 its files.")
    elif facts.modes:
        yield passed("keys", "permissions", "The data folder and its secret files are for their owner alone.")


def check_master_key(facts: Facts) -> Iterator[Finding]:
    """The master key can be had, and lies elsewhere than what it seals."""
    settings, found = facts.settings, facts.database
    if found.master_key_fault is not None:
        detail = f"The master key cannot be used: {found.master_key_fault.rstrip('.')}."
        yield failed("keys", "master-key", detail, "Mend its source: without it nothing is signed.")
        return
    elsewhere = any(
        each is not None for each in (settings.master_key, settings.master_key_file, settings.master_key_command)
    )
    if elsewhere:
        yield passed("keys", "master-key", "The master key comes from elsewhere than the data folder.")
    elif is_local(_host(settings)):
        yield passed("keys", "master-key", "The master key lies beside the database, which will do for development.")
    else:
        detail = "The master key lies beside the database: a copy of the folder, a backup say, is a full compromise."
        yield warned(
            "keys",
            "master-key",
            detail,
            "Use JOTGATE_MASTER_KEY_COMMAND or JOTGATE_MASTER_KEY.",
        )
    if settings.master_key_previous is not None:
        detail = "The master key before this one is still given, and opens whatever it sealed."
        yield warned("keys", "master-key-previous", detail, "Run `jotgate keys rewrap`, then drop it.")


def check_rotation(facts: Facts) -> Iterator[Finding]:
    """Keys turn often enough."""
    days = facts.settings.key_rotation_s / DAY_S
    if facts.settings.key_rotation_s > LONG_ROTATION_S:
        detail = f"A key signs for {days:.3g} days before the next one does."
        yield warned("keys", "rotation", detail, "Set JOTGATE_KEY_ROTATION_S to 90 days or less.")
    else:
        yield passed("keys", "rotation", f"The next key takes over every {days:.3g} days.")


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Of each purpose one key signs, not for too long, the next one is there, and all of them open."""
    published = [key for key in facts.database.keys if is_published(key) and key.issuer in ("", facts.settings.issuer)]
    if facts.database.keys and not published:
        others = sorted({key.issuer for key in facts.database.keys if key.issuer})
        detail = f"The database has keys of {', '.join(others) or 'nobody'}, and none of {facts.settings.issuer}."
        yield warned("keys", "issuer-of-keys", detail, "Set JOTGATE_ISSUER as the server has it.")
        return
    for purpose in sorted({key.purpose for key in published}):
        yield from _check_purpose(facts, purpose, [key for key in published if key.purpose == purpose])
    unopened = [key for key in published if key.kid in facts.database.unopened]
    if unopened:
        detail = f"{len(unopened)} of {len(published)} keys cannot be opened with this master key."
        remedy = "Give the master key that sealed them in JOTGATE_MASTER_KEY_PREVIOUS, or revoke them."
        yield failed("keys", "sealed", detail, remedy)
    elif published and facts.database.master_key_fault is None:
        yield passed("keys", "sealed", f"All {len(published)} keys open with the master key.")


def _check_purpose(facts: Facts, purpose: str, keys: Sequence[SealedKey]) -> Iterator[Finding]:
    settings, check = facts.settings, f"{purpose}-keys"
    active = [key for key in keys if standing(key) is Standing.ACTIVE]
    following = [key for key in keys if standing(key) is Standing.NEXT]
    rotate = f"Let a server run, or run `jotgate keys rotate --purpose {purpose}`; its log says what keeps it."
    age_s = facts.now - max((key.activated_at or 0 for key in active), default=facts.now)
    if not active:
        yield failed("keys", check, f"No key for {purpose} is active.", rotate)
    elif not following:
        yield warned("keys", check, f"No next key for {purpose} is published: an emergency has no successor.", rotate)
    elif age_s > settings.key_rotation_s + 3 * settings.jwks_max_age_s + DAY_S:
        yield warned("keys", check, f"The active key for {purpose} is {age_s // DAY_S} days old, and overdue.", rotate)
    else:
        yield passed("keys", check, f"For {purpose} one key is active and {len(following)} are published ahead.")


def check_algorithm(facts: Facts) -> Iterator[Finding]:
    """Who verifies a token cannot make one; and tokens are for the API alone."""
    settings = facts.settings
    if ALGORITHMS[settings.signing_algorithm].symmetric:
        detail = f"Tokens are signed with {settings.signing_algorithm}: whoever can verify one could make one."
        yield warned("signatures", "algorithm", detail, "Set JOTGATE_SIGNING_ALGORITHM to ES256.")
    else:
        yield passed("signatures", "algorithm", f"Tokens are signed with {settings.signing_algorithm}, by a key pair.")
    if settings.audience == "api":
        detail = "The audience is the default, 'api', which other installations use, too."
        yield warned("signatures", "audience", detail, "Set JOTGATE_AUDIENCE to your API's own name.")
    else:
        yield passed("signatures", "audience", f"Tokens are for {settings.audience!r} alone.")


def check_revocation_bound(facts: Facts) -> Iterator[Finding]:
    """A revoked key is not kept in caches for long."""
    settings = facts.settings
    if settings.jwks_max_age_s > 3600:
        detail = f"Others may keep the published keys for {settings.jwks_max_age_s // 60} minutes, a revoked one, too."
        yield warned("revocable", "key-cache", detail, "Set JOTGATE_JWKS_MAX_AGE_S to 3600 or less.")
    else:
        detail = f"The published keys may be kept for {settings.jwks_max_age_s} s; jotgate's verifiers hear at once."
        yield passed("revocable", "key-cache", detail)


def check_claims(facts: Facts) -> Iterator[Finding]:
    """What `claims_for` gives may stand in a token."""
    hook, check = facts.hook, "claims-for"
    if hook is None:
        yield passed("sensitive-data", check, "Tokens hold no claims of your own.")
    elif hook.fault is not None:
        yield failed("sensitive-data", check, f"{_capital(hook.fault)}.", "Mend JOTGATE_CLAIMS_FOR or what it names.")
    elif hook.raised is not None:
        detail = f"claims_for raised {hook.raised} for an account that was made up."
        yield warned("sensitive-data", check, detail, "Return {} for accounts that it does not know.")
    elif hook.refused is not None:
        yield failed("sensitive-data", check, _capital(hook.refused) + ".", "Leave it out: anybody can read it.")
    elif hook.warnings:
        for warning in hook.warnings:
            yield warned("sensitive-data", check, _capital(warning) + ".", "Return an opaque id instead.")
    else:
        yield passed("sensitive-data", check, "What claims_for returns may stand in a token.")


def check_limits(facts: Facts) -> Iterator[Finding]:
    """Limits limit."""
    high = []
    for each in fields(Settings):
        text = getattr(facts.settings, each.name) if each.name.startswith("limit_") else None
        if text is not None and each.default is not None:  # one without a default is what the operator finds right
            chosen, default = parse_limit(text), parse_limit(str(each.default))
            if chosen.quota / chosen.window_s > ABSURD_LIMIT * default.quota / default.window_s:
                high.append(f"JOTGATE_{each.name.upper()}")
    if high:
        detail = f"More than {ABSURD_LIMIT} times the default is allowed by {', '.join(high)}."
        yield warned("rate-limiting", "limits", detail, "Lower them: a limit that nobody reaches limits nobody.")
    else:
        yield passed("rate-limiting", "limits", "All limits are within reason.")


def check_redis(facts: Facts) -> Iterator[Finding]:
    """The Redis that is named answers."""
    if facts.settings.redis_url is None:
        return
    if facts.redis_fault is None:
        yield passed("rate-limiting", "redis", "Redis answers.")
    else:
        detail = f"Redis does not answer: {facts.redis_fault}. Until it does, each process counts for itself."
        yield failed("rate-limiting", "redis", detail, "Start it, or mend JOTGATE_REDIS_URL.")


def check_shared_limits(facts: Facts) -> Iterator[Finding]:
    """Several servers count together."""
    if facts.settings.shared_database is None:
        return
    if facts.settings.redis_url is None:
        detail = "Servers share a database and no Redis, so each process counts for itself."
        yield warned("rate-limiting", "shared-limits", detail, "Set JOTGATE_REDIS_URL.")
    elif facts.redis_fault is None:
        yield passed("rate-limiting", "shared-limits", "All servers count together, in Redis.")


def check_proxies(facts: Facts) -> Iterator[Finding]:
    """A sender's address is believed from known proxies only."""
    proxies = facts.settings.proxies
    networks = _collapsed(proxies)
    wide = [each for each in networks if each.prefixlen < _WIDE_PREFIX[each.version] and not _is_own(each)]
    if proxies.count:
        detail = f"{proxies.count} proxies are counted: who gets around them chooses their own address."
        yield warned("rate-limiting", "proxies", detail, "Name their networks in JOTGATE_TRUSTED_PROXIES instead.")
    elif any(each.prefixlen == 0 for each in networks):
        detail = "Everybody is a trusted proxy, and so chooses their own address."
        yield failed("rate-limiting", "proxies", detail, "Name the proxies' own networks in JOTGATE_TRUSTED_PROXIES.")
    elif wide:
        detail = f"All of {', '.join(map(str, wide))} are trusted proxies: who has an address there can choose another."
        yield warned("rate-limiting", "proxies", detail, "Name the proxies' own networks in JOTGATE_TRUSTED_PROXIES.")
    elif facts.settings.http and not proxies:
        detail = "Without TLS and without a trusted proxy, all who come through a proxy are one address."
        yield warned("rate-limiting", "proxies", detail, "Name the proxy in JOTGATE_TRUSTED_PROXIES.")
    else:
        yield passed("rate-limiting", "proxies", "Forwarding headers count from the proxies that are named, if any.")


def _collapsed(proxies: TrustedProxies) -> list[Network]:
    """The trusted networks, those together that are one: two halves of the internet are all of it."""
    of_4 = [each for each in proxies.networks if isinstance(each, ipaddress.IPv4Network)]
    of_6 = [each for each in proxies.networks if isinstance(each, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(of_4), *ipaddress.collapse_addresses(of_6)]


def _is_own(network: Network) -> bool:
    first, last = network[0], network[-1]
    return any(first in each and last in each for each in _OWN_NETWORKS)


def check_password_length(facts: Facts) -> Iterator[Finding]:
    """Passwords that are the only factor are long (NIST SP 800-63B-4)."""
    least = facts.settings.password_min_length
    if least < SHORT_PASSWORD:
        detail = f"Passwords of {least} characters are taken, and there is no second factor."
        yield warned("rate-limiting", "password-length", detail, "Set JOTGATE_PASSWORD_MIN_LENGTH to 15.")
    else:
        yield passed("rate-limiting", "password-length", f"New passwords have at least {least} characters.")


def check_mail(facts: Facts) -> Iterator[Finding]:
    """Mails reach people, where others than this machine use the server."""
    url = facts.settings.mail_url
    sends = url is not None and url.reveal().startswith(("smtp://", "smtps://"))
    if sends or is_local(_host(facts.settings)):
        where = "are handed to a mail server" if sends else "are files, as is fit for this machine alone"
        yield passed("sensitive-data", "mail", f"Mails {where}.")
    else:
        detail = "Mails, with the links in them, go into files or to the terminal: nobody gets any."
        yield warned("sensitive-data", "mail", detail, "Set JOTGATE_MAIL_URL to smtp://… or smtps://….")


def check_signup(facts: Facts) -> Iterator[Finding]:
    """Nobody can find out who has an account."""
    if facts.settings.signup == "verified":
        yield passed("sensitive-data", "signup", "Sign-up tells nobody which addresses have an account.")
    else:
        detail = "Sign-up tells whoever asks which addresses have an account."
        yield warned("sensitive-data", "signup", detail, "Leave JOTGATE_SIGNUP at verified.")


def check_hashing(facts: Facts) -> Iterator[Finding]:
    """Password hashing fits the machine."""
    settings = facts.settings
    workers = settings.hash_workers
    if workers > facts.cores:
        detail = f"{workers} threads check passwords on {facts.cores} cores: more do not check more."
        yield warned("rate-limiting", "hash-workers", detail, "Set JOTGATE_HASH_WORKERS to the cores less one.")
    else:
        yield passed("rate-limiting", "hash-workers", f"Passwords are checked by {workers} of {facts.cores} cores.")
    if not facts.hash_s:
        return
    best = min(facts.hash_s, key=facts.hash_s.__getitem__)
    now_s, best_s = facts.hash_s[settings.argon2], facts.hash_s[best]
    measured = "; ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in facts.hash_s.items())
    rate = min(workers, facts.cores) / now_s
    detail = f"About {rate:.0f} logins/s at {settings.argon2} with hash_workers={workers} (one hash: {measured})."
    if now_s >= _WORTH_CHANGING * best_s:
        remedy = f"JOTGATE_ARGON2={best} is as strong, and {now_s / best_s:.1f} times as fast on this machine."
        yield warned("rate-limiting", "argon2", detail, remedy)
    else:
        yield passed("rate-limiting", "argon2", detail)
