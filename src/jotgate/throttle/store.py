"""What every store of allowances can do, and how it says that it cannot. It knows no store."""

from collections.abc import Sequence
from typing import Protocol

from jotgate.core.errors import JotgateError
from jotgate.throttle.decisions import Decision
from jotgate.throttle.limits import Charge


class StoreUnavailable(JotgateError):
    """A store did not answer, or not in time: nothing is decided. The cause names what happened."""

    code = "limit_store_unavailable"


class Store(Protocol):
    """Where allowances are counted. Safe to use from any task; charges of one call are decided upon at one moment."""

    async def take(self, charges: Sequence[Charge]) -> Decision:
        """Take all the charges, or none of them if one does not fit.

        Raises:
            InvalidLimit: charges that could never be taken.
            StoreUnavailable: nothing is decided, and it may have been counted or not.
        """
        ...

    async def refund(self, charges: Sequence[Charge]) -> None:
        """Give back what was taken, for what turned out not to count (a login that succeeded, say).

        Raises:
            InvalidLimit: charges that could never have been taken.
            StoreUnavailable: it may have been given back or not.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. The store may be used again; it then opens new ones."""
        ...
