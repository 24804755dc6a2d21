"""Two replicas under load while PostgreSQL, Redis, a replica or both fail: nothing confirmed is lost or late."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest

from jotgate import KeySourceError, TokenExpired, TokenRevoked, Verifier
from tests.conftest import Need
from tests.faults.ears import WITHIN_S, NearEar
from tests.faults.load import Load, Session
from tests.faults.replicas import TOKEN_LIFE_S, Outage, Replicas, check_logs, check_nothing_is_lost, run_replicas
from tests.services import PostgresServer, run_postgres, run_redis

LEEWAY_S = 5
STALENESS_S = 6.0  # a heartbeat comes every 5 s


@pytest.fixture(scope="module")
def replicas(postgres_program: str, need: Need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with (
        run_postgres(postgres_program, fsync=True) as postgres,
        run_redis(need("redis-server")) as redis,
        run_replicas(postgres, redis, tmp_path_factory.mktemp("faults")) as running,
    ):
        yield running


@pytest.fixture
def load(replicas: Replicas) -> Iterator[Load]:
    """People who come and go while the test lasts."""
    load = Load(replicas.clients, replicas.emails, seed=1)
    load.start()
    try:
        load.goes_on()
        yield load
    finally:
        load.stop()


def check(replicas: Replicas, load: Load, outage: Outage | None = None) -> list[Session]:
    """Let people go on for a while, and look at everything that was confirmed to them."""
    load.goes_on()
    sessions = load.stop()
    check_nothing_is_lost(replicas, sessions, outage)
    check_logs(replicas, sessions)
    return sessions


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# What goes wrong while people come and go: each gives the time from which on everything was there again


def postgres_away(replicas: Replicas, load: Load, end: Callable[[PostgresServer], None]) -> Outage:
    """PostgreSQL is away until people are told so."""
    began, told = time.monotonic(), load.unanswered
    end(replicas.postgres)
    eventually(lambda: load.unanswered > told)
    replicas.postgres.start()
    load.goes_on(1)
    return Outage(began, time.monotonic())


def postgres_stopped(replicas: Replicas, load: Load) -> Outage:
    """In an orderly way, as for an update."""
    return postgres_away(replicas, load, PostgresServer.stop)


def postgres_crashed(replicas: Replicas, load: Load) -> Outage:
    """It recovers from its write-ahead log when it is started."""
    return postgres_away(replicas, load, PostgresServer.crash)


def connection_crashed(replicas: Replicas, load: Load) -> Outage:
    """The process of one connection is killed: PostgreSQL ends all others, too, and recovers by itself."""
    said = len(replicas.postgres.said())
    began = time.monotonic()
    replicas.postgres.crash_one_connection(replicas.database_url.rpartition("/")[2])
    eventually(lambda: "database system is ready" in replicas.postgres.said()[said:])
    load.goes_on(1)
    return Outage(began, time.monotonic())


def replica_killed(replicas: Replicas, load: Load, number: int) -> Outage:
    """One replica is killed and started again; those who do not follow it are not concerned."""
    first, second = (ear.verifier for ear in replicas.ears if isinstance(ear, NearEar))
    concerned, other = (first, second) if number == 0 else (second, first)
    began, told = time.monotonic(), load.unanswered
    replicas.kill(number)
    load.goes_on()
    eventually(lambda: not is_following(concerned))
    assert is_following(other)
    assert load.unanswered > told
    replicas.start_again(number)
    eventually(lambda: is_following(concerned))
    return Outage(began, time.monotonic())


def first_replica_killed(replicas: Replicas, load: Load) -> Outage:
    """The one that the verifier in the other process follows, too."""
    return replica_killed(replicas, load, 0)


def second_replica_killed(replicas: Replicas, load: Load) -> Outage:
    """The one that only verifiers in this process follow."""
    return replica_killed(replicas, load, 1)


FAULTS = [postgres_stopped, postgres_crashed, connection_crashed, second_replica_killed]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_confirmed_outlives_it(
    replicas: Replicas, load: Load, fault: Callable[[Replicas, Load], Outage]
) -> None:
    check(replicas, load, fault(replicas, load))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(30))
def test_what_was_confirmed_outlives_many_of_them(replicas: Replicas, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it decides what goes wrong, nothing secret
    load = Load(replicas.clients, replicas.emails, seed)
    load.start(clients=4)
    load.goes_on(chance.randint(1, 100))
    check(replicas, load, chance.choice([*FAULTS, first_replica_killed])(replicas, load))


def test_redis_goes_and_nobody_notices_and_it_comes_back(replicas: Replicas, load: Load) -> None:
    replicas.redis.stop()
    load.goes_on(60)
    replicas.redis.start()
    eventually(lambda: all("redis_back" in server.output for server in replicas.servers))
    check(replicas, load)
    assert load.unanswered == 0


def is_following(verifier: Verifier) -> bool:
    feed = verifier.status().feed
    return feed is not None and feed.last_error is None


def test_a_database_that_is_put_back_to_a_copy_forgets_no_revocation(replicas: Replicas, load: Load) -> None:
    """Also where a new revocation gets the number of one that is gone, so that the log seems as long as before."""
    sessions = load.stop()
    with replicas.caller() as caller:
        alive = [caller.log_in(replicas.emails[0]) for _ in range(4)]
    sessions += alive
    known_logs = {log_id(ear) for ear in replicas.ears if isinstance(ear, NearEar)}
    copy = replicas.postgres.copy_database(replicas.database_url)
    with replicas.caller() as caller:
        caller.log_out(alive[0])  # which the copy does not know
        check_ended_is_heard(replicas, alive[0])
        began = time.monotonic()
        replicas.postgres.put_back(replicas.database_url, copy)
        caller.log_out(alive[1])
    near = [ear for ear in replicas.ears if isinstance(ear, NearEar)]
    eventually(lambda: not known_logs & {log_id(ear) for ear in near})
    check_nothing_is_lost(replicas, sessions, Outage(began, time.monotonic()))
    check_logs(replicas, sessions)
    assert "database_restored" in replicas.logs()


def check_ended_is_heard(replicas: Replicas, session: Session) -> None:
    assert session.ended_at is not None
    assert all(ear.heard_at(session.sid, session.ended_at + WITHIN_S) for ear in replicas.ears)


def log_id(ear: NearEar) -> str | None:
    feed = ear.verifier.status().feed
    return None if feed is None else feed.log_id


def test_silence_of_both_replicas_is_told_by_each_verifier_as_its_policy_says(replicas: Replicas) -> None:
    ahead_s = 0

    def clock() -> int:
        return int(time.time()) + ahead_s

    refusing = replicas.verifier_of(0, on_silence="refuse", max_staleness_s=STALENESS_S, clock=clock)
    accepting = replicas.verifier_of(1, on_silence="accept", max_staleness_s=STALENESS_S, clock=clock)
    with refusing, accepting:
        with replicas.caller() as caller:
            kept, ended = (caller.log_in(replicas.emails[0]) for _ in range(2))
        for verifier in (refusing, accepting):
            verifier.wait_ready(WITHIN_S)
            until_mode(verifier, "stream")
            verifier.verify(kept.access_token)

        replicas.stop()
        refusing.verify(kept.access_token)  # a short outage is none
        replicas.revoke_by_command_line(ended.sid)
        for verifier in (refusing, accepting):
            until_mode(verifier, "silent")
            feed = verifier.status().feed
            assert feed is not None
            assert feed.lag_s is not None
            assert feed.lag_s > STALENESS_S
            assert feed.last_error is not None
        with pytest.raises(KeySourceError):
            refusing.verify(kept.access_token)
        for token in (kept.access_token, ended.access_token):  # neither can know of the revocation, and each says so
            accepting.verify(token)
        ahead_s = TOKEN_LIFE_S + LEEWAY_S
        with pytest.raises(TokenExpired):
            accepting.verify(kept.access_token)
        ahead_s = 0

        replicas.start()
        for verifier in (refusing, accepting):
            until_mode(verifier, "stream")
            verifier.verify(kept.access_token)
            with pytest.raises(TokenRevoked):
                verifier.verify(ended.access_token)
        with replicas.caller() as caller:
            caller.refresh(kept)
        check_logs(replicas, [kept, ended])


def until_mode(verifier: Verifier, wanted: str) -> None:
    def is_so() -> bool:
        feed = verifier.status().feed
        return feed is not None and feed.mode == wanted and (wanted == "silent" or feed.last_error is None)

    eventually(is_so)
