"""With which probability is each arm the best, and which shares follow?

Thompson sampling draws an arm with the probability that it is the best. Here that probability is computed
instead of drawn, so that a decision can say with which propensity it was made: first the probabilities, then
floors, caps and whole basis points, and only then, elsewhere, one draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, hypot, sqrt
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from routing.errors import BadModel
from routing.linear_model import Array, check_semidefinite
from routing.scores import Scores
from routing.types import TOTAL_BP


def _gauss_legendre(nodes: int) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss–Legendre rule on [0, 1]."""
    at, weights = np.polynomial.legendre.leggauss(nodes)
    return (at + 1) / 2, weights / 2


_ROOT_2 = sqrt(2)

_CLOSE = 1e-9
"""How far probabilities may be from a sum of 1."""

_ENDS = np.array([-3.5, -0.5, 1.0, 2.5, 4.5])
"""Where the panels of an integral end, in standard deviations around each arm's mean. They lie closer above
it, where the highest of several is."""

_REACH = 6.0
"""Below its mean by so many standard deviations an arm surely is not: P = 1e-9."""

_NODES, _WEIGHTS = _gauss_legendre(4)

_NARROWEST = 1e-9
"""Of a standard deviation, relative to the widest one: below, an arm's score is as good as certain."""

_FARTHEST = -50.0
"""Of a mean, relative to the best one, in the widest standard deviation: below, the arm has no chance."""

_LEAST = 1e-60
"""Of a distribution function, so that a product of several can be divided by each."""

_BETA_PANELS = 32
_BETA_NODES, _BETA_WEIGHTS = _gauss_legendre(8)

_ROW_BLOCK = 512
"""Contexts that are integrated at once; more would not fit into a cache."""


def best_of(means: Array, sds: Array) -> Array:
    """P(arm k's score is the highest), for independent normal scores; for arrays (…, K) of them.

    Two arms: Φ((m₁ − m₂)/√(s₁² + s₂²)). More: P_k = ∫ f_k(x) Π_{j≠k} F_j(x) dx by Gauss–Legendre
    quadrature on panels that end at five places around each arm's mean, in its own standard deviations, so
    that every arm is integrated at its own scale, however different these are. The error is below 1e-4 for
    up to 20 arms, and below 1e-3 for up to 100. Scores without any variance share equally among the highest.

    Assumes normal scores; those of a Normal–Inverse-Gamma are Student-t, with 100 degrees of freedom or more
    under the default prior, of which the normal of the same variance is off by less than 2e-3.

    Sources: Thompson, Biometrika 25, 1933; Scott, A modern Bayesian look at the multi-armed bandit, Applied
    Stochastic Models in Business and Industry 26, 2010, for the integral.
    """
    if means.shape[-1] < 2:
        return np.ones_like(means)
    if means.shape[-1] == 2:
        return _better_of_two(means, sds)
    widest = _top(sds)
    if widest.all():
        return _best_of_many(means, sds, widest)
    certain = widest == 0
    return np.where(certain, _highest(means), _best_of_many(means, sds, np.where(certain, 1.0, widest)))


def best_beta(successes: ArrayLike, failures: ArrayLike) -> Array:
    """P(arm k's rate is the highest), for independent rates Beta(1 + successes, 1 + failures), (K,) each.

    The counts may be discounted. P_k = ∫ f_k Π_{j≠k} F_j over the log-odds t, where the density
    ∝ xᵃ(1 − x)ᵇ, x = 1/(1 + e⁻ᵗ), has no poles and falls exponentially on both sides; Gauss–Legendre
    quadrature on 32 panels per arm. Assumes 0/1 rewards of one rate, and a uniform prior.

    Raises:
        BadModel: a count that is negative or not finite.
    """
    a, b = _shape("successes", successes), _shape("failures", failures)
    if a.size < 2:
        return np.ones_like(a)
    width = np.sqrt(1 / a + 1 / b)
    low, high = np.log(a / b) - 9 * width - 40 / a, np.log(a / b) + 9 * width + 40 / b
    at, weights = _panels(np.linspace(low, high, _BETA_PANELS + 1).ravel(), _BETA_NODES, _BETA_WEIGHTS)
    a, b = a[:, None], b[:, None]
    below = int(np.searchsorted(at, 0.0))
    rising = special.betainc(a, b, special.expit(at[:below]))
    falling = special.betaincc(b, a, special.expit(-at[below:]))
    log_density = a * special.log_expit(at) + b * special.log_expit(-at)
    density = np.exp(log_density - log_density.max(axis=-1, keepdims=True))
    density /= (density * weights).sum(axis=-1, keepdims=True)
    return _chances(density, np.concatenate((rising, falling), axis=1), weights)


