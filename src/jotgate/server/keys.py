"""The server's own keys: made on first start, sealed under the master key, opened into memory at every start."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jotgate.core.jwk import Key
from jotgate.keygen import generate_key
from jotgate.server.records import SealedKey
from jotgate.server.refresh_tokens import MAC_KEY_BYTES, RefreshTokens, new_mac_kid
from jotgate.server.sealing import MasterKey
from jotgate.server.store import Store

SIGNING_ALGORITHM: Final = "ES256"
_ACCESS: Final = "access"
_REFRESH: Final = "refresh"
_FEED: Final = "feed"


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """One key a purpose.

    ``signing`` signs access tokens, ``feed`` the revocation feed; ``refresh_tokens`` makes and checks refresh tokens.
    """

    signing: Key
    feed: Key
    refresh_tokens: RefreshTokens


def load_keys(store: Store, master: MasterKey, now: int, random: Callable[[int], bytes]) -> ServerKeys:
    """Return the server's keys; those that are missing are made. Blocks.

    Of two processes that start at once, one makes a key and both use that one.

    Raises:
        SettingsError: the master key is not the one that the keys were sealed with.
    """
    stored = {key.purpose: key for key in store.load_keys()}
    access = stored.get(_ACCESS) or store.add_key_if_none(_new_signing_key(_ACCESS, master, now))
    feed = stored.get(_FEED) or store.add_key_if_none(_new_signing_key(_FEED, master, now))
    refresh = stored.get(_REFRESH) or store.add_key_if_none(_new_mac_key(master, now, random))
    signing = _unseal(master, access)  # the first to be told when the master key is another one
    mac_key = master.unseal(refresh.sealed, purpose=_REFRESH, kid=refresh.kid)
    return ServerKeys(
        signing=signing,
        feed=_unseal(master, feed),
        refresh_tokens=RefreshTokens({refresh.kid: mac_key}, active=refresh.kid),
    )


def _unseal(master: MasterKey, key: SealedKey) -> Key:
    return Key.from_pem(master.unseal(key.sealed, purpose=key.purpose, kid=key.kid), key.algorithm)


def _new_signing_key(purpose: str, master: MasterKey, now: int) -> SealedKey:
    key = generate_key(SIGNING_ALGORITHM)
    sealed = master.seal(key.to_pem().encode(), purpose=purpose, kid=key.kid)
    return SealedKey(kid=key.kid, purpose=purpose, algorithm=key.algorithm, sealed=sealed, created_at=now)


def _new_mac_key(master: MasterKey, now: int, random: Callable[[int], bytes]) -> SealedKey:
    kid = new_mac_kid(random)
    sealed = master.seal(random(MAC_KEY_BYTES), purpose=_REFRESH, kid=kid)
    return SealedKey(kid=kid, purpose=_REFRESH, algorithm="HS256", sealed=sealed, created_at=now)
