"""Logs as a gateway would write them: contexts come, an arm is drawn by its propensity, a reward follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policies.decision_log import Log
from policies.quadrature import Array
from policies.reward_model import softmax

SLOPES = np.array([[0.3, -0.2, 0.1], [-0.3, 0.4, 0.0], [0.1, 0.1, -0.5]])
"""Of the arms' rewards, by feature."""

LEVELS = np.array([1.0, 1.2, 0.9])
"""The arms' mean rewards."""


def rewards_of(features: Array) -> Array:
    """The arms' expected rewards, linear in the features."""
    return np.asarray(LEVELS + features @ SLOPES.T)


def propensities_of(features: Array) -> Array:
    """How the log was drawn: by the context, every arm with at least 0.1."""
    scores = np.stack([features[:, 0], features[:, 1] - features[:, 0], features[:, 2]], axis=1)
    return np.asarray(0.1 + 0.7 * softmax(scores, 0.7))


def target_of(features: Array) -> Array:
    """A candidate that prefers better arms."""
    return softmax(features @ SLOPES.T, 0.15)


def draw(random: np.random.Generator, probabilities: Array) -> NDArray[np.intp]:
    """One arm per row."""
    passed = np.cumsum(probabilities, axis=1) < random.random((len(probabilities), 1))
    return np.asarray(np.minimum(np.sum(passed, axis=1), probabilities.shape[1] - 1), dtype=np.intp)


def of_rows(values: Array, arms: NDArray[np.intp]) -> Array:
    """Each row's value of its arm."""
    return np.asarray(values[np.arange(arms.size), arms])


def drawn(seed: int, n: int = 400) -> Log:
    """A log of three arms and three features, of which each decision is its own unit, in no order."""
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (n, 3))
    chances = propensities_of(features)
    arms = draw(random, chances)
    rewards = of_rows(rewards_of(features), arms) + random.normal(0, 0.5, n)
    return Log(arms, rewards, of_rows(chances, arms), 3, features, random.permutation(n))


def rows(log: Log, which: NDArray[np.intp]) -> Log:
    """The log with these decisions, in this order."""
    return replace(
        log,
        arms=log.arms[which],
        rewards=log.rewards[which],
        propensities=log.propensities[which],
        features=None if log.features is None else log.features[which],
        clusters=None if log.clusters is None else log.clusters[which],
    )


def candidate(log: Log) -> Array:
    """The target of `target_of` for this log."""
    assert log.features is not None
    return target_of(log.features)