def warm(p: Sequence[float], cold: Sequence[bool]) -> list[float]:
    """Probabilities of all arms, given those of the warm ones among themselves, in order.

    A cold arm, which has too few rewards to be judged, gets 1/K of the traffic; the warm ones share the rest.
    """
    rest = (len(cold) - sum(cold)) / len(cold)
    given = iter(p)
    return [1 / len(cold) if unknown else rest * next(given) for unknown in cold]


def check_bounds(arms: int, floor_bp: int, caps_bp: Sequence[int]) -> None:
    """Refuse a floor and caps, one per arm, between which the shares cannot sum to 10,000.

    Raises:
        BadModel: naming field, bound and value.
    """
    if arms < 1:
        raise BadModel(f"arms must be at least 1, got {arms}")
    if not 0 <= floor_bp <= TOTAL_BP // arms:
        raise BadModel(f"floor_bp must be in [0, {TOTAL_BP // arms}], got {floor_bp}")
    if len(caps_bp) != arms:
        raise BadModel(f"caps_bp must be of length {arms}, got {len(caps_bp)}")
    for number, cap_bp in enumerate(caps_bp):
        if not floor_bp <= cap_bp <= TOTAL_BP:
            raise BadModel(f"caps_bp[{number}] must be in [{floor_bp}, {TOTAL_BP}], got {cap_bp}")
    if sum(caps_bp) < TOTAL_BP:
        raise BadModel(f"caps_bp must sum to at least {TOTAL_BP}, got {sum(caps_bp)}")


def shares(p: Sequence[float], floor_bp: int, caps_bp: Sequence[int]) -> tuple[int, ...]:
    """Whole basis points that sum to 10,000, for probabilities that sum to 1.

    With the additive floor, f + (1 − K f) p. What an arm has above its cap goes to those below theirs in
    proportion to what they have (equally, if that is nothing): share_k = min(cap_k, c · amount_k). Rounded
    by the largest remainder, of equal ones the first arm's.

    Raises:
        BadModel: probabilities that do not sum to 1, or bounds that `check_bounds` refuses.
    """
    check_bounds(len(p), floor_bp, caps_bp)
    return _shares(p, floor_bp, caps_bp)


