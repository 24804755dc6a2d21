"""Makes new keys: the one place of the token library that asks for randomness; knows no token."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.errors import KeyRefused
from jotgate.core.jwk import Key, Material, find_algorithm

_RSA_BITS = 3072  # 128 bits of security (NIST SP 800-57), as the other algorithms have


def generate_key(algorithm: str = "ES256", *, kid: str | None = None) -> Key:
    """Make a new private key (or secret) for `algorithm`; its `kid` is its thumbprint unless given.

    Raises KeyRefused for an unknown algorithm, or a deprecated name.
    """
    row = find_algorithm(algorithm)
    if row.verify_only:
        raise KeyRefused(f"The algorithm name {row.name} is deprecated: no keys are made for it.")
    return _MAKERS[row.name](kid)


def _pair(algorithm: str, private: Material, kid: str | None) -> Key:
    return Key._make(ALGORITHMS[algorithm], private.public_key(), private, kid)


_MAKERS: Mapping[str, Callable[[str | None], Key]] = MappingProxyType(
    {
        "HS256": lambda kid: Key.from_secret(os.urandom(32), "HS256", kid=kid),
        "RS256": lambda kid: _pair("RS256", rsa.generate_private_key(65537, _RSA_BITS), kid),
        "ES256": lambda kid: _pair("ES256", ec.generate_private_key(ec.SECP256R1()), kid),
        "Ed25519": lambda kid: _pair("Ed25519", ed25519.Ed25519PrivateKey.generate(), kid),
    }
)
