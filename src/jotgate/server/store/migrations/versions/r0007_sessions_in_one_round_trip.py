"""Functions by which PostgreSQL begins a session, and moves one on, in one round trip each.

A statement sees what was committed before it began, and must begin after the lock is held: so two statements, and, for
one round trip, a function around them. SQLite has no round trips to save, and no functions.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ADVANCE_FAMILY = """
CREATE FUNCTION jotgate_advance_family(
    lock_class integer, lock_number integer, of_family bytea, expected_generation bigint,
    new_generation bigint, new_mac_kid text, new_retired text, new_confirmed boolean, new_seen_at bigint,
    new_idle_ends_at bigint
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock_class, lock_number);
    UPDATE jotgate_families AS family
    SET generation = new_generation, mac_kid = new_mac_kid, retired = new_retired, confirmed = new_confirmed,
        seen_at = new_seen_at, idle_ends_at = new_idle_ends_at
    WHERE family.id = of_family AND family.generation = expected_generation AND family.ended_at IS NULL
        AND NOT EXISTS (
            SELECT FROM jotgate_cuts AS cut
            WHERE cut.seq > family.born_seq
                AND (cut.kind = 'all' OR (cut.kind = 'client' AND cut.id = family.client_id))
        );
    RETURN FOUND;
END
$$
"""
_ADD_FAMILY = """
CREATE FUNCTION jotgate_add_family(
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
    WHERE account.id = of_account AND account.password_hash = expected_hash
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
    """Make the functions, where the database is PostgreSQL."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_ADVANCE_FAMILY)
        op.execute(_ADD_FAMILY)
