"""Which processes use a database file right now: a lock that all of them share, and that ends with each of them.

Knows a lock file beside the database; knows no SQL. Where the system has no such locks, everybody counts as alone.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final, Self

if sys.platform != "win32":
    import fcntl


_LOOK_EVERY_S: Final = 0.02


class Attendance:
    """This process's share of the lock, for as long as it uses the database."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def begin(cls, database: Path, *, wait_s: float) -> tuple[Self, bool]:
        """Take part, and say whether nobody else does; others who begin wait until `let_others_in`, or for `wait_s`.

        Raises:
            TimeoutError: whoever was alone does not let others in.
            OSError: the lock file cannot be used.
        """
        path = database.with_name(database.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if sys.platform == "win32":
            return cls(descriptor), True
        try:
            if _has(descriptor, fcntl.LOCK_EX):
                return cls(descriptor), True
            _share(descriptor, wait_s)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor), False

    def let_others_in(self) -> None:
        """Share the lock from now on."""
        if sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def end(self) -> None:
        """Take part no more."""
        os.close(self._descriptor)


if sys.platform != "win32":

    def _share(descriptor: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while not _has(descriptor, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(_LOOK_EVERY_S)

    def _has(descriptor: int, kind: int) -> bool:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
