"""What `kingmaker compare` answers: known values, mirrored directions, sound lifts, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from policies.comparison import Comparison, Prior, PriorName, compare, parse_prior
from policies.errors import BadSpec
from policies.posterior import Beta, Gamma, StudentT
from policies.totals import Totals, parse_totals
from policies.types import Better, Kind

Array = NDArray[np.float64]
DRAWS = 400_000


def binary(n: float, total: float) -> dict[str, float]:
    """Totals of a binary metric."""
    return {"n": n, "sum": total}


def continuous(values: Array) -> dict[str, float]:
    """Totals of a continuous metric."""
    return {"n": float(values.size), "sum": float(values.sum()), "sum_squares": float((values**2).sum())}


def ratio(num: Array, den: Array) -> dict[str, float]:
    """Totals of a ratio metric."""
    return {
        "n": float(num.size),
        "num": float(num.sum()),
        "den": float(den.sum()),
        "num_squares": float((num**2).sum()),
        "den_squares": float((den**2).sum()),
        "cross": float((num * den).sum()),
    }


NOISE = np.random.default_rng(5).lognormal(0, 1, (4, 300))
EXAMPLES: list[tuple[Kind, Totals, Totals]] = [
    (Kind.BINARY, binary(100, 49), binary(120, 51)),
    (Kind.BINARY, binary(10, 0), binary(10, 10)),
    (Kind.COUNT, {"exposure": 100.0, "sum": 10.0}, {"exposure": 120.0, "sum": 20.0}),
    (Kind.CONTINUOUS, continuous(NOISE[0]), continuous(NOISE[1, :200])),
    (Kind.RATIO, ratio(NOISE[0], NOISE[1]), ratio(NOISE[2], NOISE[3])),
]


def test_known_values() -> None:
    """49 of 100 against 51 of 100 under a flat prior, and 10 in 100 against 20 in 120 under Gamma(1, 1)."""
    found = compare(Kind.BINARY, binary(100, 49), binary(100, 51))
    assert found.chance_to_beat == pytest.approx(0.6107705, abs=5e-8)
    assert found.loss_challenger == pytest.approx(0.0191165, abs=5e-8)
    assert found.loss_champion == pytest.approx(0.0387243, abs=5e-8)
    assert (found.champion.mean, found.challenger.mean) == (50 / 102, 52 / 102)
    counts = compare(*EXAMPLES[2], prior=parse_prior("a=1,b=1"))
    assert counts.chance_to_beat == pytest.approx(0.904225, abs=5e-7)


@pytest.mark.parametrize(("kind", "champion", "challenger"), EXAMPLES)
def test_lower_mirrors_higher_exactly(kind: Kind, champion: Totals, challenger: Totals) -> None:
    """`better: lower` complements the chance, exchanges the losses, and leaves means and raw lift alone."""
    higher = compare(kind, champion, challenger)
    lower = compare(kind, champion, challenger, Better.LOWER)
    assert lower == replace(
        higher,
        chance_to_beat=1 - higher.chance_to_beat,
        loss_champion=higher.loss_challenger,
        loss_challenger=higher.loss_champion,
    )


@pytest.mark.parametrize(("kind", "champion", "challenger"), EXAMPLES)
def test_exchanged_arms_exchange_answers(kind: Kind, champion: Totals, challenger: Totals) -> None:
    """Which arm is called champion does not matter to chance and losses."""
    there, back = compare(kind, champion, challenger), compare(kind, challenger, champion)
    assert back.chance_to_beat == pytest.approx(1 - there.chance_to_beat, abs=1e-9)
    assert back.loss_champion == pytest.approx(there.loss_challenger, abs=1e-9)
    assert back.champion == there.challenger


@pytest.mark.parametrize(("kind", "champion"), [example[:2] for example in EXAMPLES])
def test_equal_arms_are_even(kind: Kind, champion: Totals) -> None:
    """P ½, equal losses, a lift of 0 inside its interval."""
    found = compare(kind, champion, champion)
    assert found.chance_to_beat == pytest.approx(0.5, abs=1e-9)
    assert found.loss_champion == pytest.approx(found.loss_challenger)
    assert found.lift is not None
    assert found.lift.mean == pytest.approx(0, abs=1e-12)
    assert found.lift.low < 0 < found.lift.high


def draws_of(found: Beta | Gamma | StudentT, draw: np.random.Generator) -> Array:
    """Draws from a posterior."""
    match found:
        case Beta(a, b):
            return draw.beta(a, b, DRAWS)
        case Gamma(shape, rate):
            return draw.gamma(shape, 1 / rate, DRAWS)
        case StudentT(df, loc, scale):
            return np.asarray(loc + scale * draw.standard_t(df, DRAWS))


def student(totals: Totals) -> StudentT:
    """The reference posterior, by its textbook formula."""
    n, mean = totals["n"], totals["sum"] / totals["n"]
    return StudentT(n - 1, mean, float(np.sqrt((totals["sum_squares"] / n - mean**2) / (n - 1))))


PROFIT = np.random.default_rng(8).normal(0.1, 1, (2, 400))
LIFTS: list[tuple[Kind, Totals, Totals, Callable[[Totals], Beta | Gamma | StudentT]]] = [
    (Kind.BINARY, binary(100, 49), binary(100, 51), lambda t: Beta(1 + t["sum"], 1 + t["n"] - t["sum"])),
    (Kind.BINARY, binary(10, 0), binary(10, 10), lambda t: Beta(1 + t["sum"], 1 + t["n"] - t["sum"])),
    (Kind.BINARY, binary(100, 90), binary(1e6, 9.6e5), lambda t: Beta(1 + t["sum"], 1 + t["n"] - t["sum"])),
    (*EXAMPLES[2], lambda t: Gamma(1 + t["sum"], t["exposure"])),
    (*EXAMPLES[3], student),
    (Kind.CONTINUOUS, continuous(-NOISE[0]), continuous(-NOISE[1, :200]), student),
    (Kind.CONTINUOUS, continuous(PROFIT[0, :40]), continuous(PROFIT[1]), student),
]


@pytest.mark.parametrize(("kind", "champion", "challenger", "posterior"), LIFTS)
def test_the_lift_has_the_probability_it_claims(
    kind: Kind, champion: Totals, challenger: Totals, posterior: Callable[[Totals], Beta | Gamma | StudentT]
) -> None:
    """2.5 % of draws of (B − A)/|A| fall on either side of the interval, also where A's sign is uncertain."""
    found, draw = compare(kind, champion, challenger), np.random.default_rng(9)
    a, b = draws_of(posterior(champion), draw), draws_of(posterior(challenger), draw)
    lift = (b - a) / np.abs(a)
    assert found.lift is not None
    assert np.mean(lift < found.lift.low) == pytest.approx(0.025, abs=0.003)
    assert np.mean(lift > found.lift.high) == pytest.approx(0.025, abs=0.003)


