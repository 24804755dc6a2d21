"""A person gets another e-mail address: the new one is proven first, the old one is told and can undo it."""

from msgspec.structs import replace

from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import (
    CODE_REFUSED,
    CONFIRM_EMAIL_PATH,
    UNDO_EMAIL_PATH,
    check_code,
    code_hash,
    link,
    make_decoy,
    make_mail,
    new_code,
    nobodys_code,
    owner_of,
)
from jotgate.server.flows.password import check_current, check_unchanged
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import Account, AccountChange, Code, Family
from jotgate.server.refusals import CodeRefused, SessionEnded
from jotgate.server.rules.accounts import email_identity, normalise_email
from jotgate.server.secret import Secret


async def request_email_change(
    deps: Deps, account: Account, family: Family, *, new_email: str, current: Secret, now: int, origin: Origin
) -> None:
    """Send a link to the new address, by which it becomes the account's. Nothing has changed until then.

    Where the address has an account, its owner is told that somebody asked; whoever asks sees no difference.

    Raises:
        InvalidEmail: nobody can have this address.
        InvalidCredentials: the current password is wrong, or was changed while it was being checked.
        TooManyRequests: there were too many guesses at it by this session.
        Busy, StoreError: not now.
    """
    address = normalise_email(new_email)
    await check_current(deps, account, family, current, now, origin)
    owner = await deps.store.account_by_email(address)
    code, mail = nobodys_code(deps, "change_email", now), make_decoy(deps, now)
    if await deps.limits.mail_to(email_identity(address)):
        if owner is None or owner.id == account.id:
            version = account.credential_version
            given, code = new_code(
                deps, "change_email", account_id=account.id, email=address, now=now, credential_version=version
            )
            there = link(deps, CONFIRM_EMAIL_PATH, given)
            mail = make_mail(deps, "change_email", address, now, link=there, expires_at=code.expires_at)
        else:
            mail = make_mail(deps, "email_taken", owner.email, now)
    audit = line("email_change_requested", now, origin, account=account.id, sid=family.sid)

    def decide(known: Account) -> AccountChange:
        check_unchanged(known, account)
        return AccountChange(account=known, codes=(code,), mails=(mail,), audit=(audit,))

    session = family.id
    done = await deps.store.change_account(account.id, decide, now=now, until_s=REVOCATION_LIFE_S, session=session)
    if done is None:
        raise SessionEnded("The session has ended. Log in again.")
    deps.tell_courier()
    deps.log.info("email_change_requested", account=account.id)


async def confirm_email_change(deps: Deps, code: str, now: int, origin: Origin) -> Account:
    """Give the account its new address, and send the old one a link that undoes it.

    Raises:
        CodeRefused: the code does not work (any more).
        EmailTaken: the address got an account meanwhile.
        Busy, StoreError: not now.
    """

    def decide(used: Code, account: Account | None) -> AccountChange:
        check_code(used, "change_email", now)
        owner = owner_of(used, account)
        version = owner.credential_version + 1
        given, undo = new_code(
            deps,
            "undo_email",
            account_id=owner.id,
            email=owner.email,
            password_hash=owner.password_hash,
            now=now,
            credential_version=version,
        )
        there = link(deps, UNDO_EMAIL_PATH, given)
        notice = make_mail(
            deps, "email_changed", owner.email, now, new_email=used.email, link=there, expires_at=undo.expires_at
        )
        return AccountChange(
            account=replace(owner, email=used.email, credential_version=version),
            codes=(undo,),
            mails=(notice,),
            audit=(line("email_changed", now, origin, account=owner.id),),
        )

    done = await deps.store.use_code(code_hash(code), decide, now=now, until_s=REVOCATION_LIFE_S)
    if done is None or done.account is None:
        raise CodeRefused(CODE_REFUSED)
    deps.tell_courier()
    deps.log.info("email_changed", account=done.account.id)
    return done.account
