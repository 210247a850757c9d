"""What a bandit earns on real data beside Vowpal Wabbit: data sets for classifiers, whose classes are arms.

Rewards of 4,000 decisions in per cent of what is to be earned, means of 10 orders of the rows with standard
errors, of Vowpal Wabbit 9.11.9 as it comes. *Floor* is the default of 1 % for each arm. The first three judge
an arm by 20 rewards, *default* by 100, as the product does unless told otherwise. Everybody learns in batches
of 50, of the one before the last, but *at once* after each decision.

    data set        even | greedy    no floor  floor     default   | squarecb  cover     at once
    digits          10.0 | 84.9 ±.4  72.9 ±.2  66.2 ±.2  59.4 ±.2  | 72.8 ±.9  74.0 ±.7  72.3 ±1.2
    wine            33.3 | 97.3 ±.0  96.9 ±.0  95.0 ±.1  91.5 ±.1  | 96.7 ±.1  92.1 ±.1  97.7 ±.1
    breast cancer   50.0 | 96.5 ±.1  95.8 ±.1  94.7 ±.1  92.4 ±.1  | 94.1 ±.1  87.9 ±.2  94.9 ±.3
    phishing        50.0 | 88.4 ±.1  88.2 ±.1  87.4 ±.1  85.6 ±.1  | 88.6 ±.1  85.7 ±.1  89.4 ±.1
    image segments  14.3 | 85.6 ±.3  83.3 ±.1  78.2 ±.2  68.5 ±.3  | 67.7 ±.7  65.8 ±.3  66.4 ±1.7

Squarecb and cover explore less as they learn, and a floor never does: it costs about its share of the traffic
times what a wrong arm loses, which is 9 of 100 with ten arms and one right one. A warm-up costs most where
arms are many and decisions few. Greedy, which never tries again, earns the most of the four that share its
model: rows of such variety explore by themselves, as they did in 500 data sets (Bietti, Agarwal and Langford,
A Contextual Bandit Bake-off, JMLR 22, 2021). From a wrong start, though, nothing brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from routing.linear_model import Array
from tests.simulation.classification import WORLDS, Gateway, Greedy, Player, Vowpal, World, play

DECISIONS = 4_000
ORDERS = 10
BESIDE = ("squarecb", "cover")

LEADS = {
    "digits": {"no floor": -0.04, "floor": -0.11},
    "wine": {"no floor": -0.01, "floor": -0.03},
    "breast cancer": {"no floor": 0.01, "floor": -0.01},
    "phishing": {"no floor": -0.01, "floor": -0.02},
    "image segments": {"no floor": 0.10, "floor": 0.05},
}
"""By how much, of a reward of 1, it is surely ahead of the better of the two; below 0 it may be behind."""


@pytest.fixture(scope="module")
def workspace() -> Any:
    """How Vowpal Wabbit is started."""
    return pytest.importorskip("vowpalwabbit", reason="there is no wheel of Vowpal Wabbit here").Workspace


def players(workspace: Any) -> Mapping[str, Callable[[World], Player]]:
    """Everybody in the table."""
    return {
        "greedy": lambda world: Greedy(world, warm_up=20, floor_bp=0),
        "no floor": lambda world: Gateway(world, warm_up=20, floor_bp=0),
        "floor": lambda world: Gateway(world, warm_up=20),
        "default": Gateway,
        "squarecb": lambda world: Vowpal(workspace, world, "--squarecb"),
        "cover": lambda world: Vowpal(workspace, world, "--cover 10 --nounif"),
        "at once": lambda world: Vowpal(workspace, world, "--squarecb"),
    }


def earned(world: World, name: str, player: Callable[[World], Player]) -> Array:
    """The mean reward in each order."""
    orders = [play(world, player(world), DECISIONS, seed, name == "at once") for seed in range(ORDERS)]
    return np.array([np.mean(rewards) for rewards in orders])


def standard_error(values: Array) -> float:
    """Of their mean."""
    return float(np.std(values, ddof=1)) / sqrt(len(values))


def surely(values: Array) -> float:
    """Their mean less three standard errors."""
    return float(np.mean(values)) - 3 * standard_error(values)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", WORLDS)
def test_a_bandit_earns_about_what_vowpal_wabbit_does(name: str, workspace: Any) -> None:
    """Without a floor, which Vowpal Wabbit has not either, it is surely at most 4 points of 100 behind the
    better of two of its explorations on digits, and 1 on wine and on phishing; it is ahead by 1 on breast
    cancer, and by 10 on image segments. With the default floor it is at most 11, 3, 2 and 1 behind, and ahead
    by 5.

    By default in all it loses less than half of what even shares lose, in every order.
    """
    world = WORLDS[name]()
    with threadpool_limits(1):
        all_earned = {who: earned(world, who, player) for who, player in players(workspace).items()}
    for who, rewards in all_earned.items():
        print(f"{name:15} {who:9} {100 * np.mean(rewards):.1f} ± {100 * standard_error(rewards):.1f}")
    best = all_earned[max(BESIDE, key=lambda who: float(np.mean(all_earned[who])))]
    for who, lead in LEADS[name].items():
        assert surely(all_earned[who] - best) >= lead, who
    assert 1 - np.min(all_earned["default"]) < (1 - 1 / world.arms) / 2
