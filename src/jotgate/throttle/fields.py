"""What answers say about limits: draft-ietf-httpapi-ratelimit-headers-11 (May 2026), RFC 9651, RFC 9457, RFC 9110.

Pure: from decisions to field values. Whether a field is sent is for those who answer.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

from jotgate.throttle.decisions import Decision, Standing
from jotgate.throttle.limits import Limit

PROBLEM_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The draft's section 5.1."""

PROBLEM_TITLE: Final = "Request cannot be satisfied as assigned quota has been exceeded"
CODE: Final = "quota_exceeded"


def policy_field(limits: Iterable[Limit]) -> str:
    """Return the value of `RateLimit-Policy` (section 3): what is allowed, the same in each answer.

    `jotgate-burst` stands where less or more than the quota may come at once.
    """
    return ", ".join(
        f'"{limit.name}";q={limit.quota};w={limit.window_s}'
        + (f";jotgate-burst={limit.burst}" if limit.burst != limit.quota else "")
        for limit in limits
    )


def limit_field(decision: Decision) -> str:
    """Return the value of `RateLimit` (section 4): how the sender stands.

    After a refusal it names the limits that refused, and no others: section 6 wants `Retry-After` not to be earlier
    than any `t`, and those of the others say nothing about when this request may pass.
    """
    standings = [each for each in decision.standings if decision.allowed or not each.allowed]
    return ", ".join(f'"{each.limit.name}";r={each.remaining};t={_effective_window_s(each)}' for each in standings)


def retry_after_field(decision: Decision) -> str:
    """Return the value of `Retry-After` (RFC 9110 section 10.2.3) for a refusal: whole seconds, never too early."""
    return str(max(1, math.ceil(decision.retry_after_s)))


def header_fields(decision: Decision) -> dict[str, str]:
    """Return all fields for the answer to a request that was counted, by lower-case names."""
    fields = {
        "ratelimit-policy": policy_field(standing.limit for standing in decision.standings),
        "ratelimit": limit_field(decision),
    }
    if not decision.allowed:
        fields["retry-after"] = retry_after_field(decision)
    return fields


def problem(decision: Decision) -> dict[str, Any]:
    """Return the problem document (RFC 9457) for a refusal, to be sent with 429 as `application/problem+json`."""
    wait_s = int(retry_after_field(decision))
    return {
        "type": PROBLEM_TYPE,
        "title": PROBLEM_TITLE,
        "status": 429,
        "code": CODE,
        "detail": f"Too many requests. Try again in {wait_s} second{'s' if wait_s > 1 else ''}.",
        "violated-policies": list(decision.violated),
    }


def _effective_window_s(standing: Standing) -> int:
    """Return the seconds within which the sender should use no more than what remains.

    Where something remains, that is as long as it takes for so much to come back: who spreads it over this time is
    never refused, and the quotient of the two never promises more than the limit's own rate (section 6, section 8.5).
    Where nothing remains, or the request was refused, it is until the next unit, or until this request, fits.
    """
    limit = standing.limit
    unit_s = limit.window_s / limit.quota
    if not standing.allowed:
        return max(1, math.ceil(standing.retry_after_s))
    if standing.remaining:
        return math.ceil(standing.remaining * unit_s)
    # What is used and has not drained is under one unit short of the burst.
    return max(1, math.ceil(standing.reset_after_s - (limit.burst - 1) * unit_s))
