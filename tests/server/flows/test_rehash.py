"""What happens to stored hashes when the parameters of Argon2 change: logins replace them, and nobody notices."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jotgate.core.encoding import encode_segment
from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.flows.password import change_password
from jotgate.server.flows.signup import signup
from jotgate.server.limits import Asker
from jotgate.server.records import Account, Revoked
from jotgate.server.refusals import Busy, InvalidCredentials, SessionEnded
from jotgate.server.rules.hashing import parse_argon2, stored_parameters
from jotgate.server.secret import Secret
from jotgate.server.store import StoreBusy

NOW = 1_795_000_000
EMAIL = "ada@example.com"
PASSWORD, NEW = Secret("correct horse battery staple"), Secret("four plain words in a row")
BEFORE, AFTER = "19456/2", "7168/5"

Start = Callable[[str], Deps]


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=2, guesses_before_backoff=100)
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        key = Secret(encode_segment(b"k" * 32))
        settings = msgspec.structs.replace(settings, database_url=Secret(url), master_key=key)
    return settings


@pytest.fixture
async def start(settings: Settings) -> AsyncIterator[Start]:
    """Starts a server on the test's database with a set of parameters, beside those that run already."""
    apps: list[AuthApp] = []

    def start(argon2: str) -> Deps:
        apps.append(create_app(msgspec.structs.replace(settings, argon2=argon2), clock=lambda: NOW))
        return apps[-1].start()

    yield start
    for app in apps:
        await app.start().store.close()
        await asyncio.to_thread(app.close)


@pytest.fixture
async def upgraded(start: Start) -> Deps:
    """A server with other parameters than those that Ada's account was made with."""
    await signup(start(BEFORE), EMAIL, PASSWORD, NOW)
    return start(AFTER)


async def stored(deps: Deps) -> Account:
    account = await deps.store.account_by_email(EMAIL)
    assert account is not None
    return account


async def log_in(deps: Deps, password: Secret = PASSWORD) -> str:
    """Log in, and return the session's id."""
    done = await login(deps, EMAIL, password, NOW, Origin(), asker=Asker())
    assert isinstance(done, LoggedIn)
    return deps.verifier.verify(done.tokens.access_token.reveal()).session_id or ""


async def sessions(deps: Deps) -> set[str]:
    account = await stored(deps)
    return {family.sid for family in await deps.store.families_of_account(account.id, now=NOW)}


async def test_a_login_replaces_a_hash_of_other_parameters_once_and_ends_no_session(
    upgraded: Deps, start: Start
) -> None:
    before = await stored(upgraded)
    assert stored_parameters(before.password_hash) == parse_argon2(BEFORE)
    first = await log_in(upgraded)
    after = await stored(upgraded)
    assert stored_parameters(after.password_hash) == parse_argon2(AFTER)
    assert after == msgspec.structs.replace(before, password_hash=after.password_hash)
    second = await log_in(upgraded)
    assert await stored(upgraded) == after, "a hash with the parameters of now is left alone"
    assert await sessions(upgraded) == {first, second}
    assert await upgraded.store.revocations_after(0) == []


async def test_a_wrong_password_replaces_nothing(upgraded: Deps) -> None:
    before = await stored(upgraded)
    with pytest.raises(InvalidCredentials):
        await log_in(upgraded, Secret("not the password at all"))
    assert await stored(upgraded) == before


async def test_all_logins_at_once_succeed_while_the_hash_is_replaced(upgraded: Deps) -> None:
    begun = await asyncio.gather(*(log_in(upgraded) for _ in range(8)))
    assert await sessions(upgraded) == set(begun)
    assert len(set(begun)) == 8
    assert stored_parameters((await stored(upgraded)).password_hash) == parse_argon2(AFTER)


