"""An arm's sums do not depend on how its rewards came in, and what is read from them is the textbook's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from routing.errors import BadModel, RoutingError
from routing.linear_model import (
    DAY_MS,
    ArmModel,
    Array,
    Prior,
    Sums,
    check_semidefinite,
    posterior,
)
from tests.routing.samples import WIDTH, of, sample

Reward = tuple[tuple[float, ...], float, int]

numbers = st.floats(-10, 10, allow_subnormal=False).map(lambda value: round(value, 3))
rewards = st.tuples(st.tuples(*[numbers] * WIDTH), numbers, st.integers(0, 30 * DAY_MS))
logs = st.lists(rewards, min_size=1, max_size=12)
gammas = st.sampled_from([1.0, 0.99, 0.9, 0.5])


def alike(one: Sums, two: Sums) -> None:
    """The same rewards: exactly as many, of one time, with sums that agree but for rounding."""
    assert (one.n, one.as_of_ms) == (two.n, two.as_of_ms)
    for name in ("weight", "weight_squares", "xx", "xy", "y", "yy"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-9, abs=1e-9)


def folded(log: Sequence[Reward], gamma: float) -> Sums:
    """One after the other."""
    return reduce(lambda sums, reward: sums.plus(*reward, gamma), log, Sums.empty(WIDTH))


def batch(log: Sequence[Reward], gamma: float) -> Sums:
    """All at once."""
    xs, ys, times = (np.array(column) for column in zip(*log, strict=True))
    return Sums.empty(WIDTH).plus_many(xs, ys, times, gamma)


@given(log=logs, gamma=gammas)
def test_the_sums_are_what_their_formulas_say(log: list[Reward], gamma: float) -> None:
    """Every reward weighs γ^(days before the latest one), and the count is not discounted."""
    xs, ys, times = (np.array(column) for column in zip(*log, strict=True))
    w = gamma ** ((times.max() - times) / DAY_MS)
    sums = batch(log, gamma)
    assert (sums.n, sums.as_of_ms) == (len(log), times.max())
    assert sums.weight == pytest.approx(w.sum())
    assert sums.weight_squares == pytest.approx((w**2).sum())
    assert sums.xx == pytest.approx(np.einsum("i,ij,ik->jk", w, xs, xs), abs=1e-9)
    assert sums.xy == pytest.approx(np.einsum("i,ij,i->j", w, xs, ys), abs=1e-9)
    assert sums.y == pytest.approx(w @ ys, abs=1e-9)
    assert sums.yy == pytest.approx(w @ ys**2)


@given(log=logs, gamma=gammas, order=st.randoms(use_true_random=False))
def test_the_order_of_rewards_does_not_matter(log: list[Reward], gamma: float, order: Random) -> None:
    """Late ones count less, but as much as if they had come in time."""
    shuffled = log.copy()
    order.shuffle(shuffled)
    alike(folded(shuffled, gamma), folded(log, gamma))


@given(log=logs, gamma=gammas, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_neither_batches_nor_learners_matter(log: list[Reward], gamma: float, cuts: list[int]) -> None:
    """Rewards that were folded in batches, or by learners whose sums are merged in any grouping, agree."""
    ends = sorted({0, *(min(cut, len(log)) for cut in cuts), len(log)})
    parts = [log[start:end] for start, end in pairwise(ends)]
    sums = [batch(part, gamma) for part in parts]
    alike(reduce(lambda one, two: one.merge(two, gamma), sums), folded(log, gamma))
    alike(reduce(lambda one, two: two.merge(one, gamma), reversed(sums)), folded(log, gamma))
    halves = [
        reduce(lambda a, b: a.merge(b, gamma), half, Sums.empty(WIDTH)) for half in (sums[::2], sums[1::2])
    ]
    alike(halves[0].merge(halves[1], gamma), folded(log, gamma))


@given(log=logs, gamma=gammas, later=st.integers(0, 20 * DAY_MS))
def test_time_that_passes_weighs_all_rewards_down_alike(log: list[Reward], gamma: float, later: int) -> None:
    """Sums as of a later time are those to which a reward of that time was added, less that reward."""
    sums = batch(log, gamma)
    as_of = sums.as_of_ms + later
    alike(
        sums.decayed(as_of, gamma).plus(np.zeros(WIDTH), 0.0, as_of, gamma),
        sums.plus(np.zeros(WIDTH), 0.0, as_of, gamma),
    )
    assert sums.decayed(as_of, gamma).weight == pytest.approx(sums.weight * gamma ** (later / DAY_MS))
    assert sums.decayed(as_of, gamma).effective_samples == pytest.approx(sums.effective_samples)


def test_no_rewards_change_nothing() -> None:
    """An empty batch, an empty learner, a merge of empties; and a reward from before 1970 still counts."""
    sums = of(*sample(1, 20))
    alike(sums.plus_many(np.zeros((0, WIDTH)), [], 5, 0.9), sums)
    alike(sums.merge(Sums.empty(WIDTH), 0.9), sums)
    alike(Sums.empty(WIDTH).merge(Sums.empty(WIDTH), 0.9), Sums.empty(WIDTH))
    assert Sums.empty(WIDTH).effective_samples == 0
    assert Sums.empty(1).plus([1.0], 2.0, -DAY_MS, 0.5).y == pytest.approx(1.0)


def test_effective_samples_are_kishs() -> None:
    """As many as there are when all weigh the same; of weights 1 and ¼, (5/4)²/(17/16)."""
    xs, ys = sample(2, 40)
    assert of(xs, ys).effective_samples == pytest.approx(40)
    one = Sums.empty(1).plus([1.0], 1.0, 0, 0.5).plus([1.0], 1.0, 2 * DAY_MS, 0.5)
    assert one.effective_samples == pytest.approx(25 / 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.plus([1, 2, 3], float("nan"), 0, 1), r"ys must be in \[-1e\+100, 1e\+100\], got nan"),
        (lambda s: s.plus([1, 2, float("inf")], 1, 0, 1), r"xs must be in \[-1e\+100, 1e\+100\], got inf"),
        (lambda s: s.plus([1, 2, 1e101], 1, 0, 1), r"xs must be in .*, got 1e\+101"),
        (lambda s: s.plus([1, 2], 1, 0, 1), r"xs must be of shape \(1, 3\), got \(1, 2\)"),
        (lambda s: s.plus([1, 2, 3], 1, 0, 0), r"gamma must be in \(0, 1\], got 0"),
        (lambda s: s.plus([1, 2, 3], 1, 0, 1.01), r"gamma must be in \(0, 1\], got 1.01"),
        (lambda s: s.plus([1, 2, 3], 1, 0, float("nan")), r"gamma must be in \(0, 1\], got nan"),
        (lambda s: s.merge(Sums.empty(2), 1), "width must be 3, got 2"),
        (lambda s: s.plus([1, 2, 3], 1, 9, 1).decayed(8, 1), "as_of_ms must be at least 9, got 8"),
        (lambda _: Sums.empty(0), "width must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_a_reward_is_refused(change: object, message: str) -> None:
    """One such number would spoil the sums for ever; the refusal names field, bound and value."""
    assert callable(change)
    with pytest.raises(BadModel, match=message):
        change(Sums.empty(WIDTH))


@given(log=st.lists(rewards, max_size=8), gamma=gammas)
def test_sums_are_read_as_they_were_written(log: list[Reward], gamma: float) -> None:
    """To the last bit, and in the size of one triangle."""
    sums = folded(log, gamma)
    data = sums.to_bytes()
    read = Sums.from_bytes(data, WIDTH)
    for field in fields(Sums):
        assert np.array_equal(getattr(read, field.name), getattr(sums, field.name))
    assert len(data) == 17 + 8 * (4 + WIDTH + WIDTH * (WIDTH + 1) // 2)


@given(days=st.lists(st.integers(0, 4_000), min_size=1, max_size=6), gamma=gammas)
def test_sums_whose_rewards_are_long_forgotten_are_read(days: list[int], gamma: float) -> None:
    """Weights that have nearly vanished, or quite, contradict nothing."""
    log = [((1.0, 0.3, -2.0), 5.0, day * DAY_MS) for day in days]
    sums = folded(log, gamma).decayed(5_000 * DAY_MS, gamma)
    alike(Sums.from_bytes(sums.to_bytes(), WIDTH), sums)


def test_the_layout_of_the_bytes_is_fixed() -> None:
    """A golden vector: version 1, n 1, as of 1 ms, then weights, Σwy, Σwy², xy and the triangle of xx."""
    data = Sums.empty(2).plus([1.0, 3.0], 2.0, 1, 1.0).to_bytes()
    assert data[:17].hex() == "01" + "0100000000000000" + "0100000000000000"
    assert np.frombuffer(data, "<f8", offset=17).tolist() == [1, 1, 2, 4, 2, 6, 1, 3, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "n must be at least 0, got -1"),
        ({"n": 19}, r"weight must be in \[0.0, 19.0\], got 20"),
        ({"weight": -1.0}, r"weight must be in \[0.0, 20.0\], got -1"),
        ({"weight": float("nan")}, "weight must be finite, got nan"),
        ({"weight_squares": 21.0}, r"weight_squares must be in \[20.0, 20.0\], got 21"),
        ({"weight_squares": 19.0}, r"weight_squares must be in \[20.0, 20.0\], got 19"),
        ({"y": float("inf")}, "y must be finite, got inf"),
        ({"yy": 0.0}, "sums of x and y must be positive semi-definite"),
        ({"yy": -1.0}, "sums of x and y must be positive semi-definite"),
        ({"y": 1e6}, "sums of 1 and y must be positive semi-definite"),
        ({"xy": np.array([1.0, 1e6, 1.0])}, "sums of x and y must be positive semi-definite"),
        ({"xy": np.array([1.0, np.nan, 1.0])}, "xy must be finite"),
        ({"xx": -np.eye(WIDTH)}, "sums of x and y must be positive semi-definite"),
        ({"xx": np.full((WIDTH, WIDTH), 5.0) - 4 * np.eye(WIDTH)}, "positive semi-definite"),
        ({"xx": np.diag([20.0, 0.0, 1e300])}, "positive semi-definite"),
    ],
)
def test_sums_that_no_rewards_have_are_refused(change: dict[str, object], message: str) -> None:
    """What is read is checked; the refusal says what is wrong."""
    data = replace(of(*sample(3, 20)), **change).to_bytes()  # type: ignore[arg-type]  # by name
    with pytest.raises(BadModel, match=message):
        Sums.from_bytes(data, WIDTH)


def test_bytes_of_another_kind_are_refused() -> None:
    """Another length, width or version; and BadModel is one of routing's errors."""
    data = of(*sample(4, 20)).to_bytes()
    with pytest.raises(BadModel, match="sums of width 3 must be 121 bytes long, got 120"):
        Sums.from_bytes(data[:-1], WIDTH)
    with pytest.raises(BadModel, match="sums of width 4 must be 161 bytes long, got 121"):
        Sums.from_bytes(data, 4)
    with pytest.raises(RoutingError, match="version must be 1, got 2"):
        Sums.from_bytes(b"\x02" + data[1:], WIDTH)


