"""Allowances that many processes share, in Redis or Valkey: one script, one round trip, however many limits at once.

The script decides as `decisions` does, and Redis runs it with nothing in between. The clock is Redis's own, so that
replicas need not agree on the time; a clock that is set back is handled as `decisions.drain` says. Keys are digests:
Redis learns neither addresses nor names. Everything expires when it has drained.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from hashlib import blake2b, sha1
from struct import Struct
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from jotgate.throttle.decisions import Decision, standing
from jotgate.throttle.limits import Charge, Limit, check_charges
from jotgate.throttle.store import StoreUnavailable

TIMEOUT_S: Final = 0.1

# Times are microseconds since 1970, which Lua's numbers hold exactly. What is kept of an allowance is two of them: the
# units used, and when. KEYS are the allowances; ARGV is "take" or "refund", and for each key: quota, window in µs,
# burst, cost. The answer is 1 or 0, and for each key the units that were used before, and by how many µs the time that
# they count from is ahead.
SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local refund = ARGV[1] == 'refund'
local taken, answer, after = 1, {}, {}
for i, key in ipairs(KEYS) do
  local quota, window, burst, cost = unpack(ARGV, i * 4 - 2, i * 4 + 1)
  local units, at = 0, now
  local kept = redis.call('GET', key)
  if kept then
    units, at = struct.unpack('>dd', kept)
    if at > now then
      at = math.min(at, now + window)
    else
      units, at = math.max(units - (now - at) * quota / window, 0), now
    end
  end
  answer[i] = struct.pack('>dd', units, at - now)
  if refund then
    units = units - cost
  else
    units = units + cost
    if units - burst > 0.000001 then
      taken = 0
    end
  end
  after[i] = {units, at, units * window / quota + at - now}
end
if taken == 1 then
  for i, key in ipairs(KEYS) do
    local units, at, empty = unpack(after[i])
    if units > 0 then
      redis.call('SET', key, struct.pack('>dd', units, at), 'PX', math.ceil(empty / 1000) + 1000)
    else
      redis.call('DEL', key)
    end
  end
end
return {taken, table.concat(answer)}
"""
_TWO_NUMBERS: Final = Struct(">dd")
_SHA: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
_PROBE: Final = Charge(Limit(quota=1000, window_s=1, name="jotgate probe"), "")


class _Client(NamedTuple):
    """Connections of one event loop, and whose turn it is: the driver's own pool that waits would add a third."""

    redis: Redis
    turns: asyncio.Semaphore
    end: AsyncGenerator[None]


class RedisStore:
    """Counts in Redis. It connects when it is first used, once for each event loop.

    Args:
        url: as redis-py takes it: `redis://`, `rediss://` or `unix://`.
        timeout_s: what one call may take, waiting for a connection and making it included.
        max_connections: to Redis, from each event loop. Further calls wait for one.
        prefix: what all keys begin with. A Redis Cluster wants a hash tag in it (`{limits}:`), because keys that are
            decided upon together must be on one node.
    """

    def __init__(
        self, url: str, *, timeout_s: float = TIMEOUT_S, max_connections: int = 16, prefix: str = "jotgate:limit:"
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._prefix = prefix.encode()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()

    async def take(self, charges: Sequence[Charge]) -> Decision:
        """See `Store.take`."""
        check_charges(charges)
        if not charges:
            return Decision(True, ())
        taken, before = await self._run(b"take", charges)
        return Decision(
            taken,
            tuple(
                standing(charge, units, ahead_us / 1e6, taken=taken)
                for charge, (units, ahead_us) in zip(charges, _TWO_NUMBERS.iter_unpack(before), strict=True)
            ),
        )

    async def refund(self, charges: Sequence[Charge]) -> None:
        """See `Store.refund`."""
        check_charges(charges)
        if charges:
            await self._run(b"refund", charges)

    async def ping(self) -> None:
        """Return if Redis decides: asked as for a decision, because one that is full or read-only answers to less.

        Raises:
            StoreUnavailable: it does not, or not in time.
        """
        await self._run(b"take", (_PROBE,))

    async def aclose(self) -> None:
        """See `Store.aclose`; closes the connections of the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.end.aclose()

    async def _run(self, what: bytes, charges: Sequence[Charge]) -> tuple[bool, bytes]:
        keys: list[bytes] = []
        arguments: list[bytes | int] = [what]
        for charge in charges:
            limit = charge.limit
            text = f"{limit.name}\n{charge.key}".encode("utf-8", "surrogatepass")  # a name has no line end in it
            keys.append(self._prefix + blake2b(text, digest_size=16).hexdigest().encode())
            arguments += (limit.quota, limit.window_s * 1_000_000, limit.burst, charge.cost)
        task = asyncio.current_task()
        cancelled_before = task.cancelling() if task else 0
        try:
            return await self._ask(Redis.evalsha, _SHA, keys, arguments)
        except NoScriptError:  # Redis was restarted, or this is its first time: it keeps the whole text from now on
            return await self._ask(Redis.eval, SCRIPT, keys, arguments)
        finally:
            if task and task.cancelling() > cancelled_before:
                raise asyncio.CancelledError  # the driver may have finished what it had begun, and forgotten this

    async def _ask(
        self,
        how: Callable[..., Awaitable[object]],
        script: str,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
    ) -> tuple[bool, bytes]:
        client = await self._client()
        try:
            async with asyncio.timeout(self._timeout_s), client.turns:
                return _read_answer(await how(client.redis, script, len(keys), *keys, *arguments), len(keys))
        except NoScriptError:
            raise
        except (RedisError, OSError, TimeoutError, ValueError) as fault:  # the last: it is not Redis that answers
            if isinstance(fault, RedisConnectionError):
                # Redis has gone: connections that lie ready have ended with it, which would be noticed one by one.
                with contextlib.suppress(RedisError, OSError):
                    await client.redis.connection_pool.disconnect(inuse_connections=False)
            raise StoreUnavailable("Redis did not answer as it should.") from fault

    async def _client(self) -> _Client:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # Connections know their loop, so that none would ever be collected: each `asyncio.run` would leave some.
            for ended in [each for each in self._clients if each.is_closed()]:
                self._clients.pop(ended, None)
            redis = Redis.from_url(
                self._url,
                socket_connect_timeout=self._timeout_s,
                socket_timeout=self._timeout_s,
                client_name="jotgate-limits",
                retry=Retry(NoBackoff(), 0),
            )
            client = self._clients[loop] = _Client(redis, asyncio.Semaphore(self._max_connections), _ending(redis))
            await anext(client.end)  # it has begun, so that the loop finishes it before it closes
        return client


async def _ending(redis: Redis) -> AsyncGenerator[None]:
    """Close the connections when it is closed, or at the end of its event loop."""
    try:
        yield
    finally:
        with contextlib.suppress(RedisError, OSError):  # one that is silent does not say goodbye, over TLS
            await redis.aclose()


def _read_answer(answer: object, count: int) -> tuple[bool, bytes]:
    """Return whether the charges were taken, and what was used before.

    Raises:
        ValueError: it is not what the script answers with.
    """
    match answer:
        case [(0 | 1) as taken, bytes(before)] if len(before) == count * _TWO_NUMBERS.size:
            return taken == 1, before
    raise ValueError("This is no answer of the script's.")
