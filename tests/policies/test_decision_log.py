"""A log refuses what cannot have been logged, counts independent units, and carries simple candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from policies.decision_log import Log, always, check_target, uniform, weights
from policies.errors import BadSpec
from routing.errors import BadWeights
from tests.policies.logs import candidate, drawn

GOOD: dict[str, Any] = {
    "arms": np.array([0, 1, 1, 0]),
    "rewards": np.array([1.0, 2.0, 0.0, 3.0]),
    "propensities": np.array([0.5, 0.5, 0.25, 0.8]),
    "n_arms": 2,
}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arms", np.array([0, 1, 2, 0]), "arms[2] must be in [0, 1], got 2"),
        ("arms", np.array([0, -1, 1, 0]), "arms[1] must be in [0, 1], got -1"),
        ("arms", np.array([0.0, 1, 1, 0]), "arms must be integers, got float64"),
        ("arms", np.array([[0, 1], [1, 0]]), "arms must have shape (4,), got (2, 2)"),
        ("rewards", np.array([1, np.nan, 0, 3]), "rewards[1] must be in [-1e+50, 1e+50], got nan"),
        ("rewards", np.array([1, 2, 0, np.inf]), "rewards[3] must be in [-1e+50, 1e+50], got inf"),
        ("rewards", np.array([1.0, 2.0]), "rewards must have shape (4,), got (2,)"),
        ("rewards", np.array([1, 2, 0, 3]), "rewards must be floats, got int64"),
        ("propensities", np.array([0.5, 0, 1, 1]), "propensities[1] must be in [1e-09, 1], got 0"),
        ("propensities", np.array([0.5, 1, 1.5, 1]), "propensities[2] must be in [1e-09, 1], got 1.5"),
        ("propensities", np.array([0.5, 1, np.nan, 1]), "propensities[2] must be in [1e-09, 1], got nan"),
        ("n_arms", 0, "n_arms must be in [1, 10000], got 0"),
        ("features", np.array([1.0, 2, 3, 4]), "features must have shape (4, 1), got (4,)"),
        ("features", np.ones((3, 2)), "features must have shape (4, 2), got (3, 2)"),
        (
            "features",
            np.array([[1, 1], [1, np.inf], [1, 1], [1, 1]]),
            "features[1, 1] must be in [-1e+50, 1e+50], got inf",
        ),
        ("clusters", np.array([1, 2]), "clusters must have shape (4,), got (2,)"),
        ("clusters", np.array([1.0, 2, 3, 4]), "clusters must be integers, got float64"),
        ("names", ("old", "new", "next"), "names must have 2 names, got 3"),
    ],
)
def test_what_cannot_have_been_logged_is_refused(field: str, value: object, message: str) -> None:
    """Each refusal names field, bound and the first value outside it."""
    with pytest.raises(BadSpec) as refusal:
        Log(**{**GOOD, field: value})
    assert str(refusal.value) == message


def test_hashes_of_64_bits_are_clusters() -> None:
    """They may be as large as a unit's hash, and units are numbered by their rank."""
    log = Log(**GOOD, clusters=np.array([2**64 - 1, 0, 2**64 - 1, 2**63], dtype=np.uint64))
    assert log.units.tolist() == [2, 0, 2, 1]
    assert log.n_units == 3


def test_without_clusters_each_decision_is_a_unit() -> None:
    """And an empty log has none."""
    assert Log(**GOOD).units.tolist() == [0, 1, 2, 3]
    empty = Log(np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0), 2, np.zeros((0, 3)))
    assert (empty.n, empty.n_units) == (0, 0)


def test_effective_samples_by_hand() -> None:
    """Weights 0, 2, 4, 0: 6²/20 = 1.8. Units with 2 and 4: the same. All in one unit: 1. No weight: none."""
    of = np.array([0.0, 2.0, 4.0, 0.0])
    assert Log(**GOOD).effective_samples(of) == pytest.approx(1.8)
    assert Log(**GOOD, clusters=np.array([7, 7, 9, 9])).effective_samples(of) == pytest.approx(1.8)
    assert Log(**GOOD, clusters=np.array([7, 9, 9, 7])).effective_samples(of) == pytest.approx(1)
    assert Log(**GOOD).effective_samples(np.zeros(4)) == 0


