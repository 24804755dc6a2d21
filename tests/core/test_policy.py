"""Policies for issuers that are not jotgate: header types, audiences elsewhere, claims that tell tokens apart."""

from __future__ import annotations

import doctest
from typing import Any, Protocol, TypeAlias

import msgspec
import pytest

import jotgate.core.claims
from jotgate import ClaimRefused, Claims, Policy, SettingsError, TokenError, generate_key, issue_token, verify_token
from jotgate.core.claims import check_claims
from jotgate.core.presets import ABSENT

Json: TypeAlias = Any


class Forge(Protocol):
    """What tests/core/conftest.py makes tokens with."""

    now: int
    keys: dict[str, Json]
    claims: dict[str, Json]

    def token(self, algorithm: str = "ES256", **changes: Json) -> str: ...

    def header(self, algorithm: str = "ES256", **members: Json) -> dict[str, Json]: ...


def policy(**settings: Json) -> Policy:
    return Policy(**{"issuer": "https://auth.example.com", "audience": "api", **settings})


def verify(forge: Forge, token: str, demanded: Policy) -> Claims:
    return verify_token(token, forge.keys["ES256"].public, demanded, forge.now)


def refusal(forge: Forge, token: str, demanded: Policy) -> str:
    """The name of the claim (or header member) for which the token is refused."""
    with pytest.raises(ClaimRefused) as refused:
        verify(forge, token, demanded)
    return refused.value.claim


# The header's type

TYPES: list[Json] = ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", "application/jwt", "logout+jwt", "", ...]


def taken(forge: Forge, demanded: Policy) -> set[Json]:
    """Those of TYPES whose tokens are taken."""
    found = set()
    for typ in TYPES:
        token = forge.token(header=forge.header(typ=typ))
        try:
            verify(forge, token, demanded)
        except ClaimRefused:
            continue
        found.add(typ)
    return found


ACCESS = {"at+jwt", "AT+JWT", "application/at+jwt"}
PLAIN = {"JWT", "jwt", "application/jwt"}


@pytest.mark.parametrize(
    ("typ", "expected"),
    [
        ("at+jwt", ACCESS),
        (["at+jwt"], ACCESS),
        ({"at+jwt", "JWT"}, ACCESS | PLAIN),
        (("JWT", "application/at+jwt"), ACCESS | PLAIN),
        (ABSENT, {...}),
        ({ABSENT}, {...}),
        ({"JWT", ABSENT}, PLAIN | {...}),
    ],
)
def test_a_policy_takes_the_types_that_it_lists_and_no_other(forge: Forge, typ: Json, expected: set[Json]) -> None:
    assert taken(forge, policy(typ=typ)) == expected


def test_the_absence_of_a_type_is_said_by_a_name_that_no_header_can_spell(forge: Forge) -> None:
    token = forge.token(header=forge.header(typ="absent"))
    assert refusal(forge, token, policy(typ={"JWT", ABSENT})) == "typ"
    assert repr(ABSENT) == "ABSENT"


# Issuer and audience


def test_other_spellings_of_an_issuer_are_taken_exactly(forge: Forge) -> None:
    demanded = policy(issuer_aliases=["auth.example.com"])
    for issuer in ("https://auth.example.com", "auth.example.com"):
        assert verify(forge, forge.token(iss=issuer), demanded).issuer == issuer
    wrong: list[Json] = ["auth.example.co", "https://auth.example.com/", "", ...]
    for issuer in wrong:
        assert refusal(forge, forge.token(iss=issuer), demanded) == "iss"


def test_a_service_may_go_by_several_names(forge: Forge) -> None:
    demanded = policy(audience_aliases=("https://api.example.com",))
    good: list[Json] = ["api", "https://api.example.com", ["other", "https://api.example.com"], ["other", "api"]]
    for audience in good:
        assert verify(forge, forge.token(aud=audience), demanded)
    wrong: list[Json] = ["ap", "https://api.example.com/", ["other"], ..., [["api"]]]
    for audience in wrong:
        assert refusal(forge, forge.token(aud=audience), demanded) == "aud"


