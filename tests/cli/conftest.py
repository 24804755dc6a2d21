"""The command line in this process, with what it read, printed and returned."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from jotgate.cli.program import run


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str


class Jotgate(Protocol):
    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran: ...


@pytest.fixture
def jotgate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`jotgate("inspect", stdin=b"…")` runs the command as the installed program does, without its signals."""
    # Unknown JOTGATE_ names stop the program by design, so none of the test run's own may reach it.
    monkeypatch.delenv("JOTGATE_VECTORS", raising=False)

    def call(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = run(arguments)
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call
