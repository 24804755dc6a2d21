"""An index that finds the oldest sessions of an account, so that a login need not look through all of them.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index of accounts by one that goes on with the time of the login."""
    op.create_index("jotgate_families_account_id_created_at_ix", "jotgate_families", ["account_id", "created_at"])
    op.drop_index("jotgate_families_account_id_ix", table_name="jotgate_families")
