"""An account for `jotgate demo` to print, so that a newcomer can log in at once; a shop of your own needs none."""

import asyncio
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jotgate.server.app import AuthApp
from jotgate.server.flows.signup import signup
from jotgate.server.secret import Secret

EMAIL = "demo@jotgate.test"
FILE_NAME = "demo-account.json"
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike


@dataclass(frozen=True)
class DemoAccount:
    email: str
    password: str


def seed(auth: AuthApp) -> DemoAccount:
    """Makes the account once, and tells it again on each later start. Call it before the server runs.

    Nobody can read a password back from the database, so the file beside it, which only its owner may read, keeps it.
    """
    return asyncio.run(_seed(auth))


async def _seed(auth: AuthApp) -> DemoAccount:
    async with auth.lifespan():
        deps = auth.start()
        file = deps.settings.data_dir / FILE_NAME
        account = _read(file)
        if account is None:
            groups = deps.settings.password_min_length // 5 + 2
            account = DemoAccount(EMAIL, "-".join(_group() for _ in range(groups)))
            if await deps.store.account_by_email(EMAIL):  # the file is gone, and with it the password
                account = replace(account, email=f"{_group()}-{EMAIL}")
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
