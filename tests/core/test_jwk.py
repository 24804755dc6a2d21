"""Keys and key sets: what is taken, what is refused, and that nothing leaks."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import pickle
import random
import sys
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from jotgate import BadSignature, Key, KeyRefused, KeySet, generate_key
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.keytext import is_key_text
from jotgate.core.weak import is_roca_shaped

Anything: TypeAlias = Any
PAIRS = tuple(name for name, row in ALGORITHMS.items() if not row.symmetric and not row.verify_only)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
ML_DSA = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
SECRET = hashlib.sha256(b"a fixed secret").digest()


def b64u(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64u(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def refused(jwk: object, algorithm: str | None = None) -> str:
    with pytest.raises(KeyRefused) as error:
        Key.from_jwk(jwk, algorithm=algorithm)  # type: ignore[arg-type]
    return str(error.value)


def changed(jwk: Mapping[str, Any], **members: object) -> dict[str, Any]:
    """The JWK with `members` replaced (Ellipsis: removed)."""
    return {name: value for name, value in (dict(jwk) | members).items() if value is not ...}


# Round trips


def test_a_key_comes_back_from_its_private_jwk(keys: dict[str, Key], every_algorithm: str) -> None:
    algorithm = every_algorithm
    key = keys[algorithm]
    for text in (key.to_private_jwk(), json.dumps(key.to_private_jwk()), json.dumps(key.to_private_jwk()).encode()):
        again = Key.from_jwk(text)
        assert (again.kid, again.algorithm, again.private) == (key.kid, algorithm, True)
        key.check_signature(again.sign(b"text"), b"text")
        assert again.to_private_jwk() == key.to_private_jwk()


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_comes_back_from_pem_and_public_jwk(keys: dict[str, Key], name: str) -> None:
    key = keys[name]
    signature = key.sign(b"text")
    for public in (
        key.public,
        key.public.public,
        Key.from_jwk(key.to_jwk()),
        Key.from_pem(key.public.to_pem(), name, kid=key.kid),
        Key.from_pem(key.to_pem().encode(), name, kid=key.kid).public,
        Key.from_pem("\n" + key.to_pem() + "\n", name, kid=key.kid).public,
    ):
        assert not public.private
        assert not public.can_sign
        assert public.kid == key.kid
        assert public.to_jwk() == key.to_jwk()
        public.check_signature(signature, b"text")
        with pytest.raises(BadSignature):
            public.check_signature(signature, b"texu")
        with pytest.raises(KeyRefused):
            public.sign(b"text")
        with pytest.raises(KeyRefused):
            public.to_private_jwk()


@pytest.mark.parametrize("name", PAIRS)
def test_the_public_forms_of_a_private_key_hold_nothing_private(keys: dict[str, Key], name: str) -> None:
    key = keys[name]
    private = {"d", "p", "q", "dp", "dq", "qi", "k", "priv"}
    assert not set(key.to_jwk()) & private
    assert not set(KeySet([key]).to_jwks()["keys"][0]) & private
    assert "PRIVATE" not in key.public.to_pem()


def test_a_traditional_private_key_and_an_ec_key_with_its_parameters_are_read(rsa_key: rsa.RSAPrivateKey) -> None:
    pem = rsa_key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert Key.from_pem(pem, "RS256").private
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert not Key.from_pem(public, "RS256").private
    pair = ec.generate_private_key(ec.SECP256R1())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = parameters + pair.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert Key.from_pem(pem, "ES256").private


def test_the_default_kid_is_the_rfc_7638_thumbprint(keys: dict[str, Key]) -> None:
    required: dict[str, tuple[str, ...]] = {"RS256": ("e", "kty", "n"), "Ed25519": ("crv", "kty", "x")}
    required |= dict.fromkeys(CURVES, ("crv", "kty", "x", "y"))
    required |= dict.fromkeys(ML_DSA, ("alg", "kty", "pub"))  # RFC 9964
    for name, members in required.items():
        jwk = keys[name].to_jwk()
        text = "{" + ",".join(f'"{member}":"{jwk[member]}"' for member in members) + "}"
        assert keys[name].kid == b64u(hashlib.sha256(text.encode()).digest())


def test_the_thumbprint_tells_the_same_material_again_whatever_it_is_called(keys: dict[str, Key]) -> None:
    for name in ("RS256", "ES256", "Ed25519", *ML_DSA):
        assert keys[name].thumbprint == keys[name].kid
    named = Key.from_pem(keys["RS256"].to_pem(), "PS512", kid="another name")
    assert (named.kid, named.thumbprint) == ("another name", keys["RS256"].kid)
    assert named.public.thumbprint == named.thumbprint
    assert Key.from_secret(SECRET, kid="k").thumbprint == Key.from_secret(SECRET).kid
    assert generate_key("ES256").thumbprint != generate_key("ES256").thumbprint


def test_the_thumbprint_is_that_of_the_rfcs_example() -> None:
    # RFC 7638 §3.1
    jwk = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi"
        "FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0"
        "zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csF"
        "Cur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    }
    assert Key.from_jwk(jwk, algorithm="RS256").kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_kid_is_the_one_given_in_the_call_else_in_the_jwk(keys: dict[str, Key]) -> None:
    jwk = keys["ES256"].to_jwk()
    assert Key.from_jwk(changed(jwk, kid="from the jwk")).kid == "from the jwk"
    assert Key.from_jwk(changed(jwk, kid="from the jwk"), kid="from the call").kid == "from the call"
    assert Key.from_pem(keys["ES256"].to_pem(), "ES256", kid="k").public.kid == "k"
    assert Key.from_secret(SECRET, kid="k").kid == "k"
    assert generate_key("Ed25519", kid="k").kid == "k"


@pytest.mark.parametrize("kid", [None, 5, "", "x" * 257, "\ud800", ["a"]])
def test_a_kid_that_is_no_short_text_is_refused(keys: dict[str, Key], kid: object) -> None:
    assert "kid" in refused(changed(keys["ES256"].to_jwk(), kid=kid))


# Secrecy


def test_the_repr_of_a_key_and_of_a_set_tells_no_material(keys: dict[str, Key], every_algorithm: str) -> None:
    algorithm = every_algorithm
    key = Key.from_jwk(keys[algorithm].to_private_jwk(), kid="shown")
    text = repr(key) + repr(KeySet([key])) + str(key)
    assert "shown" in text
    assert algorithm in text
    for name, value in key.to_private_jwk().items():
        if name not in ("alg", "kid", "use", "kty", "crv", "e"):
            assert value not in text


def test_a_key_is_neither_pickled_nor_copied_nor_made_without_checks(keys: dict[str, Key], algorithm: str) -> None:
    ways: tuple[Callable[[Key], object], ...] = (pickle.dumps, copy.copy, copy.deepcopy)
    for way in ways:
        with pytest.raises(TypeError):
            way(keys[algorithm])
    with pytest.raises(TypeError):
        Key()


def test_key_attributes_cannot_be_set(keys: dict[str, Key]) -> None:
    for name in ("kid", "algorithm", "public", "anything"):
        with pytest.raises(AttributeError):
            setattr(keys["ES256"], name, "x")


def test_refusals_never_tell_the_material() -> None:
    makers: tuple[Callable[[], Key], ...] = (
        lambda: Key.from_secret(b"short-secret"),
        lambda: Key.from_jwk({"kty": "oct", "k": "c2hvcnQtc2VjcmV0", "alg": "HS256"}),
        lambda: Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": "short-secret"}),
        lambda: Key.from_pem("-----BEGIN PRIVATE KEY-----\nshort-secret\n-----END PRIVATE KEY-----", "ES256"),
    )
    for make in makers:
        with pytest.raises(KeyRefused) as error:
            make()
        assert "secret-" not in str(error.value)
        assert "-secret" not in str(error.value)
        assert "c2hvcnQ" not in str(error.value)
        assert error.value.__cause__ is None


# HMAC secrets


@pytest.mark.parametrize("secret", [b"", b"s", SECRET[:31]])
def test_empty_and_short_secrets_are_refused(secret: bytes) -> None:
    with pytest.raises(KeyRefused):
        Key.from_secret(secret)
    refused({"kty": "oct", "alg": "HS256", "k": b64u(secret)})


@pytest.mark.parametrize("secret", [None, "text of thirty-two characters....", bytearray(SECRET), 32])
def test_a_secret_that_is_no_bytes_is_refused(secret: object) -> None:
    with pytest.raises(KeyRefused):
        Key.from_secret(secret)  # type: ignore[arg-type]


def public_key_texts(key: rsa.RSAPrivateKey) -> dict[str, bytes]:
    """One public key in the forms in which it has been taken for an HMAC secret elsewhere."""
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = Key.from_pem(pem, "RS256").to_jwk()
    ed_der = (
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return {
        "pem": pem,
        "pem_with_space": b" \n" + pem + b"\t",
        "pem_with_prefix": b"key:" + pem,
        "pem_with_crlf": pem.replace(b"\n", b"\r\n"),
        "pkcs1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "der": der,
        "pkcs1_der": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "ed25519_der": ed_der,
        "base64_der": b64encode(der),
        "base64_der_unpadded": b64encode(ed_der).rstrip(b"="),
        "pem_body": b"\n".join(pem.splitlines()[1:-1]),
        "hex_der": der.hex().encode(),
        "private_der": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "jwk": json.dumps(jwk).encode(),
        "jwk_indented": b"\n" + json.dumps(jwk, indent=2).encode(),
        "jwks": json.dumps({"keys": [jwk]}).encode(),
        "nested_jwks": json.dumps([{"key": jwk}]).encode(),
        "quoted_jwk": json.dumps(json.dumps(jwk)).encode(),
        **reshaped_pem(pem),
        **reshaped_jwk(json.dumps(jwk), json.dumps({"keys": [jwk]}), str(jwk)),
        **reshaped_der(der, ed_der),
        **reshaped_ssh(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)),
    }


def reshaped_pem(pem: bytes) -> dict[str, bytes]:
    text = pem.decode()
    return {
        "pem_space_after_hyphens": pem.replace(b"-----BEGIN", b"----- BEGIN"),
        "pem_space_in_hyphens": pem.replace(b"-----BEGIN", b"- ----BEGIN"),
        "pem_no_break_space": text.replace("BEGIN ", "BEGIN\u00a0").encode(),
        "pem_other_hyphens": pem.replace(b"-----BEGIN", "\u2014BEGIN".encode()),
        "pem_lower_case": pem.lower(),
        "pem_bom": text.encode("utf-8-sig"),
        "pem_utf16_le": text.encode("utf-16-le"),
        "pem_utf16_be": text.encode("utf-16-be"),
        "pem_utf16_le_bom": b"\xff\xfe" + text.encode("utf-16-le"),
        "pem_utf16_be_bom": b"\xfe\xff" + text.encode("utf-16-be"),
        "pem_base64": b64encode(pem),
        "pem_base64url": b64u(pem).encode(),
        "pem_utf16_base64": b64encode(text.encode("utf-16")),
        "pem_hex": pem.hex().encode(),
    }


def reshaped_jwk(jwk: str, jwks: str, written: str) -> dict[str, bytes]:
    return {
        "jwk_bom": jwk.encode("utf-8-sig"),
        "jwks_bom": jwks.encode("utf-8-sig"),
        "jwk_utf16_le": jwk.encode("utf-16-le"),
        "jwk_utf16_be": jwk.encode("utf-16-be"),
        "jwks_utf16_bom": jwks.encode("utf-16"),
        "jwk_nul": jwk.encode() + b"\0",
        "jwk_python": written.encode(),
        "jwk_base64": b64encode(jwk.encode()),
        "jwk_base64url": b64u(jwk.encode()).encode(),
        "jwks_base64url": b64u(jwks.encode()).encode(),
        "jwk_twice": (jwk + jwk).encode(),
        "jwk_lines": (jwk + "\n" + jwk).encode(),
        "jwk_base64_twice": b64encode(jwk.encode()) + b"\n" + b64encode(jwk.encode()),
        "jwk_escaped_name": jwk.replace('"kty"', r'"\u006bty"').encode(),
        "jwk_escaped_name_bom_nul": jwk.replace('"kty"', r'"\u006bty"').encode("utf-8-sig") + b"\n\0",
        "jwk_without_kty": jwk.replace('"kty"', '"type"').encode("utf-16"),
    }


def reshaped_der(der: bytes, ed_der: bytes) -> dict[str, bytes]:
    lines = [b64encode(der)[start : start + 76] for start in range(0, len(b64encode(der)), 76)]
    return {
        "der_nul": der + b"\0",
        "der_newline_nul": ed_der + b"\n\0",
        "der_base64_lines": b"\r\n".join(lines),
        "der_base64_lines_unpadded": b"\n".join(lines).rstrip(b"="),
        "der_base64_nul": b64encode(ed_der) + b"\0",
        "der_base64url": b64u(der).encode(),
        "der_base64url_padded": urlsafe_b64encode(ed_der),
        "der_base64_quoted": json.dumps(b64encode(der).decode()).encode(),
        "der_hex_upper": ed_der.hex().upper().encode(),
        "der_hex_0x": b"0x" + der.hex().encode(),
        "der_hex_0x_each": ", ".join(f"0x{byte:02X}" for byte in ed_der).encode(),
        "der_hex_colons": der.hex(":").encode(),
        "der_hex_colon_lines": ":\n".join(ed_der.hex(":")[start : start + 44] for start in range(0, 131, 45)).encode(),
        "der_hex_utf16": ed_der.hex().encode("utf-16"),
    }


def reshaped_ssh(rsa_line: bytes) -> dict[str, bytes]:
    ed25519_line = (
        ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    )
    ecdsa = ec.generate_private_key(ec.SECP256R1()).public_key()
    blob = rsa_line.split()[1]
    return {
        "ssh_rfc4716": b"---- BEGIN SSH2 PUBLIC KEY ----\n" + blob + b"\n---- END SSH2 PUBLIC KEY ----\n",
        "ssh_rsa_blob": blob,
        "ssh_rsa_blob_comment": blob + b" user@host",
        "ssh_ed25519_blob": ed25519_line.split()[1],
        "ssh_ecdsa_blob": ecdsa.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1],
        "ssh_binary": b64decode(ed25519_line.split()[1]),
        "ssh_hex": b64decode(blob).hex().encode(),
        "ssh_dss": b"ssh-dss " + b64encode(b"\0\0\0\x07ssh-dss" + bytes(range(100))),
        "ssh_options": b'command="/bin/true",no-pty ' + rsa_line,
        "ssh_utf16": rsa_line.decode().encode("utf-16"),
        "ssh_base64": b64encode(ed25519_line),
        "ssh_token": b"sk-ssh-ed25519@openssh.com " + b64encode(b"\0\0\0\x1ask-ssh-ed25519@openssh.com" + SECRET),
    }


FORMS = (
    "pem",
    "pem_with_space",
    "pem_with_prefix",
    "pem_with_crlf",
    "pkcs1",
    "ssh",
    "der",
    "pkcs1_der",
    "ed25519_der",
    "base64_der",
    "base64_der_unpadded",
    "pem_body",
    "hex_der",
    "private_der",
    "jwk",
    "jwk_indented",
    "jwks",
    "nested_jwks",
    "quoted_jwk",
    "pem_space_after_hyphens",
    "pem_space_in_hyphens",
    "pem_no_break_space",
    "pem_other_hyphens",
    "pem_lower_case",
    "pem_bom",
    "pem_utf16_le",
    "pem_utf16_be",
    "pem_utf16_le_bom",
    "pem_utf16_be_bom",
    "pem_base64",
    "pem_base64url",
    "pem_utf16_base64",
    "pem_hex",
    "jwk_bom",
    "jwks_bom",
    "jwk_utf16_le",
    "jwk_utf16_be",
    "jwks_utf16_bom",
    "jwk_nul",
    "jwk_python",
    "jwk_base64",
    "jwk_base64url",
    "jwks_base64url",
    "jwk_twice",
    "jwk_lines",
    "jwk_base64_twice",
    "jwk_escaped_name",
    "jwk_escaped_name_bom_nul",
    "jwk_without_kty",
    "der_nul",
    "der_newline_nul",
    "der_base64_lines",
    "der_base64_lines_unpadded",
    "der_base64_nul",
    "der_base64url",
    "der_base64url_padded",
    "der_base64_quoted",
    "der_hex_upper",
    "der_hex_0x",
    "der_hex_0x_each",
    "der_hex_colons",
    "der_hex_colon_lines",
    "der_hex_utf16",
    "ssh_rfc4716",
    "ssh_rsa_blob",
    "ssh_rsa_blob_comment",
    "ssh_ed25519_blob",
    "ssh_ecdsa_blob",
    "ssh_binary",
    "ssh_hex",
    "ssh_dss",
    "ssh_options",
    "ssh_utf16",
    "ssh_base64",
    "ssh_token",
)


@pytest.mark.parametrize("form", FORMS)
def test_a_public_key_in_any_encoding_is_no_hmac_secret(rsa_key: rsa.RSAPrivateKey, form: str) -> None:
    text = public_key_texts(rsa_key)[form]
    with pytest.raises(KeyRefused):
        Key.from_secret(text)
    refused({"kty": "oct", "alg": "HS256", "k": b64u(text)})


def test_every_form_of_a_public_key_is_tried(rsa_key: rsa.RSAPrivateKey) -> None:
    assert tuple(public_key_texts(rsa_key)) == FORMS


def test_random_secrets_and_their_texts_are_never_taken_for_a_key() -> None:
    generator = random.Random(20)  # noqa: S311 # a failure has to come back
    for _ in range(10_000):
        for length in (32, 64):
            raw = generator.randbytes(length)
            forms = (raw, b64encode(raw), b64u(raw).encode(), raw.hex().encode(), raw.hex(":").upper().encode())
            assert not any(map(is_key_text, forms)), raw.hex()


@pytest.mark.parametrize(
    "near",
    [
        b'{"a passphrase in braces, of thirty-two bytes}',
        b'"a passphrase within quotation marks, 32 bytes"',
        b"our ssh-rsa and BEGIN and kty: passphrase of old",
        b"\x30\x3e\x02\x01\x00" + SECRET + SECRET[:27],  # a SEQUENCE whose elements do not end where it does
        b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70" + SECRET + SECRET[:4],  # a SEQUENCE shorter than the text
        b"\x30\x81\xff\x02\x01\x00" + SECRET + SECRET,  # and one longer
        b"[" * 100_000 + b".",
    ],
)
def test_what_only_resembles_a_key_is_taken(near: bytes) -> None:
    assert Key.from_secret(near).symmetric


def test_random_secrets_of_any_length_are_taken() -> None:
    for length in range(32, 160):
        # Each begins as a DER SEQUENCE, a JSON text or a PEM block could.
        for start in (b"0", b"\x30\x82", bytes([0x30, length - 2]), b"{", b"-----", b"ssh", b'"', b"["):
            Key.from_secret((start + hashlib.shake_256(bytes([length])).digest(length))[:length])
    Key.from_secret(b"correct horse battery staple and a few words more")


@pytest.mark.parametrize(("name", "length"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_the_hash(name: str, length: int) -> None:
    secret = hashlib.shake_256(b"a fixed secret").digest(length)
    assert Key.from_secret(secret, name).algorithm == name
    assert Key.from_jwk({"kty": "oct", "alg": name, "k": b64u(secret)}).algorithm == name
    with pytest.raises(KeyRefused, match=f"{length} bytes"):
        Key.from_secret(secret[:-1], name)
    assert f"{length} bytes" in refused({"kty": "oct", "alg": name, "k": b64u(secret[:-1])})


PUBLISHED = (
    b"a-string-secret-at-least-256-bits-long",
    b"A-STRING-secret-at-least-256-bits-long\n",
    b"a-valid-string-secret-that-is-at-least-384-bits-long",
    b"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    bytes.fromhex("09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"),
    b"404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
    bytes.fromhex("404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970"),
    b64decode("404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970"),
    b"super-secret-jwt-token-with-at-least-32-characters-long",
    b"your-super-secret-jwt-token-with-at-least-32-characters-long",
    urlsafe_b64decode("your-super-secret-jwt-token-with-at-least-32-characters-long"),
    b"reallyreallyreallyreallyverysafe",
)


@pytest.mark.parametrize("secret", PUBLISHED)
def test_published_example_secrets_are_refused_in_every_spelling(secret: bytes) -> None:
    assert "published" in refused({"kty": "oct", "alg": "HS256", "k": b64u(secret)})
    with pytest.raises(KeyRefused, match="published"):
        Key.from_secret(secret)
    Key.from_secret(secret + b"!")  # a list of texts, and no guess at what looks like one


def test_the_secrets_that_were_published_before_are_too_short_anyway() -> None:
    for name, secret in (("HS256", "256"), ("HS384", "384"), ("HS512", "512")):
        with pytest.raises(KeyRefused, match="at least"):
            Key.from_secret(f"your-{secret}-bit-secret".encode(), name)


@pytest.mark.parametrize(
    "secret",
    [
        bytes(32),
        b"a" * 32,
        b"\xff" * 64,
        b"secret" * 6,
        b"0123456789abcdef" * 2,
        b"0123456789abcdef" * 2 + b"0123",
        bytes(range(32)),
        bytes(range(100, 36, -1)),
        bytes(range(240, 256)) + bytes(range(16)),
    ],
)
def test_patterns_are_no_secrets(secret: bytes) -> None:
    assert "pattern" in refused({"kty": "oct", "alg": "HS256", "k": b64u(secret)})
    with pytest.raises(KeyRefused, match="pattern"):
        Key.from_secret(secret)


def test_a_secret_that_is_random_to_its_last_byte_is_no_pattern() -> None:
    for secret in (SECRET[:17] * 2, bytes(31) + b"a", b"0123456789abcdef" + b"0123456789abcdeF", b"ab" * 16 + b"b"):
        Key.from_secret(secret)


def test_the_random_example_secrets_of_the_rfcs_stay_usable_for_testing() -> None:
    # RFC 7515 appendix A.1
    secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    assert Key.from_jwk({"kty": "oct", "alg": "HS256", "k": secret}).symmetric


def test_a_secret_has_no_public_form_and_no_pem() -> None:
    key = Key.from_secret(SECRET)
    assert key.symmetric
    for call in (lambda: key.public, key.to_jwk, key.to_pem, KeySet([key]).to_jwks):
        with pytest.raises(KeyRefused):
            call()


def test_a_secret_is_no_pair_and_a_pair_no_secret(keys: dict[str, Key]) -> None:
    with pytest.raises(KeyRefused):
        Key.from_secret(SECRET, "ES256")
    with pytest.raises(KeyRefused):
        Key.from_pem(keys["RS256"].to_pem(), "HS256")


# One key, one algorithm


@pytest.mark.parametrize("name", ["none", "None", "", "es256", "HS255", None, 5, ["ES256"]])
def test_unknown_algorithms_are_refused_wherever_a_key_is_made(keys: dict[str, Key], name: Anything) -> None:
    jwk = keys["ES256"].to_jwk()
    refused(changed(jwk, alg=name))
    for make in (
        lambda: Key.from_secret(SECRET, name),
        lambda: Key.from_pem(keys["ES256"].to_pem(), name),
        lambda: generate_key(name),
        lambda: KeySet.from_jwks({"keys": []}, algorithms=[name]),
    ):
        with pytest.raises(KeyRefused):
            make()


def test_a_jwk_is_only_for_the_algorithm_that_it_names(keys: dict[str, Key]) -> None:
    refused(keys["RS256"].to_jwk(), "ES256")
    refused(keys["ES256"].to_jwk(), "Ed25519")
    refused(changed(keys["RS256"].to_jwk(), alg="RSA-OAEP"))
    refused(changed(keys["RS256"].to_jwk(), alg="ES256"))
    refused(changed(keys["Ed25519"].to_private_jwk(), alg="HS256"))


def test_a_jwk_without_alg_takes_the_only_one_of_its_type_or_the_one_that_the_caller_names(
    keys: dict[str, Key],
) -> None:
    for name in (*CURVES, "Ed25519"):
        assert Key.from_jwk(changed(keys[name].to_jwk(), alg=...)).algorithm == name
    for jwk, fitting in (
        (keys["RS256"].to_jwk(), ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        (keys["HS256"].to_private_jwk(), ("HS256", "HS384", "HS512")),
    ):
        assert ", ".join(fitting) in refused(changed(jwk, alg=...))
    for name in ("RS384", "RS512", "PS256", "PS384", "PS512"):
        assert Key.from_jwk(changed(keys["RS256"].to_jwk(), alg=...), algorithm=name).algorithm == name
    assert Key.from_jwk(changed(keys["RS256"].to_jwk(), alg=...), algorithm="RS256").algorithm == "RS256"
    assert Key.from_jwk(changed(keys["HS256"].to_private_jwk(), alg=...), algorithm="HS256").algorithm == "HS256"
    refused(changed(keys["RS256"].to_jwk(), alg=...), "ES256")
    refused(changed(keys["ES256"].to_jwk(), alg=...), "HS256")


@pytest.mark.parametrize("name", PAIRS)
def test_a_pem_key_of_another_type_than_its_algorithm_is_refused(keys: dict[str, Key], name: str) -> None:
    for other in PAIRS:
        if (ALGORITHMS[other].key_type, ALGORITHMS[other].curve, other in ML_DSA and other) != (
            ALGORITHMS[name].key_type,
            ALGORITHMS[name].curve,
            name in ML_DSA and name,
        ):
            with pytest.raises(KeyRefused):
                Key.from_pem(keys[name].to_pem(), other)


def test_the_deprecated_name_eddsa_is_verified_but_never_signed(keys: dict[str, Key]) -> None:
    old = Key.from_jwk(changed(keys["Ed25519"].to_private_jwk(), alg="EdDSA"))
    assert old.algorithm == "EdDSA"
    old.check_signature(keys["Ed25519"].sign(b"text"), b"text")
    with pytest.raises(KeyRefused):
        old.sign(b"text")
    with pytest.raises(KeyRefused):
        generate_key("EdDSA")


# use and key_ops


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"use": None},
        {"use": ["sig"]},
        {"key_ops": ["encrypt"]},
        {"key_ops": []},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"key_ops": None},
        {"key_ops": ["verify", "verify"]},
        {"key_ops": ["verify", 5]},
    ],
)
def test_a_public_jwk_that_is_not_for_verifying_is_refused(keys: dict[str, Key], members: dict[str, object]) -> None:
    assert "JWK" in refused(changed(keys["ES256"].to_jwk(), **members))


@pytest.mark.parametrize("foreign", ["encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits", "Verify"])
def test_a_jwk_whose_use_and_key_ops_contradict_each_other_is_refused(keys: dict[str, Key], foreign: str) -> None:
    for jwk in (keys["ES256"].to_jwk(), keys["ES256"].to_private_jwk(), keys["HS256"].to_private_jwk()):
        both = changed(jwk, use="sig", key_ops=["sign", "verify", foreign])
        assert "use and key_ops contradict" in refused(both)
        assert Key.from_jwk(changed(both, use=...)).can_verify
        assert Key.from_jwk(changed(both, key_ops=["sign", "verify"])).can_verify


def test_key_ops_bound_what_a_key_does() -> None:
    jwk = Key.from_secret(SECRET).to_private_jwk()
    signing = Key.from_jwk(changed(jwk, key_ops=["sign"]))
    checking = Key.from_jwk(changed(jwk, key_ops=["verify"]))
    checking.check_signature(signing.sign(b"text"), b"text")
    with pytest.raises(KeyRefused):
        checking.sign(b"text")
    with pytest.raises(KeyRefused):
        signing.check_signature(b"", b"text")
    assert KeySet([signing]).find("HS256", signing.kid) is None
    assert KeySet([signing]).find("HS256", None) is None


def test_a_private_key_of_any_type_that_may_only_sign_checks_with_its_public_half_but_a_secret_does_not(
    keys: dict[str, Key], every_algorithm: str
) -> None:
    key = Key.from_jwk(changed(keys[every_algorithm].to_private_jwk(), key_ops=["sign"]))
    assert key.sign(b"text")
    assert key.can_verify is not key.symmetric


def test_key_ops_are_a_list_or_tuple_of_names_and_nothing_else(keys: dict[str, Key]) -> None:
    jwk = keys["ES256"].to_jwk()
    assert Key.from_jwk(changed(jwk, key_ops=("verify",))).can_verify
    for wrong in (["verify", 5], ["verify", ["sign"]], {"verify": 1}, "verify", None):
        assert "not a list of names" in refused(changed(jwk, key_ops=wrong))


def test_why_a_key_cannot_sign_is_told(keys: dict[str, Key]) -> None:
    with pytest.raises(KeyRefused, match="public, or may not be used to sign"):
        keys["ES256"].public.sign(b"text")
    with pytest.raises(KeyRefused, match="name EdDSA is deprecated"):
        Key.from_jwk(changed(keys["Ed25519"].to_private_jwk(), alg="EdDSA")).sign(b"text")


def test_a_public_key_is_its_own_public_half(keys: dict[str, Key]) -> None:
    public = keys["ES256"].public
    assert public.public is public


def test_a_key_says_when_printed_which_half_it_is(keys: dict[str, Key]) -> None:
    pair, secret = Key.from_jwk(changed(keys["ES256"].to_private_jwk(), kid="a")), Key.from_secret(SECRET, kid="b")
    assert repr(pair) == "<Key ES256 private kid='a'>"
    assert repr(pair.public) == "<Key ES256 public kid='a'>"
    assert repr(secret) == "<Key HS256 secret kid='b'>"
    assert repr(KeySet([pair])) == "KeySet([<Key ES256 private kid='a'>])"


def test_a_pair_for_signing_verifies_with_its_public_half_and_one_for_verifying_does_not_sign(
    keys: dict[str, Key],
) -> None:
    jwk = keys["ES256"].to_private_jwk()
    signing = Key.from_jwk(changed(jwk, key_ops=["sign"]))
    signing.check_signature(signing.sign(b"text"), b"text")
    with pytest.raises(KeyRefused):
        Key.from_jwk(changed(jwk, key_ops=["verify"])).sign(b"text")


# Malformed JWKs


@pytest.mark.parametrize(
    "jwk",
    [None, 5, [], b"", b"[]", "{", b"\xff", "\ud800", {}, {"kty": "EC"}, {"kty": 5}, b'{"kty":"EC","kty":"RSA"}'],
)
def test_what_is_no_jwk_is_refused(jwk: object) -> None:
    refused(jwk)


@pytest.mark.parametrize("name", ["RS256", "ES256", "ES384", "ES512", "Ed25519", "HS256", *ML_DSA])
def test_each_missing_or_broken_member_is_refused(keys: dict[str, Key], name: str) -> None:
    jwk = keys[name].to_private_jwk()
    for member in set(jwk) - {"use", "alg", "kid"}:
        # Without `d` a pair is public, and taken, unless other private members are there.
        if not (member in ("d", "priv") and name != "RS256") and member != "k":
            refused(changed(jwk, **{member: ...}))
        for value in (None, 5, "", ["AQAB"], jwk[member] + "=", jwk[member] + ".", " " + jwk[member], "A", "+/+/"):
            refused(changed(jwk, **{member: value}))


# RSA


def rsa_jwk(key: rsa.RSAPrivateKey | rsa.RSAPublicNumbers) -> dict[str, str]:
    numbers = key.public_key().public_numbers() if isinstance(key, rsa.RSAPrivateKey) else key
    return {"kty": "RSA", "alg": "RS256", "n": number(numbers.n), "e": number(numbers.e)}


def test_rsa_keys_under_2048_bits_are_refused() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 # the point of the test
    assert "bits" in refused(rsa_jwk(small))
    pem = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyRefused, match="bits"):
        Key.from_pem(pem, "RS256")
    assert "bits" in refused(rsa_jwk(rsa.RSAPublicNumbers(65537, 2**2046 + 1)))


def test_rsa_keys_over_8192_bits_are_refused() -> None:
    Key.from_jwk(rsa_jwk(rsa.RSAPublicNumbers(65537, 2**8191 + 1)))
    assert "bits" in refused(rsa_jwk(rsa.RSAPublicNumbers(65537, 2**8192 + 1)))
    public = rsa.RSAPublicNumbers(65537, 2**16383 + 1).public_key()
    with pytest.raises(KeyRefused, match="bits"):
        Key.from_pem(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "RS256")


@pytest.mark.parametrize("exponent", [1, 2, 3, 17, 257, 65535, 65536, 65538, 2**64 + 1, 2**2040 + 1])
def test_rsa_exponents_that_are_small_even_or_huge_are_refused(rsa_key: rsa.RSAPrivateKey, exponent: int) -> None:
    modulus = rsa_key.public_key().public_numbers().n
    refused(rsa_jwk(rsa.RSAPublicNumbers(exponent, modulus)))


def test_a_huge_rsa_exponent_is_refused_in_a_pem_too() -> None:
    public = rsa.RSAPublicNumbers(2**64 + 1, 2**2047 + 0x1D * 2**900 + 1).public_key()
    with pytest.raises(KeyRefused, match="exponent"):
        Key.from_pem(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "RS256")


def test_huge_rsa_numbers_are_refused_before_anything_is_computed_with_them(keys: dict[str, Key]) -> None:
    for numbers in (rsa.RSAPublicNumbers(65537, 2**8192 + 1), rsa.RSAPublicNumbers(2**64 + 1, 2**2047 + 1)):
        assert "at most 8192 bits, its exponent 64" in refused(rsa_jwk(numbers))
    jwk = keys["RS256"].to_private_jwk()
    for member in ("d", "p", "q", "dp", "dq", "qi"):
        assert "halves" in refused(changed(jwk, **{member: number(2**2048 + 1)}))


def test_an_even_rsa_modulus_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    modulus = rsa_key.public_key().public_numbers().n
    refused(rsa_jwk(rsa.RSAPublicNumbers(65537, modulus + 1)))


def test_rsa_numbers_with_leading_zeros_are_refused(keys: dict[str, Key]) -> None:
    jwk = keys["RS256"].to_jwk()
    for member in ("n", "e"):
        raw = urlsafe_b64decode(jwk[member] + "==")
        assert "zero" in refused(changed(jwk, **{member: b64u(b"\0" + raw)}))


def test_rsa_keys_whose_numbers_do_not_belong_together_are_refused(keys: dict[str, Key]) -> None:
    jwk = keys["RS256"].to_private_jwk()
    other = Key.from_pem(
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "RS256"
    ).to_private_jwk()
    for member in ("n", "d", "p", "q", "dp", "dq", "qi"):
        refused(changed(jwk, **{member: other[member]}))
    for member in ("d", "p", "dp"):
        refused(changed(jwk, **{member: number(2**9000 + 1)}))
    assert "primes" in refused(changed(jwk, oth=[]))


# What a flawed generator makes: the primes are k M + (65537^a mod M), with M the product of the first 126 primes.
FIRST_PRIMES = [n for n in range(2, 702) if all(n % divisor for divisor in range(2, n))]
M = math.prod(FIRST_PRIMES)
FLAWED = [(7201851381082588, 636779113446079339), (8021758936332687, 816733232565365490)]


def test_rsa_keys_of_the_flawed_generator_are_refused() -> None:
    assert len(FIRST_PRIMES) == 126
    p, q = (k * M + pow(65537, a, M) for k, a in FLAWED)
    pair = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=(d := pow(65537, -1, (p - 1) * (q - 1))),
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(65537, p * q),
    ).private_key()
    assert pair.key_size == 2048
    assert "ROCA" in refused(rsa_jwk(pair))
    for pem in (
        pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ):
        with pytest.raises(KeyRefused, match="ROCA"):
            Key.from_pem(pem, "PS256")


@pytest.mark.parametrize("exponent", [0, 1, 2, 12345, 2**60 + 7, 10**30])
def test_any_power_of_the_generator_is_the_flawed_shape(exponent: int) -> None:
    assert is_roca_shaped(pow(65537, exponent, M))
    assert is_roca_shaped(pow(65537, exponent, M) + M * (2**1076 + exponent))


def test_moduli_that_only_resemble_the_flawed_shape_are_taken() -> None:
    modulus = pow(65537, 2**60 + 7, M)
    # Every residue modulo a small prime is a power of the generator there, but no one exponent fits them all.
    for prime in (3, 5, 7, 97, 163, 167):
        rest = M // prime
        moved = modulus + rest * ((modulus * 65536) * pow(rest, -1, prime) % prime)
        assert moved % prime == modulus * 65537 % prime
        assert moved % rest == modulus % rest
        assert not is_roca_shaped(moved)
    # One residue alone is outside the group that the generator makes (11: 1 and 10; 37: the fourth powers).
    for prime, outside in ((11, 2), (13, 0), (37, 2)):
        rest = M // prime
        moved = modulus + rest * ((outside - modulus) * pow(rest, -1, prime) % prime)
        assert moved % prime == outside
        assert not is_roca_shaped(moved)
    generator = random.Random(20171016)  # noqa: S311 # the same moduli each time
    assert not any(is_roca_shaped(generator.getrandbits(2048) | 1) for _ in range(10_000))


# Elliptic curves


@pytest.mark.parametrize("name", CURVES)
def test_points_off_the_curve_are_refused(keys: dict[str, Key], name: str) -> None:
    jwk = keys[name].to_jwk()
    size = (CURVES[name].key_size + 7) // 8
    assert "curve" in refused(changed(jwk, y=b64u(b"\1" * size)))
    assert "curve" in refused(changed(jwk, x=b64u(bytes(size)), y=b64u(bytes(size))))
    assert "curve" in refused(changed(jwk, x=b64u(b"\xff" * size)))


def test_other_curves_are_refused() -> None:
    for curve, name in ((ec.SECP384R1(), "P-384"), (ec.SECP256K1(), "secp256k1")):
        pair = ec.generate_private_key(curve)
        with pytest.raises(KeyRefused, match="curve"):
            Key.from_pem(pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "ES256")
        numbers = pair.public_key().public_numbers()
        members = {"kty": "EC", "x": number(numbers.x), "y": number(numbers.y)}
        refused(members | {"crv": name, "alg": "ES256"})
        refused(members | {"crv": name, "alg": "ES512"})
        refused(members | {"crv": "P-256", "alg": "ES256"})
        if name == "secp256k1":
            refused(members | {"crv": name})
            refused(members | {"crv": name, "alg": "ES256K"})


@pytest.mark.parametrize("name", CURVES)
def test_coordinates_of_the_wrong_length_are_refused(keys: dict[str, Key], name: str) -> None:
    jwk = keys[name].to_private_jwk()
    size = (CURVES[name].key_size + 7) // 8
    for member in ("x", "y", "d"):
        raw = urlsafe_b64decode(jwk[member] + "==")
        for wrong in (b"\0" + raw, raw[1:], raw[:-1]):
            assert f"{size} bytes" in refused(changed(jwk, **{member: b64u(wrong)}))


@pytest.mark.parametrize("name", [*CURVES, "Ed25519", *ML_DSA])
def test_a_private_half_that_is_not_of_the_public_half_is_refused(keys: dict[str, Key], name: str) -> None:
    other = generate_key(name).to_private_jwk()
    member = "priv" if name in ML_DSA else "d"
    assert "belong together" in refused(changed(keys[name].to_private_jwk(), **{member: other[member]}))


@pytest.mark.parametrize(
    "d", [0, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, 2**256 - 1], ids=["0", "n", "max"]
)
def test_ec_private_numbers_out_of_range_are_refused(keys: dict[str, Key], d: int) -> None:
    assert "range" in refused(changed(keys["ES256"].to_private_jwk(), d=b64u(d.to_bytes(32, "big"))))


# Ed25519

SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
P = 2**255 - 19
# y = p + k is another spelling of y = k; x = 0 has no sign.
NON_CANONICAL = [(P + k | sign << 255).to_bytes(32, "little").hex() for k in range(19) for sign in (0, 1)] + [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_ed25519_keys_of_small_order_are_refused(point: str) -> None:
    raw = bytes.fromhex(point)
    assert "small order" in refused({"kty": "OKP", "crv": "Ed25519", "x": b64u(raw)})
    pem = ed25519.Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyRefused, match="small order"):
        Key.from_pem(pem, "Ed25519")


@pytest.mark.parametrize("point", NON_CANONICAL)
def test_ed25519_keys_in_a_non_canonical_form_are_refused(point: str) -> None:
    message = refused({"kty": "OKP", "crv": "Ed25519", "x": b64u(bytes.fromhex(point))})
    assert "canonical" in message or "no point" in message


def test_ed25519_keys_that_are_no_point_are_refused() -> None:
    assert "no point" in refused({"kty": "OKP", "crv": "Ed25519", "x": b64u(bytes([2]) + bytes(31))})


def test_good_ed25519_keys_are_taken() -> None:
    for seed in range(32):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(bytes([seed])).digest())
        Key.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64u(private.public_key().public_bytes_raw())})


def test_other_octet_key_pairs_are_refused() -> None:
    raw = x25519.X25519PrivateKey.generate()
    refused({"kty": "OKP", "crv": "X25519", "x": b64u(raw.public_key().public_bytes_raw())})
    refused({"kty": "OKP", "crv": "Ed448", "x": b64u(bytes(57))})
    with pytest.raises(KeyRefused):
        Key.from_pem(raw.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "Ed25519")


# ML-DSA (RFC 9964)


@pytest.mark.parametrize("name", ML_DSA)
def test_a_jwk_for_ml_dsa_names_its_algorithm_itself(keys: dict[str, Key], name: str) -> None:
    for jwk in (keys[name].to_jwk(), keys[name].to_private_jwk()):
        assert "RFC 9964" in refused(changed(jwk, alg=...), name)
        refused(changed(jwk, alg=...))
        assert len(KeySet.from_jwks({"keys": [changed(jwk, alg=...)]}, algorithms=(name,))) == 0
        for other in ML_DSA:
            if other != name:
                assert "length" in refused(changed(jwk, alg=other))
        for wrong in ("ES256", "HS256", "EdDSA", "ML-DSA", "ML-DSA-44-ES256"):
            refused(changed(jwk, alg=wrong))
        refused(changed(jwk, kty="OKP"))


@pytest.mark.parametrize("name", ML_DSA)
def test_ml_dsa_keys_of_another_length_are_refused(keys: dict[str, Key], name: str) -> None:
    jwk = keys[name].to_private_jwk()
    raw = urlsafe_b64decode(jwk["pub"] + "==")
    for wrong in (raw[:-1], raw + b"\0", raw[:32]):
        assert "length" in refused(changed(jwk, pub=b64u(wrong)))
    for wrong in (bytes(31), bytes(33), bytes(64), bytes(2560)):
        assert "32 bytes" in refused(changed(jwk, priv=b64u(wrong)))


@pytest.mark.parametrize("name", ML_DSA)
def test_where_cryptography_has_no_ml_dsa_its_keys_are_refused_and_all_others_taken(
    keys: dict[str, Key], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import asymmetric
    from cryptography.hazmat.primitives.asymmetric import mldsa

    pem, jwk = keys["ES256"].to_pem(), keys[name].to_jwk()

    def check() -> None:
        ways: tuple[Callable[[], object], ...] = (
            lambda: generate_key(name),
            lambda: Key.from_jwk(jwk),
            lambda: Key.from_pem(pem, name),
        )
        for way in ways:
            with pytest.raises(KeyRefused, match=f"{name} needs a newer cryptography"):
                way()
        found = KeySet.from_jwks({"keys": [jwk, keys["ES256"].to_jwk()]}, algorithms=list(ALGORITHMS))
        assert [key.algorithm for key in found] == ["ES256"]
        assert "newer cryptography" in found.skipped[0][1]

    def no_backend(seed: bytes) -> None:
        raise UnsupportedAlgorithm("no ML-DSA in this OpenSSL")

    class_name = name.replace("-", "") + "PrivateKey"
    with monkeypatch.context() as patch:
        patch.setattr(getattr(mldsa, class_name), "from_seed_bytes", no_backend)
        check()
    with monkeypatch.context() as patch:
        patch.delattr(mldsa, class_name)
        check()
    with monkeypatch.context() as patch:
        patch.delattr(asymmetric, "mldsa")
        patch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
        check()


def test_a_pem_key_of_a_kind_that_cryptography_lacks_is_refused_as_such(
    keys: dict[str, Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm

    def lacking(raw: bytes) -> None:
        raise UnsupportedAlgorithm("no such kind")

    monkeypatch.setattr(serialization, "load_pem_public_key", lacking)
    with pytest.raises(KeyRefused, match="lacks"):
        Key.from_pem(keys["ML-DSA-44"].public.to_pem(), "ML-DSA-44")


# PEM


def test_pem_texts_without_exactly_one_plain_key_are_refused(keys: dict[str, Key], rsa_key: rsa.RSAPrivateKey) -> None:
    pem = keys["RS256"].to_pem()
    encrypted = rsa_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
    )
    broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    dh = "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"
    legacy = rsa_key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, serialization.BestAvailableEncryption(b"password")
    )
    for text, reason in (
        ("", "One PEM block"),
        ("x", "One PEM block"),
        ("\u00e9", "ASCII"),
        (pem + pem, "One PEM block"),
        (pem[:-40], "can be read"),
        (encrypted, "encrypted"),
        (legacy, "encrypted"),
        (broken, "can be read"),
        (certificate, "certificate"),
        (dh, "neither"),
        (pem + certificate, "One PEM block"),
    ):
        for name in PAIRS:
            with pytest.raises(KeyRefused, match=reason):
                Key.from_pem(text, name)


@pytest.mark.parametrize("name", CURVES)
def test_a_pem_key_whose_halves_do_not_belong_together_is_refused(name: str) -> None:
    (der, own), (_, other) = (ec_der_and_point(CURVES[name]) for _ in range(2))
    assert own in der
    wrong = b64encode(der.replace(own, other)).decode()
    with pytest.raises(KeyRefused, match="can be read"):
        Key.from_pem(f"-----BEGIN PRIVATE KEY-----\n{wrong}\n-----END PRIVATE KEY-----\n", name)
    right = b64encode(der).decode()
    assert Key.from_pem(f"-----BEGIN PRIVATE KEY-----\n{right}\n-----END PRIVATE KEY-----\n", name).private


def ec_der_and_point(curve: ec.EllipticCurve) -> tuple[bytes, bytes]:
    """A private key in PKCS#8, and the public point that is written in it."""
    pair = ec.generate_private_key(curve)
    point = pair.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return pair.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), point


