"""Password hashing: Argon2id with one of OWASP's sets of parameters, bounded, and off the event loop."""

import asyncio
import subprocess
import sys
import threading
from typing import Literal

import pytest
from argon2 import PasswordHasher, extract_parameters, low_level
from argon2.exceptions import HashingError

from jotgate.server.passwords import Passwords
from jotgate.server.refusals import Busy
from jotgate.server.rules.hashing import ARGON2_SETS, Argon2

COSTLY = "$argon2id$v=19$m=102408,t=1,p=1$c29tZXNhbHQxMjM0NTY$" + "A" * 43


async def test_hashes_are_argon2id_with_owasps_parameters_and_a_salt_of_their_own() -> None:
    passwords = Passwords(1)
    first, second = await passwords.hash("a long enough password"), await passwords.hash("a long enough password")
    assert first != second
    parameters = extract_parameters(first)
    assert parameters.type is low_level.Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19_456, 2, 1)
    assert await passwords.verify(first, "a long enough password")
    assert not await passwords.verify(first, "another password")
    passwords.close()


@pytest.mark.parametrize("each", ARGON2_SETS, ids=str)
async def test_hashes_and_the_decoy_have_the_parameters_that_were_chosen(each: Argon2) -> None:
    passwords = Passwords(1, each)
    made = await passwords.hash("a long enough password")
    for stored in (made, passwords._decoy):
        found = extract_parameters(stored)
        assert (found.memory_cost, found.time_cost, found.parallelism) == (each.memory_kib, each.passes, 1)
    assert await passwords.verify(made, "a long enough password")
    assert passwords.is_current(made)
    passwords.close()
    others = [Passwords(1, other) for other in ARGON2_SETS if other != each]
    assert not any(other.is_current(made) for other in others)
    for other in others:
        other.close()


async def test_a_hash_of_another_program_is_checked_with_its_own_parameters() -> None:
    foreign = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4).hash("a long enough password")
    passwords = Passwords(1)
    assert await passwords.verify(foreign, "a long enough password")
    assert not await passwords.verify(foreign, "another password")
    assert not passwords.is_current(foreign)
    passwords.close()


@pytest.mark.parametrize("stored", [COSTLY, "garbage", ""])
async def test_a_stored_hash_that_cannot_be_checked_costs_what_an_unknown_account_does(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = Passwords(1)
    checked: list[str] = []
    verify = passwords._verify

    def watched(password_hash: str, password: str) -> bool:
        checked.append(password_hash)
        return verify(password_hash, password)

    monkeypatch.setattr(passwords, "_verify", watched)
    assert not await passwords.verify(stored, "x" * 20)
    assert checked == [passwords._decoy]
    passwords.close()


async def test_hashing_and_checking_happen_in_the_pools_threads_alone() -> None:
    names: list[str] = []

    class Watched(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            names.append(threading.current_thread().name)
            return super().hash(password, salt=salt)

        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's own name
            names.append(threading.current_thread().name)
            return super().verify(hash, password)

    passwords = Passwords(2)
    passwords._hasher = Watched()
    made = await passwords.hash("a long enough password")
    assert await passwords.verify(made, "a long enough password")
    assert not await passwords.verify(None, "a long enough password")
    assert len(names) == 3
    assert all(name.startswith("jotgate-argon2") for name in names)
    passwords.close()


async def test_no_memory_for_a_hash_is_busy_and_no_fault() -> None:
    class Starved(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            raise HashingError("Memory allocation error")

    passwords = Passwords(1)
    passwords._hasher = Starved()
    with pytest.raises(Busy):
        await passwords.hash("x" * 20)
    passwords.close()


async def test_an_unknown_account_costs_a_hash_with_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(1)
    known = await passwords.hash("a long enough password")
    checked: list[str] = []
    verify = passwords._verify

    def watched(password_hash: str, password: str) -> bool:
        checked.append(password_hash)
        return verify(password_hash, password)

    monkeypatch.setattr(passwords, "_verify", watched)
    assert not await passwords.verify(known, "wrong")
    assert not await passwords.verify(None, "wrong")
    assert [extract_parameters(each) for each in checked] == [extract_parameters(known)] * 2
    assert len(checked[0]) == len(checked[1])
    passwords.close()


async def test_the_loop_turns_while_passwords_are_hashed() -> None:
    passwords = Passwords(1)
    work = asyncio.gather(*(passwords.hash("x" * 20) for _ in range(5)))
    turns = 0
    while not work.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5
    passwords.close()


async def test_a_full_queue_answers_busy_at_once_and_recovers() -> None:
    passwords = Passwords(1)
    gate = threading.Event()
    blocked = [asyncio.ensure_future(passwords._run(lambda: gate.wait(30))) for _ in range(65)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.hash("x" * 20)
    gate.set()
    await asyncio.gather(*blocked)
    assert await passwords.hash("x" * 20)
    passwords.close()


async def test_a_closed_pool_says_busy() -> None:
    passwords = Passwords(1)
    passwords.close()
    with pytest.raises(Busy):
        await passwords.hash("x" * 20)


NO_MEMORY = """
import asyncio, resource, sys
from pathlib import Path
from argon2 import PasswordHasher
from jotgate.server.passwords import Passwords
from jotgate.server.refusals import Busy

async def check() -> None:
    passwords = Passwords(1)
    costly = PasswordHasher(memory_cost=65_536, time_cost=1, parallelism=1).hash("the right password")
    assert await passwords.verify(costly, "the right password")
    assert not await passwords.verify(costly, "a wrong password")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**20, resource.RLIM_INFINITY))
    try:
        await passwords.verify(costly, "the right password")
    except Busy:
        print("busy")

asyncio.run(check())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
def test_without_memory_to_check_it_a_password_is_not_called_wrong() -> None:
    ran = subprocess.run([sys.executable, "-c", NO_MEMORY], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.stdout, ran.stderr) == ("busy\n", "")
