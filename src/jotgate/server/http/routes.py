"""The route table: what dispatch and the OpenAPI document are both made from."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, Literal, get_args

from msgspec import Struct

from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import (
    CONFIRM_EMAIL_PATH,
    CONFIRM_SIGNUP_PATH,
    FORGOT_PATH,
    RESET_PATH,
    UNDO_EMAIL_PATH,
    UNDO_FACTOR_PATH,
    UNDO_PASSWORD_PATH,
)
from jotgate.server.http import account_pages, bodies, endpoints, login_pages, pages
from jotgate.server.http.client import CLIENT_PATH, get_client
from jotgate.server.http.exchange import Request, Response, StreamResponse
from jotgate.server.http.showing import ACCOUNT_PATH, LOGIN_PATH
from jotgate.server.limits import Kind
from jotgate.server.pages import PageName, Script
from jotgate.server.records import CodePurpose

Handler = Callable[[Deps, Request], Awaitable[Response | StreamResponse]]
Credential = Literal["none", "session", "session or bearer"]

_BODY: Final = (
    "body_too_large",
    "body_timeout",
    "body_incomplete",
    "unsupported_media_type",
    "invalid_utf8",
    "invalid_json",
    "duplicate_member",
    "nesting_too_deep",
    "number_out_of_range",
    "not_an_object",
    "nul_in_text",
    "unknown_member",
    "missing_member",
    "wrong_type",
)
_EVERYWHERE: Final = ("clear_text_refused", "invalid_header", "quota_exceeded", "busy", "unavailable", "internal_error")
_SESSION: Final = (
    "missing_credential",
    "invalid_refresh_token",
    "session_ended",
    "refresh_reused",
    "cross_site_refused",
    "browser_delivery_refused",
)
_BEARER: Final = (
    "malformed_token",
    "algorithm_refused",
    "unknown_key",
    "bad_signature",
    "token_expired",
    "token_not_yet_valid",
    "token_revoked",
    "claim_refused",
    "insufficient_scope",
)


_OWNER: Final = (
    *_SESSION,
    "invalid_credentials",
    "password_too_long",
    "insufficient_user_authentication",
    *_EVERYWHERE,
)


class Route(Struct, frozen=True, kw_only=True):
    """One endpoint: where it is, what it takes and gives, and which problems it may answer with."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Its last segment may be ``{id}``: any text without a slash."""
    handler: Handler
    summary: str
    success: int = 200
    input: type[Struct] | None = None
    output: type[Struct] | None = None
    accepted: type[Struct] | None = None
    """What is answered with 202 instead, where the server is set up so."""
    credential: Credential = "none"
    problems: tuple[str, ...] = ()
    form: bool = False
    """The body is a form and errors are OAuth's (RFC 6749), not problem+json."""
    media_type: str | None = None
    """What the answer is, where it is not JSON."""
    parameters: Mapping[str, str] = {}
    """What may stand in the query, and what it means."""
    limit: Kind | None = "requests"
    """What an address may not ask for too often; None where many questions cost no more than one."""
    counts_failures: bool = False
    """What succeeds does not count."""
    by_device: bool = False
    """A browser that has logged in before is told from strangers at its address."""
    hashes: bool = False
    """It hashes a password, and is refused at once where too many wait for that."""
    page: bool = False
    """It is a page for people, not a part of the API: errors are pages, too."""
    public: bool = False
    """Nothing secret passes: any origin may read it, over clear text too."""


REVOCATIONS_PATH: Final = "/revocations"
REVOCATIONS_STREAM_PATH: Final = "/revocations/stream"
_AFTER: Final = {"after": "The id of the last event that the client has."}

_PAGES: Final[tuple[tuple[PageName, str], ...]] = (
    ("confirm_signup", CONFIRM_SIGNUP_PATH),
    ("forgot", FORGOT_PATH),
    ("reset", RESET_PATH),
    ("confirm_email", CONFIRM_EMAIL_PATH),
    ("undo_email", UNDO_EMAIL_PATH),
    ("undo_factor", UNDO_FACTOR_PATH),
    ("undo_password", UNDO_PASSWORD_PATH),
)


