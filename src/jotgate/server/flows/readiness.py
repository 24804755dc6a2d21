"""Whether the process can do its work: asked once for all who want to know at the same time. It knows no endpoint.

A limit would be wrong here: where many share one address (behind a proxy, say), whoever uses it up would make the
balancer believe that the server cannot work.
"""

import asyncio
from collections.abc import Callable, Coroutine


class Readiness:
    """Asks the database, however many ask for it, once at a time.

    Args:
        ping: returns if the database takes reads and writes, else raises.
    """

    def __init__(self, ping: Callable[[], Coroutine[None, None, None]]) -> None:
        self._ping = ping
        self._asking: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Return if the database takes reads and writes; whatever the ping raises is raised."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is None or asking.done() or asking.get_loop() is not loop:
            asking = self._asking = loop.create_task(self._ping())
            asking.add_done_callback(_heard)
        await asyncio.wait([asking])  # one who goes away does not take the answer from the others
        asking.result()


def _heard(asking: asyncio.Task[None]) -> None:
    """Take note of how it ended: if everybody has gone meanwhile, asyncio would print a trace."""
    if not asking.cancelled():
        asking.exception()
