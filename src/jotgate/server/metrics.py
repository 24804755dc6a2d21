"""What a server counts for Prometheus: answers by route and status, refusals by code, limits, streams, keys.

Every label has a bounded set of values, which come from this program and never from a request. With several worker
processes the numbers of all are summed, through files that prometheus-client keeps in `PROMETHEUS_MULTIPROC_DIR`.
Without a metrics token nothing is counted, and prometheus-client is not even loaded. It knows no HTTP.
"""

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where processes that are counted together keep their numbers; prometheus-client's own name for it."""

OTHER: Final = "other"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_MAX_CODES: Final = 256  # more than there are: so that one which is made up by mistake cannot fill memory
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LOOK_EVERY_S: Final = 1.0


class Levels(Struct, frozen=True):
    """What is so at one moment, in this process."""

    streams: int
    """Verifiers that listen to the feed."""
    revocations: int
    """Entries that verifiers need to know."""
    hashes: int
    """Passwords that are checked, or wait for that."""
    limits_shared: bool
    """Limits are counted in Redis, and not by each process."""
    keys_usable: bool
    """It can sign whatever it has to."""


class Metrics(Protocol):
    """Takes note of what happened. Nothing here waits, or raises."""

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; ``route`` is a template of the route table, or "other"."""

    def refused(self, code: str) -> None:
        """Count a refusal by its stable code."""

    def limited(self, limits: Collection[str]) -> None:
        """Count a request that these limits refused."""


class Uncounted:
    """Counts nothing."""

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """See `Metrics.answered`."""

    def refused(self, code: str) -> None:
        """See `Metrics.refused`."""

    def limited(self, limits: Collection[str]) -> None:
        """See `Metrics.limited`."""


class Counted:
    """Counts for Prometheus.

    Args:
        levels: looked at once a second at most, with an answer, and at each scrape.
        monotonic: seconds that nobody sets.
    """

    def __init__(self, levels: Callable[[], Levels], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        # Loaded for those alone who want to be told.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: PLC0415

        self._levels = levels
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._registry = registry = CollectorRegistry()
        self._answers = Counter(
            "jotgate_http_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "jotgate_http_request_seconds",
            "Time until the answer was made; of a stream, until its first byte.",
            ("route",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._refusals = Counter("jotgate_refusals", "Requests refused, by code.", ("code",), registry=registry)
        self._limited = Counter("jotgate_limited", "Requests refused, by limit.", ("limit",), registry=registry)
        self._codes: set[str] = set()
        # In several processes: what only one can have adds up, and what all must have is the least of all.
        self._streams = Gauge(
            "jotgate_feed_streams", "Verifiers that listen.", registry=registry, multiprocess_mode="livesum"
        )
        self._hashes = Gauge(
            "jotgate_password_checks", "Passwords in work or waiting.", registry=registry, multiprocess_mode="livesum"
        )
        self._revocations = Gauge(
            "jotgate_revocations", "Entries in the feed.", registry=registry, multiprocess_mode="livemax"
        )
        self._shared = Gauge(
            "jotgate_limits_shared",
            "Whether limits are counted in Redis.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._usable = Gauge(
            "jotgate_keys_usable", "Whether it can sign.", registry=registry, multiprocess_mode="livemin"
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """See `Metrics.answered`."""
        self._answers.labels(route, method if method in _METHODS else OTHER, status).inc()
        self._seconds.labels(route).observe(seconds)
        if self._monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._look()

    def refused(self, code: str) -> None:
        """See `Metrics.refused`."""
        if code not in self._codes:
            if len(self._codes) >= _MAX_CODES:
                code = OTHER
            self._codes.add(code)
        self._refusals.labels(code).inc()

    def limited(self, limits: Collection[str]) -> None:
        """See `Metrics.limited`."""
        for limit in limits:
            self._limited.labels(limit).inc()

    def text(self, accept: str) -> tuple[str, bytes]:
        """Return the content type and the text of what was counted, in the format that suits the scraper. Blocks."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - see above

        self._look()
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry_of_all())

    def _look(self) -> None:
        self._looked_at = self._monotonic()
        now = self._levels()
        self._streams.set(now.streams)
        self._revocations.set(now.revocations)
        self._hashes.set(now.hashes)
        self._shared.set(now.limits_shared)
        self._usable.set(now.keys_usable)

    def _registry_of_all(self) -> "CollectorRegistry":
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return self._registry
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - see above
        from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: PLC0415

        for pid in _pids(Path(folder)):
            if not _lives(pid):  # replaced, or killed: its counts stay, and its levels go
                with suppress(FileNotFoundError):  # another worker is asked at the same time
                    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return registry


def _pids(folder: Path) -> set[int]:
    """The processes that keep levels there."""
    endings = (path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db"))
    return {int(ending) for ending in endings if ending.isdecimal()}


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