_HASHING: Final[tuple[PageName, ...]] = ("confirm_signup", "reset", "undo_email", "undo_factor", "undo_password")


def _undoing() -> Iterator[Route]:
    paths: tuple[tuple[CodePurpose, str], ...] = (
        ("undo_email", UNDO_EMAIL_PATH),
        ("undo_factor", UNDO_FACTOR_PATH),
        ("undo_password", UNDO_PASSWORD_PATH),
    )
    for purpose, path in paths:
        yield Route(
            method="POST",
            path=f"/v1{path}",
            hashes=True,
            limit="logins",
            counts_failures=True,
            handler=endpoints.undoing(purpose),
            summary="Take a change back with all that came later; ends all sessions and voids the password",
            success=204,
            input=bodies.UndoInput,
            problems=(
                *_BODY,
                "invalid_code",
                "invalid_credentials",
                "password_too_long",
                "email_taken",
                "cross_site_refused",
                *_EVERYWHERE,
            ),
        )


def _page_routes() -> Iterator[Route]:
    yield _static(pages.STYLE_PATH, pages.get_style)
    for script in get_args(Script):
        yield _static(f"/pages/{script}", pages.giving(script))
    for name, path in _PAGES:
        shown, done = pages.showing(name), pages.doing(name, pages.ACTS[name])
        yield Route(method="GET", path=path, handler=shown, summary="Asks", limit=None, page=True)
        yield Route(
            method="POST",
            path=path,
            handler=done,
            summary="Does it",
            page=True,
            hashes=name in _HASHING,
            limit="mails" if name == "forgot" else "logins" if name in _HASHING else "requests",
            counts_failures=name in _HASHING,
        )


def _static(path: str, handler: Handler) -> Route:
    return Route(method="GET", path=path, handler=handler, summary="Looks of the pages", limit=None, page=True)


_ASKING: Final = (
    (account_pages.ADDRESS, "/address"),
    (account_pages.PASSWORD, "/password"),
    (account_pages.APP, "/app"),
    (account_pages.APP_REMOVE, "/app/remove"),
    (account_pages.CODES, "/recovery-codes"),
    (account_pages.PASSKEYS, "/passkeys"),
    (account_pages.PASSKEY_REMOVE, "/passkeys/{id}"),
    (account_pages.DELETE, "/delete"),
)


def _login_routes() -> Iterator[Route]:
    for path, shown in (
        (LOGIN_PATH, login_pages.get_login),
        ("/login/second-factor", login_pages.get_second_factor),
        ("/signup", login_pages.get_signup),
        (login_pages.SIGNUP_SENT_PATH, login_pages.get_signup_sent),
        (login_pages.LOGGED_OUT_PATH, login_pages.get_logged_out),
    ):
        success = 303 if shown is login_pages.get_second_factor else 200
        yield Route(method="GET", path=path, handler=shown, summary="Asks", limit=None, page=True, success=success)
    for path, done in (
        (LOGIN_PATH, login_pages.post_login),
        ("/login/second-factor", login_pages.post_second_factor),
        ("/login/passkey", login_pages.post_passkey),
    ):
        yield Route(
            method="POST",
            path=path,
            handler=done,
            summary="Logs in",
            page=True,
            success=303,
            hashes=path == LOGIN_PATH,
            by_device=True,
            limit="logins",
            counts_failures=True,
        )
    yield Route(
        method="POST",
        path="/signup",
        handler=login_pages.post_signup,
        summary="Signs up",
        page=True,
        success=303,
        hashes=True,
        limit="signups",
    )


