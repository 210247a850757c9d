"""What does each arm promise in a context, and how sure is that? A bandit's decision begins here."""

from __future__ import annotations

from typing import final

import numpy as np

from routing.linear_model import Array

_LARGE = 1 << 14
"""A table of fewer numbers is read whole sooner than it is looked through."""

_SPARSE = 4
"""Where fewer than one component in so many is not 0, to copy their rows is quicker than to read all."""


@final
class Scores:
    """Mean and standard deviation of every arm's expected reward xᵀβ: xᵀm and √(xᵀCx).

    Of arms whose coefficients have the moments `means` (K, d) and `covariances` (K, d, d). These are kept as
    one table: the row of a component of x has, for each arm, that row of C, and last the arms' means. Of an x
    that is mostly 0, as one of categories is, only the rows that count are read.
    """

    def __init__(self, means: Array, covariances: Array) -> None:
        self._arms, self.width = means.shape
        self._end = self._arms * self.width
        rows = covariances.transpose(1, 0, 2).reshape(self.width, self._end)
        self._table = np.concatenate((rows, means.T), axis=1)

    def of(self, x: Array) -> tuple[Array, Array]:
        """In one context x (d,): two arrays (K,)."""
        sums = self._sums(x)
        variances = sums[: self._end].reshape(self._arms, self.width) @ x
        return sums[self._end :], np.sqrt(np.maximum(variances, 0.0))

    def of_many(self, xs: Array) -> tuple[Array, Array]:
        """The same in many contexts xs (n, d): two arrays (n, K)."""
        blocks = [self._table[:, at : at + self.width] for at in range(0, self._end, self.width)]
        variances = np.empty((len(xs), self._arms))
        for arm, covariance in enumerate(blocks):
            np.einsum("nd,nd->n", xs @ covariance, xs, out=variances[:, arm])
        return xs @ self._table[:, self._end :], np.sqrt(np.maximum(variances, 0.0))

    def _sums(self, x: Array) -> Array:
        """The rows of the table, each times its component of x, in one."""
        if self._table.size >= _LARGE:
            places = x.nonzero()[0]
            if _SPARSE * places.size < x.size:
                return np.asarray(x[places] @ self._table.take(places, axis=0))
        return np.asarray(x @ self._table)
