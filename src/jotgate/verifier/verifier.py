"""`Verifier`: core's `verify_token` with a policy and the keys of this moment; it must not know servers or frameworks.

The usual way reads memory only: no lock, no request, no thread switch.
"""

import os
import re
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from msgspec import Struct

from jotgate.core.algorithms import ALGORITHMS, ASYMMETRIC
from jotgate.core.claims import Claims, Policy
from jotgate.core.errors import KeySourceError, SettingsError, UnknownKey
from jotgate.core.jwk import Key, KeySet
from jotgate.core.revocations import Revocation, Revocations
from jotgate.core.token import verify_token
from jotgate.verifier.addresses import check_https_url
from jotgate.verifier.cache import CacheStatus, TokenCache
from jotgate.verifier.snapshot import Announcing, KeySource, Snapshot, Starting

if TYPE_CHECKING:
    from jotgate.verifier.attempt import Attempt
    from jotgate.verifier.feed import FeedStatus
    from jotgate.verifier.remote import RemoteKeys
    from jotgate.verifier.transport import Transport

Mode = Literal["fixed", "in_process", "network"]


_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750 section 2.1


def wall_clock() -> int:
    """Return the Unix time in whole seconds."""
    return int(time.time())


class Status(Struct, frozen=True):
    """What a verifier has to decide by; for people, logs and metrics. It holds no secret."""

    mode: Mode
    """`fixed` keys given once, a source `in_process`, or the `network`."""
    issuer: str
    keys: tuple[str, ...]
    """The `kid`s that are known."""
    ready: bool
    """Whether tokens can be judged now."""
    fetched_at: int | None
    """Unix time of the last successful fetch; None without a network or before the first."""
    last_error: str | None
    """Why the last fetch failed; None after one that succeeded."""
    feed: "FeedStatus | None" = None
    """How revocations are heard of over the network; None without one."""
    cache: CacheStatus | None = None
    """The cache of verified tokens; None where there is none."""
    skipped: tuple[tuple[str | int, str], ...] = ()
    """The keys of the issuer's set that cannot be used: pairs of `kid` (or position in the set) and reason."""


class _FixedKeys:
    """Keys that never change."""

    def __init__(self, keys: KeySet) -> None:
        self._snapshot = Snapshot(keys=keys, revocations=Revocations())

    def snapshot(self) -> Snapshot:
        return self._snapshot


