"""A kit for each test, and what a refusal has to look like everywhere."""

from __future__ import annotations

import pytest

from jotgate.testing import TestAuth


@pytest.fixture
def kit() -> TestAuth:
    return TestAuth(audience="api")