def before_first(
    deps: Deps, monkeypatch: pytest.MonkeyPatch, method: str, happens: Callable[[], Any]
) -> list[tuple[Any, ...]]:
    """Let something happen, and be over, between a flow's decision and its first call of a method of the store."""
    calls: list[tuple[Any, ...]] = []
    real = getattr(deps.store, method)

    async def call(*positional: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the method takes
        calls.append(positional)
        if len(calls) == 1:
            await happens()
        return await real(*positional, **named)

    monkeypatch.setattr(deps.store, method, call)
    return calls


async def test_a_login_whose_hash_another_one_has_just_replaced_succeeds(
    upgraded: Deps, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[str] = []

    async def other() -> None:
        others.append(await log_in(upgraded))

    calls = before_first(upgraded, monkeypatch, "add_family", other)
    mine = await log_in(upgraded)
    assert len(calls) == 3, "the first attempt of this login came too late"
    assert await sessions(upgraded) == {mine, *others}


async def change(deps: Deps) -> None:
    account = await stored(deps)
    sid = await log_in(deps)
    family = await deps.store.family_by_sid(sid)
    assert family is not None
    await change_password(deps, account, family, current=PASSWORD, new=NEW, now=NOW, origin=Origin())


async def test_a_login_whose_password_was_changed_meanwhile_is_refused(
    upgraded: Deps, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = start(AFTER)
    before_first(upgraded, monkeypatch, "add_family", lambda: change(elsewhere))
    with pytest.raises(InvalidCredentials):
        await log_in(upgraded)
    assert len(await sessions(upgraded)) == 1, "that of the change alone"


async def test_a_change_of_password_wins_over_a_replacement_that_comes_late(
    upgraded: Deps, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = start(BEFORE)
    before_first(upgraded, monkeypatch, "replace_hash", lambda: change(elsewhere))
    await login(upgraded, EMAIL, PASSWORD, NOW, Origin(), asker=Asker())
    assert len(await sessions(upgraded)) == 1, "the change has ended what the old password began"
    with pytest.raises(InvalidCredentials):
        await log_in(upgraded)
    await log_in(upgraded, NEW)


async def test_a_change_of_password_wins_over_a_replacement_that_came_just_before(
    upgraded: Deps, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = start(BEFORE)
    before_first(elsewhere, monkeypatch, "set_password", lambda: log_in(upgraded))
    await change(elsewhere)
    assert len(await sessions(upgraded)) == 1
    with pytest.raises(InvalidCredentials):
        await log_in(upgraded)
    await log_in(upgraded, NEW)


async def test_a_change_that_another_change_came_before_is_refused(
    upgraded: Deps, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = start(BEFORE)

    async def other_change() -> Revoked | None:
        account = await stored(elsewhere)
        other = await upgraded.passwords.hash("somebody else's new password")
        return await upgraded.store.set_password(
            account.id,
            expected_hash=account.password_hash,
            expected_version=account.credential_version,
            password_hash=other,
            now=NOW,
            until_s=60,
        )

    before_first(elsewhere, monkeypatch, "set_password", other_change)
    with pytest.raises(SessionEnded):  # by the other change, with all sessions
        await change(elsewhere)
    assert await sessions(upgraded) == set()


@pytest.mark.parametrize("part", ["hash", "replace_hash"])
async def test_a_replacement_that_fails_fails_no_login(
    upgraded: Deps, monkeypatch: pytest.MonkeyPatch, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise Busy("full") if part == "hash" else StoreBusy("full")

    before = await stored(upgraded)
    monkeypatch.setattr(upgraded.passwords if part == "hash" else upgraded.store, part, fails)
    sid = await log_in(upgraded)
    assert await sessions(upgraded) == {sid}
    assert await stored(upgraded) == before
    assert [json.loads(line)["event"] for line in caplog.messages] == ["rehash_failed"]


async def test_a_stored_hash_that_is_too_costly_to_check_is_no_password(
    upgraded: Deps, caplog: pytest.LogCaptureFixture
) -> None:
    account = await stored(upgraded)
    costly = "$argon2id$v=19$m=102408,t=1,p=1$c29tZXNhbHQxMjM0NTY$" + "A" * 43
    assert await upgraded.store.replace_hash(account.id, expected_hash=account.password_hash, password_hash=costly)
    with pytest.raises(InvalidCredentials):
        await asyncio.wait_for(log_in(upgraded), 30)
    assert [json.loads(line)["event"] for line in caplog.messages] == ["password_hash_unusable"]
