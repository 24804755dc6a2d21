"""The browser client against a real server, under `node --test`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Need, RunningServer

HERE = Path(__file__).parent
WITHIN_S = 180  # only a test that hangs waits so long


@pytest.mark.parametrize("tests", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_it_keeps_its_promises(server: RunningServer, need: Need, tests: str) -> None:
    ran = subprocess.run(
        [need("node"), "--test", HERE / tests],
        env=os.environ | {"SERVER_URL": server.url, "NODE_EXTRA_CA_CERTS": str(server.ca_file)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
