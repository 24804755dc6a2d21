"""Tokens in the shapes that third-party issuers document, signed by keys of our own, and what must not pass for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import signature
from typing import Any, TypeAlias

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from jotgate import (
    AlgorithmRefused,
    ClaimRefused,
    Claims,
    Key,
    KeySet,
    Policy,
    SettingsError,
    generate_key,
    verify_token,
)
from jotgate.core import presets
from jotgate.core.encoding import encode_segment

Json: TypeAlias = Any
NOW = 1_750_000_000
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
API = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
SPA = "75dbe77f-10a3-4e59-85fd-8c127544f17c"
CLIENT = "1234987819200.apps.googleusercontent.com"


@pytest.fixture(scope="module")
def signing(rsa_key: rsa.RSAPrivateKey) -> Key:
    pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Key.from_pem(pem, "RS256", kid="1234example=")


Shape: TypeAlias = tuple[dict[str, Json], dict[str, Json], Policy]
"""A header (without alg and kid), a payload, and the policy that takes them."""

AUTH0 = Policy.auth0(domain="my-domain.auth0.com", audience="https://example.com/health-api")
COGNITO: dict[str, Json] = {
    "region": "us-west-2",
    "user_pool_id": "us-west-2_example",
    "client_id": "xxxxxxxxxxxxexample",
}
KEYCLOAK = Policy.keycloak(base_url="https://sso.example.com", realm="demo", audience="orders-api")


def auth0() -> Shape:
    payload = {
        "iss": "https://my-domain.auth0.com/",
        "sub": "auth0|123456",
        "aud": ["https://example.com/health-api", "https://my-domain.auth0.com/userinfo"],
        "azp": "my_client_id",
        "iat": NOW,
        "exp": NOW + 86_400,
        "scope": "openid profile read:patients read:admin",
    }
    return {"typ": "JWT"}, payload, AUTH0


def auth0_rfc_9068() -> Shape:
    payload = auth0()[1] | {"client_id": "my_client_id", "jti": "73WakrfVbNJBaAmhQtEeDv"}
    del payload["azp"]
    return {"typ": "at+jwt"}, payload, AUTH0


def auth0_id() -> Shape:
    payload = {
        "iss": "https://my-domain.auth0.com/",
        "sub": "auth0|123456",
        "aud": "my_client_id",
        "iat": NOW,
        "exp": NOW + 36_000,
        "nonce": "Sm9obkRvZQ",
        "name": "Jane Doe",
        "email": "jane@example.com",
    }
    return {"typ": "JWT"}, payload, AUTH0


def cognito() -> Shape:
    payload = {
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "device_key": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "cognito:groups": ["testgroup"],
        "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
        "version": 2,
        "client_id": "xxxxxxxxxxxxexample",
        "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "event_id": "64f513be-32db-42b0-b78e-b02127b4f463",
        "token_use": "access",
        "scope": "phone openid profile email",
        "auth_time": NOW - 5,
        "exp": NOW + 3600,
        "iat": NOW,
        "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "username": "my-test-user",
    }
    return {}, payload, Policy.cognito(**COGNITO)


def cognito_bound() -> Shape:
    payload = cognito()[1] | {"aud": "https://api.example.com"}
    return {}, payload, Policy.cognito(**COGNITO, audience="https://api.example.com")


def cognito_id() -> Shape:
    payload = {
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "email_verified": True,
        "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
        "cognito:username": "my-test-user",
        "nonce": "abcdefg",
        "aud": "xxxxxxxxxxxxexample",
        "token_use": "id",
        "auth_time": NOW,
        "exp": NOW + 3600,
        "iat": NOW,
        "email": "my-test-user@example.com",
    }
    return {}, payload, Policy.cognito(**COGNITO, token_use="id")


def entra() -> Shape:
    payload = {
        "aud": API,
        "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
        "iat": NOW - 300,
        "nbf": NOW - 300,
        "exp": NOW + 3600,
        "aio": "AXQAi/8IAAAAtAaZLo3ChMif6KOnttRB7eBq4/DccQzjcJGxPWy/C3jDaNGxXd6wNI",
        "azp": SPA,
        "azpacr": "0",
        "name": "Abe Lincoln",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
        "preferred_username": "abeli@microsoft.com",
        "rh": "I",
        "scp": "access_as_user orders.read",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        "tid": TENANT,
        "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "2.0",
    }
    return {"typ": "JWT"}, payload, Policy.entra(tenant_id=TENANT, audience=API)


def entra_v1() -> Shape:
    payload = entra()[1] | {
        "aud": f"api://{API}",
        "iss": f"https://sts.windows.net/{TENANT}/",
        "acr": "1",
        "amr": ["wia"],
        "appid": SPA,
        "appidacr": "0",
        "unique_name": "abeli@microsoft.com",
        "ver": "1.0",
    }
    for name in ("azp", "azpacr", "preferred_username"):
        del payload[name]
    policy = Policy.entra(tenant_id=TENANT, audience=f"api://{API}", version="1.0")
    return {"typ": "JWT", "x5t": "i6lGk3FZzxRcUb2C3nEQ7syHJlY"}, payload, policy


def entra_id() -> Shape:
    """One registration for client and API, so that the audience is the same; a server-side flow, so without nonce."""
    payload = entra()[1] | {"roles": ["admin"]}
    for name in ("azp", "azpacr", "scp"):
        del payload[name]
    return {"typ": "JWT"}, payload, entra()[2]


def keycloak() -> Shape:
    payload = {
        "exp": NOW + 300,
        "iat": NOW,
        "jti": "onrtac:0f3ce3ee-1c4b-2a4b-9d3e-9c1f6a3c2b1a",
        "iss": "https://sso.example.com/realms/demo",
        "aud": ["orders-api", "account"],
        "sub": "0f3ce3ee-1c4b-4a4b-9d3e-9c1f6a3c2b1a",
        "typ": "Bearer",
        "azp": "demo-app",
        "sid": "c5e8b7a4-8f51-4c2b-9a47-3d1f0d6a7b5e",
        "acr": "1",
        "allowed-origins": ["http://localhost:5173"],
        "realm_access": {"roles": ["offline_access", "default-roles-demo"]},
        "resource_access": {"account": {"roles": ["manage-account"]}},
        "scope": "openid profile email",
        "email_verified": True,
        "preferred_username": "alice",
    }
    return {"typ": "JWT"}, payload, KEYCLOAK


def google() -> Shape:
    payload = {
        "iss": "https://accounts.google.com",
        "azp": CLIENT,
        "aud": CLIENT,
        "sub": "10769150350006150715113082367",
        "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
        "hd": "example.com",
        "email": "jsmith@example.com",
        "email_verified": True,
        "nonce": "0394852-3190485-2490358",
        "iat": NOW,
        "exp": NOW + 3600,
    }
    return {"typ": "JWT"}, payload, Policy.google(client_id=CLIENT)


Make: TypeAlias = Callable[[], Shape]
TAKEN: list[Make] = [auth0, auth0_rfc_9068, cognito, cognito_bound, cognito_id, entra, entra_v1, keycloak, google]


def sign(signing: Key, header: dict[str, Json], payload: dict[str, Json]) -> str:
    """Whatever is given, and as compact as issuers write it (Ellipsis: left out)."""
    whole: dict[str, Json] = {"alg": signing.algorithm, "kid": signing.kid, **header}
    parts = [
        encode_segment(json.dumps({k: v for k, v in part.items() if v is not ...}).encode())
        for part in (whole, payload)
    ]
    text = ".".join(parts)
    return f"{text}.{encode_segment(signing.sign(text.encode()))}"


def verify(signing: Key, shape: Shape, **changes: Json) -> Claims:
    header, payload, policy = shape
    return verify_token(sign(signing, header, payload | changes), signing.public, policy, NOW)


def refusal(signing: Key, shape: Shape, **changes: Json) -> str:
    with pytest.raises(ClaimRefused) as refused:
        verify(signing, shape, **changes)
    return refused.value.claim


@pytest.mark.parametrize("make", TAKEN)
def test_a_token_as_the_provider_documents_it_is_taken(signing: Key, make: Make) -> None:
    claims = verify(signing, make())
    assert claims.to_dict() == make()[1]
    assert claims.subject == make()[1]["sub"]


@pytest.mark.parametrize("make", TAKEN)
def test_a_token_of_another_issuer_tenant_pool_or_realm_is_refused(signing: Key, make: Make) -> None:
    issuer = make()[1]["iss"]
    others = {other()[1]["iss"] for other in TAKEN} - {issuer}
    for wrong in (*others, issuer.rstrip("/") + "x", issuer + "/", issuer[:-1], issuer.replace("https", "http"), ...):
        assert refusal(signing, make(), iss=wrong) == "iss"


@pytest.mark.parametrize("make", TAKEN)
def test_a_token_with_another_header_type_is_refused(signing: Key, make: Make) -> None:
    header, payload, policy = make()
    known: dict[Make, set[Json]] = {
        auth0: {"JWT", "at+jwt"},
        auth0_rfc_9068: {"JWT", "at+jwt"},
        keycloak: {"JWT", "at+jwt"},
    }
    for typ in {"JWT", "at+jwt", ..., "logout+jwt", "secevent+jwt", "dpop+jwt"} - known.get(
        make, {header.get("typ", ...)}
    ):
        assert refusal(signing, ({**header, "typ": typ}, payload, policy)) == "typ"


@pytest.mark.parametrize("make", TAKEN)
def test_a_token_under_another_algorithm_is_refused(make: Make) -> None:
    key = generate_key("ES256")
    header, payload, policy = make()
    with pytest.raises(AlgorithmRefused):
        verify_token(sign(key, header, payload), key.public, policy, NOW)


@pytest.mark.parametrize("make", TAKEN)
def test_a_token_without_a_subject_or_a_time_of_issue_is_refused(signing: Key, make: Make) -> None:
    assert refusal(signing, make(), sub=...) == "sub"
    assert refusal(signing, make(), iat=...) == "iat"


@pytest.mark.parametrize(
    ("make", "most_s"),
    [(auth0, 86_400), (cognito, 86_400), (cognito_id, 86_400), (entra, 5_700), (keycloak, 3_600), (google, 3_900)],
)
def test_a_token_that_lives_longer_than_the_providers_do_is_refused(signing: Key, make: Make, most_s: int) -> None:
    assert verify(signing, make(), iat=NOW, nbf=NOW, exp=NOW + most_s)
    assert refusal(signing, make(), iat=NOW, nbf=NOW, exp=NOW + most_s + 1) == "exp"


# Auth0


def test_auth0_id_tokens_are_no_access_tokens(signing: Key) -> None:
    assert refusal(signing, auth0_id()) == "aud"
    # An API that was registered under a client's id would take them, were it not for what only ID tokens have.
    policy = Policy.auth0(domain="my-domain.auth0.com", audience="my_client_id")
    assert refusal(signing, (auth0_id()[0], auth0_id()[1], policy)) == "nonce"


@pytest.mark.parametrize("make", [auth0, auth0_rfc_9068, entra, entra_v1, keycloak, google])
def test_a_logout_token_or_another_security_event_is_refused(signing: Key, make: Make) -> None:
    events: Json = {"http://schemas.openid.net/event/backchannel-logout": {}}
    assert refusal(signing, make(), events=events) == "events"


def test_auth0_tokens_for_another_api_are_refused(signing: Key) -> None:
    for audience in ("https://example.com/other-api", ["https://my-domain.auth0.com/userinfo"], "my_client_id", ...):
        assert refusal(signing, auth0(), aud=audience) == "aud"


# Cognito


def test_cognito_access_tokens_of_another_client_are_refused(signing: Key) -> None:
    wrong: list[Json] = ["another", ["xxxxxxxxxxxxexample"], "", None, 5, ...]
    for client in wrong:
        assert refusal(signing, cognito(), client_id=client) == "client_id"


def test_cognito_access_and_id_tokens_are_not_taken_for_each_other(signing: Key) -> None:
    _, access, access_policy = cognito()
    _, of_id, id_policy = cognito_id()
    assert refusal(signing, ({}, of_id, access_policy)) == "client_id"
    assert refusal(signing, ({}, of_id | {"client_id": of_id["aud"]}, access_policy)) == "aud"
    assert refusal(signing, ({}, access, id_policy)) == "aud"
    assert refusal(signing, ({}, access | {"aud": access["client_id"]}, id_policy)) == "token_use"
    for use in ("id", "refresh", "Access", "", None, ["access"], ...):
        assert refusal(signing, cognito(), token_use=use) == "token_use"


def test_cognito_tokens_that_are_bound_to_an_api_are_for_that_api_and_client_alone(signing: Key) -> None:
    assert refusal(signing, cognito(), aud="https://other.example.com") == "aud"
    assert refusal(signing, cognito_bound(), aud="https://other.example.com") == "aud"
    assert refusal(signing, cognito_bound(), aud=...) == "aud"
    assert refusal(signing, cognito_bound(), client_id="another") == "client_id"
    assert refusal(signing, cognito_bound(), token_use="id") == "token_use"


def test_cognito_takes_several_clients_of_one_pool(signing: Key) -> None:
    policy = Policy.cognito(**COGNITO | {"client_id": ["web", "ios"]})
    for client in ("web", "ios"):
        assert verify(signing, ({}, cognito()[1], policy), client_id=client)
    assert refusal(signing, ({}, cognito()[1], policy)) == "client_id"


def test_cognito_in_china_has_another_name() -> None:
    policy = Policy.cognito(region="cn-north-1", user_pool_id="cn-north-1_Ab1", client_id="c")
    assert policy.issuer == "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_Ab1"


# Entra


def test_entra_tokens_of_another_tenant_are_refused(signing: Key) -> None:
    other = "9188040d-6c67-4c5b-b112-36a304b66dad"
    assert refusal(signing, entra(), iss=f"https://login.microsoftonline.com/{other}/v2.0", tid=other) == "iss"
    for tenant in (other, TENANT.upper(), None, ...):
        assert refusal(signing, entra(), tid=tenant) == "tid"
        assert refusal(signing, entra_v1(), tid=tenant) == "tid"


def test_entra_versions_are_not_taken_for_each_other(signing: Key) -> None:
    second, first = entra()[1], entra_v1()[1]
    assert refusal(signing, (entra()[0], first | {"aud": API}, entra()[2])) == "iss"
    assert refusal(signing, (entra()[0], second | {"aud": f"api://{API}"}, entra_v1()[2])) == "iss"
    assert refusal(signing, (entra()[0], first | {"aud": API, "iss": second["iss"], "ver": "2.0"}, entra()[2])) == "azp"
    renamed = {"aud": first["aud"], "iss": first["iss"], "ver": "1.0"}
    assert refusal(signing, (entra()[0], second | renamed, entra_v1()[2])) == "appid"
    assert refusal(signing, entra(), ver="1.0") == "ver"
    assert refusal(signing, entra_v1(), ver="2.0") == "ver"


def test_entra_id_tokens_are_no_access_tokens_even_with_the_same_audience(signing: Key) -> None:
    assert refusal(signing, entra_id()) == "azp"
    assert refusal(signing, entra_id(), azp=SPA, nonce="12345") == "nonce"


@pytest.mark.parametrize("nothing", [None, "", [], {}, 5, True, [SPA], ...])
def test_entra_tokens_that_name_no_client_are_refused_however_they_say_so(signing: Key, nothing: Json) -> None:
    assert refusal(signing, entra(), azp=nothing) == "azp"
    assert refusal(signing, entra_v1(), appid=nothing) == "appid"


def test_entra_tokens_for_another_api_are_refused(signing: Key) -> None:
    for audience in (SPA, f"api://{API}", "00000003-0000-0000-c000-000000000000", API.upper(), ...):
        assert refusal(signing, entra(), aud=audience) == "aud"


def test_entra_scopes_are_read_from_scp(signing: Key) -> None:
    assert verify(signing, entra()).scopes == {"access_as_user", "orders.read"}


def test_entra_keys_without_an_algorithm_take_the_policys(signing: Key) -> None:
    header, payload, policy = entra()
    published = signing.to_jwk() | {"issuer": f"https://login.microsoftonline.com/{TENANT}/v2.0", "x5t": "i6lGk3FZ"}
    del published["alg"]
    keys = KeySet.from_jwks({"keys": [published]}, algorithms=policy.algorithms)
    assert verify_token(sign(signing, header, payload), keys, policy, NOW).subject == payload["sub"]


# Keycloak


def test_keycloak_tokens_of_other_kinds_are_refused(signing: Key) -> None:
    for kind in ("ID", "Refresh", "Offline", "Logout", "DPoP", "bearer", "", None, ["Bearer"], ...):
        assert refusal(signing, keycloak(), typ=kind) == "typ"


def test_keycloak_access_tokens_with_the_type_of_rfc_9068_are_taken(signing: Key) -> None:
    _, payload, policy = keycloak()
    assert verify(signing, ({"typ": "at+jwt"}, payload, policy))


def test_keycloak_tokens_without_the_apis_audience_are_refused_whoever_they_were_given_to(signing: Key) -> None:
    for audience in ("account", ["account", "other-api"], "demo-app", ...):
        assert refusal(signing, keycloak(), aud=audience, azp="orders-api") == "aud"


def test_keycloak_tokens_may_be_narrowed_to_clients(signing: Key) -> None:
    policy = Policy.keycloak(
        base_url="https://sso.example.com", realm="demo", audience="orders-api", client_id=["demo-app", "ios"]
    )
    assert verify(signing, (keycloak()[0], keycloak()[1], policy))
    for client in ("other-app", "", None, ...):
        assert refusal(signing, (keycloak()[0], keycloak()[1], policy), azp=client) == "azp"


def test_a_realm_that_signs_with_another_algorithm_says_so() -> None:
    key = generate_key("ES256")
    policy = Policy.keycloak(
        base_url="https://sso.example.com/auth", realm="demo", audience="orders-api", algorithms=("ES256",)
    )
    header, payload, _ = keycloak()
    token = sign(key, header, payload | {"iss": "https://sso.example.com/auth/realms/demo"})
    assert verify_token(token, key.public, policy, NOW).session_id == payload["sid"]


# Google


def test_googles_name_has_two_spellings_and_no_third(signing: Key) -> None:
    assert verify(signing, google(), iss="accounts.google.com").issuer == "accounts.google.com"
    for wrong in ("http://accounts.google.com", "accounts.google.com/", "https://accounts.google.com/", "google.com"):
        assert refusal(signing, google(), iss=wrong) == "iss"


def test_google_tokens_for_another_client_are_refused(signing: Key) -> None:
    other = "999.apps.googleusercontent.com"
    assert refusal(signing, google(), aud=other, azp=other) == "aud"
    assert refusal(signing, google(), aud=other) == "aud"
    both = Policy.google(client_id=(CLIENT, other))
    assert verify(signing, (google()[0], google()[1], both), aud=other)


def test_google_accounts_may_be_narrowed_to_a_domain(signing: Key) -> None:
    policy = Policy.google(client_id=CLIENT, hosted_domain="example.com")
    assert verify(signing, (google()[0], google()[1], policy))
    for domain in ("example.org", "Example.com", "", None, ...):
        assert refusal(signing, (google()[0], google()[1], policy), hd=domain) == "hd"


# What presets are given

ENTRA: dict[str, Json] = {"tenant_id": TENANT, "audience": API}
REALM: dict[str, Json] = {"base_url": "https://sso.example.com", "realm": "demo", "audience": "a"}


@pytest.mark.parametrize(
    ("preset", "settings", "name"),
    [
        *((Policy.auth0, {"domain": each, "audience": "a"}, "domain") for each in
          ("https://t.auth0.com", "t.auth0.com/", "T.auth0.com", "t.auth0.com ", "auth0", "", "t..com", None)),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": ""}, "audience"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": []}, "audience"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "max_lifetime_s": 2_592_001}, "max_lifetime_s"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "algorithms": ("none",)}, "algorithms"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "algorithms": ("HS256",)}, "algorithms"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "algorithms": "HS256"}, "algorithms"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "algorithms": ("RS256", 5)}, "algorithms"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "leeway_s": 61}, "leeway_s"),
        (Policy.auth0, {"domain": "t.auth0.com", "audience": "a", "claims_type": dict}, "claims_type"),
        *((Policy.cognito, COGNITO | change, name) for change, name in (
            ({"region": "us-west"}, "region"), ({"region": None}, "region"),
            ({"user_pool_id": "eu-west-1_x"}, "user_pool_id"), ({"user_pool_id": "us-west-2_x/y"}, "user_pool_id"),
            ({"user_pool_id": None}, "user_pool_id"), ({"client_id": ""}, "audience"),
            ({"client_id": None}, "audience"),
            ({"token_use": "refresh"}, "token_use"), ({"token_use": "id", "audience": "a"}, "audience"),
            ({"max_lifetime_s": 86_401}, "max_lifetime_s"), ({"audience": ""}, "audience"),
            ({"audience": "a", "client_id": []}, "claim_values"))),
        *((Policy.entra, ENTRA | change, name) for change, name in (
            ({"tenant_id": "common"}, "tenant_id"), ({"tenant_id": "contoso.com"}, "tenant_id"),
            ({"tenant_id": TENANT.upper()}, "tenant_id"), ({"tenant_id": None}, "tenant_id"),
            ({"version": "2"}, "version"), ({"audience": f"api://{API}"}, "audience"),
            ({"audience": [API, "x"]}, "audience"), ({"audience": None}, "audience"),
            ({"max_lifetime_s": 101_101}, "max_lifetime_s"), ({"max_lifetime_s": 0}, "max_lifetime_s"))),
        *((Policy.keycloak, REALM | change, name) for change, name in (
            ({"base_url": "http://sso.example.com"}, "base_url"),
            ({"base_url": "https://sso.example.com/"}, "base_url"),
            ({"base_url": "https://x@sso.example.com"}, "base_url"),
            ({"base_url": "https://s.example.com?q"}, "base_url"),
            ({"realm": "demo/x"}, "realm"), ({"realm": ""}, "realm"), ({"max_lifetime_s": True}, "max_lifetime_s"),
            ({"algorithms": ("HS256", "RS256")}, "algorithms"), ({"algorithms": ("HS512",)}, "algorithms"),
            ({"algorithms": None}, "algorithms"), ({"client_id": ""}, "claim_values"))),
        (Policy.google, {"client_id": CLIENT, "hosted_domain": "https://example.com"}, "hosted_domain"),
        (Policy.google, {"client_id": ()}, "audience"),
    ],
    ids=str,
)  # fmt: skip
def test_a_preset_with_a_fault_is_not_made(preset: Callable[..., Policy], settings: dict[str, Json], name: str) -> None:
    with pytest.raises(SettingsError) as error:
        preset(**settings)
    assert len(error.value.faults) == 1
    assert error.value.faults[0].removeprefix(f"{preset.__name__}: ").startswith(name)


def test_a_preset_tells_all_its_faults_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        Policy.entra(tenant_id="common", audience="x", version="2.0", max_lifetime_s=0)
    assert len(error.value.faults) == 3


def test_a_preset_may_be_narrowed_and_typed(signing: Key) -> None:
    class Patient(msgspec.Struct):
        azp: str

    policy = Policy.auth0(
        domain="my-domain.auth0.com",
        audience="https://example.com/health-api",
        max_lifetime_s=600,
        leeway_s=0,
        claims_type=Patient,
    )
    shape = (auth0()[0], auth0()[1], policy)
    assert verify(signing, shape, exp=NOW + 600).custom == Patient("my_client_id")
    assert refusal(signing, shape, exp=NOW + 601) == "exp"


class Own(msgspec.Struct):
    """Claims of one's own."""


