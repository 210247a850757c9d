"""What does a bandit learn from, and within which bounds may it divide the traffic?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from policies.bounds import in_range
from policies.errors import BadSpec
from policies.metrics import Metric
from policies.rewards import BadExpression, Reward, names_in, parse
from routing.types import TOTAL_BP

MAX_WARM_UP = 10**6
MAX_REWARD = 1e9


@dataclass(frozen=True, slots=True)
class BanditSpec:
    """Thompson sampling, as declared. Shares in basis points; `caps` by arm name.

    `discount` is the weight that a reward keeps after one more day. An arm with fewer than `warm_up` matured
    rewards has a uniform share. As an `apprentice` the bandit learns while the champion answers.
    """

    reward: Reward
    floor_bp: int = 100
    caps: Mapping[str, int] = field(default_factory=dict)
    discount: float = 1.0
    warm_up: int = 20
    apprentice: bool = False


def bandit_problems(bandit: BanditSpec, arms: Sequence[str], metrics: Sequence[Metric]) -> Iterator[BadSpec]:
    """Everything in a bandit that cannot be; `arms` are the names of those that may answer."""
    yield from _reward_problems(bandit.reward, [metric.name for metric in metrics])
    yield from _bounds_problems(bandit, arms)
    if not 0 < bandit.discount <= 1:
        yield BadSpec("split.discount", f"must be in (0, 1], got {bandit.discount}")
    yield from in_range("split.warm_up", bandit.warm_up, 1, MAX_WARM_UP)


def _reward_problems(reward: Reward, known: Sequence[str]) -> Iterator[BadSpec]:
    try:
        named = names_in(parse(reward.expression))
    except BadExpression as error:
        yield BadSpec("split.reward", str(error))
        return
    if not named:
        yield BadSpec("split.reward", f"must name a metric of the route {list(known)}, got none")
    for name in sorted(named - set(known)):
        yield BadSpec("split.reward", f"must name metrics of the route {list(known)}, got {name!r}")
    if not isfinite(reward.default) or abs(reward.default) > MAX_REWARD:
        yield BadSpec(
            "split.reward.default", f"must be in [{-MAX_REWARD}, {MAX_REWARD}], got {reward.default}"
        )


def _bounds_problems(bandit: BanditSpec, arms: Sequence[str]) -> Iterator[BadSpec]:
    """That every arm can have the floor, and that the caps leave room for all traffic."""
    most = TOTAL_BP // max(1, len(arms))
    yield from in_range("split.floor", bandit.floor_bp, 0, most)
    for name, cap in bandit.caps.items():
        if name not in arms:
            yield BadSpec(f"split.cap.{name}", f"must be of an arm that answers {list(arms)}, got {name!r}")
        yield from in_range(f"split.cap.{name}", cap, max(1, bandit.floor_bp), TOTAL_BP)
    room = sum(bandit.caps.get(name, TOTAL_BP) for name in arms)
    if arms and room < TOTAL_BP:
        yield BadSpec("split.cap", f"must leave room for {TOTAL_BP} bp over all arms, got {room}")
