"""Guesses at one account: they wait longer and longer, from wherever they come, and its owner does not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotgate.server import Settings, create_app
from jotgate.server.flows.deps import PublicAccount
from jotgate.server.http.askers import device_cookie_name
from jotgate.server.limits import Backoff
from jotgate.server.secret import Secret
from jotgate.throttle import MemoryStore
from tests.server.http.support import BROWSER, EMAIL, PASSWORD, Api, Clock, client_of, code
from tests.services import RedisServer

WRONG: Final = {"email": EMAIL, "password": "not the right password", "delivery": "body"}
RIGHT: Final = {"email": EMAIL, "password": PASSWORD, "delivery": "body"}
OTHER: Final = "eve@example.com"
Start = Callable[..., Awaitable[Api]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers on one database, each on its own clock."""
    async with AsyncExitStack() as stack:

        async def one(clock: Clock | None = None, **changes: object) -> Api:
            settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1)
            settings = msgspec.structs.replace(settings, **changes)
            clock = clock or Clock()
            app = create_app(settings, clock=clock)
            await stack.enter_async_context(app.lifespan())
            return Api(app, await stack.enter_async_context(client_of(app)), clock, settings)

        yield one


def waits(answer: httpx2.Response, name: str = "account") -> int:
    """Check the form of a refusal; gives the seconds to wait."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["violated-policies"] == [name]
    wait_s = int(answer.headers["retry-after"])
    assert answer.headers["ratelimit"] == f'"{name}";r=0;t={wait_s}'
    return wait_s


async def from_elsewhere(api: Api, n: int, body: dict[str, str] = WRONG) -> httpx2.Response:
    """Ask as somebody at another address."""
    async with client_of(api.app, peer=f"198.51.100.{n % 250}") as http:
        return await http.post("/v1/login", json=body)


async def attack(api: Api) -> None:
    """Guess until even the longest wait is due."""
    for n in range(100):
        answer = await from_elsewhere(api, n)
        if answer.status_code == 429:
            api.clock.now += waits(answer)
            if waits_for(answer) == api.settings.backoff_max_s:
                break
    for n in range(10):
        await from_elsewhere(api, n)


def waits_for(answer: httpx2.Response) -> int:
    return int(answer.headers["retry-after"])


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.com"])
async def test_guesses_from_many_addresses_wait_twice_as_long_each_time(start: Start, email: str) -> None:
    """An address without an account waits as one that has one: nobody learns from it which there are."""
    api = await start(backoff_max_s=16)
    await api.signup()
    begun = api.clock.now
    let_in: list[int] = []
    for n in range(200):
        answer = await from_elsewhere(api, n, WRONG | {"email": email})
        if answer.status_code == 401:
            let_in.append(api.clock.now - begun)
        else:
            api.clock.now += waits(answer)
    assert let_in[:10] == [0, 0, 0, 0, 0, 1, 2, 4, 8, 16]
    assert {later - sooner for sooner, later in pairwise(let_in[9:])} == {16}


async def test_all_writings_of_an_address_are_one_account(start: Start) -> None:
    api = await start()
    for n, email in enumerate(("ADA@example.com", "ada@EXAMPLE.com", "aDa@example.com", "ada@example.com", EMAIL)):
        assert (await from_elsewhere(api, n, WRONG | {"email": email})).status_code == 401
    waits(await from_elsewhere(api, 9, WRONG | {"email": "Ada@Example.com"}))


async def test_another_account_does_not_wait(start: Start) -> None:
    api = await start()
    await api.signup(OTHER)
    await attack(api)
    waits(await from_elsewhere(api, 1))
    assert (await from_elsewhere(api, 1, RIGHT | {"email": OTHER})).status_code == 200


async def test_whoever_shows_a_device_has_known_and_unknown_addresses_looked_up_once(start: Start) -> None:
    """A second look at the database for one of the two could be told by its time."""
    api = await start()
    await api.signup()
    own = (await api.login())["device_token"]
    store, looks = api.app.start().store, []
    look_up = store.account_by_email

    async def counted(email: str) -> object:
        looks.append(email)
        return await look_up(email)

    store.account_by_email = counted  # type: ignore[method-assign, assignment] # it does what it did, and is counted
    for email in (EMAIL, OTHER):
        assert (await from_elsewhere(api, 1, WRONG | {"email": email, "device_token": own})).status_code == 401
    assert looks == [EMAIL, OTHER]


async def test_a_header_that_stands_there_twice_makes_no_refusal_an_error(start: Start) -> None:
    api = await start(limit_logins="1/minute")
    twice = [("user-agent", "one"), ("user-agent", "two")]
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api.app), base_url=api.settings.issuer, headers=[("accept", "*/*")]
    ) as http:
        for expected in (401, 429):
            answer = await http.post("/v1/login", json=WRONG, headers=twice)
            assert answer.status_code == expected


async def test_nothing_is_hashed_for_who_has_to_wait(start: Start) -> None:
    api = await start()
    await attack(api)
    api.app.start().passwords.close()  # whoever gets as far as there is told that the server is stopping
    waits(await from_elsewhere(api, 1))
    assert code(await from_elsewhere(api, 1, WRONG | {"email": OTHER})) == (503, "busy")


async def test_an_attack_does_not_lock_the_owner_out_of_a_browser_that_was_logged_in_before(start: Start) -> None:
    api = await start()
    await api.signup()
    await api.browser_login()
    await attack(api)
    waits(await from_elsewhere(api, 1, RIGHT))  # with the right password even
    await api.browser_login()


async def test_nor_does_an_attack_from_their_own_address(start: Start) -> None:
    api = await start(limit_logins="3/minute", guesses_before_backoff=100)
    await api.signup()
    await api.browser_login()
    for _ in range(4):
        async with client_of(api.app) as other:
            answer = await other.post("/v1/login", json=WRONG | {"email": OTHER})
    waits(answer, "logins")
    await api.browser_login()


async def test_a_program_keeps_the_device_token_and_shows_it(start: Start) -> None:
    api = await start()
    await api.signup()
    token = (await api.login())["device_token"]
    assert "device_token" not in (await api.refresh((await api.login())["refresh_token"])).json()
    await attack(api)
    waits(await from_elsewhere(api, 1, RIGHT))
    assert (await from_elsewhere(api, 1, RIGHT | {"device_token": token})).status_code == 200
    waits(await from_elsewhere(api, 1, RIGHT | {"device_token": token[:-1] + "A" if token[-1] != "A" else token[:-1]}))


async def test_a_known_device_guesses_no_more_than_its_own_allowance(start: Start) -> None:
    """A stolen device token is no way around the back-off for long."""
    api = await start(limit_device="3/hour")
    await api.signup()
    token = (await api.login())["device_token"]
    await attack(api)
    guess = WRONG | {"device_token": token}
    for _ in range(3):
        assert (await from_elsewhere(api, 1, guess)).status_code == 401
    waits(await from_elsewhere(api, 1, guess))
    waits(await from_elsewhere(api, 1, RIGHT | {"device_token": token}))
    api.clock.now += 1200
    await attack(api)
    assert (await from_elsewhere(api, 1, RIGHT | {"device_token": token})).status_code == 200


async def test_a_device_of_one_account_is_a_stranger_to_another(start: Start) -> None:
    api = await start(limit_logins="3/minute", limit_device="1000/hour", guesses_before_backoff=100)
    await api.signup()
    await api.signup(OTHER)
    await api.browser_login()  # as ada, from this browser
    guess = {"email": OTHER, "password": "not the right password"}
    answers = [(await api.post("/v1/login", guess, headers=BROWSER)).status_code for _ in range(4)]
    assert answers == [401, 401, 401, 429]


async def test_device_tokens_of_ones_own_account_free_nobody_from_the_limit_of_their_address(start: Start) -> None:
    api = await start(limit_logins="3/minute", guesses_before_backoff=100)
    await api.signup(OTHER)
    answers = []
    for own in [(await api.login(OTHER))["device_token"] for _ in range(4)]:
        headers = BROWSER | {"cookie": f"{device_cookie_name(api.settings.issuer)}={own}"}
        guess = {"email": EMAIL, "password": "not the right password"}
        answers.append((await api.post("/v1/login", guess, headers=headers)).status_code)
    assert answers == [401, 401, 401, 429]


async def test_people_who_share_a_browser_are_all_known_to_it(start: Start) -> None:
    api = await start(backoff_max_s=4)
    people = [f"person{n}@example.com" for n in range(5)]
    for email in people:
        await api.signup(email)
        answer = await api.post("/v1/login", {"email": email, "password": PASSWORD}, headers=BROWSER)
        assert answer.status_code == 200
    kept = api.http.cookies[device_cookie_name(api.settings.issuer)].split(".")
    assert len(kept) == 4  # and no more, however many log in
    for n, email in enumerate(people):
        for guess in range(8):
            await from_elsewhere(api, guess, WRONG | {"email": email})
        answer = await api.post("/v1/login", {"email": email, "password": PASSWORD}, headers=BROWSER)
        assert answer.status_code == (429 if n == 0 else 200)


@pytest.mark.parametrize("value", ["", ".", "jgd_", "x" * 4000, ".".join(["jgd_" + "A" * 104] * 50), "\xff"])
async def test_whatever_stands_in_the_device_cookie_is_no_error(start: Start, value: str) -> None:
    api = await start()
    await api.signup()
    cookie = f"{device_cookie_name(api.settings.issuer)}={value}".encode("latin-1")
    marks = [(name.encode(), text.encode()) for name, text in BROWSER.items()]
    answer = await api.http.post(
        "/v1/login",
        json={"email": EMAIL, "password": PASSWORD},
        headers=[*marks, (b"cookie", cookie), (b"cookie", cookie)],
    )
    assert answer.status_code == 200


async def test_a_revoked_device_key_makes_every_device_a_stranger_and_no_login_fails(start: Start) -> None:
    api = await start()
    await api.signup()
    token = (await api.login())["device_token"]
    ring = api.app.start().keys
    kid = next(row.kid for row in ring.rows() if row.purpose == "device" and row.activated_at is not None)
    ring.revoke(kid)
    ring.reload()
    await attack(api)
    waits(await from_elsewhere(api, 1, RIGHT | {"device_token": token}))
    api.clock.now += 5000
    assert (await from_elsewhere(api, 1, RIGHT | {"device_token": token})).json()["device_token"] != token


async def test_who_knows_the_password_uses_up_nothing(start: Start) -> None:
    api = await start(limit_strangers="3/hour", limit_signups="1000/minute")
    await api.signup()
    for _ in range(10):
        await api.login()


async def test_who_was_not_answered_has_not_guessed(start: Start) -> None:
    api = await start(limit_logins="5/minute")
    await api.signup()
    store = api.app.start().store
    store.close_now()
    for _ in range(10):
        assert code(await api.post("/v1/login", WRONG)) == (503, "unavailable")
    store.open()
    await api.login()


async def test_when_no_more_can_be_hashed_the_body_is_not_even_read_and_a_quarter_is_left_for_known_devices(
    start: Start,
) -> None:
    api = await start()
    await api.signup()
    await api.browser_login()
    passwords, done = api.app.start().passwords, threading.Event()
    waiting = [asyncio.ensure_future(passwords._run(done.wait)) for _ in range(48)]
    await asyncio.sleep(0)
    device = {"cookie": "; ".join(f"{name}={value}" for name, value in api.http.cookies.items() if "device" in name)}
    api.http.cookies.clear()
    for path in ("/v1/login", "/v1/signup"):
        answer = await api.http.post(path, content=b"x" * 100_000)
        assert code(answer) == (503, "busy")
        assert answer.headers["retry-after"] == "1"
    # Whoever shows a device of another account gets no further.
    other = {"email": OTHER, "password": PASSWORD}
    assert code(await api.post("/v1/login", other, headers=BROWSER | device)) == (503, "busy")
    known = asyncio.ensure_future(
        api.post("/v1/login", {"email": EMAIL, "password": PASSWORD}, headers=BROWSER | device)
    )
    async with asyncio.timeout(15):
        while True:
            if passwords.busy_with == 49:
                break
            await asyncio.sleep(0.001)
    waiting += [asyncio.ensure_future(passwords._run(done.wait)) for _ in range(16)]
    await asyncio.sleep(0)
    for path in ("/v1/login", "/v1/password"):
        assert code(await api.http.post(path, content=b"x" * 100_000, headers=device)) == (503, "busy")
    for _ in range(40):  # nor is it counted: whoever comes back later is let in
        assert code(await api.post("/v1/login", RIGHT)) == (503, "busy")
    done.set()
    assert (await known).status_code == 200
    await asyncio.gather(*waiting)
    api.http.cookies.clear()
    await api.login()
    await asyncio.gather(*waiting)


async def test_strangers_together_have_a_limit_and_known_devices_are_none(start: Start) -> None:
    api = await start(limit_strangers="10/hour", limit_signups="1000/minute")
    await api.signup()
    token = (await api.login())["device_token"]
    for n in range(10):
        assert (await from_elsewhere(api, n, WRONG | {"email": f"person{n}@example.com"})).status_code == 401
    waits(await from_elsewhere(api, 99, WRONG | {"email": OTHER}), "strangers")
    # Who signs up is counted apart, and only when a password is about to be hashed.
    for n in range(30):
        async with client_of(api.app, peer=f"198.51.100.{n}") as http:
            assert (await http.post("/v1/signup", content=b"x")).status_code == 415
    for n in range(9):
        await api.signup(f"other{n}@example.com")
    waits(await api.signup(OTHER), "strangers")
    assert (await from_elsewhere(api, 1, RIGHT | {"device_token": token})).status_code == 200


async def test_everybody_together_has_a_limit_and_so_has_a_client(start: Start) -> None:
    api = await start(limit_global="4/minute", limit_client="2/minute")
    for n in range(2):
        assert (await from_elsewhere(api, n, WRONG | {"email": f"person{n}@example.com"})).status_code == 401
    waits(await from_elsewhere(api, 3, WRONG | {"email": OTHER}), "client")
    for n in range(2):
        async with client_of(api.app, peer=f"198.51.100.{n}") as http:
            answer = await http.get("/v1/account")
            assert answer.status_code == 401
            # How much others ask is nobody's business.
            assert answer.headers["ratelimit-policy"] == '"requests";q=1200;w=60'
    async with client_of(api.app, peer="198.51.100.9") as http:
        waits(await http.get("/v1/account"), "global")


async def test_an_account_begins_no_more_sessions_than_its_limit(start: Start) -> None:
    api = await start(limit_sessions="3/hour")
    await api.signup()
    await api.signup(OTHER)
    for _ in range(3):
        await api.login()
    waits(await from_elsewhere(api, 1, RIGHT), "sessions")
    await api.login(OTHER)


async def test_a_failure_of_the_database_uses_up_no_session(start: Start) -> None:
    api = await start(limit_sessions="3/hour")
    await api.signup()
    store = api.app.start().store
    for _ in range(10):
        store.close_now()
        assert code(await api.post("/v1/login", RIGHT)) == (503, "unavailable")
    store.open()
    await api.login()


async def test_who_changes_a_password_to_and_fro_has_no_more_hashed_than_who_logs_in(start: Start) -> None:
    api = await start(limit_sessions="5/hour")
    await api.signup()
    session, passwords = (await api.login())["refresh_token"], [PASSWORD, "another correct horse"]
    answers = []
    for _ in range(10):
        body = {"refresh_token": session, "current_password": passwords[0], "new_password": passwords[1]}
        answer = await api.post("/v1/password", body)
        answers.append(answer.status_code)
        if answer.status_code == 200:
            session, passwords = answer.json()["refresh_token"], passwords[::-1]
    assert answers == [200] * 4 + [429] * 6
    # One that does not change costs as much.
    body = {"refresh_token": session, "current_password": passwords[0], "new_password": passwords[0]}
    waits(await api.post("/v1/password", body), "sessions")


async def test_all_devices_of_an_account_together_guess_no_more_than_three(start: Start) -> None:
    """Whoever knew the password once may have logged in with many; and one that logs in again is no new one."""
    api = await start(limit_device="3/hour")
    await api.signup()
    tokens = [(await api.login())["device_token"] for _ in range(20)]
    await attack(api)
    answers = [
        (await from_elsewhere(api, n, WRONG | {"device_token": token})).status_code
        for n, token in enumerate(tokens)
        for _ in range(2)
    ]
    assert answers.count(401) == 9


async def test_a_new_password_makes_all_devices_strangers_but_the_one_that_it_was_set_with(start: Start) -> None:
    """Whoever knew the old one may have logged in with many."""
    api = await start()
    await api.signup()
    stolen = [(await api.login())["device_token"] for _ in range(3)]
    session, new = (await api.login())["refresh_token"], "another correct horse"
    change = {"refresh_token": session, "current_password": PASSWORD, "new_password": new}
    own = (await api.post("/v1/password", change)).json()["device_token"]
    await attack(api)
    for n, token in enumerate(stolen):
        waits(await from_elsewhere(api, n, WRONG | {"device_token": token}))
    right = {"email": EMAIL, "password": new, "delivery": "body"}
    assert (await from_elsewhere(api, 1, right | {"device_token": own})).status_code == 200


async def test_a_browser_that_changes_the_password_stays_known(start: Start) -> None:
    api = await start()
    await api.signup()
    await api.browser_login()
    new = "another correct horse"
    change = {"current_password": PASSWORD, "new_password": new}
    assert (await api.post("/v1/password", change, headers=BROWSER)).status_code == 200
    await attack(api)
    answer = await api.post("/v1/login", {"email": EMAIL, "password": new}, headers=BROWSER)
    assert answer.status_code == 200


async def test_a_hook_that_fails_makes_no_guess_of_a_right_password(tmp_path: Path) -> None:
    broken = True

    def claims_for(account: PublicAccount) -> dict[str, object]:
        if broken:
            raise RuntimeError("the claims are away")
        return {}

    settings = Settings(signup="open", data_dir=tmp_path / "data", hash_workers=1, limit_logins="5/hour")
    app = create_app(settings, clock=Clock(), claims_for=claims_for)
    async with app.lifespan(), client_of(app) as http:
        api = Api(app, http, Clock(), settings)
        await api.signup()
        for _ in range(10):
            assert (await api.post("/v1/login", RIGHT)).status_code == 500
        broken = False
        await api.login()


async def test_who_logs_in_again_is_the_same_device(start: Start) -> None:
    api = await start()
    await api.signup()
    made = api.app.start().keys.now.device_tokens
    assert made is not None
    first = (await api.login())["device_token"]
    second = (await api.post("/v1/login", RIGHT | {"device_token": first})).json()["device_token"]
    read = [made.read(raw, now=api.clock.now) for raw in (first, second)]
    assert None not in read
    assert len({each.id for each in read if each is not None}) == 1


async def test_beside_an_attack_from_one_address_others_have_their_turn(start: Start) -> None:
    api = await start(backoff_max_s=4, limit_logins="1000/minute")
    await api.signup()
    let_in = 0
    for _ in range(300):  # an attacker who asks every second, from one address
        api.clock.now += 1
        let_in += (await from_elsewhere(api, 1)).status_code == 401
    assert let_in <= 5 + 3 + 300 / (8 * 4) + 1
    waited = 0
    while (await from_elsewhere(api, 2, RIGHT)).status_code != 200:
        waited += 1
        api.clock.now += 1
        await from_elsewhere(api, 1)
        assert waited <= 2 * 4


async def test_guesses_by_whoever_holds_a_session_are_limited_and_make_the_owner_wait_nowhere_else(
    start: Start,
) -> None:
    api = await start(limit_device="3/hour")
    await api.signup()
    session = (await api.login())["refresh_token"]
    guess = {"refresh_token": session, "current_password": "wrong" * 4, "new_password": "another correct horse"}
    for _ in range(3):
        assert code(await api.post("/v1/password", guess)) == (401, "invalid_credentials")
    waits(await api.post("/v1/password", guess), "device")
    await api.login()


async def test_servers_on_one_redis_know_of_each_others_guesses(
    start: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    shared = {"redis_url": Secret(redis_server.url), "issuer": "https://devices.example.com"}
    one = await start(**shared)
    two = await start(one.clock, **shared)
    # Redis has a clock of its own, which gives back one in a second; no server has heard more than five itself.
    answers = [(await from_elsewhere((one, two)[n % 2], n)).status_code for n in range(10)]
    assert answers[:5] == [401] * 5
    assert 429 in answers


async def test_no_token_of_a_device_and_no_guess_stands_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "jotgate")
    api = await start()
    await api.signup()
    token = (await api.login())["device_token"]
    await from_elsewhere(api, 1, WRONG | {"device_token": token})
    assert token not in caplog.text
    assert WRONG["password"] not in caplog.text
    assert [json.loads(each.getMessage())["event"] for each in caplog.records][-1] == "login_refused"


@given(st.lists(st.integers(0, 2000), max_size=300), st.integers(1, 8), st.integers(1, 10))
def test_no_more_guesses_than_promised_whenever_they_come(pauses: list[int], free: int, steps: int) -> None:
    """In any stretch of time: those that are free, one for each doubling, and one for each longest wait."""
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    cap_s = 2**steps
    backoff = Backoff(free, cap_s)
    let_in: list[float] = []
    for pause in pauses:
        now += pause / 4
        if store.take_now(backoff.charges("ada", f"address {len(let_in)}")).allowed:
            let_in.append(now)
    for first in range(len(let_in)):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= free + steps + (let_in[last] - let_in[first]) / cap_s + 1e-6
