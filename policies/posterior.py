"""What is believed about an arm's mean after its data, and how do two such beliefs compare?

Every posterior answers the same few questions; the comparisons of a pair are one-dimensional integrals over
the narrower of the two, against the other's distribution function, or closed forms where there are any.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, expm1, hypot, sqrt
from typing import Protocol

import numpy as np
from scipy import special

from policies.quadrature import DROP, Array, Nodes, Real, crossing, grid, nodes

_NORMAL_REACH = 9.0
"""Standard deviations after which a normal density has fallen by DROP."""


class Posterior(Protocol):
    """A belief about one mean."""

    @property
    def mean(self) -> Real:
        """The posterior mean."""

    @property
    def width(self) -> Real:
        """A scale by which the narrower of two of one kind is found."""

    def below(self, x: Array) -> Array:
        """P(X ≤ x)."""

    def above(self, x: Array) -> Array:
        """P(X > x), exact in its own tail."""

    def excess(self, x: Array) -> Array:
        """E max(X − x, 0)."""

    def nodes(self) -> Nodes:
        """Points and probabilities to integrate over."""

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval of probability `level`."""


@dataclass(frozen=True, slots=True)
class Beta:
    """Of a binary metric's rate: Beta(a, b), with a − a₀ ones and b − b₀ zeros seen.

    Assumes independent 0/1 values with one rate. Integrated over the log-odds, whose density ∝ xᵃ(1 − x)ᵇ is
    log-concave also for shapes below 1.
    """

    a: float
    b: float

    @property
    def mean(self) -> float:
        """The mean a / (a + b)."""
        return self.a / (self.a + self.b)

    @property
    def width(self) -> float:
        """The standard deviation of the log-odds, to first order: √(1/a + 1/b)."""
        return sqrt(1 / self.a + 1 / self.b)

    @property
    def relative_width(self) -> float:
        """The standard deviation over the mean, √(b/(a(a + b + 1)))."""
        return sqrt(self.b / (self.a * (self.a + self.b + 1)))

    def below(self, x: Array) -> Array:
        """P(X ≤ x): the regularised incomplete beta function."""
        return special.betainc(self.a, self.b, np.minimum(x, 1))

    def above(self, x: Array) -> Array:
        """P(X > x)."""
        return special.betaincc(self.a, self.b, np.minimum(x, 1))

    def excess(self, x: Array) -> Array:
        """E max(X − x, 0) = m·P(X⁺ > x) − x·P(X > x), with X⁺ ~ Beta(a + 1, b)."""
        more = special.betaincc(self.a + 1, self.b, x)
        return np.maximum(self.mean * more - x * self.above(x), 0)

    def nodes(self) -> Nodes:
        """Points and probabilities, over the distance s from the peak of the log-odds' density.

        The log density is a·s − (a + b)·log(1 + m(eˢ − 1)); mirrored for s > 0, where that would overflow.
        """
        s = grid(*self._reach())
        here = np.where(s <= 0, self.mean, self.b / (self.a + self.b))
        slope = np.where(s <= 0, self.a, self.b)
        fall = np.log1p(here * np.expm1(-np.abs(s)))
        return nodes(self._at(s), -slope * np.abs(s) - (self.a + self.b) * fall)

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval, to 1e-11 in probability."""
        tail, (low, high) = (1 - level) / 2, self._reach()
        lower = crossing(lambda s: float(self.below(self._at(np.asarray(s)))), tail, low, high)
        upper = crossing(lambda s: -float(self.above(self._at(np.asarray(s)))), -tail, low, high)
        return float(self._at(np.asarray(lower))), float(self._at(np.asarray(upper)))

    def _reach(self) -> tuple[float, float]:
        """Where the density has died, as distances from its peak: its tails fall as e^(as) and e^(−bs)."""
        return -_NORMAL_REACH * self.width - DROP / self.a, _NORMAL_REACH * self.width + DROP / self.b

    def _at(self, s: Array) -> Array:
        return np.asarray(special.expit(np.log(self.a / self.b) + s))


@dataclass(frozen=True, slots=True)
class Gamma:
    """Of a count's rate per unit of exposure: Gamma(shape, rate).

    Assumes Poisson counts. Integrated over log x, whose density is log-concave also for shapes below 1.
    """

    shape: float
    rate: float

    @property
    def mean(self) -> float:
        """The mean shape / rate."""
        return self.shape / self.rate

    @property
    def width(self) -> float:
        """The standard deviation of the logarithm, to first order: 1/√shape."""
        return 1 / sqrt(self.shape)

    def below(self, x: Array) -> Array:
        """P(X ≤ x): the regularised incomplete gamma function."""
        return np.asarray(special.gammainc(self.shape, self.rate * x))

    def above(self, x: Array) -> Array:
        """P(X > x)."""
        return np.asarray(special.gammaincc(self.shape, self.rate * x))

    def excess(self, x: Array) -> Array:
        """E max(X − x, 0) = m·P(X⁺ > x) − x·P(X > x), with X⁺ of shape + 1."""
        more = special.gammaincc(self.shape + 1, self.rate * x)
        return np.maximum(self.mean * more - x * self.above(x), 0)

    def nodes(self) -> Nodes:
        """Points and probabilities: log density shape·(s − (eˢ − 1)) at a distance s from the peak."""
        s = grid(-_NORMAL_REACH * self.width - DROP / self.shape, _NORMAL_REACH * self.width)
        return nodes(self.mean * np.exp(s), self.shape * (s - np.expm1(s)))

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval."""
        tail = (1 - level) / 2
        low, high = special.gammaincinv(self.shape, tail), special.gammainccinv(self.shape, tail)
        return float(low / self.rate), float(high / self.rate)

    def chance_above(self, other: Gamma) -> float:
        """P(X > Y) = I_p(shape_y, shape_x) with p = rate_y/(rate_x + rate_y).

        Source: Evan Miller, Formulas for Bayesian A/B Testing.
        """
        return float(special.betainc(other.shape, self.shape, other.rate / (self.rate + other.rate)))


