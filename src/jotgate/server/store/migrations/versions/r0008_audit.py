"""The audit trail, and on PostgreSQL a login that adds its line in the same round trip.

Both functions of one name stay, told apart by their arguments: replicas of the version before go on during an upgrade.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_SETTINGS = sa.text("event = 'settings_changed'")

_ADD_FAMILY = """
CREATE FUNCTION jotgate_add_family(
    lock_class integer, lock_number integer, expected_hash text, dead_since bigint,
    new_id bytea, new_sid text, of_account text, new_client_id text, new_scopes text, new_generation bigint,
    new_mac_kid text, new_retired text, new_confirmed boolean, new_auth_time bigint, new_methods text,
    new_address text, new_device text, new_created_at bigint, new_seen_at bigint, new_idle_ends_at bigint,
    new_ends_at bigint, new_ended_at bigint,
    audit_at bigint, audit_event text, audit_actor text, audit_request_id text, audit_detail text
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    added boolean;
BEGIN
    added := jotgate_add_family(
        lock_class, lock_number, expected_hash, dead_since, new_id, new_sid, of_account, new_client_id, new_scopes,
        new_generation, new_mac_kid, new_retired, new_confirmed, new_auth_time, new_methods, new_address, new_device,
        new_created_at, new_seen_at, new_idle_ends_at, new_ends_at, new_ended_at
    );
    IF added THEN
        INSERT INTO jotgate_audit (at, event, actor, account_id, sid, address, device, request_id, detail)
        VALUES (
            audit_at, audit_event, audit_actor, of_account, new_sid, new_address, new_device, audit_request_id,
            audit_detail
        );
    END IF;
    RETURN added;
END
$$
"""


def upgrade() -> None:
    """Make the table, and the function where the database is PostgreSQL."""
    op.create_table(
        "jotgate_audit",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("event", _TEXT, nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("account_id", _TEXT, nullable=False),
        sa.Column("sid", _TEXT, nullable=False),
        sa.Column("address", _TEXT, nullable=False),
        sa.Column("device", _TEXT, nullable=False),
        sa.Column("request_id", _TEXT, nullable=False),
        sa.Column("detail", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="jotgate_audit_pk"),
        sqlite_autoincrement=True,
    )
    op.create_index("jotgate_audit_at_ix", "jotgate_audit", ["at"])
    op.create_index("jotgate_audit_account_id_id_ix", "jotgate_audit", ["account_id", "id"])
    op.create_index(
        "jotgate_audit_settings_ix",
        "jotgate_audit",
        ["id"],
        sqlite_where=_SETTINGS,
        postgresql_where=_SETTINGS,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_ADD_FAMILY)
