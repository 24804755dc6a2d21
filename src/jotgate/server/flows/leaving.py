"""A person deletes the own account."""

from jotgate.server.flows.auditing import Origin, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.mailing import make_mail
from jotgate.server.flows.password import check_current, check_unchanged
from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import UNDOING, Account, AccountChange, Family
from jotgate.server.refusals import SessionEnded
from jotgate.server.secret import Secret


async def leave(deps: Deps, account: Account, family: Family, *, current: Secret, now: int, origin: Origin) -> None:
    """Delete the account with its sessions, which are over everywhere; the audit trail keeps its id.

    Raises:
        InvalidCredentials: the password is wrong, or was changed while it was being checked.
        TooManyRequests: there were too many guesses at it by this session.
        Busy, StoreError: not now.
    """
    await check_current(deps, account, family, current, now, origin)

    def decide(known: Account) -> AccountChange:
        check_unchanged(known, account)
        return AccountChange(
            account=None,
            void=("reset", "change_email", *UNDOING),
            mails=(make_mail(deps, "account_deleted", known.email, now, at=now),),
            audit=(line("account_deleted", now, origin, account=known.id, sid=family.sid),),
        )

    session = family.id
    done = await deps.store.change_account(account.id, decide, now=now, until_s=REVOCATION_LIFE_S, session=session)
    if done is None:
        raise SessionEnded("The session has ended. Log in again.")
    deps.live.revoke(entry.revocation for entry in done.revoked.entries)
    deps.tell_courier()
    deps.log.info("account_deleted", account=account.id, sessions_ended=len(done.revoked.entries))
