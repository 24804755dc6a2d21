"""A person adds a second factor to the own account, or takes one away.

It takes the session credential and the password; and where there is a second factor already, a session that began with
one: whoever took over a session and knows the password must not get rid of it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from jotgate.core.encoding import decode_segment
from jotgate.core.errors import MalformedToken
from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, begin_proven
from jotgate.server.flows.mailing import FORGOT_PATH, UNDO_FACTOR_PATH, link, make_mail, new_code
from jotgate.server.flows.passkeys import METHODS, check_new, creation_options
from jotgate.server.flows.password import check_current, check_step_up, check_unchanged
from jotgate.server.flows.second_step import CODE_METHODS, WRONG_CODE, used
from jotgate.server.flows.totp_secrets import app_secret
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.passkeys import REFUSED
from jotgate.server.records import Account, AccountChange, AccountChanged, Code, Factors, Family, Passkey, Totp
from jotgate.server.refusals import (
    Busy,
    FactorNotFound,
    InvalidSecondFactor,
    PasskeyRefused,
    SessionEnded,
)
from jotgate.server.rules.factors import (
    PENDING_LIFE_S,
    RECOVERY_CODE_BYTES,
    RECOVERY_CODES,
    passkey_name,
    recovery_code,
    recovery_digest,
    spend,
    tidy,
    with_passkey,
    without_passkey,
)
from jotgate.server.secret import Secret
from jotgate.server.store import DecideOnAccount, StoreError
from jotgate.server.totp import SECRET_BYTES, Enrolment, enrol, make_secret

_APP: Final = "authenticator app"
_PASSKEY: Final = "passkey"
_NOT_THERE: Final = "The account has no such second factor."


class FactorAdded(Struct, frozen=True):
    """What whoever added a factor gets."""

    begun: LoggedIn
    """The session in which they go on."""
    recovery_codes: tuple[Secret, ...]
    """To be written down; none where there are some already."""


async def begin_totp(
    deps: Deps, account: Account, family: Family, *, current: Secret, now: int, origin: Origin
) -> Enrolment:
    """Make the secret for an authenticator app. Nothing has changed until the app's first code confirms it.

    Raises:
        InvalidCredentials: the password is wrong, or was changed while it was being checked.
        StepUpNeeded: the session began without the second factor that there is.
        TooManyRequests: there were too many guesses at the password by this session.
        Busy, StoreError: not now.
    """
    await check_current(deps, account, family, current, now, origin)
    secret = make_secret(deps.random(SECRET_BYTES))
    sealed = deps.keys.factors.seal_secret(account.id, secret, random=deps.random)

    def decide(known: Account) -> AccountChange:
        check_unchanged(known, account)
        pending = Totp(sealed=sealed, created_at=now, version=known.credential_version)
        return AccountChange(account=replace(known, factors=replace(known.factors, pending=pending)))

    if await _change(deps, account, family, decide, now) is None:
        raise _ended()
    return enrol(secret, account=account.email, service=deps.settings.brand_name)


async def confirm_totp(
    deps: Deps, account: Account, family: Family, *, code: Secret, now: int, origin: Origin
) -> FactorAdded:
    """Make the app's secret count, which replaces an earlier one; ends all sessions, and begins a new one.

    Raises:
        InvalidSecondFactor: the code is not the app's, or the secret was made too long ago.
        StepUpNeeded: the session began without the second factor that there is.
        TooManyRequests: there were too many guesses.
        Busy, StoreError: not now.
    """
    check_step_up(account, family)
    guess = await deps.limits.guess_factor_in_session(family.sid)
    pending = account.factors.pending
    if pending is None or not pending.created_at <= now < pending.created_at + PENDING_LIFE_S:
        await guess.give_back()
        raise InvalidSecondFactor("There is no app waiting to be confirmed, or it waited too long: begin anew.")
    try:
        secret = app_secret(deps, account, pending)
    except Busy:
        await guess.give_back()
        raise

    def add(known: Account, version: int) -> Factors:
        waits = known.factors.pending
        if waits is None or waits.sealed != pending.sealed or waits.version != known.credential_version:
            raise InvalidSecondFactor(WRONG_CODE)
        totp = replace(used(pending, secret, code.reveal(), now), created_at=now, version=version)
        return replace(known.factors, totp=totp, pending=None)

    try:
        done = await _add(deps, account, family, add, _APP, CODE_METHODS, now, origin)
    except (Busy, StoreError):
        await guess.give_back()
        raise
    await guess.give_back()
    return done


async def remove_totp(
    deps: Deps, account: Account, family: Family, *, current: Secret, now: int, origin: Origin
) -> None:
    """Ask for codes of the app no more.

    Raises:
        FactorNotFound: there is none.
        InvalidCredentials, StepUpNeeded, TooManyRequests, Busy, StoreError: as ``begin_totp`` does.
    """

    def remove(known: Factors) -> Factors | None:
        return None if known.totp is None else tidy(replace(known, totp=None))

    await _remove(deps, account, family, remove, _APP, current, now, origin)


async def begin_passkey(
    deps: Deps, account: Account, family: Family, *, current: Secret, now: int, origin: Origin
) -> dict[str, Any]:
    """Return what a browser needs to make a passkey for the account.

    Raises:
        PasskeysUnavailable: they cannot work here.
        InvalidCredentials, StepUpNeeded, TooManyRequests, Busy, StoreError: as ``begin_totp`` does.
    """
    options = creation_options(deps, account, now)
    await check_current(deps, account, family, current, now, origin)
    return options


async def add_passkey(
    deps: Deps,
    account: Account,
    family: Family,
    *,
    credential: Mapping[str, Any],
    name: str,
    now: int,
    origin: Origin,
) -> FactorAdded:
    """Take in the passkey that an authenticator has made; ends all sessions, and begins a new one.

    Raises:
        PasskeyRefused: it is none, or was taken in before, or the options were too long ago.
        PasskeyKnown, TooManyPasskeys, NameRefused: the account cannot have it.
        StepUpNeeded: the session began without the second factor that there is.
        Busy, StoreError: not now.
    """
    check_step_up(account, family)
    called = passkey_name(name)
    made, ticket, challenge = check_new(deps, account, credential, now)

    def add(known: Account, version: int) -> Factors:
        spent = spend(known.factors, challenge, expires_at=ticket.expires_at, now=now)
        if spent is None:
            raise PasskeyRefused(REFUSED)
        new = Passkey(
            id=made.id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            transports=made.transports,
            name=called,
            created_at=now,
            version=version,
        )
        return with_passkey(spent, new)

    return await _add(deps, account, family, add, _PASSKEY, ("pwd", *METHODS), now, origin)


async def remove_passkey(
    deps: Deps, account: Account, family: Family, passkey: str, *, current: Secret, now: int, origin: Origin
) -> None:
    """Believe a passkey no more.

    Raises:
        FactorNotFound: the account has none of this id.
        InvalidCredentials, StepUpNeeded, TooManyRequests, Busy, StoreError: as ``begin_totp`` does.
    """
    try:
        wanted = decode_segment(passkey)
    except MalformedToken:
        raise FactorNotFound(_NOT_THERE) from None
    await _remove(deps, account, family, lambda known: without_passkey(known, wanted), _PASSKEY, current, now, origin)


async def make_recovery_codes(
    deps: Deps, account: Account, family: Family, *, current: Secret, now: int, origin: Origin
) -> tuple[Secret, ...]:
    """Return new recovery codes, each of which works once; those of before do not any more.

    Raises:
        FactorNotFound: there is no second factor that they could stand in for.
        InvalidCredentials, StepUpNeeded, TooManyRequests, Busy, StoreError: as ``begin_totp`` does.
    """
    await check_current(deps, account, family, current, now, origin)
    codes, digests = _new_codes(deps, account)

    def decide(known: Account) -> AccountChange:
        check_unchanged(known, account)
        if not known.factors.asked_for:
            raise FactorNotFound(_NOT_THERE)
        version = known.credential_version + 1
        factors = replace(known.factors, recovery=digests, recovery_version=version)
        there, undo = _undo(deps, known, version, now)
        return AccountChange(
            account=replace(known, factors=factors, credential_version=version),
            codes=(undo,),
            mails=(make_mail(deps, "recovery_codes_made", known.email, now, at=now, link=there),),
            audit=(line("recovery_codes_made", now, origin, account=known.id, sid=family.sid),),
        )

    if await _change(deps, account, family, decide, now) is None:
        raise _ended()
    deps.tell_courier()
    return codes


def _new_codes(deps: Deps, account: Account) -> tuple[tuple[Secret, ...], tuple[bytes, ...]]:
    codes = [recovery_code(deps.random(RECOVERY_CODE_BYTES)) for _ in range(RECOVERY_CODES)]
    return tuple(map(Secret, codes)), tuple(recovery_digest(account.id, each) for each in codes)


async def _change(
    deps: Deps, account: Account, family: Family, decide: DecideOnAccount, now: int
) -> AccountChanged | None:
    return await deps.store.change_account(account.id, decide, now=now, until_s=REVOCATION_LIFE_S, session=family.id)


def _undo(deps: Deps, known: Account, version: int, now: int) -> tuple[str, Code]:
    """Return the link by which, with the password of now, the owner takes it back: it may be somebody else's."""
    text, undo = new_code(
        deps,
        "undo_factor",
        account_id=known.id,
        email=known.email,
        password_hash=known.password_hash,
        now=now,
        credential_version=version,
    )
    return link(deps, UNDO_FACTOR_PATH, text), undo


