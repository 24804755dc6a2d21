"""Mutation testing of `jotgate.core`: `make mutants`, or `python -m tests.mutants.run weak jwk.Key.from_pem`.

Each change that `tests.mutants.changes` finds is made alone, in a process forked for it; the tests of the core that run
its lines then run, the quickest first, until one fails. A change that none notices is a survivor: a test is missing, or
the code does nothing, or no test can tell, and then MUTANTS.md beside this file says why. Ends with 1 where a survivor
has no line there.

Results are appended to `.mutants/results.jsonl`, so that a run can be stopped and goes on where it was; one counts
until the function around the change is written anew. `--again` runs the survivors again, so that `--quick` can sort out
most at first.

Why no library does it: cosmic-ray 8.7 starts a process, and with it pytest, for each mutant, and chooses no tests.
mutmut 3.8 forks, but leaves out what runs at import (the tables and patterns that decide here) and functions with
decorators (properties), and it mutates the sentences of messages.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import pkgutil
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NoReturn

import coverage
import hypothesis
import pytest

from tests.mutants.changes import Mutant, find_mutants

HERE = Path(__file__).parent
PACKAGE = "jotgate.core"
TESTS = ("tests/core", "tests/vectors")
STATE = Path(".mutants")
LEAST_S, SLOWER = 5, 20  # a test may take that long, and that many times longer than it did unchanged
MOST_BYTES = 4 << 30  # what a change may take of memory, for some never stop asking

PYTEST = ("-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "--hypothesis-profile=mutants")
# Failing is enough to know: which example fails most simply is not asked.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
)


@dataclass(frozen=True)
class Module:
    """A module of the package as it is installed, with its changes."""

    name: str
    path: Path
    tree: ast.Module
    mutants: list[Mutant]

    @property
    def full_name(self) -> str:
        return f"{PACKAGE}.{self.name}"


@dataclass(frozen=True)
class Coverage:
    """Which tests run which lines, and how long each takes."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]
    """By module and line: ids of tests; "import" where importing the core runs it, "collect" where the tests' own
    import does."""
    others: Sequence[str] = ()
    """The modules that are imported for the tests, the package and the tests themselves aside."""

    def of(self, module: str, lines: Iterable[int]) -> set[str]:
        known = self.lines.get(module, {})
        return {context for line in lines for context in known.get(line, ())}


def load_modules() -> list[Module]:
    package = importlib.util.find_spec("jotgate")  # without importing anything of it
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "core"
    modules = []
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_bytes(), str(path))
        modules.append(Module(path.stem, path, tree, find_mutants(path.stem, tree)))
    return modules


# Which tests run which lines


