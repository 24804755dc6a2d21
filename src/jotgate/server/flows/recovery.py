"""A person who forgot the password sets another one, by a link in a mail to the account's address."""

from msgspec.structs import replace

from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import (
    CODE_REFUSED,
    FORGOT_PATH,
    RESET_PATH,
    check_code,
    code_hash,
    link,
    make_decoy,
    make_mail,
    new_code,
    nobodys_code,
    owner_of,
)
from jotgate.server.flows.signup import check_new
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import Account, AccountChange, Code
from jotgate.server.refusals import CodeRefused
from jotgate.server.rules.accounts import email_identity, normalise_email
from jotgate.server.secret import Secret


async def forgot_password(deps: Deps, email: str, now: int, origin: Origin) -> None:
    """Send a link by which the account's password can be set anew. Whether there is such an account is not told.

    For an address without an account the same is written, a code that nobody has and a mail to nobody, so that neither
    the answer nor its time tells which it was.

    Raises:
        InvalidEmail: nobody can have this address.
        Busy, StoreError: not now.
    """
    address = normalise_email(email)
    account = await deps.store.account_by_email(address)
    wanted = await deps.limits.mail_to(email_identity(address))
    if account is None or account.disabled_at is not None or not wanted:
        # Of an unknown address nothing is kept: a person may have typed the password into it.
        code, mail = nobodys_code(deps, "reset", now), make_decoy(deps, now)
    else:
        version = account.credential_version
        given, code = new_code(
            deps, "reset", account_id=account.id, email=account.email, now=now, credential_version=version
        )
        there = link(deps, RESET_PATH, given)
        mail = make_mail(deps, "reset", account.email, now, link=there, expires_at=code.expires_at)
    known = "" if account is None else account.id
    audit = line("password_reset_requested", now, origin, actor="anonymous", account=known)
    await deps.store.queue(codes=[code], mails=[mail], audit=[audit])
    deps.tell_courier()
    deps.log.info("password_reset_requested")


async def reset_password(deps: Deps, code: str, new: Secret, now: int, origin: Origin) -> None:
    """Set a new password and end all sessions; other links of before do not work then. Nobody is logged in by it.

    Raises:
        CodeRefused: the code does not work (any more).
        PasswordTooShort, PasswordTooCommon, PasswordTooLong: the new one cannot be used; the code still can.
        Busy, StoreError: not now.
    """
    digest = code_hash(code)
    pending = await deps.store.code_by_hash(digest)
    if pending is None:  # before a password is hashed for it
        raise CodeRefused(CODE_REFUSED)
    check_code(pending, "reset", now)
    text = check_new(deps.settings, deps.common_passwords, pending.email, new)
    deps.passwords.check_room(stranger=False)
    password_hash = await deps.passwords.hash(text)

    def decide(used: Code, account: Account | None) -> AccountChange:
        check_code(used, "reset", now)
        owner = owner_of(used, account)
        notice = make_mail(deps, "password_reset", owner.email, now, at=now, link=link(deps, FORGOT_PATH))
        version = owner.credential_version + 1
        return AccountChange(
            account=replace(owner, password_hash=password_hash, credential_version=version),
            end_sessions=True,
            mails=(notice,),
            audit=(line("password_reset", now, origin, account=owner.id),),
        )

    done = await deps.store.use_code(digest, decide, now=now, until_s=REVOCATION_LIFE_S)
    if done is None or done.account is None:
        raise CodeRefused(CODE_REFUSED)
    deps.live.revoke(entry.revocation for entry in done.revoked.entries)
    deps.tell_courier()
    deps.log.info("password_reset", account=done.account.id, sessions_ended=len(done.revoked.entries))
