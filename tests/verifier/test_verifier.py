"""A verifier that needs no network: keys given once, or a source in this process; and what it refuses to be made of."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import pytest

from jotgate import (
    ClaimRefused,
    Issuer,
    KeySet,
    KeySourceError,
    Policy,
    SettingsError,
    TokenError,
    TokenRevoked,
    UnknownKey,
    Verifier,
    generate_key,
    issue_token,
)
from jotgate.core.revocations import Revocations
from jotgate.verifier import Snapshot

KEY = generate_key("ES256")
ISSUER = "https://issuer.example"


def token(**options: object) -> str:
    arguments = {"audience": "api"} | options
    return Issuer(issuer=ISSUER, keys=KEY).issue("alice", **arguments)  # type: ignore[arg-type]


def test_fixed_keys_verify_without_thread_or_network() -> None:
    before = threading.active_count()
    verifier = Verifier(issuer=ISSUER, audience="api", keys=KeySet([KEY.public]))
    assert verifier.verify(token()).subject == "alice"
    assert threading.active_count() == before
    assert verifier.status().mode == "fixed"
    assert verifier.status().ready


async def test_averify_gives_what_verify_gives() -> None:
    verifier = Verifier(issuer=ISSUER, audience="api", keys=KEY.public)
    given = token()
    assert (await verifier.averify(given)).to_dict() == verifier.verify(given).to_dict()
    with pytest.raises(UnknownKey):
        await verifier.averify(Issuer(issuer=ISSUER, keys=generate_key()).issue("eve", audience="api"))


def test_another_audience_is_refused() -> None:
    with pytest.raises(ClaimRefused):
        Verifier(issuer=ISSUER, audience="other", keys=KEY.public).verify(token())


def test_a_key_counts_for_its_own_issuer_alone_whatever_its_kid() -> None:
    first, second = (generate_key("ES256", kid="same") for _ in range(2))
    issuers = {"https://one.example": first, "https://two.example": second}
    verifiers = {name: Verifier(issuer=name, audience="api", keys=key.public) for name, key in issuers.items()}
    for name, verifier in verifiers.items():
        assert verifier.verify(Issuer(issuer=name, keys=issuers[name]).issue("alice", audience="api")).issuer == name
        for claimed, key in itertools.product(issuers, issuers.values()):
            if (claimed, key) != (name, issuers[name]):
                with pytest.raises(TokenError):
                    verifier.verify(Issuer(issuer=claimed, keys=key).issue("alice", audience="api"))


def test_status_tells_the_keys_that_cannot_be_used_and_why() -> None:
    keys = KeySet.from_jwks({"keys": [KEY.to_jwk(), {"kty": "EC", "kid": "broken"}, {"kty": "FUTURE"}]})
    source = Source()
    verifier = Verifier(issuer=ISSUER, audience="api", source=source)
    assert verifier.status().skipped == ()
    source.now = Snapshot(keys, Revocations())
    for each in (verifier, Verifier(issuer=ISSUER, audience="api", keys=keys)):
        assert [name for name, _ in each.status().skipped] == ["broken", 2]
        assert each.status().skipped == keys.skipped


class Source:
    def __init__(self) -> None:
        self.now: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        if self.now is None:
            raise KeySourceError("The server has not started.")
        return self.now


def test_a_source_is_asked_anew_for_each_token() -> None:
    source = Source()
    verifier = Verifier(issuer=ISSUER, audience="api", source=source)
    given = token(session="s1")
    with pytest.raises(KeySourceError):
        verifier.verify(given)
    assert verifier.status().last_error == "The server has not started."
    with pytest.raises(KeySourceError):
        verifier.wait_ready(5)
    source.now = Snapshot(KeySet([KEY.public]), Revocations())
    verifier.wait_ready(0)
    assert verifier.verify(given).session_id == "s1"
    source.now = Snapshot(KeySet([KEY.public]), Revocations({"s1": 2**40}))
    with pytest.raises(TokenRevoked):
        verifier.verify(given)
    assert verifier.verify(token(session="s2")).session_id == "s2"


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        Verifier(
            issuer="http://localhost",
            audience="",
            jwks_uri="ftp://localhost/keys",
            algorithms=("HS256",),
            leeway_s=61,
            refresh_s=0,
            timeout_s=float("nan"),
            key_wait_s=-1,
            cooldown_s=-1,
            max_key_age_offline_s=-1,
        )
    assert len(raised.value.faults) == 10


def test_keys_come_from_one_place() -> None:
    with pytest.raises(SettingsError, match="exclude each other"):
        Verifier(issuer=ISSUER, audience="api", keys=KEY.public, source=Source())


def test_an_empty_key_set_is_refused() -> None:
    with pytest.raises(SettingsError, match="holds no key"):
        Verifier(issuer=ISSUER, audience="api", keys=KeySet([]))


@pytest.mark.parametrize(
    "issuer",
    [
        "http://localhost:8443",
        "http://127.0.0.1",
        "HTTPS://issuer.example",
        "https://user:secret@issuer.example",
        "https://issuer.example?tenant=1",
        "https://issuer.example#top",
        "https://issuer.example/a b",
        "https://",
        "issuer.example",
        "file:///etc/issuer",
        "",
    ],
)
def test_a_network_issuer_is_a_plain_https_url(issuer: str) -> None:
    with pytest.raises(SettingsError):
        Verifier(issuer=issuer, audience="api")


def test_a_verifier_with_its_own_keys_loads_no_network_code() -> None:
    script = (
        "import sys\n"
        "from jotgate import Verifier, generate_key\n"
        "Verifier(issuer='https://i', audience='a', keys=generate_key().public)\n"
        "print(sorted({'ssl', 'socket', 'http.client', 'asyncio', 'threading'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = done.stdout.strip()
    assert "ssl" not in loaded
    assert "http.client" not in loaded
    assert "asyncio" not in loaded


def test_a_policy_makes_a_verifier_for_another_issuers_tokens() -> None:
    key = generate_key("RS256")
    policy = Policy.auth0(domain="tenant.eu.auth0.com", audience="https://api.example.com")
    verifier = Verifier(policy=policy, keys=key.public)
    now = int(time.time())
    claims = {
        "iss": "https://tenant.eu.auth0.com/",
        "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": ["https://api.example.com", "https://tenant.eu.auth0.com/userinfo"],
        "iat": now,
        "exp": now + 86_400,
        "azp": "my_client_id",
        "scope": "openid profile read:orders",
    }
    assert verifier.verify(issue_token(claims, key, typ="JWT")).has_scopes("read:orders")
    with pytest.raises(ClaimRefused):
        verifier.verify(issue_token(claims | {"aud": "https://other.example.com"}, key, typ="JWT"))
    assert verifier.issuer == "https://tenant.eu.auth0.com/"


@pytest.mark.parametrize(
    "beside", [{"issuer": ISSUER}, {"audience": "api"}, {"algorithms": ("ES256",)}, {"leeway_s": 1}]
)
def test_a_policy_is_given_alone(beside: dict[str, object]) -> None:
    policy = Policy(issuer=ISSUER, audience="api")
    with pytest.raises(SettingsError, match="give it alone"):
        Verifier(policy=policy, keys=KEY.public, **beside)  # type: ignore[arg-type]
