"""Wires the network form of a verifier: transport, discovery, schedule and thread. Loaded only where it is used."""

import os
import random
from collections.abc import Callable

from jotgate.core.claims import Policy
from jotgate.verifier.discovery import KeyFetcher
from jotgate.verifier.feed import OnSilence, RemoteFeed
from jotgate.verifier.remote import InlineKeys, RemoteKeys
from jotgate.verifier.schedule import Schedule
from jotgate.verifier.transport import HttpsTransport, Transport


def remote_keys(
    *,
    policy: Policy,
    ca_file: str | os.PathLike[str] | None,
    jwks_uri: str | None,
    refresh_s: float,
    timeout_s: float,
    cooldown_s: float,
    max_key_age_offline_s: float,
    clock: Callable[[], int],
    monotonic: Callable[[], float],
    transport: Transport | None,
    jitter: Callable[[], float] | None,
    max_staleness_s: float,
    on_silence: OnSilence,
    inline: bool,
    verifier_token: str | None,
) -> RemoteKeys:
    """Return the keys of a policy's issuer, to be fetched when first asked for (arguments as in `Verifier`)."""
    transport = transport or HttpsTransport(ca_file)
    # Python's ordinary random numbers are good enough to spread load: they keep nothing secret.
    jitter = jitter or random.random
    fetch = KeyFetcher(
        issuer=policy.issuer,
        jwks_uri=jwks_uri,
        algorithms=policy.algorithms,
        transport=transport,
        timeout_s=timeout_s,
        monotonic=monotonic,
    )
    feed = RemoteFeed(
        issuer=policy.issuer,
        transport=transport,
        timeout_s=timeout_s,
        max_key_age_offline_s=max_key_age_offline_s,
        max_staleness_s=max_staleness_s,
        on_silence=on_silence,
        inline=inline,
        verifier_token=verifier_token,
        clock=clock,
        monotonic=monotonic,
        jitter=jitter,
    )
    return (InlineKeys if inline else RemoteKeys)(
        issuer=policy.issuer,
        fetch=fetch,
        feed=feed,
        schedule=Schedule(refresh_s=refresh_s, cooldown_s=cooldown_s, jitter=jitter),
        max_age_offline_s=max_key_age_offline_s,
        clock=clock,
        monotonic=monotonic,
    )
