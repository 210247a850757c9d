"""How traffic is divided, from the wire to its declaration and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.control.schemas import RewardDocument, SplitDocument
from policies.bandits import BanditSpec
from policies.metrics import Metric
from policies.rewards import Reward
from policies.spec import ArmSpec
from routing.types import TOTAL_BP, Role

_NAMES = ("discount", "warm_up", "apprentice")


def bandit_of(split: SplitDocument) -> BanditSpec | None:
    """The bandit that divides the traffic, not checked; None where weights do."""
    reward = split.reward
    if reward is None:
        return None
    given = {name: value for name in _NAMES if (value := getattr(split, name)) is not None}
    if split.floor is not None:
        given["floor_bp"] = split.floor
    expression = reward.metric if reward.expression is None else reward.expression
    learns_from = Reward(expression=expression or "", default=reward.default)
    return BanditSpec(reward=learns_from, caps=dict(split.cap or {}), **given)


def weights_of(split: SplitDocument, arms: Sequence[ArmSpec]) -> dict[str, int]:
    """A whole division: arms that are not named get nothing; beside a bandit all is the champion's.

    A shadow arm has no part in it, not even a 0.
    """
    if split.weights is None:
        wanted = {arm.name: TOTAL_BP for arm in arms if arm.role is Role.CHAMPION}
    else:
        wanted = split.weights
    shadows = {arm.name for arm in arms if arm.role is Role.SHADOW}
    named = {name: share for name, share in wanted.items() if share or name not in shadows}
    return {**dict.fromkeys((arm.name for arm in arms if arm.answers), 0), **named}


def split_document(
    weights: Mapping[str, int], bandit: BanditSpec | None, metrics: Sequence[Metric]
) -> SplitDocument:
    """The division as a file would declare it, every default written out; a bandit has no weights."""
    if bandit is None:
        return SplitDocument(weights=dict(weights))
    is_one = bandit.reward.expression in {metric.name for metric in metrics}
    named = {"metric" if is_one else "expression": bandit.reward.expression}
    return SplitDocument(
        mode="thompson",
        reward=RewardDocument(**named, default=bandit.reward.default),
        floor=bandit.floor_bp,
        cap=dict(bandit.caps),
        discount=bandit.discount,
        warm_up=bandit.warm_up,
        apprentice=bandit.apprentice,
    )
