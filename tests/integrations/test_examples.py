"""The examples in the docstrings are run as they stand."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["jotgate.integrations.fastapi", "jotgate.integrations.prometheus", "jotgate.integrations.starlette"]
)
def test_the_examples_do_what_they_show(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed
