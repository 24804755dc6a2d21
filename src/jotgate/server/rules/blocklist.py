"""Which passwords are guessed first: common ones, repetitions, runs of keys, and what is told by the account itself.

SP 800-63B-4 §3.1.1.2 asks for such a list and forbids rules of composition. It is compared with the whole password, as
that section says, so a listed word among others refuses nothing. But where the list is of words shorter than the least
length, what people do to reach it has to be seen through: they write the word twice, or put digits around it.

Pure, and linear in the length of the password.
"""

import unicodedata
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Final

_SHORTEST_WORD: Final = 4  # of fewer letters, what stands around them is the password
_LONGEST_UNIT: Final = 8  # repeated, a text of no more characters is as easy to guess as it is once
_SHORTEST_RUN: Final = 4
_LONGEST_COMPARED: Final = 1024  # folding makes up to eighteen characters of one

_RUNS: Final = (
    "1234567890",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiop",
    "asdfghjkl;",
    "zxcvbnm,./",
    "qwertzuiop",
    "yxcvbnm,.-",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn,;:!",
    "!@#$%^&*()",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "q1w2e3r4t5y6u7i8o9p0",
)
_LEET: Final = tuple(str.maketrans("013457890@$!|+(", f"o{one}eastbgoas{one}ltc") for one in "il")


def _steps() -> dict[tuple[str, str], frozenset[tuple[int, int]]]:
    """Which runs, and in which direction, go from one character to another. Each goes round: `1` follows `0`."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for number, run in enumerate(_RUNS):
        for one, other in pairwise(run + run[0]):
            found.setdefault((one, other), set()).add((number, 1))
            found.setdefault((other, one), set()).add((number, -1))
    return {pair: frozenset(tracks) for pair, tracks in found.items()}


_STEPS: Final = _steps()
_SAME: Final = frozenset({(-1, 0)})


def fold(text: str) -> str:
    """The form in which passwords and words are compared: NFKC, without case."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def prepare(words: Iterable[str]) -> frozenset[str]:
    """Make a blocklist of words: each folded, its letters alone (`trustno1`), and what these repeat (`meowmeow`)."""
    listed = set()
    for word in words:
        folded = fold(word)
        letters = _letters(folded)
        listed.add(folded)
        listed.update(each for each in (letters, _unit(letters)) if len(each) >= _SHORTEST_WORD)
    return frozenset(listed)


def is_guessable(password: str, *, about: Iterable[str], common: Collection[str]) -> bool:
    """Whether a password is one that is guessed first.

    Args:
        about: what an attacker knows: the account's address, the service's names. Each is taken apart into words.
        common: common passwords as `prepare` returns them.
    """
    text = fold(password)[:_LONGEST_COMPARED]
    if _is_of_runs(text):
        return True
    known = frozenset(_words(about))
    lengths = sorted({len(word) for word in known})
    for form in _forms(text):
        unit = _unit(form)
        if len(unit) <= min(_LONGEST_UNIT, len(form) // 2):
            return True
        if form in common or unit in common or _is_made_of(form, known, lengths):
            return True
    return False


def _forms(text: str) -> Iterator[str]:
    """What may be left of a text without what people put around a word, or in place of its letters."""
    yield text
    letters = _letters(text)
    lefts = (text, _lstrip(text), _rstrip(text), _rstrip(_lstrip(text)))
    readings = (_letters(left.translate(table)) for table in _LEET for left in lefts)
    bare = _letters("".join(run for run in _split(text) if len(run) < _SHORTEST_RUN))
    for form in (letters, *readings, bare):
        if len(form) >= _SHORTEST_WORD:
            yield form


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))


def _lstrip(text: str) -> str:
    start = next((at for at, each in enumerate(text) if each.isalpha()), len(text))
    return text[start:]


def _rstrip(text: str) -> str:
    return _lstrip(text[::-1])[::-1]


def _unit(text: str) -> str:
    """What a text repeats, the last time perhaps not to its end; the text itself where it repeats nothing."""
    # The borders of Knuth, Morris and Pratt: how much of its own beginning each prefix ends with.
    borders = [0] * len(text)
    matched = 0
    for at in range(1, len(text)):
        while matched and text[at] != text[matched]:
            matched = borders[matched - 1]
        matched += text[at] == text[matched]
        borders[at] = matched
    period = len(text) - matched
    return text[:period] if 2 * period <= len(text) else text


def _split(text: str) -> Iterator[str]:
    """Split a text into runs, each as long as it can be: of one character, or along the alphabet or a keyboard."""
    start = 0
    tracks = frozenset[tuple[int, int]]()
    for at in range(1, len(text)):
        one, other = text[at - 1], text[at]
        steps = _SAME if one == other else _STEPS.get((one, other), frozenset())
        tracks = steps if at - start == 1 else tracks & steps
        if not tracks:
            yield text[start:at]
            start = at
    yield text[start:]


def _is_of_runs(text: str) -> bool:
    return sum(1 for _ in _split(text)) * _SHORTEST_RUN <= len(text)


def _words(about: Iterable[str]) -> Iterator[str]:
    for text in about:
        folded = fold(text)
        words = "".join(each if each.isalnum() else " " for each in folded).split()
        yield from words
        yield from filter(None, map(_letters, words))


def _is_made_of(text: str, words: Collection[str], lengths: Collection[int]) -> bool:
    """Whether a text is nothing but words, one after the other."""
    reached = [True] + [False] * len(text)
    for at in range(len(text)):
        for length in lengths:
            if not reached[at] or at + length > len(text):
                break
            if text[at : at + length] in words:
                reached[at + length] = True
    return reached[-1]
