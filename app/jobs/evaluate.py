"""Runs the promotion policy: finds the next thing to judge, judges it, and writes what follows.

What was read, judged and decided is written by compare-and-set: if the route has changed meanwhile, nothing
is written and the next run starts from what is there then.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.clock import days_of
from app.db import rollouts, rollups
from app.db.evaluations import Evaluation, EvaluationKind, insert_evaluation
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection, Database
from app.db.timeline import Entry, Kind
from policies.days import Day
from policies.guardrails import Cohort, GuardrailReading, breach, breach_in
from policies.lifecycle import Judged, Rollout, Trial, after_verdict, obstacle, withdraw
from policies.metrics import ERROR
from policies.promotion import Evidence, Judgement, Streak, decide, extend, judge
from policies.rollups import Sums, strata
from policies.spec import Guardrail
from policies.types import Action, Better, Phase, Verdict

POLICY = "policy"
"""The actor of everything that the promotion policy does by itself."""

SETTLE_MS = 500
"""How long after an upstream's timeout the last decision of a day may still be on its way to the spool."""

_KINDS = {
    Action.STEP: Kind.STEPPED,
    Action.PROMOTE: Kind.PROMOTED,
    Action.ROLLBACK: Kind.ROLLED_BACK,
    Action.END: Kind.ENDED,
    Action.AWAIT_APPROVAL: Kind.AWAITING_APPROVAL,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One evaluation and the rollout that follows from it."""

    evaluation: Evaluation
    rollout: Rollout
    frozen_through_ms: int = 0


async def evaluate(database: Database, name: str, seen_through_ms: int, now_ms: int) -> bool:
    """Judge all that is due on a route; True when traffic changed.

    `seen_through_ms`: all events before this moment are in the database.

    Raises:
        Conflict: somebody else changed the route; nothing of the run in hand was written.
        NotFound: the route is gone.
    """
    moved = False
    while True:
        async with database.read() as connection:
            route = await load_route(connection, name)
            finding = await _find(connection, route, seen_through_ms, now_ms)
        if finding is None:
            return moved
        async with database.transaction() as connection:
            await _write(connection, route, finding, now_ms)
        moved = moved or finding.rollout.epoch != route.rollout.epoch


async def _find(
    connection: Connection, route: StoredRoute, seen_through_ms: int, now_ms: int
) -> Finding | None:
    for trial in route.rollout.active_trials:
        if (found := await _breach(connection, route, trial, now_ms)) is not None:
            return found
    days = [(due_day(route, trial, seen_through_ms), trial) for trial in route.rollout.active_trials]
    due = [(day, trial) for day, trial in days if day is not None]
    if not due:
        return None
    day, trial = min(due, key=lambda each: each[0])  # missed days are judged in the order of time
    return await _judge_day(connection, route, trial, day, now_ms)


def due_day(route: StoredRoute, trial: Trial, seen_through_ms: int) -> Day | None:
    """The trial's next day to judge, once it is closed, mature and wholly recorded; else None."""
    if route.spec.goal is None:
        return None
    day = days_of(route.spec.policy).day_of(trial.judged_through_ms or trial.started_at_ms)
    window_ms = max(metric.window_ms for metric in route.spec.metrics)
    settled_ms = route.spec.upstream.timeout_ms + SETTLE_MS
    return day if seen_through_ms >= day.end_ms + max(window_ms, settled_ms) else None


async def _judge_day(
    connection: Connection, route: StoredRoute, trial: Trial, day: Day, now_ms: int
) -> Finding:
    policy = route.spec.policy
    judgement = judge(await _evidence(connection, route, trial, day), policy)
    streak = extend(trial.streak, judgement.verdict)
    wanted = decide(policy, streak, judgement.verdict, judgement.days)
    judged = Judged(trial.arm, judgement.verdict, streak, wanted, judgement.days, day.end_ms)
    rollout, action = after_verdict(route.rollout, policy, judged, now_ms)
    evaluation = Evaluation(
        at_ms=now_ms,
        day=day.label,
        day_start_ms=day.start_ms,
        challenger=trial.arm,
        champion=route.rollout.champion,
        verdict=judgement.verdict,
        reason=judgement.reason + _withheld(route, trial, judged, action, now_ms),
        action=action,
        streak=streak,
        judgement=judgement,
        guardrails=await _readings(connection, route, trial),
        weights=dict(route.rollout.weights),
        version=route.version,
        trial_started_at_ms=trial.started_at_ms,
    )
    return Finding(evaluation, rollout, frozen_through_ms=day.end_ms)


def _withheld(route: StoredRoute, trial: Trial, judged: Judged, action: Action, now_ms: int) -> str:
    """Why nothing came of what the day called for."""
    if judged.action in (Action.HOLD, action) or action is not Action.HOLD:
        return ""
    why = obstacle(route.rollout, trial, route.spec.policy, judged, now_ms)
    return f"; {judged.action} withheld: {why}" if why is not None else ""


async def _evidence(connection: Connection, route: StoredRoute, trial: Trial, day: Day) -> Evidence:
    goal = route.spec.goal
    assert goal is not None  # noqa: S101 - a day without a goal is never due
    champion = route.rollout.champion
    arms = {route.arm_ids[arm]: arm for arm in (champion, trial.arm)}
    asked = (connection, route.id, goal.name, arms, trial.started_epoch, day.end_ms)
    counts = await rollups.arm_counts(*asked)
    cells = await rollups.evidence_cells(*asked)
    return Evidence(
        strata=strata(cells, champion, trial.arm),
        champion=counts[champion],
        challenger=counts[trial.arm],
        metric=goal,
        sticky=route.spec.unit is not None or any(cell.bucket for cell in cells),
        challengers=len(route.rollout.active_trials),
        day=day,
    )


async def _breach(connection: Connection, route: StoredRoute, trial: Trial, now_ms: int) -> Finding | None:
    readings = await _readings(connection, route, trial)
    breached = [reading for reading in readings if reading.breached]
    if not breached:
        return None
    day = days_of(route.spec.policy).day_of(now_ms)
    evaluation = Evaluation(
        at_ms=now_ms,
        day=day.label,
        day_start_ms=day.start_ms,
        challenger=trial.arm,
        champion=route.rollout.champion,
        verdict=Verdict.UNHEALTHY,
        reason="; ".join(_breach_sentence(reading) for reading in breached),
        action=Action.ROLLBACK,
        streak=trial.streak,
        judgement=None,
        guardrails=readings,
        weights=dict(route.rollout.weights),
        version=route.version,
        trial_started_at_ms=trial.started_at_ms,
        kind=EvaluationKind.GUARDRAIL,
    )
    return Finding(evaluation, withdraw(route.rollout, trial.arm, Phase.ROLLED_BACK, now_ms))


async def _readings(connection: Connection, route: StoredRoute, trial: Trial) -> tuple[GuardrailReading, ...]:
    return tuple(
        [await _reading(connection, route, trial, guardrail) for guardrail in route.spec.policy.guardrails]
    )


async def _reading(
    connection: Connection, route: StoredRoute, trial: Trial, guardrail: Guardrail
) -> GuardrailReading:
    metric = route.spec.metric(guardrail.metric)
    better = Better.LOWER if guardrail.metric == ERROR or metric is None else metric.better
    cohorts = await _cohorts(connection, route, trial, guardrail.metric)
    if route.spec.first_arm_ms is None:
        return breach(guardrail, *cohorts[-1], better)
    return breach_in(guardrail, cohorts, better)


async def _cohorts(connection: Connection, route: StoredRoute, trial: Trial, metric: str) -> list[Cohort]:
    """Those who were drawn by the present shares last; before them, where units keep arms, by earlier."""
    rollout = route.rollout
    champion, challenger = (route.arm_ids[arm] for arm in (rollout.champion, trial.arm))
    arms = {champion: rollout.champion, challenger: trial.arm}
    since = rollout.epoch
    shares = {since: {arm_id: rollout.share(arm) for arm_id, arm in arms.items()}}
    if route.spec.first_arm_ms is not None:
        since = trial.started_epoch
        shares = await rollouts.allocated(connection, route.id, since)
    sums = await rollups.sums_since(connection, route.id, metric, arms, since)
    nothing = dict.fromkeys(arms.values(), Sums())
    return [
        Cohort(
            sums.get(epoch, nothing)[rollout.champion],
            sums.get(epoch, nothing)[trial.arm],
            shares[epoch].get(champion, 0),
            shares[epoch].get(challenger, 0),
        )
        for epoch in sorted(shares)
    ]


def _breach_sentence(reading: GuardrailReading) -> str:
    return (
        f"guardrail {reading.metric}: rate {reading.challenger_rate or 0:.4f} against the champion's "
        f"{reading.champion_rate or 0:.4f}, e-value {reading.e_value:.4g} ≥ {reading.limit:.4g}"
    )


async def _write(connection: Connection, route: StoredRoute, finding: Finding, now_ms: int) -> None:
    evaluation = finding.evaluation
    evaluation_id = await insert_evaluation(connection, route.id, evaluation)
    entry = None
    if evaluation.action in _KINDS and _is_news(route, evaluation):
        entry = Entry(
            kind=_KINDS[evaluation.action],
            actor=POLICY,
            reason=_reason(evaluation),
            challenger=evaluation.challenger,
            evaluation_id=evaluation_id,
            evidence=evaluation,
        )
    await rollouts.save(connection, route, finding.rollout, entry, now_ms, finding.frozen_through_ms)


def _is_news(route: StoredRoute, evaluation: Evaluation) -> bool:
    trial = route.rollout.trial(evaluation.challenger)
    waited = trial is not None and trial.phase is Phase.AWAITING_APPROVAL
    return not (waited and evaluation.action is Action.AWAIT_APPROVAL)


def _reason(evaluation: Evaluation) -> str:
    judgement: Judgement | None = evaluation.judgement
    if judgement is None:
        return evaluation.reason
    return f"{evaluation.reason} ({_run(evaluation.streak)}{judgement.days} days of evidence)"


def _run(streak: Streak) -> str:
    if streak.winning or streak.losing:
        count, kind = (streak.winning, "winning") if streak.winning else (streak.losing, "losing")
        return f"{count} {kind} {'day' if count == 1 else 'days running'}, "
    return ""