def test_an_audience_may_bind_to_a_named_claim(forge: Forge) -> None:
    demanded = policy(audience="my-client", audience_claim="azp")
    assert verify(forge, forge.token(azp="my-client"), demanded)
    wrong: list[Json] = [..., "my-clien", "my-client ", "", None, 5, ["my-client"], {"my-client": 1}]
    for value in wrong:
        assert refusal(forge, forge.token(azp=value, aud="my-client"), demanded) == "azp"


# Other claims


def test_claims_that_are_forbidden_may_not_be_there_in_any_form(forge: Forge) -> None:
    demanded = policy(forbidden=["nonce"])
    assert verify(forge, forge.token(), demanded)
    values: list[Json] = ["x", "", None, False, []]
    for value in values:
        assert refusal(forge, forge.token(nonce=value), demanded) == "nonce"


def test_claims_must_have_one_of_the_values_that_a_policy_names(forge: Forge) -> None:
    demanded = policy(claim_values={"token_use": "access", "tier": ["gold", "silver"]})
    assert verify(forge, forge.token(token_use="access", tier="silver"), demanded)
    wrong: list[Json] = [..., "id", "acces", "Access", "", None, 1, True, ["access"], {"access": 1}]
    for value in wrong:
        assert refusal(forge, forge.token(token_use=value, tier="gold"), demanded) == "token_use"
    assert refusal(forge, forge.token(token_use="access", tier="tin"), demanded) == "tier"


def test_a_policy_may_demand_a_claim_as_text_whatever_it_says(forge: Forge) -> None:
    demanded = policy(claim_values={"azp": str, "tier": "gold"})
    for text in ("x", "another", "0"):
        assert verify(forge, forge.token(azp=text, tier="gold"), demanded)
    nothing: list[Json] = [..., "", None, [], {}, ["x"], {"x": 1}, 1, True]
    for value in nothing:
        assert refusal(forge, forge.token(azp=value, tier="gold"), demanded) == "azp"
    assert refusal(forge, forge.token(azp="x", tier="tin"), demanded) == "tier"


def test_a_refusal_of_a_value_does_not_repeat_it(forge: Forge) -> None:
    with pytest.raises(ClaimRefused) as refused:
        verify(forge, forge.token(token_use="sesame"), policy(claim_values={"token_use": "access"}))
    assert "sesame" not in str(refused.value)


def test_scopes_are_read_from_the_claim_that_a_policy_names(forge: Forge) -> None:
    demanded = policy(scope_claim="scp")
    assert verify(forge, forge.token(scp="a b", scope="admin"), demanded).scopes == {"a", "b"}
    assert verify(forge, forge.token(scope="admin"), demanded).scopes == frozenset()
    wrong: list[Json] = [None, 5, ["a", "b"]]
    for value in wrong:
        assert refusal(forge, forge.token(scp=value), demanded) == "scp"


# Policies themselves


@pytest.mark.parametrize(
    "faulty",
    [
        {"typ": []},
        {"typ": ["at+jwt", ""]},
        {"typ": [None]},
        {"typ": 5},
        {"issuer_aliases": "auth"},
        {"issuer_aliases": [""]},
        {"issuer_aliases": [5]},
        {"issuer_aliases": None},
        {"audience_aliases": [""]},
        {"audience_claim": ""},
        {"audience_claim": None},
        {"forbidden": "nonce"},
        {"forbidden": [5]},
        {"scope_claim": ""},
        {"claim_values": "token_use"},
        {"claim_values": ["token_use"]},
        {"claim_values": None},
        {"claim_values": {"token_use": []}},
        {"claim_values": {"token_use": ""}},
        {"claim_values": {"token_use": None}},
        {"claim_values": {"token_use": int}},
        {"claim_values": {"": str}},
        {"claim_values": {"token_use": [5]}},
        {"claim_values": {"token_use": ["access", ""]}},
        {"claim_values": {"": "access"}},
        {"claim_values": {5: "access"}},
    ],
    ids=str,
)
def test_a_policy_with_a_fault_is_not_made(faulty: dict[str, Json]) -> None:
    with pytest.raises(SettingsError) as error:
        policy(**faulty)
    assert len(error.value.faults) == 1
    assert error.value.faults[0].startswith(next(iter(faulty)))


