"""Each word and number of the lint's tables, alone, with the borders of its ranges."""

from __future__ import annotations

import pytest

from jotgate.core.sensitive import find_sensitive

CARD = "4111111111111111"


def kinds(name: str, value: object) -> list[str]:
    return [finding.kind for finding in find_sensitive({name: value}, (), ())]


@pytest.mark.parametrize(
    "word",
    [
        *[
            "id",
            "identifier",
            "uid",
            "uuid",
            "guid",
            "ulid",
            "oid",
            "tid",
            "kid",
            "jti",
            "sub",
            "sid",
            "uti",
            "aud",
            "azp",
            "iss",
            "ref",
            "reference",
            "nonce",
            "hash",
        ],
        *[
            "digest",
            "etag",
            "fingerprint",
            "thumbprint",
            "serial",
            "sku",
            "ean",
            "gtin",
            "isbn",
            "userid",
            "accountid",
            "orderid",
            "customerid",
        ],
        *["tenantid", "clientid", "sessionid", "requestid", "deviceid", "objectid"],
    ],
)
def test_each_word_for_an_identifier_keeps_digits_from_being_read(word: str) -> None:
    for name in (word, f"my_{word}", f"my_{word}s", f"my_{word}_2", f"{word}_2_3"):
        assert kinds(name, CARD) == []
    for name in (f"x{word[0]}q{word}x", f"{word}_note"):
        assert kinds(name, CARD) == ["card_numbers"]


@pytest.mark.parametrize("word", ["has", "is", "needs", "requires", "must", "can", "may"])
def test_each_verb_in_front_makes_a_name_one_about_a_secret(word: str) -> None:
    assert kinds(f"{word}_password", "x") == []
    assert kinds(f"{word}x_password", "x") == kinds(f"my_{word}_password", "x") == ["secret"]


@pytest.mark.parametrize(
    "word",
    [
        *[
            "at",
            "on",
            "since",
            "until",
            "age",
            "count",
            "in",
            "expires",
            "expired",
            "expiry",
            "expiration",
            "exp",
            "changed",
            "updated",
            "created",
            "rotated",
        ],
        *[
            "verified",
            "required",
            "enabled",
            "policy",
            "status",
            "type",
            "kind",
            "brand",
            "version",
            "ttl",
            "method",
            "id",
            "ids",
            "name",
        ],
    ],
)
def test_each_word_behind_makes_a_name_one_about_a_secret(word: str) -> None:
    assert kinds(f"password_{word}", "x") == []
    assert kinds(f"password_x{word}", "x") == kinds(f"password_{word}_x", "x") == ["secret"]


@pytest.mark.parametrize(
    "name",
    [
        *[
            "x_password",
            "x_passwords",
            "passwd",
            "passphrase",
            "passwort",
            "kennwort",
            "secret",
            "secrets",
            "passcode",
            "pwd",
            "passwordhash",
        ],
        *[
            "passwordsalt",
            "pass_word",
            "pass_phrase",
            "pass_code",
            "pass_words",
            "ssn",
            "social_security",
            "socialsecurity",
        ],
        *[
            "social_insurance",
            "socialinsurance",
            "national_insurance",
            "credit_card",
            "debit_card",
            "payment_card",
            "bank_card",
        ],
        *[
            "creditcard",
            "credit_cards",
            "card_no",
            "card_num",
            "card_number",
            "card_numbers",
            "card_data",
            "card_details",
            "card_pan",
        ],
        *[
            "card_pin",
            "cc_no",
            "cc_num",
            "cc_number",
            "cc_pin",
            "cc_data",
            "cc_details",
            "cc_pan",
            "ccnumber",
            "ccn",
            "pan_no",
            "pan_num",
            "pan_number",
            "pan_numbers",
            "pannumber",
        ],
        *[
            "cvv",
            "cvc",
            "bban",
            "iban",
            "ibban",
            "bank_account",
            "bankaccount",
            "bank_accounts",
            "private_key",
            "private_keys",
            "privatekey",
        ],
        *[
            "api_key",
            "apikey",
            "access_key",
            "access_token",
            "refresh_token",
            "id_token",
            "session_token",
            "auth_token",
        ],
        *["authtoken", "auth_tokens", "my_card", "my_cards", "pan", "pin"],
    ],
)
def test_each_name_of_a_secret_is_refused(name: str) -> None:
    assert kinds(name, "x") == ["secret"]


def number(prefix: str, length: int) -> str:
    """A number of that prefix and length with its check digit (ISO/IEC 7812-1 annex B), slow and simple."""
    body = prefix.ljust(length - 1, "0")
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(body))]
    return body + str(-sum(value // 10 + value % 10 for value in doubled) % 10)


@pytest.mark.parametrize(
    ("length", "known", "unknown"),
    [
        (16, "4 51 55 2221 2229 223 229 23 26 270 271 2720", "50 56 2220 2721 273 28 1 9"),
        (15, "34 37", "33 35 36 38 4"),
        (16, "6011 644 649 65 3528 3529 353 358 62", "643 61 3527 359"),
        (14, "300 305 36 38 39", "306 37 4"),
        (19, "62", "4 61 6011"),
        (16, "5018 5020 5038 5893 6304 6759 6761 6763", "5019 5021 5892 6305 6758 6760 6764"),
        (16, "2200 2204 5085 5089 60 81 82", "2205 5084 83 80"),
    ],
)
def test_the_ranges_of_card_brands_end_where_they_do(length: int, known: str, unknown: str) -> None:
    for prefix in known.split():
        assert kinds("note", number(prefix, length)) == ["card_numbers"], prefix
    for prefix in unknown.split():
        assert kinds("note", number(prefix, length)) == [], prefix


@pytest.mark.parametrize(
    "start",
    [
        *[
            "$argon2id$",
            "$argon2i$",
            "$argon2d$",
            "$scrypt$",
            "$pbkdf2$",
            "$pbkdf2-sha256$",
            "$balloon$",
            "$bcrypt$",
            "$bcrypt-sha256$",
        ],
        *[
            "$2a$",
            "$2b$",
            "$2x$",
            "$2y$",
            "$1$",
            "$2$",
            "$5$",
            "$6$",
            "$7$",
            "$y$",
            "$gy$",
            "$md5$",
            "$sha1$",
            "$apr1$",
        ],
        *[
            "argon2$",
            "bcrypt$",
            "bcrypt_sha256$",
            "scrypt$",
            "scrypt:1$",
            "scrypt:32768:8:1$",
            "pbkdf2_sha1$",
        ],
        *["pbkdf2_sha256$", "pbkdf2_sha512$", "pbkdf2:sha1$", "pbkdf2:sha256:600000$"],
        *["{SSHA}", "{SHA}", "{SMD5}", "{MD5}", "{CRYPT}", "{PBKDF2}", "{ARGON2}", "{SSHA512}", "{PBKDF2-SHA256}"],
    ],
)
def test_each_scheme_of_password_hashes_is_known_with_16_characters_behind(start: str) -> None:
    assert kinds("note", f"note: {start}{'x' * 16}") == ["secret"]
    assert kinds("note", f"note: {start}{'x' * 17}") == ["secret"]
    assert kinds("note", f"note: {start}{'x' * 15}") == []


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"])
def test_each_private_member_makes_a_key_private(member: str) -> None:
    assert kinds("note", {"kty": "X", member: "x"}) == ["secret"]
