"""Access tokens in the RFC 9068 profile from a key and defaults; knows no account, no store and no request."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jotgate.core.claims import AAL1, AAL2, MAX_LIFETIME_S, MULTI_FACTOR, REGISTERED, is_text
from jotgate.core.encoding import encode_segment
from jotgate.core.errors import ClaimRefused, KeyRefused, SettingsError
from jotgate.core.jwk import Key, KeySet
from jotgate.core.lint import LintRules
from jotgate.core.token import DEFAULT_LINT, issue_token

Clock = Callable[[], int]
"""The wall clock in whole Unix seconds."""


def _now() -> int:
    return int(time.time())


def _new_token_id() -> str:
    return encode_segment(os.urandom(16))


class Issuer:
    """Signs access tokens in one issuer's name. Holds no state besides its settings; any thread may use it.

    `keys` is a private key, or a set whose first key that can sign is used. `ttl_s` is at most 3600 seconds. Raises
    SettingsError for settings, KeyRefused for keys that cannot sign. `lint` says what own claims are refused or warned
    of, because whoever holds a token can read it.
    """

    def __init__(
        self,
        *,
        issuer: str,
        keys: Key | KeySet,
        client_id: str = "web",
        ttl_s: int = 300,
        clock: Clock = _now,
        token_id: Callable[[], str] = _new_token_id,
        lint: LintRules = DEFAULT_LINT,
    ) -> None:
        faults = [
            f"{name} must be a text that is not empty."
            for name, value in (("issuer", issuer), ("client_id", client_id))
            if not is_text(value)
        ]
        if type(ttl_s) is not int or not 0 < ttl_s <= MAX_LIFETIME_S:
            faults.append(f"ttl_s must be 1 to {MAX_LIFETIME_S} seconds.")
        if faults:
            raise SettingsError(faults)
        self._keys = keys.as_set
        signing = next((key for key in self._keys if key.can_sign), None)
        if signing is None:
            raise KeyRefused("An issuer needs a private key that may sign.")
        self._signing = signing
        self._issuer, self._client_id, self._ttl_s = issuer, client_id, ttl_s
        self._clock, self._token_id, self._lint = clock, token_id, lint

    @property
    def keys(self) -> KeySet:
        """All keys; `issuer.keys.to_jwks()` is the public set for verifiers."""
        return self._keys

    @property
    def issuer(self) -> str:
        """The name that goes into `iss`."""
        return self._issuer

    @property
    def ttl_s(self) -> int:
        """The life of a token in seconds."""
        return self._ttl_s

    def issue(
        self,
        subject: str,
        *,
        audience: str | Iterable[str],
        scopes: Iterable[str] = (),
        session: str | None = None,
        auth_time: int | None = None,
        methods: Iterable[str] = (),
        client_id: str | None = None,
        claims: Mapping[str, Any] | None = None,
        issued_at: int | None = None,
    ) -> str:
        """Sign an access token for `subject` (RFC 9068 §2), alive for `ttl_s` from `issued_at` (Unix seconds) or now.

        `session` becomes `sid`, `scopes` the space-separated `scope`. `auth_time` is when the person proved who they
        are, `methods` how (names of RFC 8176: `amr`, and `acr`, which is "aal2" with "mfa" among them, else "aal1").
        Own `claims` come last. Raises ClaimRefused for own claims under a registered name, scopes that RFC 6749 §3.3
        and methods that RFC 8176 §6.1 does not allow, and what `issue_token` refuses.
        """
        if not is_text(subject):
            raise ClaimRefused("A subject is a text that is not empty.", claim="sub")
        now = self._clock() if issued_at is None else issued_at
        members: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": audience if isinstance(audience, str) else list(audience),
            "exp": now + self._ttl_s,
            "iat": now,
            "jti": self._token_id(),
            "client_id": self._client_id if client_id is None else client_id,
        }
        if granted := _names(scopes, "scope", "scopes"):
            members["scope"] = " ".join(granted)
        if session is not None:
            members["sid"] = session
        if auth_time is not None:
            members["auth_time"] = auth_time
        if used := _names(methods, "amr", "methods"):
            members["acr"] = AAL2 if MULTI_FACTOR in used else AAL1
            members["amr"] = used
        for name, value in (claims or {}).items():
            if name in REGISTERED or name in members:
                raise ClaimRefused(f"The claim {name!r} is the issuer's to set.", claim=name)
            members[name] = value
        return issue_token(members, self._signing, lint=self._lint, stacklevel=2)

    def __repr__(self) -> str:
        return f"<Issuer {self._issuer!r} {self._signing!r}>"


def _names(values: Iterable[str], claim: str, argument: str) -> list[str]:
    if isinstance(values, str):
        raise ClaimRefused(f"{argument} is a list of names, not one text.", claim=claim)
    names = list(values)
    for name in names:
        # the characters of RFC 6749 §3.3, and of RFC 8176 §6.1
        if not is_text(name) or not all("!" <= c <= "~" and c not in '"\\' for c in name):
            raise ClaimRefused(
                f"A name in {argument} is visible ASCII without quotes, backslashes and spaces.", claim=claim
            )
    return names