# Sets


def test_a_set_gives_the_key_of_the_exact_kid(keys: dict[str, Key], public_keys: KeySet) -> None:
    key = keys["ES256"]
    found = public_keys.find("ES256", key.kid)
    assert found is not None
    assert found.kid == key.kid
    assert public_keys.get(key.kid) is found
    assert key.kid in public_keys
    assert len(public_keys) == len(PAIRS)
    for kid in ("", key.kid[:-1], key.kid + " ", "../../etc/passwd", "' OR 1=1 --", "x" * 100_000):
        assert public_keys.find("ES256", kid) is None
        assert public_keys.get(kid) is None


def test_without_a_kid_a_set_gives_only_the_only_key_of_the_algorithm(keys: dict[str, Key]) -> None:
    key, other = keys["ES256"], generate_key("ES256")
    assert KeySet([key, keys["RS256"]]).find("ES256", None) is key
    assert KeySet([key, other]).find("ES256", None) is None
    assert KeySet([keys["RS256"]]).find("ES256", None) is None


def test_two_keys_of_one_kid_refuse_the_set(keys: dict[str, Key]) -> None:
    jwks = [changed(keys[name].to_jwk(), kid="same") for name in ("ES256", "RS256")]
    with pytest.raises(KeyRefused, match="kid"):
        KeySet.from_jwks({"keys": jwks})
    with pytest.raises(KeyRefused, match="kid"):
        KeySet([keys["ES256"], keys["ES256"].public])


