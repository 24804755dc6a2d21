"""What is published: the wheel holds what it needs, and installs into an environment that has nothing else."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path

import pytest

import jotgate

REPOSITORY = Path(__file__).parent.parent
# What a user without any extra does first.
FIRST_STEPS = """
import sys, time
from jotgate import Issuer, KeySet, Policy, Verifier, generate_key, verify_token
key = generate_key("ES256")
token = Issuer(issuer="https://auth.example.com", keys=key).issue("ada", audience="api", scopes=["orders:read"])
policy = Policy(issuer="https://auth.example.com", audience="api")
assert verify_token(token, key.public, policy, int(time.time())).subject == "ada"
verifier = Verifier(issuer="https://auth.example.com", audience="api", keys=KeySet([key.public]))
assert verifier.verify(token).scopes
print(sys.modules["jotgate"].__file__)
"""


def run(command: Sequence[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JOTGATE_", "PYTHON"))}
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_suite_runs_against_an_installed_wheel() -> None:
    if os.environ.get("CI") != "true":
        pytest.skip("only CI insists on it: PYTHONPATH=src is quicker while writing")
    assert "site-packages" in str(jotgate.__file__)


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"jotgate"}
    for needed in (
        "jotgate/py.typed",
        "jotgate/client/v1.js",
        "jotgate/server/mail/templates/catalogue.toml",
        "jotgate/server/mail/templates/layout.html",
        "jotgate/server/mail/templates/layout.txt",
        "jotgate/server/store/migrations/env.py",
        "jotgate/examples/shop/shop.py",
        "jotgate/examples/shop/static/index.html",
    ):
        assert needed in names
    assert any(name.startswith("jotgate/server/store/migrations/versions/r0001") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or "test_" in name]
    assert [name for name in names if name.startswith("jotgate/client/")] == ["jotgate/client/v1.js"]
    assert metadata["License-Expression"] == "Apache-2.0"
    required = [line.split(";")[0].strip() for line in metadata.get_all("Requires-Dist") or [] if "extra" not in line]
    assert sorted(name.split(">")[0] for name in required) == ["cryptography", "msgspec"]


# Which files each extra is for: whoever installs it has everything that they import.
ROOMS = {
    "": ["__init__.py", "issuer.py", "keygen.py", "core", "verifier", "integrations/asgi.py", "integrations/guard.py"],
    "server": ["server", "cli"],
    "starlette": ["integrations/starlette.py"],
    "fastapi": ["integrations/fastapi.py"],
    "prometheus": ["integrations/prometheus.py"],
    "testing": ["testing"],
    "demo": ["examples/shop"],
}
# Parts of the server that it is not without.
PARTS_OF_THE_SERVER = {
    "postgres": [f"server/store/postgres{part}.py" for part in ("", "_pool", "_schema", "_statements", "_watch")],
    "redis": ["server/redis_bus.py"],
}
COME_ALONG = {"fastapi": {"starlette", "pydantic"}}
MODULE_OF = {
    "argon2-cffi": "argon2",
    "confusable-homoglyphs": "confusable_homoglyphs",
    "email-validator": "email_validator",
    "prometheus-client": "prometheus_client",
}


@pytest.mark.parametrize("extra", [*ROOMS, *PARTS_OF_THE_SERVER])
def test_an_extra_brings_all_that_its_files_import(extra: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    def brought_by(name: str) -> set[str]:
        lines = project["dependencies"] if not name else project["optional-dependencies"][name]
        names = {re.split(r"[>\[]", line)[0] for line in lines}
        inner = [part for line in lines if line.startswith("jotgate[") for part in line[8:-1].split(",")]
        modules = {MODULE_OF.get(package, package) for package in names}
        return modules.union(
            *(brought_by(part) for part in inner), *(COME_ALONG.get(package, set()) for package in names)
        )

    package = Path(str(jotgate.__file__)).parent
    imported: set[str] = set()
    apart = {package / file for files in PARTS_OF_THE_SERVER.values() for file in files}
    assert all(file.exists() for file in apart)
    for room in (ROOMS | PARTS_OF_THE_SERVER)[extra]:
        path = package / room if (package / room).exists() else REPOSITORY / room
        for file in [path] if path.suffix else set(path.rglob("*.py")) - apart:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add((node.module or "").partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"jotgate", "_typeshed"}  # for type checkers alone
    needed = brought_by("server") if extra in PARTS_OF_THE_SERVER else set()
    assert foreign <= brought_by("") | brought_by(extra) | needed


def test_without_extras_it_needs_cryptography_and_msgspec_alone(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = run([*pip, "--require-hashes", "-r", REPOSITORY / "requirements" / "core.txt"])
    assert pins.returncode == 0, pins.stderr
    assert run([*pip, "--no-deps", wheel]).returncode == 0

    steps = run([python, "-W", "error", "-c", FIRST_STEPS])
    assert steps.returncode == 0, steps.stderr
    assert str(tmp_path) in steps.stdout

    command = run([tmp_path / "venv" / "bin" / "jotgate", "serve"])
    assert command.returncode == 1
    assert command.stdout == ""
    assert command.stderr.startswith("error: ")
    assert "pip install 'jotgate[server]'" in command.stderr
    assert command.stderr.count("\n") == 1
