"""Addresses that look like another: letters of other alphabets among Latin ones, and characters that nobody sees.

By UTS 39, as far as tables of the package `confusable_homoglyphs` go: scripts are mixed as "highly restrictive" allows
(§5.2), and no part of a domain looks wholly Latin without being so (§4). Lookalikes within one script (`rn` and `m`)
are told by nobody.
"""

import unicodedata
from itertools import chain
from typing import Final

from confusable_homoglyphs import categories, confusables

_ANYWHERE: Final = frozenset({"COMMON", "INHERITED"})
_TOGETHER: Final = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
# What Unicode calls Default_Ignorable_Code_Point beyond the categories Cc and Cf, and the empty pattern of Braille.
_UNSEEN: Final = frozenset(
    map(
        chr,
        chain(
            (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0),
            range(0x180B, 0x1810),
            range(0xFE00, 0xFE10),
            range(0xFFF0, 0xFFF9),
            range(0xE0000, 0xE1000),
        ),
    )
)


def has_unseen(text: str) -> bool:
    """Whether there is a character that is not seen, or that turns the direction of writing."""
    return any(each in _UNSEEN or unicodedata.category(each) in {"Cc", "Cf"} for each in text)


def mixes_alphabets(text: str) -> bool:
    """Whether a text is of several scripts that are not written together."""
    scripts = categories.unique_aliases(text) - _ANYWHERE
    return len(scripts) > 1 and not any(scripts <= each for each in _TOGETHER)


def looks_latin(text: str) -> bool:
    """Whether each letter of a text that is in another script can be taken for an ASCII character."""
    foreign = {each for each in text if not each.isascii()}
    if not foreign or "LATIN" in categories.unique_aliases("".join(foreign)):
        return False
    return foreign <= {
        found["character"]
        for found in confusables.is_confusable(text, greedy=True) or ()
        if any(len(other["c"]) == 1 and other["c"].isascii() for other in found["homoglyphs"])
    }
