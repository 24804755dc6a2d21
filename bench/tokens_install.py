"""Installs the libraries that jotgate is measured against beside the project's environment; knows nothing of tokens.

They go into `.venv/bench`, whose Python part is put at the end of `sys.path`: what both hold, such as `cryptography`,
is the project's own, and `requirements/bench.txt` is resolved to the same versions. The project's environment itself
stays as it is.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_HOME = _ROOT / ".venv" / "bench"
_PYTHON, _NODE = _HOME / "python", _HOME / "node"
_PINS = _ROOT / "requirements" / "bench.txt"
_NODE_FILES = (_ROOT / "bench" / "package.json", _ROOT / "bench" / "package-lock.json")


def install_peers() -> None:
    """Bring both parts up to date, the Node part where npm is found. Takes seconds the first time, then nothing."""
    if is_outdated(_PYTHON, _PINS):
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes")
        subprocess.run((*pip, "--target", str(_PYTHON), "-r", str(_PINS)), check=True)
        settle(_PYTHON, _PINS)
    npm = shutil.which("npm")
    if npm is not None and is_outdated(_NODE, *_NODE_FILES):
        for file in _NODE_FILES:
            shutil.copy(file, _NODE)
        subprocess.run((npm, "ci", "--prefix", str(_NODE), "--silent", "--no-audit", "--no-fund"), check=True)
        settle(_NODE, *_NODE_FILES)


def add_to_path() -> None:
    """Let this process import the Python part."""
    if _PYTHON.is_dir() and str(_PYTHON) not in sys.path:
        sys.path.append(str(_PYTHON))


def node_modules() -> Path | None:
    """Return the folder of the Node part; None where it is not installed."""
    folder = _NODE / "node_modules"
    return folder if folder.is_dir() else None


def is_outdated(folder: Path, *sources: Path) -> bool:
    """Empty the folder if it was filled from other sources."""
    marker = folder / ".filled-from"
    if marker.is_file() and marker.read_text(encoding="ascii") == _digest(*sources):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return True


def settle(folder: Path, *sources: Path) -> None:
    (folder / ".filled-from").write_text(_digest(*sources), encoding="ascii")


def _digest(*sources: Path) -> str:
    hashed = hashlib.sha256(sys.version.encode())
    for source in sources:
        hashed.update(source.read_bytes())
    return hashed.hexdigest()