@dataclass(frozen=True, slots=True)
class StudentT:
    """Of a mean: loc + scale · t with `df` degrees of freedom, the marginal of a Normal–Inverse-Gamma.

    Under the reference prior 1/σ², n values give df = n − 1, loc = ȳ, scale = s/√n (Gelman et al., Bayesian
    Data Analysis, 3rd ed., 3.2). An excess needs df > 1. The fields may be arrays, one posterior per element,
    for `below`, `above` and `excess`.
    """

    df: Real
    loc: Real
    scale: Real

    @property
    def mean(self) -> Real:
        """The location."""
        return self.loc

    @property
    def width(self) -> Real:
        """The scale."""
        return self.scale

    def below(self, x: Real) -> Array:
        """P(X ≤ x)."""
        return np.asarray(special.stdtr(self.df, (x - self.loc) / self.scale))

    def above(self, x: Real) -> Array:
        """P(X > x)."""
        return np.asarray(special.stdtr(self.df, (self.loc - x) / self.scale))

    def excess(self, x: Real) -> Array:
        """E max(X − x, 0) = scale · [(df + z²)/(df − 1) · t_pdf(z) − z · t_sf(z)], z = (x − loc)/scale."""
        z = np.asarray((x - self.loc) / self.scale)
        head = (self.df + z**2) / (self.df - 1) * np.exp(self._log_density(z))
        return np.maximum(self.scale * (head - z * special.stdtr(self.df, -z)), 0)

    def nodes(self) -> Nodes:
        """Points and probabilities, over u with z = sinh u."""
        reach = float(np.arcsinh(self._quantile(float(np.exp(-DROP)))))
        u = grid(reach, -reach)
        z = np.sinh(u)
        return nodes(self.loc + self.scale * z, self._log_density(z) + np.log(np.cosh(u)))

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval; of a single posterior."""
        reach = float(self.scale * self._quantile((1 - level) / 2))
        return float(self.loc) + reach, float(self.loc) - reach

    def _quantile(self, p: float) -> Array:
        return np.asarray(special.stdtrit(self.df, p))

    def _log_density(self, z: Array) -> Array:
        half = np.asarray(self.df) / 2
        constant = special.gammaln(half + 0.5) - special.gammaln(half) - np.log(2 * half * np.pi) / 2
        return np.asarray(constant - (half + 0.5) * np.log1p(z**2 / self.df))


@dataclass(frozen=True, slots=True)
class LogRatio:
    """Of a ratio of means Σm/Σd: its logarithm is normal around log(Σm/Σd), under a flat prior on it.

    `sd` is the standard deviation of the log by the delta method. Assumes totals large enough for the central
    limit theorem; unlike the linear delta method it keeps a ratio above zero and is not optimistic on a lift.
    """

    log: float
    sd: float

    @property
    def median(self) -> float:
        """The ratio of the totals itself."""
        return exp(self.log)

    @property
    def mean(self) -> float:
        """The mean of the log-normal, exp(log + sd²/2)."""
        return exp(self.log + self.sd**2 / 2)

    def interval(self, level: float) -> tuple[float, float]:
        """The central interval."""
        reach = -float(special.ndtri((1 - level) / 2)) * self.sd
        return exp(self.log - reach), exp(self.log + reach)

    def chance_above(self, other: LogRatio) -> float:
        """P(X > Y) = Φ((log x − log y)/√(sd_x² + sd_y²))."""
        return float(special.ndtr((self.log - other.log) / hypot(self.sd, other.sd)))

    def shortfall(self, other: LogRatio) -> float:
        """E max(Y − X, 0) = m_Y Φ(d) − m_X Φ(d − s), d = log(m_Y/m_X)/s + s/2, s² = sd_X² + sd_Y².

        Source: Margrabe, The value of an option to exchange one asset for another, J. Finance 33 (1978).
        """
        spread = hypot(self.sd, other.sd)
        reach = (np.log(other.mean) - np.log(self.mean)) / spread + spread / 2
        return max(0.0, float(other.mean * special.ndtr(reach) - self.mean * special.ndtr(reach - spread)))

    def lift_over(self, other: LogRatio, level: float) -> tuple[float, float]:
        """The central interval of X/Y − 1."""
        reach = -float(special.ndtri((1 - level) / 2)) * hypot(self.sd, other.sd)
        centre = self.log - other.log
        return expm1(centre - reach), expm1(centre + reach)


def chance_above(x: Posterior, y: Posterior) -> float:
    """P(X > Y) of two independent posteriors of one kind: ∫ F_Y dF_X or 1 − ∫ F_X dF_Y, over the narrower."""
    if x.width <= y.width:
        over = x.nodes()
        return min(1.0, over.expectation(y.below(over.at)))
    over = y.nodes()
    return min(1.0, over.expectation(x.above(over.at)))


def shortfall(x: Posterior, y: Posterior) -> float:
    """E max(Y − X, 0): what is lost, in units of the metric, by choosing X although Y may be greater."""
    if x.width <= y.width:
        over = x.nodes()
        return over.expectation(y.excess(over.at))
    over = y.nodes()
    return over.expectation(np.maximum(x.excess(over.at) + over.at - x.mean, 0))
