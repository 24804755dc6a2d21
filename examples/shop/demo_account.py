"""Accounts for `jotgate demo` to print, so that a newcomer can log in at once; a shop of your own needs none."""

import asyncio
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jotgate.server.app import AuthApp
from jotgate.server.flows.auditing import NOWHERE, line
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.signup import signup
from jotgate.server.secret import Secret

EMAIL, FILE_NAME = "demo@jotgate.test", "demo-account.json"
STAFF_EMAIL, STAFF_FILE_NAME = "staff@jotgate.test", "staff-account.json"
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


@dataclass(frozen=True)
class DemoAccount:
    email: str
    password: str


@dataclass(frozen=True)
class DemoAccounts:
    customer: DemoAccount
    staff: DemoAccount


def seed(auth: AuthApp, staff_scope: str) -> DemoAccounts:
    """Makes the accounts once, and tells them again on each later start. Call it before the server runs.

    Nobody can read a password back from the database, so a file beside it, which only its owner may read, keeps it.
    """
    return asyncio.run(_seed(auth, staff_scope))


async def _seed(auth: AuthApp, staff_scope: str) -> DemoAccounts:
    async with auth.lifespan():
        deps = auth.start()
        staff = await _account(deps, STAFF_EMAIL, STAFF_FILE_NAME)
        granted = line("scope_granted", deps.clock(), NOWHERE, actor="cli", detail={"scope": staff_scope})
        await deps.store.grant_scope(staff.email, staff_scope, audit=granted)
        return DemoAccounts(await _account(deps, EMAIL, FILE_NAME), staff)


async def _account(deps: Deps, email: str, file_name: str) -> DemoAccount:
    file = deps.settings.data_dir / file_name
    account = _read(file)
    if account is None:
        groups = deps.settings.password_min_length // 5 + 2
        account = DemoAccount(email, "-".join(_group() for _ in range(groups)))
        if await deps.store.account_by_email(email):  # the file is gone, and with it the password
            account = replace(account, email=f"{_group()}-{email}")
        _write_private(file, json.dumps(asdict(account)))
    if await deps.store.account_by_email(account.email) is None:
        await signup(deps, account.email, Secret(account.password), deps.clock())
    return account


def _read(file: Path) -> DemoAccount | None:
    """The account that the file tells, None where it tells none."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return DemoAccount(str(told["email"]), str(told["password"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _group() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(4))


def _write_private(file: Path, text: str) -> None:
    """Writes the file whole or not at all, and never readable by others."""
    draft = file.with_suffix(f".{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)
