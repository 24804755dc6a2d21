"""Passwords that are guessed first are refused, however they are stretched; others are not."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server.common_passwords import load_common_passwords
from jotgate.server.rules.blocklist import is_guessable, prepare

COMMON = load_common_passwords()
ABOUT = ("ada.lovelace+shop@example.com", "https://auth.shop.example", "orders-api", "jotgate")
WORDS = sorted(word for word in COMMON if len(word) >= 4 and word.isalpha())
PADDING = st.text(string.digits + string.punctuation + " ", max_size=12)


def guessable(password: str) -> bool:
    return is_guessable(password, about=ABOUT, common=COMMON)


def test_the_list_holds_the_most_common_passwords() -> None:
    assert len(COMMON) >= 30_000
    assert {"123456", "password", "qwerty", "iloveyou", "trustno1"} <= COMMON


@pytest.mark.parametrize(
    "password",
    [
        "password12345678",
        "passwordpassword",
        "PASSWORDPASSWORD",
        "\N{FULLWIDTH LATIN SMALL LETTER P}asswordpassword",
        "2026-password-2026",
        "password!password?1",
        "passwordpasswordpas",
        "passwordaaaaaaaa",
        "P@$$w0rd2026!!!!",
        "$ecret1234567890",
        "he11o!!!!!!!!2026",
        "trustno1999999999",
        "correct123456789",
        "woofwoofwoofwoofwoof",
    ],
)
def test_a_common_password_is_refused_however_it_is_stretched(password: str) -> None:
    assert is_guessable(password, about=(), common=COMMON | {"correct"})


@given(st.sampled_from(WORDS), PADDING, PADDING)
def test_any_listed_word_is_refused_whatever_is_put_around_it(word: str, before: str, after: str) -> None:
    assert guessable(before + word + after)
    assert guessable(before + word.upper() * 3 + after)


@pytest.mark.parametrize(
    "password",
    ["aaaaaaaaaaaaaaa", "abcabcabcabcabc", "abcabcabcabcab", "19900101199001011990", "xyxyxyxyxyxy12345678", "🔑" * 15],
)
def test_repetitions_are_refused(password: str) -> None:
    assert guessable(password)


@pytest.mark.parametrize(
    "password",
    [
        "123456789012345",
        "543210987654321",
        "abcdefghijklmnop",
        "ponmlkjihgfedcba",
        "qwertyuiopasdfgh",
        "QWERTZUIOPASDFGH",
        "1qaz2wsx3edc4rfv",
        "abcdefgh12345678",
        "1111222233334444",
    ],
)
def test_runs_along_the_alphabet_and_the_keyboard_are_refused(password: str) -> None:
    assert guessable(password)


@pytest.mark.parametrize(
    "password",
    [
        "ada.lovelace@example.com",
        "AdaLovelace1815!!",
        "lovelace-shop-lovelace",
        "L0vel4ce-2026-2026",
        "jotgate.ada.jotgate",
        "jotgateexample2026",
        "orders-api-ada-shop",
        "auth.shop.example",
    ],
)
def test_what_is_made_of_the_accounts_and_the_services_names_is_refused(password: str) -> None:
    assert guessable(password)
    assert not is_guessable(password, about=("eve@elsewhere.test",), common=())


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "four plain words in a row",
        "ada has a horse and a battery",
        "jotgate battery staple",
        "482910375629183",
        "1234 Lakeside Crescent",
        "Ein Huhn fällt vom Dach",
        "八百屋の猫は昼に眠るらしい",
        "4f1c9d07b3e28a65",
        "x7#Kq!2vN9@wLp4$",
    ],
)
def test_other_passwords_are_not_refused(password: str) -> None:
    assert not guessable(password)


def test_of_two_thousand_random_passwords_none_is_refused() -> None:
    chance = random.Random(20260711)  # noqa: S311 - nobody's password
    for alphabet in (string.ascii_lowercase, string.ascii_letters + string.digits + string.punctuation):
        made = ("".join(chance.choices(alphabet, k=20)) for _ in range(1000))
        assert [password for password in made if guessable(password)] == []


@given(st.text(max_size=30), st.lists(st.text(max_size=8), max_size=4))
def test_any_text_gets_an_answer(password: str, about: list[str]) -> None:
    assert is_guessable(password, about=about, common=prepare(about)) in {True, False}


def test_a_word_of_one_letter_in_an_address_refuses_nothing_else() -> None:
    assert not is_guessable("correct horse battery staple", about=("e@a.example",), common=())


@pytest.mark.parametrize(
    "password", ["a" * 1000 + "b" * 24, "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 341, "adalovelace" * 93]
)
def test_the_longest_passwords_cost_less_than_a_hash(password: str) -> None:
    about = (".".join("a" * n for n in range(1, 21)) + "@example.com",)
    costs = []
    for _ in range(5):
        began = time.process_time()
        is_guessable(password, about=about, common=COMMON)
        costs.append(time.process_time() - began)
    assert min(costs) < 0.025