def test_a_matrix_that_is_no_covariance_is_refused() -> None:
    """By name: a hole, an asymmetry, a negative direction, however small or large its units."""
    for scale in (1e-80, 1.0, 1e80):
        check_semidefinite("it", scale * np.array([[2.0, 2.0], [2.0, 2.0]]))
        with pytest.raises(BadModel, match=r"it must be positive semi-definite, got an eigenvalue of -0\.5"):
            check_semidefinite("it", scale * np.array([[2.0, 3.0], [3.0, 2.0]]))
        with pytest.raises(BadModel, match="it must be symmetric, got a difference of"):
            check_semidefinite("it", scale * np.array([[2.0, 1.0], [1.1, 2.0]]))
    with pytest.raises(BadModel, match="it must be finite, got nan"):
        check_semidefinite("it", np.array([[2.0, np.nan], [1.0, 2.0]]))


def textbook(
    xs: Array, ys: Array, m0: Array, precision0: Array, a0: float, b0: float
) -> tuple[Array, Array, float, float]:
    """Murphy's update as it is printed, with inverses: m, Λ, a, b."""
    precision = precision0 + xs.T @ xs
    m = np.linalg.inv(precision) @ (precision0 @ m0 + xs.T @ ys)
    b = b0 + float(ys @ ys + m0 @ precision0 @ m0 - m @ precision @ m) / 2
    return m, precision, a0 + len(ys) / 2, b


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    width=st.integers(1, 8),
    mean=st.floats(-3, 3),
    variance=st.floats(0.1, 10),
    ridge=st.floats(0.1, 10),
    shape=st.floats(1.5, 100),
)
def test_the_posterior_is_the_textbooks(
    seed: int, n: int, width: int, mean: float, variance: float, ridge: float, shape: float
) -> None:
    """In one step, and in two, where the first posterior is the second's prior."""
    xs, ys = sample(seed, n, width)
    m0 = mean * np.eye(width)[0]
    start = m0, ridge * np.eye(width), shape, (shape - 1) * variance
    half = textbook(xs[: n // 2], ys[: n // 2], *start)
    for given_m, given_precision, given_a, given_b in (
        textbook(xs, ys, *start),
        textbook(xs[n // 2 :], ys[n // 2 :], *half),
    ):
        model = posterior(of(xs, ys), Prior(mean, variance, ridge, shape))
        assert model.mean == pytest.approx(given_m, rel=1e-8, abs=1e-8)
        assert model.noise == pytest.approx(given_b / (given_a - 1), rel=1e-8)
        assert model.covariance == pytest.approx(model.noise * np.linalg.inv(given_precision), rel=1e-7)
        assert model.df == pytest.approx(2 * given_a)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), ridge=st.floats(0.01, 100))
def test_the_mean_is_a_ridge_regression(seed: int, n: int, ridge: float) -> None:
    """It minimises Σ(y − xᵀw)² + ridge · |w − m₀|², here solved as least squares with added rows."""
    xs, ys = sample(seed, n)
    m0 = np.array([0.7, 0, 0])
    rows = np.vstack([xs, np.sqrt(ridge) * np.eye(WIDTH)])
    targets = np.concatenate([ys, np.sqrt(ridge) * m0])
    expected = np.linalg.lstsq(rows, targets)[0]
    assert posterior(of(xs, ys), Prior(0.7, 1.0, ridge)).mean == pytest.approx(expected, abs=1e-9)


def test_many_rewards_outweigh_the_prior() -> None:
    """Then mean, covariance and intervals are those of ordinary least squares."""
    xs, ys = sample(5, 50_000, noise=3.0)
    model = posterior(of(xs, ys), Prior(1.0, 5.0, shape=2))
    inverse = np.linalg.inv(xs.T @ xs)
    coefficients = inverse @ xs.T @ ys
    variance = np.sum((ys - xs @ coefficients) ** 2) / (len(ys) - WIDTH)
    assert model.mean == pytest.approx(coefficients, abs=1e-3)
    assert model.noise == pytest.approx(variance, rel=1e-3)
    assert model.covariance == pytest.approx(variance * inverse, rel=2e-3, abs=1e-9)
    reach = 1.959964 * np.sqrt(np.diag(variance * inverse))
    low, high = model.interval(0.95)
    assert low == pytest.approx(coefficients - reach, abs=1e-3)
    assert high == pytest.approx(coefficients + reach, abs=1e-3)


def test_without_context_it_is_the_model_of_a_mean() -> None:
    """Of one component: m = (m₀ + Σy)/(1 + n), and the interval is Student's."""
    ys = np.array([0.3, 1.1, -0.4, 2.0])
    model = posterior(of(np.ones((4, 1)), ys), Prior(0.5, 2.0, shape=2))
    assert model.mean == pytest.approx([(0.5 + ys.sum()) / 5])
    b = 2.0 + (np.sum((ys - ys.mean()) ** 2) + 4 / 5 * (ys.mean() - 0.5) ** 2) / 2
    reference = stats.t(2 * 4, loc=model.mean, scale=np.sqrt(b / 4 / 5))
    assert np.concatenate(model.interval(0.9)) == pytest.approx(np.concatenate(reference.interval(0.9)))
    assert model.covariance[0, 0] == pytest.approx(reference.var())


def test_without_rewards_the_posterior_is_the_prior() -> None:
    """Also when they were, so long ago that they have lost all weight."""
    prior = Prior(0.2, 3.0, ridge=2, shape=9)
    old = of(*sample(6, 100), gamma=0.5).decayed(2_000 * DAY_MS, 0.5)
    assert old.n == 100
    for sums in (Sums.empty(WIDTH), old):
        model = posterior(sums, prior)
        assert model.mean == pytest.approx([0.2, 0, 0])
        assert model.covariance == pytest.approx(3.0 / 2.0 * np.eye(WIDTH))
        assert [model.noise, model.df] == pytest.approx([3, 18])


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_an_interval_holds_what_it_says(level: float) -> None:
    """Of 2,000 coefficients drawn from the prior, with seven rewards each, within 4 standard errors."""
    draw, worlds = np.random.default_rng(7), 2_000
    held = np.zeros(WIDTH)
    for _ in range(worlds):
        variance = 1.5 / draw.gamma(2.0)
        w = np.array([0.3, 0, 0]) + np.sqrt(variance) * draw.normal(size=WIDTH)
        xs = np.column_stack([np.ones(7), draw.normal(size=(7, WIDTH - 1))])
        ys = xs @ w + np.sqrt(variance) * draw.normal(size=7)
        low, high = posterior(of(xs, ys), Prior(0.3, 1.5, shape=2)).interval(level)
        held += (low <= w) & (w <= high)
    assert held / worlds == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / worlds))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_features_that_say_the_same_are_borne(size: float) -> None:
    """A column twice, in any size: the score is what one column gives, and the covariance is one."""
    xs, ys = sample(8, 100_000, 2)
    xs[:, 1] *= size
    doubled = posterior(of(np.column_stack([xs, xs[:, 1]]), ys), Prior(0.0, 1.0))
    check_semidefinite("covariance", doubled.covariance)
    single = posterior(of(xs, ys), Prior(0.0, 1.0, ridge=1.0))
    x = np.array([1.0, 0.5 * size])
    assert np.append(x, x[1]) @ doubled.mean == pytest.approx(x @ single.mean, abs=1e-3)


@pytest.mark.parametrize(
    ("xx", "message"),
    [
        (np.diag([1.0, -5.0, 1.0]), "xx must have a diagonal above -ridge, got -4.0 with the ridge"),
        (np.array([[9.0, 20, 0], [20, 9.0, 0], [0, 0, 1]]), "xx must be positive definite with the prior's"),
        (np.diag([1.0, np.nan, 1.0]), "xx must have a diagonal above -ridge, got nan"),
    ],
)
def test_a_precision_that_is_none_is_refused(xx: Array, message: str) -> None:
    """It is never quietly made positive."""
    with pytest.raises(BadModel, match=message):
        posterior(replace(Sums.empty(WIDTH), xx=xx), Prior(0.0, 1.0))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, float("nan")])
def test_an_interval_of_no_level_is_refused(level: float) -> None:
    """It must lie strictly between 0 and 1."""
    model = ArmModel(np.zeros(1), np.eye(1), 1.0, 4.0, 0.0)
    with pytest.raises(BadModel, match=r"level must be in \(0, 1\), got"):
        model.interval(level)
