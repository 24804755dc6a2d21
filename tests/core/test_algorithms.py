"""What the algorithms' rows do besides calling the primitive: ECDSA's r‖s to DER and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from jotgate import Key, generate_key, sign_jws, verify_jws
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.encoding import decode_segment
from jotgate.core.errors import BadSignature

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

HALVES = {"ES256": 32, "ES384": 48, "ES512": 66}


class Pair:
    """Stands for a key of `cryptography`: it keeps the DER that it is given, or gives the one that it was made with."""

    def __init__(self, der: bytes = b"") -> None:
        self.der = der

    def verify(self, signature: bytes, data: bytes, scheme: ec.ECDSA) -> None:
        self.der = signature

    def sign(self, data: bytes, scheme: ec.ECDSA) -> bytes:
        return self.der


def numbers(half: int) -> SearchStrategy[bytes]:
    """Numbers of `half` bytes, often with the bits at their beginning that DER has rules for."""
    beginnings = st.sampled_from([b"", b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\x00\x7f", b"\x00\x80"])
    zeros = st.integers(0, half).map(bytes)
    return st.tuples(beginnings | zeros, st.binary(min_size=half, max_size=half)).map(
        lambda parts: (parts[0] + parts[1])[:half]
    )


SIGNATURES = st.sampled_from(sorted(HALVES)).flatmap(
    lambda name: st.tuples(st.just(name), numbers(HALVES[name]), numbers(HALVES[name]))
)


@given(SIGNATURES)
def test_ecdsa_signatures_become_the_one_der_text_of_their_numbers_and_come_back(
    signature: tuple[str, bytes, bytes],
) -> None:
    name, r, s = signature
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    seen = Pair()
    ALGORITHMS[name].make_check(seen)(r + s, b"message")
    assert seen.der == der
    assert ALGORITHMS[name].make_sign(Pair(der))(b"message") == r + s


@pytest.mark.parametrize("name", HALVES)
def test_every_pair_of_beginnings_comes_back_from_der(name: str) -> None:
    half = HALVES[name]
    # The length itself among them: nobody is to take a number's first byte for it.
    beginnings = ["", "01", "7f", "80", "ff", "00", "0001", "007f", "0080", f"00{half:02x}", "000001", "000080"]
    of_r, of_s = ([bytes.fromhex(each).ljust(half, filler) for each in beginnings] for filler in (b"\x55", b"\xaa"))
    for r in of_r:
        for s in of_s:
            der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
            assert ALGORITHMS[name].make_sign(Pair(der))(b"message") == r + s
            seen = Pair()
            ALGORITHMS[name].make_check(seen)(r + s, b"message")
            assert seen.der == der


def test_an_rsa_key_whose_bits_fill_no_whole_bytes_signs_and_checks() -> None:
    # OpenSSL makes keys of even lengths only: this one of 2049 bits has a prime of 1024 and one of 1025.
    p, q = (rsa.generate_private_key(65537, bits).private_numbers().p for bits in (2048, 2050))
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPublicNumbers(65537, p * q)
    pair = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), numbers).private_key()
    assert pair.key_size == 2049
    key = Key.from_pem(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "PS256")
    signature = key.sign(b"text")
    assert len(signature) == 257
    key.check_signature(signature, b"text")


@pytest.mark.parametrize("name", HALVES)
def test_ecdsa_signatures_with_short_numbers_are_made_and_taken_and_others_are_not(name: str) -> None:
    key = generate_key(name)
    half = HALVES[name]
    short = 0
    for number in range(2000):
        token = sign_jws(b"%d" % number, key)
        signature = decode_segment(token.rpartition(".")[2])
        assert len(signature) == 2 * half
        if not (signature[0] and signature[half]):
            assert verify_jws(token, key.public).payload == b"%d" % number
            with pytest.raises(BadSignature):
                verify_jws(sign_jws(b"%d" % number, generate_key(name, kid=key.kid)), key.public)
            short += 1
            if short == 3:
                return
    pytest.fail("no signature with a short number came")
