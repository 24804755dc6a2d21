"""What the doctor makes of facts: each check by itself, without a file, a database or a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jotgate.cli import checkup, checkup_outside
from jotgate.cli.checkup import Certificate, Database, Facts, Hook, check_configuration
from jotgate.cli.checkup_outside import FOREIGN_ORIGIN, Answer, Server, check_server
from jotgate.cli.findings import PRACTICES, Finding, Status, exit_status, failed, ordered, passed, warned
from jotgate.core.encoding import encode_segment
from jotgate.server import Settings
from jotgate.server.records import SealedKey
from jotgate.server.secret import Secret

NOW = 1_795_000_000
DAY = 86_400
ISSUER = "https://auth.example.com"
MASTER_KEY = Secret(encode_segment(b"k" * 32))
GOOD = Certificate(local=False, ends_at=NOW + 60 * DAY, names=("auth.example.com",), chain=2)
DATABASE = Database(name="file", schema="current")
REMOTE = "postgresql://u:canary@db.example.com/auth"
OF_LIBPQ = Secret("postgresql:///auth")

Check = Callable[[Facts], Iterator[Finding]]


def key(number: int = 0, purpose: str = "access", **fields: Any) -> SealedKey:  # noqa: ANN401 - of any field
    given: dict[str, Any] = {
        "issuer": ISSUER,
        "purpose": purpose,
        "algorithm": "ES256",
        "sealed": b"x",
        "thumbprint": str(number),
    }
    return SealedKey(**({**given, "kid": f"{purpose}{number}", "created_at": NOW - DAY} | fields))


ACTIVE, NEXT = key(1, activated_at=NOW - DAY), key(2)


def facts(**fields: Any) -> Facts:  # noqa: ANN401 - of any field, and of any setting
    settings = {name: fields.pop(name) for name in tuple(fields) if name in Settings.__struct_fields__}
    given: dict[str, Any] = {"settings": Settings(**({"issuer": ISSUER, "audience": "shop"} | settings)), "now": NOW}
    return Facts(**({**given, "cores": 2, "certificate": GOOD, "database": DATABASE} | fields))


def keys(*rows: SealedKey, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field
    return {"database": msgspec.structs.replace(DATABASE, keys=rows, **fields)}


def certificate(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - of any field
    return {"certificate": msgspec.structs.replace(GOOD, **fields)}


CASES: list[tuple[Check, Status, dict[str, Any]]] = [
    (checkup.check_issuer, "pass", {}),
    (checkup.check_issuer, "warn", {"issuer": "https://localhost:8443"}),
    (checkup.check_issuer, "warn", {"issuer": "https://127.0.0.1"}),
    (checkup.check_issuer, "pass", {"issuer": "https://127.example.com"}),
    (checkup.check_issuer, "pass", {"issuer": f"{ISSUER}/auth"}),
    (checkup.check_issuer, "warn", {"issuer": f"{ISSUER}/auth/v1"}),
    (checkup.check_listening, "pass", {}),
    (checkup.check_listening, "warn", {"http": True}),
    (checkup.check_listening, "pass", {"http": True, "trusted_proxies": ("10.0.0.0/8",)}),
    (checkup.check_certificate, "pass", {}),
    (checkup.check_certificate, "warn", {"certificate": None}),
    (checkup.check_certificate, "pass", {"certificate": None, "issuer": "https://localhost:8443"}),
    (checkup.check_certificate, "warn", certificate(local=True, names=("localhost",))),
    (
        checkup.check_certificate,
        "pass",
        certificate(local=True, names=("localhost",)) | {"issuer": "https://localhost"},
    ),
    (checkup.check_certificate, "fail", certificate(faults=("the certificate expired on Monday",))),
    (checkup.check_certificate, "warn", certificate(ends_at=NOW + 21 * DAY - 1)),
    (checkup.check_certificate, "pass", certificate(ends_at=NOW + 21 * DAY)),
    (checkup.check_certificate, "fail", certificate(names=("www.example.com",))),
    (checkup.check_certificate, "pass", certificate(names=("*.example.com",))),
    (checkup.check_certificate, "fail", certificate(names=("*.com", "example.com"))),
    (checkup.check_certificate, "warn", certificate(chain=1)),
    (checkup.check_certificate, "warn", certificate(self_signed=True, chain=1)),
    (checkup.check_certificate, "pass", certificate(key_mode=0o640)),
    (checkup.check_certificate, "fail", certificate(key_mode=0o604)),
    (
        checkup.check_certificate,
        "fail",
        certificate(key_mode=0o640, local=True, names=("localhost",)) | {"issuer": "https://localhost"},
    ),
    (checkup.check_database_tls, "fail", {"database_url": Secret(REMOTE)}),
    (checkup.check_database_tls, "fail", {"database_url": Secret(f"{REMOTE}?sslmode=prefer")}),
    (checkup.check_database_tls, "warn", {"database_url": Secret(f"{REMOTE}?sslmode=require")}),
    (checkup.check_database_tls, "warn", {"database_url": Secret(f"{REMOTE}?sslmode=verify-ca")}),
    (checkup.check_database_tls, "pass", {"database_url": Secret(f"{REMOTE}?sslmode=verify-full")}),
    (checkup.check_database_tls, "pass", {"database_url": Secret("postgresql://u:canary@localhost/auth")}),
    (checkup.check_database_tls, "pass", {"database_url": Secret("postgresql:///auth?host=/run/postgresql")}),
    (checkup.check_database_tls, "fail", {"database_url": Secret("postgresql://localhost,db.example.com/auth")}),
    (checkup.check_database_tls, "fail", {"database_url": Secret("postgresql:///auth?host=db.example.com")}),
    (checkup.check_database_tls, "fail", {"database_url": OF_LIBPQ, "libpq": {"PGHOST": "localhost,db.example.com"}}),
    (checkup.check_database_tls, "pass", {"database_url": OF_LIBPQ, "libpq": {"PGHOST": "/run/postgresql"}}),
    (
        checkup.check_database_tls,
        "pass",
        {"database_url": OF_LIBPQ, "libpq": {"PGHOST": "db.example.com", "PGSSLMODE": "verify-full"}},
    ),
    (checkup.check_database_tls, "warn", {"database_url": Secret(REMOTE), "libpq": {"PGSSLMODE": "require"}}),
    (
        checkup.check_database_tls,
        "fail",
        {"database_url": Secret(f"{REMOTE}?sslmode=prefer"), "libpq": {"PGSSLMODE": "verify-full"}},
    ),
    (checkup.check_database_tls, "warn", {"database_url": OF_LIBPQ, "libpq": {"PGSERVICE": "auth"}}),
    (checkup.check_database_tls, "warn", {"database_url": Secret("postgresql:///auth?service=auth")}),
    (checkup.check_redis_tls, "fail", {"redis_url": Secret("redis://:canary@redis.example.com/0")}),
    (checkup.check_redis_tls, "pass", {"redis_url": Secret("rediss://:canary@redis.example.com/0")}),
    (checkup.check_redis_tls, "pass", {"redis_url": Secret("redis://127.0.0.1/0")}),
    (checkup.check_origins, "pass", {"allowed_origins": ("https://www.example.com",)}),
    (checkup.check_origins, "warn", {"allowed_origins": tuple(f"https://w{n}.example.com" for n in range(11))}),
    (checkup.check_database, "pass", {}),
    (checkup.check_database, "pass", {"database": Database(name="file", exists=False)}),
    (checkup.check_database, "fail", {"database": Database(name="file", fault="away")}),
    (checkup.check_database, "fail", {"database": Database(name="file", schema="newer")}),
    (checkup.check_database, "warn", {"database": Database(name="file", schema="older")}),
    (checkup.check_clock, "pass", keys(ACTIVE)),
    (checkup.check_clock, "fail", keys(key(1, created_at=NOW + 61))),
    (checkup.check_lives, "pass", {"access_token_ttl_s": 900}),
    (checkup.check_lives, "warn", {"access_token_ttl_s": 901}),
    (checkup.check_lives, "warn", {"session_idle_s": 31 * DAY}),
    (checkup.check_lives, "warn", {"session_absolute_s": 181 * DAY}),
    (checkup.check_data_folder, "pass", {}),
    (checkup.check_data_folder, "warn", {"folder": "missing"}),
    (checkup.check_data_folder, "pass", {"folder": "missing", "database_url": Secret(REMOTE)}),
    (checkup.check_data_folder, "fail", {"folder": "no folder"}),
    (checkup.check_data_folder, "fail", {"folder": "unreadable"}),
    (checkup.check_permissions, "pass", {"modes": {"data": 0o700}}),
    (checkup.check_permissions, "fail", {"modes": {"data": 0o750}}),
    (checkup.check_permissions, "fail", {"modes": {"data": 0o700, "data/master.key": 0o604}}),
    (checkup.check_master_key, "warn", {}),
    (checkup.check_master_key, "pass", {"issuer": "https://localhost:8443"}),
    (checkup.check_master_key, "pass", {"master_key": MASTER_KEY}),
    (checkup.check_master_key, "pass", {"master_key_file": Path("/run/secrets/master")}),
    (checkup.check_master_key, "warn", {"master_key": MASTER_KEY, "master_key_previous": MASTER_KEY}),
    (checkup.check_master_key, "fail", {"master_key": MASTER_KEY} | keys(master_key_fault="it is away")),
    (checkup.check_rotation, "pass", {"key_rotation_s": 90 * DAY}),
    (checkup.check_rotation, "warn", {"key_rotation_s": 91 * DAY}),
    (checkup.check_keys, "pass", keys(ACTIVE, NEXT)),
    (checkup.check_keys, "fail", keys(NEXT)),
    (checkup.check_keys, "warn", keys(ACTIVE)),
    (checkup.check_keys, "warn", keys(key(1, activated_at=NOW - 32 * DAY), NEXT)),
    (checkup.check_keys, "pass", keys(key(1, activated_at=NOW - 30 * DAY), NEXT)),
    (checkup.check_keys, "warn", keys(ACTIVE, NEXT, key(1, purpose="feed", activated_at=NOW))),
    (checkup.check_keys, "fail", keys(ACTIVE, NEXT, unopened=frozenset({NEXT.kid}))),
    (checkup.check_keys, "warn", keys(key(1, issuer="https://other.example.com", activated_at=NOW))),
    (checkup.check_keys, "pass", keys(ACTIVE, NEXT, key(3, revoked_at=NOW), unopened=frozenset({"access3"}))),
    (checkup.check_algorithm, "pass", {}),
    (checkup.check_algorithm, "warn", {"signing_algorithm": "HS256"}),
    (checkup.check_algorithm, "warn", {"audience": "api"}),
    (checkup.check_revocation_bound, "pass", {"jwks_max_age_s": 3600}),
    (checkup.check_revocation_bound, "warn", {"jwks_max_age_s": 3601}),
    (checkup.check_claims, "pass", {}),
    (checkup.check_claims, "pass", {"hook": Hook()}),
    (checkup.check_claims, "fail", {"hook": Hook(fault="cannot be imported")}),
    (checkup.check_claims, "warn", {"hook": Hook(raised="KeyError")}),
    (checkup.check_claims, "fail", {"hook": Hook(refused="a password")}),
    (checkup.check_claims, "warn", {"hook": Hook(warnings=("an e-mail address",))}),
    (checkup.check_limits, "pass", {"limit_logins": "600/minute"}),
    (checkup.check_limits, "warn", {"limit_logins": "601/minute"}),
    (checkup.check_limits, "warn", {"limit_requests": "1000000/s"}),
    (checkup.check_limits, "pass", {"limit_global": "1000000/s"}),
    (checkup.check_shared_limits, "warn", {"database_url": Secret(REMOTE)}),
    (checkup.check_shared_limits, "pass", {"database_url": Secret(REMOTE), "redis_url": Secret("redis://r/0")}),
    (checkup.check_redis, "pass", {"redis_url": Secret("redis://:canary@r/0")}),
    (checkup.check_redis, "fail", {"redis_url": Secret("redis://:canary@r/0"), "redis_fault": "it takes too long"}),
    (checkup.check_proxies, "pass", {}),
    (checkup.check_proxies, "pass", {"trusted_proxies": ("10.0.0.0/8",)}),
    (checkup.check_proxies, "warn", {"trusted_proxies": 1}),
    (checkup.check_proxies, "fail", {"trusted_proxies": ("10.0.0.1", "0.0.0.0/0")}),
    (checkup.check_proxies, "fail", {"trusted_proxies": ("::/0",)}),
    (checkup.check_proxies, "fail", {"trusted_proxies": ("0.0.0.0/0.0.0.0",)}),
    (checkup.check_proxies, "fail", {"trusted_proxies": ("0::/0",)}),
    (checkup.check_proxies, "fail", {"trusted_proxies": ("0.0.0.0/1", "::1", "128.0.0.0/1")}),
    (checkup.check_proxies, "warn", {"trusted_proxies": ("0.0.0.0/1",)}),
    (checkup.check_proxies, "warn", {"trusted_proxies": ("2000::/3",)}),
    (checkup.check_proxies, "pass", {"trusted_proxies": ("104.64.0.0/10", "fc00::/7", "2600:1400::/24")}),
    (checkup.check_proxies, "warn", {"http": True}),
    (checkup.check_password_length, "pass", {"password_min_length": 15}),
    (checkup.check_password_length, "warn", {"password_min_length": 14}),
    (checkup.check_mail, "warn", {}),
    (checkup.check_mail, "warn", {"mail_url": Secret("file:mails")}),
    (checkup.check_mail, "pass", {"mail_url": Secret("smtps://mail.example.com")}),
    (checkup.check_mail, "pass", {"issuer": "https://localhost:8443"}),
    (checkup.check_signup, "pass", {}),
    (checkup.check_signup, "warn", {"signup": "open"}),
    (checkup.check_hashing, "pass", {"hash_workers": 2}),
    (checkup.check_hashing, "warn", {"hash_workers": 3}),
    (checkup.check_hashing, "pass", {"hash_workers": 1, "hash_s": {"19456/2": 0.0299, "7168/5": 0.02}}),
    (checkup.check_hashing, "warn", {"hash_workers": 1, "hash_s": {"19456/2": 0.031, "7168/5": 0.02}}),
]


def worst(findings: list[Finding]) -> str:
    return max((finding.status for finding in findings), key=("pass", "warn", "fail").index)


@pytest.mark.parametrize(("check", "status", "given"), CASES)
def test_each_check_of_a_configuration(check: Check, status: Status, given: dict[str, Any]) -> None:
    findings = list(check(facts(**given)))
    assert worst(findings) == status, findings
    for finding in findings:
        assert finding.practice in PRACTICES
        assert finding.detail.endswith((".", ")"))
        assert bool(finding.remedy) == (finding.status != "pass"), "what is not good comes with what to do"
        assert "canary" not in repr(finding)


def test_where_a_check_is_about_nothing_it_says_nothing() -> None:
    assert list(checkup.check_certificate(facts(http=True, certificate=None))) == []
    for check in (
        *(checkup.check_database_tls, checkup.check_redis_tls, checkup.check_redis),
        *(checkup.check_shared_limits, checkup.check_keys),
    ):
        assert list(check(facts())) == []
    lost = facts(database_url=Secret(REMOTE), redis_url=Secret("redis://r/0"), redis_fault="it takes too long")
    assert list(checkup.check_shared_limits(lost)) == [], "that servers count together was not seen"


def test_every_practice_has_a_finding_and_every_check_of_the_module_is_made() -> None:
    findings = list(check_configuration(facts(**keys(ACTIVE, NEXT), modes={"data": 0o700})))
    assert {finding.practice for finding in findings} == set(PRACTICES)
    checks = {value for name, value in vars(checkup).items() if name.startswith("check_")} - {check_configuration}
    assert checks == {case[0] for case in CASES}


def test_logins_a_second_follow_from_what_was_measured() -> None:
    (_, finding) = checkup.check_hashing(facts(hash_workers=2, hash_s={"19456/2": 0.04, "47104/1": 0.02}))
    assert "About 50 logins/s at 19456/2 with hash_workers=2" in finding.detail
    assert finding.remedy == "JOTGATE_ARGON2=47104/1 is as strong, and 2.0 times as fast on this machine."
    (_, on_one_core) = checkup.check_hashing(facts(hash_workers=8, cores=1, hash_s={"19456/2": 0.04}))
    assert "About 25 logins/s" in on_one_core.detail


HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=()",
    "strict-transport-security": "max-age=31536000",
    "date": "Wed, 18 Nov 2026 11:06:40 GMT",
}
NEEDED_ELSEWHERE = ("strict-transport-security", "date")
ERROR = Answer(400, {"cache-control": "no-store", "ratelimit": "x", "ratelimit-policy": "x"})
SEEN = Server(
    url=ISSUER,
    now=NOW,
    certificate_ends_at=NOW + 60 * DAY,
    tls_version="TLSv1.3",
    alpn="h2",
    old_tls="refused",
    clear_text="closed",
    ready=Answer(200, HEADERS),
    token_error=ERROR,
    preflight=Answer(204, {}),
    account=Answer(401, {}),
    algorithms=("ES256", "ES256", "ES256"),
    heartbeat_s=0.1,
)


def lacking(name: str) -> Answer:
    return Answer(200, {each: value for each, value in HEADERS.items() if each != name})


def dated(date: str) -> Answer:
    return Answer(200, HEADERS | {"date": date})


@pytest.mark.parametrize(
    ("check", "status", "seen"),
    [
        ("reachable", "fail", {"fault": "no connection (refused)"}),
        ("certificate-expiry", "warn", {"certificate_ends_at": NOW + 20 * DAY}),
        ("old-tls", "fail", {"old_tls": "taken"}),
        ("old-tls", "warn", {"old_tls": "not tried"}),
        ("old-tls", "warn", {"old_tls": "not seen"}),
        ("http-2", "warn", {"alpn": "http/1.1"}),
        ("http-2", "warn", {"alpn": None}),
        ("clear-text", "fail", {"clear_text": 200}),
        ("clear-text", "pass", {"clear_text": 400}),
        ("clear-text", "pass", {"clear_text": 0}),
        ("clear-text", "fail", {"clear_text": 404}),
        ("clear-text", "warn", {"clear_text": "not seen"}),
        ("port-80", "pass", {"port_80": Answer(308, {"location": f"{ISSUER}/"})}),
        ("port-80", "fail", {"port_80": Answer(200, {})}),
        ("port-80", "fail", {"port_80": Answer(302, {"location": "http://elsewhere"})}),
        *(("security-headers", "fail", {"ready": lacking(name)}) for name in HEADERS if name not in NEEDED_ELSEWHERE),
        ("hsts", "fail", {"ready": lacking("strict-transport-security")}),
        ("ready", "fail", {"ready": Answer(503, HEADERS)}),
        ("ready", "fail", {"ready": None}),
        ("clock", "warn", {"ready": dated("Wed, 18 Nov 2026 11:06:46 GMT")}),
        ("clock", "fail", {"ready": dated("Wed, 18 Nov 2026 11:05:00 GMT")}),
        ("clock", "warn", {"ready": dated("yesterday")}),
        ("clock", "warn", {"ready": dated("Mon, 01 Jan 2024 00:00:00 +99999999999999")}),
        ("metadata", "fail", {"metadata_fault": "it is the metadata of 'x'"}),
        ("key-set", "fail", {"keys_fault": "the key set publishes a secret or private key"}),
        ("next-key", "warn", {"algorithms": ("ES256",)}),
        ("feed", "fail", {"feed_fault": "status 502"}),
        ("feed", "fail", {"heartbeat_s": None}),
        ("no-store", "fail", {"token_error": Answer(400, {})}),
        ("cors", "fail", {"preflight": Answer(204, {"access-control-allow-origin": FOREIGN_ORIGIN})}),
        ("cors", "fail", {"account": Answer(401, {"access-control-allow-credentials": "true"})}),
        ("cors", "pass", {"account": Answer(401, {"access-control-allow-origin": "*"})}),
        ("cors", "warn", {"preflight": None}),
        ("cors", "warn", {"account": None}),
        ("cors", "warn", {"account": Answer(502, {})}),
        ("cors", "fail", {"preflight": None, "account": Answer(401, {"access-control-allow-credentials": "true"})}),
        ("fields", "warn", {"token_error": Answer(400, {"cache-control": "no-store"})}),
        ("fields", "pass", {"token_error": Answer(429, {"cache-control": "no-store"})}),
    ],
)
def test_each_check_of_a_server(check: str, status: Status, seen: dict[str, Any]) -> None:
    findings = {finding.check: finding for finding in check_server(msgspec.structs.replace(SEEN, **seen))}
    assert findings[check].status == status
    assert bool(findings[check].remedy) == (status != "pass")
    if check == "reachable":
        assert len(findings) == 1, "an unreachable server is one row"


def test_a_good_server_passes_everything_and_says_so_for_every_practice() -> None:
    findings = list(check_server(SEEN))
    assert [finding for finding in findings if finding.status != "pass"] == []
    assert {finding.practice for finding in findings} == set(PRACTICES)


def test_of_a_server_that_gives_no_answer_nothing_passes_for_which_one_is_needed() -> None:
    seen = msgspec.structs.replace(
        SEEN, old_tls="not seen", clear_text="not seen", ready=None, token_error=None, preflight=None, account=None,
        metadata_fault="no answer",
    )  # fmt: skip
    good = {finding.check for finding in check_server(seen) if finding.status == "pass"}
    assert good == {"certificate", "certificate-expiry", "http-2"}, "these were seen in the handshake"


def test_localhost_needs_no_hsts() -> None:
    seen = msgspec.structs.replace(SEEN, url="https://localhost:8443", ready=lacking("strict-transport-security"))
    assert list(checkup_outside.check_headers(seen)) == [
        passed("https", "security-headers", "Answers carry the security headers.")
    ]


def test_the_exit_status_tells_of_the_worst_that_counts() -> None:
    good, warning, bad = passed("keys", "a", "x"), warned("https", "b", "x", "y"), failed("keys", "c", "x", "y")
    assert [exit_status(each, "fail") for each in ([good], [good, warning], [good, bad], [])] == [0, 0, 1, 0]
    assert [exit_status(each, "warn") for each in ([good], [good, warning], [good, bad], [])] == [0, 1, 1, 0]
    assert ordered([good, warning, bad]) == [warning, good, bad]
