"""The errors that jotgate raises; they know their stable code and nothing of HTTP bodies, tokens or keys.

`code` is for programs and never changes; `str(error)` is one sentence for a person. Neither ever contains token text,
key material or a claim's value: such sentences end up in logs.
"""

from collections.abc import Iterable


class JotgateError(Exception):
    """Anything that jotgate refuses."""

    code: str = "jotgate_error"


class TokenError(JotgateError):
    """A token that must not be believed: HTTP 401."""

    code = "token_refused"


class MalformedToken(TokenError):
    """Not a compact JWS in its one canonical form, or not a JSON object where one must be."""

    code = "malformed_token"


class AlgorithmRefused(TokenError):
    """The header names an algorithm that is unknown, not allowed by the policy, or not the key's own."""

    code = "algorithm_refused"


class UnknownKey(TokenError):
    """No key of the set is the one that the header asks for."""

    code = "unknown_key"


class BadSignature(TokenError):
    """The signature does not belong to this text and this key."""

    code = "bad_signature"


class TokenExpired(TokenError):
    """`exp` has passed, leeway included."""

    code = "token_expired"


class TokenNotYetValid(TokenError):
    """`nbf` or `iat` lies in the future, beyond the leeway."""

    code = "token_not_yet_valid"


class TokenRevoked(TokenError):
    """The token's session, or the token itself, has been revoked."""

    code = "token_revoked"


class ClaimRefused(TokenError):
    """A claim or header member is missing, of the wrong type, or not what is demanded.

    `claim` is its name, for programs that want to say which one.
    """

    code = "claim_refused"

    def __init__(self, message: str, *, claim: str) -> None:
        super().__init__(message)
        self.claim = claim


class KeyRefused(JotgateError):
    """A key that is malformed, weak, or may not be used for this."""

    code = "key_refused"


class KeySourceError(JotgateError):
    """The keys could not be had, so that no token can be judged: HTTP 503."""

    code = "key_source_unavailable"


class RequestRefused(JotgateError):
    """A request that is refused before anything was done; each reason is a class with its HTTP `status` and `code`."""

    code = "request_refused"
    status: int = 400


class SettingsError(JotgateError):
    """Settings that cannot work; `faults` lists all of them at once."""

    code = "settings_refused"

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))
