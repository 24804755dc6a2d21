"""Keys that are long enough and worthless all the same: published secrets, and RSA moduli shaped by a flawed generator.

Knows numbers and bytes, but no key object and no JWK. The random example keys of RFC 7515 and RFC 7520 are not listed,
because whoever checks an implementation against those documents needs them.
"""

from binascii import a2b_base64
from contextlib import suppress
from itertools import pairwise
from math import gcd

# What tutorials, tools and start-up kits print as their example, and deployments keep. Every spelling in which such a
# text becomes bytes (as it stands, from hexadecimal, from base64) is the same secret to whoever tries them.
_PUBLISHED_TEXTS = (
    # jwt.io's debugger (what it had before, "your-256-bit-secret", is too short anyway)
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-384-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    # FastAPI's tutorial
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    # the Spring Boot tutorials
    "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
    # Supabase's local stack and its template for self-hosting
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    # PostgREST's tutorial
    "reallyreallyreallyreallyverysafe",
)


def _spellings(text: str) -> set[bytes]:
    raw = text.encode("ascii")
    found = {raw.lower()}
    with suppress(ValueError):
        found.add(bytes.fromhex(text).lower())
    # Not strict: more padding than is needed does no harm.
    return found | {a2b_base64(raw.translate(bytes.maketrans(b"-_", b"+/")) + b"==").lower()}


_PUBLISHED = frozenset[bytes]().union(*map(_spellings, _PUBLISHED_TEXTS))

_LONGEST_PATTERN = 16


def is_published_secret(secret: bytes) -> bool:
    """Tell whether `secret` is a published example, or one with a text's case and outer whitespace changed."""
    return secret.lower() in _PUBLISHED or secret.strip().lower() in _PUBLISHED


def is_pattern(secret: bytes) -> bool:
    """Tell whether `secret` (of more than 16 bytes) repeats at most 16 bytes over and over, or counts up or down."""
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    return len(steps) == 1 or any(secret[period:] == secret[:-period] for period in range(2, _LONGEST_PATTERN + 1))


# The odd ones among the first 39 primes: their product divides the M of every key length of the flawed generator.
_SMALL_PRIMES = tuple(n for n in range(3, 168) if all(n % divisor for divisor in range(2, n)))
_GENERATOR = 65537


def is_roca_shaped(modulus: int) -> bool:
    """Tell whether an RSA modulus has the structure of CVE-2017-15361 (ROCA), by which it can be factored.

    Nemec et al., "The Return of Coppersmith's Attack" (ACM CCS 2017), §2: the primes are k·M + (65537^a mod M), M being
    the product of the first primes, so that N ≡ 65537^c (mod M) for some c. That is tested one small prime at a time: a
    logarithm modulo each, and one c that agrees with all of them. Nearly no random modulus comes past the first few.
    """
    exponent, order = 0, 1  # what is known of c: c ≡ exponent (mod order)
    for prime in _SMALL_PRIMES:
        found = _logarithm(modulus % prime, prime)
        if found is None:
            return False
        logarithm, period = found
        shared = gcd(order, period)
        if (logarithm - exponent) % shared:
            return False
        # The Chinese remainder theorem, for moduli that may share factors.
        lift = (logarithm - exponent) // shared * pow(order // shared, -1, period // shared)
        exponent += order * (lift % (period // shared))
        order *= period // shared
    return True


def _logarithm(residue: int, prime: int) -> tuple[int, int] | None:
    """Give the exponent to which 65537 is `residue` modulo `prime`, and its order there; None if there is none."""
    powers = [1]
    while (power := powers[-1] * _GENERATOR % prime) != 1:
        powers.append(power)
    return (powers.index(residue), len(powers)) if residue in powers else None
