"""The scores of the arms in a context are the moments of their expected rewards, however they are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.scores import Scores
from tests.routing.samples import WIDTH


@given(seed=st.integers(0, 10**6), arms=st.integers(1, 5), rows=st.integers(1, 4))
def test_scores_are_the_moments_of_the_expected_reward(seed: int, arms: int, rows: int) -> None:
    """xᵀm and √(xᵀCx), one context at a time and many at once."""
    draw = np.random.default_rng(seed)
    roots = draw.normal(size=(arms, WIDTH, WIDTH))
    means, covariances = draw.normal(size=(arms, WIDTH)), roots @ roots.transpose(0, 2, 1)
    xs = draw.normal(size=(rows, WIDTH))
    scores = Scores(means, covariances)
    many = scores.of_many(xs)
    for row, x in enumerate(xs):
        one = scores.of(x)
        assert one[0] == pytest.approx([x @ mean for mean in means])
        assert one[1] == pytest.approx([np.sqrt(x @ covariance @ x) for covariance in covariances])
        assert many[0][row] == pytest.approx(one[0])
        assert many[1][row] == pytest.approx(one[1])


@given(
    seed=st.integers(0, 10**6),
    arms=st.sampled_from([1, 2, 7]),
    width=st.sampled_from([1, 5, 60, 150]),
    filled=st.floats(0, 1),
)
def test_what_is_skipped_of_a_context_is_nothing(seed: int, arms: int, width: int, filled: float) -> None:
    """With any part of its components at 0, to 1e-12 of the dense product, whichever way is taken."""
    draw = np.random.default_rng(seed)
    roots = draw.normal(size=(arms, width, width))
    means, covariances = draw.normal(size=(arms, width)), roots @ roots.transpose(0, 2, 1) / width
    x = draw.normal(size=width) * (draw.random(width) < filled)
    got = Scores(means, covariances).of(x)
    assert got[0] == pytest.approx(means @ x, rel=1e-12, abs=1e-12)
    assert got[1] ** 2 == pytest.approx((covariances @ x) @ x, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("filled", [1, 20, 149])
def test_a_hole_in_a_context_shows_in_the_scores(filled: int) -> None:
    """Not a number stays none: nobody takes it for 0."""
    x = np.zeros(150)
    x[:filled], x[-1] = 1.0, np.nan
    means, sds = Scores(np.ones((2, 150)), np.stack([np.eye(150)] * 2)).of(x)
    assert np.isnan(means).all()
    assert np.isnan(sds).all()
