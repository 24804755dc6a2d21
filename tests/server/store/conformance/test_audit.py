"""The audit trail: what changes something and its line are there together or not at all, and lines only grow old."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from jotgate.server.records import (
    CLOCK_MARGIN_S,
    Account,
    AuditEvent,
    AuditName,
    Family,
    SealedKey,
    Target,
    audit_detail,
)
from jotgate.server.rules.keys import KeyChange, KeyEvent
from jotgate.server.store import EmailTaken, Store
from tests.server.store.conftest import NewAccount, NewFamily, OpenStore
from tests.server.store.support import PASSWORD_HASH

NOW = 2_000
DAY_S = 86_400


def line(event: AuditName, **fields: object) -> AuditEvent:
    given = {"at": NOW, "actor": "account", "request_id": "r-1", "address": "192.0.2.7", "device": "curl"} | fields
    return AuditEvent(event=event, **given)  # type: ignore[arg-type]  # whatever the test cares about


async def trail(store: Store) -> list[tuple[str, str, str]]:
    return [(each.event, each.account_id, each.sid) for each in await store.audit_after(0, limit=100)]


async def begin(store: Store, new_account: NewAccount, new_family: NewFamily) -> tuple[Account, Family]:
    account = new_account()
    await store.add_account(account)
    family = new_family(account, address="192.0.2.7", device="curl")
    assert await store.add_family(family, expected_hash=PASSWORD_HASH)
    return account, family


async def test_a_line_is_kept_as_it_was_written_and_numbered(store: Store) -> None:
    written = [
        line("login_failed", detail=audit_detail(text="\r\n\x1b[31m é 🦊", count=3), account_id="a"),
        line("login_failed", actor="anonymous"),
        line("settings_changed", at=NOW - 5, actor="server", request_id=""),
    ]
    await store.add_audit(written)
    await store.add_audit([])
    kept = await store.audit_after(0, limit=10)
    assert [each.id for each in kept] == sorted({each.id for each in kept})
    assert [without_id(each) for each in kept] == written


def without_id(event: AuditEvent) -> AuditEvent:
    return msgspec.structs.replace(event, id=0)


async def test_an_account_and_its_line_are_there_together(store: Store, new_account: NewAccount) -> None:
    account = new_account()
    told = line("account_created", account_id=account.id)
    await store.add_account(account, audit=told)
    with pytest.raises(EmailTaken):
        await store.add_account(new_account(email=account.email), audit=told)
    assert await trail(store) == [("account_created", account.id, "")]


async def test_a_login_and_its_line_are_there_together(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)
    good, late = (new_family(account, address="192.0.2.7", device="curl") for _ in range(2))

    def told(family: Family) -> AuditEvent:
        return line("login", account_id=account.id, sid=family.sid, detail='{"after":"x"}')

    assert await store.add_family(good, expected_hash=PASSWORD_HASH, audit=told(good))
    assert not await store.add_family(late, expected_hash="another", audit=told(late))
    (kept,) = await store.audit_after(0, limit=10)
    assert without_id(kept) == told(good)


async def test_scopes_that_change_are_told_with_the_account_and_others_are_not(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    granted, revoked = line("scope_granted", actor="cli"), line("scope_revoked", actor="cli")
    for _ in range(2):
        await store.grant_scope(account.email, "orders:read", audit=granted)
    for _ in range(2):
        await store.revoke_scope(account.email, "orders:read", audit=revoked)
    await store.grant_scope("nobody@example.com", "orders:read", audit=granted)
    assert await trail(store) == [("scope_granted", account.id, ""), ("scope_revoked", account.id, "")]


async def test_a_password_that_is_changed_is_told_and_one_that_is_not_is_not(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    told = line("password_changed", account_id=account.id)
    for _ in range(2):
        await store.set_password(
            account.id,
            expected_hash=PASSWORD_HASH,
            expected_version=0,
            password_hash="new",
            now=NOW,
            until_s=360,
            audit=told,
        )
    assert await trail(store) == [("password_changed", account.id, "")]


Ends = Callable[[Store, Account, Family], Awaitable[object]]


async def _end(store: Store, account: Account, family: Family) -> object:
    told = line("logout", account_id=account.id, sid=family.sid)
    return await store.end_family(family.id, now=NOW, until_s=360, audit=told)


async def _revoke(store: Store, account: Account, family: Family) -> object:
    told = line("session_revoked", account_id=account.id, sid=family.sid)
    return await store.revoke(Target("session", family.sid), clock=lambda: NOW, until_s=360, audit=told)


async def _revoke_account(store: Store, account: Account, family: Family) -> object:
    told = line("logout_everywhere", account_id=account.id)
    return await store.revoke(Target("account", account.id), clock=lambda: NOW, until_s=360, audit=told)


async def _reuse(store: Store, account: Account, family: Family) -> object:
    def told(of: Family) -> AuditEvent:
        return line("refresh_reused", account_id=of.account_id, sid=of.sid)

    return [
        await store.rotate(
            family.id, 0, now=NOW + 300 * n, mac_kid="first", idle_s=5_000, until_s=360, audit_reuse=told
        )
        for n in range(4)
    ]


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (_end, "logout"),
        (_revoke, "session_revoked"),
        (_revoke_account, "logout_everywhere"),
        (_reuse, "refresh_reused"),
    ],
)
async def test_what_ends_a_session_is_told_once(
    store: Store, new_account: NewAccount, new_family: NewFamily, end: Ends, event: str
) -> None:
    account = new_account()
    await store.add_account(account)
    family = new_family(account, idle_ends_at=9_000)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    for _ in range(2):
        await end(store, account, family)
    assert [(name, whose) for name, whose, _ in await trail(store)] == [(event, account.id)]


async def test_a_plain_refresh_and_a_replay_are_not_told(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    _, family = await begin(store, new_account, new_family)

    def told(of: Family) -> AuditEvent:
        return line("refresh_reused", sid=of.sid)

    for now in (1_100, 1_105):
        await store.rotate(family.id, 0, now=now, mac_kid="first", idle_s=500, until_s=360, audit_reuse=told)
    assert await trail(store) == []


async def test_a_mass_revocation_is_told_with_the_time_of_its_entry(store: Store) -> None:
    told = line("revoked", actor="cli", at=1, detail=audit_detail(kind="all"))
    done = await store.revoke(Target("all"), clock=lambda: NOW + 7, until_s=360, audit=told)
    (kept,) = await store.audit_after(0, limit=10)
    assert (kept.at, kept.detail) == (done.entries[0].at, '{"kind":"all"}') == (NOW + 7, '{"kind":"all"}')


def test_changes_of_keys_and_their_lines_are_there_together(store: Store) -> None:
    key = SealedKey(
        kid="k", issuer="", purpose="access", algorithm="ES256", sealed=b"x", thumbprint="t", created_at=NOW
    )
    made = KeyChange((key,), events=(KeyEvent("key_made", "k", "access", "ES256"),))

    def told(event: KeyEvent) -> AuditEvent:
        return line(event.name, actor="server", detail=audit_detail(kid=event.kid))

    def broken(event: KeyEvent) -> AuditEvent:
        raise ZeroDivisionError

    with pytest.raises(Exception):  # noqa: B017, PT011  whatever it is: nothing may be left of it
        store.change_keys(lambda _: made, now=NOW, until_s=360, audit=broken)
    assert store.load_keys() == []
    store.change_keys(lambda _: made, now=NOW, until_s=360, audit=told)
    store.change_keys(lambda _: KeyChange(), now=NOW, until_s=360, audit=told)

    async def read() -> None:
        (kept,) = await store.audit_after(0, limit=10)
        assert (kept.event, kept.detail) == ("key_made", '{"kid":"k"}')

    asyncio.run(read())


async def test_the_trail_is_read_in_pages_by_account_name_and_time(store: Store) -> None:
    await store.add_audit(
        [line("login" if n % 2 else "logout", at=NOW + n, account_id=f"account-{n % 3}", sid=str(n)) for n in range(30)]
    )
    everything = await store.audit_after(0, limit=100)
    pages: list[AuditEvent] = []
    while page := await store.audit_after(pages[-1].id if pages else 0, limit=7):
        pages += page
    assert [each.sid for each in pages] == [str(n) for n in range(30)]
    mine = await store.audit_after(0, limit=100, account_id="account-1", event="login")
    assert [each.sid for each in mine] == ["1", "7", "13", "19", "25"]
    between = await store.audit_after(0, limit=100, since=NOW + 3, until=NOW + 6)
    assert [each.sid for each in between] == ["3", "4", "5"]
    assert await store.audit_last(limit=3) == everything[-3:]
    assert [each.sid for each in await store.audit_last(limit=2, account_id="account-1")] == ["25", "28"]
    assert [each.sid for each in await store.audit_last(limit=2, event="logout")] == ["26", "28"]


async def test_settings_are_told_by_one_of_many_processes_that_start_at_once(
    store: Store, open_store: OpenStore
) -> None:
    seen: list[str | None] = []

    def decide(last: AuditEvent | None) -> AuditEvent | None:
        seen.append(None if last is None else last.detail)
        return line("settings_changed", actor="server", detail='{"n":1}') if last is None else None

    await asyncio.gather(*(each.record_settings(decide) for each in (store, open_store(), open_store())))
    assert sorted(seen, key=str) == sorted([None, '{"n":1}', '{"n":1}'], key=str)
    await store.add_audit([line("settings_changed", actor="server", detail='{"n":2}'), line("login")])
    seen.clear()
    await store.record_settings(decide)
    assert seen == ['{"n":2}']
    assert len(await trail(store)) == 3


async def test_lines_past_their_time_go_a_few_at_a_time_and_no_number_comes_again(store: Store) -> None:
    await store.add_audit([line("login", at=n, sid=str(n)) for n in range(5)])
    keep_s = 100 * DAY_S
    now = keep_s + CLOCK_MARGIN_S + 3

    async def left() -> list[str]:
        return [each.sid for each in await store.audit_after(0, limit=100)]

    await store.sweep(b"", now=now, limit=10)
    assert await left() == ["0", "1", "2", "3", "4"]
    await store.sweep(b"", now=now, limit=2, audit_keep_s=keep_s)
    assert await left() == ["2", "3", "4"]
    await store.sweep(b"", now=now, limit=10, audit_keep_s=keep_s)
    (last,) = await store.audit_after(0, limit=100)
    assert last.sid == "4"
    await store.sweep(b"", now=now + 1, limit=10, audit_keep_s=keep_s)
    assert await left() == []
    await store.add_audit([line("login")])
    (next_one,) = await store.audit_after(0, limit=100)
    assert next_one.id > last.id


def test_nothing_that_is_in_the_trail_is_changed(store: Store) -> None:
    """Of all statements one alone touches lines that are there: the one that deletes those past their time."""
    statements = vars(store._sql)  # type: ignore[attr-defined]  # both stores have them
    touching = {
        name
        for name, each in statements.items()
        if not isinstance(each, dict)
        and "jotgate_audit" in (text := str(getattr(each, "text", each)))
        and not text.startswith(("SELECT", "INSERT"))
    }
    assert touching == {"prune_audit"}