class _Contexts:
    """A plugin of pytest that tells coverage which test, or which shared fixture, is at work."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = {}
        self.users: dict[str, list[str]] = {}
        self._context = "collect"

    def _switch(self, context: str) -> str:
        before, self._context = self._context, context
        self.measured.switch_context(context)
        return before

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for name in getattr(item, "fixturenames", ()):
                self.users.setdefault(f"fixture {name}", []).append(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        before, start = self._switch(item.nodeid), time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - start
            self._switch(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        # What one test sets up for all is run by all of them.
        if fixturedef.scope == "function":
            return (yield)
        before = self._switch(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            self._switch(before)


def measure() -> Coverage:
    """Run all tests of the core once, unchanged, in this process. Exits if one fails."""
    measured = coverage.Coverage(branch=False, data_file=None, config_file=False, source_pkgs=[PACKAGE])
    measured.start()
    measured.switch_context("import")
    package = importlib.import_module(PACKAGE)
    for found in pkgutil.iter_modules(package.__path__, f"{PACKAGE}."):
        importlib.import_module(found.name)
    contexts = _Contexts(measured)
    measured.switch_context("collect")
    status = pytest.main([*PYTEST, *TESTS], plugins=[contexts])
    measured.stop()
    if status != 0:
        sys.exit("The tests of the core fail as they are.")
    data = measured.get_data()
    lines: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        found_lines = lines[Path(file).stem] = {}
        for line, names in data.contexts_by_lineno(file).items():
            tests = {test for name in names for test in contexts.users.get(name, (name,))}
            found_lines[line] = sorted(tests)
    return Coverage(contexts.seconds, lines)


def tests_of_lines(modules: Sequence[Module]) -> Coverage:
    """Give what `measure` gives, measured anew only after a change of the code or its tests."""
    texts = [module.path for module in modules]
    texts += [path for folder in TESTS for path in sorted(Path(folder).rglob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()
    file = STATE / "coverage.json"
    if not file.exists() or json.loads(file.read_bytes())["digest"] != digest:
        print("measuring which tests run which lines", flush=True)

        def child() -> NoReturn:
            result = measure()
            others = [name for name in sys.modules if name.partition(".")[0] not in ("jotgate", "tests", "__main__")]
            file.write_text(
                json.dumps(
                    {"digest": digest, "seconds": result.seconds, "lines": result.lines, "others": sorted(others)}
                )
            )
            os._exit(0)

        if os.waitstatus_to_exitcode(os.waitpid(_fork(child), 0)[1]) != 0:
            sys.exit("The tests of the core fail as they are.")
    read = json.loads(file.read_bytes())
    lines = {name: {int(line): tests for line, tests in known.items()} for name, known in read["lines"].items()}
    return Coverage(read["seconds"], lines, read["others"])


# One change, in one process


def _fork(work: Callable[[], NoReturn]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(70)  # an exception: the parent's own work is not to go on here


def _quiet() -> None:
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


KILLED, SURVIVED, FAILED_EARLY = 10, 11, 12


class _FirstFailure:
    """A plugin of pytest that bounds each test's time and ends the process with the first that fails."""

    def __init__(self, seconds: dict[str, float], chosen: set[str] | None = None) -> None:
        self.seconds = seconds
        self.chosen = chosen

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.chosen is not None:
            items[:] = [item for item in items if item.nodeid in self.chosen]
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        # A loop without end is ended by the signal, and that counts as noticed.
        signal.setitimer(signal.ITIMER_REAL, LEAST_S + SLOWER * self.seconds.get(nodeid, 0))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(KILLED)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            os._exit(FAILED_EARLY)


def _find_function(module: ModuleType, qualified_name: str) -> FunctionType | None:
    """Give the function of that name, whatever wraps it."""
    *owners, name = qualified_name.split(".")
    owner: Any = module
    for part in owners:
        owner = vars(owner).get(part)
        if owner is None:
            return None
    found = vars(owner).get(name)
    if clear := getattr(found, "cache_clear", None):
        clear()
    while not isinstance(found, FunctionType):
        for wrapped in ("__wrapped__", "__func__", "fget"):
            if (inner := getattr(found, wrapped, None)) is not None:
                found = inner
                break
        else:
            return None
    return found


def _find_code(code: CodeType, qualified_name: str) -> CodeType | None:
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_qualname == qualified_name:
                return inner
            if qualified_name.startswith(f"{inner.co_qualname}.") and (found := _find_code(inner, qualified_name)):
                return found
    return None


def _compile(module: Module, mutant: Mutant) -> CodeType:
    mutant.apply()
    return compile(ast.fix_missing_locations(module.tree), str(module.path), "exec")


def swap(module: Module, mutant: Mutant) -> bool:
    """Make the change in a function that is loaded; False where that is not possible."""
    assert mutant.function is not None
    loaded = _find_function(sys.modules[module.full_name], mutant.function)
    code = _find_code(_compile(module, mutant), mutant.function)
    if loaded is None or code is None or code.co_freevars != loaded.__code__.co_freevars:
        return False
    loaded.__code__ = code
    return True


class _Changed(MetaPathFinder, Loader):
    """Imports one module with a change in it."""

    def __init__(self, module: Module, code: CodeType) -> None:
        self.module = module
        self.code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module.full_name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        spec.loader = self
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, vars(module))  # noqa: S102 # the module's own code


# Many changes


@dataclass(frozen=True)
class Job:
    module: Module
    mutant: Mutant
    tests: set[str]
    cold: bool
    """Made before the core is imported, because the import runs it already."""


