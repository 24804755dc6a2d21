"""Settings: every fault is told at once, before anything is opened."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import fields

from jotgate import SettingsError
from jotgate.core.encoding import encode_segment
from jotgate.server import Settings, create_app
from jotgate.server.secret import Secret

MASTER_KEY = encode_segment(b"k" * 32)


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
        "JOTGATE_DEFAULT_SCOPES": "account:read, orders:read orders:write",
        "JOTGATE_ACCESS_TOKEN_TTL_S": "60",
        "JOTGATE_SESSION_IDLE_S": "3600",
        "JOTGATE_SESSION_ABSOLUTE_S": "7200",
        "JOTGATE_PASSWORD_MIN_LENGTH": "8",
        "JOTGATE_TRUSTED_PROXIES": "10.0.0.0/8,::1",
        "JOTGATE_ALLOWED_ORIGINS": "https://www.example.com",
        "JOTGATE_HTTP": "true",
        "JOTGATE_HASH_WORKERS": "3",
        "JOTGATE_FEED_CONNECTIONS": "50",
        "JOTGATE_CLAIMS_FOR": "package.module:function",
    }
    assert {name.removeprefix("JOTGATE_").lower() for name in environ} == {each.name for each in fields(Settings)}
    settings = Settings.from_env(environ | {"PATH": "x", "JOTGATE_VECTORS": "y"})
    assert settings == Settings(
        issuer="https://auth.example.com/a",
        audience="shop",
        data_dir=Path("elsewhere"),
        master_key=Secret(MASTER_KEY),
        default_scopes=("account:read", "orders:read", "orders:write"),
        access_token_ttl_s=60,
        session_idle_s=3600,
        session_absolute_s=7200,
        password_min_length=8,
        trusted_proxies=("10.0.0.0/8", "::1"),
        allowed_origins=("https://www.example.com",),
        http=True,
        hash_workers=3,
        feed_connections=50,
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
