"""Off-policy estimates in worlds of which the truth is known: how far off are they, and how often covered?

Contexts are drawn from 512 points, so that the value of a candidate is a plain mean over those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from policies.decision_log import Log, always
from policies.off_policy import Difference, Estimate, Method, Tails, Terms, evaluate, ips, snips
from policies.quadrature import Array
from policies.reward_model import greedy, learned
from tests.policies.logs import draw, of_rows, propensities_of, rewards_of, target_of

POPULATION = np.random.default_rng(99).uniform(-1, 1, (512, 3))
N = 1_000
WEIGHTED = (Method.IPS, Method.SNIPS, Method.DOUBLY_ROBUST)

SHRUNK = 0.15
"""The bias of the ridge, in parts of the spread, that 1,000 decisions leave the direct method with."""


def stepped(features: Array) -> Array:
    """Rewards that no line fits."""
    return np.asarray(rewards_of(features) + (features > 0.5))


def even(features: Array) -> Array:
    """A candidate that looks at no context."""
    return np.full((len(features), 3), 1 / 3)


def averaged(features: Array) -> Array:
    """The arms' shares, logged in place of the propensities that were drawn by."""
    return np.broadcast_to(propensities_of(POPULATION).mean(axis=0), (len(features), 3))


@dataclass(frozen=True, slots=True)
class World:
    """Expected rewards, what is logged as propensity, and who is judged."""

    rewards: Callable[[Array], Array]
    logged: Callable[[Array], Array]
    candidate: Callable[[Array], Array]

    @property
    def value(self) -> float:
        """What the candidate is worth."""
        return float(np.mean(np.sum(self.candidate(POPULATION) * self.rewards(POPULATION), axis=1)))

    @property
    def gain(self) -> float:
        """How much more than what is logged."""
        earned = np.sum(propensities_of(POPULATION) * self.rewards(POPULATION), axis=1)
        return self.value - float(np.mean(earned))

    def play(self, seed: int) -> tuple[Log, Array]:
        """What happened, and whom to judge by it."""
        random = np.random.default_rng(seed)
        features = POPULATION[random.integers(0, len(POPULATION), N)]
        arms = draw(random, propensities_of(features))
        rewards = of_rows(self.rewards(features), arms) + random.normal(0, 0.5, N)
        log = Log(arms, rewards, of_rows(self.logged(features), arms), 3, features)
        return log, self.candidate(features)


RIGHT = World(rewards_of, propensities_of, target_of)
WRONG_MODEL = World(stepped, propensities_of, target_of)
WRONG_PROPENSITIES = World(rewards_of, averaged, even)


@dataclass(frozen=True, slots=True)
class Errors:
    """How far estimates were from the truth in each world, and which intervals held it."""

    of: Array
    covered: NDArray[np.bool_]

    @property
    def bias(self) -> float:
        return float(np.mean(self.of))

    @property
    def noise(self) -> float:
        """The standard error of the bias."""
        return float(np.std(self.of) / np.sqrt(self.of.size))

    @property
    def root_mean_square(self) -> float:
        return float(np.sqrt(np.mean(self.of**2)))

    @property
    def coverage(self) -> float:
        return float(np.mean(self.covered))

    def unbiased(self, within: float = 0.0) -> bool:
        """Off by no more than chance, and that part of the spread."""
        return abs(self.bias) <= 3.5 * self.noise + within * float(np.std(self.of))


def errors(found: Sequence[Estimate | Difference], truth: float) -> Errors:
    """Of one method in many worlds."""
    value, low, high = (np.array([getattr(one, name) for one in found]) for name in ("value", "low", "high"))
    return Errors(value - truth, (low <= truth) & (truth <= high))


def values_and_gains(world: World, seeds: range) -> tuple[dict[Method, Errors], dict[Method, Errors]]:
    """The errors of each method's value, and of its difference from what was logged."""
    found = [evaluate(*world.play(seed)) for seed in seeds]
    methods = list(found[0].estimates)
    values = {method: errors([one.estimates[method] for one in found], world.value) for method in methods}
    gains = {method: errors([one.differences[method] for one in found], world.gain) for method in methods}
    return values, gains