class Verifier:
    """Judges tokens of one issuer for one audience. One for each process, made anywhere, shared by all threads.

    The keys are `keys`, or come from a `source` in this process, or (neither given) from the issuer over HTTPS: its
    metadata (RFC 8414, OpenID Connect Discovery 1.0) names the key set, or `jwks_uri` does without any metadata. The
    network is first used, and a background thread first started, when the first token is verified.

    Args:
        issuer: what `iss` must be, exactly; for the network form an https URL.
        audience: what `aud` must contain.
        policy: all that is demanded of a token, instead of `issuer`, `audience`, `algorithms` and `leeway_s`: for other
            issuers' tokens, as in `Verifier(policy=Policy.auth0(…))`, and for own claims' types.
        keys: the issuer's keys, given once; no network then.
        source: gives the keys and revocations of each moment; no network then.
        ca_file: PEM file of the only authority to trust for the issuer's certificate; otherwise the system's.
        jwks_uri: https URL of the key set, for issuers without metadata.
        algorithms: the only ones allowed. Symmetric ones take `keys` or `source`.
        leeway_s: how far the issuer's clock may be off, at most 60.
        refresh_s: time between two fetches. The publisher's max-age may shorten it, to a minute at least.
        timeout_s: for one fetch as a whole, however slowly an answer drips in.
        key_wait_s: how long `verify` and `averify` wait at most for keys not known yet: at the first start, and
            when a token names an unknown one, counted from where the fetch for it began. `verify` inside a running
            event loop waits 0.
        cooldown_s: tokens with unknown keys cause one fetch in this time at most.
        max_key_age_offline_s: how long the last good keys are used when no fetch succeeds any more.
        max_staleness_s: how long nothing may be heard of revocations before `on_silence` applies.
        on_silence: `accept` tokens then until their own end, so that an outage of the issuer is none of the API's; or
            `refuse` them with KeySourceError (HTTP 503).
        freshness: `background` keeps keys and revocations fresh by threads; `inline` has none, and fetches what is due
            in `verify` and `averify` themselves, for functions-as-a-service.
        verifier_token: a text by which the issuer knows its verifiers (its `JOTGATE_VERIFIER_TOKENS`), so that no limit
            of the feed's counts for this one. It goes to the issuer's own host with each question for revocations.
        cache_entries: how many verified tokens are remembered at most, so that their signatures are not checked at
            each use; 0 for none. Time and revocations are checked at each use all the same.
        cache_bytes: how much memory they take at most, by an estimate that is rather too high.
        clock: Unix time in whole seconds.
        monotonic: seconds of a clock that is never set.
        transport: one HTTPS GET; for tests and unusual networks.
        jitter: random numbers from 0 up to 1; spreads the fetches of many processes.

    Raises:
        SettingsError: with every fault at once.
    """

    def __init__(
        self,
        *,
        issuer: str = "",
        audience: str = "",
        policy: Policy | None = None,
        keys: KeySet | Key | None = None,
        source: KeySource | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        jwks_uri: str | None = None,
        algorithms: Sequence[str] = ASYMMETRIC,
        leeway_s: int = 5,
        refresh_s: float = 300,
        timeout_s: float = 5,
        key_wait_s: float = 2,
        cooldown_s: float = 30,
        max_key_age_offline_s: float = 3600,
        max_staleness_s: float = 30,
        on_silence: Literal["accept", "refuse"] = "accept",
        freshness: Literal["background", "inline"] = "background",
        verifier_token: str | None = None,
        cache_entries: int = 4096,
        cache_bytes: int = 8 * 1024 * 1024,
        clock: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
        transport: "Transport | None" = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        faults: list[str] = []
        if policy is not None:
            if issuer or audience or algorithms is not ASYMMETRIC or leeway_s != 5:
                faults.append("policy stands instead of issuer, audience, algorithms and leeway_s: give it alone.")
            self._policy, issuer, algorithms = policy, policy.issuer, policy.algorithms
        else:
            try:
                self._policy = Policy(issuer=issuer, audience=audience, algorithms=tuple(algorithms), leeway_s=leeway_s)
            except SettingsError as refused:
                faults.extend(refused.faults)
        if keys is not None and source is not None:
            faults.append("keys and source exclude each other.")
        if keys is not None and not keys.as_set:
            faults.append("keys holds no key.")
        faults += [
            f"{name} must be a whole number that is not negative."
            for name, value in (("cache_entries", cache_entries), ("cache_bytes", cache_bytes))
            if type(value) is not int or value < 0
        ]
        if verifier_token is not None and not _BEARER.fullmatch(verifier_token):
            faults.append("verifier_token must be letters, digits and - . _ ~ + / only.")
        if verifier_token is not None and transport is not None:
            faults.append("verifier_token needs jotgate's own transport: one of your own can send what it likes.")
        if on_silence not in ("accept", "refuse"):
            faults.append("on_silence is 'accept' or 'refuse'.")
        if freshness not in ("background", "inline"):
            faults.append("freshness is 'background' or 'inline'.")
        self._clock = clock
        self._monotonic = monotonic
        self._key_wait_s = key_wait_s
        self._remote: RemoteKeys | None = None
        self._source: KeySource
        self._starting: Starting | None = None
        self._mode: Mode
        if keys is not None:
            self._mode, self._source = "fixed", _FixedKeys(keys.as_set)
        elif source is not None:
            self._mode, self._source = "in_process", source
            if isinstance(source, Starting):
                self._starting = source
        else:
            faults.extend(
                _network_faults(
                    urls={"issuer": issuer, "jwks_uri": jwks_uri},
                    algorithms=algorithms,
                    positive={"refresh_s": refresh_s, "timeout_s": timeout_s, "max_staleness_s": max_staleness_s},
                    not_negative={"key_wait_s": key_wait_s, "cooldown_s": cooldown_s},
                )
            )
            if on_silence == "refuse" and jwks_uri is not None:
                faults.append("on_silence='refuse' needs the issuer's metadata, which jwks_uri goes without.")
            if not max_key_age_offline_s > refresh_s:
                faults.append("max_key_age_offline_s must be more than refresh_s.")
        if faults:
            raise SettingsError(faults)
        claims_type = self._policy.claims_type
        self._cache = TokenCache(cache_entries, cache_bytes, claims_type) if cache_entries else None
        self._find = _find_nothing
        if self._cache is not None:
            self._find = self._cache.find if claims_type is None else self._cache.find_typed
        if keys is not None or source is not None:
            return

        # Imported here, because ssl, http.client and asyncio cost more than all the rest of jotgate's token library,
        # and whoever brings keys along needs none of them.
        from jotgate.verifier.network import remote_keys  # noqa: PLC0415

        self._mode = "network"
        self._source = self._remote = remote_keys(
            policy=self._policy,
            ca_file=ca_file,
            jwks_uri=jwks_uri,
            refresh_s=refresh_s,
            timeout_s=timeout_s,
            cooldown_s=cooldown_s,
            max_key_age_offline_s=max_key_age_offline_s,
            clock=clock,
            monotonic=monotonic,
            transport=transport,
            jitter=jitter,
            max_staleness_s=max_staleness_s,
            on_silence=on_silence,
            inline=freshness == "inline",
            verifier_token=verifier_token,
        )
        # Its thread keeps the remote part alive, so a verifier that nobody holds any more has to end it.
        weakref.finalize(self, self._remote.close).atexit = False

    @property
    def issuer(self) -> str:
        """What `iss` has to be."""
        return self._policy.issuer

    @property
    def audience(self) -> str:
        """What `aud` has to contain."""
        return self._policy.audience

    @property
    def clock(self) -> Callable[[], int]:
        """The wall clock by which tokens are judged."""
        return self._clock

    @property
    def leeway_s(self) -> int:
        """How many seconds of difference between clocks are forgiven."""
        return self._policy.leeway_s

    def verify(self, token: str | bytes) -> Claims:
        """Return the claims of a token that may be believed.

        May block this thread for `key_wait_s` when keys have to be fetched first, save inside a running event loop,
        where it raises KeySourceError or UnknownKey at once: use `averify` there.

        Raises:
            TokenError: one of its subclasses says why the token is refused (HTTP 401).
            KeySourceError: no keys to judge by (HTTP 503).
        """
        seen: Snapshot | None = None
        try:
            seen = self._source.snapshot()
            # As `_judge` does it, one call less on the way that most tokens take.
            now = self._clock()
            if (known := self._find(token, seen.keys, now)) is None:
                return self._prove(token, seen, now)
            seen.revocations.check_revoked(known)
        except (KeySourceError, UnknownKey):
            attempt = self._remote.attempt_after(seen) if self._remote is not None else None
            if self._remote is None or attempt is None:
                raise
        else:
            return known
        attempt.wait_outside_loop(self._remote.patience_s(attempt, seen, self._key_wait_s))
        return self._judge(token, self._remote.latest())

    async def averify(self, token: str | bytes) -> Claims:
        """Do the same as `verify` without ever blocking the event loop: where keys are fetched, other tasks go on."""
        if self._remote is not None:
            await self._remote.refresh_inline()
        elif self._starting is not None and not self._starting.is_started:
            await self._starting.when_started()
        seen: Snapshot | None = None
        try:
            seen = self._source.snapshot()
            now = self._clock()
            if (known := self._find(token, seen.keys, now)) is None:
                return self._prove(token, seen, now)
            seen.revocations.check_revoked(known)
        except (KeySourceError, UnknownKey):
            attempt = self._remote.attempt_after(seen) if self._remote is not None else None
            if self._remote is None or attempt is None:
                raise
        else:
            return known
        await attempt.wait_async(self._remote.patience_s(attempt, seen, self._key_wait_s))
        await self._remote.refresh_inline()
        return self._judge(token, self._remote.latest())

    def wait_ready(self, timeout_s: float) -> None:
        """Block until tokens can be judged, through as many failed fetches as fit into `timeout_s`.

        It does block a running event loop too: `await_ready` does not.

        Raises:
            KeySourceError: they still cannot, with the last reason.
        """
        deadline = self._monotonic() + timeout_s
        while (attempt := self._attempt_before(deadline)) is not None:
            attempt.wait(deadline - self._monotonic())

    async def await_ready(self, timeout_s: float) -> None:
        """Do the same as `wait_ready` without blocking the event loop."""
        if self._remote is not None and self._remote.inline:
            await self._remote.off_loop(partial(self.wait_ready, timeout_s))
            return
        deadline = self._monotonic() + timeout_s
        while (attempt := self._attempt_before(deadline)) is not None:
            await attempt.wait_async(deadline - self._monotonic())

    def status(self) -> Status:
        """Tell what this verifier decides by. Starts nothing and waits for nothing."""
        remote = self._remote
        cache = self._cache.status() if self._cache is not None else None
        if remote is not None:
            good = remote.good
            return Status(
                mode=self._mode,
                issuer=self.issuer,
                keys=_kids(good.snapshot) if good else (),
                ready=good is not None and self._monotonic() < good.stale_at,
                fetched_at=good.fetched_at if good else None,
                last_error=remote.last_error,
                feed=remote.feed.status(),
                cache=cache,
                skipped=good.snapshot.keys.skipped if good else (),
            )
        if self._starting is not None and not self._starting.is_started:
            return Status(self._mode, self.issuer, (), False, None, last_error=None, cache=cache)
        try:
            snapshot = self._source.snapshot()
        except KeySourceError as refusal:
            return Status(self._mode, self.issuer, (), False, None, last_error=str(refusal), cache=cache)
        skipped = snapshot.keys.skipped
        return Status(self._mode, self.issuer, _kids(snapshot), True, None, None, cache=cache, skipped=skipped)

    def check_revoked(self, claims: Claims) -> None:
        """Look once more whether claims that `verify` gave have been revoked since; reads memory only.

        Between `verify` and the moment from which `on_revoked`'s callback knows of a connection, a revocation can come.

        Raises:
            TokenRevoked: they have been.
            KeySourceError: nobody can tell any more (`on_silence="refuse"`).
        """
        self._source.snapshot().revocations.check_revoked(claims)

    def on_revoked(self, callback: Callable[[Revocation], None]) -> Callable[[], None]:
        """Call `callback` with each new revocation, right after it counts here; returns what ends that.

        For connections that outlive a request: close those whose claims `revocation.covers(claims)`. It is called on
        a background thread and has to return soon; what it raises is logged and goes no further. Keys that are given
        once are never revoked, and a source in this process has to announce.
        """
        if self._remote is not None:
            return self._remote.feed.subscribe(callback)
        if isinstance(self._source, Announcing):
            return self._source.subscribe(partial(_call_with_each, callback))
        return _nothing_to_end

    def close(self) -> None:
        """End the background threads, if there are any. Using the verifier again starts it again."""
        if self._remote is not None:
            self._remote.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Verifier issuer={self.issuer!r} audience={self.audience!r} mode={self._mode}>"

    def _judge(self, token: str | bytes, snapshot: Snapshot) -> Claims:
        now = self._clock()
        if (known := self._find(token, snapshot.keys, now)) is None:
            return self._prove(token, snapshot, now)
        snapshot.revocations.check_revoked(known)
        return known

    def _prove(self, token: str | bytes, snapshot: Snapshot, now: int) -> Claims:
        claims = verify_token(token, snapshot.keys, self._policy, now)
        snapshot.revocations.check_revoked(claims)
        if self._cache is not None:
            self._cache.add(token, snapshot.keys, claims, now, self._policy.leeway_s)
        return claims

    def _attempt_before(self, deadline: float) -> "Attempt | None":
        """Return the fetch to wait for while there are no keys; None when there are."""
        coming = self._remote.coming() if self._remote is not None else None
        try:
            self._source.snapshot()
        except KeySourceError:
            if self._remote is None or coming is None:
                raise
            if self._monotonic() < deadline:
                return coming
            self._remote.latest()
        return None


def _call_with_each(callback: Callable[[Revocation], None], revocations: Sequence[Revocation]) -> None:
    for revocation in revocations:
        callback(revocation)


def _nothing_to_end() -> None:
    """End nothing: there is nobody who calls back."""


def _find_nothing(token: str | bytes, keys: KeySet, now: int) -> Claims | None:
    """Stand for a cache where there is none."""
    return None


def _kids(snapshot: Snapshot) -> tuple[str, ...]:
    return tuple(key.kid for key in snapshot.keys)


def _network_faults(
    *,
    urls: Mapping[str, str | None],
    algorithms: Sequence[str],
    positive: Mapping[str, float],
    not_negative: Mapping[str, float],
) -> list[str]:
    faults: list[str] = []
    for name, url in urls.items():
        try:
            if isinstance(url, str):
                check_https_url(url, query=name != "issuer")
        except ValueError as fault:
            faults.append(f"{name} {fault}; with neither keys nor a source, the keys are fetched from there.")
    symmetric = [name for name in algorithms if name in ALGORITHMS and ALGORITHMS[name].symmetric]
    if symmetric:
        faults.append(f"{' and '.join(symmetric)} cannot have keys that come over a network: give keys.")
    faults += [f"{name} must be more than 0." for name, value in positive.items() if not value > 0]
    faults += [f"{name} must not be negative." for name, value in not_negative.items() if not value >= 0]
    return faults
