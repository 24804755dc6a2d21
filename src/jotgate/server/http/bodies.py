"""The bodies of the JSON API: what comes in, what goes out. OpenAPI's schemas are made from these types."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from jotgate.server.secret import Secret


class SignupInput(Struct, frozen=True):
    """An address and a password for a new account."""

    email: str
    password: Secret


class LoginInput(Struct, frozen=True):
    """Address and password; ``delivery`` says where the refresh token goes. Browsers leave it at ``cookie``.

    ``device_token`` is that of an earlier login, of clients without cookies.
    """

    email: str
    password: Secret
    delivery: Literal["cookie", "body"] = "cookie"
    device_token: Secret | None = None


class SecondFactorInput(Struct, frozen=True):
    """The ticket of the first step, and one second factor.

    ``code`` is an app's, or to recover; ``passkey`` is what ``navigator.credentials.get`` returned, as JSON.
    """

    ticket: Secret
    code: Secret | None = None
    passkey: dict[str, Any] | None = None
    delivery: Literal["cookie", "body"] = "cookie"
    device_token: Secret | None = None


class PasskeyLoginInput(Struct, frozen=True):
    """What ``navigator.credentials.get`` returned, as JSON."""

    passkey: dict[str, Any]
    delivery: Literal["cookie", "body"] = "cookie"
    device_token: Secret | None = None


class OwnerInput(Struct, frozen=True):
    """The password of whoever changes the own second factors."""

    current_password: Secret
    refresh_token: Secret | None = None


class TotpConfirmInput(Struct, frozen=True):
    """The first code of an authenticator app."""

    code: Secret
    refresh_token: Secret | None = None


class PasskeyInput(Struct, frozen=True):
    """What ``navigator.credentials.create`` returned, as JSON, and what its owner calls it."""

    passkey: dict[str, Any]
    name: str
    refresh_token: Secret | None = None


class SessionInput(Struct, frozen=True):
    """The session credential of clients without a cookie."""

    refresh_token: Secret | None = None


class PasswordInput(Struct, frozen=True):
    """The current password, and the one that shall count from now on."""

    current_password: Secret
    new_password: Secret
    refresh_token: Secret | None = None


class AddressInput(Struct, frozen=True):
    """The address of an account, if there is one."""

    email: str


class CodeInput(Struct, frozen=True):
    """The one-time code in the link of a mail."""

    code: Secret


class ConfirmInput(Struct, frozen=True):
    """The one-time code of a mail, and the password that was given at the sign-up."""

    code: Secret
    password: Secret


class UndoInput(Struct, frozen=True):
    """The one-time code of a mail, and the password that the account had before what is taken back.

    For a change of address alone it takes no password.
    """

    code: Secret
    password: Secret | None = None


class ResetInput(Struct, frozen=True):
    """The one-time code of a mail, and the password that shall count from now on."""

    code: Secret
    new_password: Secret


class EmailInput(Struct, frozen=True):
    """The address that the account shall have, and the password that it has."""

    new_email: str
    current_password: Secret
    refresh_token: Secret | None = None


class DeleteInput(Struct, frozen=True):
    """The password of the account that shall go."""

    current_password: Secret
    refresh_token: Secret | None = None


class MailAnswer(Struct, frozen=True):
    """The answer is in a mail, whatever it is."""

    status: Literal["look_into_your_mail"] = "look_into_your_mail"


class TokenAnswer(Struct, frozen=True):
    """An access token (RFC 6749 section 5.1); the refresh token only for clients that asked for it in the body.

    These get, with a login, a device token, too: shown at the next one, it keeps others' guesses from delaying that.
    """

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str
    refresh_token: str | UnsetType = UNSET
    device_token: str | UnsetType = UNSET


class SecondFactorAnswer(Struct, frozen=True):
    """The password was right, and is not enough. ``ticket`` goes with the second factor, within ``expires_in`` seconds.

    ``passkey`` are the options for ``navigator.credentials.get``, where the account has passkeys.
    """

    ticket: str
    expires_in: int
    factors: tuple[Literal["passkey", "totp", "recovery_code"], ...]
    status: Literal["second_factor_required"] = "second_factor_required"
    passkey: dict[str, Any] | UnsetType = UNSET


class PasskeyOptionsAnswer(Struct, frozen=True):
    """Options for ``navigator.credentials`` in their JSON form (WebAuthn section 5.1)."""

    passkey: dict[str, Any]


class TotpAnswer(Struct, frozen=True):
    """What an authenticator app needs: ``qr_svg`` is a picture of ``uri``, ``secret`` is for typing."""

    secret: str
    uri: str
    qr_svg: str


class FactorAddedAnswer(TokenAnswer, frozen=True):
    """The tokens of the new session; with a first factor also ``recovery_codes``, shown this once."""

    recovery_codes: tuple[str, ...] | UnsetType = UNSET


class RecoveryCodesAnswer(Struct, frozen=True):
    """Each works once, in place of a second factor. They are shown this once."""

    recovery_codes: tuple[str, ...]


class TotpShown(Struct, frozen=True):
    """An authenticator app. Times are Unix seconds."""

    created_at: int
    used_at: int | None


class PasskeyShown(Struct, frozen=True):
    """A passkey, as its owner sees it. Times are Unix seconds."""

    id: str
    name: str
    created_at: int
    used_at: int | None


class FactorsAnswer(Struct, frozen=True):
    """The account's second factors."""

    totp: TotpShown | None
    passkeys: tuple[PasskeyShown, ...]
    recovery_codes_left: int


class AccountAnswer(Struct, frozen=True):
    """An account, as its owner sees it. ``created_at`` is Unix time."""

    id: str
    email: str
    scopes: tuple[str, ...]
    created_at: int


class SessionAnswer(Struct, frozen=True):
    """A session, as its owner sees it. Times are Unix seconds; ``methods`` are those of RFC 8176."""

    id: str
    current: bool
    device: str
    address: str
    methods: tuple[str, ...]
    auth_time: int
    created_at: int
    seen_at: int
    idle_ends_at: int
    ends_at: int


class SessionsAnswer(Struct, frozen=True):
    """The account's live sessions, the one that was used last first."""

    sessions: tuple[SessionAnswer, ...]


class SignupAnswer(Struct, frozen=True):
    """The new account."""

    account: AccountAnswer


class TokenForm(Struct, frozen=True):
    """The token request's parameters (RFC 6749 section 6)."""

    grant_type: str
    refresh_token: str
    client_id: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET


class Problem(Struct, frozen=True):
    """An error (RFC 9457). ``code`` is stable; ``detail`` is for people."""

    type: str
    title: str
    status: int
    code: str
    detail: str


class OAuthError(Struct, frozen=True):
    """An error of the token endpoint (RFC 6749 section 5.2)."""

    error: str
    error_description: str


class KeySetAnswer(Struct, frozen=True):
    """The public keys (RFC 7517 section 5)."""

    keys: list[dict[str, str | list[str]]]


class MetadataAnswer(Struct, frozen=True):
    """The server's metadata (RFC 8414 section 2)."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    scopes_supported: tuple[str, ...]
    response_types_supported: tuple[str, ...]
    grant_types_supported: tuple[str, ...]
    token_endpoint_auth_methods_supported: tuple[str, ...]
    jotgate_revocations_uri: str
    jotgate_revocations_stream_uri: str
    jotgate_revocations_jwks_uri: str


class HealthAnswer(Struct, frozen=True):
    """The server is up."""

    status: Literal["ok"]
