"""What did each logged decision earn, and what was known before it? From a log to what can be judged.

Asked alike of the database and of a file: the same decisions come to the same arrays, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.candidates import answering
from policies.bandits import MAX_REWARD
from policies.decision_log import LARGEST, Log
from policies.errors import CannotJudge
from policies.lessons import GRACE_MS
from policies.metrics import Metric, Outcome
from policies.quadrature import Array
from policies.rewards import Reward, in_time, names_in, parse, reward_of, window_ms
from policies.spec import RouteSpec
from routing.bucketing import unit_hash
from routing.context import Encoder

KEPT_ARM = "kept_arm"
"""Why a decision is left out: its unit keeps the arm of an earlier one, and the propensity is that one's."""

MOST_NUMBERS = 10_000_000
"""Features and arms of all decisions together: 80 MB, of which judging takes a few times as much."""

WITHOUT_CONTEXT = "without_context"
"""Why a decision is left out: the route declares a context, and none is known of it."""

_SALT = "decision-log"


class Logged(msgspec.Struct, frozen=True, gc=False):
    """A decision as it was logged, with its outcomes by metric.

    `arm` is a name that no other arm has. Decisions of one `unit` hang together; None: it is its own.
    `context` has the features that were there, of some version of their declaration.
    """

    id: str
    arm: str
    unit: str | None
    propensity: float
    at_ms: int
    context: Mapping[str, object] | None
    outcomes: Mapping[str, Sequence[Outcome]]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a log has to say, oldest decision first.

    `arms` names those of `log.arms`; only the first `answering` of them can still be chosen. Of shape (n,)
    are `at_ms`, when each decision was made, and `taught`, the reward that a bandit would have learned from,
    NaN where there is none; None: no bandit was asked about. `left_out` counts other decisions, by why.
    """

    log: Log
    arms: tuple[str, ...]
    answering: int
    at_ms: NDArray[np.int64]
    taught: Array | None
    left_out: Mapping[str, int]


class Worth:
    """What a decision was worth by a reward. Outcomes count as they do for a bandit: within their windows."""

    def __init__(self, reward: Reward, metrics: Sequence[Metric]) -> None:
        named = names_in(parse(reward.expression))
        self._reward = reward
        self._metrics = {metric.name: metric for metric in metrics if metric.name in named}
        self._received_ms = window_ms(reward, self._metrics) + GRACE_MS

    def of(self, decision: Logged) -> float:
        """The reward of a mature decision.

        Raises:
            CannotJudge: `no_reward`, for a division by zero or a number beyond all bounds.
        """
        known_by_ms = decision.at_ms + self._received_ms
        outcomes = in_time(decision.outcomes, self._metrics, decision.at_ms, known_by_ms)
        value = reward_of(self._reward, self._metrics, outcomes)
        if abs(value) > LARGEST:
            bound = f"{self._reward.expression} must be in [{-LARGEST:g}, {LARGEST:g}]"
            raise CannotJudge("no_reward", f"{bound}, got {value:g} for decision {decision.id}")
        return value


class _Part(NamedTuple):
    """Some decisions, oldest first; a row each."""

    arms: NDArray[np.int64]
    rewards: Array
    taught: Array
    propensities: Array
    at_ms: NDArray[np.int64]
    units: NDArray[np.uint64]
    features: Array


class LogBook:
    """Collects decisions, the newest first, and makes evidence of them.

    They are judged by `reward`; `taught` is what a bandit would learn from. Mutable state: which place each
    arm has, what there is of arrays, and how many decisions were left out.
    """

    def __init__(self, spec: RouteSpec, reward: Reward, taught: Reward | None = None) -> None:
        self._judged = Worth(reward, spec.metrics)
        self._taught = None if taught is None else Worth(taught, spec.metrics)
        self._encoder = Encoder(spec.context) if spec.context else None
        self._answering = answering(spec)
        self._places = {name: place for place, name in enumerate(self._answering)}
        self._parts: list[_Part] = []
        self._left_out: Counter[str] = Counter()

    def add(self, decisions: Sequence[Logged]) -> None:
        """Take more decisions, all of them older than those before.

        Raises:
            CannotJudge: `no_reward`. Such a decision is not left out, which would depend on what it earned.
        """
        kept = [one for one in decisions if self._encoder is None or one.context is not None]
        if lacking := len(decisions) - len(kept):
            self._left_out[WITHOUT_CONTEXT] += lacking
        self._parts.append(self._part(kept[::-1]))

    def leave_out(self, why: Mapping[str, int]) -> None:
        """Count decisions that nobody shall judge."""
        self._left_out.update(why)

    def close(self) -> Evidence:
        """What it all comes to."""
        parts = [self._part([]), *reversed(self._parts)]
        self._parts.clear()
        whole = _Part(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        log = Log(
            arms=whole.arms,
            rewards=whole.rewards,
            propensities=whole.propensities,
            n_arms=len(self._places),
            features=None if self._encoder is None else whole.features,
            clusters=whole.units,
            names=tuple(self._places),
        )
        return Evidence(
            log=log,
            arms=tuple(self._places),
            answering=len(self._answering),
            at_ms=whole.at_ms,
            taught=None if self._taught is None else whole.taught,
            left_out=dict(self._left_out),
        )

    def _part(self, decisions: Sequence[Logged]) -> _Part:
        places = self._places
        return _Part(
            arms=np.array([places.setdefault(one.arm, len(places)) for one in decisions], dtype=np.int64),
            rewards=np.array([self._judged.of(one) for one in decisions], dtype=np.float64),
            taught=np.array([self._lesson(one) for one in decisions], dtype=np.float64),
            propensities=np.array([one.propensity for one in decisions], dtype=np.float64),
            at_ms=np.array([one.at_ms for one in decisions], dtype=np.int64),
            units=np.array([_hashed(one) for one in decisions], dtype=np.uint64),
            features=self._features(decisions),
        )

    def _lesson(self, decision: Logged) -> float:
        """What a bandit learns; nothing from a decision without a reward, or with one beyond its bounds."""
        if self._taught is None:
            return nan
        try:
            reward = self._taught.of(decision)
        except CannotJudge:
            return nan
        return reward if abs(reward) <= MAX_REWARD else nan

    def _features(self, decisions: Sequence[Logged]) -> Array:
        """The columns of the present declaration, without the intercept."""
        if self._encoder is None:
            return np.empty((len(decisions), 0))
        contexts = [self._encoder.read(one.context or {}) for one in decisions]
        return self._encoder.encode_many(contexts)[:, 1:]


def room(spec: RouteSpec) -> int:
    """How many decisions of a route can be judged at once."""
    width = Encoder(spec.context).width if spec.context else 1
    return MOST_NUMBERS // (width + len(answering(spec)))


def _hashed(decision: Logged) -> int:
    """Which unit it is of. Hashed, so that folds, which follow the order of units, do not follow time."""
    return unit_hash(_SALT, decision.id if decision.unit is None else decision.unit)
