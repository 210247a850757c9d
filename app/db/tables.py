"""The tables, in portable SQL types: SQLite and PostgreSQL hold the same. Times are Unix milliseconds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

NAME_LENGTH = 63
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

DECISIONS = ""
"""The rollups' metric that counts decisions: n of them, of which `sum` were served by the assigned arm."""

metadata = MetaData(naming_convention=_NAMES)

_Id = BigInteger().with_variant(Integer, "sqlite")

snapshot_versions = Table(
    "snapshot_versions",
    metadata,
    Column("id", Integer, primary_key=True),  # one row, id 1
    Column("version", BigInteger, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("name", String(NAME_LENGTH), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_at_ms", BigInteger, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),  # never reused: tokens carry it
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("spec", Text, nullable=False),  # the declaration, JSON, without arms and split
    Column("created_at_ms", BigInteger, nullable=False),
    Column("deleted_at_ms", BigInteger),
    Index(
        "uq_routes_live_name",
        "name",
        unique=True,
        sqlite_where=text("deleted_at_ms IS NULL"),
        postgresql_where=text("deleted_at_ms IS NULL"),
    ),
    sqlite_autoincrement=True,
)

arms = Table(
    "arms",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),  # never reused: tokens carry it
    Column("route_id", ForeignKey(routes.c.id), nullable=False, index=True),
    Column("name", String(NAME_LENGTH), nullable=False),
    Column("spec", Text, nullable=False),  # url, labels, headers, JSON
    Column("created_at_ms", BigInteger, nullable=False),
    Column("retired_at_ms", BigInteger),
    Index(
        "uq_arms_live_name",
        "route_id",
        "name",
        unique=True,
        sqlite_where=text("retired_at_ms IS NULL"),
        postgresql_where=text("retired_at_ms IS NULL"),
    ),
    sqlite_autoincrement=True,
)

overrides = Table(
    "overrides",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),  # never reused: decisions carry it
    Column("route_id", ForeignKey(routes.c.id), nullable=False),
    Column("arm_id", ForeignKey(arms.c.id), nullable=False),
    Column("spec", Text, nullable=False),  # conditions, share, priority, JSON
    Column("author", String(80), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),  # removed, or expired and noted on the timeline
    Index("ix_overrides_route_id_ended_at_ms", "route_id", "ended_at_ms"),
    Index(
        "ix_overrides_live_expires_at_ms",
        "expires_at_ms",
        sqlite_where=text("ended_at_ms IS NULL"),
        postgresql_where=text("ended_at_ms IS NULL"),
    ),
    sqlite_autoincrement=True,
)