def test_two_entries_of_one_kid_refuse_the_set_though_one_cannot_be_used(keys: dict[str, Key]) -> None:
    good = keys["ES256"].to_jwk()
    unusable: tuple[dict[str, object], ...] = (
        {"kty": "EC"},
        {"kty": "FUTURE", "alg": "X"},
        {"alg": "ES256"},
        changed(keys["RS256"].to_jwk(), use="enc"),
        changed(keys["RS256"].to_jwk(), e="Aw"),
    )
    for entry in unusable:
        for both in ([good, {**entry, "kid": good["kid"]}], [{**entry, "kid": good["kid"]}, good]):
            with pytest.raises(KeyRefused, match="have the same kid"):
                KeySet.from_jwks({"keys": both})
        # The good key has no kid of its own, and is named by its thumbprint then.
        thumbprint = Key.from_jwk(changed(good, kid=...)).kid
        with pytest.raises(KeyRefused, match="have the same kid"):
            KeySet.from_jwks({"keys": [changed(good, kid=...), {**entry, "kid": thumbprint}]})
        assert len(KeySet.from_jwks({"keys": [good, {**entry, "kid": "other"}]})) == 1
        assert len(KeySet.from_jwks({"keys": [good, changed(entry, kid=...), changed(entry, kid=...)]})) == 1
    with pytest.raises(KeyRefused, match="have the same kid"):
        KeySet.from_jwks({"keys": [{"kty": "EC", "kid": "same"}, {"kty": "RSA", "kid": "same"}]})


