"""Which arm would a request get, and why? What gateways would do, with every step of their precedence."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple, assert_never

from pydantic import ConfigDict, Field

from app.control import examples
from app.control.presentation import moment
from app.control.questions import Question
from app.control.views import View
from app.db.overrides import StoredOverride
from app.gateway.deciding import GONE
from app.stores.first_arms import Store, StoreUnavailable, key_of
from routing.assignment import Asked, Assignment, Draw, Plan, default
from routing.bucketing import unit_hash
from routing.features import Value
from routing.first_arm import FirstArm, decoded
from routing.overrides import Miss, Outcome, Step
from routing.rules import TOTAL_SHARE_BP, Op, Override
from routing.types import SERVING, TOTAL_BP, Choice, Reason, Route, certain

OverrideOutcome = Literal["matched", "preceded", "drawn", "expired", "condition", "share", "arm_not_serving"]
FirstArmOutcome = Literal["matched", "preceded", "lapsed", "none", "unknown"]
_HOLDS = (Outcome.MATCHED, Outcome.PRECEDED)
_STORE_SECONDS = 1.0


class KillSwitchStep(View):
    """First: the kill switch, which sends everybody to the champion."""

    step: Literal["kill_switch"] = "kill_switch"
    outcome: Literal["on", "off"]


class ForcedArmStep(View):
    """Second: the arm that the request asks for."""

    step: Literal["forced_arm"] = "forced_arm"
    outcome: Literal["matched", "preceded", "not_asked", "not_allowed", "unknown_arm", "not_serving"]
    arm: str | None = None


class MissView(View):
    """The first condition that did not hold, counted from 0; of many values the first 8 are shown."""

    condition: int
    attribute: str
    op: Op
    values: list[Value]
    value: Value | None = Field(default=None, description="What the request has there; null: nothing.")


class OverrideStep(View):
    """Third: each override in turn. `drawn`: without a unit, where it pins some requests and not others."""

    step: Literal["override"] = "override"
    override: int
    arm: str
    priority: int
    outcome: OverrideOutcome
    miss: MissView | None = Field(default=None, description="With the outcome `condition`.")
    share: int
    bucket: int | None = Field(default=None, description="Of the unit, where not everybody is pinned.")
    chance: float | None = Field(default=None, description="With the outcome `drawn`: that it pins.")


class FirstArmStep(View):
    """Fourth, where units keep their first arms: the one that this unit got, and since when it has had it.

    `lapsed`: it does not keep it any more; `unknown`: the store does not say.
    """

    step: Literal["first_arm"] = "first_arm"
    outcome: FirstArmOutcome
    arm: str | None = None
    since: datetime | None = None


class ShareView(View):
    """The buckets from `start` up to `end`, which is not among them, and whose they are."""

    arm: str
    start: int
    end: int


class SplitStep(View):
    """Last: the split, by the bucket of the unit. Without a unit, and by a bandit, it is drawn."""

    step: Literal["split"] = "split"
    outcome: Literal["matched", "preceded", "drawn"]
    bucket: int | None = None
    share: ShareView | None = None


AnyStep = Annotated[
    KillSwitchStep | ForcedArmStep | OverrideStep | FirstArmStep | SplitStep, Field(discriminator="step")
]


class ContextView(View):
    """The context as gateways read it: what is there and valid, what is missing, and what is not declared."""

    values: dict[str, Value]
    missing: list[str]
    unknown: list[str]


class DryRun(View):
    """Which arm a request would get, and why; null where only a draw of its own would tell.

    One step is `matched`, or `on`, unless some are `drawn`. Those that are `preceded` would have matched, had
    none before them.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [examples.DRY_RUN_ANSWER]})

    route: str
    at: datetime
    unit: str | None = None
    arm: str | None
    reason: Reason | None
    propensity: float | None
    probabilities: dict[str, float]
    override: int | None = None
    context: ContextView
    steps: list[AnyStep]


class Kept(NamedTuple):
    """What the store says that a unit got first, if it is known."""

    is_known: bool
    first: FirstArm | None = None


UNKNOWN = Kept(is_known=False)


async def kept_by(store: Store | None, route: Route, unit: str | None) -> Kept:
    """What a unit got first, as gateways would ask for it."""
    if store is None or unit is None or route.first_arm_ms is None:
        return UNKNOWN
    try:
        async with asyncio.timeout(_STORE_SECONDS):
            value = await store.find(key_of(route.id, unit_hash(route.salt, unit)))
    except (StoreUnavailable, TimeoutError):
        return UNKNOWN
    return Kept(is_known=True, first=None if value is None else decoded(value))


