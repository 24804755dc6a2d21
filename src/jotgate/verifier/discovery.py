"""From an issuer's name to its public keys: whom to ask, and what to believe of the answers (RFC 8414, RFC 7517).

It parses and decides; it must not know threads, clocks or how the bytes got here beyond the `Transport` it is handed.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from jotgate.core.encoding import JsonRefused, parse_json_object
from jotgate.core.errors import KeyRefused
from jotgate.core.jwk import KeySet
from jotgate.verifier.addresses import check_https_url, metadata_urls
from jotgate.verifier.transport import FetchError, Transport

# How many reasons for skipping keys are told: a set may hold hundreds.
_REASONS = 4
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


class FeedAddresses(Struct, frozen=True):
    """Where an issuer's revocation feed is, as its metadata names it."""

    snapshot_uri: str
    jwks_uri: str
    stream_uri: str | None


class Fetched(Struct, frozen=True):
    """A key set that may be used, and for how long its publisher lets it be kept (None: not said)."""

    keys: KeySet
    max_age_s: int | None
    feed: FeedAddresses | None = None
    """None where the issuer has no feed, or no metadata were read."""


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
    return _address(document, "jwks_uri")


def parse_feed(raw: bytes) -> FeedAddresses | None:
    """Return where the revocation feed is that a metadata document names; None where it names none.

    Raises:
        FetchError: it names one, but not by https addresses.
    """
    document = _parse_object(raw)
    if "jotgate_revocations_uri" not in document:
        return None
    stream = "jotgate_revocations_stream_uri"
    return FeedAddresses(
        snapshot_uri=_address(document, "jotgate_revocations_uri"),
        jwks_uri=_address(document, "jotgate_revocations_jwks_uri"),
        stream_uri=_address(document, stream) if stream in document else None,
    )


def _address(document: Mapping[str, object], member: str) -> str:
    uri = document.get(member)
    if not isinstance(uri, str):
        raise FetchError(f"it has no {member}")
    try:
        check_https_url(uri)
    except ValueError as fault:
        raise FetchError(f"its {member} {fault}") from None
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
        uri, feed = (self._jwks_uri, None) if self._jwks_uri else self._discover(deadline)
        try:
            body, cache_control = self._get(uri, deadline)
            return Fetched(parse_key_set(body, self._algorithms), parse_max_age(cache_control), feed)
        except FetchError as fault:
            raise FetchError(f"{uri}: {fault}") from None

    def _discover(self, deadline: float) -> tuple[str, FeedAddresses | None]:
        faults: dict[str, list[str]] = {}
        for url in self._metadata_urls:
            try:
                body, _ = self._get(url, deadline)
                found = parse_metadata(body, self._issuer), parse_feed(body)
            except FetchError as fault:
                # Any answer may belong to something else that lives there: a front end's page, say, for every path.
                faults.setdefault(str(fault), []).append(url)
                continue
            # The one that worked is asked first from now on.
            self._metadata_urls = tuple(dict.fromkeys((url, *self._metadata_urls)))
            return found
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