def test_who_is_unbiased_where() -> None:
    """200 worlds each. With right propensities all that weigh are unbiased, whatever the model; with wrong
    ones those that have a right model; the direct method but for what its penalty shrinks."""
    right, _ = values_and_gains(RIGHT, range(200))
    assert all(right[method].unbiased() for method in WEIGHTED)
    assert right[Method.DIRECT].unbiased(within=SHRUNK)
    model, _ = values_and_gains(WRONG_MODEL, range(200))
    assert all(model[method].unbiased() for method in WEIGHTED)
    assert model[Method.DIRECT].bias < -5 * model[Method.DIRECT].noise
    wrong, _ = values_and_gains(WRONG_PROPENSITIES, range(200))
    assert wrong[Method.DOUBLY_ROBUST].unbiased()
    assert wrong[Method.DIRECT].unbiased(within=SHRUNK)
    assert all(wrong[method].bias > 10 * wrong[method].noise for method in (Method.IPS, Method.SNIPS))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("world", "honest"),
    [
        (RIGHT, tuple(Method)[1:]),
        (WRONG_MODEL, WEIGHTED),
        (WRONG_PROPENSITIES, (Method.DIRECT, Method.DOUBLY_ROBUST)),
    ],
    ids=["right", "wrong model", "wrong propensities"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(world: World, honest: tuple[Method, ...]) -> None:
    """At level 0.95 in 93 to 97 % of 4,000 worlds, of values and of gains over what was logged; and whoever
    is right is unbiased there too."""
    for found in values_and_gains(world, range(10_000, 14_000)):
        for method in honest:
            assert 0.93 <= found[method].coverage <= 0.97, method
            assert found[method].unbiased(within=SHRUNK if method is Method.DIRECT else 0), method


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_more_robust_of_two_right_methods_is_as_sharp() -> None:
    """In 1,000 worlds the doubly robust is off by less than 0.7 of what IPS is, and hardly more than the
    direct method where its model is right."""
    found, _ = values_and_gains(RIGHT, range(1_000))
    robust = found[Method.DOUBLY_ROBUST].root_mean_square
    assert robust < 0.7 * found[Method.IPS].root_mean_square
    assert robust < 1.1 * found[Method.DIRECT].root_mean_square


def sticky(seed: int) -> tuple[Log, Array]:
    """300 units with one to seven decisions each, which keep their arm, their context and their own level."""
    random = np.random.default_rng(seed)
    unit = np.repeat(np.arange(300), random.integers(1, 8, 300))
    features = POPULATION[random.integers(0, len(POPULATION), 300)]
    arms = draw(random, propensities_of(features))
    mine = of_rows(rewards_of(features), arms) + random.normal(0, 0.7, 300)
    log = Log(
        arms[unit],
        mine[unit] + random.normal(0, 0.3, unit.size),
        of_rows(propensities_of(features), arms)[unit],
        3,
        features[unit],
        unit,
    )
    return log, target_of(features)[unit]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_units_that_return_need_their_clusters() -> None:
    """In 2,000 worlds of sticky units, intervals that know the units hold the truth as often as they say; by
    errors that do not, the same values would be held in less than 85 %."""
    found = [evaluate(*sticky(seed)) for seed in range(2_000)]
    for method in list(Method)[1:]:
        each = [one.estimates[method] for one in found]
        assert 0.93 <= errors(each, RIGHT.value).coverage <= 0.97, method
        blind = np.array([replace(one.log, clusters=None).spread(one.influence)[0] for one in each])
        off = np.array([one.value - RIGHT.value for one in each])
        assert np.mean(np.abs(off) <= 1.96 * blind) < 0.85, method


def skewed(seed: int) -> tuple[Log, Array]:
    """500 decisions where the wanted arm had propensities down to 0.03 and earns least where it was rare."""
    random = np.random.default_rng(seed)
    x = POPULATION[random.integers(0, len(POPULATION), 500)]
    chance = 1 / (1 + np.exp(-3.5 * x[:, 0]))
    arms = (random.random(500) < chance).astype(np.intp)
    rewards = np.where(arms == 1, 1 + x[:, 0] + np.sin(3 * x[:, 1]), 1) + random.normal(0, 0.5, 500)
    log = Log(arms, rewards, np.where(arms == 1, chance, 1 - chance), 2, x)
    return log, always(log, 1)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_students_interval_holds_more_where_few_decisions_decide() -> None:
    """Of SNIPS over 4,000 worlds with a median of some ten degrees of freedom, the normal interval holds the
    truth in less than 92 %, Student's in at least 1 % more."""
    x = POPULATION
    truth = float(np.mean(1 + x[:, 0] + np.sin(3 * x[:, 1])))
    terms = Terms(min_effective_samples=20, tails=Tails.STUDENT)
    student = [snips(*skewed(seed), terms) for seed in range(4_000)]
    normal = [snips(*skewed(seed), replace(terms, tails=Tails.NORMAL)) for seed in range(4_000)]
    assert errors(normal, truth).coverage < 0.92
    assert errors(student, truth).coverage > errors(normal, truth).coverage + 0.01


def noise(seed: int) -> Log:
    """Rewards of mean 0 that depend on nothing, and 15 features to find patterns in."""
    random = np.random.default_rng(seed)
    log = Log(random.integers(0, 3, 600), random.normal(0, 1, 600), np.full(600, 1 / 3), 3)
    return replace(log, features=random.normal(0, 1, (600, 15)))


def learned_in_sample(log: Log) -> Array:
    """What must not be judged: greedy by regressions that were fitted on the very decisions."""
    assert log.features is not None
    rows, promises = np.column_stack([np.ones(log.n), log.features]), np.empty((log.n, 3))
    for arm in range(3):
        own = log.arms == arm
        promises[:, arm] = rows @ np.linalg.lstsq(rows[own], log.rewards[own])[0]
    return greedy(promises)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_was_learned_from_a_log_is_judged_by_it_only_out_of_fold() -> None:
    """In 1,000 worlds of noise, where nothing is worth more than 0: out of fold, weights say so, though with
    intervals that hold it too rarely. In sample they find a gain; so does the direct method either way."""
    logs = [noise(seed) for seed in range(1_000)]
    found = [evaluate(log, learned(log)) for log in logs]
    for method in WEIGHTED:
        one = errors([each.estimates[method] for each in found], 0)
        assert one.unbiased(), method
        assert 0.88 <= one.coverage <= 0.94, method
    hopeful = (
        errors([ips(log, learned_in_sample(log)) for log in logs], 0),
        errors([each.estimates[Method.DIRECT] for each in found], 0),
    )
    for one in hopeful:
        assert one.bias > 20 * one.noise


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_was_learned_of_arms_that_differ_is_held_by_its_intervals() -> None:
    """In 2,000 worlds, in each of which the truth is the learned choices' own."""
    found: dict[Method, list[Errors]] = {method: [] for method in WEIGHTED}
    for seed in range(2_000):
        log, _ = RIGHT.play(seed)
        assert log.features is not None
        target = learned(log)
        judged = evaluate(log, target).estimates
        truth = float(np.mean(np.sum(target * rewards_of(log.features), axis=1)))
        for method in WEIGHTED:
            found[method].append(errors([judged[method]], truth))
    for method, each in found.items():
        one = Errors(np.concatenate([e.of for e in each]), np.concatenate([e.covered for e in each]))
        assert 0.93 <= one.coverage <= 0.97, method
        assert one.unbiased(), method


def digits() -> Iterator[tuple[Log, Array, float]]:
    """Handwritten digits as decisions: an arm earns 1 if it is the digit, and is drawn at random. The
    candidate chooses what a classifier says that was fitted on other digits: its value is its accuracy."""
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(5).permutation(len(labels))
    fitted, judged = order[:400], order[400:]
    classifier = LogisticRegression(C=1e-4, max_iter=500).fit(pictures[fitted], labels[fitted])
    says = classifier.predict(pictures[judged])
    accuracy = float(np.mean(says == labels[judged]))
    for seed in range(200):
        arms = np.random.default_rng(seed).integers(0, 10, judged.size)
        rewards = (arms == labels[judged]).astype(np.float64)
        log = Log(arms, rewards, np.full(judged.size, 0.1), 10, pictures[judged])
        yield log, np.eye(10)[says], accuracy


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_classifier_is_worth_its_accuracy() -> None:
    """Over 200 logs of digits the doubly robust is right to three standard errors of their mean, within three
    of its own nearly always, and off by less than IPS. Source: Dudík, Langford & Li (2011), 4.1."""
    worlds = list(digits())
    truth = worlds[0][2]
    found = [evaluate(log, target) for log, target, _ in worlds]
    robust, weighted = (
        errors([each.estimates[method] for each in found], truth)
        for method in (Method.DOUBLY_ROBUST, Method.IPS)
    )
    assert abs(robust.bias) <= 3 * robust.noise
    own = np.array([each.estimates[Method.DOUBLY_ROBUST].standard_error for each in found])
    assert np.mean(np.abs(robust.of) <= 3 * own) > 0.98
    assert robust.root_mean_square < 0.8 * weighted.root_mean_square
