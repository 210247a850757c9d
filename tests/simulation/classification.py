"""What does a data set for classifiers come to as a bandit's world, and who plays there?

A row is a context, a class is an arm, and the reward is 1 for the right one and 0 for any other. So the best
that can be earned is 1 a decision, and what is missing from that is regret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from river import datasets
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from routing.assignment import Asked, Plan
from routing.bandit import BanditTerms, Learned
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind, Value
from routing.learning import learned_of
from routing.linear_model import Array, Sums
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route
from routing.weights import lay_out

BATCH = 50
"""After so many decisions a player learns, of the batch before the one that has just ended."""


@dataclass(frozen=True, eq=False)
class World:
    """Rows of numbers (n, features), and the class of each (n,), counted from 0."""

    rows: Array
    classes: NDArray[np.intp]

    @cached_property
    def arms(self) -> int:
        return int(self.classes.max()) + 1

    @cached_property
    def encoder(self) -> Encoder:
        """Each number is declared with its range; its middle stands in where it is missing."""
        ranges = zip(self.rows.min(axis=0).tolist(), self.rows.max(axis=0).tolist(), strict=True)
        return Encoder([_feature(place, low, high) for place, (low, high) in enumerate(ranges)])

    @cached_property
    def contexts(self) -> list[dict[str, Value]]:
        """The rows as a gateway reads them."""
        return [
            self.encoder.read({f"x{place}": number for place, number in enumerate(row)})
            for row in self.rows.tolist()
        ]

    @cached_property
    def xs(self) -> Array:
        """The rows as numbers of one size, (n, width)."""
        return self.encoder.encode_many(self.contexts)

    def order(self, decisions: int, draw: np.random.Generator) -> list[int]:
        """So many rows: all of them in one order, then in another."""
        size = len(self.classes)
        passes = [draw.permutation(size) for _ in range(-(-decisions // size))]
        return [int(row) for row in np.concatenate(passes)[:decisions]]

    def route(self, bandit: BanditTerms) -> Route:
        """Of arms 1, 2, …, as a worker reads it from its snapshot."""
        arms = tuple(
            Arm(id=k, name=f"a{k}", url="http://a", role=Role.CHALLENGER if k > 1 else Role.CHAMPION)
            for k in range(1, self.arms + 1)
        )
        route = Route(
            id=1,
            name="bid",
            match=Match(path_prefix="/r/bid"),
            arms=arms,
            shares=lay_out((), {1: TOTAL_BP}, 1),
            salt="1:1",
            epoch=1,
            context=self.encoder.features,
            bandit=bandit,
        )
        return msgspec.json.decode(msgspec.json.encode(route), type=Route)


WORLDS: Mapping[str, Callable[[], World]] = {
    "digits": lambda: World(*load_digits(return_X_y=True)),
    "wine": lambda: World(*load_wine(return_X_y=True)),
    "breast cancer": lambda: World(*load_breast_cancer(return_X_y=True)),
    "phishing": lambda: _streamed(datasets.Phishing),
    "image segments": lambda: _streamed(datasets.ImageSegments),
}
"""The first three come with scikit-learn, the others with river."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of a row: the arm that was chosen, with which probability, and its reward."""

    row: int
    arm: int
    probability: float
    reward: float


class Player(Protocol):
    """Somebody who chooses arms, counted from 0, and learns."""

    def choose(self, row: int, draw: int) -> tuple[int, float]:
        """An arm, drawn by 64 random bits, and with which probability."""

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """What came of former choices."""


