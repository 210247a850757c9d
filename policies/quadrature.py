"""How are expectations and quantiles of a posterior computed? One grid, and one root finder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Real: TypeAlias = float | Array
"""A number, or one number per element."""

NODES = 513
DROP = 40.0
"""How far the log density falls from its peak to the ends of a grid: e⁻⁴⁰ is left out."""

_CLOSE = 1e-11
_LONGEST_SEARCH = 200


@dataclass(frozen=True, slots=True)
class Nodes:
    """Points of a distribution's range and their probabilities, which sum to 1."""

    at: Array
    weights: Array

    def expectation(self, values: Array) -> float:
        """E g(X), given g at the points."""
        return float(np.dot(self.weights, values))


def grid(low: float, high: float) -> Array:
    """Equally spaced points, on which `nodes` integrates."""
    return np.linspace(low, high, NODES)


def nodes(at: Array, log_density: Array) -> Nodes:
    """The trapezoidal rule over equally spaced u, whose density is known up to a factor; `at` is x(u).

    With an analytic density that has died at both ends the rule converges exponentially (Trefethen and
    Weideman, The exponentially convergent trapezoidal rule, SIAM Review 56, 2014). It needs no quantile
    function, which for a Beta is not reliable at large parameters.
    """
    mass = np.exp(log_density - np.max(log_density))
    return Nodes(at, mass / np.sum(mass))


def crossing(rising: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Where a rising function reaches `level` between `low` and `high`; the nearer end when it does not.

    Regula falsi with the Illinois step (Dowell & Jarratt, BIT 11, 1971), until the value agrees to 1e-11.
    """
    below, above, moved = rising(low) - level, rising(high) - level, 0
    if below >= 0 or above <= 0:
        return low if below >= 0 else high
    for _ in range(_LONGEST_SEARCH):
        middle = (low * above - high * below) / (above - below)
        value = rising(middle) - level
        if abs(value) <= _CLOSE or not low < middle < high:
            break
        if value < 0:
            low, below, above, moved = middle, value, above / 2 if moved < 0 else above, -1
        else:
            high, above, below, moved = middle, value, below / 2 if moved > 0 else below, 1
    return middle
