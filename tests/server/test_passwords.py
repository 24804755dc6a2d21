"""Password hashing: Argon2id with OWASP's parameters, bounded, and off the event loop."""

import asyncio
import threading

import pytest
from argon2 import extract_parameters, low_level

from jotgate.server.passwords import Passwords
from jotgate.server.refusals import Busy


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


async def test_a_row_that_is_no_hash_fits_no_password() -> None:
    passwords = Passwords(1)
    assert not await passwords.verify("garbage", "x" * 20)
    passwords.close()
