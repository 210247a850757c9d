"""From what is stored to what the API answers."""

from __future__ import annotations

from datetime import UTC, datetime

from app.control.views import (
    ArmEvidence,
    ChampionView,
    EntryView,
    EvaluationView,
    GuardrailView,
    IntervalView,
    KeyView,
    Mode,
    RolloutView,
    StreakView,
    TrialView,
)
from app.db.evaluations import Evaluation
from app.db.keys import ApiKey
from app.db.routes import StoredRoute
from app.db.timeline import Reign, Written
from policies.bandits import BanditSpec
from policies.comparison import Interval
from policies.guardrails import GuardrailReading
from policies.lifecycle import Rollout, Trial
from policies.promotion import ArmEstimate, Judgement, Streak


def moment(at_ms: int) -> datetime:
    """Unix milliseconds as a time in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def rollout_view(route: StoredRoute) -> RolloutView:
    """Where a route's traffic stands."""
    rollout = route.rollout
    return RolloutView(
        route=route.name,
        champion=rollout.champion,
        previous_champion=rollout.previous_champion,
        phase=rollout.phase,
        mode=_mode(route.spec.bandit),
        weights=dict(rollout.weights),
        suspended=rollout.suspended,
        kill_switch=rollout.kill_switch,
        epoch=rollout.epoch,
        version=route.version,
        goal=route.spec.goal.name if route.spec.goal is not None else None,
        trials=[_trial(rollout, trial) for trial in rollout.trials],
    )


def _mode(bandit: BanditSpec | None) -> Mode:
    if bandit is None:
        return Mode.WEIGHTS
    return Mode.APPRENTICE if bandit.apprentice else Mode.THOMPSON


def evaluation_view(evaluation_id: int, evaluation: Evaluation) -> EvaluationView:
    """One run of the policy."""
    judgement = evaluation.judgement
    return EvaluationView(
        id=evaluation_id,
        at=moment(evaluation.at_ms),
        kind=evaluation.kind.value,
        day=evaluation.day,
        champion=evaluation.champion,
        challenger=evaluation.challenger,
        verdict=evaluation.verdict,
        reason=evaluation.reason,
        action=evaluation.action,
        streak=_streak(evaluation.streak),
        weights=evaluation.weights,
        days=judgement.days if judgement else None,
        threshold=judgement.threshold if judgement else None,
        chance_to_beat=judgement.chance_to_beat if judgement else None,
        expected_loss=judgement.expected_loss if judgement else None,
        allowed_loss=judgement.allowed_loss if judgement else None,
        lift=_interval(judgement.lift) if judgement and judgement.lift else None,
        arms=_arms(evaluation, judgement) if judgement else {},
        guardrails=[_guardrail(reading) for reading in evaluation.guardrails],
    )


def entry_view(entry: Written) -> EntryView:
    """One row of the timeline."""
    return EntryView(
        id=entry.id,
        at=moment(entry.at_ms),
        kind=entry.kind,
        actor=entry.actor,
        reason=entry.reason,
        champion=entry.champion,
        challenger=entry.challenger,
        weights=entry.weights,
        epoch=entry.epoch,
        version=entry.version,
        evaluation=entry.evaluation_id,
        evidence=entry.evidence,
    )


def champion_view(route: str, at_ms: int, reign: Reign) -> ChampionView:
    """Who was champion at a moment."""
    return ChampionView(
        route=route,
        at=moment(at_ms),
        champion=reign.champion,
        since=moment(reign.since_ms),
        until=moment(reign.until_ms) if reign.until_ms is not None else None,
        crowned=entry_view(reign.crowned),
    )


def key_view(key: ApiKey) -> KeyView:
    """An API key."""
    return KeyView(id=key.id, name=key.name, role=key.role, created_at=moment(key.created_at_ms))


def _trial(rollout: Rollout, trial: Trial) -> TrialView:
    return TrialView(
        arm=trial.arm,
        phase=trial.phase,
        share=rollout.share(trial.arm),
        started_at=moment(trial.started_at_ms),
        changed_at=moment(trial.changed_at_ms),
        streak=_streak(trial.streak),
        judged_days=trial.judged_days,
        judged_through=moment(trial.judged_through_ms) if trial.judged_through_ms else None,
    )


def _streak(streak: Streak) -> StreakView:
    return StreakView(winning=streak.winning, losing=streak.losing, frozen=streak.frozen)


def _interval(interval: Interval) -> IntervalView:
    return IntervalView(mean=interval.mean, low=interval.low, high=interval.high)


def _arms(evaluation: Evaluation, judgement: Judgement) -> dict[str, ArmEvidence]:
    both = ((evaluation.champion, judgement.champion), (evaluation.challenger, judgement.challenger))
    return {name: _arm(estimate) for name, estimate in both if estimate is not None}


def _arm(estimate: ArmEstimate) -> ArmEvidence:
    return ArmEvidence(n=estimate.n, mean=estimate.mean, low=estimate.low, high=estimate.high)


def _guardrail(reading: GuardrailReading) -> GuardrailView:
    return GuardrailView(
        metric=reading.metric,
        e_value=reading.e_value,
        limit=reading.limit,
        breached=reading.breached,
        enough=reading.enough,
        champion_rate=reading.champion_rate,
        challenger_rate=reading.challenger_rate,
    )
