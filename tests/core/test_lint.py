"""What the issuing side refuses and warns of, because whoever holds a token can read it, and what it leaves alone."""

from __future__ import annotations

import base64
import json
import string
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from jotgate import ClaimRefused, Issuer, Key, Policy, SettingsError, generate_key, issue_token, verify_token
from jotgate.core.claims import REGISTERED
from jotgate.core.encoding import encode_json_object
from jotgate.core.lint import ClaimsWarning, LintRules, lint_claims
from jotgate.core.sensitive import find_sensitive

Json: TypeAlias = Any
NOW = 1_750_000_000
GOOD: dict[str, Json] = {"iss": "https://auth.example.com", "sub": "ada", "aud": "api", "exp": NOW + 300, "iat": NOW}
KEY = generate_key("ES256")
STRICT = LintRules(card_numbers="refuse", ibans="refuse", email_addresses="refuse", phone_numbers="refuse")
LENIENT = LintRules(card_numbers="allow", ibans="allow", email_addresses="allow", phone_numbers="allow")


def listed(names: str) -> list[str]:
    return names.split()


def refusal(own: dict[str, Json], rules: LintRules = LENIENT) -> ClaimRefused:
    with pytest.raises(ClaimRefused) as refused:
        issue_token(GOOD | own, KEY, lint=rules)
    return refused.value


def found(own: dict[str, Json]) -> list[tuple[str, str]]:
    """Kinds and claims of all that is found."""
    return [(finding.kind, finding.claim) for finding in find_sensitive(own, (), ())]


# Names


@pytest.mark.parametrize(
    "name",
    listed(
        """
    password Password PASSWORD passwd pwd passphrase passcode user_password userPassword userpassword dbPassword
    password_hash passwordHash hashedPassword old-password password2 my.password https://a.example/password
    a:b:password secret secrets client_secret clientSecret shared_secret secretKey
    ssn SSN user_ssn ssn_last4 socialSecurityNumber social_security socialsecurity national_insurance_number
    card cards credit_card creditCard creditcard card_number cardNumber cardnumber card_no cc_number ccn pan debitCard
    cvv CVV2 cvc card_cvc iban IBAN userIban ibanNumber bban bank_account bankAccountNumber
    private_key privateKey api_key apiKey apikey access_token accessToken refresh_token id_token passwort
    pass_word passWord pass_phrase card_pan cardPan pan_number panNumber pin PIN
    https://a.example/password/v1 https://a.example/x/cardNumber/v1/y
    """
    ),
)
def test_claims_are_refused_by_name_however_it_is_written(name: str) -> None:
    values: list[Json] = ["x", 5, None, [], {}]
    for value in values:
        refused = refusal({name: value})
        assert refused.claim == name
        assert "name" in str(refused)


@pytest.mark.parametrize(
    "name",
    listed(
        """
    password_changed_at passwordChangedAt pwd_exp has_password hasPassword must_change_password_at password_policy
    passwordless secretary secret_id access_token_ttl access_token_expires_in api_key_id private_key_id card_type
    card_brand credit_card_brand scorecard discard cardinality cardiology company pancake panel tokens token_use tier
    keyboard monkey public_key bypass compass assessment passenger surpass tenant roles groups plan cnf locale
    given_name preferred_username wort social_links insurance bank token key cvs descvv
    password_in ping pinned opinion span_number company_name pass_number a/password/v1
    https://password.example/v1 https://a.example/password/changed_at https://a.example/card/brand
    """
    ),
)
def test_names_that_only_sound_alike_are_not_refused(name: str) -> None:
    assert issue_token(GOOD | {name: "x"}, KEY)


def test_names_are_judged_at_every_depth() -> None:
    assert refusal({"profile": {"auth": [{"x": 1}, {"password": "x"}]}}).claim == "profile.auth[1].password"


