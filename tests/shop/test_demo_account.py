"""The demo's account: made once, told again, and never where others can read it."""

import asyncio
from pathlib import Path

import pytest

from examples.shop.demo_account import EMAIL, FILE_NAME, DemoAccount, seed
from jotgate.server.app import create_app
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.limits import Asker
from jotgate.server.secret import Secret
from jotgate.server.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(signup="open", data_dir=tmp_path / "data", audience="shop")


async def can_log_in(settings: Settings, account: DemoAccount) -> bool:
    auth = create_app(settings)
    async with auth.lifespan():
        deps = auth.start()
        now, password = deps.clock(), Secret(account.password)
        done = await login(deps, account.email, password, now, Origin(), asker=Asker())
    return isinstance(done, LoggedIn)


def test_each_start_tells_the_same_account(settings: Settings) -> None:
    assert seed(create_app(settings)) == seed(create_app(settings))


def test_each_data_folder_has_a_password_of_its_own(settings: Settings, tmp_path: Path) -> None:
    other = Settings(signup="open", data_dir=tmp_path / "other", audience="shop")

    assert seed(create_app(settings)).password != seed(create_app(other)).password


def test_only_its_owner_can_read_the_password(settings: Settings) -> None:
    seed(create_app(settings))

    assert (settings.data_dir / FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lost", [FILE_NAME, "jotgate.sqlite3"])
async def test_it_logs_in_also_after_half_of_it_was_lost(settings: Settings, lost: str) -> None:
    first = await asyncio.to_thread(seed, create_app(settings))
    assert first.email == EMAIL
    (settings.data_dir / lost).unlink()

    account = await asyncio.to_thread(seed, create_app(settings))

    assert await can_log_in(settings, account)


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"email": "demo@jotgate.test"}', ""])
def test_a_file_that_tells_no_account_is_made_anew(settings: Settings, text: str) -> None:
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / FILE_NAME).write_text(text)
    assert seed(create_app(settings)) == seed(create_app(settings))
