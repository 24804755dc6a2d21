"""What every benchmark promises: medians with honest intervals, and one JSON shape; and that `bench.start` keeps it."""

import datetime as dt
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.report import Report, Row, Target, median_interval, pinned, publish, usable_cores

ROOT = Path(__file__).parent.parent.parent
AT = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))


def check_shape(written: dict[str, Any]) -> None:
    assert list(written) == ["benchmark", "at", "machine", "versions", "rows", "targets"]
    assert dt.datetime.fromisoformat(written["at"]).tzinfo == dt.UTC
    assert set(written["machine"]) == {"cpu", "cores", "memory_mib", "system"}
    assert written["versions"]["python"]
    for row in written["rows"]:
        assert set(row) == {"name", "value", "unit", "low", "high", "n"}
        assert row["low"] is row["high"] is None or row["low"] <= row["value"] <= row["high"]
    for target in written["targets"]:
        assert set(target) == {"name", "goal", "measured", "met"}
        assert target["met"] == (target["measured"] <= target["goal"])


def report() -> Report:
    return Report(
        "example",
        ["msgspec", "no-such-package"],
        [Row.of("work", [3.0, 1.0, 2.0], "ms")],
        [Target("work, ms", 2.0, 2.0), Target("less work, ms", 1.9, 2.0)],
    )


def test_the_json_has_the_promised_shape() -> None:
    written = report().to_dict(AT)
    check_shape(written)
    assert written["at"] == "2026-11-23T11:00:00Z"
    assert written["versions"]["no-such-package"] == "missing"
    assert written["rows"] == [{"name": "work", "value": 2.0, "unit": "ms", "low": 1.0, "high": 3.0, "n": 3}]
    assert [target["met"] for target in written["targets"]] == [True, False]


def test_the_table_shows_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    publish(report(), None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["work", "2.00", "1.00", "to", "3.00", "ms", "3"]
    assert [line.split()[-1] for line in lines[-2:]] == ["yes", "NO"]


def test_a_figure_of_which_no_interval_is_known_gets_none(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row.figure("longest", 3.0, "ms", 25), Row.figure("requests", 7), Row.of("once", [2.0], "ms")]
    report = Report("example", ["msgspec"], rows)
    check_shape(json.loads(json.dumps(report.to_dict(AT))))
    assert [(row["low"], row["n"]) for row in report.to_dict(AT)["rows"][:2]] == [(None, 25), (None, 1)]
    publish(report, None)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert shown == [["longest", "3.00", "ms", "25"], ["requests", "7.00", "1"], ["once", "2.00", "ms", "1"]]


def test_a_file_is_written_only_when_it_is_asked_for(tmp_path: Path) -> None:
    publish(report(), None)
    assert list(tmp_path.iterdir()) == []
    publish(report(), tmp_path / "figures.json")
    check_shape(json.loads((tmp_path / "figures.json").read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(5)  # noqa: S311 - nothing secret
    for n in (6, 10, 25, 40):
        hits = 0
        for _ in range(2000):
            low, high = median_interval([chance.expovariate(1) for _ in range(n)])
            hits += low <= math.log(2) <= high
        assert 0.94 <= hits / 2000 <= 0.995


@pytest.mark.parametrize(("n", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (10, (2, 9)), (40, (14, 27))])
def test_the_interval_is_the_one_of_the_textbook(n: int, ranks: tuple[int, int]) -> None:
    assert median_interval(range(1, n + 1)) == ranks


def test_pinning_ends_with_its_block_and_reaches_children() -> None:
    before = usable_cores()
    with pinned(before[-1:]):
        inherited = subprocess.run(
            [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert inherited.stdout.split() == [str(before[-1])]
    assert usable_cores() == before


def test_bench_start_writes_its_figures_and_nothing_else(tmp_path: Path) -> None:
    source = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    environment = inherited | {
        "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in source),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "bench.start", "--starts", "1", "--imports", "2", "--json", "figures.json"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    check_shape(written)
    assert written["benchmark"] == "start"
    assert [row["unit"] for row in written["rows"]] == ["s", "s", "ms", "ms", "ms"]
    assert [target["goal"] for target in written["targets"]] == [2.0, 15.0]
    assert all(target["name"] in ran.stdout for target in written["targets"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["figures.json", "tmp"]
