"""A process that takes from the allowances of a shared Redis: ``counting URL PREFIX ROUNDS CALLS``; its own program.

In each round it makes its calls as fast as it can, some at once, and writes how many were allowed.
"""

import asyncio
import sys

from jotgate.throttle import Charge, parse_limit
from jotgate.throttle.redis_store import RedisStore

HUNDRED = parse_limit("100 per day", name="hundred")
EVERYBODY = parse_limit("1000000 per day", name="everybody")


async def main(url: str, prefix: str, rounds: int, calls: int) -> None:
    """Connect, wait for a line, then count."""
    store = RedisStore(url, prefix=prefix, timeout_s=30)
    await store.ping()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for number in range(rounds):
        await asyncio.to_thread(sys.stdin.readline)
        charges = [Charge(HUNDRED, f"round {number}"), Charge(EVERYBODY, "")]
        taken = await asyncio.gather(*(store.take(charges) for _ in range(calls)))
        sys.stdout.write(f"{sum(decision.allowed for decision in taken)}\n")
        sys.stdout.flush()
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
