"""Why the server refuses a request: one class a reason, each with its stable code and HTTP status.

``http.problems`` alone renders them. A message tells the person what to do and never repeats what they sent.
"""

from jotgate.core.errors import RequestRefused
from jotgate.throttle.decisions import Decision
from jotgate.throttle.fields import CODE, problem


class BodyTooLarge(RequestRefused):
    """The body is over the limit."""

    code = "body_too_large"
    status = 413


class BodyTimeout(RequestRefused):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408


class BodyIncomplete(RequestRefused):
    """The connection or its framing broke before the body was whole."""

    code = "body_incomplete"
    status = 400


class UnsupportedMediaType(RequestRefused):
    """The body is not of the content type that the endpoint takes."""

    code = "unsupported_media_type"
    status = 415


class BodyRefused(RequestRefused):
    """The body is not the strict JSON that is asked for; the code says in which way."""

    status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MemberRefused(RequestRefused):
    """A member of the body is unknown, missing or of the wrong type; the code says which."""

    status = 422

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class HeaderRefused(RequestRefused):
    """A request header is malformed, or stands there twice."""

    code = "invalid_header"
    status = 400


NOTHING_HERE = "There is nothing at this path."


class NotFound(RequestRefused):
    """No such path."""

    code = "not_found"
    status = 404


class MethodNotAllowed(RequestRefused):
    """The path is there, the method is not."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"Use {' or '.join(allowed)} here.")
        self.allowed = allowed


class ClearTextRefused(RequestRefused):
    """Passwords and tokens do not travel unencrypted."""

    code = "clear_text_refused"
    status = 403


class CrossSiteRefused(RequestRefused):
    """A browser says that another site's page is behind the request (or the proof of the contrary is missing)."""

    code = "cross_site_refused"
    status = 403


class FormRefused(RequestRefused):
    """A form lacks the token that it was shown with, or was shown to somebody else."""

    code = "form_refused"
    status = 403


class BrowserDeliveryRefused(RequestRefused):
    """A browser must not hold the refresh token where scripts can read it."""

    code = "browser_delivery_refused"
    status = 400


class Unauthenticated(RequestRefused):
    """No valid credential: 401 with a challenge (RFC 6750 section 3)."""

    status = 401


class MissingCredential(Unauthenticated):
    """No credential at all."""

    code = "missing_credential"


class InvalidCredentials(Unauthenticated):
    """Unknown account or wrong password: which of the two is not told."""

    code = "invalid_credentials"


class MetricsRefused(Unauthenticated):
    """Metrics are for whoever has the metrics token."""

    code = "metrics_refused"


class UnknownVerifier(Unauthenticated):
    """The verifier token is none of those that the server was given."""

    code = "unknown_verifier"


class InvalidRefreshToken(Unauthenticated):
    """The refresh token was not made by this server."""

    code = "invalid_refresh_token"


class SessionEnded(Unauthenticated):
    """The session was logged out, revoked, or came to its end."""

    code = "session_ended"


class RefreshReused(Unauthenticated):
    """A refresh token was used again after its successor: it may have been stolen, so the session was ended."""

    code = "refresh_reused"


class InsufficientScope(RequestRefused):
    """The access token lacks a scope."""

    code = "insufficient_scope"
    status = 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"The access token needs the scope {scope}.")
        self.scope = scope


class CodeRefused(RequestRefused):
    """A one-time code that does not work: unknown, used, too old, of another purpose, or void."""

    code = "invalid_code"
    status = 422


class TicketRefused(Unauthenticated):
    """The first step of a login is too long ago, or counts no more."""

    code = "login_expired"


class InvalidSecondFactor(Unauthenticated):
    """The code is wrong, or was used."""

    code = "invalid_second_factor"


class StepUpNeeded(Unauthenticated):
    """The session began without the second factor that the account has by now (RFC 9470)."""

    code = "insufficient_user_authentication"


class FactorNotFound(RequestRefused):
    """The account has no such factor."""

    code = "factor_not_found"
    status = 404


class PasskeysUnavailable(RequestRefused):
    """Passkeys are for names, and this server's issuer is an IP address."""

    code = "passkeys_unavailable"
    status = 404


class PasskeyRefused(RequestRefused):
    """What the authenticator sent does not prove what it should."""

    code = "passkey_refused"
    status = 422


class SessionNotFound(RequestRefused):
    """No live session of this id belongs to the account."""

    code = "session_not_found"
    status = 404


class PasswordUnchanged(RequestRefused):
    """The new password is the old one."""

    code = "password_unchanged"
    status = 422


class ParameterRefused(RequestRefused):
    """A parameter of the query is not what it should be."""

    code = "invalid_parameter"
    status = 400


class Busy(RequestRefused):
    """The server has as much to do as it will take on."""

    code = "busy"
    status = 503

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyRequests(RequestRefused):
    """More than a limit allows; what the answer says of it is made from the decision."""

    code = CODE
    status = 429

    def __init__(self, decision: Decision) -> None:
        super().__init__(problem(decision)["detail"])
        self.decision = decision


class GrantRefused(RequestRefused):
    """The token endpoint's refusal in the form of RFC 6749 section 5.2; ``code`` is its ``error``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = 401 if code == "invalid_client" else 400