class Way(NamedTuple):
    """One way in which it may come out, and its chance."""

    chance: Fraction
    choice: Choice
    override_id: int | None = None

    def is_drawn(self, asked: Asked) -> bool:
        """Whether a draw of the request's own would tell which arm it is."""
        if isinstance(self.choice, Assignment) and self.choice.first is not None:
            return False
        by_unit = asked.unit is not None and self.choice.reason is not Reason.BANDIT
        return self.choice.propensity_bp < TOTAL_BP and not by_unit


def explain(plan: Plan, question: Question, stored: Sequence[StoredOverride], kept: Kept = UNKNOWN) -> DryRun:
    """What comes of a question. `stored`: the route's overrides, also those of arms that serve nobody.

    `kept`: what the unit got first, which decides where the route says so.
    """
    asked = Asked(
        question.unit,
        0,
        question.forced,
        question.at_ms,
        subject=question.subject,
        context=question.context,
    )
    if kept.first is not None and not _lasts(kept.first, plan.route, question.at_ms):
        kept = Kept(is_known=True)
    asked.first = kept.first
    trace = _trace(plan, asked)
    ways = _ways(plan, asked, trace)
    only = ways[0] if len(ways) == 1 else None
    settled = None if only is None or only.is_drawn(asked) else only.choice
    return DryRun(
        route=plan.route.name,
        at=moment(question.at_ms),
        unit=question.unit,
        arm=None if settled is None else settled.arm.name,
        reason=None if only is None else only.choice.reason,
        propensity=None if settled is None else settled.propensity_bp / TOTAL_BP,
        probabilities=_probabilities(plan, ways),
        override=None if only is None else only.override_id,
        context=_context_view(plan, question),
        steps=list(_steps(plan, asked, trace, ways, stored, kept)),
    )


def _lasts(first: FirstArm, route: Route, at_ms: int) -> bool:
    return route.first_arm_ms is not None and at_ms < first.at_ms + route.first_arm_ms


def _trace(plan: Plan, asked: Asked) -> list[Step]:
    if plan.rules is None or asked.subject is None:
        return []
    return plan.rules.trace(asked.subject, asked.at_ms, _everybody if asked.unit is None else Draw(asked))


def _everybody(_: Override) -> int:
    """The bucket that is in every share: whether a request of its own is in one, only its draw will tell."""
    return 0


def _ways(plan: Plan, asked: Asked, trace: Sequence[Step]) -> list[Way]:
    """One, where it is certain; else each override that may pin it, and what is left to the split.

    The draws of overrides and of the split are independent, as each has a salt of its own.
    """
    assignment = _assign(plan, asked)
    if asked.unit is not None or assignment.reason in (Reason.KILL_SWITCH, Reason.FORCED):
        return [Way(Fraction(1), assignment, assignment.override_id)]
    arms = {arm.id: arm for arm in plan.route.arms}
    ways: list[Way] = []
    left = Fraction(1)
    for step in trace:
        if left and step.outcome in _HOLDS:
            chance = left * Fraction(step.override.share_bp, TOTAL_SHARE_BP)
            left -= chance
            pinned = certain(arms[step.override.arm_id], Reason.OVERRIDE)
            ways.append(Way(chance, pinned, step.override.id))
    unpinned = Asked(None, 0, at_ms=asked.at_ms, context=asked.context)
    return [*ways, Way(left, _assign(plan, unpinned))] if left else ways


def _assign(plan: Plan, asked: Asked) -> Assignment:
    try:
        return plan.assign(asked)
    except Exception:  # noqa: BLE001  # as a gateway does: whatever is wrong, the champion answers
        return default(plan.route, asked)


def _probabilities(plan: Plan, ways: Sequence[Way]) -> dict[str, float]:
    names = {arm.id: arm.name for arm in plan.route.arms}
    totals: dict[str, Fraction] = defaultdict(Fraction)
    for way in ways:
        for arm_id, share_bp in way.choice.probabilities.items():
            totals[names.get(arm_id, GONE)] += way.chance * Fraction(share_bp, TOTAL_BP)
    return {name: float(total) for name, total in totals.items()}


def _context_view(plan: Plan, question: Question) -> ContextView:
    values = question.context or {}
    missing = () if plan.encoder is None else plan.encoder.missing(values)
    return ContextView(values=dict(values), missing=list(missing), unknown=list(question.unknown))


