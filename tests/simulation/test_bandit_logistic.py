"""Would a logistic model of 0/1 rewards earn more than the linear one? Data sets for classifiers, as arms.

Rewards of 4,000 decisions in per cent, means of 10 orders of the rows with standard errors, without a floor,
arms judged by 20 rewards. The logistic models have normal priors of precision ¼, 1 and 4 on coefficients
around the pooled log-odds, and are fitted anew to all rows of an arm, by Newton's method with Laplace's
approximation (Chapelle and Li, NIPS 2011, fit it to each batch once): they keep every row, where the linear
one keeps sums.

    data set        linear    | logistic ¼  1         4
    digits          81.9 ±.2  | 56.6 ±.4    70.5 ±.3  72.9 ±.9
    wine            97.1 ±.0  | 96.5 ±.1    96.6 ±.1  96.3 ±.1
    breast cancer   96.0 ±.0  | 96.1 ±.0    95.8 ±.0  95.3 ±.0
    phishing        88.3 ±.1  | 88.9 ±.1    88.9 ±.1  88.9 ±.1
    image segments  84.4 ±.2  | 83.1 ±.2    82.0 ±.7  78.2 ±2.2
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import numpy as np
import pytest
from scipy import special
from threadpoolctl import threadpool_limits

from routing.bucketing import bucket
from routing.linear_model import Array
from routing.thompson import Bandit, Terms
from routing.types import TOTAL_BP
from tests.simulation.classification import WORLDS, Gateway, Lesson, Player, World, play

DECISIONS, ORDERS, WARM_UP = 4_000, 10, 20
PRECISIONS = (0.25, 1.0, 4.0)
STEPS = 25

AHEAD = {"digits": 0.04, "wine": 0.0, "breast cancer": -0.01, "phishing": -0.015, "image segments": -0.01}
"""By how much, of a reward of 1, it is surely ahead of each logistic one; below 0 it may be behind."""


class Logistic:
    """Thompson sampling over logistic models: of each arm its rows, and 1 or 0 for each."""

    def __init__(self, world: World, precision: float) -> None:
        self._world, self._precision = world, precision
        self._lessons: list[list[Lesson]] = [[] for _ in range(world.arms)]
        self._modes = np.zeros((world.arms, world.encoder.width))
        self._bandit = self._next()

    def choose(self, row: int, draw: int) -> tuple[int, float]:
        shares = self._bandit.shares(self._world.xs[row])
        arm = int(np.searchsorted(np.cumsum(shares), bucket(draw), side="right"))
        return arm, shares[arm] / TOTAL_BP

    def learn(self, lessons: Sequence[Lesson]) -> None:
        for lesson in lessons:
            self._lessons[lesson.arm].append(lesson)
        self._bandit = self._next()

    def _next(self) -> Bandit:
        everyone = [lesson.reward for about in self._lessons for lesson in about]
        rate = (sum(everyone) + 0.5) / (len(everyone) + 1)
        start = log(rate / (1 - rate)) * np.eye(1, self._modes.shape[1])[0]
        covariances = []
        for arm, about in enumerate(self._lessons):
            xs, ys = self._world.xs[[each.row for each in about]], np.array([each.reward for each in about])
            self._modes[arm], precision = laplace(xs, ys, start, self._precision, self._modes[arm])
            covariances.append(np.linalg.inv(precision))
        cold = tuple(len(about) < WARM_UP for about in self._lessons)
        terms = Terms(tuple(range(len(cold))), 0, (TOTAL_BP,) * len(cold), cold)
        return Bandit.linear(terms, self._modes.copy(), np.stack(covariances))


def laplace(xs: Array, ys: Array, start: Array, precision: float, guess: Array) -> tuple[Array, Array]:
    """Mode and precision of a logistic regression's coefficients, under a normal prior around `start`."""
    prior, mode = precision * np.eye(start.size), guess
    for _ in range(STEPS):
        p = special.expit(xs @ mode)
        curvature = (xs * (p * (1 - p))[:, None]).T @ xs + prior
        step = np.linalg.solve(curvature, xs.T @ (ys - p) - prior @ (mode - start))
        longest = float(np.abs(step).max())
        mode = mode + step / max(1.0, longest / 2)
        if longest < 1e-6:
            break
    return mode, curvature


def earned(world: World, players: Sequence[Player]) -> Array:
    """The mean reward of each player, each in an order of its own."""
    return np.array([np.mean(play(world, each, DECISIONS, seed)) for seed, each in enumerate(players)])


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", WORLDS)
def test_a_logistic_model_earns_no_more(name: str) -> None:
    """Than the linear one, whatever its prior, but for little: by three standard errors it is at least 4
    points of 100 behind on digits, and behind on wine; ahead it is by at most 1 on breast cancer and on image
    segments, and by 1.5 on phishing."""
    world = WORLDS[name]()
    with threadpool_limits(1):
        linear = earned(world, [Gateway(world, warm_up=WARM_UP, floor_bp=0) for _ in range(ORDERS)])
        print(f"{name:15} linear   {said(linear)}")
        for precision in PRECISIONS:
            logistic = earned(world, [Logistic(world, precision) for _ in range(ORDERS)])
            print(f"{name:15} logistic {precision} {said(logistic)}")
            lead = linear - logistic
            assert np.mean(lead) - 3 * standard_error(lead) >= AHEAD[name]


def said(rewards: Array) -> str:
    """In per cent, with a standard error."""
    return f"{100 * np.mean(rewards):.1f} ± {100 * standard_error(rewards):.1f}"


def standard_error(values: Array) -> float:
    """Of their mean."""
    return float(np.std(values, ddof=1)) / sqrt(len(values))
