"""What does a mature decision teach a bandit, and what exactly are its sums the sums of?

Asked alike of decisions as they mature and of the log when all is learnt anew: what is known of the arms
follows from the decisions and outcomes in the log, not from when, in which order or in which parts they came.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from policies.bandits import MAX_REWARD, BanditSpec
from policies.errors import CannotJudge
from policies.metrics import Metric, Outcome
from policies.rewards import in_time, is_binary, names_in, parse, reward_of, window_ms
from policies.spec import RouteSpec
from routing.context import Encoder
from routing.features import Feature
from routing.linear_model import Array, Sums
from routing.types import TOTAL_BP, Reason

TEACHING = (Reason.SPLIT, Reason.BANDIT, Reason.STATIC)
"""Decisions with another reason teach nothing: somebody wanted that arm, or something was wrong."""

GRACE_MS = 5_000
"""How long after its window has closed an outcome may be received and still count."""

SETTLE_MS = 1_000
"""How long after that an event may be on its way to the log."""

_MEANING = 1
"""Raised when the same decisions and outcomes come to other sums."""


@dataclass(frozen=True, slots=True)
class Mature:
    """A decision whose reward is mature, as it was logged.

    `context` holds the features that were there, of some version of their declaration; None: nothing is known
    of them. `considered_bp`: with which probability an apprentice would have chosen the arm.
    """

    arm_id: int
    at_ms: int
    context: Mapping[str, object] | None
    considered_bp: int | None
    outcomes: Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, slots=True)
class Apprentice:
    """What an apprentice would have done at `decisions` whose arm was another's choice: sums over them.

    `agreement` of p, the probability with which it would have chosen the same arm; `earned` of p times the
    reward; `actual` of the reward.
    """

    decisions: int = 0
    agreement: float = 0.0
    earned: float = 0.0
    actual: float = 0.0

    def plus(self, considered: Sequence[tuple[float, float]]) -> Apprentice:
        """With further decisions: pairs of p and reward."""
        return Apprentice(
            self.decisions + len(considered),
            self.agreement + sum(p for p, _ in considered),
            self.earned + sum(p * reward for p, reward in considered),
            self.actual + sum(reward for _, reward in considered),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What is known of the arms (by id), and how many mature decisions taught nothing."""

    sums: Mapping[int, Sums]
    unusable: int = 0
    apprentice: Apprentice = Apprentice()


class Lessons:
    """How a route's bandit learns.

    `schema` and `width` are those of its contexts: 0 and 1 without features. `is_binary`: every reward is 0
    or 1, and there is no context. `meaning` names what the sums are the sums of: another one's say nothing.
    """

    def __init__(self, bandit: BanditSpec, metrics: Sequence[Metric], features: Sequence[Feature]) -> None:
        named = names_in(parse(bandit.reward.expression))
        self._metrics = {metric.name: metric for metric in metrics if metric.name in named}
        self.bandit = bandit
        self.window_ms = window_ms(bandit.reward, self._metrics)
        self.encoder = Encoder(features) if features else None
        self.schema = self.encoder.version if self.encoder is not None else 0
        self.width = self.encoder.width if self.encoder is not None else 1
        self.is_binary = self.encoder is None and is_binary(bandit.reward, self._metrics)
        self.meaning = self._meaning()

    def learn(
        self, known: Knowledge, decisions: Sequence[Mature], arm_ids: Collection[int]
    ) -> tuple[Knowledge, frozenset[int]]:
        """What is known after these decisions as well, and of which arms it is more.

        A decision teaches nothing of an arm that is not among `arm_ids`, without the context that the route
        declares, and with a reward that has no value or is beyond ± 10¹².
        """
        rewards = [(decision, self._reward(decision, arm_ids)) for decision in decisions]
        taught = [(decision, reward) for decision, reward in rewards if reward is not None]
        lessons: dict[int, list[tuple[Mature, float]]] = defaultdict(list)
        for decision, reward in taught:
            lessons[decision.arm_id].append((decision, reward))
        sums = dict(known.sums)
        for arm_id, about in lessons.items():
            sums[arm_id] = self._plus(sums.get(arm_id) or Sums.empty(self.width), about)
        unusable = known.unusable + len(decisions) - len(taught)
        return Knowledge(sums, unusable, known.apprentice.plus(_considered(taught))), frozenset(lessons)

    def rows(self, contexts: Sequence[Mapping[str, object]]) -> Array:
        """The numbers of contexts (n, width), whichever version of the declaration they were read by."""
        if self.encoder is None:
            return np.ones((len(contexts), 1))
        return self.encoder.encode_many([self.encoder.read(context) for context in contexts])

    def _plus(self, sums: Sums, about: Sequence[tuple[Mature, float]]) -> Sums:
        xs = self.rows([decision.context or {} for decision, _ in about])
        ys = np.array([reward for _, reward in about])
        at_ms = np.array([decision.at_ms for decision, _ in about], dtype=np.int64)
        return sums.plus_many(xs, ys, at_ms, self.bandit.discount)

    def _reward(self, decision: Mature, arm_ids: Collection[int]) -> float | None:
        if decision.arm_id not in arm_ids or (self.encoder is not None and decision.context is None):
            return None
        try:
            known_by_ms = decision.at_ms + self.window_ms + GRACE_MS
            outcomes = in_time(decision.outcomes, self._metrics, decision.at_ms, known_by_ms)
            reward = reward_of(self.bandit.reward, self._metrics, outcomes)
        except CannotJudge:
            return None
        return reward if abs(reward) <= MAX_REWARD else None

    def _meaning(self) -> str:
        reward = self.bandit.reward
        told = {
            "meaning": _MEANING,
            "schema": self.schema,
            "width": self.width,
            "reward": [reward.expression, float(reward.default)],
            "metrics": sorted(
                (each.name, each.kind.value, each.aggregate.value, each.better.value, each.window_ms)
                for each in self._metrics.values()
            ),
            "discount": float(self.bandit.discount),
        }
        return blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=32).hexdigest()


def lessons_of(spec: RouteSpec) -> Lessons | None:
    """How a declared route's bandit learns; None where weights divide the traffic."""
    return None if spec.bandit is None else Lessons(spec.bandit, spec.metrics, spec.context)


def wait_ms(spec: RouteSpec, bandit: BanditSpec) -> int:
    """How long after a decision its reward is mature, and everything that was said of it is in the log."""
    window = window_ms(bandit.reward, {metric.name: metric for metric in spec.metrics})
    return max(window + GRACE_MS, spec.upstream.timeout_ms) + SETTLE_MS


def _considered(taught: Iterable[tuple[Mature, float]]) -> list[tuple[float, float]]:
    return [
        (decision.considered_bp / TOTAL_BP, reward)
        for decision, reward in taught
        if decision.considered_bp is not None
    ]
