"""From an issuer's name to its public keys: whom to ask, and what to believe of the answers (RFC 8414, RFC 7517).

It parses and decides; it must not know threads, clocks or how the bytes got here beyond the `Transport` it is handed.
"""

import re
from collections.abc import Callable, Sequence

from msgspec import Struct

from jotgate.core.encoding import JsonRefused, parse_json_object
from jotgate.core.errors import KeyRefused
from jotgate.core.jwk import KeySet
from jotgate.verifier.addresses import check_https_url, metadata_urls
from jotgate.verifier.transport import FetchError, Transport

# How many reasons for skipping keys are told: a set may hold hundreds.
_REASONS = 4
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


class Fetched(Struct, frozen=True):
    """A key set that may be used, and for how long its publisher lets it be kept (None: not said)."""

    keys: KeySet
    max_age_s: int | None


def parse_metadata(raw: bytes, issuer: str) -> str:
    """Return the `jwks_uri` of a metadata document.

    Raises:
        FetchError: not strict JSON, another issuer than exactly this one (RFC 8414 section 3.3), or no https
            `jwks_uri`.
    """
    document = _parse_object(raw)
    named = document.get("issuer")
    if named != issuer:
        told = ascii(named[:200]) if isinstance(named, str) else "nobody"
        raise FetchError(f"it is the metadata of {told}, not of {issuer!a}")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchError("it has no jwks_uri")
    try:
        check_https_url(uri)
    except ValueError as fault:
        raise FetchError(f"its jwks_uri {fault}") from None
    return uri


def parse_key_set(raw: bytes, algorithms: Sequence[str]) -> KeySet:
    """Return the keys of a published JWK set (RFC 7517).

    Keys that core cannot use are skipped, as the set may also serve others. A set with any secret in it (a symmetric
    key, a private half) is refused whole: what the network has seen signs nothing any more.

    Raises:
        FetchError: not a key set, or none that may be used, or no key for any of `algorithms`.
    """
    document = _parse_object(raw)
    members = document.get("keys")
    if not isinstance(members, list):
        raise FetchError("it is not a key set")
    if any(isinstance(jwk, dict) and not _PRIVATE_MEMBERS.isdisjoint(jwk) for jwk in members):
        raise FetchError("the key set publishes a secret or private key")
    try:
        keys = KeySet.from_jwks(document, algorithms=algorithms)
    except KeyRefused as fault:
        raise FetchError(f"the key set is refused ({fault})") from None
    if any(key.private or key.symmetric for key in keys):
        raise FetchError("the key set publishes a secret or private key")
    if not any(key.algorithm in algorithms for key in keys):
        # The reasons why keys were skipped are core's own sentences: they say what to do, and no material.
        why = "".join(f"; {reason}" for reason in dict.fromkeys(reason for _, reason in keys.skipped[:_REASONS]))
        raise FetchError(f"the key set holds no usable key for {' or '.join(algorithms)}{why}")
    return keys


def parse_max_age(cache_control: str) -> int | None:
    """Return the seconds of `max-age` (RFC 9111 section 5.2.2.1), None where there is none or it is not a number."""
    for directive in cache_control.split(","):
        name, _, value = directive.strip().partition("=")
        if name.lower() == "max-age":
            digits = value.strip('"')
            return int(digits) if re.fullmatch("[0-9]{1,9}", digits) else None
    return None


class KeyFetcher:
    """Finds the issuer's key set anew at each call, so that a moved `jwks_uri` is followed."""

    def __init__(
        self,
        *,
        issuer: str,
        jwks_uri: str | None,
        algorithms: Sequence[str],
        transport: Transport,
        timeout_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._jwks_uri = jwks_uri
        self._algorithms = algorithms
        self._transport = transport
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._metadata_urls = metadata_urls(issuer)

    def __call__(self) -> Fetched:
        """Fetch; all exchanges together take `timeout_s` at most.

        Raises:
            FetchError: with the address and the reason.
        """
        deadline = self._monotonic() + self._timeout_s
        uri = self._jwks_uri or self._discover(deadline)
        try:
            body, cache_control = self._get(uri, deadline)
            return Fetched(parse_key_set(body, self._algorithms), parse_max_age(cache_control))
        except FetchError as fault:
            raise FetchError(f"{uri}: {fault}") from None

    def _discover(self, deadline: float) -> str:
        faults: dict[str, list[str]] = {}
        for url in self._metadata_urls:
            try:
                body, _ = self._get(url, deadline)
                uri = parse_metadata(body, self._issuer)
            except FetchError as fault:
                # Any answer may belong to something else that lives there: a front end's page, say, for every path.
                faults.setdefault(str(fault), []).append(url)
                continue
            # The one that worked is asked first from now on.
            self._metadata_urls = tuple(dict.fromkeys((url, *self._metadata_urls)))
            return uri
        raise FetchError("; ".join(f"{' and '.join(urls)}: {fault}" for fault, urls in faults.items()))

    def _get(self, url: str, deadline: float) -> tuple[bytes, str]:
        left_s = deadline - self._monotonic()
        if left_s <= 0:
            raise FetchError("no time left")
        answer = self._transport(url, left_s)
        if 300 <= answer.status < 400:
            raise FetchError(f"redirects (status {answer.status}) are not followed")
        if answer.status != 200:
            raise FetchError(f"status {answer.status}")
        return answer.body, answer.cache_control


def _parse_object(raw: bytes) -> dict[str, object]:
    try:
        return parse_json_object(raw)
    except JsonRefused as fault:
        raise FetchError(f"the answer is not the JSON object that it should be ({fault.reason})") from None
