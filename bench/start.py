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
from collections.abc import Sequence
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


def measure_starts(report: Report, count: int) -> None:
    """Start the server on new and on used data folders, turn by turn."""
    fresh: list[float] = []
    existing: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jotgate-bench-") as folder:
        used = Path(folder) / "used"
        seconds_until_ready(used)  # makes the folder's content, and Python's caches
        for number in range(count):
            fresh.append(seconds_until_ready(Path(folder) / f"new{number}"))
            existing.append(seconds_until_ready(used))
    report.rows.append(Row.of("jotgate serve, new data folder: start to ready", fresh, "s"))
    report.rows.append(Row.of("jotgate serve, used data folder: start to ready", existing, "s"))
    slower = max(statistics.median(fresh), statistics.median(existing))
    report.targets.append(Target("jotgate serve ready, s after its start", READY_WITHIN_S, slower))


def seconds_until_ready(data_dir: Path) -> float:
    """Start a server, wait for it, stop it; how long the waiting took."""
    command = [sys.executable, "-c", _SERVE, "serve", "--data", str(data_dir), "--port", str(_free_port())]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
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


def measure_import(report: Report, count: int) -> None:
    """Import jotgate, and its dependencies alone, in new interpreters turn by turn."""
    names = _output(_DEPENDENCIES).split()
    dependencies = "import " + ", ".join(names)
    with_jotgate: list[float] = []
    without: list[float] = []
    for statement, samples in 2 * ((dependencies, without), ("import jotgate", with_jotgate)):
        _milliseconds(statement)  # whatever is cached is cached now
        samples.clear()
    for _ in range(count):
        without.append(_milliseconds(dependencies))
        with_jotgate.append(_milliseconds("import jotgate"))
    added = [both - alone for both, alone in zip(with_jotgate, without, strict=True)]
    report.rows.append(Row.of("new interpreter, import of the dependencies' parts", without, "ms"))
    report.rows.append(Row.of("new interpreter, import jotgate", with_jotgate, "ms"))
    report.rows.append(Row.of("import jotgate over those parts, by pairs", added, "ms"))
    report.targets.append(
        Target("import jotgate over its dependencies' parts, ms", IMPORT_ADDS_MS, statistics.median(added))
    )


def _milliseconds(statement: str) -> float:
    with pinned(_MEASURED):
        began = time.perf_counter()
        subprocess.run(_python(statement), check=True)
        return (time.perf_counter() - began) * 1000


def _output(statement: str) -> str:
    return subprocess.run(_python(statement), check=True, stdout=subprocess.PIPE, text=True).stdout


def _python(statement: str) -> Sequence[str]:
    return (sys.executable, "-c", statement)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Measure, and print."""
    options = run_options("Start to ready, and the cost of import jotgate.", starts=10, imports=40)
    report = Report("start", PACKAGES)
    with pinned(_MEASURING):
        measure_starts(report, options.starts)
        measure_import(report, options.imports)
    publish(report, options.json)


if __name__ == "__main__":
    main()
