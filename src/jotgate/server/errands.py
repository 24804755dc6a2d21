"""Small work that an answer must not wait for, nor tell of by its time: done on the same event loop, right after it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from jotgate.core.errors import JotgateError

MOST: Final = 64
"""So many at once; what comes then is left out: whoever asks again gets it."""
_AT_THE_END_S: Final = 2.0


class Errands:
    """The errands of one process."""

    def __init__(self, *, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, errand: Callable[[], Awaitable[None]]) -> None:
        """Have it done soon; whatever comes of it, nobody here is told but the log."""
        if len(self._tasks) < MOST:
            task = asyncio.get_running_loop().create_task(self._run(errand))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, errand: Callable[[], Awaitable[None]]) -> None:
        try:
            await errand()
        except JotgateError as error:
            self._log.warning("errand_failed", code=error.code)

    async def aclose(self) -> None:
        """Wait a moment for what is under way."""
        loop = asyncio.get_running_loop()
        tasks = [each for each in self._tasks if each.get_loop() is loop]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_AT_THE_END_S)
            for task in late:
                task.cancel()
