"""Limits for requests: values, decisions, and stores that count in one process or, with Redis, in many.

>>> import asyncio
>>> store = MemoryStore()
>>> logins = parse_limit("2 per minute", name="logins")
>>> [asyncio.run(store.take([Charge(logins, "ada")])).allowed for _ in range(3)]
[True, True, False]

It knows no framework and no HTTP beyond the values of header fields, and does not log. `RedisStore`, which needs the
extra `jotgate[redis]`, and `FallbackStore`, which needs asyncio, are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING

from jotgate.throttle.addresses import address_key
from jotgate.throttle.decisions import Decision, Standing
from jotgate.throttle.fields import header_fields, limit_field, policy_field, problem, retry_after_field
from jotgate.throttle.limits import Charge, InvalidLimit, Limit, parse_limit
from jotgate.throttle.memory import MemoryStore
from jotgate.throttle.store import Store, StoreUnavailable

if TYPE_CHECKING:
    from jotgate.throttle.fallback import FallbackStore
    from jotgate.throttle.redis_store import RedisStore

__all__ = [
    "Charge",
    "Decision",
    "FallbackStore",
    "InvalidLimit",
    "Limit",
    "MemoryStore",
    "RedisStore",
    "Standing",
    "Store",
    "StoreUnavailable",
    "address_key",
    "header_fields",
    "limit_field",
    "parse_limit",
    "policy_field",
    "problem",
    "retry_after_field",
]


def __getattr__(name: str) -> object:
    if name == "FallbackStore":
        from jotgate.throttle.fallback import FallbackStore  # noqa: PLC0415 # see above

        return FallbackStore
    if name == "RedisStore":
        from jotgate.throttle.redis_store import RedisStore  # noqa: PLC0415 # see above

        return RedisStore
    raise AttributeError(f"module 'jotgate.throttle' has no attribute {name!r}")