@pytest.mark.parametrize(
    "secret",
    [
        {"kty": "oct"},
        {"kty": "oct", "k": "c2hvcnQ"},
        {"kty": "oct", "k": 5},
        {"kty": "oct", "use": "enc", "alg": "A256KW"},
    ],
)
def test_a_secret_that_cannot_be_used_refuses_a_set_of_public_keys_too(
    keys: dict[str, Key], secret: dict[str, object]
) -> None:
    for other in (keys["ES256"].to_jwk(), keys["RS256"].to_jwk(), {"kty": "EC"}, {"kty": "AKP", "alg": "ML-DSA-1"}):
        for both in ([secret, other], [other, secret]):
            with pytest.raises(KeyRefused, match="mixes"):
                KeySet.from_jwks({"keys": both})
    with pytest.raises(KeyRefused, match="mixes"):
        KeySet.from_jwks({"keys": [keys["HS256"].to_private_jwk(), {"kty": "EC"}]})
    unknown = {"kty": "FUTURE", "kid": "f"}  # may be of either kind
    assert len(KeySet.from_jwks({"keys": [keys["HS256"].to_private_jwk(), secret, unknown]})) == 1


def test_secrets_and_pairs_in_one_set_refuse_it(keys: dict[str, Key]) -> None:
    with pytest.raises(KeyRefused, match="mixes"):
        KeySet([keys["ES256"], keys["HS256"]])
    with pytest.raises(KeyRefused, match="mixes"):
        KeySet.from_jwks({"keys": [keys["HS256"].to_private_jwk(), keys["ES256"].to_jwk()]})


