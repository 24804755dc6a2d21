"""What becomes of an account that an operator disables, enables again or deletes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from jotgate.server import Settings, create_app
from jotgate.server.flows.auditing import NOWHERE
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.flows.mailing import new_code
from jotgate.server.flows.recovery import reset_password
from jotgate.server.flows.sessions import refresh
from jotgate.server.flows.signup import signup
from jotgate.server.flows.standing import delete, disable, enable
from jotgate.server.limits import Asker
from jotgate.server.records import AuditEvent, AuditName
from jotgate.server.refusals import CodeRefused, InvalidCredentials, SessionEnded, TooManyRequests
from jotgate.server.secret import Secret

NOW: Final = 1_795_000_000
EMAIL: Final = "ada@example.com"
PASSWORD: Final = "correct horse battery staple"


def line(event: AuditName) -> AuditEvent:
    return AuditEvent(at=NOW, event=event, actor="cli")


@pytest.fixture
async def deps(tmp_path: Path) -> AsyncIterator[Deps]:
    settings = Settings(
        signup="open", data_dir=tmp_path / "data", hash_workers=1, argon2="7168/5", guesses_before_backoff=1
    )
    app = create_app(settings, clock=lambda: NOW)
    async with app.lifespan():
        yield app.start()


@pytest.fixture
async def account_id(deps: Deps) -> str:
    return (await signup(deps, EMAIL, Secret(PASSWORD), NOW)).id


async def log_in(deps: Deps, password: str = PASSWORD) -> LoggedIn:
    done = await login(deps, EMAIL, Secret(password), NOW, NOWHERE, asker=Asker())
    assert isinstance(done, LoggedIn)
    return done


async def events(deps: Deps, account_id: str) -> list[str]:
    return [each.event for each in await deps.store.audit_last(limit=50, account_id=account_id)]


async def test_a_disabled_account_has_no_sessions_and_is_told_once_in_the_trail(deps: Deps, account_id: str) -> None:
    tokens = (await log_in(deps)).tokens
    done = await disable(deps.store, account_id, line, NOW)
    assert done is not None
    assert len(done.revoked.entries) == 1
    assert await disable(deps.store, account_id, line, NOW) is None
    assert (await events(deps, account_id)).count("account_disabled") == 1
    with pytest.raises(SessionEnded):
        await refresh(deps, tokens.refresh_token, NOW)
    assert await enable(deps.store, account_id, line, NOW) is not None
    assert await enable(deps.store, account_id, line, NOW) is None
    assert (await events(deps, account_id)).count("account_enabled") == 1
    with pytest.raises(SessionEnded):  # what has ended does not come back
        await refresh(deps, tokens.refresh_token, NOW)
    await log_in(deps)


async def test_the_right_password_of_a_disabled_account_is_a_wrong_guess_like_any_other(
    deps: Deps, account_id: str
) -> None:
    await disable(deps.store, account_id, line, NOW)
    refusals: list[type[Exception]] = []
    for _ in range(20):  # waits double: nobody is so slow that all of these are let through
        try:
            await log_in(deps)
        except (InvalidCredentials, TooManyRequests) as refused:
            refusals.append(type(refused))
    assert len(refusals) == 20
    assert refusals[0] is InvalidCredentials
    assert TooManyRequests in refusals


async def test_no_link_sets_a_password_of_a_disabled_account(deps: Deps, account_id: str) -> None:
    texts: list[str] = []
    for disabled in (False, True):
        text, code = new_code(deps, "reset", account_id=account_id, email=EMAIL, now=NOW)
        texts.append(text)
        await deps.store.queue(codes=[code])
        if not disabled:
            await disable(deps.store, account_id, line, NOW)
    before = await deps.store.account_by_id(account_id)
    for text in texts:
        with pytest.raises(CodeRefused):
            await reset_password(deps, text, Secret("quite another password"), NOW, NOWHERE)
    assert await deps.store.account_by_id(account_id) == before
    await enable(deps.store, account_id, line, NOW)
    with pytest.raises(CodeRefused):  # disabling voided it
        await reset_password(deps, texts[0], Secret("quite another password"), NOW, NOWHERE)


async def test_a_deleted_account_leaves_its_lines_in_the_trail_alone(deps: Deps, account_id: str) -> None:
    tokens = (await log_in(deps)).tokens
    done = await delete(deps.store, account_id, line, NOW)
    assert done is not None
    assert len(done.revoked.entries) == 1
    assert await deps.store.account_by_email(EMAIL) is None
    assert "account_deleted" in await events(deps, account_id)
    assert await delete(deps.store, account_id, line, NOW) is None
    with pytest.raises(SessionEnded):
        await refresh(deps, tokens.refresh_token, NOW)
    with pytest.raises(InvalidCredentials):
        await log_in(deps)