def plan(module: Module, mutant: Mutant, covered: Coverage, *, cold: bool, quick_s: float | None = None) -> Job:
    contexts = covered.of(module.name, mutant.lines)
    tests = contexts - {"import", "collect"}
    if mutant.function is None or not tests:
        # What a table decides is asked by the tests that are about this module, or run its functions.
        tests = covered.of(module.name, covered.lines.get(module.name, {})) - {"import", "collect"}
        tests |= {test for test in covered.seconds if Path(test.partition("::")[0]).stem == f"test_{module.name}"}
    # A function that the import has made within another, already called one is not to be reached from outside.
    whole = covered.of(module.name, mutant.body)
    cold = cold or mutant.function is None or "import" in whole or (mutant.nested and "collect" in whole)
    tests = tests or set(covered.seconds)
    if quick_s is not None:
        # A look in advance: what survives it is to be run again, by all tests.
        tests = {test for test in tests if covered.seconds.get(test, 0) < quick_s} or tests
    return Job(module, mutant, tests, cold)


class Results:
    """The file of results: one JSON line each, the last one for a key counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, str] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["key"]] = entry["result"]

    def add(self, mutant: Mutant, result: str, seconds: float) -> None:
        entry = {"key": mutant.key, "result": result, "seconds": round(seconds, 2), "label": mutant.label}
        with self.file.open("a") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.known[mutant.key] = result
        if result == "survived":
            print(f"survived: {mutant.label}", flush=True)


def run_forked(
    jobs: Iterable[Job], work: Callable[[Job], NoReturn], results: Results, workers: int, until: float
) -> list[Job]:
    """Run each job in a process of its own until the time is over. Gives those that could not be run so."""
    running: dict[int, tuple[Job, float]] = {}
    refused: list[Job] = []
    waiting = iter(jobs)
    more = True
    while more or running:
        while more and len(running) < workers:
            job = next(waiting, None) if time.monotonic() < until else None
            if job is None:
                more = False
            else:
                running[_fork(lambda job=job: work(job))] = job, time.monotonic()  # type: ignore[misc] # bound early
        if not running:
            break
        pid, status = os.wait()
        job, start = running.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if code == FAILED_EARLY and not job.cold:
            refused.append(job)
            continue
        result = {SURVIVED: "survived", KILLED: "killed", FAILED_EARLY: "killed"}.get(code)
        if result is None:
            result = "killed (time)" if code == -signal.SIGALRM else f"killed ({code})"
        results.add(job.mutant, result, time.monotonic() - start)
    return refused


def run_warm(jobs: Sequence[Job], covered: Coverage, results: Results, workers: int, until: float) -> list[Job]:
    """Run changes of functions in forks of a process that has collected the tests.

    Gives those that need a cold start.
    """
    file = STATE / "refused.json"

    class Loop:
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtestloop(self, session: pytest.Session) -> bool:
            items = {item.nodeid: item for item in session.items}
            order = sorted(items, key=lambda name: covered.seconds.get(name, 0))

            def work(job: Job) -> NoReturn:
                _quiet()
                signal.setitimer(signal.ITIMER_REAL, LEAST_S)
                if not swap(job.module, job.mutant):
                    os._exit(FAILED_EARLY)
                chosen = [items[name] for name in order if name in job.tests]
                for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                os._exit(SURVIVED)

            gc.freeze()  # else each fork copies what its first collection touches
            refused = run_forked(jobs, work, results, workers, until)
            file.write_text(json.dumps([job.mutant.key for job in refused]))
            os._exit(0)

    def child() -> NoReturn:
        pytest.main([*PYTEST, *TESTS], plugins=[_FirstFailure(covered.seconds), Loop()])
        os._exit(70)

    if os.waitstatus_to_exitcode(os.waitpid(_fork(child), 0)[1]) != 0:
        sys.exit("The tests could not be collected.")
    keys = set(json.loads(file.read_bytes()))
    return [replace(job, cold=True) for job in jobs if job.mutant.key in keys]


def run_cold(jobs: Sequence[Job], covered: Coverage, results: Results, workers: int, until: float) -> None:
    """Run changes of what the import runs: each in a fork that imports the core, and its tests, with the change."""

    for name in covered.others:  # once, instead of in each fork
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

    def work(job: Job) -> NoReturn:
        _quiet()
        signal.setitimer(signal.ITIMER_REAL, 10 * LEAST_S)
        sys.meta_path.insert(0, _Changed(job.module, _compile(job.module, job.mutant)))
        files = sorted({name.partition("::")[0] for name in job.tests})
        status = pytest.main([*PYTEST, *files], plugins=[_FirstFailure(covered.seconds, job.tests)])
        os._exit(SURVIVED if status == 0 else KILLED)

    run_forked(jobs, work, results, workers, until)


# The report


_EXPLAINED = re.compile(r"^- (`[^`]+`: `[^`]*` → `[^`]*`)$", re.MULTILINE)


def explained() -> set[str]:
    """Give the survivors that MUTANTS.md has a reason for, by label."""
    return set(_EXPLAINED.findall((HERE / "MUTANTS.md").read_text()))


def report(modules: Sequence[Module], results: Results, names: Sequence[str]) -> bool:
    """Print the figures for each module, and where MUTANTS.md does not agree. Gives whether it does."""
    known = explained()
    unexplained: list[str] = []
    gone: list[str] = []
    print("| Module | Mutants | Run | Killed | Left |\n|---|---|---|---|---|")
    total = [0, 0, 0, 0]
    for module in modules:
        mutants = [mutant for mutant in module.mutants if _is_named(mutant, names)]
        ran = [mutant for mutant in mutants if mutant.key in results.known]
        left = [mutant for mutant in ran if results.known[mutant.key] == "survived"]
        unexplained += [mutant.label for mutant in left if mutant.label not in known]
        gone += [mutant.label for mutant in ran if mutant not in left and mutant.label in known]
        if mutants:
            row = [len(mutants), len(ran), len(ran) - len(left), len(left)]
            total = [sum(pair) for pair in zip(total, row, strict=True)]
            print("|", " | ".join(map(str, (module.name, *row))), "|")
    print("|", " | ".join(map(str, ("all", *total))), "|")
    for label in unexplained:
        print(f"survived, no reason given: {label}")
    for label in gone:
        print(f"killed, though MUTANTS.md lists it: {label}")
    return not unexplained and not gone


def _is_named(mutant: Mutant, names: Sequence[str]) -> bool:
    return not names or any(mutant.where == name or mutant.where.startswith(f"{name}.") for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of jotgate.core.")
    parser.add_argument("names", nargs="*", help="modules or functions, such as weak or jwk.Key.from_pem; else all")
    parser.add_argument("--seconds", type=int, default=86_400, help="begin no more mutants after that")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run the survivors that have no reason yet again")
    parser.add_argument("--cold", action="store_true", help="make each before the tests are imported, which may use it")
    parser.add_argument("--quick", type=float, metavar="S", help="ask only the tests that take less than S seconds")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()
    STATE.mkdir(exist_ok=True)
    modules = load_modules()
    results = Results(STATE / "results.jsonl")
    if not options.report:
        until = time.monotonic() + options.seconds
        covered = tests_of_lines(modules)
        known = explained()
        jobs = [
            plan(module, mutant, covered, cold=options.cold, quick_s=options.quick)
            for module in modules
            for mutant in module.mutants
            if _is_named(mutant, options.names)
            and (
                mutant.key not in results.known
                or (options.again and results.known[mutant.key] == "survived" and mutant.label not in known)
            )
        ]
        warm = [job for job in jobs if not job.cold]
        print(f"{len(jobs)} mutants to run, {len(jobs) - len(warm)} of them from the import on", flush=True)
        cold = [job for job in jobs if job.cold]
        if warm:
            cold += run_warm(warm, covered, results, options.workers, until)
            results = Results(results.file)
        run_cold(cold, covered, results, options.workers, until)
    return 0 if report(modules, results, options.names) else 1


if __name__ == "__main__":
    sys.exit(main())
