"""The prior has the reward's own scale: the mean of all, and the noise that each arm's context leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import BadModel
from routing.linear_model import DAY_MS, Array, Prior, Sums, posterior
from tests.routing.samples import WIDTH, of, sample

gammas = st.sampled_from([1.0, 0.99, 0.9, 0.5])


def misfit(xs: Array, ys: Array, w: Array, m0: Array, ridge: float) -> float:
    """Min over β of Σw(y − xᵀβ)² + ridge · |β − m₀|², as least squares with added rows."""
    rows = np.vstack([np.sqrt(w)[:, None] * xs, np.sqrt(ridge) * np.eye(len(m0))])
    targets = np.concatenate([np.sqrt(w) * ys, np.sqrt(ridge) * m0])
    return float(np.sum((targets - rows @ np.linalg.lstsq(rows, targets)[0]) ** 2))


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4), gamma=gammas)
def test_the_prior_has_the_scale_of_what_the_context_leaves(
    seed: int, sizes: list[int], gamma: float
) -> None:
    """The mean of all rewards, and their variance around each arm's own ridge regression, which ten rewards
    of the variance around the mean steady; with discounted rewards too, and at most the latter."""
    draw, sums, parts = np.random.default_rng(seed), [], []
    for number, n in enumerate([*sizes, 2]):
        xs, ys = sample(seed + number, n)
        times = draw.integers(0, 20 * DAY_MS, n)
        sums.append(Sums.empty(WIDTH).plus_many(xs, ys, times, gamma).decayed(20 * DAY_MS, gamma))
        parts.append((xs, ys, gamma ** ((20 * DAY_MS - times) / DAY_MS)))
    prior = Prior.pooled(sums, ridge=3.0)
    ys, w = (np.concatenate([part[place] for part in parts]) for place in (1, 2))
    mean, total = np.average(ys, weights=w), float(np.cov(ys, aweights=w, ddof=0))
    left = sum(misfit(*part, mean * np.eye(WIDTH)[0], 3.0) for part in parts)
    assert prior.mean == pytest.approx(mean)
    assert prior.variance == pytest.approx((left + 10 * total) / (w.sum() + 10), rel=1e-6)
    assert prior.variance <= total * (1 + 1e-9)
    assert (prior.ridge, prior.shape) == (3.0, 50.0)


def test_the_variance_is_right_on_average_however_many_features() -> None:
    """Of arms drawn from the prior with 5 rewards each and 20 features: in the mean of 300 worlds of 40 arms,
    within 4 standard errors of σ². The variance around the mean is 20 times as much."""
    draw, noise, arms, n = np.random.default_rng(11), 0.25, 40, 5
    left, total = np.zeros(300), np.zeros(300)
    for world in range(300):
        xs = np.concatenate([np.ones((arms, n, 1)), draw.normal(size=(arms, n, 19))], axis=2)
        ws = np.sqrt(noise) * draw.normal(size=(arms, 20, 1))
        ys = (xs @ ws)[..., 0] + np.sqrt(noise) * draw.normal(size=(arms, n))
        variance = Prior.pooled([of(*arm) for arm in zip(xs, ys, strict=True)]).variance
        total[world] = np.var(ys)
        left[world] = variance + 10 * (variance - total[world]) / (arms * n)
    assert left.mean() == pytest.approx(noise, abs=4 * left.std() / np.sqrt(300))
    assert total.mean() == pytest.approx(20 * noise, rel=0.1)


@given(seeds=st.lists(st.integers(0, 10**6), min_size=4, max_size=4), order=st.permutations(range(4)))
def test_the_order_of_arms_does_not_matter_to_the_prior(seeds: list[int], order: list[int]) -> None:
    """To the last bit: whoever lists them works out the same."""
    arms = [of(*sample(seed, seed % 9)) for seed in seeds]
    assert Prior.pooled([arms[k] for k in order]) == Prior.pooled(arms)


@pytest.mark.parametrize(
    ("ys", "mean", "variance"), [([], 0, 1), ([0, 0, 0], 0, 1), ([5, 5, 5], 5, 25), ([-0.1] * 9, -0.1, 0.01)]
)
def test_rewards_without_a_scale_get_one(ys: list[float], mean: float, variance: float) -> None:
    """Nothing, or always the same: a prior under which arms stay about even."""
    prior = Prior.pooled([Sums.empty(1).plus_many(np.ones((len(ys), 1)), ys, 0, 1.0)])
    assert [prior.mean, prior.variance] == pytest.approx([mean, variance])


def test_arms_as_of_different_times_have_no_common_prior() -> None:
    """Their weights cannot be compared, so they are refused; arms without rewards do not matter."""
    one = Sums.empty(1).plus([1.0], 1.0, 5, 0.9)
    two = Sums.empty(1).plus([1.0], 2.0, 9, 0.9)
    with pytest.raises(BadModel, match=r"as_of_ms must be the same for all arms, got \[5, 9\]"):
        Prior.pooled([one, two, Sums.empty(1)])
    assert Prior.pooled([one.decayed(9, 0.9), two]).mean == pytest.approx(1.5, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": float("nan")}, "mean must be finite, got nan"),
        ({"variance": 0.0}, "variance must be finite and above 0, got 0.0"),
        ({"ridge": -1.0}, "ridge must be finite and above 0, got -1.0"),
        ({"shape": 1.0}, "shape must be finite and above 1, got 1.0"),
        ({"variance": float("inf")}, "variance must be finite and above 0, got inf"),
    ],
)
def test_a_prior_that_is_none_is_refused(change: dict[str, float], message: str) -> None:
    """The refusal names field, bound and value."""
    with pytest.raises(BadModel, match=message):
        Prior(**{"mean": 0.0, "variance": 1.0, **change})


def test_an_arm_without_a_conversion_is_not_taken_to_be_certain() -> None:
    """After 40 zeros where 5 % convert it is believed to be as vague as any, within a fifth."""
    arms = [
        of(np.ones((n, 1)), np.repeat([1.0, 0.0], [hits, n - hits])) for n, hits in ((1_000, 50), (40, 0))
    ]
    models = [posterior(arm, Prior.pooled(arms)) for arm in arms]
    assert models[1].mean[0] < 0.002
    assert np.sqrt(models[1].covariance[0, 0]) == pytest.approx(np.sqrt(0.05 * 0.95 / 40), rel=0.2)


@given(seed=st.integers(0, 10**6), unit=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_the_units_of_the_reward_do_not_matter(seed: int, unit: float, shift: float) -> None:
    """In cents instead of euros, or with a bonus for everybody, the same is believed in the new units."""
    xs, ys = sample(seed, 30)
    one, two = (posterior(sums, Prior.pooled([sums])) for sums in (of(xs, ys), of(xs, unit * (ys + shift))))
    assert two.mean == pytest.approx(unit * (one.mean + shift * np.eye(WIDTH)[0]), rel=1e-6, abs=1e-6 * unit)
    assert two.noise == pytest.approx(unit**2 * one.noise, rel=1e-6)
    assert two.covariance == pytest.approx(unit**2 * one.covariance, rel=1e-6, abs=1e-9 * unit**2)
