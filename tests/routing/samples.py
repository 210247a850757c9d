"""Rewards that are linear in their contexts, and what an arm's sums of such are."""

from __future__ import annotations

import numpy as np

from routing.linear_model import Array, Sums

WIDTH = 3


def sample(seed: int, n: int, width: int = WIDTH, noise: float = 1.0) -> tuple[Array, Array]:
    """Contexts with an intercept, and rewards that are linear in them."""
    draw = np.random.default_rng(seed)
    xs = np.column_stack([np.ones(n), draw.normal(size=(n, width - 1))])
    return xs, xs @ draw.normal(size=width) + noise * draw.normal(size=n)


def of(xs: Array, ys: Array, gamma: float = 1.0) -> Sums:
    """The sums of rewards of one time."""
    return Sums.empty(xs.shape[1]).plus_many(xs, ys, 0, gamma)
