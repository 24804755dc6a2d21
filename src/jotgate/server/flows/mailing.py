"""What flows put into mails: one-time codes, links to the issuer's own pages, and the mails themselves, sealed."""

import hashlib
from typing import Final
from urllib.parse import quote

from jotgate.core.encoding import decode_segment, encode_segment
from jotgate.core.errors import MalformedToken
from jotgate.server.flows.deps import Deps
from jotgate.server.mail.messages import MailKind
from jotgate.server.records import Account, Code, CodePurpose, OutgoingMail
from jotgate.server.refusals import Busy, CodeRefused, InvalidCredentials

CONFIRM_SIGNUP_PATH: Final = "/signup/confirm"
RESET_PATH: Final = "/password/reset"
CONFIRM_EMAIL_PATH: Final = "/email/confirm"
UNDO_EMAIL_PATH: Final = "/email/undo"
UNDO_FACTOR_PATH: Final = "/factors/undo"
UNDO_PASSWORD_PATH: Final = "/password/undo"  # noqa: S105  a path
FORGOT_PATH: Final = "/password/forgot"

_CODE_BYTES: Final = 32
_NOBODY_BYTES: Final = 16
LIFE_S: Final[dict[CodePurpose, int]] = {
    "signup": 86_400,
    "reset": 1_800,
    "change_email": 3_600,
    "undo_email": 7 * 86_400,
    "undo_factor": 7 * 86_400,
    "undo_password": 7 * 86_400,
}
"""How long the code of a mail works. OWASP ASVS 6.4.1 and 6.6.2; a week to find out that somebody took an account."""


def new_code(
    deps: Deps,
    purpose: CodePurpose,
    *,
    now: int,
    account_id: str = "",
    email: str = "",
    password_hash: str = "",
    credential_version: int = 0,
) -> tuple[str, Code]:
    """Return a one-time code of 256 random bits, and the row that knows it by its digest."""
    text = encode_segment(deps.random(_CODE_BYTES))
    code = Code(
        hash=code_hash(text),
        purpose=purpose,
        account_id=account_id,
        email=email,
        password_hash=password_hash,
        credential_version=credential_version,
        created_at=now,
        expires_at=now + LIFE_S[purpose],
    )
    return text, code


def code_hash(text: str) -> bytes:
    """Return the digest by which a code is kept.

    Raises:
        CodeRefused: it cannot be a code.
    """
    try:
        raw = decode_segment(text)
    except MalformedToken:
        raw = b""
    if len(raw) != _CODE_BYTES:
        raise CodeRefused(CODE_REFUSED)
    return hashlib.sha256(raw).digest()


async def check_password_of_link(deps: Deps, code: Code, password: str, wrong: str) -> None:
    """Check the password that goes with a link; guesses at it are few.

    Args:
        password: normalised.
        wrong: what to say where it is not the one.

    Raises:
        InvalidCredentials: it is not.
        TooManyRequests: there were too many guesses with this link.
        Busy: not now.
    """
    guess = await deps.limits.guess_with_link(code.hash)
    try:
        deps.passwords.check_room(stranger=True)
        fits = await deps.passwords.verify(code.password_hash, password)
    except Busy:
        await guess.give_back()
        raise
    if not fits:
        raise InvalidCredentials(wrong)
    await guess.give_back()


def nobodys_code(deps: Deps, purpose: CodePurpose, now: int) -> Code:
    """Return a code that is nobody's and that nobody has: written where there is none to give, so that time is alike.

    It stands beside no other, and so crowds out none.
    """
    return new_code(deps, purpose, now=now, account_id=encode_segment(deps.random(_NOBODY_BYTES)))[1]


def check_code(code: Code, purpose: CodePurpose, now: int) -> None:
    """Refuse a code of another purpose, and one whose time is over.

    Raises:
        CodeRefused: it is such a one.
    """
    if code.purpose != purpose or now >= code.expires_at:
        raise CodeRefused(CODE_REFUSED)


def owner_of(code: Code, account: Account | None, *, whatever_changed: bool = False) -> Account:
    """Return the account that a code was made for, as it is now.

    Args:
        whatever_changed: the code works although password or address have been changed since.

    Raises:
        CodeRefused: it is gone, or disabled, or its password or address have been changed since.
    """
    if account is None or account.disabled_at is not None:
        raise CodeRefused(CODE_REFUSED)
    if code.credential_version != account.credential_version and not whatever_changed:
        raise CodeRefused(CODE_REFUSED)
    return account


def link(deps: Deps, path: str, code: str = "") -> str:
    """Return the URL of a page of the issuer's, with the code that it shall use. Nothing of it comes from a request."""
    return f"{deps.settings.issuer}{path}" + (f"?code={quote(code)}" if code else "")


def make_mail(deps: Deps, kind: MailKind, to: str, now: int, **values: object) -> OutgoingMail:
    """Return a mail for the outbox.

    Raises:
        Busy: the key that seals mails cannot be used here.
    """
    told = {name: str(value) for name, value in values.items()}
    return deps.keys.mail_seals.seal(kind, to, told, now=now, random=deps.random)


def make_decoy(deps: Deps, now: int) -> OutgoingMail:
    """Return what costs the server the same as a mail with a code, and is sent to nobody.

    Raises:
        Busy: the key that seals mails cannot be used here.
    """
    there = link(deps, RESET_PATH, encode_segment(bytes(_CODE_BYTES)))
    told = {"link": there, "expires_at": str(now + LIFE_S["reset"])}
    sender = deps.settings.mail_sender
    return deps.keys.mail_seals.seal("reset", sender, told, now=now, random=deps.random, decoy=True)


CODE_REFUSED: Final = "This link does not work: it was used, is too old, or newer ones replaced it. Ask for another."
