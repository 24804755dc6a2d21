"""What an account may look like: addresses, passwords and scopes."""

import socket
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import partial

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jotgate.core.errors import RequestRefused
from jotgate.server.rules.accounts import (
    MAX_PASSWORD_BYTES,
    InvalidEmail,
    InvalidScope,
    InvalidText,
    NulInText,
    PasswordTooCommon,
    PasswordTooLong,
    PasswordTooShort,
    check_new_password,
    check_scope_token,
    email_identity,
    is_scope_token,
    normalise_email,
    normalise_password,
)

COMPOSED, DECOMPOSED = "é", "e\N{COMBINING ACUTE ACCENT}"


def check_new(raw: str, *, about: Sequence[str] = (), common: Collection[str] = ()) -> str:
    return check_new_password(raw, min_length=15, about=about, common=common)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada.Lovelace+shop@Example.COM", "Ada.Lovelace+shop@example.com"),
        ("ada@shop.test", "ada@shop.test"),
        ("ada@shop.example", "ada@shop.example"),
        (f"ren{DECOMPOSED}e@example.com", f"ren{COMPOSED}e@example.com"),
        ("ada@xn--bcher-kva.example", "ada@bücher.example"),
    ],
)
def test_an_address_is_kept_with_its_domain_in_lower_case_and_in_nfc(raw: str, normal: str) -> None:
    assert normalise_email(raw) == normal


def test_checking_an_address_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    assert normalise_email("ada@example.com") == "ada@example.com"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@@example.com",
        "ada lovelace@example.com",
        "Ada <ada@example.com>",
        "ada@example",
        "ada@[127.0.0.1]",
        '"ada"@example.com',
        "ada@example..com",
        "ada@-example.com",
        "ada@host.local",
        "ada@localhost",
        "ada@example.com\r\nBcc: eve@example.com",
        "a" * 250 + "@example.com",
        "a@" + "b" * 5_000 + ".com",
    ],
)
def test_what_is_no_address_is_refused(raw: str) -> None:
    with pytest.raises(InvalidEmail) as caught:
        normalise_email(raw)
    assert (caught.value.code, caught.value.status) == ("invalid_email", 422)


def addresses(letters: str) -> st.SearchStrategy[str]:
    part = st.from_regex(f"[{letters}][{letters}0-9]{{0,8}}", fullmatch=True)
    return st.builds("{}.{}@{}.example".format, part, part, part)


ADDRESSES = st.one_of(*map(addresses, ("a-zA-Zéßå", "a-zａ-ｚ", "α-ω", "а-яё")))
WAYS: tuple[Callable[[str], str], ...] = (
    str.upper,
    str.lower,
    str.swapcase,
    *(partial(unicodedata.normalize, form) for form in ("NFC", "NFD", "NFKC", "NFKD")),
)


def allowed(raw: str) -> str | None:
    try:
        return normalise_email(raw)
    except RequestRefused:
        return None


@pytest.mark.parametrize(
    "raw",
    [
        "иван@пример.test",
        "иван.петров+7@example.com",
        "田中さん@例え.テスト.jp",
        "タナカtaro@example.jp",
        "홍길동@예시.example",
        "王小明wang@例子.example",
        "renée@bücher.example",
        "info@παράδειγμα.example",
        "сара@пример.test",
        "сара@сара.рф",
        "ada@kırık.example",
        "אבי@example.com",
        "😀@example.com",
    ],
)
def test_addresses_of_one_alphabet_are_taken_whichever_it_is(raw: str) -> None:
    assert normalise_email(raw) == raw


@pytest.mark.parametrize(
    "raw",
    [
        "аda@example.com",  # the first letter is Cyrillic
        "ada@exаmple.com",  # one letter is Cyrillic
        "ada@xn--exmple-4nf.com",
        "ρaul@example.com",  # the first letter is Greek
        "𝐚да@example.com",  # of no script, until it is Latin in NFKC
        "ada\N{ARABIC-INDIC DIGIT THREE}@example.com",
        "иванivan@example.com",
    ],
)
def test_an_address_that_mixes_alphabets_is_refused_in_a_sentence_that_says_so(raw: str) -> None:
    with pytest.raises(InvalidEmail, match="several alphabets"):
        normalise_email(raw)


