"""`import jotgate` is for services that only check tokens: it brings in nothing of the server."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = {
    "alembic",
    "argon2",
    "asyncio",
    "fastapi",
    "granian",
    "http.client",
    "jinja2",
    "jotgate.cli",
    "jotgate.integrations",
    "jotgate.server",
    "jotgate.testing",
    "jotgate.throttle",
    "jotgate.verifier",
    "logging",
    "pydantic",
    "rich",
    "socket",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "starlette",
    "structlog",
    "typer",
    # parts of cryptography that no token needs
    "cryptography.hazmat.primitives.serialization.ssh",
    "cryptography.x509",
}


def modules_after(code: str) -> set[str]:
    """The modules loaded in a fresh interpreter by `code` alone."""

    def run(source: str) -> set[str]:
        source += "; import sys; print(' '.join(sys.modules))"
        answer = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
        return set(answer.stdout.split())

    return run(code) - run("pass")


def test_importing_jotgate_imports_nothing_of_the_server() -> None:
    loaded = modules_after("import jotgate")
    assert "jotgate.core.token" in loaded
    assert not loaded & FORBIDDEN


def test_every_public_name_is_there_and_the_verifier_comes_when_it_is_asked_for() -> None:
    loaded = modules_after("import jotgate; [getattr(jotgate, name) for name in jotgate.__all__]")
    assert "jotgate.verifier" in loaded
    assert not {name for name in loaded if name.startswith(("jotgate.server", "starlette", "sqlalchemy"))}


def test_limits_need_no_redis_before_they_are_counted_there() -> None:
    loaded = modules_after("import jotgate.throttle")
    assert not {name for name in loaded if name.split(".")[0] in {"asyncio", "redis", "starlette", "ssl"}}
    loaded = modules_after("from jotgate.throttle import RedisStore, FallbackStore")
    assert {"redis", "jotgate.throttle.fallback"} <= loaded


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    import jotgate
    import jotgate.throttle
    from jotgate.verifier import Verifier

    assert jotgate.Verifier is Verifier
    assert not hasattr(jotgate, "nothing")
    assert not hasattr(jotgate.throttle, "nothing")
