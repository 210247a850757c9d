"""Shares are whole basis points that add up within their bounds; a bandit gives them out in a context."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import BadModel
from routing.linear_model import Array, Prior, Sums, posterior
from routing.thompson import Bandit, Terms, best_beta, best_of, check_bounds, shares, shares_of_many, warm
from routing.types import TOTAL_BP

OPEN = TOTAL_BP


@st.composite
def probabilities(draw: st.DrawFn, most: int = 6) -> list[float]:
    """Of some arms; zeros and ties included."""
    weights = draw(st.lists(st.integers(0, 50), min_size=1, max_size=most).filter(any))
    return [weight / sum(weights) for weight in weights]


@st.composite
def divisions(draw: st.DrawFn) -> tuple[list[float], int, tuple[int, ...]]:
    """Probabilities, and a floor and caps between which they can be divided."""
    p = draw(probabilities())
    floor_bp = draw(st.integers(0, TOTAL_BP // len(p)))
    caps = draw(st.lists(st.integers(floor_bp, TOTAL_BP), min_size=len(p), max_size=len(p)))
    if sum(caps) < TOTAL_BP:
        caps[draw(st.integers(0, len(p) - 1))] = TOTAL_BP
    return p, floor_bp, tuple(caps)


@given(divisions())
def test_shares_sum_to_all_traffic_within_their_bounds(
    division: tuple[list[float], int, tuple[int, ...]],
) -> None:
    """Exactly 10,000, no arm below the floor or above its cap."""
    p, floor_bp, caps = division
    given_out = shares(p, floor_bp, caps)
    assert sum(given_out) == TOTAL_BP
    assert all(floor_bp <= share <= cap for share, cap in zip(given_out, caps, strict=True))


@given(divisions())
def test_many_rows_are_divided_as_one(division: tuple[list[float], int, tuple[int, ...]]) -> None:
    """To the last basis point."""
    p, floor_bp, caps = division
    rows = [p, p[::-1], [1 / len(p)] * len(p)]
    expected = [shares(row, floor_bp, caps) for row in rows]
    assert [tuple(row) for row in shares_of_many(np.array(rows), floor_bp, caps).tolist()] == expected


@given(p=probabilities(), data=st.data())
def test_without_caps_the_floor_is_additive(p: list[float], data: st.DataObject) -> None:
    """Each has f + (1 − K f) p, but for rounding."""
    floor_bp = data.draw(st.integers(0, TOTAL_BP // len(p)))
    exact = [floor_bp + (TOTAL_BP - len(p) * floor_bp) * chance for chance in p]
    given_out = shares(p, floor_bp, [OPEN] * len(p))
    assert all(abs(share - amount) < 1 for share, amount in zip(given_out, exact, strict=True))


@given(divisions())
def test_what_caps_leave_over_goes_to_the_others_in_proportion(
    division: tuple[list[float], int, tuple[int, ...]],
) -> None:
    """Every arm below its cap has grown by one and the same factor, which is at least 1."""
    p, floor_bp, caps = division
    amounts = [floor_bp + (TOTAL_BP - len(p) * floor_bp) * chance for chance in p]
    given_out = shares(p, floor_bp, caps)
    free = [k for k, share in enumerate(given_out) if share < caps[k] and amounts[k] > 0]
    for k in free:
        assert given_out[k] >= amounts[k] - 1
        for j in free:
            assert abs(given_out[k] * amounts[j] - given_out[j] * amounts[k]) <= amounts[k] + amounts[j]


@given(divisions(), st.randoms(use_true_random=False))
def test_shares_follow_their_arms(division: tuple[list[float], int, tuple[int, ...]], order: Random) -> None:
    """In another order each arm has the same, but for a basis point that went to the first of equals."""
    p, floor_bp, caps = division
    places = list(range(len(p)))
    order.shuffle(places)
    one = shares(p, floor_bp, caps)
    two = shares([p[k] for k in places], floor_bp, [caps[k] for k in places])
    assert all(abs(one[k] - share) <= 1 for k, share in zip(places, two, strict=True))


@given(divisions(), st.floats(0, 1))
def test_a_more_likely_arm_has_no_less(
    division: tuple[list[float], int, tuple[int, ...]], more: float
) -> None:
    """Than a less likely one with the same cap, nor than before; but for a rounded basis point."""
    p, floor_bp, caps = division
    given_out = shares(p, floor_bp, caps)
    for k, j in np.ndindex(len(p), len(p)):
        if p[k] >= p[j] and caps[k] >= caps[j]:
            assert given_out[k] >= given_out[j] - 1
    raised = [p[0] + more * (1 - p[0]), *(chance * (1 - more) for chance in p[1:])]
    assert shares(raised, floor_bp, caps)[0] >= given_out[0] - 1


@pytest.mark.parametrize(
    ("p", "floor_bp", "caps", "expected"),
    [
        ([1.0], 100, [OPEN], (10_000,)),
        ([0.5, 0.5], 0, [OPEN] * 2, (5_000, 5_000)),
        ([1.0, 0.0], 100, [OPEN] * 2, (9_900, 100)),
        ([1 / 3] * 3, 0, [OPEN] * 3, (3_334, 3_333, 3_333)),
        ([0.0, 1.0], 100, [OPEN, 5_000], (5_000, 5_000)),
        ([0.6, 0.3, 0.1], 0, [5_000, OPEN, OPEN], (5_000, 3_750, 1_250)),
        ([0.6, 0.3, 0.1], 0, [5_000, 3_500, OPEN], (5_000, 3_500, 1_500)),
        ([1.0, 0.0, 0.0], 0, [5_000, OPEN, OPEN], (5_000, 2_500, 2_500)),
        ([1.0, 0.0, 0.0], 0, [5_000, 1_000, OPEN], (5_000, 1_000, 4_000)),
        ([0.2, 0.3, 0.5], 0, [2_500, 2_500, 5_000], (2_500, 2_500, 5_000)),
        ([0.9, 0.1], 5_000, [OPEN] * 2, (5_000, 5_000)),
    ],
)
def test_examples_of_shares(
    p: list[float], floor_bp: int, caps: list[int], expected: tuple[int, ...]
) -> None:
    """By hand."""
    assert shares(p, floor_bp, caps) == expected
    assert tuple(shares_of_many(np.array([p]), floor_bp, caps)[0].tolist()) == expected


@pytest.mark.parametrize(
    ("arms", "floor_bp", "caps", "message"),
    [
        (0, 0, [], "arms must be at least 1, got 0"),
        (2, 5_001, [OPEN] * 2, r"floor_bp must be in \[0, 5000\], got 5001"),
        (2, -1, [OPEN] * 2, r"floor_bp must be in \[0, 5000\], got -1"),
        (2, 100, [OPEN], "caps_bp must be of length 2, got 1"),
        (2, 100, [99, OPEN], r"caps_bp\[0\] must be in \[100, 10000\], got 99"),
        (2, 100, [OPEN, 10_001], r"caps_bp\[1\] must be in \[100, 10000\], got 10001"),
        (2, 100, [5_000, 4_999], "caps_bp must sum to at least 10000, got 9999"),
    ],
)
def test_bounds_that_cannot_hold_are_refused(arms: int, floor_bp: int, caps: list[int], message: str) -> None:
    """The refusal names field, bound and value."""
    with pytest.raises(BadModel, match=message):
        check_bounds(arms, floor_bp, caps)
    with pytest.raises(BadModel, match=message):
        shares([1 / max(arms, 1)] * arms, floor_bp, caps)


@pytest.mark.parametrize("p", [[0.5, 0.4], [0.6, 0.6], [-0.1, 1.1], [float("nan"), 0.5]])
def test_what_is_no_distribution_is_refused(p: list[float]) -> None:
    """It is never quietly made to sum."""
    with pytest.raises(BadModel, match="p must"):
        shares(p, 0, [OPEN] * 2)
    with pytest.raises(BadModel, match="p must"):
        shares_of_many(np.array([[0.5, 0.5], p]), 0, [OPEN] * 2)


@pytest.mark.parametrize(
    ("p", "cold", "expected"),
    [
        ([0.7, 0.3], [False, False], [0.7, 0.3]),
        ([], [True, True, True], [1 / 3] * 3),
        ([1.0], [True, False, True], [1 / 3] * 3),
        ([0.9, 0.1], [False, True, False, True], [0.45, 0.25, 0.05, 0.25]),
    ],
)
def test_cold_arms_are_tried_evenly(p: list[float], cold: list[bool], expected: list[float]) -> None:
    """Each gets 1/K, and the warm ones divide the rest among themselves."""
    assert warm(p, cold) == pytest.approx(expected)


def terms(arms: int, floor_bp: int = 100, cold: tuple[int, ...] = ()) -> Terms:
    """Of arms 11, 12, …, without caps."""
    return Terms(
        tuple(range(11, 11 + arms)), floor_bp, (OPEN,) * arms, tuple(place in cold for place in range(arms))
    )


def learned(arms: int, width: int = 4, seed: int = 5) -> tuple[Array, Array]:
    """Moments of arms that have seen 300 conversions or none each."""
    draw = np.random.default_rng(seed)
    xs = np.column_stack([np.ones(300), draw.random((300, width - 1))])
    sums = [Sums.empty(width).plus_many(xs, draw.random(300) < 0.1, 0, 1.0) for _ in range(arms)]
    models = [posterior(one, Prior.pooled(sums)) for one in sums]
    return np.stack([model.mean for model in models]), np.stack([model.covariance for model in models])


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_a_bandit_divides_by_its_scores(arms: int) -> None:
    """Scores, probabilities, floor and rounding, one after the other, in one context or in many."""
    means, covariances = learned(arms)
    bandit = Bandit.linear(terms(arms), means, covariances)
    xs = np.column_stack([np.ones(50), np.random.default_rng(6).random((50, 3))])
    many = bandit.shares_many(xs)
    assert many.shape == (50, arms)
    for x, row in zip(xs, many, strict=True):
        p = best_of(means @ x, np.sqrt([x @ covariance @ x for covariance in covariances]))
        assert bandit.shares(x) == shares(p.tolist(), 100, [OPEN] * arms)
        assert np.abs(row - bandit.shares(x)).max() <= 1
    assert bandit.terms.arm_ids == tuple(range(11, 11 + arms))
    assert bandit.shares_many(xs[:0]).shape == (0, arms)


def test_a_bandit_asks_no_cold_arm() -> None:
    """It gets 1/K, whatever its model says, and the others are as if alone; one warm arm alone is even."""
    means, covariances = learned(3)
    means[1] += 100
    x = np.array([1.0, 0.5, 0.2, 0.9])
    given_out = Bandit.linear(terms(3, 0, cold=(1,)), means, covariances).shares(x)
    alone = Bandit.linear(terms(2, 0), means[[0, 2]], covariances[[0, 2]]).shares(x)
    assert given_out[1] == 3_333
    assert [given_out[0], given_out[2]] == pytest.approx([2 / 3 * share for share in alone], abs=1)
    for cold in ((0, 1), (0, 1, 2)):
        few = Bandit.linear(terms(3, cold=cold), means, covariances)
        assert few.shares(x) == (3_334, 3_333, 3_333)
    many = Bandit.linear(terms(3, 0, cold=(1,)), means, covariances).shares_many(x[None])
    assert many.tolist() == [list(given_out)]


def test_without_context_the_shares_are_computed_once() -> None:
    """Of a mean, for any x; of 0/1 rewards from the counts of the warm arms."""
    means, covariances = np.array([[0.1], [0.12]]), np.array([[[1e-4]], [[4e-4]]])
    bandit = Bandit.linear(terms(2), means, covariances)
    p = best_of(means[:, 0], np.sqrt(covariances[:, 0, 0]))
    assert bandit.shares(np.array([1.0])) is bandit.shares(np.array([5.0]))
    assert bandit.shares(np.ones(1)) == shares(p.tolist(), 100, [OPEN] * 2)
    counts = np.array([5.0, 0.0, 9.0]), np.array([95.0, 1.0, 91.0])
    binary = Bandit.binary(terms(3, cold=(1,)), *counts)
    of_two = best_beta([5, 9], [95, 91]) * 2 / 3
    assert binary.shares(np.ones(1)) == shares([of_two[0], 1 / 3, of_two[1]], 100, [OPEN] * 3)
    assert binary.shares_many(np.ones((2, 1))).tolist() == [list(binary.shares(np.ones(1)))] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, c: (m[:1], c), r"means must be of shape \(2, d\), got \(1, 4\)"),
        (lambda m, c: (m, c[:, :3]), r"covariances must be of shape \(2, 4, 4\), got \(2, 3, 4\)"),
        (lambda m, c: (m * np.nan, c), "means must be finite, got nan"),
        (lambda m, c: (m, -c), r"covariances\[0\] must be positive semi-definite"),
        (lambda m, c: (m, c + np.triu(np.ones((4, 4)))), r"covariances\[0\] must be symmetric"),
        (lambda m, c: (m, c / 0.0), r"covariances\[0\] must be finite, got"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_moments_that_cannot_be_are_refused(change: object, message: str) -> None:
    """A bandit is not built on them; a champion stays."""
    assert callable(change)
    with pytest.raises(BadModel, match=message):
        Bandit.linear(terms(2), *change(*learned(2)))


@pytest.mark.parametrize("arms", [2, 3])
def test_a_context_that_cannot_be_is_refused(arms: int) -> None:
    """Of another width, or not a number; no shares are made up."""
    bandit = Bandit.linear(terms(arms), *learned(arms))
    with pytest.raises(BadModel, match=r"x must be of shape \(4,\), got \(3,\)"):
        bandit.shares(np.ones(3))
    with pytest.raises(BadModel, match=r"xs must be of shape \(n, 4\), got \(2, 3\)"):
        bandit.shares_many(np.ones((2, 3)))
    with pytest.raises(BadModel, match=r"p must be in \[0, 1\], got nan"):
        bandit.shares(np.array([1.0, np.nan, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm_ids": (1, 1)}, r"arm_ids must be different, got \(1, 1\)"),
        ({"cold": (True,)}, "cold must be of length 2, got 1"),
        ({"floor_bp": 7_000}, r"floor_bp must be in \[0, 5000\], got 7000"),
    ],
)
def test_terms_that_contradict_themselves_are_refused(change: dict[str, object], message: str) -> None:
    """The refusal names field, bound and value; so it does for counts of another number of arms."""
    fields: dict[str, object] = {
        "arm_ids": (1, 2),
        "floor_bp": 0,
        "caps_bp": (OPEN,) * 2,
        "cold": (False,) * 2,
    }
    with pytest.raises(BadModel, match=message):
        Terms(**{**fields, **change})  # type: ignore[arg-type]  # by name
    with pytest.raises(BadModel, match=r"failures must be of shape \(2,\), got \(3,\)"):
        Bandit.binary(terms(2), np.ones(2), np.ones(3))
