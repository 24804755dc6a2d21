"""An operator disables an account, enables it again, or deletes it."""

from collections.abc import Callable

from msgspec.structs import replace

from jotgate.server.keys import REVOCATION_LIFE_S
from jotgate.server.records import (
    NO_FACTORS,
    UNDOING,
    Account,
    AccountChange,
    AccountChanged,
    AuditEvent,
    AuditName,
    audit_detail,
)
from jotgate.server.store import Store

Line = Callable[[AuditName], AuditEvent]
"""Makes a line of the audit trail."""


async def disable(store: Store, account_id: str, line: Line, now: int) -> AccountChanged | None:
    """Let nobody log in to an account any more; its sessions end, and every verifier refuses their tokens.

    Returns None where it is disabled already, or there is no such account.

    Raises:
        StoreError: not now.
    """

    def decide(account: Account) -> AccountChange | None:
        if account.disabled_at is not None:
            return None
        return AccountChange(
            # Links of before must not work when it is enabled again.
            account=replace(account, disabled_at=now, credential_version=account.credential_version + 1),
            end_sessions=True,
            void=UNDOING,
            audit=(replace(line("account_disabled"), account_id=account.id),),
        )

    return await store.change_account(account_id, decide, now=now, until_s=REVOCATION_LIFE_S)


async def enable(store: Store, account_id: str, line: Line, now: int) -> AccountChanged | None:
    """Let people log in to a disabled account again; None where it is not disabled, or there is none.

    Raises:
        StoreError: not now.
    """

    def decide(account: Account) -> AccountChange | None:
        if account.disabled_at is None:
            return None
        audit = (replace(line("account_enabled"), account_id=account.id),)
        return AccountChange(account=replace(account, disabled_at=None), audit=audit)

    return await store.change_account(account_id, decide, now=now, until_s=REVOCATION_LIFE_S)


async def delete(store: Store, account_id: str, line: Line, now: int) -> AccountChanged | None:
    """Delete an account with its sessions, whose tokens every verifier refuses; None where there is none.

    Raises:
        StoreError: not now.
    """

    def decide(account: Account) -> AccountChange:
        return AccountChange(
            account=None,
            void=("reset", "change_email", *UNDOING),
            audit=(replace(line("account_deleted"), account_id=account.id),),
        )

    return await store.change_account(account_id, decide, now=now, until_s=REVOCATION_LIFE_S)


async def reset_factors(store: Store, account_id: str, line: Line, now: int) -> AccountChanged | None:
    """Ask an account for no second factor any more: its owner has lost it, with the codes to recover. Sessions end.

    Returns None where it has none, or there is no such account.

    Raises:
        StoreError: not now.
    """

    def decide(account: Account) -> AccountChange | None:
        if account.factors == NO_FACTORS:
            return None
        audit = (replace(line("factor_removed"), account_id=account.id, detail=audit_detail(factor="all")),)
        changed = replace(account, factors=NO_FACTORS, credential_version=account.credential_version + 1)
        return AccountChange(account=changed, end_sessions=True, void=("undo_factor",), audit=audit)

    return await store.change_account(account_id, decide, now=now, until_s=REVOCATION_LIFE_S)
