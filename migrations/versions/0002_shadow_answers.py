"""What shadow arms answered, beside the primary's answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of shadow copies."""
    op.create_table(
        "shadow_answers",
        sa.Column("decision_id", sa.String(length=28), nullable=False),
        sa.Column("arm_id", sa.BigInteger(), nullable=False),
        sa.Column("route_id", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("failure", sa.String(length=16), nullable=True),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("body_hash", sa.String(length=32), nullable=True),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("predictions", sa.Text(), nullable=False),
        sa.Column("primary_arm_id", sa.BigInteger(), nullable=True),
        sa.Column("primary_status", sa.Integer(), nullable=True),
        sa.Column("primary_latency_ms", sa.Float(), nullable=True),
        sa.Column("primary_body_hash", sa.String(length=32), nullable=True),
        sa.Column("primary_body_bytes", sa.BigInteger(), nullable=True),
        sa.Column("primary_predictions", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "arm_id", name=op.f("pk_shadow_answers")),
    )
    op.create_index(
        "ix_shadow_answers_route_id_arm_id_at_ms",
        "shadow_answers",
        ["route_id", "arm_id", "at_ms"],
        unique=False,
    )


def downgrade() -> None:
    """Drop it, with what it holds."""
    op.drop_index("ix_shadow_answers_route_id_arm_id_at_ms", table_name="shadow_answers")
    op.drop_table("shadow_answers")