def test_a_ratio_of_equal_denominators_is_a_mean() -> None:
    """With a denominator of 1 for every unit a ratio agrees with the mean of its numerator."""
    as_ratio = compare(Kind.RATIO, ratio(NOISE[0], np.ones(300)), ratio(NOISE[1], np.ones(300)))
    as_mean = compare(Kind.CONTINUOUS, continuous(NOISE[0]), continuous(NOISE[1]))
    assert as_ratio.champion.mean == pytest.approx(as_mean.champion.mean)
    assert as_ratio.chance_to_beat == pytest.approx(as_mean.chance_to_beat, abs=0.02)


def test_a_champion_without_a_mean_has_no_lift() -> None:
    """Nothing is relative to 0."""
    zero = {"n": 4.0, "sum": 0.0, "sum_squares": 4.0}
    assert compare(Kind.CONTINUOUS, zero, continuous(NOISE[0])).lift is None


@given(n=st.integers(1, 10**9), share=st.floats(0, 1), other=st.floats(0, 1), jeffreys=st.booleans())
def test_any_possible_totals_give_finite_ordered_answers(
    n: int, share: float, other: float, jeffreys: bool
) -> None:
    """Up to a billion values, all or none of them ones: no NaN, no warning, means inside their intervals'
    order."""
    prior = Prior(PriorName.JEFFREYS if jeffreys else PriorName.FLAT)
    found = compare(Kind.BINARY, binary(n, round(n * share)), binary(n, round(n * other)), prior=prior)
    assert 0 <= found.chance_to_beat <= 1
    assert min(found.loss_champion, found.loss_challenger) >= 0
    assert found.lift is not None
    for interval in (found.lift, found.champion, found.challenger):
        assert np.all(np.isfinite([interval.low, interval.mean, interval.high]))
        assert interval.low < interval.high


@given(total=st.integers(20, 79))
def test_one_more_success_is_better(total: int) -> None:
    """More successes of the challenger raise its chance and lower the loss of choosing it."""
    less, more = (compare(Kind.BINARY, binary(100, 50), binary(100, total + extra)) for extra in (0, 1))
    assert more.chance_to_beat > less.chance_to_beat
    assert more.loss_challenger < less.loss_challenger


