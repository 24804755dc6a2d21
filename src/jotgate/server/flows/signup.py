"""A person becomes an account."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

import structlog

from jotgate.core.encoding import encode_segment
from jotgate.server.flows.auditing import NOWHERE, Origin, line
from jotgate.server.passwords import Passwords
from jotgate.server.records import Account, Actor
from jotgate.server.rules.accounts import check_new_password, normalise_email
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings
from jotgate.server.store import Store

_PRODUCT: Final = "jotgate"


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
        EmailTaken: there is an account with this address.
        Busy, StoreError: not now.
    """
    address = normalise_email(email)
    text = check_new(deps.settings, deps.common_passwords, address, password)
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
