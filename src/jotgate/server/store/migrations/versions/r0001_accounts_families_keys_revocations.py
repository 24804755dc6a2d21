"""Accounts, sessions with their refresh-token families, sealed keys, and the revocation log.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the first tables, and the one row that counts revocations."""
    op.create_table(
        "jotgate_accounts",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("email", TEXT, nullable=False),
        sa.Column("email_identity", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="jotgate_accounts_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("jotgate_accounts_email_identity_uq", "jotgate_accounts", ["email_identity"], unique=True)
    op.create_table(
        "jotgate_families",
        sa.Column("id", sa.LargeBinary, nullable=False),
        sa.Column("sid", TEXT, nullable=False),
        sa.Column("account_id", TEXT, nullable=False),
        sa.Column("client_id", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("mac_kid", TEXT, nullable=False),
        sa.Column("retired", TEXT, nullable=False),
        sa.Column("confirmed", sa.Boolean, nullable=False),
        sa.Column("auth_time", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("idle_ends_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("id", name="jotgate_families_pk"),
        sa.ForeignKeyConstraint(["account_id"], ["jotgate_accounts.id"], name="jotgate_families_account_id_fk"),
        sqlite_with_rowid=False,
    )
    op.create_index("jotgate_families_sid_uq", "jotgate_families", ["sid"], unique=True)
    op.create_index("jotgate_families_account_id_ix", "jotgate_families", ["account_id"])
    op.create_table(
        "jotgate_keys",
        sa.Column("kid", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kid", name="jotgate_keys_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "jotgate_revocations",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="jotgate_revocations_pk"),
    )
    head = op.create_table(
        "jotgate_revocation_head",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="jotgate_revocation_head_pk"),
        sa.CheckConstraint("id = 1", name=op.f("jotgate_revocation_head_one_row_ck")),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0}])
