"""A person becomes an account."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

import structlog
from msgspec.structs import replace

from jotgate.core.encoding import encode_segment
from jotgate.server.flows.auditing import NOWHERE, Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import (
    CODE_REFUSED,
    CONFIRM_SIGNUP_PATH,
    FORGOT_PATH,
    check_code,
    check_password_of_link,
    code_hash,
    link,
    make_decoy,
    make_mail,
    new_code,
    nobodys_code,
)
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.passwords import Passwords
from jotgate.server.records import Account, AccountChange, Actor, Code
from jotgate.server.refusals import CodeRefused
from jotgate.server.rules.accounts import check_new_password, email_identity, normalise_email, normalise_password
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store import EMAIL_TAKEN, EmailTaken, Store

_PRODUCT: Final = "jotgate"
_NOT_THAT: Final = "This is not the password that was chosen at the sign-up which this link is for."


class SignupDeps(Protocol):
    """What it takes: of ``Deps``, all but keys and tokens."""

    @property
    def settings(self) -> Settings: ...
    @property
    def store(self) -> Store: ...
    @property
    def passwords(self) -> Passwords: ...
    @property
    def common_passwords(self) -> Collection[str]: ...
    @property
    def random(self) -> Callable[[int], bytes]: ...
    @property
    def log(self) -> structlog.stdlib.BoundLogger: ...


async def signup(
    deps: SignupDeps,
    email: str,
    password: Secret,
    now: int,
    origin: Origin = NOWHERE,
    *,
    actor: Actor = "account",
    before_hash: Callable[[], Awaitable[None]] | None = None,
) -> Account:
    """Make an account with the default scopes; it is durable when this returns.

    Args:
        actor: who does it, for the audit trail.
        before_hash: called once the input is known to be good; may refuse.

    Raises:
        InvalidEmail, PasswordTooShort, PasswordTooCommon, PasswordTooLong: what was given cannot be used.
        EmailTaken: there is an account with this address, or one that may get it back.
        Busy, StoreError: not now.
    """
    address = normalise_email(email)
    text = check_new(deps.settings, deps.common_passwords, address, password)
    if await deps.store.is_reserved(address, now=now):
        raise EmailTaken(EMAIL_TAKEN)
    if before_hash is not None:
        await before_hash()
    account = Account(
        id=encode_segment(deps.random(16)),
        email=address,
        password_hash=await deps.passwords.hash(text),
        scopes=deps.settings.default_scopes,
        created_at=now,
    )
    audit = line("account_created", now, origin, actor=actor, account=account.id)
    await deps.store.add_account(account, audit=audit)
    deps.log.info("account_created", account=account.id)
    return account


async def request_signup(
    deps: Deps,
    email: str,
    password: Secret,
    now: int,
    origin: Origin,
    *,
    before_hash: Callable[[], Awaitable[None]],
) -> None:
    """Send a link that makes the account; to whoever has one already, a mail that says so. Both look alike from here.

    No account is made before its address is proven, by whoever knows the password that was given with it.

    Raises:
        InvalidEmail, PasswordTooShort, PasswordTooCommon, PasswordTooLong: what was given cannot be used.
        TooManyRequests: ``before_hash`` says so.
        Busy, StoreError: not now.
    """
    address = normalise_email(email)
    text = check_new(deps.settings, deps.common_passwords, address, password)
    await before_hash()
    known = await deps.store.account_by_email(address)
    reserved = await deps.store.is_reserved(address, now=now)
    password_hash = await deps.passwords.hash(text)
    code, mail = nobodys_code(deps, "signup", now), make_decoy(deps, now)
    if await deps.limits.mail_to(email_identity(address)):
        if known is None and reserved:
            mail = make_mail(deps, "address_reserved", address, now)
        elif known is None:
            given, code = new_code(deps, "signup", email=address, now=now, password_hash=password_hash)
            there = link(deps, CONFIRM_SIGNUP_PATH, given)
            mail = make_mail(deps, "verify", address, now, link=there, expires_at=code.expires_at)
        else:
            mail = make_mail(deps, "account_exists", known.email, now, link=link(deps, FORGOT_PATH))
    audit = line("signup_requested", now, origin, actor="anonymous", account="" if known is None else known.id)
    await deps.store.queue(codes=[code], mails=[mail], audit=[audit])
    deps.tell_courier()
    deps.log.info("signup_requested")


async def remind_of_signup(deps: Deps, email: str, now: int) -> None:
    """Send the link of a sign-up again that waits to be confirmed, if there is one: somebody could not log in.

    Done after the answer to whoever asked, who is told nothing.

    Raises:
        Busy, StoreError: not now.
    """
    pending = await deps.store.pending_signup(email, now=now)
    if pending is None or not await deps.limits.mail_to(email_identity(email)):
        return
    given, new = new_code(deps, "signup", email=pending.email, now=now, password_hash=pending.password_hash)
    code = replace(new, expires_at=pending.expires_at)  # who tries and tries does not make it last for ever
    there = link(deps, CONFIRM_SIGNUP_PATH, given)
    mail = make_mail(deps, "verify", pending.email, now, link=there, expires_at=code.expires_at)
    await deps.store.queue(codes=[code], mails=[mail])
    deps.tell_courier()
    deps.log.info("signup_mail_sent_again")


async def confirm_signup(deps: Deps, code: str, password: Secret, now: int, origin: Origin) -> Account:
    """Make the account that a mail's link is for. Nobody is logged in by it.

    It takes the password of that sign-up, too: others may have signed up with the same address, and whoever opened
    their link by mistake would share the account with them.

    Raises:
        CodeRefused: the code does not work (any more).
        InvalidCredentials: the password is not the one that was given at the sign-up; the code still works.
        PasswordTooLong: it can be nobody's.
        TooManyRequests: there were too many guesses at it with this link.
        EmailTaken: the address got an account in another way meanwhile.
        Busy, StoreError: not now.
    """
    digest = code_hash(code)
    asked = await deps.store.code_by_hash(digest)
    if asked is None:
        raise CodeRefused(CODE_REFUSED)
    check_code(asked, "signup", now)
    await check_password_of_link(deps, asked, normalise_password(password.reveal()), _NOT_THAT)

    def decide(pending: Code, _: Account | None) -> AccountChange:
        check_code(pending, "signup", now)
        account = Account(
            id=encode_segment(deps.random(16)),
            email=pending.email,
            password_hash=pending.password_hash,
            scopes=deps.settings.default_scopes,
            created_at=now,
        )
        audit = line("account_created", now, origin, account=account.id)
        return AccountChange(account=account, void=("signup",), audit=(audit,))

    done = await deps.store.use_code(digest, decide, now=now, until_s=REVOCATION_LIFE_S)
    if done is None or done.account is None:
        raise CodeRefused(CODE_REFUSED)
    deps.log.info("account_created", account=done.account.id)
    return done.account


def check_new(settings: Settings, common: Collection[str], email: str, password: Secret) -> str:
    """Return the password in the form in which it is hashed, if the account with this address may have it.

    Args:
        common: as ``load_common_passwords`` returns them.

    Raises:
        PasswordTooShort, PasswordTooCommon, PasswordTooLong: it may not.
    """
    return check_new_password(
        password.reveal(),
        min_length=settings.password_min_length,
        about=(email, settings.issuer, settings.audience, _PRODUCT),
        common=common,
    )
