"""What the doctor says: one finding for each check, under one of the eight practices. Pure; it knows no check."""

from collections.abc import Iterable
from typing import Final, Literal, get_args

from msgspec import Struct

Practice = Literal["https", "stateless", "expire", "keys", "signatures", "revocable", "sensitive-data", "rate-limiting"]
PRACTICES: Final[tuple[Practice, ...]] = get_args(Practice)
TITLES: Final[dict[Practice, str]] = {
    "https": "Use HTTPS",
    "stateless": "Stateless",
    "expire": "Expire",
    "keys": "Strong and unique keys",
    "signatures": "Validate signatures",
    "revocable": "Revocable",
    "sensitive-data": "No sensitive data",
    "rate-limiting": "Rate limiting and throttling",
}
Status = Literal["pass", "warn", "fail"]


class Finding(Struct, frozen=True):
    """One check and what came of it. Neither text ever holds a secret, or the password of a URL."""

    practice: Practice
    check: str
    status: Status
    detail: str
    """One sentence."""
    remedy: str = ""
    """What to do; empty where there is nothing to do."""


def passed(practice: Practice, check: str, detail: str) -> Finding:
    """Nothing is to be done."""
    return Finding(practice, check, "pass", detail)


def warned(practice: Practice, check: str, detail: str, remedy: str) -> Finding:
    """It works, and could be safer."""
    return Finding(practice, check, "warn", detail, remedy)


def failed(practice: Practice, check: str, detail: str, remedy: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(practice, check, "fail", detail, remedy)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings by practice; within one, as the checks were made."""
    return sorted(findings, key=lambda finding: PRACTICES.index(finding.practice))


def exit_status(findings: Iterable[Finding], fail_on: Literal["warn", "fail"]) -> int:
    """Return 1 where something failed, or with ``fail_on="warn"`` where something warned; else 0."""
    bad = {"fail"} if fail_on == "fail" else {"fail", "warn"}
    return int(any(finding.status in bad for finding in findings))