def test_names_may_be_added_and_allowed_in_any_spelling() -> None:
    rules = LintRules(refused_names=("base-salary", "Grade"), allowed_names=("secretSanta", "card"))
    for name in ("base_salary", "baseSalary", "BASE_SALARY", "grade", "https://a.example/grade"):
        assert refusal({name: 5}, rules).claim == name
    for name in ("salary", "upgrade", "base", "secret_santa", "secretSanta", "Card"):
        assert issue_token(GOOD | {name: 5}, KEY, lint=rules)
    for name in ("secret", "cards", "credit_card", "https://a.example/grade/v1", "https://a.example/secret/card_no"):
        assert refusal({name: 5}, rules).claim == name
    for name in ("https://a.example/card/v1", "https://a.example/password/card", "https://a.example/upgrade/v1"):
        assert issue_token(GOOD | {name: 5}, KEY, lint=rules)


# Secrets by value


def openssh() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def unarmoured(key: Key) -> str:
    return "".join(key.to_pem().splitlines()[1:-1])


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


TOKEN = issue_token(GOOD, KEY)
PRIVATE_JWK = KEY.to_private_jwk()
SECRETS: dict[str, list[Json]] = {
    "a private key": [
        KEY.to_pem(),
        f"here it is:\n{KEY.to_pem()}",
        KEY.to_pem().replace("\n", "\\n"),
        KEY.to_private_jwk(),
        {"keys": [KEY.to_jwk(), KEY.to_private_jwk()]},
        generate_key("HS256").to_private_jwk(),
        json.dumps(KEY.to_private_jwk()),
        json.dumps(generate_key("HS256").to_private_jwk(), indent=2),
        json.dumps(json.dumps(KEY.to_private_jwk())),
        {"crv": PRIVATE_JWK["crv"], "d": PRIVATE_JWK["d"]},
        {"n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWh", "e": "AQAB", "d": "X4cTteJY_gn4FYPsXB8rdXix5vwsg1FL"},
        *(in_base64("-" * longer + KEY.to_pem()) for longer in range(3)),
        *(in_base64(f"{before}-----BEGIN RSA PRIVATE KEY-----") for before in ("", "x", "xx")),
        unarmoured(KEY),
        f"key: {unarmoured(generate_key('Ed25519'))}",
        unarmoured(generate_key("RS256")),
        "MFMCAQEwBQYDK2VwBCIEIJ1hsZ3v_VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "PuTTY-User-Key-File-3: ssh-ed25519",
        "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZ",
    ],
    "a token": [
        TOKEN,
        f"Bearer {TOKEN}",
        f"https://app.example/callback#token={TOKEN}&x=1",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.",
        base64.urlsafe_b64encode(b'{\n "alg": "HS256"}').decode().rstrip("=") + ".e30.c2ln",
        "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOa.48V1.5eym.XFBo",
        f"token_{TOKEN}",
        f"a-{TOKEN}",
        f"id_token-x{TOKEN}",
        f"host.of-many-words.{TOKEN}",
        base64.urlsafe_b64encode(b' {"typ":"x","alg" : "HS256"}').decode().rstrip("=") + ".e30.c2ln",
        "jgr_" + "Ab1-_" * 16,
        f"token: jgr_{'A' * 80}",
    ],
    "a password hash": [
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
        "$argon2i$v=19$m=16,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub",
        "$2b$12$LQv3c1yqBWVHxkd0LHAkCOYz6TtxMQJqhN8/LewdBPj4J/HS.iK8i",
        "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        "$6$rounds=5000$saltsalt$abcdefghijklmnopqrstuvwxyz",
        "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8",
        "$1$O3JMY.Tw$AdLnLjQ/5jXF9.MTp3gHv/",
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        "$pbkdf2-sha256$6400$0ZrzXitFSGltTQnBWOsdYw$Y11AchqV4b0sUisdZd0Xr97KWoymNE0LNNrnEgY4H9M",
        "pbkdf2_sha256$260000$abcdefgh$0123456789abcdefghij",
        "scrypt:32768:8:1$3XPvGtrxGmJ9xWzC$0123456789abcdef0123456789abcdef",
        "pbkdf2:sha256:600000$3XPvGtrxGmJ9xWzC$0123456789abcdef0123456789abcdef",
        "h$2b$12$LQv3c1yqBWVHxkd0LHAkCOYz6TtxMQJqhN8/LewdBPj4J/HS.iK8i",
        "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3",
        "hash=$2y$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
    ],
}