@pytest.mark.parametrize("raw", ["ada@аррӏе.com", "ada@xn--80ak6aa92e.com", "ada@mail.ехаре.com", "ada@νο.example"])
def test_a_domain_that_looks_latin_and_is_not_is_refused(raw: str) -> None:
    with pytest.raises(InvalidEmail, match="looks like another"):
        normalise_email(raw)


@pytest.mark.parametrize(
    "unseen",
    [
        "\N{ZERO WIDTH SPACE}",
        "\N{ZERO WIDTH JOINER}",
        "\N{SOFT HYPHEN}",
        "\N{RIGHT-TO-LEFT OVERRIDE}",
        "\N{LEFT-TO-RIGHT MARK}",
        "\N{COMBINING GRAPHEME JOINER}",
        "\N{HANGUL FILLER}",
        "\N{HANGUL CHOSEONG FILLER}",
        "\N{BRAILLE PATTERN BLANK}",
        "\N{VARIATION SELECTOR-16}",
        "\N{TAG LATIN CAPITAL LETTER A}",
        "\N{ZERO WIDTH NO-BREAK SPACE}",
        "\x7f",
        "\n",
    ],
)
def test_characters_that_nobody_sees_are_in_no_address(unseen: str) -> None:
    for raw in (f"ad{unseen}a@example.com", f"ada@exam{unseen}ple.com", f"ada@example.com{unseen}"):
        with pytest.raises(InvalidEmail, match="cannot be seen"):
            normalise_email(raw)


@pytest.mark.parametrize("letter", ["\N{FULLWIDTH COMMERCIAL AT}", "\N{HORIZONTAL ELLIPSIS}", "\N{FULLWIDTH COMMA}"])
def test_a_character_that_is_punctuation_in_nfkc_is_refused(letter: str) -> None:
    with pytest.raises(InvalidEmail):
        normalise_email(f"ada{letter}eve.example@example.com")


@given(ADDRESSES)
def test_normalising_is_idempotent_and_an_identity_is_an_address(raw: str) -> None:
    email = allowed(raw)
    assume(email is not None)
    assert email is not None
    assert normalise_email(email) == email
    identity = email_identity(email)
    assert email_identity(normalise_email(identity)) == identity


@given(ADDRESSES, st.sampled_from(WAYS))
def test_another_way_of_writing_an_address_is_the_same_identity_or_no_address(
    raw: str, write: Callable[[str], str]
) -> None:
    email, other = allowed(raw), allowed(write(raw))
    assume(email is not None and other is not None)
    assert email is not None
    assert other is not None
    assert email_identity(email) == email_identity(other)


def test_a_text_far_too_long_for_an_address_is_not_even_parsed() -> None:
    with pytest.raises(InvalidEmail, match=r"^The e-mail address is too long\.$"):
        normalise_email("\N{COMBINING LONG SOLIDUS OVERLAY}" * 60_000 + "@example.com")


@given(st.text() | st.from_regex(r"[^@]{1,20}@[^@]{1,20}\.[a-z]{2,8}", fullmatch=True))
def test_any_text_becomes_a_stable_address_or_a_typed_refusal(raw: str) -> None:
    try:
        normal = normalise_email(raw)
    except RequestRefused:
        return
    assert normalise_email(normal) == normal
    assert email_identity(normal) == email_identity(normalise_email(normal))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@example.com", "ADA@EXAMPLE.COM"),
        ("ren" + COMPOSED + "@example.com", "REN" + DECOMPOSED.upper() + "@example.com"),
        ("straße@example.com", "STRASSE@example.com"),
    ],
)
def test_addresses_that_differ_in_case_only_are_one_identity(one: str, other: str) -> None:
    assert email_identity(one) == email_identity(other)


def test_different_addresses_are_different_identities() -> None:
    assert len({email_identity(text) for text in ("ada@example.com", "eda@example.com", "ada@example.org")}) == 3


