"""Whether something may pass: the generic cell rate algorithm, purely. Time is an argument, in seconds of any clock.

What is kept of an allowance is two numbers: the units used, and when that was so. Units used up drain away at the
limit's rate, so that nothing kept and nothing used mean the same, and what has drained may be forgotten. (The usual
form of the algorithm keeps one point in time instead, which loses digits where a rate is high and a clock far on.)
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from jotgate.throttle.limits import Charge, Limit

TOLERANCE: Final = 1e-6
"""In units: what sums of floats may be off by, and far below anything that somebody could use."""


Used: TypeAlias = tuple[float, float]
"""So many units were used up at that time. A bare tuple: making anything else of it would be a third of the cost."""


class Standing(Struct, frozen=True):
    """How somebody stands with one limit, after the decision.

    Attributes:
        limit: which one.
        allowed: whether this limit allows it; another one may have refused.
        remaining: whole units that may come at once, now.
        retry_after_s: seconds until what this limit refused may pass; 0 where it did not refuse.
        reset_after_s: seconds until the whole burst may come again, if nothing does meanwhile.
    """

    limit: Limit
    allowed: bool
    remaining: int
    retry_after_s: float
    reset_after_s: float


class Decision(Struct, frozen=True):
    """The answer to several charges at once: all of them are taken, or none. `standings` are in the charges' order."""

    allowed: bool
    standings: tuple[Standing, ...]

    @property
    def retry_after_s(self) -> float:
        """Seconds until the same may pass if nothing else comes; 0 where it has passed."""
        return max((standing.retry_after_s for standing in self.standings), default=0.0)

    @property
    def violated(self) -> tuple[str, ...]:
        """The names of the limits that refused."""
        return tuple(standing.limit.name for standing in self.standings if not standing.allowed)


def drain(limit: Limit, used: Used, now: float) -> Used:
    """Return what of it is still used now.

    A clock that went back gives nothing back until it has caught up, and is waited for one window at most: a time from
    further in the future than that is a mistake, and must not lock anybody out for longer.
    """
    units, at = used
    elapsed = now - at
    if elapsed < 0.0:
        return units, min(at, now + limit.window_s)
    units -= elapsed * limit.quota / limit.window_s
    return (units if units > 0.0 else 0.0), now  # noqa: FURB136 # this is three times as fast as max()


def standing(charge: Charge, units: float, ahead_s: float, *, taken: bool) -> Standing:
    """Tell how somebody stands who had used so many units before, if the charge was taken, or else was not.

    `ahead_s` is how far in the future those units count from, which is 0 unless a clock went back.
    """
    limit = charge.limit
    unit_s = limit.window_s / limit.quota
    short = units + charge.cost - limit.burst
    if taken:
        units += charge.cost
        retry_after_s = 0.0
    else:
        retry_after_s = short * unit_s + ahead_s if short > TOLERANCE else 0.0
    left = limit.burst - units + TOLERANCE
    return Standing(
        limit,
        short <= TOLERANCE,
        int(left) if left > 0.0 else 0,
        retry_after_s,
        units * unit_s + ahead_s if units else 0.0,
    )


def decide(charges: Sequence[Charge], before: Sequence[Used], now: float) -> tuple[Decision, list[Used]]:
    """Decide on charges together: all or nothing.

    Args:
        charges: as `check_charges` lets them pass.
        before: what was used of each allowance, when it was last looked at.
        now: seconds, of the same clock.

    Returns:
        The decision, and what is used now.
    """
    taken = True
    after: list[Used] = []
    for charge, used in zip(charges, before, strict=True):
        units, at = drain(charge.limit, used, now)
        after.append((units, at))
        if units + charge.cost - charge.limit.burst > TOLERANCE:
            taken = False
    standings: list[Standing] = []
    for index, charge in enumerate(charges):
        units, at = after[index]
        standings.append(standing(charge, units, at - now, taken=taken))
        if taken:
            after[index] = units + charge.cost, at
    return Decision(taken, tuple(standings)), after


def give_back(charge: Charge, used: Used, now: float) -> Used:
    """Return what is used once the charge's cost is given back; never less than nothing."""
    units, at = drain(charge.limit, used, now)
    return max(units - charge.cost, 0.0), at