def _steps(
    plan: Plan,
    asked: Asked,
    trace: Sequence[Step],
    ways: Sequence[Way],
    stored: Sequence[StoredOverride],
    kept: Kept,
) -> Iterator[AnyStep]:
    yield KillSwitchStep(outcome="on" if plan.route.kill_switch else "off")
    yield _forced_step(plan, asked, ways)
    chances = {way.override_id: way.chance for way in ways if way.choice.reason is Reason.OVERRIDE}
    steps = {step.override.id: step for step in trace}
    for override in stored:
        step = steps.get(override.id)
        yield _asleep(override) if step is None else _override_step(step, override.arm, asked, chances)
    if plan.route.first_arm_ms is not None and asked.unit is not None:
        yield _first_arm_step(plan, kept, ways[-1].choice)
    yield _split_step(plan, asked, ways)


def _first_arm_step(plan: Plan, kept: Kept, choice: Choice) -> FirstArmStep:
    first = kept.first
    if first is None:
        return FirstArmStep(outcome="none" if kept.is_known else "unknown")
    names = {arm.id: arm.name for arm in plan.route.arms}
    is_matched = isinstance(choice, Assignment) and choice.first is not None
    outcome: FirstArmOutcome = "matched" if is_matched else "preceded" if plan.keeps(first) else "lapsed"
    return FirstArmStep(outcome=outcome, arm=names.get(first.arm_id), since=moment(first.at_ms))


def _forced_step(plan: Plan, asked: Asked, ways: Sequence[Way]) -> ForcedArmStep:
    name = asked.forced
    if name is None:
        return ForcedArmStep(outcome="not_asked")
    if not plan.route.allow_force:
        return ForcedArmStep(outcome="not_allowed", arm=name)
    if (arm := plan.route.arm_named(name)) is None:
        return ForcedArmStep(outcome="unknown_arm", arm=name)
    if arm.role not in SERVING:
        return ForcedArmStep(outcome="not_serving", arm=name)
    is_matched = ways[0].choice.reason is Reason.FORCED
    return ForcedArmStep(outcome="matched" if is_matched else "preceded", arm=name)


def _asleep(override: StoredOverride) -> OverrideStep:
    return OverrideStep(
        override=override.id,
        arm=override.arm,
        priority=override.priority,
        outcome="arm_not_serving",
        share=override.share_bp,
    )


def _override_step(
    step: Step, arm: str, asked: Asked, chances: Mapping[int | None, Fraction]
) -> OverrideStep:
    override = step.override
    is_hashed = step.outcome in (*_HOLDS, Outcome.SHARE) and override.share_bp < TOTAL_SHARE_BP
    chance = chances.get(override.id, Fraction(0))
    outcome = _outcome(step.outcome, chance)
    return OverrideStep(
        override=override.id,
        arm=arm,
        priority=override.priority,
        outcome=outcome,
        miss=None if step.miss is None else _miss_view(step.miss),
        share=override.share_bp,
        bucket=Draw(asked)(override) if is_hashed and asked.unit is not None else None,
        chance=float(chance) if outcome == "drawn" else None,
    )


def _outcome(outcome: Outcome, chance: Fraction) -> OverrideOutcome:
    """What came of it, given what may have come before all overrides."""
    match outcome:
        case Outcome.MATCHED | Outcome.PRECEDED:
            return "preceded" if chance == 0 else "matched" if chance == 1 else "drawn"
        case Outcome.EXPIRED:
            return "expired"
        case Outcome.CONDITION:
            return "condition"
        case Outcome.SHARE:
            return "share"
        case _:
            assert_never(outcome)


def _miss_view(miss: Miss) -> MissView:
    return MissView(
        condition=miss.condition,
        attribute=miss.attribute,
        op=miss.op,
        values=list(miss.values),
        value=miss.value,
    )


def _split_step(plan: Plan, asked: Asked, ways: Sequence[Way]) -> SplitStep:
    last = ways[-1]
    is_kept = isinstance(last.choice, Assignment) and last.choice.first is not None
    is_before = is_kept or last.choice.reason in (Reason.KILL_SWITCH, Reason.FORCED)
    is_reached = last.override_id is None and not is_before
    outcome: Literal["matched", "preceded", "drawn"] = "matched" if is_reached else "preceded"
    if is_reached and (last.chance < 1 or last.is_drawn(asked)):
        outcome = "drawn"
    route = plan.route
    if asked.unit is None or route.bandit is not None:
        return SplitStep(outcome=outcome)
    place = plan.bucket_of(asked)
    share = route.shares[bisect_right(route.ends, place)]
    name = next(arm.name for arm in route.arms if arm.id == share.arm_id)
    fell_in = ShareView(arm=name, start=share.start_bp, end=share.end_bp)
    return SplitStep(outcome=outcome, bucket=place, share=fell_in)
