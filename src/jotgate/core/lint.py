"""What must not go into a token, because anybody who holds it can read it: the rules by which claims are issued.

Passwords, card data and the like are refused by name; private keys, other tokens and password hashes by value. Values
that look like card numbers, IBANs, e-mail addresses or phone numbers warn, unless the rules say otherwise. Neither
registered claims nor identifiers are taken for such: both are opaque by design. Messages name a claim and a reason,
and repeat no value. This finds slips; it is no proof that a token is harmless. It knows no key and no signature.
"""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from jotgate.core.claims import REGISTERED
from jotgate.core.errors import ClaimRefused, SettingsError

Action: TypeAlias = Literal["refuse", "warn", "allow"]

MAX_PAYLOAD_BYTES = 4096


class ClaimsWarning(UserWarning):
    """A claim that probably should not be in a token; `claim` is its path, such as `profile.contacts[0]`."""

    def __init__(self, message: str, *, claim: str) -> None:
        super().__init__(message)
        self.claim = claim


class LintRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the lint of claims refuses, warns of, and lets pass. An immutable value, passed by hand.

    - `refused_names`: names that are refused besides the built-in ones, `allowed_names`: names that are not refused
      although the built-in list would. Case, and the way in which words are joined, do not matter.
    - `card_numbers`, `ibans`, `email_addresses`, `phone_numbers`: "refuse", "warn" (a `ClaimsWarning` through Python's
      `warnings`) or "allow".
    - `max_payload_bytes`: the most that a token's claims may take as JSON.

    Private keys, tokens and password hashes are always refused. Raises SettingsError, which lists all faults.
    """

    refused_names: tuple[str, ...] = ()
    allowed_names: tuple[str, ...] = ()
    card_numbers: Action = "warn"
    ibans: Action = "warn"
    email_addresses: Action = "warn"
    phone_numbers: Action = "warn"
    max_payload_bytes: int = MAX_PAYLOAD_BYTES

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be 'refuse', 'warn' or 'allow'."
            for name in ("card_numbers", "ibans", "email_addresses", "phone_numbers")
            if getattr(self, name) not in ("refuse", "warn", "allow")
        ]
        for name in ("refused_names", "allowed_names"):
            names = _settled(getattr(self, name))
            if names is None:
                faults.append(f"{name} must list names of claims.")
            else:
                force_setattr(self, name, names)
        if type(self.max_payload_bytes) is not int or self.max_payload_bytes <= 0:
            faults.append("max_payload_bytes must be a positive number of bytes.")
        if faults:
            raise SettingsError(faults)


def _settled(names: object) -> tuple[str, ...] | None:
    if isinstance(names, str) or not isinstance(names, Iterable):
        return None
    if names == ():
        return ()
    from jotgate.core.sensitive import words_of  # noqa: PLC0415 # see lint_claims

    settled = tuple(words_of(name) if isinstance(name, str) else "" for name in names)
    return settled if all(settled) else None


def lint_claims(claims: dict[str, Any], payload_bytes: int, rules: LintRules) -> list[ClaimsWarning]:
    """Judge claims that are about to be signed and give what to warn of. Raises ClaimRefused.

    `payload_bytes` is their size as JSON. Whatever is refused wins over whatever is warned of.
    """
    if payload_bytes > rules.max_payload_bytes:
        raise ClaimRefused(f"The claims take more than {rules.max_payload_bytes} bytes.", claim="")
    if REGISTERED.issuperset(claims):
        return []
    # Not at the top: compiling its patterns takes milliseconds, which those who only verify need not pay.
    from jotgate.core.sensitive import find_sensitive  # noqa: PLC0415

    own = {name: value for name, value in claims.items() if name not in REGISTERED}
    warnings: list[ClaimsWarning] = []
    for finding in find_sensitive(own, rules.refused_names, rules.allowed_names):
        action = "refuse" if finding.kind == "secret" else getattr(rules, finding.kind)
        if action == "refuse":
            raise ClaimRefused(finding.message, claim=finding.claim)
        if action == "warn":
            warnings.append(ClaimsWarning(finding.message, claim=finding.claim))
    return warnings