def test_a_policy_cannot_be_changed_from_outside_and_can_be_compared_and_hashed() -> None:
    values = ["gold"]
    claim_values: dict[str, Json] = {"tier": values}
    made = policy(typ=["JWT", ABSENT], claim_values=claim_values, forbidden=["nonce"])
    values.append("tin")
    claim_values["other"] = "x"
    same = policy(typ={ABSENT, "jwt"}, claim_values={"tier": "gold"}, forbidden=("nonce",))
    assert made == same
    assert hash(made) == hash(same)
    with pytest.raises(AttributeError):
        made.typ = ABSENT  # type: ignore[misc]


def test_a_policy_is_made_from_another_with_all_that_it_demands() -> None:
    values: dict[str, Json] = {"tier": ["gold", "tin"], "azp": str}
    first = policy(typ=["JWT", ABSENT], claim_values=values, audience_aliases=["b"], forbidden=["c"])
    second = msgspec.structs.replace(first, leeway_s=0)
    assert second != first
    assert msgspec.structs.replace(second, leeway_s=5) == first


# Own types


class Plan(msgspec.Struct):
    tier: str


def test_claims_are_read_into_a_type_once_more_and_out_of_it(forge: Forge) -> None:
    claims = verify(forge, forge.token(tier="gold", tags=["a"]), policy())
    assert claims.custom is None
    typed = claims.as_type(Plan)
    assert typed.custom == Plan("gold")
    assert typed.to_dict() == claims.to_dict()
    assert typed.expires_at == claims.expires_at
    assert typed.as_type(None).custom is None
    with pytest.raises(ClaimRefused) as refused:
        verify(forge, forge.token(), policy()).as_type(Plan)
    assert refused.value.claim == "tier"


class Own(msgspec.Struct, rename={"site": "https://shop.example/site"}):
    tenant: str
    seats: int
    plan: Plan | None = None
    site: str = ""


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str

    def __post_init__(self) -> None:
        if self.tenant == "nobody":
            raise ValueError(self.tenant)


class Ordered(msgspec.Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"{self.low} is over {self.high}")


GOOD: dict[str, Json] = {"tenant": "acme", "seats": 3}


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [
        ({"tenant": ...}, "tenant"),
        ({"seats": "sesame"}, "seats"),
        ({"seats": 3.5}, "seats"),
        ({"seats": True}, "seats"),
        ({"plan": "sesame"}, "plan"),
        ({"plan": {}}, "plan"),
        ({"plan": {"tier": ["sesame"]}}, "plan"),
        ({"https://shop.example/site": 5}, "https://shop.example/site"),
    ],
    ids=str,
)
def test_own_claims_of_another_type_are_refused_by_name_and_not_by_value(
    forge: Forge, wrong: dict[str, Json], claim: str
) -> None:
    token = forge.token(**{**GOOD, **wrong})
    assert refusal(forge, token, policy(claims_type=Own)) == claim
    with pytest.raises(TokenError) as refused:
        verify(forge, token, policy(claims_type=Own))
    assert claim in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_own_claims_come_back_in_their_type(forge: Forge) -> None:
    token = forge.token(**GOOD, plan={"tier": "gold"}, **{"https://shop.example/site": "x"}, more=1)
    assert verify(forge, token, policy(claims_type=Own)).custom == Own("acme", 3, Plan("gold"), "x")


def test_a_closed_type_refuses_own_claims_that_it_does_not_know_and_no_registered_one(forge: Forge) -> None:
    demanded = policy(claims_type=Closed)
    assert verify(forge, forge.token(tenant="acme"), demanded).custom == Closed("acme")
    assert refusal(forge, forge.token(tenant="acme", admin=True), demanded) == "admin"
    assert refusal(forge, forge.token(tenant=5, admin=True), demanded) == "tenant"
    assert refusal(forge, forge.token(tenant="nobody"), demanded) == ""


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("tag_field", ["client_id", "kind"])
def test_a_types_tag_is_demanded_of_the_claim_that_holds_it(forge: Forge, tag_field: str, closed: bool) -> None:
    tagged = msgspec.defstruct(
        "Tagged", [("tenant", str)], tag_field=tag_field, tag="gold", forbid_unknown_fields=closed
    )
    demanded = policy(claims_type=tagged)
    own: dict[str, Json]
    for own in ({tag_field: "gold"}, {tag_field: ...}):
        assert verify(forge, forge.token(tenant="acme", **own), demanded).custom == tagged("acme")
    for own in ({tag_field: "silver"}, {tag_field: "silver", "more": 1}):
        assert refusal(forge, forge.token(tenant="acme", **own), demanded) == tag_field
    if closed:
        own = {tag_field: "gold", "more": 1}
        assert refusal(forge, forge.token(tenant="acme", **own), demanded) == "more"


