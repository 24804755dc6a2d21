"""What every store promises about one-time codes, mails, and changes of accounts that come with them."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from jotgate.server.records import (
    Account,
    AccountChange,
    AuditEvent,
    Code,
    CodePurpose,
    Factors,
    Family,
    OutgoingMail,
    Passkey,
    Totp,
)
from jotgate.server.store import EmailTaken, Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]

NOW = 1_000
LIFE = 360
FACTORS = Factors(
    totp=Totp(sealed=b"\x00\xff", created_at=1, used_at=2, last_step=3),
    pending=Totp(sealed=b"p", created_at=4),
    recovery=(b"\x01" * 32, b"\xfe" * 32),
    passkeys=(
        Passkey(id=b"\x80", public_key=b"\x81", sign_count=9, transports=("usb", "nfc"), name="☎", created_at=5),
    ),
    spent=((b"\x90" * 16, 1_300),),
)


def code(name: str, purpose: CodePurpose = "reset", **fields: object) -> Code:
    given = {"email": "ada@example.com", "created_at": NOW, "expires_at": NOW + 900, **fields}
    return Code(hash=hashlib.sha256(name.encode()).digest(), purpose=purpose, **given)  # type: ignore[arg-type]


def mail(name: str, *, due_at: int = NOW) -> OutgoingMail:
    return OutgoingMail(id=name, kind="reset", sealed=name.encode(), created_at=NOW, due_at=due_at)


def event(name: str) -> AuditEvent:
    return AuditEvent(at=NOW, event="password_reset", actor="account", request_id=name)


async def test_an_account_is_changed_with_its_sessions_codes_mails_and_line_in_one_step(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)
    family = new_family(account)
    await store.add_family(family, expected_hash=PASSWORD_HASH)
    changed = replace(
        account,
        email="new@example.com",
        password_hash="other",
        scopes=("a", "b"),
        disabled_at=NOW,
        credential_version=7,
        factors=FACTORS,
    )
    done = await store.change_account(
        account.id,
        lambda known: AccountChange(
            account=changed if known == account else known,
            end_sessions=True,
            codes=(code("one", account_id=account.id),),
            mails=(mail("m"),),
            audit=(event("r"),),
        ),
        now=NOW,
        until_s=LIFE,
    )
    assert done is not None
    assert done.account == changed == await store.account_by_id(account.id)
    assert await store.account_by_email(account.email) is None
    assert [entry.id for entry in done.revoked.entries] == [family.sid]
    assert await store.revocations_after(0) == list(done.revoked.entries)
    assert await store.code_by_hash(code("one").hash) == code("one", account_id=account.id)
    assert [each.id for each in await store.claim_mails("c", now=NOW, limit=9, lease_s=60)] == ["m"]
    assert [each.request_id for each in await store.audit_last(limit=9)] == ["r"]


async def test_no_session_begins_without_the_factor_that_there_is(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account()
    await store.add_account(account)

    async def begins(*methods: str) -> bool:
        return await store.add_family(new_family(account, methods=methods), expected_hash=PASSWORD_HASH)

    async def has(factors: Factors) -> None:
        change = AccountChange(account=replace(account, factors=factors))
        await store.change_account(account.id, lambda _: change, now=NOW, until_s=LIFE)

    assert await begins("pwd")
    await has(replace(FACTORS, totp=None, passkeys=()))  # one that nobody has confirmed yet
    assert await begins("pwd")
    await has(FACTORS)
    assert not await begins("pwd")
    assert not await begins("pwd", "mfanot")
    assert await begins("pwd", "otp", "mfa")
    assert await begins("pop", "mfa")
    await has(Factors())
    assert await begins("pwd")


async def test_a_sign_up_that_waits_is_found_by_its_address(store: Store) -> None:
    old = replace(code("one"), purpose="signup", email="Ada@example.com", created_at=NOW - 1)
    new = replace(code("two"), purpose="signup", email="ada@example.com")
    others = replace(code("three"), purpose="signup", email="eve@example.com")
    await store.queue(codes=[new, old, others])
    assert await store.pending_signup("ADA@example.com", now=NOW) == new
    assert await store.pending_signup("ada@example.com", now=new.expires_at) is None
    assert await store.pending_signup("nobody@example.com", now=NOW) is None


async def test_what_the_decision_raises_and_an_address_that_is_taken_leave_everything_as_it_was(
    store: Store, new_account: NewAccount
) -> None:
    ada, eve = new_account(email="ada@example.com"), new_account(email="eve@example.com")
    await store.add_account(ada)
    await store.add_account(eve)
    await store.queue(codes=[code("one", account_id=eve.id)])

    def steal(known: Account) -> AccountChange:
        return AccountChange(account=replace(known, email="ADA@example.com"), mails=(mail("m"),), void=("reset",))

    with pytest.raises(EmailTaken):
        await store.change_account(eve.id, steal, now=NOW, until_s=LIFE)
    with pytest.raises(EmailTaken):
        await store.use_code(code("one").hash, lambda _, known: steal(known or eve), now=NOW, until_s=LIFE)

    def refuse(_: object, __: object = None) -> AccountChange:
        raise LookupError

    with pytest.raises(LookupError):
        await store.change_account(eve.id, refuse, now=NOW, until_s=LIFE)
    with pytest.raises(LookupError):
        await store.use_code(code("one").hash, refuse, now=NOW, until_s=LIFE)
    assert await store.account_by_id(eve.id) == eve
    assert await store.code_by_hash(code("one").hash) is not None
    assert await store.claim_mails("c", now=NOW, limit=9, lease_s=60) == []


async def test_nobody_and_nothing_to_do_are_none(store: Store, new_account: NewAccount) -> None:
    account = new_account()
    await store.add_account(account)
    keep = AccountChange(account=account)
    assert await store.change_account("nobody", lambda _: keep, now=NOW, until_s=LIFE) is None
    assert await store.change_account(account.id, lambda _: None, now=NOW, until_s=LIFE) is None
    assert await store.use_code(b"unknown", lambda _, __: keep, now=NOW, until_s=LIFE) is None


async def test_an_account_that_goes_takes_its_sessions_and_codes_along_and_its_audit_trail_stays(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account, other = new_account(email="ada@example.com"), new_account(email="eve@example.com")
    await store.add_account(account)
    await store.add_account(other)
    live, ended = new_family(account), new_family(account)
    for family in (live, ended):
        await store.add_family(family, expected_hash=PASSWORD_HASH)
    await store.end_family(ended.id, now=NOW, until_s=LIFE)
    await store.queue(codes=[code("one", account_id=account.id), code("theirs", account_id=other.id)])
    gone = AccountChange(account=None, void=("reset",), audit=(event("r"),))
    done = await store.change_account(account.id, lambda _: gone, now=NOW, until_s=LIFE)
    assert done is not None
    assert done.account is None
    assert [entry.id for entry in done.revoked.entries] == [live.sid]
    assert await store.account_by_id(account.id) is None
    assert await store.family_by_id(live.id) is None
    assert await store.code_by_hash(code("one").hash) is None
    assert await store.code_by_hash(code("theirs").hash) is not None
    assert len(await store.audit_last(limit=9)) == 1
    await store.add_account(new_account(email="ada@example.com"))


async def test_a_code_makes_an_account_and_voids_the_others_of_its_address(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account(email="Ada@example.com")
    pending = [
        code(name, "signup", email=email) for name, email in (("1", "ada@example.com"), ("2", "ADA@example.com"))
    ]
    await store.queue(codes=[*pending, code("3", "signup", email="eve@example.com")])
    made = AccountChange(account=account, void=("signup",))
    done = await store.use_code(pending[0].hash, lambda _, known: made, now=NOW, until_s=LIFE)
    assert done is not None
    assert await store.account_by_email("ada@example.com") == account
    assert [await store.code_by_hash(each.hash) for each in pending] == [None, None]
    assert await store.code_by_hash(code("3").hash) is not None


async def test_of_many_who_use_a_code_at_once_one_does(
    open_store: Callable[[], Store], new_account: NewAccount
) -> None:
    stores = [open_store(), open_store()]
    account = new_account()
    await stores[0].add_account(account)
    await stores[0].queue(codes=[code("one", account_id=account.id)])
    used = []

    async def use(store: Store, n: int) -> None:
        def decide(_: Code, known: Account | None) -> AccountChange:
            assert known is not None
            return AccountChange(account=replace(known, password_hash=f"hash {n}"))

        used.append(await store.use_code(code("one").hash, decide, now=NOW, until_s=LIFE))

    await asyncio.gather(*(use(stores[n % 2], n) for n in range(8)))
    assert sum(done is not None for done in used) == 1
    current = await stores[0].account_by_id(account.id)
    assert current == next(done.account for done in used if done is not None)


async def test_the_last_three_codes_of_a_purpose_work_save_those_that_undo(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    for n in range(5):
        await store.queue(
            codes=[
                code(f"reset {n}", account_id=account.id, created_at=NOW + n),
                code(f"undo {n}", "undo_email", account_id=account.id, created_at=NOW + n),
                code(f"signup {n}", "signup", created_at=NOW + n),
            ]
        )
    await store.queue(codes=[code("elsewhere", "signup", email="eve@example.com", created_at=NOW + 9)])

    async def left(kind: str) -> list[bool]:
        return [await store.code_by_hash(code(f"{kind} {n}").hash) is not None for n in range(5)]

    assert await left("reset") == await left("signup") == [False, False, True, True, True]
    assert await left("undo") == [True] * 5


async def test_a_new_password_is_a_new_version_and_another_hash_of_it_is_not(
    store: Store, new_account: NewAccount
) -> None:
    account = new_account()
    await store.add_account(account)
    set_password = store.set_password(
        account.id,
        expected_hash=PASSWORD_HASH,
        expected_version=0,
        password_hash="new",
        now=NOW,
        until_s=LIFE,
        codes=[code("undo", "undo_password", account_id=account.id)],
        mails=[mail("m")],
    )
    assert await set_password is not None
    assert await store.code_by_hash(code("undo").hash) is not None
    assert (
        await store.set_password(
            account.id, expected_hash="new", expected_version=0, password_hash="x", now=NOW, until_s=LIFE
        )
        is None
    )
    assert await store.replace_hash(account.id, expected_hash="new", password_hash="newer")
    changed = replace(account, password_hash="newer", credential_version=1)
    assert await store.account_by_id(account.id) == changed
    assert [each.id for each in await store.claim_mails("c", now=NOW, limit=9, lease_s=60)] == ["m"]


async def test_of_codes_to_undo_those_with_a_later_version_are_voided(store: Store, new_account: NewAccount) -> None:
    account = new_account()
    await store.add_account(account)
    undo = [code(str(n), "undo_email", account_id=account.id, credential_version=n) for n in range(4)]
    await store.queue(codes=undo)
    change = AccountChange(account=account, void=("undo_email",), void_after=1)
    await store.change_account(account.id, lambda _: change, now=NOW, until_s=LIFE)
    assert [await store.code_by_hash(each.hash) is not None for each in undo] == [True, True, False, False]


async def test_an_address_that_can_be_had_back_is_reserved_until_the_code_has_run_out(
    store: Store, new_account: NewAccount
) -> None:
    await store.queue(codes=[code("u", "undo_email", account_id="x"), code("r", email="eve@example.com")])
    assert await store.is_reserved("ADA@example.com", now=NOW + 899)
    assert not await store.is_reserved("ada@example.com", now=NOW + 900)
    assert not await store.is_reserved("eve@example.com", now=NOW)
    with pytest.raises(EmailTaken):
        await store.add_account(new_account(email="ADA@example.com", created_at=NOW))
    await store.queue(codes=[code("s", "signup", email="ada@example.com")])
    made = AccountChange(account=new_account(email="ada@example.com", created_at=NOW))
    with pytest.raises(EmailTaken):
        await store.use_code(code("s").hash, lambda _, __: made, now=NOW, until_s=LIFE)
    assert await store.code_by_hash(code("s").hash) is not None
    assert await store.account_by_email("ada@example.com") is None
    await store.add_account(new_account(email="eve@example.com", created_at=NOW))


async def test_no_session_of_a_disabled_account_begins(
    store: Store, new_account: NewAccount, new_family: NewFamily
) -> None:
    account = new_account(disabled_at=NOW)
    await store.add_account(account)
    assert await store.account_by_id(account.id) == account
    assert not await store.add_family(new_family(account), expected_hash=PASSWORD_HASH)
    assert not await store.add_family(new_family(account), expected_hash=PASSWORD_HASH, audit=event("r"))


async def test_a_mail_is_one_claimants_until_it_is_sent_fails_or_the_lease_is_over(store: Store) -> None:
    await store.queue(
        mails=[mail("late", due_at=NOW + 5), mail("second", due_at=NOW - 1), mail("first", due_at=NOW - 2)]
    )
    (first,) = await store.claim_mails("a", now=NOW, limit=1, lease_s=60)
    assert (first.id, first.claim, first.sealed, first.attempts) == ("first", "a", b"first", 1)
    (second,) = await store.claim_mails("b", now=NOW, limit=9, lease_s=60)
    assert second.id == "second"
    await store.mail_sent("first", "b")  # whose it is not
    await store.mail_failed("second", "b", due_at=NOW + 30)
    await store.mail_sent("second", "b")  # which has been given back
    again = await store.claim_mails("c", now=NOW + 60, limit=9, lease_s=60)
    assert sorted((each.id, each.attempts) for each in again) == [("first", 2), ("late", 1), ("second", 2)]
    await store.mail_failed("first", "a", due_at=0)  # whose lease is over
    for each in again:
        await store.mail_sent(each.id, "c")
    assert await store.claim_mails("d", now=NOW + 9_999, limit=9, lease_s=60) == []


async def test_of_many_who_claim_at_once_each_gets_others(open_store: Callable[[], Store]) -> None:
    stores = [open_store(), open_store()]
    await stores[0].queue(mails=[mail(str(n)) for n in range(30)])
    claims = await asyncio.gather(*(stores[n % 2].claim_mails(str(n), now=NOW, limit=10, lease_s=60) for n in range(6)))
    ids = [each.id for claimed in claims for each in claimed]
    assert len(ids) == len(set(ids))
    ids += [each.id for each in await stores[0].claim_mails("rest", now=NOW, limit=30, lease_s=60)]
    assert sorted(ids, key=int) == [str(n) for n in range(30)]


async def test_codes_are_swept_a_day_after_their_end(store: Store) -> None:
    await store.queue(codes=[code("old", expires_at=NOW), code("young", account_id="x", expires_at=NOW + 1)])
    await store.sweep(b"", now=NOW + 86_400, limit=10)
    assert await store.code_by_hash(code("old").hash) is None
    assert await store.code_by_hash(code("young").hash) is not None
