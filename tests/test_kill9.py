"""The real server killed with SIGKILL in the middle of sign-ups and logins: what was confirmed is still there.

"Confirmed" is what a client has read as a success. What was under way may be there or not; nobody was promised it.
"""

import random
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from tests.conftest import SAME_ISSUER, RunningServer, StartServer, log_in, sign_up

CLIENTS = 4


@dataclass
class Confirmed:
    """What the clients have read as a success so far: accounts, and the newest refresh token of each."""

    refresh_tokens: dict[str, str | None] = field(default_factory=dict)
    count: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    faults: list[BaseException] = field(default_factory=list)

    def add(self, email: str, refresh_token: str | None) -> None:
        self.refresh_tokens[email] = refresh_token  # each address belongs to one client: no lock is needed
        self.count.release()


def come_and_go(server: RunningServer, name: str, confirmed: Confirmed) -> None:
    """One client: signs up, logs in and refreshes, over and over, until the server is gone."""
    with server.client() as client:
        try:
            for visit in range(10_000):
                email = f"{name}-{visit}@kill.test"
                sign_up(client, email)
                confirmed.add(email, None)
                token = log_in(client, email)["refresh_token"]
                confirmed.add(email, token)
                for _ in range(2):
                    token = refresh(client, token)
                    confirmed.add(email, token)
        except httpx2.TransportError:
            return
        except BaseException as fault:  # noqa: BLE001 - a failed assertion in a thread is told by the test
            confirmed.faults.append(fault)
            confirmed.count.release(1000)


def refresh(client: httpx2.Client, token: str) -> str:
    answer = client.post("/v1/refresh", json={"refresh_token": token})
    assert answer.status_code == 200, answer.text
    successor: str = answer.json()["refresh_token"]
    return successor


def kill_in_the_middle(server: RunningServer, name: str, after: int) -> Confirmed:
    """Lets the clients come, and kills every process of the server once `after` successes were read."""
    confirmed = Confirmed()
    clients = [
        threading.Thread(target=come_and_go, args=(server, f"{name}-{number}", confirmed)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for _ in range(after):
        assert confirmed.count.acquire(timeout=60), server.output
    server.kill()
    for client in clients:
        client.join(60)
    assert confirmed.faults == []
    return confirmed


def check_all_is_there(server: RunningServer, confirmed: dict[str, str | None]) -> None:
    """Each account logs in; each refresh token works. Keeps the successors for the next look."""
    with server.client() as client:
        for email, token in confirmed.items():
            log_in(client, email)
            if token is not None:
                confirmed[email] = refresh(client, token)


def play(start_server: StartServer, data_dir: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it decides when to kill, nothing secret
    kept: dict[str, str | None] = {}
    server = start_server("serve", data_dir=data_dir, env=SAME_ISSUER)
    for number in range(rounds):
        lately = kill_in_the_middle(server, f"round{number}", after=chance.randint(5, 20)).refresh_tokens
        with closing(sqlite3.connect(data_dir / "jotgate.sqlite3")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        server = start_server("serve", data_dir=data_dir, env=SAME_ISSUER)
        check_all_is_there(server, lately)
        kept |= lately
    check_all_is_there(server, kept)
    assert server.stop() == 0


def test_no_confirmed_account_or_refresh_token_is_lost_by_kill_9(start_server: StartServer, tmp_path: Path) -> None:
    play(start_server, tmp_path / "data", rounds=3, seed=9)


@pytest.mark.soak
def test_no_confirmed_account_or_refresh_token_is_lost_by_many_kills(start_server: StartServer, tmp_path: Path) -> None:
    play(start_server, tmp_path / "data", rounds=40, seed=99)
