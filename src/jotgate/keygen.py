"""Makes new keys: the one place of the token library that asks for randomness; knows no token."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from jotgate.core.algorithms import Algorithm
from jotgate.core.errors import KeyRefused
from jotgate.core.jwk import CURVES, Key, Material, find_algorithm, find_mldsa

_RSA_BITS = 3072  # 128 bits of security (NIST SP 800-57), which no other algorithm here falls short of


def generate_key(algorithm: str = "ES256", *, kid: str | None = None) -> Key:
    """Make a new private key (or secret) for `algorithm`; its `kid` is its thumbprint unless given.

    Raises KeyRefused for an unknown algorithm, a deprecated name, or one that the installed `cryptography` lacks.
    """
    row = find_algorithm(algorithm)
    if row.verify_only:
        raise KeyRefused(f"The algorithm name {row.name} is deprecated: no keys are made for it.")
    if row.symmetric:
        return Key.from_secret(os.urandom(row.min_secret_bytes), row.name, kid=kid)
    private = _MAKERS[row.key_type](row)
    return Key._make(row, private.public_key(), private, kid)


_MAKERS: Mapping[str, Callable[[Algorithm], Material]] = MappingProxyType(
    {
        "RSA": lambda row: rsa.generate_private_key(65537, _RSA_BITS),
        "EC": lambda row: ec.generate_private_key(CURVES[str(row.curve)]),
        "OKP": lambda row: ed25519.Ed25519PrivateKey.generate(),
        "AKP": lambda row: find_mldsa(row)[1].generate(),
    }
)
