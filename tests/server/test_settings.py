"""Settings: every fault is told at once, before anything is opened."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from jotgate import SettingsError
from jotgate.core.encoding import encode_segment
from jotgate.server import Settings, create_app, places
from jotgate.server.secret import Secret

MASTER_KEY = encode_segment(b"k" * 32)
PREVIOUS_KEY = encode_segment(b"p" * 32)


def faults(**values: Any) -> tuple[str, ...]:  # noqa: ANN401 - values of any setting, wrong ones too
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    return caught.value.faults


def test_the_defaults_are_a_working_server() -> None:
    settings = Settings()
    assert settings.access_token_ttl_s == 300
    assert settings.password_min_length == 15
    assert settings.origin == "https://localhost:8443"


def test_every_setting_can_come_from_the_environment() -> None:
    environ = {
        "JOTGATE_ISSUER": "https://auth.example.com/a",
        "JOTGATE_AUDIENCE": "shop",
        "JOTGATE_DATA_DIR": "elsewhere",
        "JOTGATE_MASTER_KEY": MASTER_KEY,
        "JOTGATE_MASTER_KEY_PREVIOUS": PREVIOUS_KEY,
        "JOTGATE_DATABASE_URL": "postgresql://u:p@db.example.com/auth",
        "JOTGATE_REDIS_URL": "rediss://:p@redis.example.com:6380/1",
        "JOTGATE_SIGNING_ALGORITHM": "Ed25519",
        "JOTGATE_KEY_ROTATION_S": "86400",
        "JOTGATE_JWKS_MAX_AGE_S": "600",
        "JOTGATE_DEFAULT_SCOPES": "account:read, orders:read orders:write",
        "JOTGATE_ACCESS_TOKEN_TTL_S": "60",
        "JOTGATE_SESSION_IDLE_S": "3600",
        "JOTGATE_SESSION_ABSOLUTE_S": "7200",
        "JOTGATE_SIGNUP": "open",
        "JOTGATE_MAIL_URL": "smtps://u:p@mail.example.com",
        "JOTGATE_MAIL_FROM": "shop@example.com",
        "JOTGATE_BRAND_NAME": "The Shop",
        "JOTGATE_BRAND_COLOUR": "#aa0000",
        "JOTGATE_HOME_URL": "https://www.example.com",
        "JOTGATE_BRAND_LOGO_URL": "https://cdn.example.com/logo.svg",
        "JOTGATE_PASSWORD_MIN_LENGTH": "8",
        "JOTGATE_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        "JOTGATE_ALLOWED_ORIGINS": "https://www.example.com",
        "JOTGATE_PASSKEY_DOMAIN": "example.com",
        "JOTGATE_HTTP": "true",
        "JOTGATE_HASH_WORKERS": "3",
        "JOTGATE_ARGON2": "7168/5",
        "JOTGATE_FEED_CONNECTIONS": "50",
        "JOTGATE_FEED_CONNECTIONS_PER_ADDRESS": "20",
        "JOTGATE_VERIFIER_TOKENS": f"{'v' * 32}, {'w' * 40}",
        "JOTGATE_METRICS_TOKEN": "m" * 32,
        "JOTGATE_GUESSES_BEFORE_BACKOFF": "3",
        "JOTGATE_BACKOFF_MAX_S": "64",
        "JOTGATE_LIMIT_DEVICE": "20/hour",
        "JOTGATE_LIMIT_STRANGERS": "600/minute",
        "JOTGATE_LIMIT_SESSIONS": "60/hour",
        "JOTGATE_LIMIT_CLIENT": "9000/minute",
        "JOTGATE_LIMIT_GLOBAL": "10000/minute",
        "JOTGATE_LIMIT_LOGINS": "5 per minute",
        "JOTGATE_LIMIT_SIGNUPS": "20/10s; burst=5",
        "JOTGATE_LIMIT_MAILS": "9/hour",
        "JOTGATE_LIMIT_MAILS_TO": "2/hour",
        "JOTGATE_LIMIT_REFRESHES": "100/minute",
        "JOTGATE_LIMIT_FEED": "100/second",
        "JOTGATE_LIMIT_REQUESTS": "1000/hour",
        "JOTGATE_AUDIT_KEEP_S": "86400",
        "JOTGATE_LOG_FORMAT": "console",
        "JOTGATE_CLAIMS_FOR": "package.module:function",
    }
    other_sources = {"master_key_file", "master_key_command"}  # one of them instead: tested below
    assert {name.removeprefix("JOTGATE_").lower() for name in environ} == {
        each.name for each in fields(Settings) if each.name not in other_sources
    }
    settings = Settings.from_env(environ | {"PATH": "x", "JOTGATE_VECTORS": "y"})
    assert settings == Settings(
        issuer="https://auth.example.com/a",
        audience="shop",
        data_dir=Path("elsewhere"),
        master_key=Secret(MASTER_KEY),
        master_key_previous=Secret(PREVIOUS_KEY),
        database_url=Secret("postgresql://u:p@db.example.com/auth"),
        redis_url=Secret("rediss://:p@redis.example.com:6380/1"),
        signing_algorithm="Ed25519",
        key_rotation_s=86_400,
        jwks_max_age_s=600,
        default_scopes=("account:read", "orders:read", "orders:write"),
        access_token_ttl_s=60,
        session_idle_s=3600,
        session_absolute_s=7200,
        signup="open",
        mail_url=Secret("smtps://u:p@mail.example.com"),
        mail_from="shop@example.com",
        brand_name="The Shop",
        brand_colour="#aa0000",
        home_url="https://www.example.com",
        brand_logo_url="https://cdn.example.com/logo.svg",
        password_min_length=8,
        trusted_proxies=("10.0.0.0/8", "::1"),
        allowed_origins=("https://www.example.com",),
        passkey_domain="example.com",
        http=True,
        hash_workers=3,
        argon2="7168/5",
        feed_connections=50,
        feed_connections_per_address=20,
        verifier_tokens=(Secret("v" * 32), Secret("w" * 40)),
        metrics_token=Secret("m" * 32),
        guesses_before_backoff=3,
        backoff_max_s=64,
        limit_device="20/hour",
        limit_strangers="600/minute",
        limit_sessions="60/hour",
        limit_client="9000/minute",
        limit_global="10000/minute",
        limit_logins="5 per minute",
        limit_signups="20/10s; burst=5",
        limit_mails="9/hour",
        limit_mails_to="2/hour",
        limit_refreshes="100/minute",
        limit_feed="100/second",
        limit_requests="1000/hour",
        audit_keep_s=86_400,
        log_format="console",
        claims_for="package.module:function",
    )
    assert Settings.from_env({"JOTGATE_TRUSTED_PROXIES": "2"}).trusted_proxies == 2
    assert Settings.from_env(environ, audience="other").audience == "other"


def test_all_faults_are_told_at_once_and_unknown_names_are_faults() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(
            {
                "JOTGATE_AUDIENSE": "shop",
                "JOTGATE_ACCESS_TOKEN_TTL_S": "five",
                "JOTGATE_HTTP": "perhaps",
                "JOTGATE_ISSUER": "http://auth.example.com",
                "JOTGATE_PASSWORD_MIN_LENGTH": "4",
            }
        )
    told = caught.value.faults
    assert len(told) == 5
    for part in (
        "JOTGATE_AUDIENSE is not a setting",
        "JOTGATE_ACCESS_TOKEN_TTL_S must be a whole number",
        "JOTGATE_HTTP must be true or false",
        "issuer must be an https:// URL",
        "password_min_length",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "issuer",
    ["", "auth.example.com", "http://localhost:8443", "https://", "https://host/", "https://host/path/", "https://h?x=1",
     "https://h#f", "https://user@host", "HTTPS://localhost", "https://LocalHost", 'https://loc"alhost', "https://h/{id}",
     "https://h/../x", "https://h//x", "https://h/%61", "https://localhost@evil.example",
     "https://h o", "https://h:99999", "https://h\n"],
)  # fmt: skip
def test_an_issuer_is_an_exact_https_url(issuer: str) -> None:
    (fault,) = faults(issuer=issuer)
    assert fault.startswith("issuer ")


def test_the_audience_is_the_api_and_never_the_auth_server() -> None:
    assert "must name your API" in faults(audience="")[0]
    assert "not the auth server" in faults(audience="https://localhost:8443")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("argon2", "8/1"),
        ("access_token_ttl_s", 3601),
        ("access_token_ttl_s", 9),
        ("session_idle_s", 59),
        ("session_absolute_s", 31_536_001),
        ("password_min_length", 7),
        ("hash_workers", 0),
        ("access_token_ttl_s", True),
        ("access_token_ttl_s", "300"),
        ("data_dir", "a text"),
        ("default_scopes", "account:read"),
        ("default_scopes", ("two words",)),
        ("default_scopes", (1,)),
        ("trusted_proxies", ("proxy.example.com",)),
        ("trusted_proxies", 17),
        ("claims_for", "no colon"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    told = faults(**{name: value})
    assert any(fault.startswith(name) for fault in told)


@pytest.mark.parametrize("domain", ["other.example", "example.com.evil.example", "ple.com", "com", "127.0.0.1", ""])
def test_passkeys_belong_to_a_domain_of_the_issuer_and_its_front_ends(domain: str) -> None:
    (fault,) = faults(issuer="https://auth.example.com", passkey_domain=domain)
    assert fault.startswith("passkey_domain")
    assert Settings(issuer="https://auth.example.com").passkey_domain_name == "auth.example.com"
    assert Settings(issuer="https://[::1]:8443").passkey_domain_name is None
    beside = Settings(
        issuer="https://auth.example.com", allowed_origins=("https://www.example.com",), passkey_domain="example.com"
    )
    assert beside.passkey_domain_name == "example.com"
    assert faults(issuer=beside.issuer, allowed_origins=beside.allowed_origins, passkey_domain="auth.example.com")


def test_a_cross_site_front_end_is_refused_with_what_to_do() -> None:
    (fault,) = faults(issuer="https://auth.example.com", allowed_origins=("https://shop.example",))
    assert "not on the same site" in fault
    assert "auth.shop.example" in fault
    # Neighbours under a public suffix are strangers to each other.
    assert faults(issuer="https://a.github.io", allowed_origins=("https://b.github.io",))
    Settings(issuer="https://auth.example.co.uk", allowed_origins=("https://www.example.co.uk",))
    Settings(allowed_origins=("https://localhost:5173",))


@pytest.mark.parametrize(
    "origin", ["https://www.example.com/", "http://www.example.com", "*", "null", "www.example.com"]
)
def test_an_allowed_origin_is_exactly_an_origin(origin: str) -> None:
    assert faults(issuer="https://auth.example.com", allowed_origins=(origin,))[0].startswith("allowed_origins")


def test_a_master_key_of_another_length_is_a_fault_that_does_not_repeat_it() -> None:
    (fault,) = faults(master_key=Secret("too-short"))
    assert "JOTGATE_MASTER_KEY must hold 32 bytes" in fault
    assert "too-short" not in fault


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [("master_key_file", "keys/master", Path("keys/master")), ("master_key_command", "vault x", Secret("vault x"))],
)
def test_the_master_key_can_come_from_a_file_or_a_command(name: str, value: str, read: object) -> None:
    settings = Settings.from_env({f"JOTGATE_{name.upper()}": value})
    assert getattr(settings, name) == read
    assert "vault" not in repr(settings)


def test_the_master_key_comes_from_one_place() -> None:
    command = Secret("vault read")
    (fault,) = faults(master_key=Secret(MASTER_KEY), master_key_file=Path("f"), master_key_command=command)
    assert fault == (
        "JOTGATE_MASTER_KEY and JOTGATE_MASTER_KEY_FILE and JOTGATE_MASTER_KEY_COMMAND are given together: "
        "the master key comes from one of them"
    )
    assert len(faults(master_key_file=Path("f"), master_key_command=command)) == 1


@pytest.mark.parametrize("command", ["", "  ", "c4nary 'open", "TOKEN=c4nary vault read", "c4nary\0x"])
def test_a_command_that_cannot_run_is_a_fault_that_does_not_repeat_it(command: str) -> None:
    (fault,) = faults(master_key_command=Secret(command))
    assert fault.startswith("JOTGATE_MASTER_KEY_COMMAND ")
    assert "c4nary" not in fault


def test_a_previous_master_key_of_another_length_is_a_fault_that_does_not_repeat_it() -> None:
    (fault,) = faults(master_key_previous=Secret("too-short"))
    assert "JOTGATE_MASTER_KEY_PREVIOUS must hold 32 bytes" in fault
    assert "too-short" not in fault


def test_the_master_key_never_shows() -> None:
    settings = Settings(master_key=Secret("s3cr3t" * 7 + "A"))
    for text in (repr(settings), str(settings), f"{settings.master_key}", repr(settings.master_key)):
        assert "s3cr3t" not in text


@pytest.mark.parametrize("name", ["no.such.module:hook", "json:no_such_function", "json:decoder"])
def test_a_hook_that_is_not_there_stops_the_start(name: str) -> None:
    with pytest.raises(SettingsError, match="claims_for"):
        create_app(Settings(claims_for=name))


def test_a_hook_is_found_by_its_name() -> None:
    create_app(Settings(claims_for="json:dumps"))


@pytest.mark.parametrize(
    "url",
    ["", "c4nary", "sqlite:", "sqlite://c4nary", "sqlite:///", "sqlite:///:memory:", "sqlite:///c4nary?mode=ro",
     "mysql://u:c4nary@host/db", "postgresql+asyncpg://u:c4nary@host/db", "postgresql://u:c4nary@host", "postgresql://",
     "postgresql://u:c4nary@host:0/db", "postgresql://u:c4nary@host:99999/db", "postgresql://u:c4nary@host:port/db",
     "postgresql://u:c4/nary@host/db", "postgresql://u:c4#nary@host/db", "postgresql://[c4nary/db",
     "postgresql://u:c4nary@host/db?sslmode=sometimes", "postgresql://u:c4nary@host/db?sslmode=require&sslrootcert=system"],
)  # fmt: skip
def test_a_database_url_that_means_nothing_is_a_fault_that_does_not_repeat_it(url: str) -> None:
    (fault,) = faults(database_url=Secret(url))
    assert fault.startswith("database_url")
    assert "c4" not in fault
    assert "nary" not in fault


@pytest.mark.parametrize(
    "url",
    ["", "c4nary", "http://c4nary", "redis://", "redis://:c4nary@", "redis://host/c4nary", "redis://host:0/1",
     "redis://host:99999", "redis://host/0?password=c4nary", "redis://h/0#c4nary", "redis://:c4/nary@host", "redis://[c4nary"],
)  # fmt: skip
def test_a_redis_url_that_means_nothing_is_a_fault_that_does_not_repeat_it(url: str) -> None:
    (fault,) = faults(redis_url=Secret(url))
    assert fault.startswith("redis_url")
    assert "c4" not in fault
    assert "nary" not in fault


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://u:c4nary@db.example.com/auth", "auth at db.example.com"),
        ("postgres://u:c4nary@db:6432/auth?sslmode=verify-full&target_session_attrs=any", "auth at db:6432"),
        ("postgresql://u:c%2F4nary@[::1]:5432/a%20b", "a b at [::1]:5432"),
        ("postgresql://u:c4nary@one:5432,two:5432/auth", "auth at one:5432,two:5432"),
        ("postgresql:///auth?host=/run/postgresql&password=c4nary", "auth at this machine"),
        ("postgresql:///?dbname=auth", "auth at this machine"),
    ],
)
def test_a_postgresql_url_is_named_without_user_and_password(url: str, name: str) -> None:
    settings = Settings(database_url=Secret(url), redis_url=Secret("redis://:c4nary@host"))
    assert settings.shared_database == Secret(url)
    assert settings.database_name == f"PostgreSQL, {name}"
    assert "c4nary" not in repr(settings) + str(settings)


def test_an_sqlite_url_is_a_path_and_the_default_lies_in_the_data_folder() -> None:
    assert Settings(data_dir=Path("here")).sqlite_path == Path("here/jotgate.sqlite3")
    for url, path in [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db"), ("sqlite:///a%20b", "a b")]:
        settings = Settings(database_url=Secret(url))
        assert settings.sqlite_path == Path(path)
        assert settings.shared_database is None


def test_every_fault_of_both_urls_is_told_with_the_others() -> None:
    told = faults(database_url=Secret("mysql://"), redis_url=Secret("http://"), audience="")
    assert [fault.split()[0] for fault in told] == ["database_url", "redis_url", "audience"]


@pytest.mark.parametrize(
    ("package", "values", "extra"),
    [
        ("asyncpg", {"database_url": Secret("postgresql://host/db")}, "jotgate[postgres,server]"),
        ("redis", {"redis_url": Secret("redis://host")}, "jotgate[redis,server]"),
    ],
)
def test_a_driver_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, values: dict[str, Any], extra: str
) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: None if name == package else find_spec(name))
    (fault,) = faults(**values)
    assert extra in fault
