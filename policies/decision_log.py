"""What was chosen, how likely was that, and what did it earn? Logged decisions, and candidates over them.

A candidate is a target: its probability of each of K arms at each of n logged decisions, of shape (n, K).
Those that look at no context are here; those that are learned from the log are in `reward_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policies.errors import BadSpec
from policies.quadrature import Array
from policies.totals import within
from routing.types import TOTAL_BP
from routing.weights import check_weights

Integers: TypeAlias = NDArray[np.integer[Any]]

SMALLEST_PROPENSITY = 1e-9
"""A choice that is less likely is not met in a lifetime of logs."""

LARGEST = 1e50
"""Of a reward or a feature, so that no square overflows."""

_SUMS_TO_1 = 1e-9


@dataclass(frozen=True, eq=False)
class Log:
    """n logged decisions of one route.

    Args:
        arms: (n,) integers in [0, n_arms), the arm that was chosen.
        rewards: (n,) floats, what that choice earned; of mature decisions only.
        propensities: (n,) floats in (0, 1], the probability with which that arm was chosen.
        n_arms: K.
        features: (n, d) floats, what was known before the choice; None: nothing.
        clusters: (n,) integers, equal for decisions that are not independent: on sticky routes the hash of
            the unit. None: every decision is independent of all others.
        names: K names, by which messages call the arms; None: they have numbers.

    Raises:
        BadSpec: names the field, its bound and the first value outside it.
    """

    arms: Integers
    rewards: Array
    propensities: Array
    n_arms: int
    features: Array | None = None
    clusters: Integers | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        within("n_arms", self.n_arms, 1, TOTAL_BP)
        _check_shape("arms", self.arms, "iu", (self.n,))
        _check_range("arms", self.arms, 0, self.n_arms - 1)
        _check_shape("rewards", self.rewards, "f", (self.n,))
        _check_range("rewards", self.rewards, -LARGEST, LARGEST)
        _check_shape("propensities", self.propensities, "f", (self.n,))
        _check_range("propensities", self.propensities, SMALLEST_PROPENSITY, 1)
        if self.features is not None:
            width = self.features.shape[1] if self.features.ndim == 2 else 1
            _check_shape("features", self.features, "f", (self.n, width))
            _check_range("features", self.features, -LARGEST, LARGEST)
        if self.clusters is not None:
            _check_shape("clusters", self.clusters, "iu", (self.n,))
        if self.names is not None and len(self.names) != self.n_arms:
            raise BadSpec("names", f"must have {self.n_arms} names, got {len(self.names)}")

    @property
    def n(self) -> int:
        """How many decisions."""
        return self.arms.size

    @cached_property
    def units(self) -> NDArray[np.intp]:
        """The independent unit, 0, 1, …, that each decision belongs to: its cluster, or itself."""
        if self.clusters is None:
            return np.arange(self.n)
        return np.unique(self.clusters, return_inverse=True)[1]

    @cached_property
    def n_units(self) -> int:
        """How many independent units."""
        return int(np.max(self.units, initial=-1)) + 1

    def name_of(self, arm: int) -> str:
        """What messages call an arm."""
        return f"arm {arm if self.names is None else self.names[arm]}"

    def by_unit(self, values: Array) -> Array:
        """The sums of (n,) values over the decisions of each unit."""
        return np.asarray(np.bincount(self.units, values, self.n_units), dtype=np.float64)

    def of_chosen(self, of_arms: Array) -> Array:
        """What an (n, K) array says of the arm that was chosen: (n,)."""
        return np.take_along_axis(of_arms, self.arms[:, None], axis=1)[:, 0]

    def effective_samples(self, weights: Array) -> float:
        """The effective number of units, (Σw)²/Σw² over the sums by unit of (n,) weights.

        Source: Kish, Survey sampling (1965), 11.7.
        """
        sums = self.by_unit(weights)
        squares = float(np.dot(sums, sums))
        return float(np.sum(sums)) ** 2 / squares if squares else 0.0

    def spread(self, influence: Array) -> tuple[float, float]:
        """The standard error of a mean, given each decision's deviation from it, and its degrees of freedom.

        error² = G/(G − 1) · Σ s²/n², s the sums over the G units (Liang & Zeger, Biometrika 73, 1986). df is
        that of the χ² which varies as much as Σ s²: 2(Σ s²)²/(Σ s⁴ − (Σ s²)²/G), at most G − 1
        (Satterthwaite, Biometrics Bulletin 2, 1946, with the fourth moment as seen). Assumes G ≥ 2.
        """
        sums = self.by_unit(influence)
        size, scale = sums.size, float(np.max(np.abs(sums)))
        if scale == 0:
            return 0.0, size - 1.0
        squares = (sums / scale) ** 2
        total = float(np.sum(squares))
        excess = float(np.dot(squares, squares)) - total**2 / size
        error = scale * sqrt(size / (size - 1) * total) / self.n
        return error, min(size - 1.0, 2 * total**2 / excess) if excess > 0 else size - 1.0


def check_target(log: Log, target: Array) -> None:
    """Refuse what is not a probability of each arm at each decision of the log.

    Raises:
        BadSpec: a shape other than (n, K), a value outside [0, 1], a row that does not sum to 1 within 1e-9.
    """
    _check_shape("target", target, "f", (log.n, log.n_arms))
    _check_range("target", target, 0, 1)
    sums = np.sum(target, axis=1)
    wrong = np.abs(sums - 1) > _SUMS_TO_1
    if np.any(wrong):
        at = int(np.argmax(wrong))
        raise BadSpec(f"target[{at}]", f"must sum to 1 within {_SUMS_TO_1:g}, got {sums[at]:.15g}")


def always(log: Log, arm: int) -> Array:
    """The same arm at every decision. Raises BadSpec for an arm outside [0, K)."""
    within("arm", arm, 0, log.n_arms - 1)
    return np.broadcast_to(np.eye(log.n_arms)[arm], (log.n, log.n_arms))


def uniform(log: Log) -> Array:
    """Every arm with probability 1/K."""
    return np.broadcast_to(np.full(log.n_arms, 1 / log.n_arms), (log.n, log.n_arms))


def weights(log: Log, weights_bp: Sequence[int]) -> Array:
    """A fixed split, in basis points per arm.

    Raises:
        BadSpec: not K weights.
        routing.errors.BadWeights: a weight outside [0, 10,000], or a sum other than 10,000.
    """
    if len(weights_bp) != log.n_arms:
        raise BadSpec("weights_bp", f"must have {log.n_arms} weights, got {len(weights_bp)}")
    by_arm = {str(arm): weight for arm, weight in enumerate(weights_bp)}
    check_weights(by_arm, by_arm.keys())
    return np.broadcast_to(np.asarray(weights_bp) / TOTAL_BP, (log.n, log.n_arms))


def _check_shape(field: str, values: NDArray[Any], kinds: str, shape: tuple[int, ...]) -> None:
    if values.dtype.kind not in kinds:
        raise BadSpec(field, f"must be {'floats' if kinds == 'f' else 'integers'}, got {values.dtype}")
    if values.shape != shape:
        raise BadSpec(field, f"must have shape {shape}, got {values.shape}")


def _check_range(field: str, values: NDArray[Any], low: float, high: float) -> None:
    """By the extremes alone, unless they are wrong. NaN is outside of every range."""
    if not values.size or (np.min(values) >= low and np.max(values) <= high):
        return
    at = np.unravel_index(np.argmin((values >= low) & (values <= high)), values.shape)
    where = ", ".join(str(index) for index in at)
    raise BadSpec(f"{field}[{where}]", f"must be in [{low:.15g}, {high:.15g}], got {values[at]:.15g}")
