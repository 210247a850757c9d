"""What would another way of choosing arms have earned, judged from the log of decisions?

The value of a candidate is the mean reward that it would have earned on the traffic that was logged. Four
estimators answer: `ips` and `snips` believe the logged propensities, `direct_method` believes a reward model,
and `doubly_robust` needs one of the two to be right. All assume that a reward depends on the choice of its
own decision and on no other, and that candidate and log choose by nothing else than what was logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from scipy import special

from policies.decision_log import LARGEST, SMALLEST_PROPENSITY, Log
from policies.errors import BadSpec, CannotJudge
from policies.quadrature import Array
from policies.reward_model import FOLDS, RIDGE, CrossFit, cross_fit
from policies.support import (
    ArmReport,
    arm_reports,
    check_logged_arms,
    check_size,
    check_support,
    support_warnings,
)
from policies.totals import within

APART = 4.0
"""Standard errors beyond which two estimators are said to disagree."""

MATERIAL = 0.02
"""Standard deviations of the rewards below which nothing is said of it: in a long log the least is sure."""

RELATIVE = 0.1
"""Part of the value from which on it is said all the same: of rare rewards the deviation is many times it."""

FEW_DF = 20.0
"""Degrees of freedom of a standard error below which a normal interval is called doubtful."""

_ROUNDING = 1e-9
"""A standard error below this part of the value is what rounding leaves of rewards that are all equal."""


class Method(StrEnum):
    """How a value was found. `logged` is the plain mean of what was logged."""

    LOGGED = "logged"
    IPS = "ips"
    SNIPS = "snips"
    DIRECT = "direct_method"
    DOUBLY_ROBUST = "doubly_robust"


class Tails(StrEnum):
    """How an estimate is taken to be distributed: normal, or as Student's t with `Estimate.df`.

    The second is for heavy tails, where a few decisions make the value and its standard error. It is still
    symmetric, so that with fewer than about 10 degrees of freedom it too falls short.
    """

    NORMAL = "normal"
    STUDENT = "student"


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a log is judged.

    `level`: the probability of intervals. `clip`: the greatest weight of a decision; None: any. `folds` and
    `ridge` are the reward model's. `max_unsupported`: the share of a candidate's choices that the log need
    not know of.
    """

    level: float = 0.95
    tails: Tails = Tails.NORMAL
    clip: float | None = None
    folds: int = FOLDS
    ridge: float = RIDGE
    min_effective_samples: float = 50.0
    max_unsupported: float = 0.01

    def __post_init__(self) -> None:
        within("level", self.level, 0.5, 0.999999)
        within("clip", 1 if self.clip is None else self.clip, 1, 1 / SMALLEST_PROPENSITY)
        within("folds", self.folds, 2, 100)
        within("ridge", self.ridge, 1e-9, 1e9)
        within("min_effective_samples", self.min_effective_samples, 1, LARGEST)
        within("max_unsupported", self.max_unsupported, 0, 1)


