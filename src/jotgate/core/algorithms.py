"""The one table of signature algorithms (RFC 7518 §3, 8037, 9864, 9964); knows primitives, but no JWK and no token.

A row says which key type an algorithm takes and how to turn such a key into two functions: `check(signature, message)`
and `sign(message)`. Whatever can be prepared is prepared there, once for each key. There is no `none`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hmac import HMAC

from jotgate.core.errors import BadSignature

if TYPE_CHECKING:  # releases of `cryptography` without ML-DSA have no such module
    from cryptography.hazmat.primitives.asymmetric import mldsa

    _MldsaPublicKey: TypeAlias = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
    _MldsaPrivateKey: TypeAlias = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey

Check = Callable[[bytes, bytes], None]
"""`check(signature, message)` raises BadSignature."""
Sign = Callable[[bytes], bytes]
"""`sign(message)` gives the signature in its JWS form."""

# One sentence for every way in which a signature can be wrong: the difference is nobody's business.
_WRONG = "The signature does not belong to this token and key."


class Algorithm(msgspec.Struct, frozen=True):
    """One row: `make_check` takes the public key (or the secret), `make_sign` the private key (or the secret)."""

    name: str
    key_type: str
    """JWK `kty`."""
    curve: str | None
    """JWK `crv`; None where the key type has none."""
    make_check: Callable[[Any], Check]
    make_sign: Callable[[Any], Sign]
    min_secret_bytes: int = 0
    """Shortest HMAC secret: the hash's own length (RFC 7518 §3.2)."""
    verify_only: bool = False
    """A deprecated name: taken where a caller lists it, never emitted."""

    @property
    def symmetric(self) -> bool:
        """Whether whoever can check can also sign."""
        return self.key_type == "oct"


def _hmac_check(hash_: hashes.HashAlgorithm) -> Callable[[bytes], Check]:
    def make(secret: bytes) -> Check:
        keyed = HMAC(secret, hash_)

        def check(signature: bytes, message: bytes) -> None:
            mac = keyed.copy()
            mac.update(message)
            try:
                mac.verify(signature)  # compares in constant time
            except InvalidSignature:
                raise BadSignature(_WRONG) from None

        return check

    return make


def _hmac_sign(hash_: hashes.HashAlgorithm) -> Callable[[bytes], Sign]:
    def make(secret: bytes) -> Sign:
        keyed = HMAC(secret, hash_)

        def sign(message: bytes) -> bytes:
            mac = keyed.copy()
            mac.update(message)
            return mac.finalize()

        return sign

    return make


def _rsa_check(pad: padding.AsymmetricPadding, hash_: hashes.HashAlgorithm) -> Callable[[rsa.RSAPublicKey], Check]:
    def make(key: rsa.RSAPublicKey) -> Check:
        size = (key.key_size + 7) // 8
        verify = key.verify

        def check(signature: bytes, message: bytes) -> None:
            if len(signature) != size:
                raise BadSignature(_WRONG)
            try:
                verify(signature, message, pad, hash_)
            except InvalidSignature:
                raise BadSignature(_WRONG) from None

        return check

    return make


def _rsa_sign(pad: padding.AsymmetricPadding, hash_: hashes.HashAlgorithm) -> Callable[[rsa.RSAPrivateKey], Sign]:
    def make(key: rsa.RSAPrivateKey) -> Sign:
        return lambda message: key.sign(message, pad, hash_)

    return make


def _ecdsa_check(half: int, hash_: hashes.HashAlgorithm) -> Callable[[ec.EllipticCurvePublicKey], Check]:
    scheme = ec.ECDSA(hash_)
    size = 2 * half
    to_der = _der_writer(half)

    def make(key: ec.EllipticCurvePublicKey) -> Check:
        verify = key.verify

        def check(signature: bytes, message: bytes) -> None:
            if len(signature) != size:
                raise BadSignature(_WRONG)
            try:
                verify(to_der(signature), message, scheme)
            except InvalidSignature:
                raise BadSignature(_WRONG) from None

        return check

    return make


def _ecdsa_sign(half: int, hash_: hashes.HashAlgorithm) -> Callable[[ec.EllipticCurvePrivateKey], Sign]:
    from_der = _der_reader(half)

    def make(key: ec.EllipticCurvePrivateKey) -> Sign:
        try:
            scheme = ec.ECDSA(hash_, deterministic_signing=True)  # RFC 6979, as RFC 8725bis asks
        except UnsupportedAlgorithm:  # an OpenSSL older than 3.2
            scheme = ec.ECDSA(hash_)
        sign = key.sign
        return lambda message: from_der(sign(message, scheme))

    return make


# JWS joins r and s (RFC 7518 §3.4), `cryptography` wants them in DER: SEQUENCE { INTEGER r, INTEGER s }. In nearly all
# signatures both have their full length, and then DER is three pieces of text around them. That takes a quarter of the
# time of going through integers, which is 1 µs and, right after a signature check has used the processor's caches, 2.


