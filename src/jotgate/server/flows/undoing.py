"""A person takes back what somebody else has done to the account, by the link in the mail that told of it.

The account gets the address of then, loses the second factors and recovery codes that came with the change or later,
and its password; everybody is logged out, and a link for a new password goes to the address. Whatever other links there
are about later changes are void: whoever stole the account may have got them.
"""

from typing import Final

from msgspec.structs import replace

from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import (
    CODE_REFUSED,
    RESET_PATH,
    check_code,
    check_password_of_link,
    code_hash,
    link,
    make_mail,
    new_code,
    owner_of,
)
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import UNDOING, Account, AccountChange, AuditName, Code, CodePurpose
from jotgate.server.refusals import CodeRefused, InvalidCredentials
from jotgate.server.rules.accounts import normalise_password
from jotgate.server.rules.factors import without_later
from jotgate.server.rules.hashing import NO_PASSWORD
from jotgate.server.secret import Secret

_WRONG: Final = "This is not the password that the account had before the change."
_NEEDED: Final = (
    "This would also take a second step away that was added since, so it takes the password that the account had "
    "before."
)
_UNDONE: Final[dict[CodePurpose, AuditName]] = {
    "undo_email": "email_change_undone",
    "undo_factor": "factor_undone",
    "undo_password": "password_change_undone",
}


async def undo(
    deps: Deps, purpose: CodePurpose, code: str, now: int, origin: Origin, *, password: Secret | None = None
) -> Account:
    """Take back a change of address or password, or a second factor, with all that came later.

    But for a change of address alone it takes the password of before, too: whoever only reads the owner's mail must not
    get around the owner's second factor by it.

    Args:
        purpose: what is taken back.

    Raises:
        CodeRefused: the code does not work (any more).
        InvalidCredentials: the password is not the one of then, or is missing; the code still works.
        PasswordTooLong: it can be nobody's.
        TooManyRequests: there were too many guesses at it with this link.
        EmailTaken: the address of then got another account meanwhile.
        Busy, StoreError: not now.
    """
    digest = code_hash(code)
    asked = await deps.store.code_by_hash(digest)
    if asked is None:
        raise CodeRefused(CODE_REFUSED)
    check_code(asked, purpose, now)
    account = owner_of(asked, await deps.store.account_by_id(asked.account_id), whatever_changed=True)
    proven = _takes_password(asked, account)
    if proven:
        await _check_password(deps, asked, password, now, origin)

    def decide(used: Code, known: Account | None) -> AccountChange:
        owner = owner_of(used, known, whatever_changed=True)
        if _takes_password(used, owner) and not proven:
            raise InvalidCredentials(_NEEDED)
        version = owner.credential_version + 1
        given, reset = new_code(
            deps, "reset", account_id=owner.id, email=used.email, now=now, credential_version=version
        )
        there = link(deps, RESET_PATH, given)
        mails = [make_mail(deps, "reset", used.email, now, link=there, expires_at=reset.expires_at)]
        if owner.email != used.email:
            mails.append(make_mail(deps, "email_change_undone", owner.email, now, at=now))
        return AccountChange(
            account=replace(
                owner,
                email=used.email,
                password_hash=NO_PASSWORD,
                credential_version=version,
                factors=without_later(owner.factors, used.credential_version),
            ),
            end_sessions=True,
            # Only those of changes that came later: who stole the account, and changed it once more, has one of those,
            # and must not void its owner's by using it.
            void=UNDOING,
            void_after=used.credential_version,
            codes=(reset,),
            mails=tuple(mails),
            audit=(line(_UNDONE[purpose], now, origin, account=owner.id),),
        )

    done = await deps.store.use_code(digest, decide, now=now, until_s=REVOCATION_LIFE_S)
    if done is None or done.account is None:
        raise CodeRefused(CODE_REFUSED)
    deps.live.revoke(entry.revocation for entry in done.revoked.entries)
    deps.tell_courier()
    deps.log.info(_UNDONE[purpose], account=done.account.id)
    return done.account


def _takes_password(code: Code, owner: Account) -> bool:
    left = without_later(owner.factors, code.credential_version)
    return code.purpose != "undo_email" or (left.totp, left.passkeys) != (owner.factors.totp, owner.factors.passkeys)


async def _check_password(deps: Deps, code: Code, password: Secret | None, now: int, origin: Origin) -> None:
    if password is None:
        raise InvalidCredentials(_NEEDED)
    try:
        await check_password_of_link(deps, code, normalise_password(password.reveal()), _WRONG)
    except InvalidCredentials:
        deps.audit.put(line("undo_refused", now, origin, actor="anonymous", account=code.account_id))
        raise
