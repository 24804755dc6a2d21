"""Redis as a bell between replicas: "look now", without saying what there is to see.

Who hears it reads the log, so nothing is lost when Redis is: then the database's own bell and polling remain. A thread
keeps one connection that listens and one that rings, and connects again by itself.
"""

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

import structlog
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry as BlockingRetry

from jotgate.server.log import get_log
from jotgate.server.secret import Secret

_CONNECT_S: Final = 2.0
_CLOSE_S: Final = 10.0
_PING_EVERY_S: Final = 5.0
_DEAD_AFTER_S: Final = 12.0
_AGAIN_S: Final = (0.05, 0.2, 0.5, 1.0)  # how long to wait before the next try to connect

Status = Literal["connected", "away", "stopped"]


class RedisBus:
    """The bell. `wake` is called, from a thread of its own, whenever any replica has rung, this one included.

    It is also called after each connection, because somebody may have rung meanwhile.
    """

    def __init__(self, url: Secret, wake: Callable[[], None], log: structlog.stdlib.BoundLogger | None = None) -> None:
        self._log = log or get_log()
        self._url = url
        self._wake = wake
        # Redis has one space of channels for all its databases.
        self._channel = f"jotgate:{urlsplit(url.reveal()).path.strip('/') or '0'}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped = asyncio.Event()
        self._rung = asyncio.Event()
        self._status: Status = "stopped"
        self._told_away = False

    @property
    def status(self) -> Status:
        """Whether Redis is heard right now."""
        return self._status

    def start(self) -> None:
        """Begin to listen; returns at once, whether Redis is there or not."""
        if self._thread is None:
            self._status = "away"
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="jotgate-redis", daemon=True)
            self._thread.start()

    def tell(self) -> None:
        """Ring for the other replicas, soon. From any thread; never blocks, never raises."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._rung.set)

    def close(self) -> None:
        """Stop listening and end the thread. Blocks for a moment, at the most for some seconds."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(_CLOSE_S)
            self._thread = self._loop = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._keep_connected())
        self._status = "stopped"

    async def _keep_connected(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                await self._serve_one_connection()
                failures = 0
            except Exception as error:  # noqa: BLE001  whatever it is: the next try may do better, and others ring, too
                failures = 0 if self._status == "connected" else failures + 1
                self._note_away(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)]):
                    await self._stopped.wait()

    async def _serve_one_connection(self) -> None:
        redis = Redis.from_url(
            self._url.reveal(),
            client_name="jotgate",
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=_DEAD_AFTER_S,
            retry=Retry(NoBackoff(), 0),
        )
        async with redis, redis.pubsub(ignore_subscribe_messages=True) as heard:
            await heard.subscribe(self._channel)
            self._note_connected()
            tasks = [
                asyncio.ensure_future(work) for work in (self._listen(heard), self._ring(redis), self._stopped.wait())
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what ended it
            finally:
                for task in tasks:
                    task.cancel()
                # A cancellation that comes together with a time-out of the driver's own can get lost.
                await asyncio.wait(tasks, timeout=_CONNECT_S)

    async def _listen(self, heard: PubSub) -> None:
        last = time.monotonic()
        while not self._stopped.is_set():
            message = await heard.get_message(timeout=_PING_EVERY_S)
            if message is not None:
                last = time.monotonic()
                if message["type"] == "message":
                    self._wake()
            elif time.monotonic() - last > _DEAD_AFTER_S:
                raise RedisConnectionError("silent")
            else:
                await heard.ping()

    async def _ring(self, redis: Redis) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()  # before it rings: what comes during that rings again
            try:
                await redis.publish(self._channel, b"")
            except BaseException:
                self._rung.set()  # for the next connection
                raise

    def _note_connected(self) -> None:
        self._status = "connected"
        if self._told_away:
            self._log.info("redis_back")
            self._told_away = False
        self._wake()

    def _note_away(self, error: Exception) -> None:
        self._status = "away"
        if not self._told_away:
            self._log.warning("redis_away", error=type(error).__name__, **_why(error))
            self._told_away = True


def _why(error: BaseException) -> dict[str, str]:
    """What is wrong with its certificate, if that is it: the driver's own words may hold the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return {"reason": f"its certificate is not good: {cause.verify_message}"}
        cause = cause.__cause__ or cause.__context__
    return {}


def fault_of(url: Secret, within_s: float, *, late: str | None) -> str | None:
    """Ask Redis once; None where it answers. Its own words are not repeated: they may hold any. Blocks."""
    with BlockingRedis.from_url(
        url.reveal(), socket_connect_timeout=within_s, socket_timeout=within_s, retry=BlockingRetry(NoBackoff(), 0)
    ) as redis:
        try:
            redis.ping()
        except (AuthenticationError, NoPermissionError):
            return "it refuses this user, password or command"
        except (TimeoutError, RedisTimeout):
            return late
        except (RedisError, OSError, ValueError) as error:
            reason = error.__cause__ or error.__context__ or error
            return f"there is no connection, or who answers is no Redis ({type(reason).__name__})"
    return None