def test_a_set_says_whether_it_holds_secrets(keys: dict[str, Key], public_keys: KeySet) -> None:
    assert KeySet([keys["HS256"]]).symmetric
    assert not public_keys.symmetric
    assert not KeySet().symmetric


def test_a_set_is_made_of_keys() -> None:
    for thing in ("text", b"bytes", {"kty": "oct"}):
        with pytest.raises(TypeError):
            KeySet([thing])  # type: ignore[list-item]


def test_broken_weak_unknown_and_foreign_keys_of_a_jwks_are_skipped_and_reported(keys: dict[str, Key]) -> None:
    good = keys["ES256"].to_jwk()
    jwks = {
        "keys": [
            changed(keys["RS256"].to_jwk(), kid="weak", e="Aw"),
            changed(keys["RS256"].to_jwk(), kid="for-encryption", use="enc"),
            {"kty": "AKP", "alg": "ML-DSA-1", "kid": "unknown"},
            {"kty": "EC"},
            "not even an object",
            {"kty": "EC", "kid": "x" * 300},
            changed(keys["Ed25519"].to_jwk(), kid=5),
            good,
        ]
    }
    for source in (jwks, json.dumps(jwks), json.dumps(jwks).encode()):
        key_set = KeySet.from_jwks(source)
        assert [key.to_jwk() for key in key_set] == [good]
        assert [name for name, _ in key_set.skipped] == ["weak", "for-encryption", "unknown", 3, 4, 5, 6]
        assert all(reason for _, reason in key_set.skipped)
    assert KeySet([keys["ES256"]]).skipped == ()


