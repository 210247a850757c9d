"""Up to when each recorder has everything, and how far a log is laid out to be learnt anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of recorders, and the bandits' place in their logs."""
    op.create_table(
        "recorders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("through_ms", sa.BigInteger(), nullable=False),
        sa.Column("heard_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recorders")),
    )
    op.add_column("bandits", sa.Column("refill", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop them, with what they hold."""
    op.drop_column("bandits", "refill")
    op.drop_table("recorders")
