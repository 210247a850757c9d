"""Which decisions gave a unit the arm of an earlier one, and when that was."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the moment to decisions."""
    op.add_column("decisions", sa.Column("first_at_ms", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("decisions", "first_at_ms")
