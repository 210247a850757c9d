"""Overrides, what each has matched, and the context of decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of overrides and contexts."""
    op.create_table(
        "overrides",
        sa.Column("id", _Id, autoincrement=True, nullable=False),
        sa.Column("route_id", _Id, nullable=False),
        sa.Column("arm_id", _Id, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_overrides_route_id_routes")),
        sa.ForeignKeyConstraint(["arm_id"], ["arms.id"], name=op.f("fk_overrides_arm_id_arms")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_overrides")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_overrides_route_id_ended_at_ms", "overrides", ["route_id", "ended_at_ms"], unique=False
    )
    op.create_index(
        "ix_overrides_live_expires_at_ms",
        "overrides",
        ["expires_at_ms"],
        unique=False,
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.create_table(
        "override_matches",
        sa.Column("override_id", sa.BigInteger(), nullable=False),
        sa.Column("hour_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("last_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("override_id", "hour_start_ms", name=op.f("pk_override_matches")),
    )
    op.create_table(
        "contexts",
        sa.Column("decision_id", sa.String(length=28), nullable=False),
        sa.Column("route_id", sa.BigInteger(), nullable=False),
        sa.Column("schema_version", sa.BigInteger(), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name=op.f("pk_contexts")),
    )
    op.add_column("decisions", sa.Column("override_id", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Drop them, with what they hold."""
    op.drop_column("decisions", "override_id")
    op.drop_table("contexts")
    op.drop_table("override_matches")
    op.drop_index(
        "ix_overrides_live_expires_at_ms",
        table_name="overrides",
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.drop_index("ix_overrides_route_id_ended_at_ms", table_name="overrides")
    op.drop_table("overrides")