@pytest.mark.parametrize(("what", "value"), [(what, value) for what, values in SECRETS.items() for value in values])
def test_secrets_are_refused_wherever_they_are_and_never_repeated(what: str, value: Json) -> None:
    for own in ({"data": value}, {"data": {"inner": [1, value]}}, {"user_id": value}):
        refused = refusal(own)
        assert what in str(refused)
        assert refused.claim.startswith(next(iter(own)))
        text = value if isinstance(value, str) else json.dumps(value)
        assert not any(part in str(refused) for part in (text[:12], text[-12:]))


def test_an_openssh_key_is_a_private_key() -> None:
    assert "a private key" in str(refusal({"data": openssh()}, LintRules(max_payload_bytes=8192)))


@pytest.mark.parametrize(
    "value",
    [
        KEY.to_jwk(),
        json.dumps(KEY.to_jwk()),
        KEY.public.to_pem(),
        in_base64(KEY.public.to_pem()),
        "".join(KEY.public.to_pem().splitlines()[1:-1]),
        "MIHXMIGHAgEAMBMxETAPBgNVBAMMCHRlc3QtY3NyMFkwEwYHKoZIzj0CAQYI",  # a request, in which a private key's start is
        "Keep your PRIVATE KEY to yourself.",
        "how to BEGIN with a PRIVATE KEY",
        {"k": "v", "d": "x"},
        {"n": 120, "p": 0.05},
        {"n": "x", "e": "AQAB"},
        "cache:of:words$and-some-more-words",
        "x$1$2-as-in-a-regular-expression",
        "1.2.3.4.5.6.7.8.9.10.11.12",
        "eyJmb28iOiJiYXIifQ.eyJhIjoxfQ.c2ln",
        "eyeballs-everywhere.example.com/x",
        "eyJhbGciOiJub25lI.e30.x",
        "jgr_short_name_of_a_thing",
        "prices: $1 and $2 and $5$ each, thank you",
        "a.b.c.d and so on and so forth",
        "{SHA is a name that nobody would take}",
        "https://example.com/a/b?c=$2&d=5",
        "acme",
        "",
        3.5,
        True,
        None,
        float("4111111111111112"),
        1e300,
    ],
)
def test_what_is_no_secret_is_issued_without_a_word(value: Json) -> None:
    assert issue_token(GOOD | {"data": value}, KEY)


# Personal data

PERSONAL: dict[str, list[Json]] = {
    "card_numbers": [
        "4111111111111111",
        4111111111111111,
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "paid with 4012888888881881, thanks",
        "378282246310005",
        378282246310005,
        "3782 822463 10005",
        "5555555555554444",
        "2223003122003222",
        "6011111111111117",
        "30569309025904",
        "3056 930902 5904",
        "3530111333300000",
        "6200000000000005",
        "6304000000000000",
        "2200770212727079",
        ["x", "4111111111111111"],
        4111111111111111.0,
        "4111\u00a01111\u00a01111\u00a01111",
        "4111\u202f1111\u202f1111\u202f1111",
        "4111.1111.1111.1111",
        "4111/1111/1111/1111",
        "4111111111111111,5555555555554444",
        "4111111111111112,5555555555554444",
        "ada,4111111111111111,12/27",
        "4111 1111 1111 1112 5555 5555 5555 4444",
        "1234 4111 1111 1111 1111",
    ],
    "ibans": [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89370400440532013000",
        "De89370400440532013000",
        "DE89-3704-0044-0532-0130-00",
        "de89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000",
        "gB29nwbk60161331926819",
        "IBAN: GB29 NWBK 6016 1331 9268 19.",
        "NO9386011117947",
        "NO93 8601 1117 947",
        "FR1420041010050500013M02606",
        "MT84MALT011000012345MTLCAST001S",
        "AB12 DE89370400440532013000",
    ],
    "email_addresses": [
        "ada@example.com",
        "Ada Lovelace <ada.lovelace+jwt@mail.example.co.uk>",
        "ada@xn--bcher-kva.example",
        "jörg@bücher.example",
        "a@b.co",
        "https://example.com/?to=ada@example.com",
        "https://user@example.com/x is of ada@example.com",
        ["x", {"y": "ada@example.com"}],
    ],
    "phone_numbers": [
        "+4930123456",
        "+49 30 123456",
        "+1 (555) 010-0123",
        "+44.20.7946.0958",
        "tel:+15550100123",
        "phone=+15550100123",
        "(555) 123-4567",
        "555-123-4567",
        "1-555-123-4567",
    ],
}
CASES = [(kind, value) for kind, values in PERSONAL.items() for value in values]