PRESETS: dict[Callable[..., Policy], dict[str, Json]] = {
    Policy.auth0: {"domain": "tenant.eu.auth0.com", "audience": "api"},
    Policy.cognito: {"region": "eu-central-1", "user_pool_id": "eu-central-1_Ab12cd34E", "client_id": "web"},
    Policy.entra: {"tenant_id": TENANT, "audience": API},
    Policy.keycloak: {"base_url": "https://sso.example.com", "realm": "shop", "audience": "api"},
    Policy.google: {"client_id": CLIENT},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_forgives_5_seconds_and_reads_no_own_claims_unless_told_to(preset: Callable[..., Policy]) -> None:
    plain, own = preset(**PRESETS[preset]), preset(**PRESETS[preset], leeway_s=7, claims_type=Own)
    assert (plain.leeway_s, plain.claims_type) == (5, None)
    assert (own.leeway_s, own.claims_type) == (7, Own)


@pytest.mark.parametrize("name", ["auth0", "cognito", "entra", "keycloak", "google"])
def test_a_preset_and_its_shape_have_the_same_defaults(name: str) -> None:
    policy, shape = (signature(getattr(owner, name)).parameters for owner in (Policy, presets))
    for parameter in shape:
        assert policy[parameter].default == shape[parameter].default


@pytest.mark.parametrize(
    ("name", "given", "most_s"),
    [
        ("auth0", {"domain": "a.auth0.com", "audience": "a"}, 30 * 86_400),
        ("cognito", COGNITO, 86_400),
        ("entra", {"tenant_id": TENANT, "audience": API}, 28 * 3_600 + 300),
        ("keycloak", {"base_url": "https://sso.example.com", "realm": "r", "audience": "a"}, 86_400),
    ],
)
def test_a_presets_lifetime_is_a_whole_number_with_borders(name: str, given: dict[str, Json], most_s: int) -> None:
    make = getattr(presets, name)
    for taken in (1, most_s):
        assert make(**given, max_lifetime_s=taken)["max_lifetime_s"] == taken
    for refused in (0, most_s + 1, 60.0, True):
        with pytest.raises(SettingsError, match=f"{name}: max_lifetime_s"):
            make(**given, max_lifetime_s=refused)


def test_keycloaks_shape_is_whole() -> None:
    given: dict[str, Json] = {"base_url": "https://sso.example.com", "realm": "r", "audience": iter(("a", "b"))}
    assert presets.keycloak(**given, client_id="web") == {
        "issuer": "https://sso.example.com/realms/r",
        "audience": "a",
        "audience_aliases": ["b"],
        "algorithms": ("RS256",),
        "typ": ("JWT", "at+jwt"),
        "claim_values": {"typ": "Bearer", "azp": "web"},
        "forbidden": ("events",),
        "max_lifetime_s": 3_600,
    }


def test_entra_takes_audiences_that_can_be_read_once_and_lifetimes_up_to_95_minutes() -> None:
    shape = presets.entra(tenant_id=TENANT, audience=iter((API, SPA)))
    assert (shape["audience"], shape["audience_aliases"]) == (API, [SPA])
    assert shape["max_lifetime_s"] == 95 * 60  # they live up to 90 minutes and are dated 5 back


def test_what_tells_other_tokens_apart_is_forbidden_in_access_tokens() -> None:
    foreign = ("nonce", "at_hash", "c_hash", "events")
    auth0_shape = presets.auth0(domain="a.auth0.com", audience="a")
    assert auth0_shape["forbidden"] == presets.entra(tenant_id=TENANT, audience=API)["forbidden"] == foreign
    assert auth0_shape["typ"] == ("JWT", "at+jwt")


@pytest.mark.parametrize("algorithms", [("RS256", "HS256"), ("HS256",)])
def test_no_preset_takes_hmac_beside_key_pairs(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="auth0: algorithms must be those of key pairs"):
        presets.auth0(domain="a.auth0.com", audience="a", algorithms=algorithms)


def test_algorithms_that_are_no_names_are_a_fault_of_the_settings() -> None:
    with pytest.raises(SettingsError, match="algorithms"):
        Policy.auth0(domain="a.auth0.com", audience="a", algorithms=(["RS256"],))  # type: ignore[arg-type] # on purpose
