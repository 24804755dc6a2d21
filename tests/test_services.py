"""The servers that other tests rely on: what they keep over a restart, and that nobody else is touched."""

import asyncpg
import pytest

from tests.services import PASSWORD, PostgresServer, RedisServer, run_apart


def test_postgres_keeps_what_was_committed_over_a_restart_and_a_crash(own_postgres: PostgresServer) -> None:
    own_postgres.query("CREATE TABLE kept (n int)")
    for n, end in enumerate([own_postgres.stop, own_postgres.crash]):
        own_postgres.query("INSERT INTO kept VALUES ($1)", n)
        end()
        with pytest.raises(OSError, match="Connect call failed"):
            own_postgres.query("SELECT 1")
        own_postgres.start()
        assert [row["n"] for row in own_postgres.query("SELECT n FROM kept ORDER BY n")] == list(range(n + 1))
    assert own_postgres.query("SHOW fsync")[0]["fsync"] == "on"


def test_each_database_is_of_one_test_alone(postgres_server: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.query("CREATE TABLE mine (n int)", database=name)
    other = postgres_server.new_database().rpartition("/")[2]
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_server.query(tables, database=name)[0]["count"] == 1
    assert postgres_server.query(tables, database=other)[0]["count"] == 0
    postgres_server.drop_database(other)


def test_one_role_needs_the_right_password(postgres_server: PostgresServer) -> None:
    async def log_in(password: str) -> None:
        connection = await asyncpg.connect(postgres_server.url_of("postgres", user="strict"), password=password)
        await connection.close()

    run_apart(lambda: log_in(PASSWORD))
    with pytest.raises(asyncpg.InvalidPasswordError):
        run_apart(lambda: log_in("wrong"))


def test_redis_comes_back_on_the_same_port(own_redis: RedisServer) -> None:
    url, pid = own_redis.url, own_redis.pid
    own_redis.restart()
    assert own_redis.url == url
    assert own_redis.pid != pid
