"""The reward model agrees with another implementation, and never speaks of what it was fitted on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from policies.decision_log import Log, check_target
from policies.errors import BadSpec
from policies.reward_model import cross_fit, greedy, learned, softmax
from tests.policies.logs import drawn, rewards_of, rows

seeds = st.integers(0, 10_000)


def without_features(log: Log) -> Log:
    """The log, with its contexts forgotten."""
    return replace(log, features=None)


def test_means_of_the_other_fold_by_hand() -> None:
    """Fold 0 holds decisions 0 and 2, so the others' say for them: arm 0 earned 3, arm 1 earned 2. Asked for
    arm 1 throughout, the two decisions of each fold rest on one reward of the other."""
    log = Log(np.array([0, 1, 1, 0]), np.array([1.0, 2.0, 0.0, 3.0]), np.full(4, 0.5), 2)
    fit = cross_fit(log, folds=2)
    assert fit.predictions.tolist() == [[3, 2], [1, 0], [3, 2], [1, 0]]
    assert fit.implied_weights(np.tile([0.0, 1.0], (4, 1))).tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_predictions_agree_with_another_ridge_regression(ridge: float) -> None:
    """Standardised features, a penalty of ridge · d, an intercept that is not penalised."""
    log = replace(drawn(3), clusters=None)
    assert log.features is not None
    z = (log.features - log.features.mean(axis=0)) / log.features.std(axis=0)
    fold, found = np.arange(log.n) % 4, cross_fit(log, 4, ridge).predictions
    for held in range(4):
        for arm in range(3):
            fitted = (fold != held) & (log.arms == arm)
            reference = Ridge(alpha=3 * ridge).fit(z[fitted], log.rewards[fitted])
            assert found[fold == held, arm] == pytest.approx(reference.predict(z[fold == held]))


@settings(max_examples=30)
@given(seed=seeds, contexts=st.booleans())
def test_predictions_are_the_rewards_weighted_as_implied(seed: int, contexts: bool) -> None:
    """Σ mass · prediction = Σ implied weight · reward for any rewards and any mass, to rounding."""
    log = drawn(seed, 60) if contexts else without_features(drawn(seed, 60))
    random = np.random.default_rng(seed)
    log, mass = replace(log, rewards=random.normal(0, 5, log.n)), random.normal(0, 1, (log.n, 3))
    fit = cross_fit(log)
    said = np.sum(mass * fit.predictions)
    assert np.dot(fit.implied_weights(mass), log.rewards) == pytest.approx(said, rel=1e-9, abs=1e-9)


@settings(max_examples=30)
@given(seed=seeds, at=st.integers(0, 59))
def test_no_decision_knows_its_own_reward(seed: int, at: int) -> None:
    """Another reward changes neither what its own fold is told nor what is learned for it; others learn."""
    log = drawn(seed, 60)
    changed = log.rewards.copy()
    changed[at] += 100.0
    before, after = (cross_fit(replace(log, rewards=r)).predictions for r in (log.rewards, changed))
    own = log.units % 5 == log.units[at] % 5
    assert np.array_equal(before[own], after[own])
    assert not np.allclose(before[~own], after[~own])
    assert np.array_equal(learned(log)[own], learned(replace(log, rewards=changed))[own])


@settings(max_examples=30)
@given(seeds)
def test_the_decisions_of_a_unit_share_a_fold(seed: int) -> None:
    """So that none is predicted from the unit's other decisions, and the order of the log is no matter."""
    random = np.random.default_rng(seed)
    log = replace(drawn(seed, 80), clusters=random.integers(0, 20, 80) * 10)
    changed = np.where(log.units == log.units[0], log.rewards + 50, log.rewards)
    before, after = (cross_fit(replace(log, rewards=r)).predictions for r in (log.rewards, changed))
    assert np.array_equal(before[log.units == log.units[0]], after[log.units == log.units[0]])
    order = random.permutation(log.n)
    assert cross_fit(rows(log, order)).predictions == pytest.approx(before[order])


@settings(max_examples=30)
@given(seed=seeds, shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100))
def test_predictions_move_with_the_rewards_and_not_with_the_units_of_features(
    seed: int, shift: float, scale: float
) -> None:
    """q̂ of a·reward + b is a·q̂ + b; features in other units say the same."""
    log = drawn(seed, 60)
    assert log.features is not None
    before = cross_fit(log).predictions
    moved = cross_fit(replace(log, rewards=scale * log.rewards + shift)).predictions
    assert moved == pytest.approx(scale * before + shift, rel=1e-8, abs=1e-8)
    in_other_units = cross_fit(replace(log, features=log.features * [scale, 1, 1e6] + shift)).predictions
    assert in_other_units == pytest.approx(before, rel=1e-6, abs=1e-6)


def test_features_that_are_constant_or_one_another_do_no_harm() -> None:
    """A column of ones, and one twice, leave a fit that can be computed, and no warning."""
    log = drawn(4)
    assert log.features is not None
    doubled = np.column_stack([log.features, np.ones(log.n), log.features[:, 0]])
    assert cross_fit(replace(log, features=doubled)).predictions == pytest.approx(
        cross_fit(log).predictions, abs=0.05
    )


def test_an_arm_that_was_never_logged_is_promised_what_all_arms_earn() -> None:
    """By the regression over all arms, which without features is their mean over the other folds."""
    log = replace(without_features(drawn(5)), n_arms=4)
    found, fold = cross_fit(log).predictions[:, 3], log.units % 5
    for held in range(5):
        assert found[fold == held] == pytest.approx(log.rewards[fold != held].mean())


def test_decisions_logged_twice_teach_no_more_than_once() -> None:
    """As long as their clusters say that they are the same: the penalty counts units."""
    log = drawn(6)
    twice = np.repeat(np.arange(log.n), 2)
    found = cross_fit(rows(log, twice)).predictions
    assert found == pytest.approx(cross_fit(log).predictions[twice])


def test_greedy_takes_the_best_and_softmax_prefers_it() -> None:
    """All on the first of equals; e^(1/0.5) times as much on a reward of 1 as on one of 0."""
    promises = np.array([[0.0, 1.0], [2.0, 2.0]])
    assert greedy(promises).tolist() == [[0, 1], [1, 0]]
    even = softmax(promises, 0.5)
    assert even[0, 1] / even[0, 0] == pytest.approx(np.exp(2))
    assert even[1] == pytest.approx([0.5, 0.5])
    assert softmax(promises, 1e-9)[0] == pytest.approx([0, 1])


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(temperature: float) -> None:
    """Anything else is refused."""
    with pytest.raises(BadSpec, match="temperature must be above 0, got"):
        softmax(np.zeros((1, 2)), temperature)


def test_what_is_learned_is_a_good_target_and_resembles_the_best() -> None:
    """With 4,000 decisions, greedy choices are those of the true rewards nine times in ten."""
    log = drawn(7, 4_000)
    target = learned(log, partial(softmax, temperature=0.1))
    check_target(log, target)
    assert np.mean(np.argmax(target, axis=1) == np.argmax(learned(log), axis=1)) == 1
    assert log.features is not None
    best = np.argmax(rewards_of(log.features), axis=1)
    assert np.mean(np.argmax(learned(log), axis=1) == best) > 0.9
