"""An index that finds dead entries of the log, so that pruning does not look through a long one.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("jotgate_revocations_until_ix", "jotgate_revocations", ["until"])
