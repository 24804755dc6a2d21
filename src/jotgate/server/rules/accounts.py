"""What an account may look like: its e-mail address, its password and its scopes.

Pure text in, text out. Nothing here hashes, looks anything up in the network, or knows which accounts exist.
"""

import re
import unicodedata
from collections.abc import Collection, Sequence

from email_validator import EmailNotValidError, validate_email

from jotgate.core.errors import RequestRefused
from jotgate.server.rules.blocklist import is_guessable
from jotgate.server.rules.lookalikes import has_unseen, looks_latin, mixes_alphabets

MAX_PASSWORD_BYTES = 1024  # what a password costs to hash must not be the sender's choice
_LONGEST_EMAIL_WORTH_PARSING = 1024  # RFC 5321 §4.5.3.1.3 allows 254; more may normalise to less, within reason
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class InvalidEmail(RequestRefused):
    """Not an e-mail address that mail could be sent to."""

    code = "invalid_email"
    status = 422


class PasswordTooShort(RequestRefused):
    """Fewer characters than the settings ask for."""

    code = "password_too_short"
    status = 422


class PasswordTooCommon(RequestRefused):
    """One of those that are guessed first."""

    code = "password_too_common"
    status = 422


class PasswordTooLong(RequestRefused):
    """More bytes than `MAX_PASSWORD_BYTES`."""

    code = "password_too_long"
    status = 422


class NulInText(RequestRefused):
    """A NUL character, which some libraries and databases take for the end of a text."""

    code = "nul_in_text"
    status = 400


class InvalidText(RequestRefused):
    """A lone surrogate: what is left of bytes that were not UTF-8."""

    code = "invalid_utf8"
    status = 400


class InvalidScope(RequestRefused):
    """Not a scope token by RFC 6749 §3.3."""

    code = "invalid_scope"
    status = 422


def check_text(text: str) -> None:
    """Refuse what no database and no password library should be asked to keep.

    Raises `NulInText` and `InvalidText`.
    """
    if "\0" in text:
        raise NulInText("Text must not contain the NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidText("Text must be valid Unicode.") from None


def normalise_email(raw: str) -> str:
    """The form in which an address is kept and shown: NFC, the domain in lower case and in Unicode.

    The part before the @ keeps its case, since mail goes to that very name; `email_identity` compares. Special-use
    domains that never receive mail (RFC 6761) are refused, except `.test`, which is there for trying things out. So are
    addresses that look like another: with characters that nobody sees, with alphabets mixed in one part, and, under a
    top-level domain in ASCII, with a name in another alphabet that is taken for Latin.
    Raises `InvalidEmail`, `NulInText` and `InvalidText`.
    """
    check_text(raw)
    if len(raw) > _LONGEST_EMAIL_WORTH_PARSING:
        raise InvalidEmail("The e-mail address is too long.")
    if has_unseen(raw):
        raise InvalidEmail("The e-mail address contains characters that cannot be seen. Type it anew.")
    email = _parse(raw)
    if not email.isascii():
        # What is another address in NFKC must be one, and by the same rules: no full-width @ within a name.
        _check_looks(_parse(email_identity(email)))
    return email


def _parse(text: str) -> str:
    try:
        return validate_email(text, check_deliverability=False, test_environment=True, strict=True).normalized
    except EmailNotValidError:
        # The library's reason may repeat what was typed, and that may have been a password.
        raise InvalidEmail("This is not a valid e-mail address.") from None


def _check_looks(email: str) -> None:
    local, _, domain = email.rpartition("@")
    labels = domain.split(".")
    if any(map(mixes_alphabets, (local, *labels))):
        raise InvalidEmail("The e-mail address mixes letters of several alphabets, which look alike. Use those of one.")
    if labels[-1].isascii() and any(map(looks_latin, labels)):
        raise InvalidEmail("The domain of the e-mail address looks like another, in Latin letters. Use such letters.")


def is_email(text: str) -> bool:
    """Whether mail could come from this address; it may be one of this machine alone."""
    try:
        validate_email(text, check_deliverability=False, test_environment=True, globally_deliverable=False)
    except EmailNotValidError:
        return False
    return True


def email_identity(email: str) -> str:
    """What two addresses share if they are the same account: the whole address in NFKC, without its case.

    Wider than mail itself (`straße` equals `strasse`, and full-width letters equal plain ones), on purpose: another
    way of writing somebody's address must not become another account.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())


def normalise_password(raw: str) -> str:
    """The form in which a password is hashed: NFC, so that every keyboard types the same one (SP 800-63B-4 §3.1.1.2).

    Raises `PasswordTooLong`, `NulInText` and `InvalidText`; says nothing about its length being enough.
    """
    check_text(raw)
    if len(raw) > MAX_PASSWORD_BYTES:  # before normalising, whose cost grows with it
        raise PasswordTooLong(_TOO_LONG)
    password = unicodedata.normalize("NFC", raw)
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise PasswordTooLong(_TOO_LONG)
    return password


def check_new_password(raw: str, *, min_length: int, about: Sequence[str], common: Collection[str]) -> str:
    """Return a new password as `normalise_password` does, if it has `min_length` characters and is not guessed first.

    No composition rules: SP 800-63B-4 §3.1.1.2 forbids them. `about` and `common` are those of
    `blocklist.is_guessable`. Raises `PasswordTooShort` and `PasswordTooCommon` besides.
    """
    password = normalise_password(raw)
    if len(password) < min_length:
        raise PasswordTooShort(f"The password needs at least {min_length} characters.")
    if is_guessable(password, about=about, common=common):
        raise PasswordTooCommon(_TOO_COMMON)
    return password


def is_scope_token(text: str) -> bool:
    """Whether `text` is one scope token by RFC 6749 §3.3: printable ASCII without space, `"` and backslash."""
    return _SCOPE_TOKEN.fullmatch(text) is not None


def check_scope_token(text: str) -> None:
    """Raises `InvalidScope` unless `text` is one scope token."""
    if not is_scope_token(text):
        raise InvalidScope('A scope is printable ASCII without spaces, " and backslashes.')


_TOO_LONG = f"The password is longer than {MAX_PASSWORD_BYTES} bytes."
_TOO_COMMON = (
    "This password is one of those that are guessed first: a common one, a repetition, neighbouring keys, or the names "
    "of you or this service. Choose several words that do not belong together."
)
