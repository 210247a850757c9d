"""One grid integrates what it is meant for to rounding, and one root finder finds or says how far it got."""

from __future__ import annotations

from math import exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.quadrature import NODES, crossing, grid, nodes


@given(centre=st.floats(-5, 5), scale=st.floats(0.1, 10), factor=st.floats(-300, 300))
def test_a_normal_is_integrated_to_rounding(centre: float, scale: float, factor: float) -> None:
    """Its mean, variance and E cos X are exact to 1e-10, and a factor of the density makes no difference."""
    z = grid(-9, 9)
    over = nodes(centre + scale * z, factor - z**2 / 2)
    assert np.sum(over.weights) == pytest.approx(1, abs=1e-12)
    assert over.expectation(over.at) == pytest.approx(centre, abs=1e-10 * (1 + abs(centre)) * scale)
    assert over.expectation((over.at - centre) ** 2) == pytest.approx(scale**2, rel=1e-10)
    assert over.expectation(np.cos(z)) == pytest.approx(exp(-0.5), abs=1e-12)


def test_the_grid_is_even_from_end_to_end() -> None:
    """513 points with both ends."""
    at = grid(-2.0, 6.0)
    assert (at.size, at[0], at[-1]) == (NODES, -2.0, 6.0)
    assert np.diff(at) == pytest.approx(8 / (NODES - 1))


def test_an_integral_against_a_kink_stays_close() -> None:
    """E max(Z, 0) = 1/√(2π), although its derivative jumps."""
    z = grid(-9, 9)
    assert nodes(z, -(z**2) / 2).expectation(np.maximum(z, 0)) == pytest.approx(1 / sqrt(2 * pi), abs=2e-4)


@given(root=st.floats(-50, 50), steep=st.floats(1e-2, 1e2))
def test_a_crossing_is_found_to_1e_11_in_value(root: float, steep: float) -> None:
    """Of a curve that is flat on both sides, as distribution functions are."""

    def rising(x: float) -> float:
        return float(np.tanh(steep * (x - root)))

    at = crossing(rising, 0.25, root - 40, root + 60)
    assert rising(at) == pytest.approx(0.25, abs=1e-10)


def test_a_jump_is_bracketed() -> None:
    """Where no value agrees, the search ends beside the jump."""
    assert crossing(lambda x: float(x > 0.3), 0.5, 0.0, 1.0) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(("level", "end"), [(-1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (2.0, 1.0)])
def test_a_level_that_is_not_crossed_gives_the_nearer_end(level: float, end: float) -> None:
    """Both ends included."""
    assert crossing(lambda x: x, level, 0.0, 1.0) == end
