"""Each word and number of the lint's tables, alone, with the borders of its ranges."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest

from jotgate.core.encoding import MAX_JSON_DEPTH
from jotgate.core.sensitive import find_sensitive, words_of

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


@pytest.mark.parametrize(
    "name",
    [
        *["pin", "_pin", "https://a.example/pin", "https://a.example/pin/v1", "pan", "https://a.example/pan"],
        *["pan__no", "pan-_num", "cc__no", "cc--number", "PANNumbers", "ccPin", "https://a.example/cc__pan"],
        *["passcode", "pwd", "mySecret", "SSNCopy", "socialSecurity", "socialInsurance", "nationalInsurance"],
        *[
            "bankCard",
            "debitcard",
            "paymentcard",
            "bankcard",
            "cvc",
            "cvv",
            "ibban",
            "bban",
            "bankAccount",
            "apiKeys",
            "idToken",
            "kennwort",
            "passwort",
        ],
        *["password/", "https://a.example/password/", "https://a.example/password/v1"],
    ],
)
def test_a_refused_name_is_so_in_each_spelling_with_own_names_or_without(name: str) -> None:
    assert kinds(name, "x") == ["secret"]
    assert [finding.kind for finding in find_sensitive({name: "x"}, ("own",), ())] == ["secret"]


@pytest.mark.parametrize(
    "name", ["my_pin", "pin_code", "pin2", "pan_2", "opinion", "company", "a/b/c/password/v1", "ss_n", "spin"]
)
def test_names_that_are_only_like_a_refused_one_are_none(name: str) -> None:
    assert kinds(name, "x") == []


def test_the_words_of_a_name_end_at_capitals_digits_and_slashes() -> None:
    assert words_of("SSNCopy") == "ssn copy"
    assert words_of("plan12b") == "plan 12 b"
    assert words_of("plan_1_2") == "plan 1 2"
    assert words_of("https://a.example/cardNumber") == "card number"
    assert words_of("a.example/card/") == "a example card"
    assert kinds("password_at_2", "x") == ["secret"]


def test_digits_behind_an_identifiers_name_may_be_several() -> None:
    assert kinds("id_12_345", CARD) == []


@pytest.mark.parametrize("levels", [1, MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1, MAX_JSON_DEPTH + 2])
def test_what_nests_deeper_than_a_token_may_is_found_once(levels: int) -> None:
    lists: object = "x"
    members: object = "x"
    for _ in range(levels):
        lists, members = [lists], {"x": members}
    assert kinds("note", lists) == kinds("note", members) == ["secret"] * (levels > MAX_JSON_DEPTH)


def test_numbers_are_cards_from_fourteen_digits_to_nineteen_if_they_are_whole() -> None:
    assert kinds("note", int(number("300", 14))) == ["card_numbers"]
    assert kinds("note", int(number("62", 19))) == ["card_numbers"]
    assert kinds("note", 4111111111111111.0) == ["card_numbers"]
    assert kinds("note", 4111111111111111.5) == []
    assert kinds("note", float("inf")) == kinds("note", float("nan")) == kinds("note", True) == []


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111 2345",
        "12345678901234,4111111111111111",
        " ".join(number("62", 19)[at : at + 4] for at in range(0, 20, 4)),
        "3400 000000 00009",
        "3000 000000 0004",
    ],
)
def test_a_card_number_is_found_in_its_groups_and_behind_others(text: str) -> None:
    assert kinds("note", text) == ["card_numbers"]


@pytest.mark.parametrize("text", ["1234567890123,4111111111111111", "4111 111111 111111", "4111 1111 1111 11112"])
def test_digits_in_other_groups_are_no_card_number(text: str) -> None:
    assert kinds("note", text) == []


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("$1$" + "x" * 16, False),  # 19 characters: too short for any secret
        ("$1$" + "x" * 17, True),
        ("PuTTY-User-Key-File-", True),
        ("MC4CAQAwBQYDK2VwBCIEIAAA", True),
        ("MIGHAgEAMBMGByqGSM49", True),
        ("MIIEvgIBADANBgkqhkiG", True),
        ("PRIVATE KEY PuTTY-User-Key-File- AGE-SECRET-KEY-1 UFJJVkFURSBL UklWQVRFIEtF SVZBVEUgS0VZ CAQ AgE IBA", True),
        ("LS0tLS1CRUdJTi" + "A" * 60 + "UFJJVkFURSBL", True),
        ("LS0tLS1CRUdJTi" + "A" * 61 + "UFJJVkFURSBL", False),
        ('{"kty": "EC", "priv" : "x"}', True),
        ('{"kty": "EC", "d" :  "x"}', True),
        ('{"kty": "EC", "crv": "x"}', False),
        ('{"c": "red", "d": "blue", "e": 1}', False),
        ("jgr_" + "x" * 40, True),
        ("jgr_" + "x" * 39, False),
        ("xjgr_" + "x" * 40, False),
        ("$pbkdf2-$" + "x" * 16, False),
        ("scrypt:1:2:3:4$" + "x" * 16, False),
        ("scrypt:$" + "x" * 16, False),
        ("pbkdf2:$" + "x" * 16, False),
        ("pbkdf2:sha256:$" + "x" * 16, False),
    ],
)
def test_secrets_in_texts_end_where_their_forms_do(text: str, secret: bool) -> None:
    assert kinds("note", text) == ["secret"] * secret


def base64url(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize("prefix", ["", "a", "ab", "abc", "abcd", "token_"])
@pytest.mark.parametrize("header", ['{"alg":"HS256"}', '{"alg":"none" }', '{"typ":"x","alg" :"a"}'])
def test_a_token_is_found_wherever_its_header_begins(prefix: str, header: str) -> None:
    token = f"{prefix}{base64url(header)}.e30.c2lnbmF0dXJl"
    assert kinds("note", token) == kinds("note", f"({token})") == ["secret"]
    assert kinds("note", token.replace(".", ". ")) == []
    assert kinds("note", token.replace(".", "", 1)) == []


def test_a_header_of_ten_characters_is_the_shortest() -> None:
    assert kinds("note", base64url('{"alg":') + ".e30.c2lnbmF0dXJl") == ["secret"]
    assert kinds("note", "A" + base64url('"alg":') + ".e30.c2lnbmF0dXJl") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@bc.example", True),
        ("a@" + "b" * 63 + ".example", True),
        ("a@" + "b" * 64 + ".example", False),
        ("a@" + "b." * 8 + "co", True),
        ("a@" + "b." * 9 + "co", False),
        ("ada@b.c1", False),
        ("a@b.c ", False),
    ],
)
def test_an_email_address_has_the_form_of_a_domain_behind_the_sign(text: str, found: bool) -> None:
    assert kinds("note", text) == ["email_addresses"] * found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("+1234567", False),
        ("+12345678", True),
        ("+123456789012345", True),
        ("+1234567890123456", False),
        ("+49 (30) 123456", True),
        ("+49 - 30123456", False),
        ("(555)123-4567", True),
        ("(555) 123-4567", True),
    ],
)
def test_a_phone_number_has_eight_digits_to_fifteen(text: str, found: bool) -> None:
    assert kinds("note", text) == ["phone_numbers"] * found


def iban(country: str, account: str) -> str:
    """The IBAN of that account with its check digits (ISO 13616)."""
    check = 98 - int("".join(str(int(character, 36)) for character in f"{account}{country}00")) % 97
    return f"{country}{check:02}{account}"


GERMAN, AUSTRIAN = iban("DE", "370400440532013000"), iban("AT", "1904300234573201")
BRITISH = iban("GB", "ZZZZZZZZZ123456789")  # as many digits as letters


def grouped(text: str, separator: str = " ") -> str:
    return separator.join(text[at : at + 4] for at in range(0, len(text), 4))


@pytest.mark.parametrize(
    "text",
    [
        GERMAN,
        f"{GERMAN} x",
        f"to {GERMAN}",
        f"to {GERMAN}, please",
        f"to {grouped(AUSTRIAN)} x",
        grouped(AUSTRIAN, "-"),
        BRITISH,
        grouped(BRITISH),
        iban("CH", "00762011623852957"),
        grouped(iban("CH", "00762011623852957")),
    ],
)
def test_an_iban_is_found_wherever_it_stands(text: str) -> None:
    assert kinds("note", text) == ["ibans"]


@pytest.mark.parametrize(
    "text",
    [
        f"{GERMAN}0",
        f"to {GERMAN}0",
        f"to {GERMAN}A",
        GERMAN[:-1],
        iban("DE", "3704004405320130"),  # right check digits, but too short
        f"{GERMAN[:20]}.{GERMAN[20:]}",
        f"{GERMAN[:20]}.{GERMAN[21:]}",
        iban("GB", "ZZZZZZZZZZ12345678"),  # more letters than digits
        "see DE89",
        "to ZZ12 3456",  # no country that has IBANs
        grouped(GERMAN).replace(" ", "-", 1),
        "DE1Q370400440532013001",  # right but for a letter among the check digits
    ],
)
def test_what_is_only_like_an_iban_is_none(text: str) -> None:
    assert kinds("note", text) == []


def test_a_name_that_is_the_shortest_iban_is_found_and_not_repeated() -> None:
    (finding,) = find_sensitive({"NO9386011117947": 1}, (), ())
    assert (finding.kind, finding.claim) == ("ibans", "*")
