"""How does what was learnt of the arms reach the gateways, and what does it come to there?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from routing.bandit import BanditTerms, Learned, Posterior
from routing.errors import BadModel
from routing.linear_model import ArmModel, Array, Prior, Sums, posterior
from routing.thompson import Bandit, Terms
from routing.types import TOTAL_BP

_FLOAT = np.dtype("<f8")


def models_of(sums: Mapping[int, Sums], gamma: float) -> dict[int, ArmModel]:
    """The posterior of each arm by its id, under one prior on the scale of all their rewards.

    `gamma` in (0, 1] is the weight that a reward keeps after a day.

    Raises:
        BadModel: sums that contradict themselves.
    """
    as_of_ms = max((each.as_of_ms for each in sums.values()), default=0)
    present = {arm_id: each.decayed(as_of_ms, gamma) for arm_id, each in sums.items()}
    prior = Prior.pooled(list(present.values()))
    return {arm_id: posterior(each, prior) for arm_id, each in present.items()}


def learned_of(sums: Mapping[int, Sums], gamma: float, schema: int, at_ms: int) -> Learned:
    """What gateways are told of the arms' sums (by arm id), learnt with a schema version by a time.

    Raises:
        BadModel: sums that contradict themselves.
    """
    models = models_of(sums, gamma)
    arms = [_posterior(arm_id, each, models[arm_id]) for arm_id, each in sums.items()]
    return Learned(at_ms=at_ms, schema=schema, arms=tuple(arms))


def bandit_of(terms: BanditTerms, arm_ids: Sequence[int], schema: int, width: int) -> Bandit:
    """The bandit over the arms that may answer, in contexts of so many columns by a schema version.

    An arm of which nothing was learnt has too few rewards to be judged.

    Raises:
        BadModel: nothing was learnt yet, or with other features; or what was learnt contradicts itself.
    """
    learned = terms.learned
    if learned is None:
        raise BadModel("learned must be there, got nothing yet")
    if learned.schema != schema:
        raise BadModel(f"learned.schema must be {schema}, got {learned.schema}")
    known = {arm.arm_id: arm for arm in learned.arms}
    arms = [known.get(arm_id, Posterior(arm_id=arm_id, rewards=0)) for arm_id in arm_ids]
    bounds = Terms(
        arm_ids=tuple(arm_ids),
        floor_bp=terms.floor_bp,
        caps_bp=tuple(terms.caps_bp.get(arm_id, TOTAL_BP) for arm_id in arm_ids),
        cold=tuple(arm.rewards < terms.warm_up for arm in arms),
    )
    if terms.is_binary and width == 1:
        counts = np.array([(arm.successes, arm.failures) for arm in arms], dtype=np.float64)
        return Bandit.binary(bounds, counts[:, 0], counts[:, 1])
    means = np.stack([_numbers(arm, "mean", arm.mean, (width,)) for arm in arms])
    covariances = np.stack([_numbers(arm, "covariance", arm.covariance, (width, width)) for arm in arms])
    return Bandit.linear(bounds, means, covariances)


def _posterior(arm_id: int, sums: Sums, model: ArmModel) -> Posterior:
    return Posterior(
        arm_id=arm_id,
        rewards=sums.n,
        mean=model.mean.astype(_FLOAT).tobytes(),
        covariance=model.covariance.astype(_FLOAT).tobytes(),
        successes=sums.y,
        failures=sums.weight - sums.y,
    )


def _numbers(arm: Posterior, name: str, data: bytes, shape: tuple[int, ...]) -> Array:
    """The numbers of an arm; of one that has no rewards, zeros: nobody asks them."""
    if not data and not arm.rewards:
        return np.zeros(shape)
    size = int(np.prod(shape)) * _FLOAT.itemsize
    if len(data) != size:
        raise BadModel(f"{name} of arm {arm.arm_id} must be {size} bytes long, got {len(data)}")
    return np.frombuffer(data, dtype=_FLOAT).astype(np.float64).reshape(shape)
