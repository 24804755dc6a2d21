"""Passkeys (WebAuthn Level 3): what a browser is asked for, and the checks of what its authenticator sends.

Whatever comes from the browser is taken apart strictly here before `webauthn` verifies it: that package, and the CBOR
reader below it, take duplicate and unknown members, tags and any nesting. It knows no database, no HTTP, no clock and
no randomness.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from jotgate.core.encoding import JsonRefused, decode_segment, encode_segment, parse_json_object
from jotgate.core.errors import KeyRefused, MalformedToken
from jotgate.core.jwk import Key
from jotgate.server.refusals import PasskeyRefused

REFUSED: Final = "This passkey could not be checked: try again, or use another way."
"""One sentence for every reason: which one it is helps only who makes things up."""

_TRANSPORTS: Final = frozenset({"usb", "nfc", "ble", "smart-card", "hybrid", "internal"})  # WebAuthn section 5.8.4
_MAX_DEPTH: Final = 4  # CTAP 2.2 section 8
_ATTESTED: Final = 0x40
_EXTENDED: Final = 0x80
_FIXED_BYTES: Final = 37  # the hash of the domain, the flags and the counter

# Together at most 16 KiB.
_Id = Annotated[str, Meta(min_length=1, max_length=1364)]  # 1023 bytes (WebAuthn section 4, "Credential ID")
_ClientDataText = Annotated[str, Meta(max_length=4096)]
_AttestationText = Annotated[str, Meta(max_length=8192)]
_AuthenticatorDataText = Annotated[str, Meta(max_length=4096)]
_SignatureText = Annotated[str, Meta(max_length=1366)]
_UserHandleText = Annotated[str, Meta(max_length=86)]
_Transports = Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=16)]


class NewPasskey(Struct, frozen=True):
    """A credential that an authenticator made. ``public_key`` is as COSE writes it (RFC 9052 section 7)."""

    id: bytes
    public_key: bytes
    sign_count: int
    transports: tuple[str, ...]
    backed_up: bool


class ProvenPasskey(Struct, frozen=True):
    """What an authenticator said as it proved that it has the key."""

    sign_count: int
    backed_up: bool
    user_verified: bool


class Assertion(Struct, frozen=True):
    """Which credential an assertion claims to be of, and which challenge it answers: nothing of it is proven yet."""

    id: bytes
    user_handle: bytes | None
    challenge: bytes


def registration_options(
    *,
    rp_id: str,
    rp_name: str,
    user_id: bytes,
    user_name: str,
    challenge: bytes,
    exclude: Sequence[tuple[bytes, Sequence[str]]],
    timeout_s: int,
) -> dict[str, Any]:
    """Return a PublicKeyCredentialCreationOptionsJSON (WebAuthn section 5.1) for a passkey that needs no user name.

    Args:
        rp_id: the domain that the passkey is for.
        rp_name: what the service is called.
        user_id: what the authenticator gives back as the user handle, at most 64 bytes, and no personal data.
        exclude: ids and transports of the passkeys that the account has.
    """
    return {
        "rp": {"id": rp_id, "name": rp_name},
        "user": {"id": encode_segment(user_id), "name": user_name, "displayName": user_name},
        "challenge": encode_segment(challenge),
        "pubKeyCredParams": [{"type": "public-key", "alg": form.numbers[_ALG]} for form in _KEY_FORMS],
        "timeout": timeout_s * 1000,
        "excludeCredentials": _descriptors(exclude),
        "authenticatorSelection": {
            "residentKey": "required",
            "requireResidentKey": True,
            "userVerification": "required",
        },
        "attestation": "none",
    }


def authentication_options(
    *, rp_id: str, challenge: bytes, allow: Sequence[tuple[bytes, Sequence[str]]], timeout_s: int
) -> dict[str, Any]:
    """Return a PublicKeyCredentialRequestOptionsJSON (WebAuthn section 5.1).

    Args:
        allow: ids and transports of the passkeys that may answer; empty: whichever the authenticator has for `rp_id`.
    """
    return {
        "challenge": encode_segment(challenge),
        "timeout": timeout_s * 1000,
        "rpId": rp_id,
        "allowCredentials": _descriptors(allow),
        "userVerification": "required",
    }


def _descriptors(known: Sequence[tuple[bytes, Sequence[str]]]) -> list[dict[str, Any]]:
    return [
        {"type": "public-key", "id": encode_segment(id_)} | ({"transports": list(transports)} if transports else {})
        for id_, transports in known
    ]


def read_challenge(credential: Mapping[str, Any]) -> bytes:
    """Return the challenge that a new credential claims to answer; nothing is proven yet.

    Raises:
        PasskeyRefused: it is malformed.
    """
    return _read_client_data(_decode(_convert(credential, _RegistrationJson).response.client_data))


def check_registration(
    credential: Mapping[str, Any], *, challenge: bytes, rp_id: str, origins: Sequence[str]
) -> NewPasskey:
    """Check what the browser made of `registration_options` (WebAuthn section 7.1).

    Raises:
        PasskeyRefused: it is malformed, or not for this challenge, domain and origin, or its user was not verified, or
            its key must not be used.
    """
    # Not at the top, because it brings in OpenSSL's and X.509's formats: 110 ms that a start need not pay.
    from webauthn import verify_registration_response  # noqa: PLC0415
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415
    from webauthn.helpers.structs import AuthenticatorAttestationResponse, RegistrationCredential  # noqa: PLC0415

    shown = _convert(credential, _RegistrationJson)
    id_ = _read_id(shown)
    client_data, attestation = _decode(shown.response.client_data), _decode(shown.response.attestation)
    _read_client_data(client_data)
    attested = _read_attestation(attestation)
    if attested.id != id_:
        raise PasskeyRefused(REFUSED)
    _check_key(attested.public_key)
    try:
        verified = verify_registration_response(
            credential=RegistrationCredential(
                shown.id, id_, AuthenticatorAttestationResponse(client_data, attestation)
            ),
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=list(origins),
            require_user_verification=True,
        )
    except WebAuthnException:
        raise PasskeyRefused(REFUSED) from None
    return NewPasskey(
        id=id_,
        public_key=attested.public_key,
        sign_count=verified.sign_count,
        transports=tuple(name for name in dict.fromkeys(shown.response.transports) if name in _TRANSPORTS),
        backed_up=verified.credential_backed_up,
    )


def read_assertion(credential: Mapping[str, Any]) -> Assertion:
    """Return what an assertion claims, to find the passkey by which to check it.

    Raises:
        PasskeyRefused: it is malformed.
    """
    shown = _convert(credential, _AssertionJson)
    handle = shown.response.user_handle
    return Assertion(
        id=_read_id(shown),
        user_handle=None if handle is None else _decode(handle),
        challenge=_read_client_data(_decode(shown.response.client_data)),
    )


def check_assertion(
    credential: Mapping[str, Any],
    *,
    public_key: bytes,
    sign_count: int,
    challenge: bytes,
    rp_id: str,
    origins: Sequence[str],
) -> ProvenPasskey:
    """Check what the browser made of `authentication_options` (WebAuthn section 7.2).

    Whose `public_key` and `sign_count` these are is found by the id in the assertion.

    Raises:
        PasskeyRefused: it is malformed, or not for this challenge, domain and origin, or its user was not verified, or
            its counter was seen before, or the signature is another key's.
    """
    from webauthn import verify_authentication_response  # noqa: PLC0415  see check_registration
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415
    from webauthn.helpers.structs import AuthenticationCredential, AuthenticatorAssertionResponse  # noqa: PLC0415

    shown = _convert(credential, _AssertionJson)
    id_ = _read_id(shown)
    client_data, data = _decode(shown.response.client_data), _decode(shown.response.authenticator_data)
    _read_client_data(client_data)
    # A key is for registrations alone (WebAuthn section 6.1).
    if _read_authenticator_data(data) is not None:
        raise PasskeyRefused(REFUSED)
    try:
        verified = verify_authentication_response(
            credential=AuthenticationCredential(
                shown.id, id_, AuthenticatorAssertionResponse(client_data, data, _decode(shown.response.signature))
            ),
            expected_challenge=challenge,
            expected_rp_id=rp_id,
            expected_origin=list(origins),
            credential_public_key=public_key,
            credential_current_sign_count=sign_count,
            require_user_verification=True,
        )
    except WebAuthnException:
        raise PasskeyRefused(REFUSED) from None
    return ProvenPasskey(
        sign_count=verified.new_sign_count,
        backed_up=verified.credential_backed_up,
        user_verified=verified.user_verified,
    )


# The JSON around it (RegistrationResponseJSON, AuthenticationResponseJSON). Browsers add members: those are not read.


class _AttestationResponse(Struct, frozen=True):
    client_data: _ClientDataText = msgspec.field(name="clientDataJSON")
    attestation: _AttestationText = msgspec.field(name="attestationObject")
    transports: _Transports = ()


class _AssertionResponse(Struct, frozen=True):
    client_data: _ClientDataText = msgspec.field(name="clientDataJSON")
    authenticator_data: _AuthenticatorDataText = msgspec.field(name="authenticatorData")
    signature: _SignatureText
    user_handle: _UserHandleText | None = msgspec.field(name="userHandle", default=None)


class _CredentialJson(Struct, frozen=True, kw_only=True):
    id: _Id
    raw_id: _Id = msgspec.field(name="rawId")
    type: Literal["public-key"]


class _RegistrationJson(_CredentialJson, frozen=True, kw_only=True):
    response: _AttestationResponse


class _AssertionJson(_CredentialJson, frozen=True, kw_only=True):
    response: _AssertionResponse


class _ClientData(Struct, frozen=True, rename="camel"):
    type: str
    challenge: str
    origin: str
    cross_origin: bool = False
    top_origin: None = None


_Read = TypeVar("_Read")


def _convert(value: object, to: type[_Read]) -> _Read:
    try:
        # Bytes are bytes, and no text in base64.
        return msgspec.convert(value, to, builtin_types=(bytes,))
    except msgspec.ValidationError:
        raise PasskeyRefused(REFUSED) from None


def _decode(text: str) -> bytes:
    try:
        return decode_segment(text)
    except MalformedToken:
        raise PasskeyRefused(REFUSED) from None


def _read_id(shown: _CredentialJson) -> bytes:
    if shown.id != shown.raw_id:
        raise PasskeyRefused(REFUSED)
    return _decode(shown.id)


def _read_client_data(raw: bytes) -> bytes:
    """Return the challenge in the client data, if no other site's page shows ours in a frame."""
    try:
        members = parse_json_object(raw)
    except JsonRefused:
        raise PasskeyRefused(REFUSED) from None
    shown = _convert(members, _ClientData)
    if shown.cross_origin:
        raise PasskeyRefused(REFUSED)
    return _decode(shown.challenge)


