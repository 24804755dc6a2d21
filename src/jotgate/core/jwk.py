"""Keys and key sets (RFC 7517, 7518 §6, 8037, 9964): one key, one algorithm, one `kid`; knows no token and no claim.

`cryptography` loads keys that must not be used (a small-order Ed25519 point that verifies every message, RSA with
512 bits or e=3), so every way in goes through the checks here.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, Hash

from jotgate.core.algorithms import ALGORITHMS, Algorithm, Check, Sign
from jotgate.core.encoding import JsonRefused, decode_segment, encode_segment, parse_json_object
from jotgate.core.errors import KeyRefused, MalformedToken
from jotgate.core.keytext import is_key_text
from jotgate.core.weak import is_pattern, is_published_secret, is_roca_shaped

Material: TypeAlias = Any
"""A half of a pair as a key object of `cryptography`, or a secret's bytes: which one, the algorithm's row says."""

MAX_KID_CHARS = 256
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # beyond that a signature check is a way to keep a server busy
MIN_RSA_EXPONENT = 65537
MAX_RSA_EXPONENT_BITS = 64


class Key:
    """One key for one algorithm under one name (`kid`): public, private or secret. Immutable; `repr` tells no material.

    Made by `from_jwk`, `from_pem`, `from_secret` or `jotgate.generate_key`, all of which raise KeyRefused for a key
    that must not be used. Text and bytes are never taken for a key elsewhere, so that no public key can be mistaken
    for an HMAC secret.
    """

    __slots__ = ("_alone", "_check", "_heads", "_kid", "_private", "_public", "_row", "_sign")

    _row: Algorithm
    _kid: str
    _public: Material
    _private: Material
    _check: Check | None
    _sign: Sign | None
    _alone: "KeySet | None"
    _heads: dict[str | None, str]

    def __init__(self) -> None:
        raise TypeError("Keys are made by Key.from_jwk, Key.from_pem, Key.from_secret or generate_key.")

    @classmethod
    def _make(
        cls,
        row: Algorithm,
        public: Material,
        private: Material,
        kid: object = None,
        *,
        checks: bool = True,
        signs: bool = True,
    ) -> "Key":
        """The one constructor: every check that does not depend on where a key comes from is made here."""
        kind = _KEY_TYPES[row.key_type]
        kind.check(row, public)
        key = object.__new__(cls)
        key._row = row
        key._public = public
        key._private = private
        key._check = row.make_check(public) if checks else None
        key._sign = row.make_sign(private) if signs and private is not None and not row.verify_only else None
        key._kid = _thumbprint(kind.write(row, public, None)) if kid is None else _check_kid(kid)
        key._alone = None
        # Headers to sign with, by `typ`: see `jotgate.core.jws`, which alone reads and writes this.
        key._heads = {}
        return key

    @classmethod
    def from_jwk(
        cls, jwk: Mapping[str, Any] | bytes | str, *, algorithm: str | None = None, kid: str | None = None
    ) -> "Key":
        """Read a JSON Web Key (RFC 7517), private if it has private members.

        `alg`, `use`, `key_ops` and `kid` are honoured. Without `alg`, `algorithm` names it, or the key type does where
        it allows only one (the curves: ES256, ES384, ES512, Ed25519); ML-DSA's JWKs always name theirs. Without `kid`
        it is the RFC 7638 thumbprint. Raises KeyRefused.
        """
        members = _members(jwk)
        row = _algorithm_of(members, () if algorithm is None else (algorithm,), strict=True)
        kind = _KEY_TYPES[row.key_type]
        checks, signs = _permissions(members, private=kind.private_member in members)
        public, private = kind.read(row, members)
        if kid is None and "kid" in members:
            kid = _check_kid(members["kid"])
        return cls._make(row, public, private, kid, checks=checks, signs=signs)

    @classmethod
    def from_pem(cls, pem: bytes | str, algorithm: str, *, kid: str | None = None) -> "Key":
        """Read one unencrypted PEM block: PKCS#8 or a traditional private key, or a public key (SPKI, PKCS#1).

        Raises KeyRefused, also for certificates: whose key it is, is for the caller to decide.
        """
        # Not at the top, because it brings in the SSH formats and their ciphers: 15 ms that JWK users need not pay.
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

        row = find_algorithm(algorithm)
        if row.symmetric:
            raise KeyRefused(f"A PEM key cannot be used for {row.name}, which takes a secret.")
        try:
            raw = pem.encode("ascii") if isinstance(pem, str) else bytes(pem)
        except UnicodeEncodeError:
            raise KeyRefused("A PEM text is ASCII.") from None
        blocks = raw.count(b"-----BEGIN ") - raw.count(b"-----BEGIN EC PARAMETERS-----")
        if blocks != 1:
            raise KeyRefused("One PEM block with one key is needed.")
        try:
            if b"PRIVATE KEY-----" in raw:
                private: Material = serialization.load_pem_private_key(raw, password=None)
                public: Material = private.public_key()
            elif b"PUBLIC KEY-----" in raw:
                private, public = None, serialization.load_pem_public_key(raw)
            elif b"CERTIFICATE-----" in raw:
                raise KeyRefused("The PEM block is a certificate; give the public key in it.")
            else:
                raise KeyRefused("The PEM block is neither a private nor a public key.")
        except TypeError:
            raise KeyRefused("The PEM key is encrypted; decrypt it first.") from None
        except UnsupportedAlgorithm:
            raise KeyRefused("The PEM block holds a key of a kind that the installed cryptography lacks.") from None
        except ValueError:
            raise KeyRefused("The PEM block holds no key that can be read.") from None
        return cls._make(row, public, private, kid)

    @classmethod
    def from_secret(cls, raw: bytes, algorithm: str = "HS256", *, kid: str | None = None) -> "Key":
        """Take an HMAC secret: random bytes, at least as many as the hash has (RFC 7518 §3.2).

        Raises KeyRefused, also for a PEM, DER or JWK text: that is a key of another kind, often a public one, and an
        HMAC under it could be made by anybody.
        """
        row = find_algorithm(algorithm)
        if not row.symmetric:
            raise KeyRefused(f"{row.name} takes a key pair, not a secret.")
        if not isinstance(raw, bytes):
            raise KeyRefused("A secret is bytes.")
        return cls._make(row, raw, raw, kid)

    @property
    def kid(self) -> str:
        """The key's name: given, or the RFC 7638 thumbprint (SHA-256)."""
        return self._kid

    @property
    def thumbprint(self) -> str:
        """The RFC 7638 thumbprint (SHA-256) of the public half, or of the secret: tells the same material again.

        It leaves out `kid` and `alg`: the same RSA key has one thumbprint for RS256 and PS256. RFC 7638 §7 warns of
        thumbprints of secrets that could be guessed; the secrets here are long and random.
        """
        return _thumbprint(_KEY_TYPES[self._row.key_type].write(self._row, self._public, None))

    @property
    def algorithm(self) -> str:
        """The name of the only algorithm that this key is used with."""
        return self._row.name

    @property
    def symmetric(self) -> bool:
        """Whether this is an HMAC secret."""
        return self._row.symmetric

    @property
    def private(self) -> bool:
        """Whether this key holds the private half (or a secret)."""
        return self._private is not None

    @property
    def can_verify(self) -> bool:
        """Whether `check_signature` may be used (`key_ops`)."""
        return self._check is not None

    @property
    def can_sign(self) -> bool:
        """Whether `sign` would do it."""
        return self._sign is not None

    @property
    def public(self) -> "Key":
        """The public half under the same name. Raises KeyRefused for a secret, which has none."""
        if self._row.symmetric:
            raise KeyRefused("An HMAC secret has no public half.")
        if self._private is None:
            return self
        return Key._make(self._row, self._public, None, self._kid)

    def to_jwk(self) -> dict[str, str]:
        """Give the public JWK. Raises KeyRefused for a secret."""
        if self._row.symmetric:
            raise KeyRefused("An HMAC secret has no public form.")
        return self._describe(None)

    def to_private_jwk(self) -> dict[str, str]:
        """Give the JWK with the private members, or the secret. Raises KeyRefused for a public key."""
        if self._private is None:
            raise KeyRefused("The key is public: it has no private form.")
        return self._describe(self._private)

    def _describe(self, private: Material) -> dict[str, str]:
        members = _KEY_TYPES[self._row.key_type].write(self._row, self._public, private)
        return {**members, "use": "sig", "alg": self._row.name, "kid": self._kid}

    def to_pem(self) -> str:
        """Give PKCS#8 without encryption for a private key, SPKI for a public one. Raises KeyRefused for a secret."""
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 # see from_pem

        if self._row.symmetric:
            raise KeyRefused("An HMAC secret has no PEM form.")
        raw: bytes
        if self._private is None:
            raw = self._public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        else:
            raw = self._private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        return raw.decode("ascii")

    @property
    def check_signature(self) -> Check:
        """`key.check_signature(signature, message)` raises BadSignature unless the one is this key's over the other.

        Raises KeyRefused for a secret that may only sign.
        """
        if self._check is None:
            raise KeyRefused("The key may not be used to verify (key_ops).")
        return self._check

    def sign(self, message: bytes) -> bytes:
        """Give the signature over `message` in its JWS form. Raises KeyRefused for a key that cannot or may not."""
        if self._sign is None:
            raise KeyRefused(
                f"The algorithm name {self._row.name} is deprecated and only verified; sign with another."
                if self._row.verify_only
                else "The key is public, or may not be used to sign (key_ops)."
            )
        return self._sign(message)

    @property
    def as_set(self) -> "KeySet":
        """A set of this key alone."""
        if self._alone is None:
            self._alone = KeySet((self,))
        return self._alone

    def __repr__(self) -> str:
        half = "secret" if self._row.symmetric else "private" if self._private is not None else "public"
        return f"<Key {self._row.name} {half} kid={self._kid!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are not pickled; use to_private_jwk or to_pem on purpose.")