@pytest.mark.parametrize(("kind", "value"), CASES)
def test_personal_data_warns_unless_the_rules_refuse_or_allow_it(kind: str, value: Json) -> None:
    claims = GOOD | {"note": value}
    with pytest.warns(ClaimsWarning) as warned:
        issue_token(claims, KEY)
    assert len(warned) == 1
    warning = warned[0].message
    assert isinstance(warning, ClaimsWarning)
    assert warning.claim.startswith("note")
    assert repr(warning.claim) in str(warning)

    assert issue_token(claims, KEY, lint=LintRules(**{kind: "allow"}))  # type: ignore[arg-type]
    others: dict[str, Json] = dict.fromkeys(PERSONAL.keys() - {kind}, "allow")
    refused = refusal({"note": value}, LintRules(**others | {kind: "refuse"}))
    assert refused.claim == warning.claim
    for text in (value if isinstance(value, str) else "", "4111", "ada", "example", "5550"):
        assert not text or (text not in str(refused) and text not in str(warning))


@pytest.mark.parametrize(
    "value",
    [
        "4111111111111112",  # fails Luhn
        "1111111111111117",  # no issuer's prefix
        "41111111111111114",  # too long for its brand
        "411111111111111",
        "x4111111111111111",
        "4111111111111111x",
        "order-4111111111111111",
        "4111111111111111-7",
        "0.4111111111111111",
        "-4111111111111111",
        "4111111111111111.5",
        "4111 1111-1111 1111",
        -4111111111111111,
        "DE89370400440532013001",  # fails mod 97
        "DE8937040044053201300",
        "DE893704004405320130000",
        "DE89 37040044 0532 0130 00",
        "CH59AbCdEfGhJkMnPqRsT",  # has the check digits, and far too many letters
        "XX89370400440532013000",  # no country
        "DE89-3704-0044-0532 0130-00",
        "0,4111111111111111",
        "4111.1111/1111.1111",
        "https://user@example.com/x",
        "ssh://git@git.example.com:22/x.git",
        "DE89a70400440532013000",
        "XDE89370400440532013000",
        "@example.com",
        "ada@localhost",
        "ada@example",
        "ada @example.com",
        "pkg@1.2.3",
        "@scope/name",
        "a@b.c",
        "4930123456",
        "5551234567",
        "2024-01-15T10:30:00+01:00",
        "2024-01-15T10:30:00+0100",
        "1.0.0+20130313144700",
        "155-123-4567",
        "555-1234",
        "78-555-123-4567",
        "555-123-4567-89",
        "+0123456789",
        "+123456",
        "+1234567890123456789",
        "192.168.100.200",
        "978-3-16-148410-0",
        "12.34",
        "1,234.56",
    ],
)
def test_what_only_resembles_personal_data_passes(value: Json) -> None:
    assert issue_token(GOOD | {"note": value}, KEY, lint=STRICT)


