"""What every benchmark has in common: medians with intervals, one table, one JSON shape, and cores kept apart.

It knows no benchmark; it measures nothing itself.
"""

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CONFIDENCE = 0.95
_MANY = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing: the median of ``n`` runs, and the interval that holds the true median in 95 of 100 cases.

    Or another figure of ``n`` runs, a sum or a 99th percentile, say: nothing is known of its interval.
    """

    name: str
    value: float
    unit: str
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, name: str, samples: Sequence[float], unit: str) -> "Row":
        """Sum the samples up."""
        low, high = median_interval(samples)
        return cls(name, statistics.median(samples), unit, low, high, len(samples))

    @classmethod
    def figure(cls, name: str, value: float, unit: str = "", n: int = 1) -> "Row":
        """Give a figure without an interval."""
        return cls(name, value, unit, None, None, n)

    @property
    def interval(self) -> str:
        """The interval for a person: none where there is none, or where a single run says nothing of it."""
        if self.low is None or self.high is None or self.n == 1:
            return ""
        return f"{_figure(self.low)} to {_figure(self.high)}"


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised (``goal``, an upper bound in the same unit) beside what was measured."""

    name: str
    goal: float
    measured: float

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.measured <= self.goal


@dataclass(slots=True)
class Report:
    """The rows and targets of one run of one benchmark."""

    benchmark: str
    packages: Sequence[str]
    """Distributions whose versions matter for the figures."""
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def to_dict(self, now: dt.datetime) -> dict[str, Any]:
        """Return the JSON shape: benchmark, at, machine, versions, rows, targets."""
        return {
            "benchmark": self.benchmark,
            "at": now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": machine(),
            "versions": versions(self.packages),
            "rows": [
                {
                    "name": row.name,
                    "value": row.value,
                    "unit": row.unit,
                    "low": row.low,
                    "high": row.high,
                    "n": row.n,
                }
                for row in self.rows
            ],
            "targets": [
                {"name": target.name, "goal": target.goal, "measured": target.measured, "met": target.met}
                for target in self.targets
            ],
        }

    def table(self) -> str:
        """Return the rows and targets as text for a person."""
        rows = [("", "median", "95 % interval", "unit", "n")]
        rows += [(row.name, _figure(row.value), row.interval, row.unit, str(row.n)) for row in self.rows]
        goals = [("target", "goal", "measured", "met")]
        goals += [
            (target.name, f"≤ {_figure(target.goal)}", _figure(target.measured), "yes" if target.met else "NO")
            for target in self.targets
        ]
        return f"{_columns(rows)}\n\n{_columns(goals)}"


def run_options(description: str, **numbers: int) -> argparse.Namespace:
    """Read the options that every benchmark has, and whole numbers of its own with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def publish(report: Report, json_file: Path | None) -> None:
    """Print the table; write the JSON file when one is asked for, and nothing else."""
    print(report.table())
    if json_file is not None:
        content = report.to_dict(dt.datetime.now(dt.UTC))
        json_file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median by order statistics, which asks nothing of the distribution.

    Below six samples no such interval exists; then it is the least and the greatest.
    """
    ordered, n = sorted(samples), len(samples)
    if n > _MANY:  # the binomial's normal approximation: its exact terms have thousands of digits by now
        outside = math.floor(n / 2 - statistics.NormalDist().inv_cdf((1 + _CONFIDENCE) / 2) * math.sqrt(n) / 2)
        return ordered[outside - 1], ordered[n - outside]
    outside, tail = 0, math.comb(n, 0) / 2**n
    while tail <= (1 - _CONFIDENCE) / 2:
        outside += 1
        tail += math.comb(n, outside) / 2**n
    first = max(outside - 1, 0)
    return ordered[first], ordered[n - 1 - first]


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the software."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(usable_cores()),
        "memory_mib": memory_bytes // 2**20,
        "system": f"{platform.system()} {platform.release()}",
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return Python's version and those of the distributions, ``"missing"`` for one that is not installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def usable_cores() -> list[int]:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, and those that it starts meanwhile for good, on the given cores where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _figure(value: float) -> str:
    """Three digits that count, never in scientific notation."""
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
