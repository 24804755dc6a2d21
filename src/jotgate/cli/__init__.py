"""The ``jotgate`` command. This file alone works without the server extra: it says what is missing."""

import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

_SERVING: Final = frozenset({"serve", "demo"})
# What `pip install jotgate` alone does not bring, and the extra that does.
_EXTRAS: Final = {"fastapi": "demo", "starlette": "demo", "pydantic": "demo"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 refused or failed, 2 wrong usage or settings."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where the locale knows fewer characters, tell them by number
            stream.reconfigure(errors="backslashreplace")
    if _SERVING.intersection(words[:1]):
        _stop_at_once()
    try:
        from jotgate.cli.program import run  # noqa: PLC0415 - it needs packages that may be missing

        return run(words)
    except ModuleNotFoundError as error:
        return _say_what_to_install(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _stop_at_once() -> None:
    """A server that is stopped while it still starts has done what it was told.

    The process ends on the spot: an exception out of a signal handler would surface in whatever module is just being
    imported, and not every one lets it through. Nothing that starting writes is left half written by that.
    """

    def leave(_: int, __: FrameType | None) -> None:
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def _say_what_to_install(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    if package == "jotgate":
        raise error
    extra = _EXTRAS.get(package, "server")
    sys.stderr.write(f"error: {package} is not installed; the command needs it: pip install 'jotgate[{extra}]'\n")
    return 1
