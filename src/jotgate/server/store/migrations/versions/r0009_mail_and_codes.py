"""Mails that are to be sent, the one-time codes in them, second factors, and accounts that are disabled.

No session of a disabled account begins, nor one without a second factor where the account has one.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

_ADD_FAMILY = """
CREATE OR REPLACE FUNCTION jotgate_add_family(
    lock_class integer, lock_number integer, expected_hash text, dead_since bigint,
    new_id bytea, new_sid text, of_account text, new_client_id text, new_scopes text, new_generation bigint,
    new_mac_kid text, new_retired text, new_confirmed boolean, new_auth_time bigint, new_methods text,
    new_address text, new_device text, new_created_at bigint, new_seen_at bigint, new_idle_ends_at bigint,
    new_ends_at bigint, new_ended_at bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    added boolean;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock_class, lock_number);
    INSERT INTO jotgate_families (
        id, sid, account_id, client_id, scopes, generation, mac_kid, retired, confirmed, auth_time, methods, address,
        device, created_at, seen_at, idle_ends_at, ends_at, ended_at, born_seq
    )
    SELECT new_id, new_sid, of_account, new_client_id, new_scopes, new_generation, new_mac_kid, new_retired,
        new_confirmed, new_auth_time, new_methods, new_address, new_device, new_created_at, new_seen_at,
        new_idle_ends_at, new_ends_at, new_ended_at, (SELECT seq FROM jotgate_revocation_head)
    FROM jotgate_accounts AS account
    WHERE account.id = of_account AND account.password_hash = expected_hash AND account.disabled_at IS NULL
        AND (NOT account.second_factor OR ' ' || new_methods || ' ' LIKE '% mfa %')
    FOR SHARE OF account;
    added := FOUND;
    DELETE FROM jotgate_families AS family
    WHERE family.id IN (
        SELECT oldest.id
        FROM (
            SELECT each.id, each.ended_at, each.idle_ends_at
            FROM jotgate_families AS each
            WHERE each.account_id = of_account
            ORDER BY each.created_at
            LIMIT 16
        ) AS oldest
        WHERE oldest.ended_at <= dead_since OR oldest.idle_ends_at <= dead_since
    );
    RETURN added;
END
$$
"""


def upgrade() -> None:
    """Make the tables and the columns, and replace the function where the database is PostgreSQL."""
    op.add_column("jotgate_accounts", sa.Column("disabled_at", sa.BigInteger, nullable=True))
    version = sa.Column("credential_version", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    op.add_column("jotgate_accounts", version)
    op.add_column("jotgate_accounts", sa.Column("factors", _TEXT, nullable=False, server_default=sa.text("''")))
    asked_for = sa.Column("second_factor", sa.Boolean, nullable=False, server_default=sa.text("false"))
    op.add_column("jotgate_accounts", asked_for)
    op.create_table(
        "jotgate_codes",
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("purpose", _TEXT, nullable=False),
        sa.Column("account_id", _TEXT, nullable=False),
        sa.Column("email", _TEXT, nullable=False),
        sa.Column("email_identity", _TEXT, nullable=False),
        sa.Column("password_hash", _TEXT, nullable=False),
        sa.Column("credential_version", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="jotgate_codes_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("jotgate_codes_account_id_ix", "jotgate_codes", ["account_id"])
    op.create_index("jotgate_codes_email_identity_ix", "jotgate_codes", ["email_identity"])
    op.create_index("jotgate_codes_expires_at_ix", "jotgate_codes", ["expires_at"])
    op.create_table(
        "jotgate_outbox",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="jotgate_outbox_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("jotgate_outbox_due_at_ix", "jotgate_outbox", ["due_at"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_ADD_FAMILY)
