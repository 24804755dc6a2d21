"""Runs one target under atheris, guided by the coverage of jotgate.core: `python -m tests.fuzz.with_atheris jwk`.

What follows the target's name goes to libFuzzer: a folder of inputs, `-max_total_time=600`. atheris has wheels for
Linux on x86_64 only, so that it is imported here and nowhere else.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["jotgate.core"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[sys.argv.pop(1)]

    def run(data: bytes) -> None:
        target(data)

    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
