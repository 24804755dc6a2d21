"""Each sign by which a key file is known, alone: a cut or reshaped copy may show no other."""

from __future__ import annotations

from base64 import b64encode

import pytest

from jotgate.core.keytext import is_key_text

FILL = bytes(range(0x81, 0xA1))


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


def sequence(*parts: bytes) -> bytes:
    return der(0x30, b"".join(parts))


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjO",
        b"-----\x7fBEGIN X",
        b"vcrn9g\n-----END PRIVATE KEY-----",
        b"vcrn9g\n-----END PUBLIC KEY-----",
        b"vcrn9g\n-----END CERTIFICATE-----",
        *(f"{{'kty': '{kind}', 'x': 1".encode() for kind in ("RSA", "EC", "OKP", "AKP", "oct")),
        *(
            b"k: " + b64encode(len(name).to_bytes(4) + name + FILL)
            for name in (
                b"ssh-rsa",
                b"ssh-dss",
                b"ssh-ed25519",
                b"ecdsa-sha2-nistp256",
                b"sk-ssh-ed25519@openssh.com",
                b"sk-ecdsa-sha2-nistp256@openssh.com",
            )
        ),
        b"\0\0\0\x13ecdsa-sha2-nistp256" + FILL,
        b"\0\0\0\x0bssh-ed25519" + FILL,
        b' \n["' + b"x" * 32 + b'"] ',
        b'\xef\xbb\xbf {"' + b"x" * 32 + b'": 1}\r\n',
    ],
)
def test_each_sign_in_a_text_is_enough(text: bytes) -> None:
    assert is_key_text(text)


@pytest.mark.parametrize("text", [b"----!BEGIN X", b"----~BEGIN X", b'"["'])
def test_what_stands_between_the_letters_of_a_sign_is_no_blank(text: bytes) -> None:
    assert not is_key_text(text + FILL)


STARTS = [
    sequence(sequence(der(6, b"\x2a\x86\x48"))),
    sequence(sequence(der(6, b"\x2b\x65\x70"))),
    sequence(sequence(der(6, b"\x60\x86\x48"), der(4, bytes(0x90)))),
    sequence(sequence(der(6, b"\x60\x86\x48"), der(4, bytes(0x190)))),
    sequence(sequence(der(0xA0, b"\2\1\2"))),
    sequence(sequence(der(2, b"\1" * 0x15))),
    sequence(der(2, b"\0")),
    sequence(der(2, b"\3")),
    *(sequence(der(2, b"\0" + b"\xff" * bytes_long)) for bytes_long in (0x40, 0x60, 0x80, 0x100)),
]


@pytest.mark.parametrize("more", [0x30, 0x90, 0x190])
@pytest.mark.parametrize("start", STARTS, ids=range(len(STARTS)))
def test_a_sequence_that_begins_as_keys_do_is_der_and_with_more_behind_it_is_not(start: bytes, more: int) -> None:
    first = start[2 if start[1] < 0x80 else 2 + (start[1] & 0x7F) :]
    raw = sequence(first, der(4, b"\xff" * more))
    for whole in (raw, b" \n" + raw, b"\xef\xbb\xbf" + raw, raw + b"\r\n"):
        assert is_key_text(whole)
    assert not is_key_text(raw + b"x")
    assert not is_key_text(raw[:-1])


@pytest.mark.parametrize("size", [0x7E, 0x7F, 0x80, 0x81, 0xFF, 0x100])
def test_lengths_of_one_byte_end_at_127(size: int) -> None:
    assert is_key_text(sequence(der(2, b"\0"), der(4, b"\xff" * size)))


def test_an_element_of_indefinite_length_is_read_on_into() -> None:
    # BER (X.690 §8.1.3.6) and not DER, but some tools write it, within a whole of definite length as well.
    inner = b"\x24\x80" + der(4, b"\xff" * 0x30) + b"\0\0"
    assert is_key_text(sequence(der(2, b"\0"), inner))
    assert not is_key_text(sequence(der(2, b"\0"), inner)[:-1])
