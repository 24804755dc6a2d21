"""The demo's accounts: made once, told again, and never where others can read them."""

import asyncio
from pathlib import Path

import pytest

from examples.shop.demo_account import EMAIL, FILE_NAME, STAFF_EMAIL, STAFF_FILE_NAME, DemoAccount, DemoAccounts
from examples.shop.demo_account import seed as seed_with
from examples.shop.shop import STAFF_SCOPE
from jotgate.server.app import AuthApp, create_app
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.limits import Asker
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(signup="open", data_dir=tmp_path / "data", audience="shop")


def seed(auth: AuthApp) -> DemoAccounts:
    return seed_with(auth, STAFF_SCOPE)


async def scopes_after_login(settings: Settings, account: DemoAccount) -> tuple[str, ...] | None:
    auth = create_app(settings)
    async with auth.lifespan():
        deps = auth.start()
        now, password = deps.clock(), Secret(account.password)
        done = await login(deps, account.email, password, now, Origin(), asker=Asker())
        if not isinstance(done, LoggedIn):
            return None
        known = await deps.store.account_by_email(account.email)
    return None if known is None else known.scopes


def test_each_start_tells_the_same_accounts(settings: Settings) -> None:
    assert seed(create_app(settings)) == seed(create_app(settings))


def test_each_data_folder_has_a_password_of_its_own(settings: Settings, tmp_path: Path) -> None:
    other = Settings(signup="open", data_dir=tmp_path / "other", audience="shop")

    passwords = [
        account.password
        for seeded in (seed(create_app(settings)), seed(create_app(other)))
        for account in (seeded.customer, seeded.staff)
    ]
    assert len(set(passwords)) == 4


def test_only_its_owner_can_read_the_password(settings: Settings) -> None:
    seed(create_app(settings))

    for name in (FILE_NAME, STAFF_FILE_NAME):
        assert (settings.data_dir / name).stat().st_mode & 0o777 == 0o600


async def test_staff_may_change_stock_and_customers_may_not(settings: Settings) -> None:
    accounts = await asyncio.to_thread(seed, create_app(settings))

    assert STAFF_SCOPE in (await scopes_after_login(settings, accounts.staff) or ())
    assert STAFF_SCOPE not in (await scopes_after_login(settings, accounts.customer) or ())


@pytest.mark.parametrize("lost", [FILE_NAME, STAFF_FILE_NAME, "jotgate.sqlite3"])
async def test_both_log_in_also_after_half_of_it_was_lost(settings: Settings, lost: str) -> None:
    first = await asyncio.to_thread(seed, create_app(settings))
    assert (first.customer.email, first.staff.email) == (EMAIL, STAFF_EMAIL)
    (settings.data_dir / lost).unlink()

    accounts = await asyncio.to_thread(seed, create_app(settings))

    assert await scopes_after_login(settings, accounts.customer)
    assert STAFF_SCOPE in (await scopes_after_login(settings, accounts.staff) or ())


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"email": "demo@jotgate.test"}', ""])
def test_a_file_that_tells_no_account_is_made_anew(settings: Settings, text: str) -> None:
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / FILE_NAME).write_text(text)
    assert seed(create_app(settings)) == seed(create_app(settings))
