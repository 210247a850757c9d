"""What the API is asked about another way of choosing arms, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field, StrictInt
from pydantic import model_validator as _model_validator

from app.candidates import Always, Candidate, Learned, Thompson, Uniform, Weights, wire_of
from app.control import examples
from app.control.bandits import RewardView
from app.control.presentation import moment
from app.control.schemas import Document, Instant, Number, RewardDocument
from app.control.views import View
from app.decision_logs import Evidence
from app.off_policy import LIMIT_DECISIONS, MOST_DECISIONS, Question, usual_reward
from policies.off_policy import DEFAULT, Difference, Estimate, Evaluation, Method, Terms
from policies.rewards import Reward
from policies.spec import NAME, RouteSpec
from policies.support import ArmReport

_PARTS = ("arm", "weights", "choose", "temperature")
_NEEDED = {"always": ("arm",), "weights": ("weights",), "softmax": ("choose", "temperature")}
"""What a candidate must name, by its kind; nothing else may stand there."""


class CandidateDocument(Document):
    """Another way of choosing arms.

    `always`: the arm that is named. `uniform`: all arms that answer callers, with the same probability.
    `weights`: a fixed split, in basis points. `bandit`: the route's bandit. `learned`: the arm of which a
    regression of rewards on contexts promises most (`greedy`), or a `softmax` of what it promises, with
    probabilities ∝ exp(promise/temperature). What the last two know at a decision was learned from the folds
    of the log that the decision is not in.
    """

    kind: Literal["always", "uniform", "weights", "bandit", "learned"]
    arm: str | None = Field(default=None, examples=["gbm-v7"])
    weights: dict[str, StrictInt] | None = Field(
        default=None, examples=[{"logreg-v6": 5_000, "gbm-v7": 5_000}]
    )
    choose: Literal["greedy", "softmax"] | None = Field(
        default=None, description="Of `learned`; by default greedy."
    )
    temperature: Number | None = Field(default=None, description="Of a softmax, in units of the reward.")

    @_model_validator(mode="after")
    def _fits_its_kind(self) -> CandidateDocument:
        given = {name for name in _PARTS if getattr(self, name) is not None}
        is_learned = self.kind == "learned"
        way = "softmax" if is_learned and self.choose == "softmax" else self.kind
        needed = set(_NEEDED.get(way, ()))
        if lacking := needed - given:
            raise ValueError(f"must name {min(lacking)} for {way}")
        if extra := given - needed - ({"choose"} if is_learned else set()):
            raise ValueError(f"must leave out {', '.join(sorted(extra))} for {way}")
        return self


class QuestionDocument(Document):
    """What would another way of choosing arms have earned on a route, judged from its log?"""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [examples.OFF_POLICY_QUESTION]}
    )

    route: str = Field(pattern=f"^{NAME.pattern}$", examples=["ad-bidder"])
    policy: CandidateDocument
    reward: RewardDocument | None = Field(
        default=None, description="By default what the route's bandit learns from, else the policy's goal."
    )
    since: Instant | None = Field(default=None, alias="from", description="Only decisions from then on.")
    to: Instant | None = Field(default=None, description="Only decisions up to then, included.")
    clip: Number | None = Field(
        default=None, description="The greatest weight of a decision; by default any."
    )
    level: Number = Field(default=DEFAULT.level, description="The probability of intervals.")
    folds: StrictInt = Field(default=DEFAULT.folds, ge=2, le=100, description="For what is learned.")
    most: StrictInt = Field(
        default=MOST_DECISIONS,
        ge=1,
        le=LIMIT_DECISIONS,
        description="How many decisions are judged at most, the newest.",
    )


class EstimateView(View):
    """A value, the mean reward of a decision, by one method, and what it rests on."""

    value: float
    standard_error: float
    low: float = Field(description="The lower end of its interval, whose probability is `level`.")
    high: float
    effective_samples: float = Field(description="As many independent units would say as much.")
    mean_weight: float
    max_weight: float = Field(description="Of one decision.")
    clipped_share: float = Field(description="Of the decisions had a greater weight than `clip`.")
    clipped_weight: float = Field(description="So much of all weight was taken from them.")


class DifferenceView(View):
    """What a candidate would have earned more than was logged, paired decision by decision."""

    value: float
    standard_error: float
    low: float
    high: float


class ArmReportView(View):
    """What log and candidate make of an arm. Shares are of decisions, from 0 to 1."""

    arm: str
    answers: bool = Field(description="Whether it can still be chosen.")
    decisions: int
    logged_share: float
    target_share: float = Field(description="How often the candidate chooses it.")
    mean_propensity: float | None = Field(default=None, description="Over its decisions; null without any.")
    max_weight: float = Field(description="The candidate's probability by the propensity, at most.")
    effective_samples: float
    found: float = Field(
        description="The mean of 1/propensity over its decisions and 0 over others; 1 where all is well."
    )
    found_error: float
    unsupported: float = Field(description="So often the candidate chooses it where the log could not.")
    unsupported_error: float


class OffPolicyEvaluation(View):
    """What a candidate would have earned on the traffic of the log.

    `logged` is what was earned; `estimates` are the candidate's values by method, `differences` theirs from
    what was earned. `learned` says how a candidate that learns has come to know the rewards: `out_of_fold`,
    from other decisions than those that it is judged on.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [examples.OFF_POLICY_EVALUATION]})

    route: str
    policy: CandidateDocument
    learned: Literal["out_of_fold"] | None = None
    reward: RewardView
    since: datetime = Field(description="The first decision that was judged.")
    until: datetime = Field(description="The last one.")
    n: int = Field(description="Decisions that were judged.")
    units: int = Field(description="Of so many independent units.")
    left_out: dict[str, int] = Field(
        description="Decisions that could not be judged, by why: without_context, kept_arm, not_drawn."
    )
    level: float
    clip: float | None = None
    folds: int
    logged: EstimateView
    estimates: dict[Method, EstimateView]
    differences: dict[Method, DifferenceView]
    arms: list[ArmReportView]
    warnings: list[str]