class Route(NamedTuple):
    """What one exact header text leads to in one key set: nothing in it depends on the rest of a token."""

    check: Check
    algorithm: str
    typ: str | None
    header: bytes


class KeySet:
    """Keys by `kid`: all public/private, or all secrets. Immutable, so one set serves any number of threads.

    `skipped` names the keys of a JWKS that were not taken: pairs of `kid` (or position) and reason.
    """

    __slots__ = ("_by_algorithm", "_by_kid", "_routes", "_skipped")

    def __init__(self, keys: Iterable[Key] = (), *, skipped: Iterable[tuple[str | int, str]] = ()) -> None:
        """Raises KeyRefused if two keys have one `kid`, or if secrets and key pairs are mixed."""
        self._by_kid: dict[str, Key] = {}
        self._by_algorithm: dict[str, list[Key]] = {}
        for key in keys:
            if not isinstance(key, Key):
                raise TypeError("A KeySet is made of Key objects.")
            if key.kid in self._by_kid:
                raise KeyRefused(_REPEATED_KID)
            self._by_kid[key.kid] = key
            if key.can_verify:
                self._by_algorithm.setdefault(key.algorithm, []).append(key)
        if len({key.symmetric for key in self._by_kid.values()}) > 1:
            raise KeyRefused(_MIXED)
        self._skipped = tuple(skipped)
        # Headers repeat: see `jotgate.core.jws`, which alone reads and writes this.
        self._routes: dict[bytes, Route] = {}

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, Any] | bytes | str, *, algorithms: Sequence[str] = ()) -> "KeySet":
        """Read a JWK set (RFC 7517 §5). A key that is broken, weak, unknown or not for signatures is skipped.

        `algorithms` names what a key without `alg` may be for, where exactly one of them fits its type. Raises
        KeyRefused if the whole is no key set, if a `kid` repeats or if secrets and public keys are mixed: keys that
        are skipped count too. Otherwise it would hang on what this machine can read whether a name means one key or
        two, and a secret in a public set would be passed over for being weak.
        """
        entries = _members(jwks).get("keys")
        if not isinstance(entries, (list, tuple)):
            raise KeyRefused("A JWK set has a member 'keys' with a list.")
        for name in algorithms:
            find_algorithm(name)
        _check_entries(entries)
        keys: list[Key] = []
        skipped: list[tuple[str | int, str]] = []
        for position, entry in enumerate(entries):
            try:
                members = _entry(entry)
                row = _algorithm_of(members, algorithms, strict=False)
                keys.append(Key.from_jwk(members, algorithm=row.name))
            except KeyRefused as refused:
                kid = entry.get("kid") if isinstance(entry, Mapping) else None
                skipped.append((kid if isinstance(kid, str) and len(kid) <= MAX_KID_CHARS else position, str(refused)))
        key_set = cls(keys, skipped=skipped)
        if any(name in key_set for name, _ in skipped):  # the thumbprint of a key without `kid`
            raise KeyRefused(_REPEATED_KID)
        return key_set

    @property
    def skipped(self) -> tuple[tuple[str | int, str], ...]:
        """Pairs of `kid` (or position in the JWKS) and the reason why that key was not taken."""
        return self._skipped

    @property
    def symmetric(self) -> bool:
        """Whether the set holds secrets. A set that came over a network must not."""
        return any(key.symmetric for key in self)

    @property
    def as_set(self) -> "KeySet":
        """The set itself, so that a key and a set are used alike."""
        return self

    def find(self, algorithm: str, kid: str | None) -> Key | None:
        """Give the key to verify with: that of the exact `kid`; without one, the only key of the algorithm; or None."""
        if kid is not None:
            key = self._by_kid.get(kid)
            return key if key is not None and key.can_verify else None
        fitting = self._by_algorithm.get(algorithm, ())
        return fitting[0] if len(fitting) == 1 else None

    def get(self, kid: str) -> Key | None:
        """Give the key of that exact `kid`, or None."""
        return self._by_kid.get(kid)

    def without(self, kids: Collection[str]) -> "KeySet":
        """Give the set without keys of these `kid`s: this very set, where it has none of them."""
        if self._by_kid.keys().isdisjoint(kids):
            return self
        return KeySet((key for key in self if key.kid not in kids), skipped=self._skipped)

    def to_jwks(self) -> dict[str, list[dict[str, str]]]:
        """Give the public JWK set. Raises KeyRefused if it holds secrets."""
        return {"keys": [key.to_jwk() for key in self]}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_kid.values())

    def __len__(self) -> int:
        return len(self._by_kid)

    def __contains__(self, kid: object) -> bool:
        return kid in self._by_kid

    def __repr__(self) -> str:
        return f"KeySet({list(self)!r})"


