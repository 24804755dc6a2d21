"""Which processes use a database file right now: a lock that all of them share, and that ends with each of them.

Knows a lock file beside the database; knows no SQL. Where the system has no such locks, everybody counts as alone.
"""

import os
import sys
from pathlib import Path
from typing import Self

if sys.platform != "win32":
    import fcntl


class Attendance:
    """This process's share of the lock, for as long as it uses the database."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def begin(cls, database: Path) -> tuple[Self, bool]:
        """Take part, and say whether nobody else does; others who begin wait until `let_others_in`."""
        path = database.with_name(database.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        if sys.platform == "win32":
            return cls(descriptor), True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return cls(descriptor), False
        return cls(descriptor), True

    def let_others_in(self) -> None:
        """Share the lock from now on."""
        if sys.platform != "win32":
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def end(self) -> None:
        """Take part no more."""
        os.close(self._descriptor)
