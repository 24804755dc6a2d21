"""Where sessions come from, ends of many sessions at once, and the id of the log.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns with defaults that are true of old rows: an unknown place, a password, the beginning of the log."""
    op.add_column("jotgate_families", sa.Column("methods", TEXT, nullable=False, server_default="pwd"))
    op.add_column("jotgate_families", sa.Column("address", TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column("jotgate_families", sa.Column("device", TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column("jotgate_families", sa.Column("born_seq", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jotgate_revocation_head", sa.Column("log_id", TEXT, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "jotgate_cuts",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name="jotgate_cuts_pk"),
        sqlite_with_rowid=False,
    )