GOOD: dict[Kind, Totals] = {kind: champion for kind, champion, _ in EXAMPLES}
REFUSED = [
    (Kind.BINARY, {"sum": 101.0, "n": 100.0}, r"challenger.sum must be in \[0, 100\], got 101"),
    (Kind.BINARY, {"sum": -1.0, "n": 100.0}, r"challenger.sum must be in \[0, 100\], got -1"),
    (Kind.BINARY, {"sum": 1.5, "n": 100.0}, "challenger.sum must be a whole number, got 1.5"),
    (Kind.BINARY, {"sum": 0.0, "n": 0.0}, r"challenger.n must be in \[1, 1000000000000\], got 0"),
    (Kind.BINARY, {"sum": float("nan"), "n": 1.0}, "challenger.sum must be a finite number, got nan"),
    (Kind.BINARY, {"n": 1.0}, "challenger must name exactly n, sum for kind binary, got n"),
    (Kind.BINARY, {}, "challenger must name exactly n, sum for kind binary, got nothing"),
    (Kind.COUNT, {"exposure": 0.0, "sum": 1.0}, "challenger.exposure must be above 0, got 0"),
    (Kind.COUNT, {"exposure": 1.0, "sum": -1.0}, r"challenger.sum must be in \[0, 1000000000000\], got -1"),
    (
        Kind.CONTINUOUS,
        {"n": 1.0, "sum": 1.0, "sum_squares": 1.0},
        r"challenger.n must be in \[3, .*\], got 1",
    ),
    (
        Kind.CONTINUOUS,
        {"n": 10.0, "sum": 100.0, "sum_squares": 999.0},
        r"challenger.sum_squares must be at least \(sum of values\)²/n = 1000, got 999",
    ),
    (
        Kind.CONTINUOUS,
        {"n": 10.0, "sum": 100.0, "sum_squares": 1000.0},
        r"challenger.sum_squares must exceed sum²/n = 1000 .*, got 1000",
    ),
    (Kind.RATIO, {**ratio(NOISE[0], NOISE[1]), "den": 0.0}, "challenger.den must be above 0, got 0"),
    (
        Kind.RATIO,
        {**ratio(NOISE[0], NOISE[1]), "cross": 1e9},
        r"challenger.cross must be in \[.*\], got 1000000000",
    ),
    (
        Kind.RATIO,
        {**ratio(NOISE[0], NOISE[1]), "den_squares": 1.0},
        "challenger.den_squares must be at least .*, got 1",
    ),
    (Kind.RATIO, ratio(NOISE[0], NOISE[0]), "challenger.cross must leave some spread"),
]


@pytest.mark.parametrize(("kind", "totals", "message"), REFUSED)
def test_totals_that_no_data_can_have_are_refused(kind: Kind, totals: Totals, message: str) -> None:
    """The refusal names the field, its bound and its value."""
    with pytest.raises(BadSpec, match=message):
        compare(kind, GOOD[kind], totals)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Kind.CONTINUOUS, "a=1,b=1", "prior must be flat or jeffreys for kind continuous, got own"),
        (Kind.RATIO, "jeffreys", "prior must be flat for kind ratio, got jeffreys"),
        (Kind.BINARY, "a=0,b=1", r"prior.a must be in \[0.1, 1000000000\], got 0"),
        (Kind.BINARY, "a=1,b=0", r"prior.b must be in \[0.1, 1000000000\], got 0"),
    ],
)
def test_a_prior_that_does_not_apply_is_refused(kind: Kind, text: str, message: str) -> None:
    """Each kind names the priors it knows, and a prior its bounds."""
    with pytest.raises(BadSpec, match=message):
        compare(kind, GOOD[kind], GOOD[kind], prior=parse_prior(text))


def test_priors_are_read_from_words_and_numbers() -> None:
    """Flat, Jeffreys', or two parameters; they move the answer as they should."""
    assert parse_prior("flat") == Prior()
    assert parse_prior("jeffreys") == Prior(PriorName.JEFFREYS)
    assert parse_prior("a=2, b=3.5") == Prior(PriorName.OWN, 2.0, 3.5)

    def champion_mean(prior: str) -> float:
        found: Comparison = compare(Kind.BINARY, binary(10, 3), binary(10, 3), prior=parse_prior(prior))
        return found.champion.mean

    assert champion_mean("jeffreys") == pytest.approx(3.5 / 11)
    assert champion_mean("a=1,b=1") == champion_mean("flat") == pytest.approx(4 / 12)


@pytest.mark.parametrize("text", ["", "uniform", "a=1", "a=1,b=1,c=1", "a=x,b=1", "a=1,a=2"])
def test_an_unreadable_prior_is_refused(text: str) -> None:
    """The refusal repeats what was read."""
    with pytest.raises(BadSpec, match=r"prior must .*, got"):
        parse_prior(text)


def test_totals_are_read_from_text() -> None:
    """NAME=NUMBER pairs; anything else is refused under the field's own name."""
    assert parse_totals("n=100, sum=4.9e1", "--champion") == {"n": 100.0, "sum": 49.0}
    with pytest.raises(BadSpec, match=r"--champion must be NAME=NUMBER,NAME=NUMBER, got 'n=100;sum=49'"):
        parse_totals("n=100;sum=49", "--champion")
