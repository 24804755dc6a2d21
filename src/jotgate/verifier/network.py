"""Wires the network form of a verifier: transport, discovery, schedule and thread. Loaded only where it is used."""

import os
import random
from collections.abc import Callable

from jotgate.core.claims import Policy
from jotgate.verifier.discovery import KeyFetcher
from jotgate.verifier.remote import RemoteKeys
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
) -> RemoteKeys:
    """Return the keys of a policy's issuer, to be fetched when first asked for (arguments as in `Verifier`)."""
    fetch = KeyFetcher(
        issuer=policy.issuer,
        jwks_uri=jwks_uri,
        algorithms=policy.algorithms,
        transport=transport or HttpsTransport(ca_file),
        timeout_s=timeout_s,
        monotonic=monotonic,
    )
    # Python's ordinary random numbers are good enough to spread load: they keep nothing secret.
    schedule = Schedule(refresh_s=refresh_s, cooldown_s=cooldown_s, jitter=jitter or random.random)
    return RemoteKeys(
        issuer=policy.issuer,
        fetch=fetch,
        schedule=schedule,
        max_age_offline_s=max_key_age_offline_s,
        clock=clock,
        monotonic=monotonic,
    )