# What members say before any key material is read.

_REPEATED_KID = "Two keys of the set have the same kid."
_MIXED = "A key set mixes secrets with public keys."


def _check_entries(entries: Sequence[object]) -> None:
    """Check what holds for a JWK set as a whole, by what its entries say of themselves, whether they are good or not.

    RFC 7517 §4.5 lets keys of two types share a `kid` where an application takes them for alternatives, and §5 says to
    ignore entries that are not understood: neither obliges anybody to take such a set.
    """
    members = [entry for entry in entries if isinstance(entry, Mapping)]
    kids = [kid for entry in members if isinstance(kid := entry.get("kid"), str)]
    if len(set(kids)) != len(kids):
        raise KeyRefused(_REPEATED_KID)
    types = {kty for entry in members if isinstance(kty := entry.get("kty"), str) and kty in _KEY_TYPES}
    if "oct" in types and len(types) > 1:
        raise KeyRefused(_MIXED)


def find_algorithm(algorithm: object) -> Algorithm:
    """Give the table's row of that exact name. Raises KeyRefused."""
    row = ALGORITHMS.get(algorithm) if isinstance(algorithm, str) else None
    if row is None:
        raise KeyRefused("The algorithm is not one of " + ", ".join(ALGORITHMS) + ".")
    return row


