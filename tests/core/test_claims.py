"""What a policy demands of claims, and what claims then say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate import (
    ClaimRefused,
    Claims,
    Key,
    Policy,
    SettingsError,
    TokenExpired,
    TokenNotYetValid,
    issue_token,
    verify_token,
)
from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.claims import REGISTERED, RFC_9068, check_claims, read_registered
from jotgate.core.encoding import JsonRefused, parse_json_object

Json: TypeAlias = Any
NOW = 1_750_000_000
POLICY = Policy(issuer="https://auth.example.com", audience="api")
GOOD: dict[str, Json] = {
    "iss": "https://auth.example.com",
    "sub": "somebody",
    "aud": "api",
    "exp": NOW + 300,
    "iat": NOW,
}


def good(**claims: Json) -> dict[str, Json]:
    """Good claims with others besides (Ellipsis: left out)."""
    return {name: value for name, value in (GOOD | claims).items() if value is not ...}


def check(members: dict[str, Json], policy: Policy = POLICY, now: int = NOW) -> Claims:
    return Claims(members, check_claims(members, policy, now))


def refusal(claims: dict[str, Json], policy: Policy = POLICY, now: int = NOW) -> str:
    """The claim for which they are refused."""
    with pytest.raises(ClaimRefused) as refused:
        check(claims, policy, now)
    assert refused.value.claim in str(refused.value) or refused.value.claim in ("iss", "aud", "exp")
    return refused.value.claim


# Types

NO_TIMES = ["1750000000", True, False, None, -1, -0.5, 2**53, 2**53 + 0.0, 10**400, [NOW], {"n": NOW}]


@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "auth_time"])
@pytest.mark.parametrize("value", NO_TIMES, ids=str)
def test_times_of_another_type_or_out_of_range_are_refused_and_not_taken_as_absent(name: str, value: Json) -> None:
    assert refusal(good(**{name: value})) == name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_times_that_are_no_finite_number_are_refused(value: float) -> None:
    for name in ("exp", "nbf", "iat", "auth_time"):
        assert refusal(good(**{name: value})) == name


@pytest.mark.parametrize("name", ["iss", "sub", "jti", "client_id", "scope", "sid", "acr"])
@pytest.mark.parametrize("value", [None, 5, True, ["somebody"], {"a": 1}, 1.5], ids=str)
def test_names_of_another_type_are_refused_also_where_nothing_demands_them(name: str, value: Json) -> None:
    assert refusal(good(**{name: value})) == name


@pytest.mark.parametrize("value", [None, 5, True, [], [None], ["api", 5], [["api"]], {"api": 1}, {"0": "api"}], ids=str)
def test_an_audience_of_another_type_is_refused(value: Json) -> None:
    assert refusal(good(aud=value)) == "aud"


@pytest.mark.parametrize("value", [None, 5, True, "mfa", [None], ["pwd", 5], [["mfa"]], {"mfa": 1}], ids=str)
def test_methods_of_another_type_are_refused_and_not_taken_as_absent(value: Json) -> None:
    assert refusal(good(amr=value)) == "amr"
    demanding = Policy(issuer=GOOD["iss"], audience="api", required=("amr",))
    assert demanding.read_usual(json.dumps(good(amr=value), separators=(",", ":")).encode(), NOW) is None
    with pytest.raises(ClaimRefused, match="The claim 'amr' is not a list of texts"):
        check(good(amr=value), demanding)


def test_a_refusal_says_the_claims_name_and_type_and_never_its_value() -> None:
    faulty = (good(sub=["sesame"]), good(exp="sesame"), good(aud=[{"sesame": 1}]), good(iss="sesame"))
    for claims in (*faulty, good(amr="sesame"), good(acr=["sesame"])):
        with pytest.raises(ClaimRefused) as refused:
            check(claims)
        assert "sesame" not in str(refused.value)
    with pytest.raises(ClaimRefused, match="'aud' is not text or a list of texts"):
        check(good(aud=[5]))
    with pytest.raises(ClaimRefused, match="'nbf' is not a time"):
        check(good(nbf="5"))
    with pytest.raises(ClaimRefused, match="'sub' is not text"):
        check(good(sub=5))


# Issuer and audience


@pytest.mark.parametrize(
    "issuer",
    [..., "", "https://auth.example.com/", "https://auth.example.com ", "HTTPS://auth.example.com", "https://auth"],
)
def test_the_issuer_is_compared_exactly(issuer: Json) -> None:
    assert refusal(good(iss=issuer)) == "iss"


@pytest.mark.parametrize(
    "audience", [..., "", "ap", "apis", "API", "api ", "a", "*", "other", ["apis"], ["", "ap"], [["api"]], "api,other"]
)
def test_the_audience_is_an_exact_member(audience: Json) -> None:
    assert refusal(good(aud=audience)) == "aud"


def test_the_audience_may_be_text_or_a_list() -> None:
    assert check(good(aud="api")).audience == ("api",)
    assert check(good(aud=["other", "api"])).audience == ("other", "api")


# Time


def test_a_token_ends_at_exp_plus_leeway_and_not_a_second_later() -> None:
    for leeway_s in (0, 5, 60):
        policy = Policy(issuer=GOOD["iss"], audience="api", leeway_s=leeway_s)
        end = NOW + 300 + leeway_s
        check(GOOD, policy, end - 1)
        for now in (end, end + 1, end + 10**9):
            with pytest.raises(TokenExpired):
                check(GOOD, policy, now)


def test_a_token_begins_at_nbf_less_leeway() -> None:
    for name in ("nbf", "iat"):
        claims = good(**{name: NOW + 100})
        check(claims, now=NOW + 95)
        with pytest.raises(TokenNotYetValid):
            check(claims, now=NOW + 94)


def test_fractions_of_a_second_count_against_the_token() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", leeway_s=0)
    claims = good(exp=NOW + 10.9, nbf=NOW + 0.1, iat=NOW - 0.5, auth_time=NOW - 0.5)
    with pytest.raises(TokenNotYetValid):
        check(claims, policy, NOW)
    taken = check(claims, policy, NOW + 1)
    assert (taken.expires_at, taken.not_before, taken.issued_at) == (NOW + 10, NOW + 1, NOW - 1)
    assert taken.auth_time == NOW - 1
    check(claims, policy, NOW + 9)
    with pytest.raises(TokenExpired):
        check(claims, policy, NOW + 10)


def test_a_token_without_an_end_is_refused_whatever_the_policy() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", required=())
    assert refusal(good(exp=...), policy) == "exp"


def test_a_token_that_lives_longer_than_allowed_is_refused() -> None:
    check(good(exp=NOW + 3600))
    assert refusal(good(exp=NOW + 3601)) == "exp"
    longer = Policy(issuer=GOOD["iss"], audience="api", max_lifetime_s=86_400)
    check(good(exp=NOW + 86_400), longer)
    assert refusal(good(exp=NOW + 86_401), longer) == "exp"


def test_without_iat_the_time_left_is_bounded_instead() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", required=())
    check(good(iat=..., exp=NOW + 3605), policy)
    assert refusal(good(iat=..., exp=NOW + 3606), policy) == "exp"


# Required claims


@pytest.mark.parametrize("name", ["sub", "iat"])
def test_a_policy_demands_a_subject_and_a_time_of_issue_by_default(name: str) -> None:
    assert refusal(good(**{name: ...})) == name


def test_a_required_claim_is_there_and_not_empty() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", required=("sub", "tenant"))
    assert refusal(GOOD, policy) == "tenant"
    for nothing in (None, ""):
        assert refusal(good(tenant=nothing), policy) == "tenant"
    assert refusal(good(sub="", tenant="t"), policy) == "sub"
    others: tuple[Json, ...] = ("t", 0, False, [])
    for something in others:
        check(good(tenant=something), policy)


def test_a_policy_can_demand_all_that_rfc_9068_demands() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", required=RFC_9068)
    full = good(jti="1", client_id="web")
    check(full, policy)
    for name in RFC_9068:
        assert refusal({key: value for key, value in full.items() if key != name}, policy) == name


# Policies


@pytest.mark.parametrize(
    "faulty",
    [
        {"issuer": ""},
        {"issuer": None},
        {"audience": ""},
        {"audience": ["api"]},
        {"typ": ""},
        {"typ": None},
        {"algorithms": ()},
        {"algorithms": "ES256"},
        {"algorithms": ("none",)},
        {"algorithms": ("ES256", "nOnE")},
        {"algorithms": (None,)},
        {"algorithms": None},
        {"algorithms": ("HS256", "ES256")},
        {"leeway_s": -1},
        {"leeway_s": 61},
        {"leeway_s": 1.5},
        {"leeway_s": True},
        {"required": "sub"},
        {"required": (5,)},
        {"max_lifetime_s": 0},
        {"max_lifetime_s": None},
        {"claims_type": dict},
        {"claims_type": "Struct"},
    ],
    ids=str,
)
def test_a_policy_with_a_fault_is_not_made(faulty: dict[str, Json]) -> None:
    with pytest.raises(SettingsError) as error:
        Policy(**{"issuer": "i", "audience": "a", **faulty})
    assert len(error.value.faults) == 1
    assert next(iter(faulty)) in error.value.faults[0]


def test_a_policy_tells_all_its_faults_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        Policy(issuer="", audience="", algorithms=(), leeway_s=-1, max_lifetime_s=-1)
    assert len(error.value.faults) == 5
    assert all(fault in str(error.value) for fault in error.value.faults)


def test_a_policy_is_strict_unless_told_otherwise_and_cannot_be_changed() -> None:
    assert (POLICY.algorithms, POLICY.typ, POLICY.leeway_s, POLICY.max_lifetime_s) == (ASYMMETRIC, "at+jwt", 5, 3600)
    assert "none" not in {name.lower() for name in ALGORITHMS}
    assert not any(ALGORITHMS[name].symmetric or ALGORITHMS[name].verify_only for name in ASYMMETRIC)
    with pytest.raises(AttributeError):
        POLICY.leeway_s = 60  # type: ignore[misc]


def test_a_policy_takes_lists_and_keeps_them_from_changing() -> None:
    algorithms: Json = ["ES256"]
    policy = Policy(issuer="i", audience="a", algorithms=algorithms)
    algorithms.append("HS256")
    assert policy.algorithms == ("ES256",)
    assert policy == Policy(issuer="i", audience="a", algorithms=("ES256",))


# Claims

FULL = good(
    jti="token",
    client_id="web",
    scope="orders:read  orders:write",
    sid="session",
    nbf=NOW - 1,
    auth_time=NOW - 60,
    acr="aal2",
    amr=["pwd", "otp", "mfa"],
    roles=["a", {"b": ["c"]}],
)


def test_claims_have_names_and_types() -> None:
    claims = check(FULL)
    assert claims.issuer == "https://auth.example.com"
    assert claims.subject == "somebody"
    assert claims.audience == ("api",)
    assert claims.scopes == {"orders:read", "orders:write"}
    assert claims.session_id == "session"
    assert claims.client_id == "web"
    assert claims.token_id == "token"
    times = (claims.issued_at, claims.not_before, claims.expires_at, claims.auth_time)
    assert times == (NOW, NOW - 1, NOW + 300, NOW - 60)
    assert all(type(time) is int for time in times)
    assert (claims.authentication_context, claims.methods) == ("aal2", ("pwd", "otp", "mfa"))
    assert claims.custom is None


def test_claims_that_are_not_there_are_empty_or_none() -> None:
    claims = check(good(sub=...), Policy(issuer=GOOD["iss"], audience="api", required=()))
    assert claims.subject == ""
    assert claims.scopes == frozenset()
    nothing = (claims.session_id, claims.client_id, claims.token_id, claims.not_before, claims.auth_time)
    assert nothing == (None,) * 5
    assert (claims.authentication_context, claims.methods) == (None, ())
    assert check(good(iat=...), Policy(issuer=GOOD["iss"], audience="api", required=())).issued_at is None


def test_any_claim_is_had_by_name() -> None:
    claims = check(FULL)
    assert claims["roles"] == ["a", {"b": ["c"]}]
    assert claims.get("roles") == claims["roles"]
    assert claims.get("none") is None
    assert claims.get("none", 5) == 5
    assert "roles" in claims
    assert "none" not in claims
    assert set(claims) == set(FULL)
    assert len(claims) == len(FULL)
    with pytest.raises(KeyError):
        claims["none"]


def test_claims_cannot_be_changed() -> None:
    claims = check(FULL)
    for name in ("subject", "scopes", "anything"):
        with pytest.raises(AttributeError):
            setattr(claims, name, "x")
    claims["roles"][1]["b"].append("admin")
    claims["amr"].append("hwk")
    claims.get("roles").append("admin")
    claims.to_dict()["roles"].append("admin")
    assert claims["roles"] == ["a", {"b": ["c"]}]
    assert claims.methods == ("pwd", "otp", "mfa")
    assert claims.to_dict() == FULL


def test_scopes_are_had_all_or_not() -> None:
    claims = check(FULL)
    assert claims.has_scopes()
    assert claims.has_scopes("orders:read")
    assert claims.has_scopes("orders:read", "orders:write")
    assert not claims.has_scopes("orders:read", "admin")
    assert not claims.has_scopes("orders")
    assert not claims.has_scopes("orders:read orders:write")
    assert not check(GOOD).has_scopes("orders:read")


def test_the_repr_of_claims_tells_names_and_no_own_claims() -> None:
    text = repr(check(good(jti="token", own="sesame")))
    assert "somebody" in text
    assert "token" in text
    assert "sesame" not in text


# Own types


class Tenant(msgspec.Struct):
    tenant: str
    seats: int


@pytest.fixture
def verify(keys: dict[str, Key]) -> Callable[[dict[str, Json]], Claims]:
    policy = Policy(issuer=GOOD["iss"], audience="api", claims_type=Tenant)
    return lambda claims: verify_token(issue_token(claims, keys["ES256"]), keys["ES256"], policy, NOW)


def test_claims_are_given_in_the_type_that_a_policy_names(verify: Callable[[dict[str, Json]], Claims]) -> None:
    claims = verify(good(tenant="t", seats=3))
    assert claims.custom == Tenant("t", 3)
    assert claims.subject == "somebody"


@pytest.mark.parametrize(
    "wrong", [{}, {"tenant": 5, "seats": 3}, {"tenant": "t", "seats": "3"}, {"tenant": "t", "seats": True}]
)
def test_claims_that_are_not_of_that_type_are_refused(
    verify: Callable[[dict[str, Json]], Claims], wrong: dict[str, Json]
) -> None:
    with pytest.raises(ClaimRefused):
        verify(good(**wrong))


# Properties

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.integers(NOW - 400, NOW + 4000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(REGISTERED)), VALUES | st.just("api") | st.just(GOOD["iss"])))
def test_whatever_the_claims_only_those_that_a_slow_and_simple_check_takes_are_taken(changes: dict[str, Json]) -> None:
    claims = GOOD | changes

    def is_time(value: Json) -> bool:
        return type(value) in (int, float) and 0 <= value < 2**53

    texts_fit = all(
        isinstance(claims.get(name, ""), str)
        for name in REGISTERED
        if name not in ("aud", "exp", "iat", "nbf", "auth_time", "amr")
    )
    methods = claims.get("amr", [])
    methods_fit = isinstance(methods, list) and all(isinstance(each, str) for each in methods)
    times_fit = all(is_time(claims.get(name, 0)) for name in ("exp", "iat", "nbf", "auth_time"))
    audience = claims["aud"]
    expected = (
        texts_fit
        and times_fit
        and methods_fit
        and (
            audience == "api"
            or (isinstance(audience, list) and "api" in audience and all(isinstance(each, str) for each in audience))
        )
        and claims["iss"] == GOOD["iss"]
        and claims["sub"] != ""
        and int(claims["exp"]) + 5 > NOW
        and claims.get("nbf", 0) <= NOW + 5
        and claims["iat"] <= NOW + 5
        and int(claims["exp"]) - claims["iat"] <= 3600
    )
    try:
        check(claims)
    except (ClaimRefused, TokenExpired, TokenNotYetValid):
        assert not expected
    else:
        assert expected
        assert json.dumps(claims)


def test_registered_claims_are_read_by_name_only() -> None:
    registered = read_registered({"exp": 5, "EXP": "x", "Sub": 5, "unknown": None})
    assert registered.exp == 5
    rfc_7519, rfc_9068 = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, {"client_id", "scope", "auth_time"}
    assert rfc_7519 | rfc_9068 | {"acr", "amr", "sid"} == REGISTERED


# The short way for usual payloads

USUAL = json.dumps(GOOD | {"jti": "t", "nbf": NOW}, separators=(",", ":"))


def read(text: str, policy: Policy = POLICY, now: int = NOW) -> Claims | None:
    """What the short way says; whatever it takes, the long way must take as well, and say the same of it."""
    usual = policy.read_usual(text.encode(), now)
    if usual is not None:
        members = parse_json_object(text.encode())
        full = Claims(members, check_claims(members, policy, now))
        assert usual.to_dict() == full.to_dict() == members
        names = [name for name, member in vars(Claims).items() if isinstance(member, property) and name[0] != "_"]
        assert len(names) >= 10
        for name in names:
            assert getattr(usual, name) == getattr(full, name)
    return usual


def test_a_usual_payload_goes_the_short_way() -> None:
    assert read(USUAL) is not None
    for more in ({"scope": "a b"}, {"aud": ["other", "api"]}, {"sub": "\u00e9\u2028\x7f"}, {"auth_time": 0}):
        assert read(json.dumps(GOOD | more, separators=(",", ":"), ensure_ascii=False)) is not None
    for required in ((), RFC_9068):
        policy = Policy(issuer=GOOD["iss"], audience="api", required=required)
        assert read(USUAL[:-1] + ',"client_id":"web"}', policy) is not None


def test_what_is_not_usual_goes_the_long_way() -> None:
    for text in (
        json.dumps(GOOD),
        USUAL + " ",
        USUAL[:-1] + ',"own":1}',
        USUAL[:-1] + ',"own":[[{}]]}',
        USUAL[:-1] + ',"scope":"a\\u0062"}',
        USUAL[:-1] + ',"scope":"a\\nb"}',
        USUAL.replace(str(NOW + 300), f"{NOW + 300}.5"),
        USUAL.replace(str(NOW + 300), "175000030e1"),
        USUAL.replace('"exp"', '"end"'),
        "[" * 5000,
        "{}",
        "5",
        "",
        "\ufeff" + USUAL,
    ):
        assert read(text) is None
    assert POLICY.read_usual(USUAL.encode("utf-16"), NOW) is None
    assert POLICY.read_usual(USUAL.encode().replace(b"somebody", b"some\xffdy"), NOW) is None


@pytest.mark.parametrize("more", ['"iss":"x"', '"exp":5', '"nbf":0', '"sub":""', '"aud":["x"]', '"jti":""'])
def test_no_payload_with_a_claim_twice_goes_the_short_way_whatever_makes_up_for_its_length(more: str) -> None:
    name = more.partition(":")[0]
    fractions = {f'"{time}":{NOW}': f'"{time}":{str(NOW).rstrip("0")}e7' for time in ("iat", "nbf")}
    for spelling in (
        {},
        fractions,
        {'"somebody"': '"' + "\\b\\f\\/" * 20 + '"'},
        {'"somebody"': '"' + "\\u0000\\u001f" * 20 + '"'},
        {'"somebody"': '"' + "\x7f\u2028\u00e9" * 20 + '"'},
        {'"iat":' + str(NOW): '"iat":-0'},
    ):
        text = USUAL
        for old, new in spelling.items():
            text = text.replace(old, new)
        for doubled in (f"{{{more},{text[1:]}", f"{text[:-1]},{more}}}", f"{{{more},{more},{text[1:]}"):
            assert doubled.count(name) > 1
            assert POLICY.read_usual(doubled.encode(), NOW) is None
            with pytest.raises(JsonRefused):
                parse_json_object(doubled.encode())


@pytest.mark.parametrize(
    "faulty",
    [
        {"exp": NOW - 5},
        {"nbf": NOW + 6},
        {"iat": NOW + 6},
        {"iat": ...},
        {"exp": NOW + 3601},
        {"iss": "x"},
        {"iss": ...},
        {"aud": "x"},
        {"aud": ["x"]},
        {"aud": ...},
        {"sub": ""},
        {"sub": ...},
        {"sub": 5},
        {"exp": 2**53},
        {"exp": -1},
        {"iat": -1},
        {"nbf": None},
    ],
    ids=str,
)
def test_what_is_refused_is_never_taken_on_the_short_way(faulty: dict[str, Json]) -> None:
    assert read(json.dumps(good(**faulty), separators=(",", ":"))) is None


@pytest.mark.parametrize(
    "demanding",
    [
        {"required": ("sub", "own")},
        {"required": ("__class__",)},
        {"required": ("__struct_fields__",)},
        {"forbidden": ("jti",)},
        {"claim_values": {"jti": "other"}},
        {"audience_claim": "client_id"},
        {"scope_claim": "scp"},
        {"claims_type": Tenant},
        {"max_lifetime_s": 299},
    ],
    ids=str,
)
def test_what_a_policy_demands_besides_is_checked_on_the_long_way(demanding: dict[str, Json]) -> None:
    assert read(USUAL, Policy(issuer=GOOD["iss"], audience="api", **demanding)) is None


@given(
    st.dictionaries(st.sampled_from(sorted(REGISTERED)), VALUES | st.just("api") | st.just(NOW), max_size=4),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
    st.integers(NOW - 400, NOW + 400),
)
def test_the_short_way_takes_nothing_that_the_long_way_refuses(
    changes: dict[str, Json], separators: tuple[str, str], escaped: bool, now: int
) -> None:
    text = json.dumps(GOOD | changes, separators=separators, ensure_ascii=escaped)
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    read(text, now=now)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "auth_time"])
def test_a_time_that_is_none_is_called_so(claim: str) -> None:
    with pytest.raises(ClaimRefused, match=f"The claim '{claim}' is not a time"):
        read_registered(good(**{claim: "soon"}))


def test_an_audience_that_is_neither_text_nor_texts_is_called_so_and_anything_else_no_text() -> None:
    with pytest.raises(ClaimRefused, match="'aud' is not text or a list of texts"):
        read_registered(good(aud=5))
    with pytest.raises(ClaimRefused, match="'sub' is not text"):
        read_registered(good(sub=5))


def test_an_own_claim_that_is_required_is_there_afterwards(keys: dict[str, Key]) -> None:
    policy = Policy(issuer=GOOD["iss"], audience="api", required=("sub", "iat", "tenant"))
    token = issue_token(good(tenant="acme"), keys["ES256"])
    assert verify_token(token, keys["ES256"].public, policy, NOW)["tenant"] == "acme"
    with pytest.raises(ClaimRefused):
        verify_token(issue_token(good(), keys["ES256"]), keys["ES256"].public, policy, NOW)


def test_a_token_without_aud_has_no_audience() -> None:
    policy = Policy(issuer=GOOD["iss"], audience="web", audience_claim="client_id")
    assert check(good(aud=..., client_id="web"), policy).audience == ()
