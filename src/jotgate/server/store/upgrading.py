"""What bringing a schema up to date means for every database: which revisions are known here, and Alembic's part.

The caller has the lock and the transaction, and commits. Alembic is loaded only when there is something to do.
"""

from pathlib import Path

from sqlalchemy import Connection

from jotgate.core.errors import SettingsError
from jotgate.server.store.schema import HEAD, REVISIONS


def check_revision(revision: str) -> None:
    """Raises `SettingsError` for the schema of another, newer version of jotgate."""
    if revision not in REVISIONS:
        fault = (
            f"the database is of a newer jotgate (its schema is {revision}, this one knows {HEAD}): "
            "upgrade jotgate, or restore the backup made before the upgrade"
        )
        raise SettingsError((fault,))


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, inside the transaction that is open on the connection."""
    # Loaded here because it takes a third of a second, and only the first start after an upgrade needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    command.upgrade(config, HEAD)
