"""People who log in, refresh and log out all the time, at whichever replica answers, and what was confirmed to them.

Confirmed is what a client has read as a success. Where no answer came, or "try again", the client does what an honest
one does: it asks again with the same token, elsewhere, until it is answered. That must succeed.
"""

from __future__ import annotations

import json
import random
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.conftest import PASSWORD

ANSWERED_WITHIN_S = 40.0  # of the 60 s that a lost answer can be asked for again
_PACE_S = 0.02
_AGAIN_S = 0.1


@dataclass
class Session:
    """One login and what was confirmed of it. Only one client at a time has to do with it."""

    sid: str
    refresh_token: str
    access_token: str
    ended_at: float | None = None
    """When its logout was confirmed, by the monotonic clock."""
    secrets: list[str] = field(default_factory=list)

    def take(self, tokens: Mapping[str, Any]) -> None:
        """Take the tokens of a confirmed refresh."""
        self.refresh_token, self.access_token = tokens["refresh_token"], tokens["access_token"]
        self.secrets += [self.refresh_token, self.access_token.rpartition(".")[2]]


class Unanswered(Exception):
    """Nobody knows whether it was done: the connection was lost, or the server said that it cannot answer just now."""


class Caller:
    """A client that goes to another replica when one does not answer."""

    def __init__(self, clients: Sequence[httpx2.Client], first: int = 0) -> None:
        self._clients = clients
        self._next = first
        self.unanswered = 0

    def ask_once(self, path: str, body: Mapping[str, str]) -> httpx2.Response:
        """Ask the replica whose turn it is. Raises Unanswered."""
        client = self._clients[self._next % len(self._clients)]
        self._next += 1
        try:
            answer = client.post(path, json=body)
        except httpx2.TransportError as fault:
            self.unanswered += 1
            raise Unanswered from fault
        if answer.status_code == 503:
            self.unanswered += 1
            check_unavailable(answer)
            raise Unanswered
        return answer

    def ask(self, path: str, body: Mapping[str, str]) -> httpx2.Response:
        """Ask until somebody answers."""
        deadline = time.monotonic() + ANSWERED_WITHIN_S
        while True:
            try:
                return self.ask_once(path, body)
            except Unanswered:
                assert time.monotonic() < deadline, "nobody answered"
                time.sleep(_AGAIN_S)

    def log_in(self, email: str) -> Session:
        """Log in. Raises Unanswered: nobody has that session then, if it was made at all."""
        answer = self.ask_once("/v1/login", {"email": email, "password": PASSWORD, "delivery": "body"})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        session = Session(sid_of(tokens["access_token"]), tokens["refresh_token"], tokens["access_token"])
        session.take(tokens)
        return session

    def refresh(self, session: Session) -> None:
        answer = self.ask("/v1/refresh", {"refresh_token": session.refresh_token})
        assert answer.status_code == 200, f"a confirmed session was lost: {answer.text}"
        session.take(answer.json())

    def log_out(self, session: Session) -> None:
        answer = self.ask("/v1/logout", {"refresh_token": session.refresh_token})
        assert answer.status_code == 204, answer.text
        session.ended_at = time.monotonic()


def sid_of(access_token: str) -> str:
    """Which session an access token belongs to; its verifiers come later."""
    payload = access_token.split(".")[1]
    sid: str = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]
    return sid


def check_unavailable(answer: httpx2.Response) -> None:
    """A server that cannot answer says so in the documented form, and says when to ask again."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "code", "detail"}
    assert problem["status"] == 503
    assert problem["code"] in {"unavailable", "busy"}


class Load:
    """Clients in threads of their own, from `start` to `stop`."""

    def __init__(self, clients_of: Callable[[], Sequence[httpx2.Client]], emails: Sequence[str], seed: int) -> None:
        self._clients_of = clients_of
        self._emails = emails
        self._seed = seed
        self._stopping = False
        self._changed = threading.Condition()
        self._confirmed = 0
        self._threads: list[threading.Thread] = []
        self._callers: list[Caller] = []
        self._sessions: list[Session] = []
        self._faults: list[BaseException] = []

    def start(self, clients: int = 3) -> None:
        self._threads = [threading.Thread(target=self._come_and_go, args=(number,)) for number in range(clients)]
        for each in self._threads:
            each.start()

    def goes_on(self, more: int = 20) -> None:
        """Return when so many more things have been confirmed: logins, refreshes, logouts."""
        with self._changed:
            goal = self._confirmed + more
            self._changed.wait_for(lambda: self._confirmed >= goal or bool(self._faults), ANSWERED_WITHIN_S)
            assert self._confirmed >= goal, self._faults or "nothing goes on"

    def stop(self) -> list[Session]:
        """Let each client bring to an end what it is about, and return all sessions."""
        self._stopping = True
        for each in self._threads:
            each.join(2 * ANSWERED_WITHIN_S)
        assert self._faults == []
        assert not any(each.is_alive() for each in self._threads)
        return self._sessions

    @property
    def unanswered(self) -> int:
        """How often a client did not learn what came of its question."""
        return sum(caller.unanswered for caller in self._callers)

    def _come_and_go(self, number: int) -> None:
        chance = random.Random(self._seed * 100 + number)  # noqa: S311 - it decides who comes next, nothing secret
        with ExitStack() as stack:
            caller = Caller([stack.enter_context(client) for client in self._clients_of()], first=number)
            self._callers.append(caller)
            try:
                while not self._stopping:
                    self._visit(caller, chance)
            except BaseException as fault:  # noqa: BLE001 - a failed assertion in a thread is told by the test
                with self._changed:
                    self._faults.append(fault)
                    self._changed.notify_all()

    def _visit(self, caller: Caller, chance: random.Random) -> None:
        try:
            session = caller.log_in(chance.choice(self._emails))
        except Unanswered:
            time.sleep(_AGAIN_S)
            return
        self._sessions.append(session)
        self._note()
        for _ in range(chance.randint(1, 4)):
            caller.refresh(session)
            self._note()
        if chance.random() < 0.6:
            caller.log_out(session)
            self._note()

    def _note(self) -> None:
        with self._changed:
            self._confirmed += 1
            self._changed.notify_all()
        time.sleep(_PACE_S)