@pytest.mark.parametrize(
    "name",
    listed(
        """
    id ids ID order_id orderId orderIds orderid user.id trace_id_2 uuid accountGuid ref payment_reference nonce sku
    ean isbn file_hash serial sub sid jti
    """
    ),
)
def test_the_digits_of_identifiers_mean_nothing(name: str) -> None:
    for value in ("4111111111111111", 4111111111111111, "DE89370400440532013000", "+4930123456", ["4111111111111111"]):
        assert issue_token(GOOD | {"order": {name: value}}, KEY, lint=STRICT)


def test_an_address_is_one_even_where_an_identifier_should_be() -> None:
    assert refusal({"user_id": "ada@example.com"}, STRICT).claim == "user_id"


@pytest.mark.parametrize("name", ["paid", "valid", "idea", "number", "hidden", "idle", "grid"])
def test_other_names_hide_nothing(name: str) -> None:
    assert found({name: 4111111111111111}) == [("card_numbers", name)]


def test_registered_claims_are_not_looked_at() -> None:
    values: dict[str, Json] = {"sub": "ada@example.com", "jti": "4111111111111111", "sid": "+4930123456"}
    claims = GOOD | values | {"scope": "password", "client_id": "DE89370400440532013000"}
    assert issue_token(claims, KEY, lint=STRICT)
    assert issue_token(claims | {"tenant": "acme"}, KEY, lint=STRICT)
    assert "client_id" in REGISTERED


def test_names_that_are_data_are_judged_and_not_repeated() -> None:
    for name in ("ada@example.com", "4111 1111 1111 1111", "+4930123456"):
        for own, claim in (({name: "admin"}, "*"), ({"members": {name: "admin"}}, "members.*")):
            refused = refusal(own, STRICT)
            assert refused.claim == claim
            assert name not in str(refused)
    assert refusal({"seen": {TOKEN: [{"password": 1}]}}).claim == "seen.*"
    assert refusal({"x" * 65: {"password": 1}}).claim == "*.password"
    assert refusal({"x" * 64: {"password": 1}}).claim == "x" * 64 + ".password"
    rules = LintRules(email_addresses="allow")
    assert refusal({"members": {"ada@example.com": {"password": 1}}}, rules).claim == "members.*.password"


DIGITS = st.text(alphabet=string.digits, min_size=1, max_size=13) | st.text(alphabet=string.digits, min_size=20)
ULID = st.text(alphabet="0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26)
NANOID = st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=21, max_size=21)
CROCKFORD_UUID = st.uuids().map(str) | st.uuids().map(lambda each: each.hex)
TIMES = st.integers(0, 4_000_000_000)
PRICES = st.decimals(0, 10**9, places=2).map(str) | st.floats(0, 1e12)
OPAQUE: st.SearchStrategy[Json] = (
    st.integers(10**17, 10**18 - 1)  # 18 digits
    | st.integers(10**17, 10**18 - 1).map(str)
    | st.integers(10**16, 10**17 - 1).map(str)
    | DIGITS
    | ULID
    | NANOID
    | CROCKFORD_UUID
    | TIMES
    | TIMES.map(lambda seconds: seconds * 1000)
    | st.datetimes().map(lambda each: each.isoformat())
    | PRICES
)


@settings(max_examples=800)
@given(OPAQUE, st.sampled_from(["order", "data", "x", "created", "price", "order_id"]))
def test_random_identifiers_times_and_prices_never_trip_the_lint(value: Json, name: str) -> None:
    assert found({name: value, "list": [value], "nested": {name: value}}) == []


@settings(max_examples=500)
@given(st.integers(10**13, 10**19))
def test_random_numbers_of_any_length_never_trip_it_as_identifiers(number: int) -> None:
    assert found({"id": number, "orderId": str(number), "refs": [number]}) == []


