"""When to fetch the keys again: a pure decision over a monotonic clock; it must not know threads or networks."""

from collections.abc import Callable

MIN_REFRESH_S = 60.0
"""However short a max-age the publisher gives, its key set is not fetched more often than this."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0


class Schedule:
    """Remembers when the next fetch is due. Every `now` is in seconds of one monotonic clock.

    Args:
        refresh_s: time between two fetches while all goes well.
        cooldown_s: shortest time between two fetches that unknown keys asked for.
        jitter: a random number from 0 up to 1, so that many processes do not all ask at the same moment.
    """

    def __init__(self, *, refresh_s: float, cooldown_s: float, jitter: Callable[[], float]) -> None:
        self._refresh_s = refresh_s
        self._cooldown_s = cooldown_s
        self._jitter = jitter
        self._failures = 0
        self._asked_at: float | None = None
        self.due_at = float("-inf")

    def succeeded(self, now: float, max_age_s: int | None) -> None:
        """Take the next refresh from the publisher's max-age, within [MIN_REFRESH_S, refresh_s]; up to 10 % sooner."""
        self._failures = 0
        wished_s = self._refresh_s if max_age_s is None else max(float(max_age_s), MIN_REFRESH_S)
        self.due_at = now + min(wished_s, self._refresh_s) * (1 - 0.1 * self._jitter())

    def failed(self, now: float) -> None:
        """Back off: twice as long with each failure in a row, up to LONGEST_RETRY_S; up to half of it sooner."""
        delay_s = min(FIRST_RETRY_S * 2.0 ** min(self._failures, 16), LONGEST_RETRY_S, self._refresh_s)
        self._failures += 1
        self.due_at = now + delay_s * (1 - 0.5 * self._jitter())

    def ask(self, now: float) -> bool:
        """Tell whether an unknown key may cause a fetch now, and start the cooldown if so."""
        if self.is_cooling(now):
            return False
        self._asked_at = now
        self.due_at = now
        return True

    def is_cooling(self, now: float) -> bool:
        """Tell whether an unknown key may cause no fetch yet. One reading of one number: it takes no lock."""
        asked_at = self._asked_at
        return asked_at is not None and now - asked_at < self._cooldown_s
