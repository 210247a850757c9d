"""What reward does an arm promise in a context, asked only about decisions that it was not learned from?

One ridge regression per arm, fitted once for each fold on all the other folds; and candidates that follow
what it promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from policies.decision_log import Integers, Log
from policies.errors import BadSpec
from policies.quadrature import Array

FOLDS = 5

RIDGE = 1.0
"""By default the features are believed, before the data, to explain half of the variance of rewards."""


@dataclass(frozen=True, slots=True)
class _Design:
    """The rows [1, (x − mean)/sd], sorted by fold: row i stands for decision order[i]."""

    rows: Array
    order: NDArray[np.intp]
    arms: Integers
    ends: NDArray[np.intp]

    def folds(self) -> Iterator[tuple[slice, NDArray[np.intp]]]:
        """Each fold's slice of the rows, and the decisions that it stands for."""
        for start, end in zip([0, *self.ends[:-1]], self.ends, strict=True):
            yield slice(start, end), self.order[start:end]


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """One regression per fold and arm, fitted on the decisions outside the fold.

    `predictions`, of shape (n, K): the reward of each arm in each decision's context, by the regressions that
    have not seen that decision. They are linear in the rewards.
    """

    predictions: Array
    _design: _Design
    _inverse: Array
    _known: NDArray[np.bool_]

    def implied_weights(self, mass: Array) -> Array:
        """The c, of shape (n,), with Σ_ik mass_ik · predictions_ik = Σ_j c_j · reward_j for any rewards.

        With mass = target they are what the direct method makes of each logged reward, on the scale of
        inverse propensity weights; and c_j · (reward_j − its prediction) is what the fit's own error adds to
        a decision's influence. Reference: Chattopadhyay & Zubizarreta, On the implied weights of linear
        regression for causal inference, Biometrika 110 (2023).
        """
        design = self._design
        asked = np.stack([mass[decisions].T @ design.rows[part] for part, decisions in design.folds()])
        pull = np.squeeze(self._inverse @ asked[..., None], axis=-1)
        unknown = np.where(self._known[..., None], 0, pull)
        pull = pull - unknown + np.sum(unknown, axis=1, keepdims=True)
        from_others = _of_others(pull)
        weights = np.empty(design.order.size)
        for (part, decisions), slopes in zip(design.folds(), from_others, strict=True):
            weights[decisions] = np.einsum("ij,ij->i", design.rows[part], slopes[design.arms[part]])
        return weights


def cross_fit(log: Log, folds: int = FOLDS, ridge: float = RIDGE) -> CrossFit:
    """Fit β_fk = argmin Σ (reward − [1, z]·β)² + λ|slopes|², over the decisions for arm k outside fold f.

    z are the d features, each with mean 0 and variance 1 over the log. λ is ridge · d, times the decisions
    per unit: so β is the posterior mean under a normal prior by which the features explain 1/(1 + ridge) of
    the variance. Without features it is the arm's mean reward. An arm without decisions outside a fold is
    given the regression over all arms.

    A unit belongs to one fold: its rank among the units, modulo `folds`. So with clusters the order of the
    log makes no difference; without them a decision's fold is its index, modulo `folds`. Assumes at least two
    units. Source: Hoerl & Kennard, Ridge regression, Technometrics 12 (1970).
    """
    design = _design(log, log.units % folds)
    gram, moment = _sums_of_others(design, log)
    known = gram[..., 0, 0] > 0
    gram = np.where(known[..., None, None], gram, np.sum(gram, axis=1, keepdims=True))
    moment = np.where(known[..., None], moment, np.sum(moment, axis=1, keepdims=True))
    penalty = np.full(gram.shape[-1], ridge * (gram.shape[-1] - 1) * log.n / log.n_units)
    penalty[0] = 0
    inverse = np.asarray(np.linalg.inv(gram + np.diag(penalty)), dtype=np.float64)
    slopes = np.squeeze(inverse @ moment[..., None], axis=-1)
    predictions = np.empty((log.n, log.n_arms))
    for (part, decisions), of_arms in zip(design.folds(), slopes, strict=True):
        predictions[decisions] = design.rows[part] @ of_arms.T
    return CrossFit(predictions, design, inverse, known)


def greedy(predictions: Array) -> Array:
    """All probability on the arm that promises most, on the first of equals: (n, K) to (n, K)."""
    best = np.argmax(predictions, axis=1)
    return np.asarray(best[:, None] == np.arange(predictions.shape[1]), dtype=np.float64)


def softmax(predictions: Array, temperature: float) -> Array:
    """Probabilities ∝ exp(prediction/temperature), the temperature in units of the reward: (n, K) to (n, K).

    Raises:
        BadSpec: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise BadSpec("temperature", f"must be above 0, got {temperature}")
    return np.asarray(special.softmax(predictions / temperature, axis=1))


def learned(
    log: Log, choose: Callable[[Array], Array] = greedy, folds: int = FOLDS, ridge: float = RIDGE
) -> Array:
    """The target of choosing by what a reward model promises, learned from the log that is to judge it.

    Each decision is given the choice that was learned from the folds it is not in, so none is judged on what
    it taught: the value is that of learning from all but one fold. Judge it with the same folds, by weights
    or doubly robust. The direct method takes the promises for the rewards, and where the greatest promise is
    chosen it is too hopeful.

    Where arms hardly differ, greedy folds hang on one another's rewards and intervals are too short: in pure
    noise those of level 0.95 hold the truth in 91 % of worlds, by a softmax in 94 %. The value is unbiased.
    """
    return choose(cross_fit(log, folds, ridge).predictions)


def _design(log: Log, fold: NDArray[np.intp]) -> _Design:
    order = np.argsort(fold, kind="stable")
    ends = np.cumsum(np.bincount(fold))
    width = 0 if log.features is None else log.features.shape[1]
    rows = np.ones((log.n, width + 1))
    if log.features is not None:
        rows[:, 1:] = log.features[order]
        standard = rows[:, 1:]
        standard -= np.mean(standard, axis=0)
        spread = np.sqrt(np.einsum("ij,ij->j", standard, standard) / log.n)
        standard /= np.where(spread > 0, spread, 1)
    return _Design(rows, order, log.arms[order], ends)


def _sums_of_others(design: _Design, log: Log) -> tuple[Array, Array]:
    """Each arm's Σ zzᵀ and Σ z·reward outside each fold."""
    width = design.rows.shape[1]
    gram = np.zeros((design.ends.size, log.n_arms, width, width))
    moment = np.zeros((design.ends.size, log.n_arms, width))
    for fold, (part, decisions) in enumerate(design.folds()):
        for arm in range(log.n_arms):
            own = design.arms[part] == arm
            rows = design.rows[part][own]
            gram[fold, arm] = rows.T @ rows
            moment[fold, arm] = log.rewards[decisions][own] @ rows
    return _of_others(gram), _of_others(moment)


def _of_others(of_folds: Array) -> Array:
    """The sum over all folds but the own. A difference of totals would keep a trace of it, as rounding."""
    return np.tensordot(1 - np.eye(len(of_folds)), of_folds, axes=1)
