"""Installs the servers that jotgate's is measured against, in an environment of their own; knows nothing of sessions.

Python's go into `.venv/bench/servers`, because fastapi-users and jotgate's development tools want different versions
of email-validator; Node's into `.venv/bench/servers-node`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from bench.tokens_install import is_outdated, settle

_ROOT = Path(__file__).parent.parent
_PYTHON, _NODE = _ROOT / ".venv" / "bench" / "servers", _ROOT / ".venv" / "bench" / "servers-node"
_PINS = _ROOT / "requirements" / "bench-servers.txt"
_NODE_SOURCES = _ROOT / "bench" / "servers"
_NODE_FILES = (_NODE_SOURCES / "package.json", _NODE_SOURCES / "package-lock.json")

_NAMES = (
    "aiosqlite",
    "asyncpg",
    "django",
    "djangorestframework",
    "djangorestframework-simplejwt",
    "fastapi-users",
    "fastapi-users-db-sqlalchemy",
    "psycopg",
)
_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


def install_peers() -> None:
    """Bring both parts up to date, the Node part where npm is found. Takes seconds the first time, then nothing."""
    if is_outdated(_PYTHON, _PINS):
        subprocess.run((sys.executable, "-m", "venv", str(_PYTHON)), check=True)
        pip = (str(_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
        subprocess.run((*pip, "-r", str(_PINS)), check=True)
        settle(_PYTHON, _PINS)
    npm = shutil.which("npm")
    if npm is not None and is_outdated(_NODE, *_NODE_FILES):
        for file in _NODE_FILES:
            shutil.copy(file, _NODE)
        subprocess.run((npm, "ci", "--prefix", str(_NODE), "--silent", "--no-audit", "--no-fund"), check=True)
        settle(_NODE, *_NODE_FILES)


def peers_python() -> Path | None:
    """Return the interpreter of the Python part; None where it is not installed."""
    return _python() if _python().exists() else None


def better_auth_modules() -> Path | None:
    """Return the folder of the Node part; None where it or Node is not installed."""
    folder = _NODE / "node_modules"
    return folder if folder.is_dir() and shutil.which("node") is not None else None


def versions() -> dict[str, str]:
    """Return the versions of the peers, and Node's own, as far as it is installed."""
    python, modules = peers_python(), better_auth_modules()
    found: dict[str, str] = {}
    if python is not None:
        asked = subprocess.run((python, "-c", _VERSIONS, *_NAMES), check=True, stdout=subprocess.PIPE, text=True)
        found |= json.loads(asked.stdout)
    if modules is not None:
        node = subprocess.run(("node", "--version"), check=True, stdout=subprocess.PIPE, text=True).stdout
        wanted = json.loads(_NODE_FILES[0].read_text(encoding="utf-8"))["dependencies"]
        found |= {"node": node.strip().removeprefix("v"), **wanted}
    return found


def _python() -> Path:
    return _PYTHON / "bin" / "python"