DEFAULT = Terms()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its standard error and interval, and what they rest on.

    `influence`, of shape (n,): how far each decision moves the value; summed by unit, its spread is the
    standard error, which has `df` degrees of freedom. `effective_samples` is Kish's (Σw)²/Σw² of the weights
    w that the rewards are given, summed by unit. `clipped_share` of the decisions had a greater weight than
    the clip, and lost `clipped_weight` of all weight: by as much of their reward the value is biased.
    """

    method: Method
    value: float
    standard_error: float
    low: float
    high: float
    df: float
    n: int
    units: int
    effective_samples: float
    mean_weight: float
    max_weight: float
    clipped_share: float
    clipped_weight: float
    terms: Terms
    log: Log = field(repr=False, compare=False)
    influence: Array = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate minus baseline, paired decision by decision."""

    candidate: Method
    baseline: Method
    value: float
    standard_error: float
    low: float
    high: float
    df: float
    terms: Terms


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was earned, what the candidate would have earned by each method, and what to beware of.

    `differences` are those of the estimates from what was earned.
    """

    logged: Estimate
    estimates: Mapping[Method, Estimate]
    differences: Mapping[Method, Difference]
    arms: tuple[ArmReport, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Weighing:
    """The weight that each logged reward is given, after clipping."""

    log: Log
    terms: Terms
    weights: Array
    effective_samples: float
    clipped_share: float = 0.0
    clipped_weight: float = 0.0


def logged(log: Log, terms: Terms = DEFAULT) -> Estimate:
    """What was earned: the mean reward r̄. Influence r − r̄.

    Raises:
        CannotJudge: `no_data`, `too_few_effective_samples`, `no_spread`.
    """
    check_size(log)
    value = float(np.mean(log.rewards))
    return _estimate(Method.LOGGED, _weigh(log, np.ones(log.n), terms), value, log.rewards - value)


def ips(log: Log, target: Array, terms: Terms = DEFAULT) -> Estimate:
    """Inverse propensity scores: V = mean of w·r, w = target/propensity of the logged arm. Influence w·r − V.

    Unbiased where propensities are right and every choice of the candidate could have been logged. Source:
    Horvitz & Thompson, A generalization of sampling without replacement, JASA 47 (1952).

    Raises:
        BadSpec: a target that is not one probability per decision and arm.
        CannotJudge: `no_data`, `no_support`, `propensities_do_not_add_up`, `too_few_effective_samples`,
            `no_spread`.
    """
    _check(log, target, terms)
    return _ips(_weigh_by_propensity(log, target, terms))


def snips(log: Log, target: Array, terms: Terms = DEFAULT) -> Estimate:
    """Self-normalised: V = Σ w·r / Σ w. Influence, linearised: w·(r − V)/w̄.

    Unlike `ips` it moves with a shift of the rewards and cares for no factor of the weights; its bias falls
    as 1/n. Source: Swaminathan & Joachims, The self-normalized estimator for counterfactual learning, NIPS
    2015; the linearisation: Owen, Monte Carlo theory, methods and examples, 9.2. Raises as `ips`.
    """
    _check(log, target, terms)
    return _snips(_weigh_by_propensity(log, target, terms))


def direct_method(log: Log, target: Array, terms: Terms = DEFAULT) -> Estimate:
    """What a reward model promises: V = mean of Σ_k target_k·q̂_k, each q̂ fitted outside the decision's fold.

    Reads no propensities. As right as the model is: its error does not shrink with n where rewards are not
    linear in the features. Influence Σ_k target_k·q̂_k − V + c·(r − q̂), c the implied weights, so that the
    interval knows that q̂ was estimated; by c it also counts the effective samples.

    Raises:
        BadSpec: a target that is not one probability per decision and arm.
        CannotJudge: `no_data`, `no_support` (of an arm that was never logged), `too_few_effective_samples`,
            `no_spread`.
    """
    check_logged_arms(arm_reports(log, target), terms.max_unsupported)
    return _direct(log, target, terms, cross_fit(log, terms.folds, terms.ridge))


def doubly_robust(log: Log, target: Array, terms: Terms = DEFAULT) -> Estimate:
    """The reward model, corrected by weighted residuals: V = mean of Σ_k target_k·q̂_k + w·(r − q̂).

    Right where the propensities or the model are. Influence: these terms less V, and that of the fit, c·(r −
    q̂), c the weights that Σ_ik (target_ik − w_i·1{k logged})·q̂_ik implies. The latter vanishes with n where
    propensities are right, and keeps the interval honest where only the model is. Source: Dudík, Langford &
    Li, Doubly robust policy evaluation and learning, ICML 2011; cross-fitting: Chernozhukov et al.,
    Double/debiased machine learning, Econometrics Journal 21 (2018). Raises as `ips`.
    """
    _check(log, target, terms)
    weighing = _weigh_by_propensity(log, target, terms)
    return _doubly_robust(weighing, target, cross_fit(log, terms.folds, terms.ridge))


def difference(candidate: Estimate, baseline: Estimate) -> Difference:
    """Did the candidate earn more? Paired: the influences are subtracted before their spread is taken.

    On the candidate's terms. Raises BadSpec for estimates from different logs.
    """
    if baseline.log is not candidate.log:
        raise BadSpec("baseline", f"must be judged on the log of the candidate, got another of {baseline.n}")
    value = candidate.value - baseline.value
    error, df = candidate.log.spread(candidate.influence - baseline.influence)
    low, high = _interval(value, error, df, candidate.terms)
    return Difference(candidate.method, baseline.method, value, error, low, high, df, candidate.terms)


def evaluate(log: Log, target: Array, terms: Terms = DEFAULT) -> Evaluation:
    """All methods at once, each against what was logged. Raises as `ips`."""
    arms = _check(log, target, terms)
    weighing, model = _weigh_by_propensity(log, target, terms), cross_fit(log, terms.folds, terms.ridge)
    estimates = (
        _ips(weighing),
        _snips(weighing),
        _direct(log, target, terms, model),
        _doubly_robust(weighing, target, model),
    )
    earned, by_method = logged(log, terms), {found.method: found for found in estimates}
    differences = {found.method: difference(found, earned) for found in estimates}
    warnings = (*support_warnings(arms), *_about_weights(by_method), *_about_methods(by_method))
    return Evaluation(earned, by_method, differences, arms, warnings)


def _check(log: Log, target: Array, terms: Terms) -> tuple[ArmReport, ...]:
    arms = arm_reports(log, target)
    check_support(arms, terms.max_unsupported, terms.min_effective_samples)
    return arms


def _weigh_by_propensity(log: Log, target: Array, terms: Terms) -> _Weighing:
    return _weigh(log, log.of_chosen(target) / log.propensities, terms, terms.clip)


def _weigh(log: Log, weights: Array, terms: Terms, clip: float | None = None) -> _Weighing:
    kept = weights if clip is None else np.minimum(weights, clip)
    effective = log.effective_samples(kept)
    if effective < terms.min_effective_samples:
        needed = f"{terms.min_effective_samples:g} effective samples are needed"
        raise CannotJudge(
            "too_few_effective_samples", f"{needed}, the weights leave {effective:.1f} of {log.n}"
        )
    lost = 1 - float(np.sum(kept) / np.sum(weights))
    return _Weighing(log, terms, kept, effective, float(np.mean(weights > kept)), lost)


def _ips(weighing: _Weighing) -> Estimate:
    earned = weighing.weights * weighing.log.rewards
    value = float(np.mean(earned))
    return _estimate(Method.IPS, weighing, value, earned - value)


def _snips(weighing: _Weighing) -> Estimate:
    weights, rewards = weighing.weights, weighing.log.rewards
    value = float(np.dot(weights, rewards) / np.sum(weights))
    return _estimate(Method.SNIPS, weighing, value, weights * (rewards - value) / np.mean(weights))


def _direct(log: Log, target: Array, terms: Terms, model: CrossFit) -> Estimate:
    implied = model.implied_weights(target)
    promised = np.einsum("ik,ik->i", target, model.predictions)
    missed = log.rewards - log.of_chosen(model.predictions)
    value = float(np.mean(promised))
    influence = promised - value + implied * missed
    return _estimate(Method.DIRECT, _weigh(log, implied, terms), value, influence)


def _doubly_robust(weighing: _Weighing, target: Array, model: CrossFit) -> Estimate:
    log, weights = weighing.log, weighing.weights
    left = np.array(target)
    left[np.arange(log.n), log.arms] -= weights
    missed = log.rewards - log.of_chosen(model.predictions)
    promised = np.einsum("ik,ik->i", target, model.predictions) + weights * missed
    value = float(np.mean(promised))
    influence = promised - value + model.implied_weights(left) * missed
    return _estimate(Method.DOUBLY_ROBUST, weighing, value, influence)


def _estimate(method: Method, weighing: _Weighing, value: float, influence: Array) -> Estimate:
    log, terms = weighing.log, weighing.terms
    error, df = log.spread(influence)
    if error <= _ROUNDING * abs(value):
        raise CannotJudge("no_spread", f"{method} has no spread to judge by: all rewards count alike")
    low, high = _interval(value, error, df, terms)
    return Estimate(
        method=method,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        df=df,
        n=log.n,
        units=log.n_units,
        effective_samples=weighing.effective_samples,
        mean_weight=float(np.mean(weighing.weights)),
        max_weight=float(np.max(weighing.weights)),
        clipped_share=weighing.clipped_share,
        clipped_weight=weighing.clipped_weight,
        terms=terms,
        log=log,
        influence=influence,
    )


def _interval(value: float, error: float, df: float, terms: Terms) -> tuple[float, float]:
    """Symmetric around the value. Assumes a sum over many units, none of which outweighs the others."""
    tail = (1 - terms.level) / 2
    student = terms.tails is Tails.STUDENT
    reach = -float(special.stdtrit(df, tail) if student else special.ndtri(tail)) * error
    return value - reach, value + reach


def _about_weights(found: Mapping[Method, Estimate]) -> Iterator[str]:
    weighted = found[Method.IPS]
    if weighted.clipped_share:
        where = f"clipping at {weighted.terms.clip:g} met {weighted.clipped_share:.2%} of decisions"
        yield f"{where} and took {weighted.clipped_weight:.2%} of all weight, which biases what uses weights"
    for one in found.values():
        if one.df < FEW_DF and one.terms.tails is Tails.NORMAL:
            yield f"few decisions make {one.method} ({one.df:.1f} df): its normal interval may be too short"


def _about_methods(found: Mapping[Method, Estimate]) -> Iterator[str]:
    """What it means when two methods that should agree do not. Clipped weights need not agree.

    They disagree where their values are more than 4 standard errors of the difference apart, and by at least
    0.02 standard deviations of the rewards, or a tenth of the value: a difference that is sure and does not
    matter is no warning.
    """
    robust = found[Method.DOUBLY_ROBUST]
    meanings = {Method.DIRECT: "the reward model misses something"}
    if not robust.clipped_share:
        meanings[Method.IPS] = "the weights do not balance what the model sees, so propensities are in doubt"
    least = min(MATERIAL * float(np.std(robust.log.rewards)), RELATIVE * abs(robust.value))
    for method, meaning in meanings.items():
        apart = difference(found[method], robust)
        is_sure = abs(apart.value) > APART * apart.standard_error + _ROUNDING * abs(robust.value)
        if is_sure and abs(apart.value) >= least:
            values = f"{method} says {found[method].value:.6g}, {robust.method} {robust.value:.6g}"
            yield f"{values}, {apart.standard_error:.2g} is the standard error between: {meaning}"