def candidate_of(document: CandidateDocument) -> Candidate:
    """The candidate, not checked against a route."""
    match document.kind:
        case "always":
            return Always(document.arm or "")
        case "uniform":
            return Uniform()
        case "weights":
            return Weights(dict(document.weights or {}))
        case "bandit":
            return Thompson()
        case "learned":
            return Learned(document.temperature)


def question_of(document: QuestionDocument, spec: RouteSpec) -> Question:
    """The question, checked.

    Raises:
        BadSpec: the route cannot have the candidate or the reward, or a term is out of its bounds.
    """
    named = document.reward
    reward = (
        usual_reward(spec) if named is None else Reward(named.metric or named.expression or "", named.default)
    )
    terms = Terms(level=document.level, clip=document.clip, folds=document.folds)
    return Question(spec, (candidate_of(document.policy),), reward, terms)


def evaluation_view(
    question: Question,
    candidate: Candidate,
    evidence: Evidence,
    found: Evaluation,
    notes: Sequence[str] = (),
) -> OffPolicyEvaluation:
    """The whole answer about one candidate; `notes` are warnings about the evidence itself."""
    learns = isinstance(candidate, Learned | Thompson)
    terms = question.terms
    return OffPolicyEvaluation(
        route=question.spec.name,
        policy=CandidateDocument.model_validate(wire_of(candidate)),
        learned="out_of_fold" if learns else None,
        reward=RewardView(expression=question.reward.expression, default=question.reward.default),
        since=moment(int(evidence.at_ms[0])),
        until=moment(int(evidence.at_ms[-1])),
        n=found.logged.n,
        units=found.logged.units,
        left_out=dict(evidence.left_out),
        level=terms.level,
        clip=terms.clip,
        folds=terms.folds,
        logged=_estimate(found.logged),
        estimates={method: _estimate(one) for method, one in found.estimates.items()},
        differences={method: _difference(one) for method, one in found.differences.items()},
        arms=[_arm(report, evidence) for report in found.arms],
        warnings=[*notes, *found.warnings],
    )


def _estimate(found: Estimate) -> EstimateView:
    return EstimateView(**{name: getattr(found, name) for name in EstimateView.model_fields})


def _difference(found: Difference) -> DifferenceView:
    return DifferenceView(**{name: getattr(found, name) for name in DifferenceView.model_fields})


def _arm(report: ArmReport, evidence: Evidence) -> ArmReportView:
    same = ArmReportView.model_fields.keys() - {"arm", "answers"}
    return ArmReportView(
        arm=evidence.arms[report.arm],
        answers=report.arm < evidence.answering,
        **{name: getattr(report, name) for name in same},
    )
