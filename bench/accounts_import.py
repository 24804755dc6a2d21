"""How fast accounts of another program are brought in, in how much memory, and that their passwords still fit.

``python -m bench.accounts_import [--accounts N] [--json FILE]``. The real ``jotgate accounts import`` as a process of
its own, into SQLite; hashes are of six kinds, turn by turn. Then one account of each kind logs in, and has a hash of
Argon2id afterwards.
"""

import asyncio
import base64
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import msgspec
from argon2 import PasswordHasher

from bench.report import Report, Row, publish, run_options
from jotgate.server import Settings, create_app
from jotgate.server.flows.auditing import NOWHERE
from jotgate.server.flows.login import LoggedIn, login
from jotgate.server.limits import Asker
from jotgate.server.secret import Secret
from jotgate.server.store.sqlite import SqliteStore

PACKAGES = ("jotgate", "argon2-cffi", "bcrypt", "cryptography", "msgspec")
PASSWORD = "four plain words in a row"
_IMPORT = "import sys; from jotgate.cli import main; sys.exit(main())"


def hashes() -> dict[str, str]:
    """Return one hash of the password of each kind."""
    password, salt = PASSWORD.encode(), b"saltysalt"
    scrypt = hashlib.scrypt(password, salt=salt, n=2**15, r=8, p=1, dklen=64, maxmem=2**27).hex()
    their_salt = "ab" * 16
    better = hashlib.scrypt(password, salt=their_salt.encode(), n=2**14, r=16, p=1, dklen=64, maxmem=2**27).hex()
    pbkdf2 = hashlib.pbkdf2_hmac("sha256", password, salt, 600_000)
    return {
        "Argon2id": PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4).hash(PASSWORD),
        "bcrypt": bcrypt.hashpw(password, bcrypt.gensalt(12)).decode(),
        "Werkzeug's scrypt": f"scrypt:32768:8:1${salt.decode()}${scrypt}",
        "better-auth's scrypt": f"{their_salt}:{better}",
        "Django's PBKDF2": f"pbkdf2_sha256$600000${salt.decode()}${base64.b64encode(pbkdf2).decode()}",
        "Werkzeug's PBKDF2": f"pbkdf2:sha256:600000${salt.decode()}${pbkdf2.hex()}",
    }


def main() -> None:
    """Run it."""
    options = run_options("How fast accounts are brought in.", accounts=100_000)
    report = Report("accounts_import", PACKAGES)
    kinds = hashes()
    with tempfile.TemporaryDirectory() as folder:
        data, file = Path(folder) / "data", Path(folder) / "accounts.jsonl"
        with file.open("wb") as out:
            out.writelines(lines(kinds, options.accounts))
        data.mkdir(mode=0o700)
        store = SqliteStore(data / "jotgate.sqlite3")
        store.open()
        store.close_now()
        took_s = bring_in(file, data)
        peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        report.rows.append(Row.figure("accounts brought in", options.accounts))
        report.rows.append(Row.figure("accounts a second", options.accounts / took_s, "1/s"))
        report.rows.append(Row.figure("most memory of the process", peak_mib, "MiB"))
        for kind, ms in asyncio.run(log_in(data, list(kinds))).items():
            report.rows.append(Row.figure(f"first login, {kind}, replaced by Argon2id", ms, "ms"))
    publish(report, options.json)


def lines(kinds: dict[str, str], count: int) -> Iterator[bytes]:
    """Give a line for each account."""
    texts = list(kinds.values())
    for number in range(count):
        members = {"email": f"person{number}@example.com", "password_hash": texts[number % len(texts)]}
        yield msgspec.json.encode(members) + b"\n"


def bring_in(file: Path, data: Path) -> float:
    """Run the import; how many seconds it took, its start included."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOTGATE_")}
    began = time.perf_counter()
    command = [sys.executable, "-c", _IMPORT, "accounts", "import", str(file), "--data", str(data)]
    subprocess.run(command, check=True, env=environment)
    return time.perf_counter() - began


async def log_in(data: Path, kinds: list[str]) -> dict[str, float]:
    """Log in to the first account of each kind with its old password; how many milliseconds that took."""
    app = create_app(Settings(data_dir=data))
    deps = await asyncio.to_thread(app.start)
    times: dict[str, float] = {}
    for number, kind in enumerate(kinds):
        began = time.perf_counter()
        done = await login(deps, f"person{number}@example.com", Secret(PASSWORD), deps.clock(), NOWHERE, asker=Asker())
        assert isinstance(done, LoggedIn)
        times[kind] = (time.perf_counter() - began) * 1_000
        assert deps.passwords.is_current(done.account.password_hash), kind
    await asyncio.to_thread(app.close)
    return times


if __name__ == "__main__":
    main()
