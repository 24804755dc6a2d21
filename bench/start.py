"""From the start of ``jotgate serve`` to its first answer, and what ``import jotgate`` adds to its dependencies.

``python -m bench.start [--json FILE]``. What is measured runs on one core, this process on another. A server is
"ready" when it says so, which it does once ``/readyz`` has answered 200 over TLS. Imports are measured in pairs, turn
by turn: a new interpreter that imports ``jotgate``, and one that imports exactly those modules of ``cryptography`` and
``msgspec`` that ``import jotgate`` loads.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.report import Report, Row, Target, pinned, publish, run_options, usable_cores

PACKAGES = ("jotgate", "cryptography", "msgspec", "granian", "sqlalchemy", "typer")
READY_WITHIN_S = 2.0
IMPORT_ADDS_MS = 15.0

_DEPENDENCIES = """
import sys, jotgate
print(*(name for name in sys.modules if name.partition(".")[0] in ("cryptography", "msgspec")), sep="\\n")
"""
# Measured programs on the last core, the measuring one on the first: it must not take from what it measures.
_CORES = usable_cores()
_MEASURED, _MEASURING = _CORES[-1:], _CORES[:1]
_SERVE = "import sys; from jotgate.cli import main; sys.exit(main())"


def measure_starts(report: Report, count: int, folder: Path) -> None:
    """Start the server on new and on used data folders, turn by turn."""
    fresh: list[float] = []
    existing: list[float] = []
    environment = _environment(folder)
    seconds_until_ready(folder / "used", environment)  # makes the folder's content, and Python's caches
    for number in range(count):
        fresh.append(seconds_until_ready(folder / f"new{number}", environment))
        existing.append(seconds_until_ready(folder / "used", environment))
    report.rows.append(Row.of("jotgate serve, new data folder: start to ready", fresh, "s"))
    report.rows.append(Row.of("jotgate serve, used data folder: start to ready", existing, "s"))
    slower = max(statistics.median(fresh), statistics.median(existing))
    report.targets.append(Target("jotgate serve ready, s after its start", READY_WITHIN_S, slower))


def seconds_until_ready(data_dir: Path, environment: Mapping[str, str]) -> float:
    """Start a server, wait for it, stop it; how long the waiting took."""
    command = [sys.executable, "-c", _SERVE, "serve", "--data", str(data_dir), "--port", str(free_port())]
    with pinned(_MEASURED):
        began = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    said: list[str] = []
    for line in server.stdout:
        said.append(line)
        if line.startswith("ready:"):
            took = time.perf_counter() - began
            break
    else:
        raise RuntimeError(f"the server ended with status {server.wait()}:\n{''.join(said)}")
    server.terminate()
    server.stdout.read()
    if server.wait() != 0:
        raise RuntimeError(f"the server ended with status {server.returncode}")
    return took


def measure_import(report: Report, count: int, folder: Path) -> None:
    """Import jotgate, and its dependencies alone, in new interpreters turn by turn."""
    environment = _environment(folder)
    modules = subprocess.run(
        [sys.executable, "-c", _DEPENDENCIES], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout.split()
    dependencies = "import " + ", ".join(modules)
    samples: dict[str, list[float]] = {dependencies: [], "import jotgate": []}
    for number in range(-1, count):  # the first pair only fills the caches
        for statement in sorted(samples, reverse=bool(number % 2)):
            took = milliseconds_of(statement, environment)
            if number >= 0:
                samples[statement].append(took)
    alone, both = samples[dependencies], samples["import jotgate"]
    added = [more - less for more, less in zip(both, alone, strict=True)]
    report.rows.append(Row.of("new interpreter, import of the dependencies' parts", alone, "ms"))
    report.rows.append(Row.of("new interpreter, import jotgate", both, "ms"))
    report.rows.append(Row.of("import jotgate over those parts, by pairs", added, "ms"))
    report.targets.append(
        Target("import jotgate over its dependencies' parts, ms", IMPORT_ADDS_MS, statistics.median(added))
    )


def milliseconds_of(statement: str, environment: Mapping[str, str]) -> float:
    """Run a statement in a new interpreter; how long that took from its start to its end."""
    with pinned(_MEASURED):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
        return (time.perf_counter() - began) * 1000


def _environment(folder: Path) -> dict[str, str]:
    """Compiled modules are kept, as pip keeps them when it installs, but not beside anybody's source."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Measure, and print."""
    options = run_options("Start to ready, and the cost of import jotgate.", starts=10, imports=40)
    report = Report("start", PACKAGES)
    with pinned(_MEASURING), tempfile.TemporaryDirectory(prefix="jotgate-bench-") as folder:
        measure_starts(report, options.starts, Path(folder))
        measure_import(report, options.imports, Path(folder))
    publish(report, options.json)


if __name__ == "__main__":
    main()
