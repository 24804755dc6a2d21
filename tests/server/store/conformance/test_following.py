"""What every store promises to those who follow the log from a cursor: which log it is, when to look, no gaps."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

from jotgate.server.records import Account, Family, LogEntry, LogHead, Target
from jotgate.server.store import Store
from tests.server.store.support import PASSWORD_HASH

NewAccount = Callable[..., Account]
NewFamily = Callable[..., Family]
OpenStore = Callable[[], Store]


async def revoke_token(store: Store, jti: str) -> None:
    await store.revoke(Target("token", jti), clock=lambda: 1_100, until_s=360)


async def settle(store: Store) -> None:
    """Wait until there is nothing more to be told."""
    while True:
        began = time.monotonic()
        await store.wait_changed(0.3)
        if time.monotonic() - began > 0.25:
            return


async def test_the_first_to_attend_alone_names_the_log_and_who_comes_later_keeps_the_name(
    open_store: OpenStore,
) -> None:
    first, second, third = open_store(), open_store(), open_store()
    assert first.attend("one") == LogHead("one", 0)
    await revoke_token(first, "jti")
    assert second.attend("two") == LogHead("one", 1)
    await first.close()
    assert third.attend("three") == LogHead("one", 1)  # the second vouches for it
    await second.close()
    await third.close()

    assert open_store().attend("four") == LogHead("four", 1)  # nobody could


def test_of_many_that_start_at_once_one_names_the_log(open_store: OpenStore) -> None:
    for round_ in range(5):
        stores = [open_store() for _ in range(6)]
        with ThreadPoolExecutor(len(stores)) as threads:
            heads = list(threads.map(lambda n: stores[n].attend(f"{round_}-{n}"), range(len(stores))))  # noqa: B023
        (name,) = {head.log_id for head in heads}
        assert name.startswith(f"{round_}-")  # nobody was there before them
        for store in stores:
            store.close_now()


async def test_opening_a_store_alone_does_not_touch_the_name_of_the_log(open_store: OpenStore) -> None:
    attending = open_store()
    attending.attend("one")
    visitor = open_store()  # such as the command line
    await revoke_token(visitor, "jti")
    await visitor.close()
    assert await attending.head() == LogHead("one", 1)


async def test_a_log_gets_a_new_name_from_those_only_who_know_the_old_one(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    store.attend("old")
    await other.renew_log("a guess", "wrong")
    assert (await store.head()).log_id == "old"
    await asyncio.gather(store.renew_log("old", "new"), other.renew_log("old", "newer"))
    (name,) = {(await store.head()).log_id, (await other.head()).log_id}
    assert name in {"new", "newer"}


async def test_waiting_ends_soon_when_another_store_writes_to_the_log(open_store: OpenStore) -> None:
    reader, writer = open_store(), open_store()
    for n in range(3):
        await settle(reader)
        waiting = asyncio.ensure_future(reader.wait_changed(30))
        await asyncio.sleep(0)
        began = time.monotonic()
        await revoke_token(writer, f"jti-{n}")
        await waiting
        assert time.monotonic() - began < 5  # typically within 60 ms; 30 s if nobody was told
        assert (await reader.head()).seq == n + 1


async def test_waiting_ends_at_the_latest_when_its_time_is_over(open_store: OpenStore) -> None:
    reader = open_store()
    await settle(reader)
    began = time.monotonic()
    await reader.wait_changed(0.4)
    assert 0.35 < time.monotonic() - began < 5


async def test_what_was_written_between_two_waits_is_told_by_the_second(open_store: OpenStore) -> None:
    reader, writer = open_store(), open_store()
    await settle(reader)
    await revoke_token(writer, "jti")
    began = time.monotonic()
    await reader.wait_changed(30)
    assert time.monotonic() - began < 5


async def test_who_follows_the_log_misses_nothing_whoever_commits_when(
    open_store: OpenStore, new_account: NewAccount, new_family: NewFamily
) -> None:
    """Numbers are given in the order of commits: whoever has seen one will never find a smaller one later."""
    stores = [open_store(), open_store()]
    follower = open_store()
    accounts = [new_account() for _ in range(8)]
    await asyncio.gather(*(stores[0].add_account(account) for account in accounts))
    families = [new_family(account) for account in accounts for _ in range(5)]
    await asyncio.gather(*(stores[0].add_family(family, expected_hash=PASSWORD_HASH) for family in families))
    followed: list[LogEntry] = []
    over = False

    async def follow() -> None:
        while True:
            last_look = over
            followed.extend(await follower.revocations_after(followed[-1].seq if followed else 0))
            if last_look:
                return

    def mixed(n: int) -> Coroutine[None, None, object]:
        store = stores[n % 2]
        match n % 5:
            case 0:
                return store.revoke(Target("account", accounts[n // 5].id), clock=lambda: 1_100, until_s=360)
            case 1:
                return store.end_family(families[n].id, now=1_100, until_s=360)
            case 2:
                return store.revoke(Target("client", f"client-{n}"), clock=lambda: 1_100, until_s=360)
            case _:
                return store.revoke(Target("token", f"jti-{n}"), clock=lambda: 1_100, until_s=360)

    following = asyncio.ensure_future(follow())
    await asyncio.gather(*(mixed(n) for n in range(40)))
    over = True
    await following
    log = await stores[0].revocations_after(0)
    assert followed == log
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    assert {entry.id for entry in log if entry.kind == "session"} == {family.sid for family in families}
