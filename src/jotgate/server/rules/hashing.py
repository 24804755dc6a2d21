"""What a password hash may cost: the sets of Argon2id parameters that may be chosen, and the bound for stored ones.

Pure: it hashes nothing.
"""

import re
from typing import Final

from msgspec import Struct


class Argon2(Struct, frozen=True):
    """Parameters of Argon2id (RFC 9106)."""

    memory_kib: int
    passes: int
    lanes: int = 1

    def __str__(self) -> str:
        return f"{self.memory_kib}/{self.passes}"


# OWASP Password Storage Cheat Sheet: equally strong against a guesser, they trade memory for time. The first is the
# default.
ARGON2_SETS: Final = (Argon2(19_456, 2), Argon2(47_104, 1), Argon2(12_288, 3), Argon2(9_216, 4), Argon2(7_168, 5))

# A stored hash says itself what checking it costs, and whoever can write a row must not be able to stop a server. These
# leave room for what other programs make: 64 MiB, three passes, four lanes (RFC 9106 section 4), and Django's 100 MiB,
# two passes, eight lanes. That takes about five times as long as the default.
MAX_MEMORY_KIB: Final = 102_400
MAX_MEMORY_TIMES_PASSES: Final = 2 * 102_400
MAX_LANES: Final = 8
MAX_PASSES: Final = 48  # with little memory, a pass costs more than its share of it

NO_PASSWORD: Final = "!"  # noqa: S105  none at all
"""Stands where a password's hash would: none fits, and checking one takes as long as ever."""

# The PHC string as Argon2's own decoder takes it, so that both read the same numbers.
_PHC: Final = re.compile(
    r"\$argon2(id|i|d)\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,7})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}",
    re.ASCII,
)


def parse_argon2(text: str) -> Argon2:
    """Read a set as it is written in settings: memory in KiB, a slash, passes.

    Raises:
        ValueError: it is none of OWASP's sets.
    """
    for each in ARGON2_SETS:
        if text == str(each):
            return each
    raise ValueError(f"must be one of {', '.join(map(str, ARGON2_SETS))} (memory in KiB / passes)")


def stored_parameters(password_hash: str) -> Argon2 | None:
    """Return what a stored hash was made with; None where it is no Argon2id, or one that is too costly to check."""
    kind, parameters = _read(password_hash)
    return parameters if kind == "id" else None


def is_checkable(password_hash: str) -> bool:
    """Whether it is a hash of Argon2id, or of Argon2i or Argon2d as other programs make them, that may be checked."""
    return _read(password_hash)[1] is not None


def _read(password_hash: str) -> tuple[str, Argon2 | None]:
    found = _PHC.fullmatch(password_hash)
    if found is None:
        return "", None
    kind, *numbers = found.groups()
    memory, passes, lanes = map(int, numbers)
    if memory > MAX_MEMORY_KIB or memory * passes > MAX_MEMORY_TIMES_PASSES:
        return kind, None
    if lanes > MAX_LANES or passes > MAX_PASSES:
        return kind, None
    return kind, Argon2(memory, passes, lanes)