def _entry(value: object) -> dict[str, Any]:
    """Read one key of a set: an object (RFC 7517 §5), never a text that holds one: others would not look into it."""
    if not isinstance(value, Mapping):
        raise KeyRefused("A key in a JWK set is a JSON object.")
    return _members(value)


def _members(jwk: object) -> dict[str, Any]:
    if isinstance(jwk, (bytes, str)):
        try:
            return parse_json_object(jwk if isinstance(jwk, bytes) else jwk.encode("utf-8"))
        except (JsonRefused, UnicodeEncodeError):
            raise KeyRefused("The JWK or JWK set is not a JSON object.") from None
    if not isinstance(jwk, Mapping):
        raise KeyRefused("A JWK or JWK set is a JSON object.")
    return dict(jwk)


def _algorithm_of(members: dict[str, Any], named: Sequence[str], *, strict: bool) -> Algorithm:
    """Settle the one algorithm of a JWK; `strict`: `named` is a demand, and not only a hint for keys without `alg`."""
    demanded = [find_algorithm(name) for name in named]
    key_type, curve = members.get("kty"), members.get("crv")
    if "alg" in members:
        row = find_algorithm(members["alg"])
        if strict and demanded and demanded[0] is not row:
            raise KeyRefused(f"The JWK is for {row.name}, not for {demanded[0].name}.")
        fitting = [row]
    else:
        fitting = demanded or [row for row in ALGORITHMS.values() if not row.verify_only]
    fitting = [row for row in fitting if row.key_type == key_type and (row.curve is None or row.curve == curve)]
    if not fitting:
        raise KeyRefused("The JWK's type and curve are of none of the algorithms that it may be for.")
    if len(fitting) > 1:
        names = ", ".join(row.name for row in fitting)
        raise KeyRefused(f"The JWK does not say which algorithm it is for, and could be for {names}: name one.")
    return fitting[0]


