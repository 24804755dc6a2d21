"""Which store a server's settings mean. Opens nothing."""

from jotgate.server.settings import Settings
from jotgate.server.store import Store
from jotgate.server.store.sqlite import SqliteStore


def make_store(settings: Settings) -> Store:
    """Return the store of the settings, which is still to be opened."""
    url = settings.shared_database
    if url is None:
        return SqliteStore(settings.sqlite_path)
    # Imported here because its driver is there only with the extra `postgres`; the settings have checked that it is.
    from jotgate.server.store.postgres import PostgresStore  # noqa: PLC0415

    return PostgresStore(url)
