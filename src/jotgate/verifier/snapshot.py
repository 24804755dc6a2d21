"""What a verifier decides by at one moment, and where that comes from; it must not know networks, threads or clocks."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from jotgate.core.jwk import KeySet
from jotgate.core.revocations import Revocation, Revocations


class Snapshot(Struct, frozen=True):
    """The keys and the revocations that hold right now. Replaced whole, never changed."""

    keys: KeySet
    revocations: Revocations


class KeySource(Protocol):
    """Anything that can tell the current snapshot at once: a server in this process, or the network part below."""

    def snapshot(self) -> Snapshot:
        """Return the current snapshot without waiting for anybody, once it has begun (see `Starting`).

        Raises:
            KeySourceError: when there is none to decide by.
        """
        ...


@runtime_checkable
class Announcing(Protocol):
    """A source that tells what is newly revoked, too."""

    def subscribe(self, listener: Callable[[Sequence[Revocation]], None], /) -> Callable[[], None]:
        """Call `listener` with what is new once it counts; returns what ends that."""
        ...


@runtime_checkable
class Starting(Protocol):
    """A source that begins with its first use: `snapshot` may block for that, where this does not."""

    async def when_started(self) -> None:
        """Return once it has begun, and let the event loop go on meanwhile.

        Raises:
            KeySourceError: it cannot begin.
        """
        ...

    @property
    def is_started(self) -> bool:
        """Whether it has begun."""
        ...
