"""Whether the wall clock may be believed: it goes as fast as the steady one, or has been what it is for long enough.

Pure: both times are arguments. A clock that jumps ahead and back again in the meantime has changed nothing.
"""

from typing import Final

TOLERANCE_S: Final = 60
"""How far a clock that is believed may be from where it would be if it had never been set. NTP sets it by less."""
_SLEW: Final = 1 / 1_000
"""How fast it may go wrong besides: crystals, and clocks that are put right gently, are below that."""


class ClockWatch:
    """Compares the wall clock with one that is never set.

    Args:
        trust_after_s: for how long a clock has to go on from where it jumped before that counts.
    """

    def __init__(self, wall: int, monotonic: float, *, trust_after_s: float) -> None:
        self._trust_after_s = trust_after_s
        self._offset = wall - monotonic
        self._at = monotonic
        self._well_since = monotonic
        self._jumped: tuple[float, float] | None = None  # (offset, monotonic time) of the jump

    def believes(self, wall: int, monotonic: float) -> bool:
        """Tell whether `wall` may be acted upon."""
        offset = wall - monotonic
        slewed = (monotonic - self._at) * _SLEW
        self._offset += max(-slewed, min(slewed, offset - self._offset))
        self._at = monotonic
        if abs(offset - self._offset) <= TOLERANCE_S:
            self._jumped = None
            return True
        if self._jumped is None or abs(offset - self._jumped[0]) > TOLERANCE_S:
            self._jumped = offset, monotonic
        if monotonic - self._jumped[1] < self._trust_after_s:
            return False
        self._offset, self._well_since, self._jumped = offset, self._jumped[1], None
        return True

    def has_lasted(self, monotonic: float) -> bool:
        """Tell whether the clock has gone on for so long that it was not merely wrong at the start."""
        return self._jumped is None and monotonic - self._well_since >= self._trust_after_s
