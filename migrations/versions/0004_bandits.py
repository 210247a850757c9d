"""What bandits have learnt, and the decisions from which they are still to learn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of bandits."""
    op.create_table(
        "bandits",
        sa.Column("route_id", _Id, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("meaning", sa.String(length=64), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("learned_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("caught_up", sa.Boolean(), nullable=False),
        sa.Column("published_version", sa.BigInteger(), nullable=False),
        sa.Column("published_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("unusable", sa.BigInteger(), nullable=False),
        sa.Column("apprentice", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_bandits_route_id_routes")),
        sa.PrimaryKeyConstraint("route_id", name=op.f("pk_bandits")),
    )
    op.create_table(
        "bandit_arms",
        sa.Column("route_id", _Id, nullable=False),
        sa.Column("arm_id", _Id, nullable=False),
        sa.Column("pulls", sa.BigInteger(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_bandit_arms_route_id_routes")),
        sa.ForeignKeyConstraint(["arm_id"], ["arms.id"], name=op.f("fk_bandit_arms_arm_id_arms")),
        sa.PrimaryKeyConstraint("route_id", "arm_id", name=op.f("pk_bandit_arms")),
    )
    op.create_table(
        "bandit_pending",
        sa.Column("decision_id", sa.String(length=28), nullable=False),
        sa.Column("route_id", sa.BigInteger(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_bandit_pending")),
    )
    op.create_index(
        "ix_bandit_pending_route_id_due_at_ms", "bandit_pending", ["route_id", "due_at_ms"], unique=False
    )
    op.add_column("decisions", sa.Column("considered_bp", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Drop them, with what they hold."""
    op.drop_column("decisions", "considered_bp")
    op.drop_index("ix_bandit_pending_route_id_due_at_ms", table_name="bandit_pending")
    op.drop_table("bandit_pending")
    op.drop_table("bandit_arms")
    op.drop_table("bandits")