@given(st.text())
def test_an_identity_is_its_own_identity(text: str) -> None:
    assert email_identity(email_identity(text)) == email_identity(text)


def test_a_password_is_the_same_however_its_accents_were_typed() -> None:
    assert normalise_password("caf" + DECOMPOSED) == normalise_password("caf" + COMPOSED) == "caf" + COMPOSED


def test_a_password_is_measured_in_characters_not_in_bytes() -> None:
    assert check_new("äöüéèêëïîñçåøæß") == "äöüéèêëïîñçåøæß"
    with pytest.raises(PasswordTooShort) as caught:
        check_new("äöüéèêëïîñçåøæ")
    assert (caught.value.code, caught.value.status) == ("password_too_short", 422)


def test_decomposed_accents_do_not_count_twice() -> None:
    with pytest.raises(PasswordTooShort):
        check_new(DECOMPOSED * 14)


def test_a_password_that_is_guessed_first_is_refused_and_not_repeated() -> None:
    with pytest.raises(PasswordTooCommon) as caught:
        check_new("hunter2hunter2hunter2", common={"hunter2"})
    assert (caught.value.code, caught.value.status) == ("password_too_common", 422)
    assert "hunter" not in str(caught.value)
    with pytest.raises(PasswordTooCommon):
        check_new("ada.lovelace1815", about=("ada.lovelace@example.com",))


@pytest.mark.parametrize("raw", ["x" * (MAX_PASSWORD_BYTES + 1), "ü" * (MAX_PASSWORD_BYTES // 2 + 1)])
def test_a_password_over_the_byte_limit_is_refused(raw: str) -> None:
    with pytest.raises(PasswordTooLong) as caught:
        normalise_password(raw)
    assert (caught.value.code, caught.value.status) == ("password_too_long", 422)


def test_a_password_of_exactly_the_byte_limit_is_taken() -> None:
    assert normalise_password("x" * MAX_PASSWORD_BYTES) == "x" * MAX_PASSWORD_BYTES


def test_a_password_that_normalising_lengthens_is_measured_afterwards() -> None:
    grows = "\N{MUSICAL SYMBOL HALF NOTE}"  # one character of 4 bytes, two of 8 in NFC
    assert len(unicodedata.normalize("NFC", grows).encode()) == 8
    with pytest.raises(PasswordTooLong):
        normalise_password(grows * (MAX_PASSWORD_BYTES // 8 + 1))


def test_spaces_and_symbols_are_part_of_a_password() -> None:
    assert normalise_password("  two  spaces \t🔑 ") == "  two  spaces \t🔑 "


@pytest.mark.parametrize("check", [normalise_email, normalise_password])
def test_nul_and_what_is_not_unicode_are_refused_by_name(check: object) -> None:
    assert callable(check)
    with pytest.raises(NulInText) as nul:
        check("ada\0@example.com")
    assert (nul.value.code, nul.value.status) == ("nul_in_text", 400)
    with pytest.raises(InvalidText) as surrogate:
        check("ada\ud800@example.com")
    assert (surrogate.value.code, surrogate.value.status) == ("invalid_utf8", 400)


@given(st.text() | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Mn", "So"])))
def test_any_text_becomes_a_stable_password_or_a_typed_refusal(raw: str) -> None:
    try:
        password = normalise_password(raw)
    except RequestRefused:
        return
    assert normalise_password(password) == password


@pytest.mark.parametrize("text", ["a", "orders:read", "https://api.example/orders", "!", "~", "[]"])
def test_scope_tokens_of_rfc_6749_are_taken(text: str) -> None:
    assert is_scope_token(text)
    check_scope_token(text)


@pytest.mark.parametrize("text", ["", " ", "a b", 'a"b', "a\\b", "a\n", "ä", "a\0", "\x7f"])
def test_everything_else_is_no_scope_token(text: str) -> None:
    assert not is_scope_token(text)
    with pytest.raises(InvalidScope):
        check_scope_token(text)
