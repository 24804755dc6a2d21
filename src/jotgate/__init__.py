"""jotgate: JWT authentication for APIs that have a web front end. The public names of the token library, nothing else.

`Verifier` is loaded when it is first asked for: TLS and HTTP would cost everybody else's start.
"""

from typing import TYPE_CHECKING

from jotgate.core.claims import Claims, Policy
from jotgate.core.errors import (
    AlgorithmRefused,
    BadSignature,
    ClaimRefused,
    JotgateError,
    KeyRefused,
    KeySourceError,
    MalformedToken,
    RequestRefused,
    SettingsError,
    TokenError,
    TokenExpired,
    TokenNotYetValid,
    TokenRevoked,
    UnknownKey,
)
from jotgate.core.jwk import Key, KeySet
from jotgate.core.jws import Jws, sign_jws, verify_jws
from jotgate.core.lint import ClaimsWarning, LintRules
from jotgate.core.presets import ABSENT
from jotgate.core.revocations import Revocation
from jotgate.core.token import issue_token, verify_token
from jotgate.issuer import Issuer
from jotgate.keygen import generate_key

if TYPE_CHECKING:
    from jotgate.verifier import Verifier

__all__ = [
    "ABSENT",
    "AlgorithmRefused",
    "BadSignature",
    "ClaimRefused",
    "Claims",
    "ClaimsWarning",
    "Issuer",
    "JotgateError",
    "Jws",
    "Key",
    "KeyRefused",
    "KeySet",
    "KeySourceError",
    "LintRules",
    "MalformedToken",
    "Policy",
    "RequestRefused",
    "Revocation",
    "SettingsError",
    "TokenError",
    "TokenExpired",
    "TokenNotYetValid",
    "TokenRevoked",
    "UnknownKey",
    "Verifier",
    "generate_key",
    "issue_token",
    "sign_jws",
    "verify_jws",
    "verify_token",
]


def __getattr__(name: str) -> object:
    if name == "Verifier":
        from jotgate.verifier import Verifier  # noqa: PLC0415 # see above

        return Verifier
    raise AttributeError(f"module 'jotgate' has no attribute {name!r}")