def _account_routes() -> Iterator[Route]:
    yield _of_account("GET", "", account_pages.get_account)
    for asked, path in _ASKING:
        yield _of_account("GET", path, account_pages.asking(asked))
        yield _of_account(
            "POST",
            path,
            account_pages.doing(asked.act, again=asked),
            success=200 if asked in (account_pages.APP, account_pages.CODES, account_pages.PASSKEYS) else 303,
            hashes=True,
            limit="mails" if asked is account_pages.ADDRESS else "logins",
        )
    yield _of_account("POST", "/app/confirm", account_pages.post_app_confirm, limit="logins")
    yield _of_account("POST", "/passkeys/add", account_pages.post_passkey, limit="logins")
    yield _of_account("POST", "/sessions/{id}", account_pages.post_session, success=303)
    yield _of_account("POST", "/logout", account_pages.post_logout, success=303)
    yield _of_account("POST", "/logout-everywhere", account_pages.post_logout_everywhere, success=303)


def _of_account(
    method: Literal["GET", "POST"],
    path: str,
    handler: Handler,
    *,
    success: int = 200,
    hashes: bool = False,
    limit: Kind = "requests",
) -> Route:
    return Route(
        method=method,
        path=ACCOUNT_PATH + path,
        handler=handler,
        summary="Asks" if method == "GET" else "Does it",
        page=True,
        credential="session",
        success=success,
        hashes=hashes,
        limit=limit,
        counts_failures=limit == "logins",
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/signup",
        hashes=True,
        limit="signups",
        handler=endpoints.post_signup,
        summary="Make an account: at once, or (202) by a link in a mail, as JOTGATE_SIGNUP says",
        success=201,
        input=bodies.SignupInput,
        output=bodies.SignupAnswer,
        accepted=bodies.MailAnswer,
        problems=(
            *_BODY,
            "invalid_email",
            "password_too_short",
            "password_too_common",
            "password_too_long",
            "email_taken",
            "cross_site_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/signup/confirm",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_signup_confirm,
        summary="Make the account that a mail's link is for, with the password of that sign-up; logs nobody in",
        success=204,
        input=bodies.ConfirmInput,
        problems=(
            *_BODY,
            "invalid_code",
            "invalid_credentials",
            "password_too_long",
            "email_taken",
            "cross_site_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/password/forgot",
        limit="mails",
        handler=endpoints.post_password_forgot,
        summary="Send a link for a new password, if there is such an account: the answer does not tell",
        success=202,
        input=bodies.AddressInput,
        output=bodies.MailAnswer,
        problems=(*_BODY, "invalid_email", "cross_site_refused", *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/password/reset",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_password_reset,
        summary="Set a new password by a mail's link, which ends all sessions; nobody is logged in by it",
        success=204,
        input=bodies.ResetInput,
        problems=(
            *_BODY,
            "invalid_code",
            "password_too_short",
            "password_too_common",
            "password_too_long",
            "cross_site_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/email",
        hashes=True,
        limit="mails",
        handler=endpoints.post_email,
        summary="Send a link to the new address, by which it becomes the account's",
        success=202,
        input=bodies.EmailInput,
        output=bodies.MailAnswer,
        credential="session",
        problems=(*_BODY, *_OWNER, "invalid_email"),
    ),
    Route(
        method="POST",
        path="/v1/email/confirm",
        handler=endpoints.post_email_confirm,
        summary="Give the account the address that a mail's link proves",
        success=204,
        input=bodies.CodeInput,
        problems=(*_BODY, "invalid_code", "email_taken", "cross_site_refused", *_EVERYWHERE),
    ),
    *_undoing(),
    Route(
        method="POST",
        path="/v1/login",
        hashes=True,
        by_device=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_login,
        summary="Log in; browsers get the refresh token as a cookie, others ask for it in the body",
        input=bodies.LoginInput,
        output=bodies.TokenAnswer,
        accepted=bodies.SecondFactorAnswer,
        problems=(
            *_BODY,
            "invalid_email",
            "password_too_long",
            "invalid_credentials",
            "cross_site_refused",
            "browser_delivery_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/login/second-factor",
        by_device=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_second_factor,
        summary="Finish a login by a code of an app, a recovery code, or a passkey",
        input=bodies.SecondFactorInput,
        output=bodies.TokenAnswer,
        problems=(
            *_BODY,
            "login_expired",
            "invalid_second_factor",
            "passkey_refused",
            "passkeys_unavailable",
            "cross_site_refused",
            "browser_delivery_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/login/passkey/options",
        handler=endpoints.post_login_passkey_options,
        summary="Get what navigator.credentials.get needs to log in by a passkey alone",
        output=bodies.PasskeyOptionsAnswer,
        problems=("passkeys_unavailable", "cross_site_refused", *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/login/passkey",
        by_device=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_login_passkey,
        summary="Log in by a passkey alone",
        input=bodies.PasskeyLoginInput,
        output=bodies.TokenAnswer,
        problems=(
            *_BODY,
            "passkey_refused",
            "passkeys_unavailable",
            "cross_site_refused",
            "browser_delivery_refused",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="POST",
        path="/v1/refresh",
        limit="refreshes",
        handler=endpoints.post_refresh,
        summary="Get the next access token of the session",
        input=bodies.SessionInput,
        output=bodies.TokenAnswer,
        credential="session",
        problems=(*_BODY, *_SESSION, *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/logout",
        handler=endpoints.post_logout,
        summary="End the session; its access tokens are refused from now on",
        success=204,
        input=bodies.SessionInput,
        credential="session",
        problems=(*_BODY, *_SESSION, *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/logout/everywhere",
        handler=endpoints.post_logout_everywhere,
        summary="End every session of the account",
        success=204,
        input=bodies.SessionInput,
        credential="session",
        problems=(*_BODY, *_SESSION, *_EVERYWHERE),
    ),
    Route(
        method="GET",
        path="/v1/sessions",
        handler=endpoints.get_sessions,
        summary="List the account's live sessions, 200 at most; credentials as for the account",
        output=bodies.SessionsAnswer,
        credential="session or bearer",
        problems=(*_SESSION, *_BEARER, *_EVERYWHERE),
    ),
    Route(
        method="DELETE",
        path="/v1/sessions/{id}",
        handler=endpoints.delete_session,
        summary="End one of the account's sessions",
        success=204,
        input=bodies.SessionInput,
        credential="session",
        problems=(*_BODY, *_SESSION, "session_not_found", *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/password",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_password,
        summary="Change the password, which ends all sessions and begins a new one",
        input=bodies.PasswordInput,
        output=bodies.TokenAnswer,
        credential="session",
        problems=(
            *_BODY,
            *_OWNER,
            "password_too_short",
            "password_too_common",
            "password_unchanged",
        ),
    ),
    Route(
        method="GET",
        path="/v1/account",
        handler=endpoints.get_account,
        summary="Read the own account, with the session cookie or an access token with the scope account:read",
        output=bodies.AccountAnswer,
        credential="session or bearer",
        problems=(*_SESSION, *_BEARER, *_EVERYWHERE),
    ),
    Route(
        method="DELETE",
        path="/v1/account",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.delete_account,
        summary="Delete the account, with all its sessions",
        success=204,
        input=bodies.DeleteInput,
        credential="session",
        problems=(*_BODY, *_OWNER),
    ),
    Route(
        method="GET",
        path="/v1/factors",
        handler=endpoints.get_factors,
        summary="List the account's second factors; credentials as for the account",
        output=bodies.FactorsAnswer,
        credential="session or bearer",
        problems=(*_SESSION, *_BEARER, *_EVERYWHERE),
    ),
    Route(
        method="POST",
        path="/v1/factors/totp",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_totp,
        summary="Make the secret for an authenticator app; nothing counts until a code confirms it",
        input=bodies.OwnerInput,
        output=bodies.TotpAnswer,
        credential="session",
        problems=(*_BODY, *_OWNER),
    ),
    Route(
        method="POST",
        path="/v1/factors/totp/confirm",
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_totp_confirm,
        summary="Confirm the app by a code of it, which ends all sessions and begins a new one",
        input=bodies.TotpConfirmInput,
        output=bodies.FactorAddedAnswer,
        credential="session",
        problems=(*_BODY, *_SESSION, "invalid_second_factor", "insufficient_user_authentication", *_EVERYWHERE),
    ),
    Route(
        method="DELETE",
        path="/v1/factors/totp",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.delete_totp,
        summary="Remove the authenticator app",
        success=204,
        input=bodies.OwnerInput,
        credential="session",
        problems=(*_BODY, *_OWNER, "factor_not_found"),
    ),
    Route(
        method="POST",
        path="/v1/factors/recovery-codes",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_recovery_codes,
        summary="Make new recovery codes, in place of those that there are",
        input=bodies.OwnerInput,
        output=bodies.RecoveryCodesAnswer,
        credential="session",
        problems=(*_BODY, *_OWNER, "factor_not_found"),
    ),
    Route(
        method="POST",
        path="/v1/factors/passkeys/options",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_passkey_options,
        summary="Get what navigator.credentials.create needs to make a passkey",
        input=bodies.OwnerInput,
        output=bodies.PasskeyOptionsAnswer,
        credential="session",
        problems=(*_BODY, *_OWNER, "passkeys_unavailable"),
    ),
    Route(
        method="POST",
        path="/v1/factors/passkeys",
        limit="logins",
        counts_failures=True,
        handler=endpoints.post_passkey,
        summary="Add the passkey, which ends all sessions and begins a new one",
        input=bodies.PasskeyInput,
        output=bodies.FactorAddedAnswer,
        credential="session",
        problems=(
            *_BODY,
            *_SESSION,
            "passkey_refused",
            "passkey_known",
            "too_many_passkeys",
            "invalid_name",
            "invalid_credentials",
            "insufficient_user_authentication",
            "passkeys_unavailable",
            *_EVERYWHERE,
        ),
    ),
    Route(
        method="DELETE",
        path="/v1/factors/passkeys/{id}",
        hashes=True,
        limit="logins",
        counts_failures=True,
        handler=endpoints.delete_passkey,
        summary="Remove a passkey",
        success=204,
        input=bodies.OwnerInput,
        credential="session",
        problems=(*_BODY, *_OWNER, "factor_not_found"),
    ),
    Route(
        method="POST",
        path="/oauth/token",
        limit="refreshes",
        handler=endpoints.post_token,
        summary="The token endpoint: grant_type=refresh_token (RFC 6749 section 6)",
        input=bodies.TokenForm,
        output=bodies.TokenAnswer,
        form=True,
        problems=("invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type", "invalid_scope"),
    ),
    Route(
        method="GET",
        path=REVOCATIONS_PATH,
        limit="feed",
        handler=endpoints.get_revocations,
        summary="All that is revoked, signed; with `after`, the signed events since, as the stream would send them",
        media_type="application/revocations+jwt",
        parameters=_AFTER,
        public=True,
        problems=("invalid_parameter", "quota_exceeded", "internal_error"),
    ),
    Route(
        method="GET",
        path=REVOCATIONS_STREAM_PATH,
        limit="feed",
        handler=endpoints.get_revocations_stream,
        summary="Revocations as they happen: server-sent events, each signed, and a signed heartbeat every 5 s",
        media_type="text/event-stream",
        parameters=_AFTER,
        public=True,
        problems=("invalid_parameter", "invalid_header", "busy", "quota_exceeded", "internal_error"),
    ),
    Route(
        method="GET",
        path=CLIENT_PATH,
        limit=None,
        handler=get_client,
        summary="The client for browsers, an ES module",
        media_type="text/javascript",
        public=True,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=endpoints.get_metrics,
        summary="What was counted, for Prometheus; only with a metrics token",
        media_type="text/plain",
        problems=("not_found", "malformed_token", "metrics_refused", *_EVERYWHERE),
    ),
    Route(
        method="GET",
        path="/healthz",
        limit=None,
        handler=endpoints.get_health,
        summary="The process answers",
        output=bodies.HealthAnswer,
        public=True,
    ),
    Route(
        method="GET",
        path="/readyz",
        limit=None,
        handler=endpoints.get_ready,
        summary="The process can work: the database takes reads and writes",
        output=bodies.HealthAnswer,
        public=True,
        problems=("busy", "unavailable"),
    ),
    *_page_routes(),
    *_login_routes(),
    *_account_routes(),
)
