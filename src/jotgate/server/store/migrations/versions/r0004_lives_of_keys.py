"""The lives of keys: whose they are, since when they sign, verify only or are gone; and a number that tells changes.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns. A key of before signs since it was made; the server that starts next makes it its issuer's.

    The `kid` of a key pair of before is its thumbprint. A secret's is random, and stands for a thumbprint as well.
    """
    op.add_column("jotgate_keys", sa.Column("issuer", TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column("jotgate_keys", sa.Column("thumbprint", TEXT, nullable=False, server_default=sa.text("''")))
    for name in ("activated_at", "retired_at", "revoked_at", "removed_at"):
        op.add_column("jotgate_keys", sa.Column(name, sa.BigInteger, nullable=True))
    op.execute("UPDATE jotgate_keys SET thumbprint = kid, activated_at = created_at")
    op.create_index("jotgate_keys_thumbprint_uq", "jotgate_keys", ["thumbprint"], unique=True)
    op.add_column(
        "jotgate_revocation_head", sa.Column("keys_version", sa.BigInteger, nullable=False, server_default="0")
    )