def luhn(digits: str) -> str:
    """The slow and simple form: every second digit from the right is doubled, and its digits are summed."""
    total = 0
    for position, digit in enumerate(reversed(digits + "0")):
        doubled = int(digit) * (1 + position % 2)
        total += doubled // 10 + doubled % 10
    return digits + str(-total % 10)


@given(st.text(alphabet=string.digits, min_size=14, max_size=14), st.integers(1, 9))
def test_every_visa_number_is_found_and_none_with_a_wrong_check_digit(middle: str, off: int) -> None:
    number = luhn("4" + middle)
    assert found({"note": number}) == [("card_numbers", "note")]
    assert found({"note": number[:-1] + str((int(number[-1]) + off) % 10)}) == []


@given(st.text(alphabet=string.digits, min_size=18, max_size=18), st.integers(1, 96))
def test_every_german_iban_is_found_and_none_with_wrong_check_digits(account: str, off: int) -> None:
    check = 98 - int(account + "131400") % 97
    assert found({"note": f"DE{check:02}{account}"}) == [("ibans", "note")]
    wrong = (check - 2 + off) % 97 + 2
    assert found({"note": f"DE{wrong:02}{account}"}) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=25), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=25), JSON, max_size=4))
def test_whatever_the_claims_the_lint_gives_findings_and_raises_nothing(own: dict[str, Json]) -> None:
    for finding in find_sensitive(own, ("x",), ("y",)):
        assert finding.claim in finding.message or repr(finding.claim) in finding.message


# Size and depth


def test_a_payload_over_the_limit_is_refused() -> None:
    room = 4096 - len(encode_json_object(GOOD | {"own": ""}))
    assert issue_token(GOOD | {"own": "x" * room}, KEY)
    refused = refusal({"own": "x" * (room + 1)})
    assert (refused.claim, "4096" in str(refused)) == ("", True)
    assert issue_token(GOOD | {"own": "x" * (room + 1)}, KEY, lint=LintRules(max_payload_bytes=4097))
    with pytest.raises(ClaimRefused):
        issue_token(GOOD | {"scope": "x" * 4096}, KEY)
    assert "16384" in str(refusal({"own": "x" * 12_500}, LintRules(max_payload_bytes=100_000)))


def nested(levels: int, wrap: Callable[[Json], Json], value: Json) -> Json:
    for _ in range(levels):
        value = wrap(value)
    return value


def test_nesting_is_followed_as_deep_as_a_token_may_nest_and_refused_beyond() -> None:
    for wrap in (lambda value: [value], lambda value: {"a": value}):
        assert found({"a": nested(30, wrap, "ada@example.com")})[0][0] == "email_addresses"
        assert "nests too deeply" in str(refusal({"a": nested(31, wrap, {"password": 1})}))
        kinds = found({"a": nested(100_000, wrap, "ada@example.com")})
        assert [kind for kind, _ in kinds] == ["secret"]


@pytest.mark.parametrize(
    "piece",
    listed(
        "a@ ey. eyJhbGciOi $2b$ 1 4111- 4111_ +1 DE12_ DE89 x. jgr_ {SHA d a@b. a@b- (555)_ PRIVATE password_ "
        '----BEGIN_ LS0tLS1CRUdJTi MIGHAgE ey- ey-. :// 4111, DE89- https:// https://a/x/ "kty"d'
    ),
)
def test_the_longest_and_nastiest_values_are_judged_to_their_end(piece: str) -> None:
    value = piece.replace("_", " ") * 50_000  # hours, if the time grew with the square of the length
    for finding in find_sensitive({"note": value, value: 1}, (), ()):
        assert len(finding.message) < 200


# The order of things, and where warnings point