def test_what_a_types_own_check_refuses_is_refused_without_its_words(forge: Forge) -> None:
    demanded = policy(claims_type=Ordered)
    assert verify(forge, forge.token(low=1, high=2), demanded).custom == Ordered(1, 2)
    with pytest.raises(ClaimRefused) as refused:
        verify(forge, forge.token(low=771, high=2), demanded)
    assert refused.value.claim == ""
    assert "771" not in str(refused.value)


def test_a_type_that_cannot_be_read_is_refused_at_once() -> None:
    bad = msgspec.defstruct("Bad", [("both", "int | list[int] | set[int]")])
    for claims_type in (bad, msgspec.defstruct("Worse", [("x", "NoSuchName")])):
        with pytest.raises(SettingsError, match="claims_type"):
            policy(claims_type=claims_type)
    policy(claims_type=msgspec.defstruct("Fine", [("x", int, 5)]))


def test_the_example_in_the_documentation_works() -> None:
    result = doctest.testmod(jotgate.core.claims)
    assert result.attempted > 5
    assert result.failed == 0


def test_a_plain_policy_checks_no_more_than_it_did(forge: Forge) -> None:
    members = dict(forge.claims)
    check_claims(members, policy(), forge.now)
    assert members == forge.claims


class _Hashed(msgspec.Struct):
    roles: set[Any]


class _Picky(msgspec.Struct):
    tier: str

    def __post_init__(self) -> None:
        if self.tier == "broken":
            raise KeyError(self.tier)


@pytest.mark.parametrize(("kind", "own"), [(_Hashed, {"roles": [["admin"]]}), (_Picky, {"tier": "broken"})])
def test_whatever_an_own_type_raises_is_a_refused_claim(kind: type[msgspec.Struct], own: dict[str, object]) -> None:
    policy = Policy(issuer="https://i.example", audience="api", claims_type=kind)
    key = generate_key("Ed25519")
    claims = {"iss": "https://i.example", "sub": "ada", "aud": "api", "iat": 1_000, "exp": 1_300} | own
    with pytest.raises(ClaimRefused) as caught:
        verify_token(issue_token(claims, key), key.public, policy, 1_001)
    assert "broken" not in str(caught.value)


def test_an_own_type_that_raises_without_claims_is_a_fault_of_the_policy() -> None:
    class Raises(msgspec.Struct):
        def __post_init__(self) -> None:
            raise KeyError("nothing")

    with pytest.raises(SettingsError, match="claims_type"):
        Policy(issuer="https://i.example", audience="api", claims_type=Raises)


@pytest.mark.parametrize("values", [("a",), (1,), (("a", "b", "c"),), "a", 1, [("a", "b")]])
def test_claim_values_of_another_shape_are_a_fault(values: Json) -> None:
    with pytest.raises(SettingsError, match="claim_values"):
        policy(claim_values=values)


def test_lists_become_tuples_so_that_nobody_can_change_a_policy_afterwards() -> None:
    names = ["a", "b"]
    for setting in ("required", "forbidden", "issuer_aliases", "audience_aliases"):
        assert getattr(policy(**{setting: names}), setting) == ("a", "b")
    assert policy(algorithms=["ES256"]).algorithms == ("ES256",)


def test_the_shortest_lifetime_is_a_second() -> None:
    assert policy(max_lifetime_s=1).max_lifetime_s == 1
    with pytest.raises(SettingsError, match="max_lifetime_s"):
        policy(max_lifetime_s=0)


def test_policies_are_equal_whose_types_and_values_are() -> None:
    assert policy(typ=["JWT"]) == policy(typ="application/jwt")
    assert policy(typ=["JWT"]).typ == "jwt"
    assert policy(claim_values={"azp": ["a", "b"]}) == policy(claim_values={"azp": ["b", "a", "a"]})
