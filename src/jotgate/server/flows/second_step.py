"""The second step of a login, and the login by a passkey alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from jotgate.server.device_tokens import DeviceToken
from jotgate.server.factor_keys import Ticket, ticket_bytes
from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import (
    LoggedIn,
    SecondStep,
    ask_whether_it_was_them,
    begin_proven,
    second_step,
    tell_owner,
)
from jotgate.server.flows.mailing import FORGOT_PATH, link, make_mail
from jotgate.server.flows.passkeys import METHODS, prove
from jotgate.server.flows.totp_secrets import app_secret
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.passkeys import REFUSED
from jotgate.server.records import Account, AccountChange, AuditEvent, Factors, OutgoingMail, Totp
from jotgate.server.refusals import Busy, InvalidSecondFactor, PasskeyRefused, TicketRefused, TooManyRequests
from jotgate.server.rules.accounts import email_identity
from jotgate.server.rules.factors import is_app_code, recovery_digest
from jotgate.server.secret import Secret
from jotgate.server.store import StoreError
from jotgate.server.totp import matching_step

_EXPIRED: Final = "This login was begun too long ago, or the password was changed since: begin it anew."
WRONG_CODE: Final = (
    "The code is wrong, too old, or was used already. Wait for the next one of your app, or use a recovery code."
)
CODE_METHODS: Final = ("pwd", "otp", "mfa")
_Use = Callable[[Account], tuple[Factors, Sequence[OutgoingMail], Sequence[AuditEvent]]]


async def finish_login(
    deps: Deps,
    ticket: Secret,
    *,
    code: Secret | None,
    passkey: Mapping[str, Any] | None,
    now: int,
    origin: Origin,
    devices: Sequence[DeviceToken] = (),
) -> LoggedIn:
    """Begin the session that a right password has asked for, by a code of an app, a recovery code, or a passkey.

    Args:
        ticket: what the first step gave.
        code: of an app, or to recover.
        passkey: what an authenticator made of the first step's options, in place of a code.

    Raises:
        TicketRefused: the first step is too long ago, or counts no more.
        InvalidSecondFactor, PasskeyRefused: it is wrong, or was used.
        TooManyRequests: there were too many guesses.
        Busy, StoreError: not now.
    """
    account, _ = await _first_step(deps, ticket, now)
    device = next((each for each in devices if each.is_for(account.id, account.password_hash)), None)
    session = await deps.limits.finish_login(email_identity(account.email))
    try:
        if passkey is not None:
            methods, use = ("pwd", *METHODS), await _using_passkey(deps, account, passkey, now)
            await _write(deps, account, use, now)
        else:
            methods = CODE_METHODS
            await _use_code(deps, account, "" if code is None else code.reveal(), device, now, origin)
    except (InvalidSecondFactor, PasskeyRefused):
        deps.log.info("second_factor_refused", account=account.id)
        deps.audit.put(line("second_factor_failed", now, origin, actor="anonymous", account=account.id))
        await session.give_back()
        await _tell_of_wrong_codes(deps, account, now, origin)
        raise
    except (TicketRefused, TooManyRequests, Busy, StoreError):
        await session.give_back()
        raise
    begun = await begin_proven(deps, account, methods, now, origin)
    if begun is None:
        raise TicketRefused(_EXPIRED)
    if device is None:
        await tell_owner(deps, begun.account, now, origin)
    return replace(begun, device=device)


async def _tell_of_wrong_codes(deps: Deps, account: Account, now: int, origin: Origin) -> None:
    """Tell the owner, once a day at most, that somebody has the password and guesses at the rest."""
    if await deps.limits.wrong_factor(account.id):
        await ask_whether_it_was_them(deps, "second_factor_guessed", account, now, origin)


async def ask_again(deps: Deps, ticket: Secret, now: int) -> SecondStep:
    """Return what the first step asked for, for whoever did not get the second one right; its time goes on.

    Raises:
        TicketRefused: the first step is too long ago, or counts no more.
        Busy, StoreError: not now.
    """
    account, first = await _first_step(deps, ticket, now)
    return second_step(deps, account, ticket, now, expires_in_s=first.expires_at - now)


async def _first_step(deps: Deps, ticket: Secret, now: int) -> tuple[Account, Ticket]:
    first = deps.keys.factors.read_ticket(ticket_bytes(ticket.reveal()), "login", now=now)
    account = None if first is None else await deps.store.account_by_id(first.account_id)
    if first is None or account is None or account.disabled_at is not None or not first.is_for(account):
        raise TicketRefused(_EXPIRED)
    return account, first


async def login_by_passkey(
    deps: Deps, passkey: Mapping[str, Any], now: int, origin: Origin, *, devices: Sequence[DeviceToken] = ()
) -> LoggedIn:
    """Begin a session by a passkey alone, of the account that it names: possession and unlocking are two factors.

    Raises:
        PasskeyRefused: it proves nothing.
        TooManyRequests: the account has begun too many sessions.
        Busy, StoreError: not now.
    """
    try:
        begun = await _begin_by_passkey(deps, passkey, now, origin)
    except PasskeyRefused:
        deps.audit.put(line("login_failed", now, origin, actor="anonymous", detail={"by": "passkey"}))
        raise
    account = begun.account
    device = next((each for each in devices if each.is_for(account.id, account.password_hash)), None)
    if device is None:
        await tell_owner(deps, account, now, origin)
    return replace(begun, device=device)


async def _begin_by_passkey(deps: Deps, passkey: Mapping[str, Any], now: int, origin: Origin) -> LoggedIn:
    shown = await prove(deps, passkey, now)
    await deps.limits.login_by_passkey(shown.account.id)
    await _write(deps, shown.account, lambda known: (shown.use(known, now), (), ()), now)
    begun = await begin_proven(deps, shown.account, METHODS, now, origin)
    if begun is None:
        raise PasskeyRefused(REFUSED)
    return begun


async def _write(deps: Deps, account: Account, use: _Use, now: int) -> None:
    """Use a factor up, in one transaction with what is told of it: of many who show one at once, one gets through."""

    def decide(known: Account) -> AccountChange:
        if known.disabled_at is not None or known.credential_version != account.credential_version:
            raise TicketRefused(_EXPIRED)
        factors, mails, audit = use(known)
        return AccountChange(account=replace(known, factors=factors), mails=tuple(mails), audit=tuple(audit))

    done = await deps.store.change_account(account.id, decide, now=now, until_s=REVOCATION_LIFE_S)
    if done is None:
        raise TicketRefused(_EXPIRED)
    deps.tell_courier()


async def _using_passkey(deps: Deps, account: Account, passkey: Mapping[str, Any], now: int) -> _Use:
    shown = await prove(deps, passkey, now, account=account)
    return lambda known: (shown.use(known, now), (), ())


async def _use_code(
    deps: Deps, account: Account, typed: str, device: DeviceToken | None, now: int, origin: Origin
) -> None:
    if not is_app_code(typed):
        # Nobody guesses these: others' guesses must not keep the owner from using one.
        await _write(deps, account, _using_recovery(deps, account, typed, now, origin), now)
        return
    try:
        guess = await deps.limits.guess_factor(account.id, device)
    except TooManyRequests as refused:
        detail = {"limited": ", ".join(refused.decision.violated)}
        deps.audit.put(line("second_factor_failed", now, origin, actor="anonymous", account=account.id, detail=detail))
        raise
    try:
        await _write(deps, account, _using_app(deps, account, typed, now), now)
    except (Busy, StoreError):
        await guess.give_back()
        raise
    await guess.give_back()


def _using_recovery(deps: Deps, account: Account, typed: str, now: int, origin: Origin) -> _Use:
    digest = recovery_digest(account.id, typed)
    if digest not in account.factors.recovery:  # before anything is written for it
        raise InvalidSecondFactor(WRONG_CODE)

    def use(known: Account) -> tuple[Factors, Sequence[OutgoingMail], Sequence[AuditEvent]]:
        left = tuple(each for each in known.factors.recovery if each != digest)
        if len(left) == len(known.factors.recovery):
            raise InvalidSecondFactor(WRONG_CODE)
        told = {"at": now, "left": len(left), "link": link(deps, FORGOT_PATH)}
        mail = make_mail(deps, "recovery_code_used", known.email, now, **told)
        audit = line("recovery_code_used", now, origin, account=known.id, detail={"left": len(left)})
        return replace(known.factors, recovery=left), (mail,), (audit,)

    return use


def _using_app(deps: Deps, account: Account, typed: str, now: int) -> _Use:
    totp = account.factors.totp
    if totp is None:
        raise InvalidSecondFactor(WRONG_CODE)
    secret = app_secret(deps, account, totp)

    def use(known: Account) -> tuple[Factors, Sequence[OutgoingMail], Sequence[AuditEvent]]:
        stored = known.factors.totp
        if stored is None or stored.sealed != totp.sealed:
            raise InvalidSecondFactor(WRONG_CODE)
        done = used(stored, secret, typed, now)
        if not deps.keys.factors.is_current(done.sealed):
            done = replace(done, sealed=deps.keys.factors.seal_secret(known.id, secret, random=deps.random))
        return replace(known.factors, totp=done), (), ()

    return use


def used(totp: Totp, secret: str, typed: str, now: int) -> Totp:
    """Return an app's secret with this code of it used up.

    Raises:
        InvalidSecondFactor: the code is none of the present ones, or it, or a later one, was used.
    """
    step = matching_step(secret, "".join(typed.split()), now=now, after=totp.last_step)
    if step is None:
        raise InvalidSecondFactor(WRONG_CODE)
    return replace(totp, last_step=step, used_at=now)
