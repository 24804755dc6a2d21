"""The authorization server: accounts, sessions and tokens behind an ASGI app, run alone or mounted in another app.

Nothing outside this package and the command line may import it: `import jotgate` must stay light.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jotgate.server.app import AuthApp, create_app
    from jotgate.server.settings import Settings

__all__ = ["AuthApp", "Settings", "create_app"]


def __getattr__(name: str) -> object:
    """Load the app when it is asked for: the command line uses parts of the server that need no database."""
    if name in {"AuthApp", "create_app"}:
        from jotgate.server import app  # noqa: PLC0415 - see above

        return getattr(app, name)
    if name == "Settings":
        from jotgate.server.settings import Settings  # noqa: PLC0415 - see above

        return Settings
    raise AttributeError(f"module 'jotgate.server' has no attribute {name!r}")