override_matches = Table(
    "override_matches",
    metadata,
    Column("override_id", BigInteger, primary_key=True),
    Column("hour_start_ms", BigInteger, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
)

bandits = Table(
    "bandits",
    metadata,
    Column("route_id", ForeignKey(routes.c.id), primary_key=True),
    Column("version", BigInteger, nullable=False),  # compare-and-set
    Column("meaning", String(64), nullable=False),  # of what the sums are sums: they go when it changes
    Column("begun_at_ms", BigInteger, nullable=False),  # when it began to learn from nothing
    Column("learned_at_ms", BigInteger, nullable=False),
    Column("caught_up", Boolean, nullable=False),  # what was due has been learnt once: gateways may know
    Column("published_version", BigInteger, nullable=False),  # of what gateways know; 0: of nothing yet
    Column("published_at_ms", BigInteger, nullable=False),
    Column("unusable", BigInteger, nullable=False),  # mature decisions from which nothing could be learnt
    Column("apprentice", Text, nullable=False),  # what an apprentice would have done, JSON
    Column("refill", Text),  # how far its log is laid out to be learnt anew, JSON; null: all of it
)

bandit_arms = Table(
    "bandit_arms",
    metadata,
    Column("route_id", ForeignKey(routes.c.id), primary_key=True),
    Column("arm_id", ForeignKey(arms.c.id), primary_key=True),
    Column("pulls", BigInteger, nullable=False),  # decisions for which the bandit chose it
    Column("sums", LargeBinary),  # routing.linear_model.Sums; null: nothing was learnt of it
)

bandit_pending = Table(
    "bandit_pending",
    metadata,
    Column("decision_id", String(28), primary_key=True),
    Column("route_id", BigInteger, nullable=False),
    Column("due_at_ms", BigInteger, nullable=False),  # when its reward is mature
    Index("ix_bandit_pending_route_id_due_at_ms", "route_id", "due_at_ms"),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("route_id", ForeignKey(routes.c.id), primary_key=True),
    Column("version", BigInteger, nullable=False),  # compare-and-set
    Column("state", Text, nullable=False),  # policies.lifecycle.Rollout, JSON
    Column("shares", Text, nullable=False),  # division of the 10,000 buckets, JSON
    Column("frozen_through_ms", BigInteger, nullable=False),  # days that end by then have been judged
)

allocations = Table(
    "allocations",
    metadata,
    Column("route_id", ForeignKey(routes.c.id), primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("champion_id", BigInteger, nullable=False),
    Column("weights", Text, nullable=False),  # arm id → bp, JSON
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", String(28), primary_key=True),
    Column("route_id", BigInteger, nullable=False),
    Column("assigned_arm_id", BigInteger, nullable=False),
    Column("served_arm_id", BigInteger),
    Column("epoch", BigInteger, nullable=False),
    Column("snapshot", BigInteger, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("propensity_bp", Integer, nullable=False),
    Column("unit_hash", String(16)),  # hexadecimal; null: the request was its own unit
    Column("at_ms", BigInteger, nullable=False),
    Column("status", Integer),
    Column("error", Boolean),
    Column("latency_ms", Float),
    Column("complete", Boolean, nullable=False),  # false: no more is known than a token says
    Column("override_id", BigInteger),  # of the override that pinned it
    Column("considered_bp", Integer),  # with which probability an apprentice would have chosen its arm
    Column("first_at_ms", BigInteger),  # of the decision whose arm its unit keeps; null: it is none of those
    Index("ix_decisions_route_id_at_ms", "route_id", "at_ms"),
)

contexts = Table(
    "contexts",
    metadata,
    Column("decision_id", String(28), primary_key=True),
    Column("route_id", BigInteger, nullable=False),
    Column("schema_version", BigInteger, nullable=False),  # of the declaration by which it was read
    Column("features", Text, nullable=False),  # those that were there and valid, JSON
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("decision_id", String(28), primary_key=True),
    Column("metric", String(NAME_LENGTH), primary_key=True),
    Column("key", String(256), primary_key=True),  # as long as the gateway takes one
    Column("value", Float, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("received_at_ms", BigInteger, nullable=False),
    Column("event", String(64), nullable=False),
)

rollups = Table(
    "rollups",
    metadata,
    Column("route_id", BigInteger, primary_key=True),
    Column("day_start_ms", BigInteger, primary_key=True),
    Column("epoch", BigInteger, primary_key=True),
    Column("arm_id", BigInteger, primary_key=True),
    Column("metric", String(NAME_LENGTH), primary_key=True),
    Column("bucket", Integer, primary_key=True),
    Column("deciding", Boolean, primary_key=True),  # assigned by the split, so evidence
    Column("late", Boolean, primary_key=True),  # came after its day was judged: shown apart
    Column("day_end_ms", BigInteger, nullable=False),
    Column("day", String(32), nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("sum", Float, nullable=False),
    Column("sum_squares", Float, nullable=False),
)

shadow_answers = Table(
    "shadow_answers",
    metadata,
    Column("decision_id", String(28), primary_key=True),
    Column("arm_id", BigInteger, primary_key=True),  # the shadow arm that got a copy
    Column("route_id", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),  # when both answers were known
    Column("status", Integer),
    Column("failure", String(16)),  # null: the answer is whole
    Column("latency_ms", Float, nullable=False),
    Column("body_hash", String(32)),
    Column("body_bytes", BigInteger, nullable=False),
    Column("predictions", Text, nullable=False),  # name → number, label or null, JSON
    Column("primary_arm_id", BigInteger),  # null: no arm answered the caller
    Column("primary_status", Integer),
    Column("primary_latency_ms", Float),
    Column("primary_body_hash", String(32)),
    Column("primary_body_bytes", BigInteger),
    Column("primary_predictions", Text, nullable=False),
    Index("ix_shadow_answers_route_id_arm_id_at_ms", "route_id", "arm_id", "at_ms"),
)

spool_marks = Table(
    "spool_marks",
    metadata,
    Column("spool_id", String(32), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False),  # repeats with another value
    Column("unreadable", BigInteger, nullable=False),  # events that could not be read or attributed
)

recorders = Table(
    "recorders",
    metadata,
    Column("id", String(32), primary_key=True),  # of the folder whose spools it reads
    Column("through_ms", BigInteger, nullable=False),  # all that is older is in the database; 0: who knows
    Column("heard_at_ms", BigInteger, nullable=False),  # when it last tried
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("route_id", ForeignKey(routes.c.id), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("day", String(32), nullable=False),
    Column("day_start_ms", BigInteger, nullable=False),
    Column("challenger", String(NAME_LENGTH), nullable=False),
    Column("champion", String(NAME_LENGTH), nullable=False),
    Column("verdict", String(24), nullable=False),
    Column("action", String(24), nullable=False),
    Column("version", BigInteger, nullable=False),  # the rollout's, which this run read
    Column("trial_started_at_ms", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),  # day or guardrail
    Column("record", Text, nullable=False),  # the whole evidence, frozen, JSON
    UniqueConstraint("route_id", "challenger", "trial_started_at_ms", "kind", "day_start_ms"),
    Index("ix_evaluations_route_id_id", "route_id", "id"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("route_id", ForeignKey(routes.c.id), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("actor", String(80), nullable=False),
    Column("reason", Text, nullable=False),
    Column("champion", String(NAME_LENGTH), nullable=False),
    Column("challenger", String(NAME_LENGTH)),
    Column("weights", Text, nullable=False),  # arm name → bp, JSON
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("evaluation_id", ForeignKey(evaluations.c.id)),
    Column("evidence", Text),
    Index("ix_timeline_route_id_at_ms", "route_id", "at_ms"),
)