def _permissions(members: dict[str, Any], *, private: bool) -> tuple[bool, bool]:
    """Say whether `use` and `key_ops` (RFC 7517 §4.2, §4.3) let the key verify and sign."""
    if members.get("use", "sig") != "sig":
        raise KeyRefused("The JWK is not for signatures (use).")
    if "key_ops" not in members:
        return True, True
    operations = members["key_ops"]
    if not isinstance(operations, (list, tuple)) or not all(isinstance(name, str) for name in operations):
        raise KeyRefused("The JWK's key_ops is not a list of names.")
    if len(set(operations)) != len(operations):
        raise KeyRefused("The JWK's key_ops repeats a name.")
    signs = "sign" in operations
    # Whoever may sign with the private half of a pair may also check with its public half; a secret has no halves.
    checks = "verify" in operations or (signs and private and members.get("kty") != "oct")
    if not (checks or (signs and private)):
        raise KeyRefused("The JWK is not for signatures (key_ops).")
    # RFC 7517 §4.3: if both are there, what they say MUST be consistent.
    if "use" in members and not {"sign", "verify"}.issuperset(operations):
        raise KeyRefused("The JWK's use and key_ops contradict each other.")
    return checks, signs


def _check_kid(kid: object) -> str:
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        raise KeyRefused(f"A kid is text of 1 to {MAX_KID_CHARS} characters.")
    try:
        kid.encode("utf-8")
    except UnicodeEncodeError:
        raise KeyRefused("A kid is Unicode text.") from None
    return kid


