"""A person who knows the password, and holds a session, gets another one."""

import msgspec

from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, begin_session, recheck
from jotgate.server.flows.mailing import UNDO_PASSWORD_PATH, link, make_mail, new_code
from jotgate.server.flows.signup import check_new
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.limits import Guess
from jotgate.server.records import Account, Family, Revoked
from jotgate.server.refusals import (
    Busy,
    InvalidCredentials,
    PasswordUnchanged,
    SessionEnded,
    StepUpNeeded,
    TooManyRequests,
)
from jotgate.server.rules.accounts import email_identity, normalise_password
from jotgate.server.secret import Secret


async def change_password(
    deps: Deps, account: Account, family: Family, *, current: Secret, new: Secret, now: int, origin: Origin
) -> LoggedIn:
    """Set a new password and end all sessions of the account, in one step; then begin a new one for who asks.

    Theirs is a new one, too: whoever shares it with them does not know the password.

    Raises:
        InvalidCredentials: the current password is wrong, or was changed by somebody else meanwhile.
        SessionEnded: the session that asks has ended meanwhile.
        PasswordTooShort, PasswordTooCommon, PasswordTooLong, PasswordUnchanged: the new one cannot be used.
        TooManyRequests: there were too many guesses at the current one by this session.
        Busy, StoreError: not now.
    """
    known = normalise_password(current.reveal())
    text = check_new(deps.settings, deps.common_passwords, account.email, new)
    guess = await _guess(deps, account, family, known, now, origin)
    await guess.was_right()  # the session is counted whatever comes now: a password is hashed once more
    if text == known:
        raise PasswordUnchanged("The new password is the current one: choose another.")
    password_hash = await deps.passwords.hash(text)
    done = await _set(deps, account, family, password_hash, now, origin)
    if done is None:
        # A login may just have replaced the hash of the same password: the change wins over that.
        again = await recheck(deps, account, known)
        done = None if again is None else await _set(deps, again, family, password_hash, now, origin)
    if done is None:
        now_is = await deps.store.family_by_id(family.id)
        if now_is is None or now_is.ended_at is not None:
            raise SessionEnded("The session has ended. Log in again.")
        raise InvalidCredentials(_WRONG)
    deps.live.revoke(entry.revocation for entry in done.entries)
    deps.tell_courier()
    deps.log.info("password_changed", account=account.id, sid=family.sid, sessions_ended=len(done.entries))
    version = account.credential_version + 1
    changed = msgspec.structs.replace(account, password_hash=password_hash, credential_version=version)
    begun = await begin_session(deps, changed, text, now, origin, after="password_changed", before=family)
    if begun is None:
        raise InvalidCredentials(_WRONG)
    return begun


async def check_current(
    deps: Deps, account: Account, family: Family, current: Secret, now: int, origin: Origin
) -> None:
    """Check the password of whoever holds a session, before something that a session alone is not enough for.

    Raises:
        InvalidCredentials: it is wrong.
        PasswordTooLong: it can be nobody's.
        StepUpNeeded: the session began without the second factor that there is.
        TooManyRequests: there were too many guesses at it by this session.
        Busy, StoreError: not now.
    """
    guess = await _guess(deps, account, family, normalise_password(current.reveal()), now, origin)
    await guess.was_right()  # what counts as a session stays counted: a password was hashed


def check_unchanged(now: Account, checked: Account) -> None:
    """Refuse what was asked for with a password or under an address that has been changed since it was checked.

    A new password voids what the old one could do, however close together they come.

    Raises:
        InvalidCredentials: it was changed.
    """
    if now.credential_version != checked.credential_version:
        raise InvalidCredentials(_WRONG)


def check_step_up(account: Account, family: Family) -> None:
    """Refuse a session that began without the second factor that the account has.

    Raises:
        StepUpNeeded: it did.
    """
    if account.factors.asked_for and "mfa" not in family.methods:
        raise StepUpNeeded("This session began without your second factor: log in again with it.")


async def _guess(deps: Deps, account: Account, family: Family, known: str, now: int, origin: Origin) -> Guess:
    """Check a normalised password; what it was charged is for the caller to give back."""
    check_step_up(account, family)
    try:
        guess = await deps.limits.guess_in_session(family.sid, email_identity(account.email))
    except TooManyRequests as refused:
        limited = {"limited": ", ".join(refused.decision.violated)}
        deps.audit.put(line("password_change_refused", now, origin, account=account.id, sid=family.sid, detail=limited))
        raise
    try:
        fits = await deps.passwords.verify(account.password_hash, known)
    except Busy:
        await guess.was_none()
        raise
    if not fits:
        await guess.was_wrong()
        deps.log.info("password_change_refused", account=account.id)
        deps.audit.put(line("password_change_refused", now, origin, account=account.id, sid=family.sid))
        raise InvalidCredentials(_WRONG)
    return guess


async def _set(
    deps: Deps, account: Account, family: Family, password_hash: str, now: int, origin: Origin
) -> Revoked | None:
    # By this link and the password of before, the owner has it back for a week: it may have been somebody else.
    text, undo = new_code(
        deps,
        "undo_password",
        account_id=account.id,
        email=account.email,
        password_hash=account.password_hash,
        now=now,
        credential_version=account.credential_version + 1,
    )
    there = link(deps, UNDO_PASSWORD_PATH, text)
    return await deps.store.set_password(
        account.id,
        expected_hash=account.password_hash,
        expected_version=account.credential_version,
        password_hash=password_hash,
        now=now,
        until_s=REVOCATION_LIFE_S,
        codes=[undo],
        mails=[make_mail(deps, "password_changed", account.email, now, at=now, link=there)],
        audit=line("password_changed", now, origin, account=account.id, sid=family.sid),
        session=family.id,
    )


_WRONG = "The current password is wrong."