@pytest.mark.parametrize(
    "jwks", [{}, {"keys": None}, {"keys": {}}, {"keys": "x"}, [], "[]", b"", b'{"keys":[],"keys":[]}']
)
def test_what_is_no_jwks_is_refused(jwks: Anything) -> None:
    with pytest.raises(KeyRefused):
        KeySet.from_jwks(jwks)


def test_keys_without_alg_in_a_jwks_take_the_one_fitting_algorithm_that_is_named(keys: dict[str, Key]) -> None:
    jwks = {"keys": [changed(keys[name].to_jwk(), alg=...) for name in PAIRS]}
    assert [key.algorithm for key in KeySet.from_jwks(jwks)] == [*CURVES, "Ed25519"]
    one_rsa = {"keys": [jwk for jwk in jwks["keys"] if not jwk["kid"].startswith("rsa-")]}
    named = KeySet.from_jwks(one_rsa, algorithms=("PS256", "ES256", "ML-DSA-44"))
    assert [key.algorithm for key in named] == ["PS256", "ES256"]
    assert len(KeySet.from_jwks(one_rsa, algorithms=("RS256", "PS256"))) == 0
    both = KeySet.from_jwks(jwks, algorithms=("Ed25519", "EdDSA"))
    assert len(both) == 0


def test_an_entry_of_a_jwks_that_is_the_text_of_a_key_is_skipped(keys: dict[str, Key]) -> None:
    text = json.dumps(keys["ES256"].to_jwk())
    key_set = KeySet.from_jwks({"keys": (text, text.encode())})
    assert len(key_set) == 0
    assert key_set.skipped == tuple((position, "A key in a JWK set is a JSON object.") for position in (0, 1))