def test_the_spread_of_a_mean_by_hand() -> None:
    """Deviations −1, 3, −1, −1: error² = 4/3 · 12/16 = 1, df = 2·12²/(84 − 12²/4) = 6, cut to 3. As units
    −1, 3 and −2 in three: error² = 3/2 · 14/16, df = 2·14²/(98 − 14²/3) = 12, cut to 2."""
    deviations = np.array([-1.0, 3.0, -1.0, -1.0])
    assert Log(**GOOD).spread(deviations) == pytest.approx((1, 3))
    by_unit = Log(**GOOD, clusters=np.array([1, 2, 3, 3])).spread(deviations)
    assert by_unit == pytest.approx((np.sqrt(3 / 2 * 14 / 16), 2))
    assert Log(**GOOD).spread(np.zeros(4)) == (0, 3)


def test_one_large_deviation_among_many_leaves_two_degrees_of_freedom() -> None:
    """In the limit 2/(1 − 1/G): the square of one value, known as badly as an exponential."""
    log = Log(np.zeros(1_000, dtype=np.intp), np.zeros(1_000), np.ones(1_000), 1)
    deviations = np.full(1_000, -1.0)
    deviations[0] = 999.0
    assert log.spread(deviations)[1] == pytest.approx(2, rel=0.01)


@given(st.integers(0, 500))
def test_a_standard_error_is_that_of_the_mean(seed: int) -> None:
    """Without clusters it is s/√n with n − 1 in s; normal values leave it about n degrees of freedom."""
    values = np.random.default_rng(seed).normal(3, 2, 400)
    error, df = drawn(seed).spread(values - values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 20)
    assert 150 < df <= 399


@given(arrays.arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
def test_a_target_is_a_probability_in_each_row(target: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Divided by its sums it is accepted; any other sum is refused by row and value."""
    log = Log(np.zeros(5, dtype=np.intp), np.ones(5), np.ones(5), 3)
    target = target + 0.01
    check_target(log, target / target.sum(axis=1, keepdims=True))
    target[3] = (0.5, 0.25, 0.125)
    target[:3] /= target[:3].sum(axis=1, keepdims=True)
    with pytest.raises(BadSpec, match=r"target\[3\] must sum to 1 within 1e-09, got 0.875"):
        check_target(log, np.clip(target, 0, 1))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.ones((4, 3)), r"target must have shape \(4, 2\), got \(4, 3\)"),
        (np.ones((4, 2), dtype=np.int64), "target must be floats, got int64"),
        (np.tile([1.5, -0.5], (4, 1)), r"target\[0, 0\] must be in \[0, 1\], got 1.5"),
        (np.tile([np.nan, 1], (4, 1)), r"target\[0, 0\] must be in \[0, 1\], got nan"),
    ],
)
def test_a_bad_target_is_refused(target: Any, message: str) -> None:
    """By shape, kind or value."""
    with pytest.raises(BadSpec, match=message):
        check_target(Log(**GOOD), target)


def test_candidates_without_context() -> None:
    """One arm, all alike, or basis points: the same at each decision, and good targets."""
    log = drawn(1)
    for target, row in (
        (always(log, 1), [0, 1, 0]),
        (uniform(log), [1 / 3, 1 / 3, 1 / 3]),
        (weights(log, [9_000, 750, 250]), [0.9, 0.075, 0.025]),
    ):
        check_target(log, target)
        assert np.all(target == np.asarray(row))


def test_bad_candidates_are_refused() -> None:
    """An arm that is none, weights that are too few, or that do not sum."""
    log = drawn(1)
    with pytest.raises(BadSpec, match=r"arm must be in \[0, 2\], got 3"):
        always(log, 3)
    with pytest.raises(BadSpec, match="weights_bp must have 3 weights, got 2"):
        weights(log, [9_000, 1_000])
    with pytest.raises(BadWeights, match="weights must sum to 10000, got 9999"):
        weights(log, [9_000, 999, 0])
    with pytest.raises(BadWeights, match=r"weights.1 must be in \[0, 10000\], got -1"):
        weights(log, [9_001, -1, 1_000])


def test_a_row_is_read_at_the_arm_that_was_chosen() -> None:
    """Whatever integers the arms are."""
    log = Log(**{**GOOD, "arms": GOOD["arms"].astype(np.uint8)})
    assert log.of_chosen(np.arange(8.0).reshape(4, 2)).tolist() == [0, 3, 5, 6]
    check_target(drawn(2), candidate(drawn(2)))