# Authenticator data (WebAuthn section 6.1) and attestation objects (section 6.5)


class _Attested(Struct, frozen=True):
    id: bytes
    public_key: bytes


class _NoStatement(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _SelfStatement(Struct, frozen=True, forbid_unknown_fields=True):
    alg: int
    sig: bytes


# What browsers leave over where no attestation is asked for (WebAuthn section 5.1.3). Statements with certificates are
# not read at all.
_STATEMENTS: Final[Mapping[str, type[_NoStatement | _SelfStatement]]] = {
    "none": _NoStatement,
    "packed": _SelfStatement,
}


class _AttestationObject(Struct, frozen=True):
    fmt: str
    data: bytes = msgspec.field(name="authData")
    statement: dict[str, Any] = msgspec.field(name="attStmt")


def _read_attestation(raw: bytes) -> _Attested:
    shown = _convert(_parse_cbor(raw), _AttestationObject)
    statement = _STATEMENTS.get(shown.fmt)
    attested = _read_authenticator_data(shown.data)
    if statement is None or attested is None:
        raise PasskeyRefused(REFUSED)
    _convert(shown.statement, statement)
    return attested


def _read_authenticator_data(raw: bytes) -> _Attested | None:
    """Return the id and key in authenticator data, which must be whole and have nothing behind it."""
    if len(raw) < _FIXED_BYTES:
        raise PasskeyRefused(REFUSED)
    flags, end, attested = raw[32], _FIXED_BYTES, None
    if flags & _ATTESTED:
        # 16 bytes that name the model, the id's length in 2 bytes, the id, the key
        start = 55 + int.from_bytes(raw[53:55])
        end = _end_of_cbor(raw, start)
        attested = _Attested(raw[55:start], raw[start:end])
    if flags & _EXTENDED:
        end = _end_of_cbor(raw, end)
    if end != len(raw):
        raise PasskeyRefused(REFUSED)
    return attested


# CBOR (RFC 8949) as authenticators write it: CTAP 2.2 section 8


def _parse_cbor(raw: bytes) -> object:
    from webauthn.helpers import parse_cbor  # noqa: PLC0415  see check_registration
    from webauthn.helpers.exceptions import InvalidCBORData  # noqa: PLC0415

    if _end_of_cbor(raw, 0) != len(raw):
        raise PasskeyRefused(REFUSED)
    try:
        value: object = parse_cbor(raw)
    except InvalidCBORData:
        raise PasskeyRefused(REFUSED) from None
    return value


def _end_of_cbor(raw: bytes, start: int, levels: int = _MAX_DEPTH) -> int:
    """Return where the item that begins at `start` ends (beyond `raw` if it is cut off), if authenticators write it.

    It has no indefinite length and no tag: by tags CBOR readers make dates, regular expressions, numbers of any size
    and values that contain themselves.
    """
    if start >= len(raw):
        raise PasskeyRefused(REFUSED)
    kind, size = raw[start] >> 5, raw[start] & 0x1F
    end = start + 1
    if kind == 6 or size > 27:
        raise PasskeyRefused(REFUSED)
    if size >= 24:  # 1, 2, 4 or 8 bytes follow with the number
        width = 1 << (size - 24)
        size = int.from_bytes(raw[end : end + width])
        end += width
    if kind in {2, 3}:  # bytes and text
        end += size
    elif kind in {4, 5}:  # arrays, and maps with two items for each member
        if levels == 0:
            raise PasskeyRefused(REFUSED)
        for _ in range(size * (kind - 3)):
            end = _end_of_cbor(raw, end, levels - 1)
    return end


# COSE keys (RFC 9052 section 7, RFC 9053 section 7, RFC 8230 section 4)

_ALG: Final = 3


class _KeyForm(Struct, frozen=True):
    algorithm: str
    numbers: Mapping[int, int]
    """The members that are numbers: key type, algorithm, and curve."""
    jwk: Mapping[str, str]
    octets: Mapping[int, str]
    """The other members, and what a JWK calls them."""


_KEY_FORMS: Final = (
    _KeyForm("ES256", {1: 2, _ALG: -7, -1: 1}, {"kty": "EC", "crv": "P-256"}, {-2: "x", -3: "y"}),
    _KeyForm("Ed25519", {1: 1, _ALG: -8, -1: 6}, {"kty": "OKP", "crv": "Ed25519"}, {-2: "x"}),
    _KeyForm("RS256", {1: 3, _ALG: -257}, {"kty": "RSA"}, {-1: "n", -2: "e"}),
)


def _check_key(raw: bytes) -> None:
    """Refuse a key of an algorithm that was not asked for, with other members than it has, or that proves nothing."""
    members = _parse_cbor(raw)
    if not isinstance(members, dict) or any(type(label) is not int for label in members):
        raise PasskeyRefused(REFUSED)
    numbers = {label: value for label, value in members.items() if type(value) is int}
    octets = {label: value for label, value in members.items() if type(value) is bytes}
    form = next((form for form in _KEY_FORMS if form.numbers == numbers), None)
    if form is None or octets.keys() != form.octets.keys() or len(numbers) + len(octets) != len(members):
        raise PasskeyRefused(REFUSED)
    jwk = {**form.jwk, **{name: encode_segment(octets[label]) for label, name in form.octets.items()}}
    try:
        # Points off the curve and of small order, RSA keys that are short or flawed.
        Key.from_jwk(jwk, algorithm=form.algorithm)
    except KeyRefused:
        raise PasskeyRefused(REFUSED) from None
