"""Any history of logins, refreshes, replays, revocations, clock jumps and restarts, held against a plain model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jotgate import TokenError
from jotgate.core.errors import RequestRefused
from jotgate.server import AuthApp, Settings, create_app
from jotgate.server.flows.auditing import Origin
from jotgate.server.flows.deps import Deps
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.flows.password import change_password
from jotgate.server.flows.revoking import revoke, revoke_account, revoke_session, sessions_of
from jotgate.server.flows.sessions import logout, refresh, session_of
from jotgate.server.flows.signup import signup
from jotgate.server.flows.tokens import TokenPair
from jotgate.server.limits import Asker
from jotgate.server.records import Account, Target
from jotgate.server.refusals import (
    InvalidCredentials,
    InvalidRefreshToken,
    RefreshReused,
    SessionEnded,
    SessionNotFound,
)
from jotgate.server.secret import Secret
from jotgate.server.store.postgres import PostgresStore
from tests.server.http.support import Clock
from tests.server.model import ABSOLUTE_S, ACCESS_S, IDLE_S, Access, Answer, Model, Session
from tests.services import PostgresServer

T = TypeVar("T")
NewSettings = Callable[[], Settings]
Count = Callable[[], None]

MOST_ACCOUNTS: Final = 3
REMEMBERED_ACCESS: Final = 40
LONGEST_JUMP_BACK_S: Final = 3_600  # what revocations are kept for beyond their time (see `live.CLOCK_JUMP_S`)

REFUSALS: Final[dict[type[RequestRefused], Answer]] = {SessionEnded: "ended", RefreshReused: "reused"}

which = st.integers(min_value=0, max_value=1_000)  # of those that there are; the last ones come with the small numbers
backs = st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 16, 17])
waits = st.sampled_from([1, 9, 10, 11, 50, 59, 60, 61, 290, 305, 1_800, 3_599, 3_600, 7_200, 100_000])


async def refused_or(work: Coroutine[Any, Any, T]) -> T | SessionEnded | RefreshReused:
    """The answer, or the refusal that it ended in."""
    try:
        return await work
    except (SessionEnded, RefreshReused) as refusal:
        return refusal


class Sessions(RuleBasedStateMachine):
    """The flows of a real app on a real database, step by step beside the model."""

    def __init__(self, new_settings: NewSettings, count: Count) -> None:
        super().__init__()
        self.count = count
        self.clock = Clock()
        self.latest = self.clock.now
        self.settings = new_settings()
        self.runner = asyncio.Runner()
        self.app: AuthApp
        self.deps: Deps
        self.model = Model()
        self.accounts: list[Account] = []
        self._start()

    def _start(self) -> None:
        self.app = create_app(self.settings, clock=self.clock)
        self.deps = self.app.start()

    def _stop(self) -> None:
        self.runner.run(asyncio.to_thread(self.app.close))

    def teardown(self) -> None:
        try:
            self.everything_is_as_promised()
        finally:
            self._stop()
            self.runner.close()

    @property
    def now(self) -> int:
        return self.clock.now

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def session(self, n: int) -> Session:
        return self.model.sessions[-1 - n % len(self.model.sessions)]

    def remember(self, session: Session, pair: TokenPair) -> None:
        self.model.access.append(Access(pair.access_token.reveal(), session, self.now))
        del self.model.access[:-REMEMBERED_ACCESS]

    def account(self, owner: int) -> Account:
        """The account as it is now: its password may have changed."""
        account = self.run(self.deps.store.account_by_id(self.accounts[owner].id))
        assert account is not None
        return account

    # People

    @initialize()
    def first_account(self) -> None:
        self.sign_up()

    @precondition(lambda self: len(self.accounts) < MOST_ACCOUNTS)
    @rule()
    def sign_up(self) -> None:
        n = len(self.accounts)
        password = f"the password of person {n}"
        self.accounts.append(self.run(signup(self.deps, f"person{n}@example.com", Secret(password), self.now)))
        self.model.passwords.append(password)

    @rule(owner=which)
    def log_in(self, owner: int) -> None:
        owner %= len(self.accounts)
        password = self.model.passwords[owner]
        email = self.accounts[owner].email
        done = self.run(login(self.deps, email, Secret(password), self.now, Origin(), asker=Asker()))
        assert isinstance(done, LoggedIn)
        self.begin(owner, done.tokens)

    def begin(self, owner: int, pair: TokenPair) -> None:
        """A session has begun, with an id that none has had before."""
        _, family = self.run(session_of(self.deps, pair.refresh_token, self.now))
        assert family.sid not in {session.sid for session in self.model.sessions}
        session = Session(family.sid, owner, [pair.refresh_token.reveal()], self.now, self.now)
        self.model.begin(session)
        self.remember(session, pair)

    @rule(owner=which)
    def log_in_with_a_wrong_password(self, owner: int) -> None:
        account = self.accounts[owner % len(self.accounts)]
        wrong = Secret("not the password")
        with pytest.raises(InvalidCredentials):
            self.run(login(self.deps, account.email, wrong, self.now, Origin(), asker=Asker()))

    # Refresh tokens

    def ask(self, session: Session, promised: Answer, work: Coroutine[Any, Any, T]) -> T | None:
        """Present a token of a session; None when that is refused, and in the promised way."""
        answer = self.run(refused_or(work))
        if isinstance(answer, SessionEnded | RefreshReused):
            assert REFUSALS[type(answer)] == promised
            if promised == "reused":
                self.model.end(session)
            return None
        assert promised in ("good", "same")
        return answer

    def present(self, session: Session, back: int) -> None:
        """Exchange the refresh token `back` places before the current one, and see that the answer is the promised."""
        back = min(back, len(session.tokens) - 1)
        promised = session.answer(back, self.now)
        pair = self.ask(session, promised, refresh(self.deps, Secret(session.tokens[-1 - back]), self.now))
        if pair is None:
            return
        token = pair.refresh_token.reveal()
        if promised == "good":
            assert token not in session.tokens
            session.move_on(token, self.now)
        assert token == session.tokens[-1]
        self.remember(session, pair)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, back=backs)
    def refresh(self, n: int, back: int) -> None:
        self.present(self.session(n), back)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, times=st.integers(min_value=2, max_value=18))
    def refresh_often(self, n: int, times: int) -> None:
        for _ in range(times):
            self.present(self.session(n), 0)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, wait_s=st.sampled_from([0, 9, 10, 11, 59, 60, 61]), seen=st.booleans())
    def lose_an_answer_and_ask_again(self, n: int, wait_s: int, seen: bool) -> None:
        session = self.session(n)
        self.present(session, 0)
        if seen:
            self.prove(session, 0)
        self.wait(wait_s)
        self.present(session, 1)
        self.present(session, 0)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, back=backs, callers=st.integers(min_value=2, max_value=6))
    def refresh_at_the_same_time(self, n: int, back: int, callers: int) -> None:
        session = self.session(n)
        back = min(back, len(session.tokens) - 1)
        promised = session.answer(back, self.now)
        token = Secret(session.tokens[-1 - back])

        async def all_at_once() -> list[TokenPair | SessionEnded | RefreshReused]:
            return await asyncio.gather(*(refused_or(refresh(self.deps, token, self.now)) for _ in range(callers)))

        answers = self.run(all_at_once())
        pairs = [answer for answer in answers if isinstance(answer, TokenPair)]
        if promised in ("good", "same"):
            assert len(pairs) == callers
            (current,) = {pair.refresh_token.reveal() for pair in pairs}
            if promised == "good":
                assert current not in session.tokens
                session.move_on(current, self.now)
            assert current == session.tokens[-1]
            self.remember(session, pairs[0])
        else:
            kinds = sorted(REFUSALS[type(each)] for each in answers if not isinstance(each, TokenPair))
            # The first of them finds the reuse, and the session is over for the others.
            assert kinds == ["ended"] * (callers - (promised == "reused")) + ["reused"] * (promised == "reused")
            if promised == "reused":
                self.model.end(session)

    def prove(self, session: Session, back: int) -> bool:
        """Use a refresh token as the session credential; whether it was one."""
        back = min(back, len(session.tokens) - 1)
        promised = session.answer(back, self.now)
        answer = self.ask(session, promised, session_of(self.deps, Secret(session.tokens[-1 - back]), self.now))
        if answer is None:
            return False
        account, family = answer
        assert (account.id, family.sid) == (self.accounts[session.owner].id, session.sid)
        if promised == "good":
            session.see(self.now)
        return True

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, back=backs)
    def prove_the_session(self, n: int, back: int) -> None:
        self.prove(self.session(n), back)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, at=st.integers(min_value=4, max_value=83))
    def present_a_forged_token(self, n: int, at: int) -> None:
        token = self.session(n).tokens[-1]
        forged = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        for use in (refresh, session_of, logout):
            with pytest.raises(InvalidRefreshToken):
                self.run(use(self.deps, Secret(forged), self.now))

    # Ends

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, back=backs)
    def log_out(self, n: int, back: int) -> None:
        session = self.session(n)
        self.run(logout(self.deps, Secret(session.tokens[-1 - min(back, len(session.tokens) - 1)]), self.now))
        self.model.end(session)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, by=which)
    def end_one_of_the_own_sessions(self, n: int, by: int) -> None:
        session, owner = self.session(n), by % len(self.accounts)
        account = self.account(owner)
        if session.owner == owner and session.lives(self.now):
            self.run(revoke_session(self.deps, account, session.sid, self.now))
            self.model.end(session)
        else:
            with pytest.raises(SessionNotFound):
                self.run(revoke_session(self.deps, account, session.sid, self.now))

    @rule(owner=which)
    def log_out_everywhere(self, owner: int) -> None:
        owner %= len(self.accounts)
        self.run(revoke_account(self.deps, self.account(owner)))
        self.model.end_all_of(owner)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which)
    def revoke_a_session(self, n: int) -> None:
        session = self.session(n)
        done = self.run(revoke(self.deps, Target("session", session.sid)))
        assert len(done.entries) == (not session.over)
        self.model.end(session)

    @rule(owner=which)
    def revoke_an_account(self, owner: int) -> None:
        owner %= len(self.accounts)
        done = self.run(revoke(self.deps, Target("account", self.accounts[owner].id)))
        assert len(done.entries) == self.model.end_all_of(owner)

    @rule(what=st.sampled_from([Target("all"), Target("client", "web"), Target("client", "another")]))
    def revoke_everything(self, what: Target) -> None:
        (entry,) = self.run(revoke(self.deps, what)).entries
        assert entry.at == self.now
        if what.id != "another":
            self.model.cut(self.now)

    @precondition(lambda self: self.model.sessions)
    @rule(n=which, right=st.booleans())
    def change_the_password(self, n: int, right: bool) -> None:
        session = self.session(n)
        if not self.prove(session, 0):
            return
        account, family = self.run(session_of(self.deps, Secret(session.tokens[-1]), self.now))
        old = self.model.passwords[session.owner]
        new = old + "!"
        change = change_password(
            self.deps,
            account,
            family,
            current=Secret(old if right else new),
            new=Secret(new),
            now=self.now,
            origin=Origin(),
        )
        if right:
            pair = self.run(change).tokens
            self.model.passwords[session.owner] = new
            self.model.end_all_of(session.owner)
            self.begin(session.owner, pair)
        else:
            with pytest.raises(InvalidCredentials):
                self.run(change)

    # The world

    @rule(wait_s=waits)
    def wait(self, wait_s: int) -> None:
        self.clock.now += wait_s
        self.latest = max(self.latest, self.now)

    @rule(jump_s=st.sampled_from([1, 6, 30, 61, 300, 3_600]))
    def set_the_clock_back(self, jump_s: int) -> None:
        self.clock.now = max(self.now - jump_s, self.latest - LONGEST_JUMP_BACK_S)

    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()

    # What must hold after each step

    @invariant()
    def steps_are_counted(self) -> None:
        self.count()

    @invariant()
    def the_last_access_tokens_are_judged_as_promised(self) -> None:
        for access in self.model.access[-5:]:
            self.check(access)

    @rule()
    def everything_is_as_promised(self) -> None:
        for access in self.model.access:
            self.check(access)
        for owner, account in enumerate(self.accounts):
            shown = self.run(sessions_of(self.deps, account.id, self.now))
            assert [family.sid for family in shown] == self.model.live_sessions(owner, self.now)

    def check(self, access: Access) -> None:
        promised = self.model.judge(access, self.now)
        try:
            claims = self.deps.verifier.verify(access.token)
        except TokenError:
            assert promised is not True
            return
        assert promised is not False
        assert (claims.session_id, claims.subject) == (
            access.session.sid,
            self.accounts[access.session.owner].id,
        )


@contextmanager
def databases(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[NewSettings]:
    """Settings of a new and empty server for each history."""
    count = 0
    made: list[str] = []
    server: PostgresServer | None = None
    template = ""
    if kind == "postgres":
        server = request.getfixturevalue("postgres_server")
        url = server.new_database()
        store = PostgresStore(Secret(url))
        store.open()
        store.close_now()
        template = url.rpartition("/")[2]

    def new() -> Settings:
        nonlocal count
        count += 1
        url = None
        if server is not None:
            if made:
                server.drop_database(made.pop())
            made.append(server.new_database(template=template))
            url = Secret(made[-1])
        return Settings(
            signup="open",
            data_dir=folder / str(count),
            database_url=url,
            hash_workers=1,
            access_token_ttl_s=ACCESS_S,
            session_idle_s=IDLE_S,
            session_absolute_s=ABSOLUTE_S,
            # The story is about sessions: whoever guesses or logs in often is not the one who is looked at.
            guesses_before_backoff=100,
            limit_device="1000000/minute",
            limit_sessions="1000000/minute",
        )

    yield new
    if server is not None:
        for url in made:
            server.drop_database(url)


def play(kind: str, request: pytest.FixtureRequest, folder: Path, *, histories: int, steps: int) -> int:
    """Play so many histories of at most so many steps; how many steps it were."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    with databases(kind, request, folder) as new_settings:

        class Here(Sessions):
            def __init__(self) -> None:
                super().__init__(new_settings, count)

        run_state_machine_as_test(
            Here,
            settings=settings(
                max_examples=histories,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    return counted


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_any_history_of_sessions_is_as_the_model_tells_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert play(kind, request, tmp_path, histories=6, steps=40) >= 120


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_any_of_many_long_histories_is_as_the_model_tells_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    steps = play(kind, request, tmp_path, histories=300, steps=100)
    sys.stdout.write(f"{steps} steps on {kind}\n")  # shown by `pytest -s`
    assert steps >= 20_000