def test_a_set_keeps_what_was_skipped_as_it_was_told() -> None:
    skipped: list[tuple[str | int, str]] = [(0, "Broken.")]
    key_set = KeySet(skipped=skipped)
    skipped.clear()
    assert key_set.skipped == ((0, "Broken."),)


def test_a_jwks_with_private_members_is_read_and_written_without_them(keys: dict[str, Key]) -> None:
    key_set = KeySet.from_jwks({"keys": [keys["ES256"].to_private_jwk()]})
    assert key_set.to_jwks() == {"keys": [keys["ES256"].to_jwk()]}


def test_a_key_stands_for_the_set_of_itself(keys: dict[str, Key], public_keys: KeySet) -> None:
    assert list(keys["ES256"].as_set) == [keys["ES256"]]
    assert keys["ES256"].as_set is keys["ES256"].as_set
    assert public_keys.as_set is public_keys


def test_a_set_without_some_keys_is_the_same_set_where_it_has_none_of_them() -> None:
    first, second = generate_key("ES256").public, generate_key("ES256").public
    keys = KeySet([first, second], skipped=[("broken", "why")])
    assert keys.without({"other"}) is keys
    left = keys.without({first.kid, "other"})
    assert [key.kid for key in left] == [second.kid]
    assert left.skipped == keys.skipped
    assert [key.kid for key in keys] == [first.kid, second.kid]