def shares_of_many(p: Array, floor_bp: int, caps_bp: Sequence[int]) -> NDArray[np.int64]:
    """The same for many rows of probabilities (n, K)."""
    check_bounds(p.shape[1], floor_bp, caps_bp)
    arms, caps = p.shape[1], np.array(caps_bp, dtype=np.float64)[:, None]
    wrong = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= _CLOSE))
    if wrong.any():
        raise BadModel(f"p must be in [0, 1] and sum to 1 in each row, got {p[wrong][0]}")
    columns = np.ascontiguousarray(p.T)
    amounts = _below_caps_of_many(floor_bp + (TOTAL_BP - arms * floor_bp) * columns, caps)
    whole = np.maximum(np.floor(amounts), floor_bp)
    remainders = amounts - whole
    left = TOTAL_BP - whole.sum(axis=0)
    order = np.argsort(np.argsort(-remainders, axis=0, kind="stable"), axis=0, kind="stable")
    return np.asarray((whole + (order < left)).T.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms the arms share, in one order: no arm has less than `floor_bp` nor more than its cap.

    A `cold` arm has too few rewards to be judged: it has 1/K of the traffic, within those bounds.

    Raises:
        BadModel: an arm that is named twice, another number of flags than of arms, or bounds that
            `check_bounds` refuses.
    """

    arm_ids: tuple[int, ...]
    floor_bp: int
    caps_bp: tuple[int, ...]
    cold: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(set(self.arm_ids)) < len(self.arm_ids):
            raise BadModel(f"arm_ids must be different, got {self.arm_ids}")
        if len(self.cold) != len(self.arm_ids):
            raise BadModel(f"cold must be of length {len(self.arm_ids)}, got {len(self.cold)}")
        check_bounds(len(self.arm_ids), self.floor_bp, self.caps_bp)

    def judged(self) -> list[int]:
        """The places of the arms that are judged."""
        return [place for place, cold in enumerate(self.cold) if not cold]

    def divide(self, p: Sequence[float]) -> tuple[int, ...]:
        """Basis points of all arms, given with which probability each warm one is the best of the warm."""
        return _shares(warm(p, self.cold) if True in self.cold else p, self.floor_bp, self.caps_bp)

    def divide_many(self, p: Array) -> NDArray[np.int64]:
        """The same for many rows of probabilities."""
        arms = len(self.cold)
        everyone = np.full((len(p), arms), 1 / arms)
        everyone[:, self.judged()] = p * ((arms - sum(self.cold)) / arms)
        return shares_of_many(everyone, self.floor_bp, self.caps_bp)


@final
class Bandit:
    """Which share of the traffic does each arm get in a context? Built once for each snapshot, by `linear` or
    by `binary`.

    Without context, and with fewer than two warm arms, the shares are the same for every x.
    """

    def __init__(
        self, terms: Terms, means: Array, covariances: Array, fixed: tuple[int, ...] | None = None
    ) -> None:
        self.terms = terms
        self.width = int(means.shape[1])
        self._scores = Scores(means, covariances)
        self._fixed = fixed

    @classmethod
    def linear(cls, terms: Terms, means: Array, covariances: Array) -> Bandit:
        """Of arms whose coefficients have the moments `means` (K, d) and `covariances` (K, d, d).

        With d = 1 the context is the intercept alone.

        Raises:
            BadModel: shapes that do not fit, or moments that contradict themselves.
        """
        _check_moments(len(terms.arm_ids), means, covariances)
        asked = terms.judged()
        means, covariances = means[asked], covariances[asked]
        bandit = cls(terms, means, covariances)
        if len(asked) > 1 and bandit.width > 1:
            return bandit
        return cls(terms, means, covariances, bandit.shares(np.eye(1, bandit.width)[0]))

    @classmethod
    def binary(cls, terms: Terms, successes: Array, failures: Array) -> Bandit:
        """Of arms with 0/1 rewards and no context, by their (discounted) counts (K,).

        Raises:
            BadModel: counts of another number of arms, or that cannot be.
        """
        for name, counts in (("successes", successes), ("failures", failures)):
            if counts.shape != (len(terms.arm_ids),):
                raise BadModel(f"{name} must be of shape {(len(terms.arm_ids),)}, got {counts.shape}")
        asked = terms.judged()
        fixed = terms.divide(best_beta(successes[asked], failures[asked]).tolist())
        return cls(terms, np.zeros((0, 1)), np.zeros((0, 1, 1)), fixed)

    def shares(self, x: Array) -> tuple[int, ...]:
        """Basis points in the order of the arms, which sum to 10,000, in a context x (d,).

        Raises:
            BadModel: a context of another width, or one whose scores are not finite.
        """
        if self._fixed is not None:
            return self._fixed
        if x.shape != (self.width,):
            raise BadModel(f"x must be of shape {(self.width,)}, got {x.shape}")
        means, sds = self._scores.of(x)
        return self.terms.divide(best_of(means, sds).tolist())

    def shares_many(self, xs: Array) -> NDArray[np.int64]:
        """The same in many contexts xs (n, d): whole numbers (n, K)."""
        if self._fixed is not None:
            return np.tile(np.array(self._fixed, dtype=np.int64), (len(xs), 1))
        if xs.shape[1:] != (self.width,):
            raise BadModel(f"xs must be of shape (n, {self.width}), got {xs.shape}")
        none = np.zeros((0, len(self.terms.arm_ids)), dtype=np.int64)
        blocks = [self._block(xs[start : start + _ROW_BLOCK]) for start in range(0, len(xs), _ROW_BLOCK)]
        return np.concatenate([none, *blocks])

    def _block(self, xs: Array) -> NDArray[np.int64]:
        means, sds = self._scores.of_many(xs)
        return self.terms.divide_many(best_of(means, sds))


def _better_of_two(means: Array, sds: Array) -> Array:
    if means.ndim == 1:
        one, two = means.tolist()
        spread = hypot(*sds.tolist())
        first = erfc((two - one) / spread / _ROOT_2) / 2 if spread else (1 + (one > two) - (one < two)) / 2
        return np.array([first, 1 - first])
    gaps, spreads = means[..., 0] - means[..., 1], np.hypot(sds[..., 0], sds[..., 1])
    apart = special.ndtr(gaps / np.where(spreads > 0, spreads, 1.0))
    firsts = np.where(spreads == 0, (1 + np.sign(gaps)) / 2, apart)
    return np.stack([firsts, 1 - firsts], axis=-1)


def _best_of_many(means: Array, sds: Array, widest: Array) -> Array:
    """At the scale of the widest arm, with the best mean at 0."""
    at = np.maximum((means - _top(means)) / widest, _FARTHEST)
    scale = np.maximum(sds / widest, _NARROWEST)
    ends = at[..., None] + scale[..., None] * _ENDS
    ends = np.maximum(ends.reshape(*means.shape[:-1], -1), _top(at - _REACH * scale))
    nodes, weights = _panels(ends, _NODES, _WEIGHTS)
    scale = scale[..., None]
    z = (nodes[..., None, :] - at[..., None]) / scale
    return _chances(np.exp(-0.5 * z * z) / scale, special.ndtr(z), weights)


def _top(values: Array) -> Array:
    """The greatest of each row, as a column: `values.max(axis=-1, keepdims=True)` at half its cost."""
    return np.asarray(np.maximum.reduce(values, axis=-1, keepdims=True))


def _highest(means: Array) -> Array:
    """All to the highest mean, or even shares to those that tie."""
    ties = means == _top(means)
    return np.asarray(ties / ties.sum(axis=-1, keepdims=True))


def _panels(ends: Array, nodes: Array, weights: Array) -> tuple[Array, Array]:
    """Points and weights, on each panel between neighbouring ends (…, ends), of a rule on [0, 1]."""
    ends = np.sort(ends, axis=-1)
    width = (ends[..., 1:] - ends[..., :-1])[..., None]
    rows = (*ends.shape[:-1], -1)
    return (ends[..., :-1, None] + width * nodes).reshape(rows), (width * weights).reshape(rows)


def _chances(density: Array, fall: Array, weights: Array) -> Array:
    """∫ f_k Π_{j≠k} F_j, made to sum to 1, of densities and distribution functions (…, K, points)."""
    fall = np.maximum(fall, _LEAST)
    everyone = np.multiply.reduce(fall, axis=-2) * weights
    p = np.matmul(density / fall, everyone[..., None])[..., 0]
    return np.asarray(p / np.add.reduce(p, axis=-1, keepdims=True))


def _shape(name: str, counts: ArrayLike) -> Array:
    shape = 1 + np.asarray(counts, dtype=np.float64)
    if not (np.isfinite(shape) & (shape >= 1)).all():
        raise BadModel(f"{name} must be finite and at least 0, got {counts!r}")
    return np.asarray(shape)


def _shares(p: Sequence[float], floor_bp: int, caps_bp: Sequence[int]) -> tuple[int, ...]:
    _check_chances(p)
    spread = TOTAL_BP - len(p) * floor_bp
    amounts = _below_caps([floor_bp + spread * chance for chance in p], caps_bp)
    whole = [max(floor_bp, int(amount)) for amount in amounts]
    remainders = [amount - part for amount, part in zip(amounts, whole, strict=True)]
    for _ in range(TOTAL_BP - sum(whole)):
        place = remainders.index(max(remainders))
        whole[place] += 1
        remainders[place] = -1.0
    return tuple(whole)


def _check_chances(p: Sequence[float]) -> None:
    total = 0.0
    for chance in p:
        if not 0 <= chance <= 1:
            raise BadModel(f"p must be in [0, 1], got {chance}")
        total += chance
    if abs(total - 1) > _CLOSE:
        raise BadModel(f"p must sum to 1, got {total}")


def _below_caps(amounts: list[float], caps: Sequence[int]) -> list[float]:
    """min(cap, c · amount), with the c ≥ 1 for which they sum to 10,000."""
    held: set[int] = set()
    grown = amounts
    while over := [place for place, amount in enumerate(grown) if amount > caps[place] and place not in held]:
        held.update(over)
        grown = _grown(amounts, caps, held)
    return grown


def _grown(amounts: list[float], caps: Sequence[int], held: set[int]) -> list[float]:
    """What arms have whose caps are not reached, while those of `held` are, which there are."""
    rest, total = float(TOTAL_BP), 0.0
    for place, amount in enumerate(amounts):
        if place in held:
            rest -= caps[place]
        else:
            total += amount
    even = rest / max(len(amounts) - len(held), 1)
    return [
        caps[place] if place in held else amount * rest / total if total else even
        for place, amount in enumerate(amounts)
    ]


def _below_caps_of_many(amounts: Array, caps: Array) -> Array:
    """The same for amounts (K, n) and caps (K, 1)."""
    held = np.zeros(amounts.shape, dtype=np.bool_)
    grown = amounts
    while (over := (grown > caps) & ~held).any():
        held |= over
        grown = np.where(held.any(axis=0), _grown_of_many(amounts, caps, held), amounts)
    return grown


def _grown_of_many(amounts: Array, caps: Array, held: NDArray[np.bool_]) -> Array:
    rest = TOTAL_BP - np.where(held, caps, 0).sum(axis=0)
    total = np.where(held, 0, amounts).sum(axis=0)
    even = rest / np.maximum((~held).sum(axis=0), 1)
    free = np.where(total > 0, amounts * rest / np.where(total > 0, total, 1), even)
    return np.where(held, caps, free)


def _check_moments(arms: int, means: Array, covariances: Array) -> None:
    if means.ndim != 2 or means.shape[0] != arms or means.shape[1] < 1:
        raise BadModel(f"means must be of shape ({arms}, d), got {means.shape}")
    if covariances.shape != (shape := (*means.shape, means.shape[1])):
        raise BadModel(f"covariances must be of shape {shape}, got {covariances.shape}")
    if not np.isfinite(means).all():
        raise BadModel(f"means must be finite, got {means[~np.isfinite(means)][0]}")
    for place, covariance in enumerate(covariances):
        check_semidefinite(f"covariances[{place}]", covariance)
