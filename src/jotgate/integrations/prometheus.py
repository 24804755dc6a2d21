"""Tells Prometheus what verifiers decide by: `REGISTRY.register(VerifierCollector(verifier))`.

Everything comes from `Verifier.status()` at the moment of the scrape; nothing is counted on the way of a request.

>>> from prometheus_client import CollectorRegistry
>>> from jotgate.testing import TestAuth
>>> registry = CollectorRegistry()
>>> registry.register(VerifierCollector(TestAuth(audience="api").verifier))
>>> registry.get_sample_value("jotgate_verifier_ready", {"issuer": "https://issuer.test", "audience": "api"})
1.0
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jotgate.verifier import Status, Verifier
from jotgate.verifier.cache import CacheStatus
from jotgate.verifier.feed import FeedStatus, Mode

_T = TypeVar("_T")
_PREFIX: Final = "jotgate_verifier"
_LABELS: Final = ("issuer", "audience")
# Name, help, and the value; None where a verifier has none.
_GAUGES: Final[tuple[tuple[str, str, Callable[[Status], float | None]], ...]] = (
    ("ready", "Whether tokens can be judged.", lambda status: status.ready),
    ("keys", "How many keys of the issuer are known.", lambda status: len(status.keys)),
    ("keys_fetched_timestamp_seconds", "When they were last fetched.", lambda status: status.fetched_at),
    ("keys_failing", "Whether the last fetch failed.", lambda status: status.last_error is not None),
)
_FEED_GAUGES: Final[tuple[tuple[str, str, Callable[[FeedStatus], float | None]], ...]] = (
    ("revocations", "Revocations known that still matter.", lambda feed: feed.entries),
    ("feed_position", "The issuer's log is known up to here.", lambda feed: feed.head),
    ("feed_lag_seconds", "Time since the issuer was last heard.", lambda feed: feed.lag_s),
    ("feed_failing", "Whether revocations cannot be followed now.", lambda feed: feed.last_error is not None),
    ("feed_refuses_silence", "Whether too long a silence refuses all.", lambda feed: feed.on_silence == "refuse"),
)
_CACHE_GAUGES: Final[tuple[tuple[str, str, Callable[[CacheStatus], float]], ...]] = (
    ("cache_entries", "Verified tokens that are remembered.", lambda cache: cache.entries),
    ("cache_bytes", "Memory that they take, about.", lambda cache: cache.bytes),
)
_CACHE_COUNTERS: Final[tuple[tuple[str, str, Callable[[CacheStatus], float]], ...]] = (
    ("cache_hits", "Tokens that were known already.", lambda cache: cache.hits),
    ("cache_misses", "Tokens that had to be proved.", lambda cache: cache.misses),
)


class VerifierCollector(Collector):
    """Metrics `jotgate_verifier_…` of any number of verifiers, labelled with `issuer` and `audience`.

    | Metric | Says |
    |---|---|
    | `ready` | 1 while tokens can be judged |
    | `keys`, `keys_fetched_timestamp_seconds`, `keys_failing` | how many are known, since when, and 1 after a failure |
    | `cache_entries`, `cache_bytes`, `cache_hits_total`, `cache_misses_total` | the cache of verified tokens |
    | `revocations` | how many are known that still matter |
    | `feed_lag_seconds`, `feed_position` | how long ago the issuer was heard, and up to where in its log |
    | `feed_failing` | 1 after a failure |
    | `feed_mode{mode}` | 1 for the way by which revocations are heard of, `silent` among them |
    | `feed_refuses_silence` | 1 where tokens are refused when nothing is heard for too long |

    What a verifier does not have (a feed with keys given once, a lag before the first message) has no sample.
    """

    def __init__(self, *verifiers: Verifier) -> None:
        self._verifiers = verifiers

    def describe(self) -> Iterator[Metric]:
        """Name nothing beforehand: to register costs no look at any verifier."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give one family after the other, each with a sample for each verifier that has one."""
        told = [((each.issuer, each.audience), each.status()) for each in self._verifiers]
        feeds = [(labels, status.feed) for labels, status in told if status.feed is not None]
        caches = [(labels, status.cache) for labels, status in told if status.cache is not None]
        yield from _families(GaugeMetricFamily, _GAUGES, told)
        yield from _families(GaugeMetricFamily, _FEED_GAUGES, feeds)
        yield from _families(GaugeMetricFamily, _CACHE_GAUGES, caches)
        yield from _families(CounterMetricFamily, _CACHE_COUNTERS, caches)
        modes = GaugeMetricFamily(f"{_PREFIX}_feed_mode", "How revocations are heard of.", labels=(*_LABELS, "mode"))
        for labels, feed in feeds:
            for mode in get_args(Mode):
                modes.add_metric((*labels, mode), float(feed.mode == mode))
        yield modes


def _families(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    rows: Sequence[tuple[str, str, Callable[[_T], float | None]]],
    told: Sequence[tuple[tuple[str, str], _T]],
) -> Iterator[Metric]:
    for name, text, value in rows:
        family = kind(f"{_PREFIX}_{name}", text, labels=_LABELS)
        for labels, of in told:
            if (sample := value(of)) is not None:
                family.add_metric(labels, float(sample))
        yield family
