"""Key files offered as an HMAC secret: PEM, DER, SSH and JWK, also where a copy or an export has reshaped them.

Knows bytes alone, and refuses nothing itself. What it looks for is so long that random bytes, and the base64 or
hexadecimal text of random bytes, do not contain it by chance.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Iterator
from contextlib import suppress

# Without the bytes that are not printable ASCII there is no byte order mark, UTF-16 or odd space left; without quotes
# and escapes a JWK reads alike as JSON, as JSON within JSON and as the text of a Python dict.
_DROPPED = bytes(byte for byte in range(256) if not 0x21 <= byte <= 0x7E or byte in b"\"'\\")
_BLANK = b"\0\t\n\v\f\r "
_BYTE_ORDER_MARKS = b"\xef\xbb\xbf\xff\xfe"

_TEXT = re.compile(
    rb"----begin|(?:publickey|privatekey|certificate)--"  # PEM; RFC 4716 has four hyphens
    rb"|[{,]kty:(?:rsa|ec|okp|akp|oct)[,}]"
    # How a public key of RFC 4253 begins in base64: the length of its type's name, and that name.
    rb"|aaaab3nzac1|aaaac3nzac1|aaaae2vjzhnh|aaaagnnrlxnzac1|aaaainnrlwvjzhnh"
)
_SSH_BLOB = re.compile(rb"\0\0\0.(?:sk-)?(?:ssh-|ecdsa-)", re.DOTALL)
# X.690: one SEQUENCE, and first in it a SEQUENCE (of an algorithm's identifier, or as in certificates), the version of
# a private key, or an RSA modulus.
_DER_START = re.compile(
    rb"\x30(?:[\x2a-\x7f]|\x81.|\x82..)(?:"
    rb"\x30(?:[\0-\x7f]|\x81.|\x82..)(?:\x06[\x03-\x0b][\x2a\x2b\x60]|\xa0\x03\x02\x01|\x02[\x01-\x15])"
    rb"|\x02\x01[\0-\x03]"
    rb"|\x02(?:\x41|\x61|\x81.|\x82..)\0)",
    re.DOTALL,
)


def is_key_text(secret: bytes) -> bool:
    """Tell a key file from random bytes: as it stands, or within one layer of base64 or hexadecimal."""
    return any(map(_is_plain_key, (secret, *_unwrapped(secret))))


def _unwrapped(secret: bytes) -> Iterator[bytes]:
    text = secret.translate(None, _DROPPED)
    with suppress(ValueError):
        # Not strict: it passes over what is no base64, and needs no exact padding.
        yield a2b_base64(text.translate(bytes.maketrans(b"-_", b"+/")) + b"==")
    with suppress(ValueError):
        yield bytes.fromhex(re.sub(rb"0[xX]|[:,;.-]", b"", text).decode("ascii"))


def _is_plain_key(raw: bytes) -> bool:
    text = raw.translate(None, _DROPPED).lower()
    return bool(_TEXT.search(text) or _SSH_BLOB.search(raw)) or _is_json(raw) or _is_der(raw)


def _is_json(raw: bytes) -> bool:
    """Tell whether `raw` is a JSON object or array: the text search knows no escaped names and no key without `kty`."""
    text = raw.replace(b"\0", b"").strip(_BLANK + _BYTE_ORDER_MARKS)
    try:
        return text.startswith((b"{", b"[")) and json.loads(text) is not None
    except (ValueError, RecursionError):
        return False


def _is_der(raw: bytes) -> bool:
    """Tell whether `raw` is one DER SEQUENCE of whole elements that begins as keys do, but for blanks around it."""
    raw = raw.lstrip(_BLANK + _BYTE_ORDER_MARKS)
    if not _DER_START.match(raw):
        return False
    position, end = _der_content(raw, 0)
    while position < end <= len(raw):
        position = _der_content(raw, position)[1]
    return position == end and not raw[end:].strip(_BLANK)


def _der_content(raw: bytes, position: int) -> tuple[int, int]:
    """Give where an element's content begins and ends (X.690 §8.1.3)."""
    start = position + 2
    length = int.from_bytes(raw[position + 1 : start])
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(raw[position + 2 : start])
    return start, start + length
