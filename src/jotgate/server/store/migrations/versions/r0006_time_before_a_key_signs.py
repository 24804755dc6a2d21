"""How long a key has to be published before it signs, as it was announced when the key was made.

Written out and not taken from `store.schema`: a migration says what was true when it was made.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the time; keys of before wait as long as the settings of now say."""
    op.add_column("jotgate_keys", sa.Column("ahead_s", sa.BigInteger, nullable=False, server_default=sa.text("0")))
