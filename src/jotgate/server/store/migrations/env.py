"""What Alembic runs for a migration: on the connection it is handed, inside the transaction that is already open.

The caller holds the lock and commits, so that a migration happens once and whole, or not at all.
"""

from alembic import context

from jotgate.server.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