def test_a_refusal_wins_over_warnings_and_all_warnings_are_given() -> None:
    own = {"a": "ada@example.com", "b": {"c": "+4930123456", "d": "4111111111111111"}, "e": "DE89370400440532013000"}
    with pytest.warns(ClaimsWarning) as warned:
        issue_token(GOOD | own, KEY)
    assert [str(each.message).split("'")[1] for each in warned] == ["a", "b.c", "b.d", "e"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal(own | {"z": TOKEN}, LintRules()).claim == "z"


def test_a_warning_points_at_whoever_issued_the_token() -> None:
    issuer = Issuer(issuer=GOOD["iss"], keys=KEY, clock=lambda: NOW)
    own = {"email": "ada@example.com"}
    ways: list[Callable[[], str]] = [
        lambda: issue_token(GOOD | own, KEY),
        lambda: issuer.issue("ada", audience="api", claims=own),
    ]
    for issue in ways:
        with pytest.warns(ClaimsWarning) as warned:
            issue()
        assert [each.filename for each in warned] == [__file__]
    with pytest.warns(ClaimsWarning) as warned:
        issue_token(GOOD | own, KEY)  # directly, so that whoever calls this test is another file
    assert [each.filename for each in warned] == [__file__]
    assert issubclass(ClaimsWarning, UserWarning)


def test_an_issuer_lints_own_claims_by_its_rules() -> None:
    settings: dict[str, Json] = {"issuer": GOOD["iss"], "keys": KEY, "clock": lambda: NOW}
    own = {"email": "ada@example.com"}
    with pytest.raises(ClaimRefused, match="password"):
        Issuer(**settings).issue("ada", audience="api", claims={"password": "x"})
    with pytest.raises(ClaimRefused, match="e-mail address"):
        Issuer(**settings, lint=STRICT).issue("ada", audience="api", claims=own)
    token = Issuer(**settings, lint=LENIENT).issue("ada", audience="api", claims=own)
    assert verify_token(token, KEY, Policy(issuer=GOOD["iss"], audience="api"), NOW)["email"] == "ada@example.com"


# Rules


@pytest.mark.parametrize(
    "faulty",
    [
        {"card_numbers": "ignore"},
        {"ibans": None},
        {"email_addresses": True},
        {"phone_numbers": ""},
        {"refused_names": "salary"},
        {"refused_names": None},
        {"refused_names": [5]},
        {"allowed_names": [""]},
        {"allowed_names": ["--"]},
        {"max_payload_bytes": 0},
        {"max_payload_bytes": True},
        {"max_payload_bytes": None},
    ],
    ids=str,
)
def test_rules_with_a_fault_are_not_made(faulty: dict[str, Json]) -> None:
    with pytest.raises(SettingsError) as error:
        LintRules(**faulty)
    assert len(error.value.faults) == 1
    assert error.value.faults[0].startswith(next(iter(faulty)))


def test_rules_tell_all_their_faults_cannot_be_changed_and_have_no_switch_for_secrets() -> None:
    wrong: dict[str, Json] = {"ibans": "x", "refused_names": 5, "max_payload_bytes": -1}
    with pytest.raises(SettingsError) as error:
        LintRules(**wrong)
    assert len(error.value.faults) == 3
    names: Json = ["Base Salary"]
    rules = LintRules(refused_names=names)
    names.append("x")
    assert rules == LintRules(refused_names=("baseSalary",)) == msgspec.structs.replace(rules, ibans="warn")
    with pytest.raises(AttributeError):
        rules.ibans = "allow"  # type: ignore[misc]
    assert "a private key" in str(refusal({"x": KEY.to_private_jwk()}, LENIENT))


def test_standard_claims_alone_are_passed_at_once() -> None:
    assert lint_claims(dict.fromkeys(REGISTERED, TOKEN), 5, STRICT) == []


def test_rules_are_named_and_are_taken_from_any_iterable_down_to_one_byte() -> None:
    assert LintRules(max_payload_bytes=1).max_payload_bytes == 1
    names: Json = iter(("Base Salary", "grade"))
    assert LintRules(refused_names=names).refused_names == ("base salary", "grade")
    with pytest.raises(SettingsError):
        LintRules(refused_names=("fine", "--"))
    with pytest.raises(TypeError):
        LintRules(("fine",))  # type: ignore[call-arg] # the promise