def _thumbprint(public: dict[str, str]) -> str:
    """RFC 7638: SHA-256 over the required members, ordered by name, without whitespace."""
    text = json.dumps(public, sort_keys=True, separators=(",", ":"))
    digest = Hash(SHA256())
    digest.update(text.encode("ascii"))
    return encode_segment(digest.finalize())


def _octets(members: dict[str, Any], name: str, size: int | None = None) -> bytes:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise KeyRefused(f"The JWK's member {name!r} is missing or no text.")
    try:
        raw = decode_segment(value)
    except MalformedToken:
        raise KeyRefused(f"The JWK's member {name!r} is not canonical base64url.") from None
    if size is not None and len(raw) != size:
        raise KeyRefused(f"The JWK's member {name!r} does not have {size} bytes.")
    return raw


def _number(members: dict[str, Any], name: str) -> int:
    raw = _octets(members, name)
    if raw[0] == 0:
        raise KeyRefused(f"The JWK's member {name!r} begins with a zero byte.")
    return int.from_bytes(raw)


def _number_text(number: int, size: int | None = None) -> str:
    return encode_segment(number.to_bytes((number.bit_length() + 7) // 8 if size is None else size))


# RSA (RFC 7518 §6.3)

_RSA_PRIVATE = ("d", "p", "q", "dp", "dq", "qi")


def _check_rsa(row: Algorithm, key: Material) -> None:
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyRefused(f"{row.name} takes an RSA key.")
    numbers = key.public_numbers()
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise KeyRefused(f"An RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits.")
    if numbers.n % 2 == 0:
        raise KeyRefused("An RSA modulus is odd.")
    if is_roca_shaped(numbers.n):
        raise KeyRefused("The RSA key was made by a flawed generator (ROCA, CVE-2017-15361): it can be factored.")
    # Even exponents are refused by `cryptography`.
    if numbers.e < MIN_RSA_EXPONENT or numbers.e.bit_length() > MAX_RSA_EXPONENT_BITS:
        raise KeyRefused(f"An RSA exponent lies between {MIN_RSA_EXPONENT} and 2^{MAX_RSA_EXPONENT_BITS}.")


def _read_rsa(row: Algorithm, members: dict[str, Any]) -> tuple[Material, Material]:
    if "oth" in members:
        raise KeyRefused("RSA keys with more than two primes are not taken.")
    modulus, exponent = _number(members, "n"), _number(members, "e")
    # Before any arithmetic is done with them.
    if modulus.bit_length() > MAX_RSA_BITS or exponent.bit_length() > MAX_RSA_EXPONENT_BITS:
        raise KeyRefused(f"An RSA key has at most {MAX_RSA_BITS} bits, its exponent {MAX_RSA_EXPONENT_BITS}.")
    public_numbers = rsa.RSAPublicNumbers(exponent, modulus)
    try:
        if not any(name in members for name in _RSA_PRIVATE):
            return public_numbers.public_key(), None
        d, p, q, dp, dq, qi = (_number(members, name) for name in _RSA_PRIVATE)
        if max(d, p, q, dp, dq, qi) > modulus:
            raise KeyRefused("The halves of the RSA key do not belong together.")
        private = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public_numbers).private_key()
    except ValueError:
        raise KeyRefused("The RSA key's numbers do not belong together.") from None
    return private.public_key(), private


def _write_rsa(row: Algorithm, public: Material, private: Material) -> dict[str, str]:
    numbers = public.public_numbers()
    members = {"kty": "RSA", "n": _number_text(numbers.n), "e": _number_text(numbers.e)}
    if private is not None:
        secret = private.private_numbers()
        values = (secret.d, secret.p, secret.q, secret.dmp1, secret.dmq1, secret.iqmp)
        members |= zip(_RSA_PRIVATE, map(_number_text, values), strict=True)
    return members


# Elliptic curves (RFC 7518 §6.2)

CURVES: Mapping[str, ec.EllipticCurve] = MappingProxyType(
    {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
)


def _check_ec(row: Algorithm, key: Material) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != CURVES[str(row.curve)].name:
        raise KeyRefused(f"{row.name} takes a key on the curve {row.curve}.")


def _read_ec(row: Algorithm, members: dict[str, Any]) -> tuple[Material, Material]:
    curve = CURVES[str(row.curve)]
    size = (curve.key_size + 7) // 8
    x, y = (int.from_bytes(_octets(members, name, size)) for name in ("x", "y"))
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError:
        raise KeyRefused("The point is not on the curve.") from None
    if "d" not in members:
        return public, None
    try:
        private = ec.derive_private_key(int.from_bytes(_octets(members, "d", size)), curve)
    except ValueError:
        raise KeyRefused("The private number is out of range.") from None
    if private.public_key().public_numbers() != public.public_numbers():
        raise KeyRefused("The private and the public half do not belong together.")
    return public, private


def _write_ec(row: Algorithm, public: Material, private: Material) -> dict[str, str]:
    size = (public.key_size + 7) // 8
    numbers = public.public_numbers()
    members = {
        "kty": "EC",
        "crv": str(row.curve),
        "x": _number_text(numbers.x, size),
        "y": _number_text(numbers.y, size),
    }
    if private is not None:
        members["d"] = _number_text(private.private_numbers().private_value, size)
    return members


# Ed25519 (RFC 8037 §2, RFC 8032 §5.1)

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)


def _check_ed25519(row: Algorithm, key: Material) -> None:
    """Refuse what is no point, what has a second spelling, and the points under which signatures prove nothing."""
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise KeyRefused(f"{row.name} takes an Ed25519 key.")
    encoded = int.from_bytes(key.public_bytes_raw(), "little")
    sign, y = encoded >> 255, encoded & (2**255 - 1)
    # RFC 8032 §5.1.3: x² = (y² - 1) / (d y² + 1)
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P == -u % _P:
        x = x * _SQRT_MINUS_1 % _P
    if v * x * x % _P != u:
        raise KeyRefused("The Ed25519 key is no point of the curve.")
    if y >= _P or (x == 0 and sign):
        raise KeyRefused("The Ed25519 key is not in its canonical form.")
    for _ in range(3):  # eight times a point of small order is the neutral element (0, 1)
        product = _D * x * x * y * y
        x, y = 2 * x * y * pow(1 + product, -1, _P) % _P, (y * y + x * x) * pow(1 - product, -1, _P) % _P
    if (x, y) == (0, 1):
        raise KeyRefused("The Ed25519 key is a point of small order: signatures under it prove nothing.")


def _read_ed25519(row: Algorithm, members: dict[str, Any]) -> tuple[Material, Material]:
    x = _octets(members, "x", 32)
    public = ed25519.Ed25519PublicKey.from_public_bytes(x)
    if "d" not in members:
        return public, None
    private = ed25519.Ed25519PrivateKey.from_private_bytes(_octets(members, "d", 32))
    if private.public_key().public_bytes_raw() != x:
        raise KeyRefused("The private and the public half do not belong together.")
    return public, private


def _write_ed25519(row: Algorithm, public: Material, private: Material) -> dict[str, str]:
    members = {"kty": "OKP", "crv": str(row.curve), "x": encode_segment(public.public_bytes_raw())}
    if private is not None:
        members["d"] = encode_segment(private.private_bytes_raw())
    return members


# ML-DSA (RFC 9964: §3 the key type, §4 the private key is a seed of 32 bytes, §6 the thumbprint; FIPS 204)


def find_mldsa(row: Algorithm) -> tuple[Any, Any]:
    """Give the classes of public and private keys. Raises KeyRefused where the installed `cryptography` has none."""
    # Not at the top, because older releases have no such module, and because most processes never need it.
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415

        name = row.name.replace("-", "")
        classes = getattr(mldsa, f"{name}PublicKey"), getattr(mldsa, f"{name}PrivateKey")
        classes[1].from_seed_bytes(bytes(_SEED_BYTES))  # only a call tells whether its OpenSSL can do it
    except (ImportError, AttributeError, UnsupportedAlgorithm):
        raise KeyRefused(f"{row.name} needs a newer cryptography than the one installed here.") from None
    return classes


_SEED_BYTES = 32


def _check_mldsa(row: Algorithm, key: Material) -> None:
    if not isinstance(key, find_mldsa(row)[0]):
        raise KeyRefused(f"{row.name} takes an {row.name} key.")


def _read_mldsa(row: Algorithm, members: dict[str, Any]) -> tuple[Material, Material]:
    if "alg" not in members:
        raise KeyRefused("A JWK of type AKP names its algorithm itself (RFC 9964 §3).")
    public_class, private_class = find_mldsa(row)
    raw = _octets(members, "pub")
    try:
        public = public_class.from_public_bytes(raw)
    except ValueError:
        raise KeyRefused(f"The JWK's member 'pub' has not the length of an {row.name} key.") from None
    if "priv" not in members:
        return public, None
    private = private_class.from_seed_bytes(_octets(members, "priv", _SEED_BYTES))
    if private.public_key().public_bytes_raw() != raw:
        raise KeyRefused("The private and the public half do not belong together.")
    return public, private


def _write_mldsa(row: Algorithm, public: Material, private: Material) -> dict[str, str]:
    members = {"kty": "AKP", "alg": row.name, "pub": encode_segment(public.public_bytes_raw())}
    if private is not None:
        members["priv"] = encode_segment(private.private_bytes_raw())
    return members


# Secrets (RFC 7518 §6.4)


def _check_secret(row: Algorithm, secret: Material) -> None:
    if len(secret) < row.min_secret_bytes:
        raise KeyRefused(f"A secret for {row.name} has at least {row.min_secret_bytes} bytes (RFC 7518 §3.2).")
    if is_published_secret(secret):
        raise KeyRefused("The secret is a published example: everybody knows it.")
    if is_pattern(secret):
        raise KeyRefused("The secret is a pattern, and not random.")
    # Only a second fence: the first is that secrets and key pairs are two types.
    if is_key_text(secret):
        raise KeyRefused("The secret is a key of another kind (PEM, DER, SSH or JWK), which may well be public.")


def _read_secret(row: Algorithm, members: dict[str, Any]) -> tuple[Material, Material]:
    secret = _octets(members, "k")
    return secret, secret


def _write_secret(row: Algorithm, public: Material, private: Material) -> dict[str, str]:
    return {"kty": "oct", "k": encode_segment(public)}


class _KeyType(msgspec.Struct, frozen=True):
    private_member: str
    check: Callable[[Algorithm, Material], None]
    read: Callable[[Algorithm, dict[str, Any]], tuple[Material, Material]]
    """Gives the public and the private half, None where there is none."""
    write: Callable[[Algorithm, Material, Material], dict[str, str]]
    """Without a private half it gives exactly the members of the RFC 7638 thumbprint."""


_KEY_TYPES: Mapping[str, _KeyType] = MappingProxyType(
    {
        "oct": _KeyType("k", _check_secret, _read_secret, _write_secret),
        "RSA": _KeyType("d", _check_rsa, _read_rsa, _write_rsa),
        "EC": _KeyType("d", _check_ec, _read_ec, _write_ec),
        "OKP": _KeyType("d", _check_ed25519, _read_ed25519, _write_ed25519),
        "AKP": _KeyType("priv", _check_mldsa, _read_mldsa, _write_mldsa),
    }
)
