"""What the control plane answers. Times are RFC 3339 in UTC, shares basis points."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.control import examples
from app.control.schemas import RouteDocument
from app.db.keys import KeyRole
from app.db.timeline import Kind
from policies.types import Action, Phase, Verdict


def _like(example: examples.Example) -> ConfigDict:
    """The settings of an answer that is described by an example."""
    return ConfigDict(frozen=True, json_schema_extra={"examples": [example]})


class View(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class FieldError(View):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(View):
    """An error (RFC 9457), sent as application/problem+json."""

    model_config = _like(examples.PROBLEM)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


class Change(View):
    """One field of a route that a declaration changes."""

    field: str
    before: Any
    after: Any


class Kept(View):
    """One field that a declaration names but that stays, because a rollout has moved it since."""

    field: str
    current: Any
    declared: Any


class Applied(View):
    """What a declaration does to a route, or with `dry_run` would do. `document` is the route afterwards."""

    model_config = _like(examples.APPLIED)

    route: str
    created: bool
    dry_run: bool
    changes: list[Change]
    kept: list[Kept]
    document: RouteDocument


class Routes(View):
    """All routes."""

    model_config = _like(examples.ROUTES)

    routes: list[RouteDocument]


class StreakView(View):
    """Consecutive verdicts, and days without one."""

    winning: int
    losing: int
    frozen: int


class TrialView(View):
    """One challenger's run."""

    arm: str
    phase: Phase
    share: int
    started_at: datetime
    changed_at: datetime
    streak: StreakView
    judged_days: int
    judged_through: datetime | None


class Mode(StrEnum):
    """What divides unpinned traffic: weights, a bandit, or the champion alone while a bandit learns."""

    WEIGHTS = "weights"
    THOMPSON = "thompson"
    APPRENTICE = "apprentice"


class RolloutView(View):
    """Where a route's traffic stands."""

    model_config = _like(examples.ROLLOUT)

    route: str
    champion: str
    previous_champion: str | None
    phase: Phase
    mode: Mode
    weights: dict[str, int]
    suspended: bool
    kill_switch: bool
    epoch: int
    version: int
    goal: str | None
    trials: list[TrialView]


class IntervalView(View):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class ArmEvidence(IntervalView):
    """An arm's standardised mean over the judged days, with its number of values."""

    n: int


class GuardrailView(View):
    """What a guardrail said."""

    metric: str
    e_value: float
    limit: float
    breached: bool
    enough: bool
    champion_rate: float | None
    challenger_rate: float | None


class EvaluationView(View):
    """One run of the policy for one challenger: evidence, verdict, action."""

    id: int
    at: datetime
    kind: str
    day: str
    champion: str
    challenger: str
    verdict: Verdict
    reason: str
    action: Action
    streak: StreakView
    weights: dict[str, int] = Field(description="The shares that the run has read.")
    days: int | None
    threshold: float | None
    chance_to_beat: float | None
    expected_loss: float | None
    allowed_loss: float | None
    lift: IntervalView | None
    arms: dict[str, ArmEvidence]
    guardrails: list[GuardrailView]


class Evaluations(View):
    """Evaluations, newest first; `next` is the `before` of the next page."""

    model_config = _like(examples.EVALUATIONS)

    evaluations: list[EvaluationView]
    next: int | None


class EntryView(View):
    """One change of a route: what, who, why, on what evidence; champion and weights are those after it."""

    id: int
    at: datetime
    kind: Kind
    actor: str
    reason: str
    champion: str
    challenger: str | None
    weights: dict[str, int]
    epoch: int
    version: int
    evaluation: int | None
    evidence: Any = None


class Timeline(View):
    """Changes, newest first; `next` is the `before` of the next page."""

    model_config = _like(examples.TIMELINE)

    timeline: list[EntryView]
    next: int | None


class ChampionView(View):
    """Who was champion at a moment, since when and until when (null: still), and what made it so."""

    model_config = _like(examples.CHAMPION)

    route: str
    at: datetime
    champion: str
    since: datetime
    until: datetime | None
    crowned: EntryView


class MetricSums(View):
    """n values, their sum and mean."""

    n: int
    sum: float
    mean: float | None


class DayArm(View):
    """One arm's day. `deciding`: how many decisions may decide; `late`: what came after the verdict."""

    day: str
    arm: str
    decisions: int
    deciding: int
    metrics: dict[str, MetricSums]
    late: dict[str, MetricSums]


class Metrics(View):
    """Daily sums by assigned arm, oldest first."""

    model_config = _like(examples.METRICS)

    days: list[DayArm]


class KeyView(View):
    """An API key, without its secret."""

    model_config = _like(examples.KEY)

    id: int
    name: str
    role: KeyRole
    created_at: datetime


class Keys(View):
    """All API keys."""

    model_config = _like(examples.KEYS)

    keys: list[KeyView]


class CreatedKey(KeyView):
    """A new API key, with its secret, which is shown this once."""

    model_config = _like(examples.CREATED_KEY)

    key: str


class Ready(View):
    """Whether the control plane can serve, and which snapshot gateways should have."""

    model_config = _like(examples.READY)

    status: str
    snapshot: int