async def _add(
    deps: Deps,
    account: Account,
    family: Family,
    add: Callable[[Account, int], Factors],
    factor: str,
    methods: tuple[str, ...],
    now: int,
    origin: Origin,
) -> FactorAdded:
    codes, digests = _new_codes(deps, account)
    given: tuple[Secret, ...] = ()

    def decide(known: Account) -> AccountChange:
        nonlocal given
        check_unchanged(known, account)
        version = known.credential_version + 1
        factors = add(known, version)
        given = () if factors.recovery else codes
        there, undo = _undo(deps, known, version, now)
        told = {"change": "added", "factor": factor, "at": now, "link": there}
        with_codes = factors if factors.recovery else replace(factors, recovery=digests, recovery_version=version)
        return AccountChange(
            account=replace(known, factors=with_codes, credential_version=version),
            end_sessions=True,
            codes=(undo,),
            mails=(make_mail(deps, "second_factor_changed", known.email, now, **told),),
            audit=(line("factor_added", now, origin, account=known.id, detail={"factor": factor}),),
        )

    done = await _change(deps, account, family, decide, now)
    if done is None or done.account is None:
        raise _ended()
    deps.live.revoke(entry.revocation for entry in done.revoked.entries)
    deps.tell_courier()
    deps.log.info("factor_added", account=account.id, factor=factor, sessions_ended=len(done.revoked.entries))
    begun = await begin_proven(deps, done.account, methods, now, origin, after="factor_added")
    if begun is None:
        raise _ended()
    return FactorAdded(begun, given)


async def _remove(
    deps: Deps,
    account: Account,
    family: Family,
    remove: Callable[[Factors], Factors | None],
    factor: str,
    current: Secret,
    now: int,
    origin: Origin,
) -> None:
    await check_current(deps, account, family, current, now, origin)

    def decide(known: Account) -> AccountChange:
        check_unchanged(known, account)
        left = remove(known.factors)
        if left is None:
            raise FactorNotFound(_NOT_THERE)
        told = {"change": "removed", "factor": factor, "at": now, "link": link(deps, FORGOT_PATH)}
        return AccountChange(
            account=replace(known, factors=left),
            mails=(make_mail(deps, "second_factor_changed", known.email, now, **told),),
            audit=(line("factor_removed", now, origin, account=known.id, sid=family.sid, detail={"factor": factor}),),
        )

    if await _change(deps, account, family, decide, now) is None:
        raise _ended()
    deps.tell_courier()
    deps.log.info("factor_removed", account=account.id, factor=factor)


def _ended() -> SessionEnded:
    return SessionEnded("The session has ended. Log in again.")