class Gateway:
    """The bandit of the product, from the declared features to the logged probability."""

    def __init__(self, world: World, **terms: Any) -> None:
        self._world, self._terms = world, terms
        self._sums = {arm_id: Sums.empty(world.encoder.width) for arm_id in range(1, world.arms + 1)}
        self._decisions = 0
        self._plan = self._next_plan()

    def choose(self, row: int, draw: int) -> tuple[int, float]:
        self._decisions += 1
        context = self._world.contexts[row]
        answer = self._plan.assign(Asked(None, 0, at_ms=self._decisions, nonce=draw, context=context))
        assert answer.reason is Reason.BANDIT, self._plan.fault
        return answer.arm.id - 1, answer.propensity_bp / TOTAL_BP

    def learn(self, lessons: Sequence[Lesson]) -> None:
        for arm_id in self._sums:
            about = [lesson for lesson in lessons if lesson.arm == arm_id - 1]
            xs = self._world.xs[[lesson.row for lesson in about]]
            rewards = [lesson.reward for lesson in about]
            self._sums[arm_id] = self._sums[arm_id].plus_many(xs, rewards, self._decisions, 1.0)
        self._plan = self._next_plan()

    def _next_plan(self) -> Plan:
        learned = learned_of(self._sums, 1.0, self._world.encoder.version, self._decisions)
        return Plan(self._world.route(BanditTerms(learned=self.believed(learned), **self._terms)))

    def believed(self, learned: Learned) -> Learned:
        """What is made of what was learnt."""
        return learned


class Greedy(Gateway):
    """The same arms, features, sums and means, and no doubt about them: the best mean has all."""

    def believed(self, learned: Learned) -> Learned:
        sure = [msgspec.structs.replace(arm, covariance=bytes(len(arm.covariance))) for arm in learned.arms]
        return msgspec.structs.replace(learned, arms=tuple(sure))


class Vowpal:
    """Vowpal Wabbit's linear contextual bandit: every arm's weights for the same numbers, and its constant.

    Costs are 0 for the right arm and 1 for any other. All but `exploration` is as it comes.
    """

    def __init__(self, workspace: Any, world: World, exploration: str) -> None:
        self._vw = workspace(f"--cb_explore_adf {exploration} --quadratic xa --quiet")
        self._actions = [f"|a {arm}" for arm in range(world.arms)]
        self._shared = [_shared(x) for x in world.xs[:, 1:].tolist()]

    def choose(self, row: int, draw: int) -> tuple[int, float]:
        chances = np.array(self._vw.predict([self._shared[row], *self._actions]))
        chances /= chances.sum()
        arm = min(int(np.searchsorted(chances.cumsum(), draw / 2**64)), len(chances) - 1)
        return arm, float(chances[arm])

    def learn(self, lessons: Sequence[Lesson]) -> None:
        for lesson in lessons:
            actions = list(self._actions)
            actions[lesson.arm] = f"0:{1 - lesson.reward}:{lesson.probability} {actions[lesson.arm]}"
            self._vw.learn([self._shared[lesson.row], *actions])


def play(world: World, player: Player, decisions: int, seed: int, at_once: bool = False) -> Array:
    """The reward of each decision, of rows in an order by the seed.

    Learnt is in batches and late, as a gateway does, or `at_once` after each decision.
    """
    draw = np.random.default_rng(seed)
    waiting: list[list[Lesson]] = []
    rewards: list[float] = []
    order = world.order(decisions, draw)
    size, late = (1, 0) if at_once else (BATCH, 1)
    for start in range(0, decisions, size):
        waiting.append([_tried(world, player, row, draw) for row in order[start : start + size]])
        rewards += [lesson.reward for lesson in waiting[-1]]
        if len(waiting) > late:
            player.learn(waiting.pop(0))
    return np.array(rewards)


def _tried(world: World, player: Player, row: int, draw: np.random.Generator) -> Lesson:
    arm, probability = player.choose(row, int(draw.integers(2**64, dtype=np.uint64)))
    return Lesson(row, arm, probability, float(arm == world.classes[row]))


def _feature(place: int, low: float, high: float) -> Feature:
    """Of numbers from low to high; a pixel that is always blank has a range all the same."""
    return Feature(
        name=f"x{place}",
        source=Source(kind=SourceKind.JSON, name=f"/x{place}"),
        type=FeatureType.NUMERIC,
        minimum=low,
        maximum=high if high > low else low + 1,
        default=(low + high) / 2,
    )


def _shared(numbers: Sequence[float]) -> str:
    """The context in Vowpal Wabbit's text format."""
    return "shared |x " + " ".join(f"{place}:{number:.6g}" for place, number in enumerate(numbers))


def _streamed(pairs: Callable[[], Any]) -> World:
    """Of river's pairs of features by name and class."""
    rows, classes = zip(*pairs(), strict=True)
    numbers = np.array([list(row.values()) for row in rows], dtype=np.float64)
    return World(numbers, np.unique(classes, return_inverse=True)[1])
