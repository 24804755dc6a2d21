"""What a presented refresh token means: whether it is current, replayed within the grace, stolen, or over.

Rotation follows RFC 9700 §4.14.2 with a grace for what really happens to honest browsers: two tabs refreshing at once,
and answers that get lost. The grace never forks a family: a replay gets the *current* token, and no new one. Pure; the
store calls this inside its writing transaction, and nothing here knows of it.
"""

import enum

import msgspec
from msgspec import Struct

from jotgate.server.records import Family

GRACE_S = 10  # any remembered retired generation: parallel tabs, retries
LOST_ANSWER_GRACE_S = 60  # the direct predecessor, while its successor has never been presented
REMEMBERED_GENERATIONS = 16


class Standing(enum.Enum):
    """How a presented generation stands to its family at a moment."""

    CURRENT = "current"
    GRACE = "grace"  # retired, but honestly explainable: answer with the current token
    REUSED = "reused"  # somebody holds a token that its owner cannot be using: revoke the family
    ENDED = "ended"  # logged out, revoked, or past its idle or absolute end


class Rotated(Struct, frozen=True):
    """The presented token was current; `family` is the successor."""

    family: Family


class Replayed(Struct, frozen=True):
    """The presented token was retired a moment ago; answer with the current token of the unchanged `family`."""

    family: Family


class Reused(Struct, frozen=True):
    """The presented token was retired too long ago, or never issued: the family must be revoked."""


class Ended(Struct, frozen=True):
    """The session is over, or was never there. Nothing brings it back."""


Outcome = Rotated | Replayed | Reused | Ended


def judge(family: Family, presented_generation: int, *, now: int) -> Standing:
    """Say how the token of `presented_generation` stands, without using it up.

    A retirement that lies in the future (another replica's clock, or a clock set back) counts by its distance, so that
    a clock jump can stretch the grace by no more than the grace itself.
    """
    if family.ended_at is not None or now >= family.ends_at or now >= family.idle_ends_at:
        return Standing.ENDED
    if presented_generation == family.generation:
        return Standing.CURRENT
    retired_at = dict(family.retired).get(presented_generation)
    if retired_at is None or presented_generation > family.generation:
        return Standing.REUSED
    distance_s = abs(now - retired_at)
    if distance_s <= GRACE_S:
        return Standing.GRACE
    lost_answer = presented_generation == family.generation - 1 and not family.confirmed
    return Standing.GRACE if lost_answer and distance_s <= LOST_ANSWER_GRACE_S else Standing.REUSED


def rotate(family: Family, presented_generation: int, *, now: int, mac_kid: str, idle_s: int) -> Outcome:
    """Decide what presenting `presented_generation` at `now` does to `family`.

    `mac_kid` names the key that a successor is authenticated with; `idle_s` is how long a session may lie unused.
    """
    match judge(family, presented_generation, now=now):
        case Standing.ENDED:
            return Ended()
        case Standing.REUSED:
            return Reused()
        case Standing.GRACE:
            return Replayed(family)
    return Rotated(
        msgspec.structs.replace(
            family,
            generation=family.generation + 1,
            mac_kid=mac_kid,
            retired=(*family.retired, (family.generation, now))[-REMEMBERED_GENERATIONS:],
            confirmed=False,
            seen_at=now,
            idle_ends_at=idle_end(now, idle_s, family.ends_at),
        )
    )


def idle_end(now: int, idle_s: int, ends_at: int) -> int:
    """When a session used at `now` ends if nobody uses it again: never past its absolute end."""
    return min(now + idle_s, ends_at)
