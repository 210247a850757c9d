"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_api_keys_name")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(length=28), nullable=False),
        sa.Column("route_id", sa.BigInteger(), nullable=False),
        sa.Column("assigned_arm_id", sa.BigInteger(), nullable=False),
        sa.Column("served_arm_id", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("propensity_bp", sa.Integer(), nullable=False),
        sa.Column("unit_hash", sa.String(length=16), nullable=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Boolean(), nullable=True),
        sa.Column("latency_ms", sa.Float(), nullable=True),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    op.create_index("ix_decisions_route_id_at_ms", "decisions", ["route_id", "at_ms"], unique=False)
    op.create_table(
        "outcomes",
        sa.Column("decision_id", sa.String(length=28), nullable=False),
        sa.Column("metric", sa.String(length=63), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "metric", "key", name=op.f("pk_outcomes")),
    )
    op.create_table(
        "rollups",
        sa.Column("route_id", sa.BigInteger(), nullable=False),
        sa.Column("day_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("arm_id", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.String(length=63), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("deciding", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("day_end_ms", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.String(length=32), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("sum", sa.Float(), nullable=False),
        sa.Column("sum_squares", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "route_id",
            "day_start_ms",
            "epoch",
            "arm_id",
            "metric",
            "bucket",
            "deciding",
            "late",
            name=op.f("pk_rollups"),
        ),
    )
    op.create_table(
        "routes",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_routes")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_routes_live_name",
        "routes",
        ["name"],
        unique=True,
        sqlite_where=sa.text("deleted_at_ms IS NULL"),
        postgresql_where=sa.text("deleted_at_ms IS NULL"),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "snapshot_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshot_versions")),
    )
    op.create_table(
        "spool_marks",
        sa.Column("spool_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("conflicts", sa.BigInteger(), nullable=False),
        sa.Column("unreadable", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("spool_id", name=op.f("pk_spool_marks")),
    )
    op.create_table(
        "allocations",
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("champion_id", sa.BigInteger(), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_allocations_route_id")),
        sa.PrimaryKeyConstraint("route_id", "epoch", name=op.f("pk_allocations")),
    )
    op.create_table(
        "arms",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("retired_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_arms_route_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arms")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_arms_route_id"), "arms", ["route_id"], unique=False)
    op.create_index(
        "uq_arms_live_name",
        "arms",
        ["route_id", "name"],
        unique=True,
        sqlite_where=sa.text("retired_at_ms IS NULL"),
        postgresql_where=sa.text("retired_at_ms IS NULL"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.String(length=32), nullable=False),
        sa.Column("day_start_ms", sa.BigInteger(), nullable=False),
        sa.Column("challenger", sa.String(length=63), nullable=False),
        sa.Column("champion", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=24), nullable=False),
        sa.Column("action", sa.String(length=24), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("trial_started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_evaluations_route_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint(
            "route_id",
            "challenger",
            "trial_started_at_ms",
            "kind",
            "day_start_ms",
            name=op.f("uq_evaluations_route_id_challenger_trial_started_at_ms_kind_day_start_ms"),
        ),
    )
    op.create_index("ix_evaluations_route_id_id", "evaluations", ["route_id", "id"], unique=False)
    op.create_table(
        "rollouts",
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("shares", sa.Text(), nullable=False),
        sa.Column("frozen_through_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_rollouts_route_id")),
        sa.PrimaryKeyConstraint("route_id", name=op.f("pk_rollouts")),
    )
    op.create_table(
        "timeline",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("route_id", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("champion", sa.String(length=63), nullable=False),
        sa.Column("challenger", sa.String(length=63), nullable=True),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("evaluation_id", _ID, nullable=True),
        sa.Column("evidence", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_timeline_evaluation_id")
        ),
        sa.ForeignKeyConstraint(["route_id"], ["routes.id"], name=op.f("fk_timeline_route_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timeline")),
    )
    op.create_index("ix_timeline_route_id_at_ms", "timeline", ["route_id", "at_ms"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    op.drop_index("ix_timeline_route_id_at_ms", table_name="timeline")
    op.drop_table("timeline")
    op.drop_table("rollouts")
    op.drop_index("ix_evaluations_route_id_id", table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_index(
        "uq_arms_live_name",
        table_name="arms",
        sqlite_where=sa.text("retired_at_ms IS NULL"),
        postgresql_where=sa.text("retired_at_ms IS NULL"),
    )
    op.drop_index(op.f("ix_arms_route_id"), table_name="arms")
    op.drop_table("arms")
    op.drop_table("allocations")
    op.drop_table("spool_marks")
    op.drop_table("snapshot_versions")
    op.drop_table("signing_keys")
    op.drop_index(
        "uq_routes_live_name",
        table_name="routes",
        sqlite_where=sa.text("deleted_at_ms IS NULL"),
        postgresql_where=sa.text("deleted_at_ms IS NULL"),
    )
    op.drop_table("routes")
    op.drop_table("rollups")
    op.drop_table("outcomes")
    op.drop_index("ix_decisions_route_id_at_ms", table_name="decisions")
    op.drop_table("decisions")
    op.drop_table("api_keys")