def _der_writer(half: int) -> Callable[[bytes], bytes]:
    if 2 * (half + 3) > 127:  # P-521: r never fills its bytes, and DER writes longer lengths otherwise
        return lambda signature: _der_of_integers(signature, half)
    # By the first bits of r and s: DER puts a zero byte before a number whose first bit would read as a sign.
    edges = {
        (r_sign, s_sign): (
            bytes((0x30, 2 * (half + 2) + r_sign + s_sign, 0x02, half + r_sign)) + bytes(r_sign),
            bytes((0x02, half + s_sign)) + bytes(s_sign),
        )
        for r_sign in (0, 1)
        for s_sign in (0, 1)
    }

    def write(signature: bytes) -> bytes:
        r_first, s_first = signature[0], signature[half]
        if not r_first or not s_first:  # one in 128: a zero byte may have to go
            return _der_of_integers(signature, half)
        before, between = edges[r_first >> 7, s_first >> 7]
        return before + signature[:half] + between + signature[half:]

    return write


def _der_of_integers(signature: bytes, half: int) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))


def _der_reader(half: int) -> Callable[[bytes], bytes]:
    if 2 * (half + 3) > 127:
        return lambda der: _integers_of_der(der, half)

    def read(der: bytes) -> bytes:
        r_end = 4 + der[3]  # after the tags and lengths of the whole and of r
        if r_end < 4 + half or len(der) < r_end + 2 + half:  # one in 128: r or s lacks its first byte
            return _integers_of_der(der, half)
        return der[r_end - half : r_end] + der[-half:]

    return read


def _integers_of_der(der: bytes, half: int) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(half) + s.to_bytes(half)


def _ed25519_check(key: ed25519.Ed25519PublicKey) -> Check:
    verify = key.verify

    def check(signature: bytes, message: bytes) -> None:
        try:
            verify(signature, message)
        except InvalidSignature:
            raise BadSignature(_WRONG) from None

    return check


def _ed25519_sign(key: ed25519.Ed25519PrivateKey) -> Sign:
    return key.sign


def _mldsa_check(size: int) -> Callable[[Any], Check]:
    def make(key: "_MldsaPublicKey") -> Check:
        verify = key.verify

        def check(signature: bytes, message: bytes) -> None:
            if len(signature) != size:
                raise BadSignature(_WRONG)
            try:
                verify(signature, message)  # with the empty context (RFC 9964 §5)
            except InvalidSignature:
                raise BadSignature(_WRONG) from None

        return check

    return make


def _mldsa_sign(key: "_MldsaPrivateKey") -> Sign:
    return key.sign


def _pss(hash_: hashes.HashAlgorithm) -> padding.PSS:
    """RFC 7518 §3.5: the salt is exactly as long as the hash, in verifying too."""
    return padding.PSS(padding.MGF1(hash_), hash_.digest_size)


_SHA256, _SHA384, _SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
_PKCS1 = padding.PKCS1v15()

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        row.name: row
        for row in (
            Algorithm("HS256", "oct", None, _hmac_check(_SHA256), _hmac_sign(_SHA256), min_secret_bytes=32),
            Algorithm("HS384", "oct", None, _hmac_check(_SHA384), _hmac_sign(_SHA384), min_secret_bytes=48),
            Algorithm("HS512", "oct", None, _hmac_check(_SHA512), _hmac_sign(_SHA512), min_secret_bytes=64),
            Algorithm("RS256", "RSA", None, _rsa_check(_PKCS1, _SHA256), _rsa_sign(_PKCS1, _SHA256)),
            Algorithm("RS384", "RSA", None, _rsa_check(_PKCS1, _SHA384), _rsa_sign(_PKCS1, _SHA384)),
            Algorithm("RS512", "RSA", None, _rsa_check(_PKCS1, _SHA512), _rsa_sign(_PKCS1, _SHA512)),
            Algorithm("PS256", "RSA", None, _rsa_check(_pss(_SHA256), _SHA256), _rsa_sign(_pss(_SHA256), _SHA256)),
            Algorithm("PS384", "RSA", None, _rsa_check(_pss(_SHA384), _SHA384), _rsa_sign(_pss(_SHA384), _SHA384)),
            Algorithm("PS512", "RSA", None, _rsa_check(_pss(_SHA512), _SHA512), _rsa_sign(_pss(_SHA512), _SHA512)),
            Algorithm("ES256", "EC", "P-256", _ecdsa_check(32, _SHA256), _ecdsa_sign(32, _SHA256)),
            Algorithm("ES384", "EC", "P-384", _ecdsa_check(48, _SHA384), _ecdsa_sign(48, _SHA384)),
            Algorithm("ES512", "EC", "P-521", _ecdsa_check(66, _SHA512), _ecdsa_sign(66, _SHA512)),
            Algorithm("Ed25519", "OKP", "Ed25519", _ed25519_check, _ed25519_sign),
            Algorithm("EdDSA", "OKP", "Ed25519", _ed25519_check, _ed25519_sign, verify_only=True),
            Algorithm("ML-DSA-44", "AKP", None, _mldsa_check(2420), _mldsa_sign),
            Algorithm("ML-DSA-65", "AKP", None, _mldsa_check(3309), _mldsa_sign),
            Algorithm("ML-DSA-87", "AKP", None, _mldsa_check(4627), _mldsa_sign),
        )
    }
)
"""Every algorithm there is, by its exact, case-sensitive name. Keys for ML-DSA need a `cryptography` that has it."""

CURRENT: tuple[str, ...] = tuple(row.name for row in ALGORITHMS.values() if not row.verify_only)
"""All names save the deprecated ones, which count only where somebody lists them."""

ASYMMETRIC: tuple[str, ...] = tuple(name for name in CURRENT if not ALGORITHMS[name].symmetric)
"""What a policy allows unless it says otherwise: verifying with these takes nothing secret."""
