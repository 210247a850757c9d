"""The four estimators agree with hand and with one another, and refuse what cannot be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.decision_log import Log, always, uniform
from policies.errors import BadSpec, CannotJudge
from policies.off_policy import (
    APART,
    MATERIAL,
    Difference,
    Estimate,
    Evaluation,
    Method,
    Tails,
    Terms,
    _snips,
    _weigh,
    difference,
    direct_method,
    doubly_robust,
    evaluate,
    ips,
    logged,
    snips,
)
from policies.quadrature import Array
from tests.policies.logs import candidate, draw, drawn, of_rows, propensities_of, rows

Estimator = Callable[[Log, Array, Terms], Estimate]

FOUR = Log(np.array([0, 1, 1, 0]), np.array([1.0, 2.0, 0.0, 3.0]), np.array([0.5, 0.5, 0.25, 0.8]), 2)
"""Four decisions. To a candidate who always chooses arm 1 their weights are 0, 2, 4, 0."""

ANY = Terms(min_effective_samples=1, folds=2)
"""Terms that let four decisions be judged."""

ESTIMATORS: tuple[Estimator, ...] = (ips, snips, direct_method, doubly_robust)
WEIGHTED: tuple[Estimator, ...] = (ips, snips, doubly_robust)
seeds = st.integers(0, 10_000)


def figures(found: Evaluation) -> list[float]:
    """Every value, error and difference."""
    of: list[Estimate | Difference] = [found.logged, *found.estimates.values(), *found.differences.values()]
    return [figure for one in of for figure in (one.value, one.standard_error, one.low, one.high)]


def test_ips_by_hand() -> None:
    """(2·2 + 4·0)/4 = 1; deviations −1, 3, −1, −1 give error² = 4/3 · 12/16 = 1 on 3 df; 6²/20 = 1.8."""
    found = ips(FOUR, always(FOUR, 1), ANY)
    assert (found.value, found.standard_error, found.df) == pytest.approx((1, 1, 3))
    assert (found.low, found.high) == pytest.approx((1 - 1.959964, 1 + 1.959964))
    assert (found.n, found.units, found.mean_weight, found.max_weight) == (4, 4, 1.5, 4)
    assert found.effective_samples == pytest.approx(1.8)
    assert (found.clipped_share, found.clipped_weight) == (0, 0)


def test_snips_by_hand() -> None:
    """4/6; influences 0, 16/9, −16/9, 0 give error² = 4/3 · 512/81/16."""
    found = snips(FOUR, always(FOUR, 1), ANY)
    assert found.value == pytest.approx(2 / 3)
    assert found.influence == pytest.approx([0, 16 / 9, -16 / 9, 0])
    assert found.standard_error**2 == pytest.approx(4 / 3 * 512 / 81 / 16)


def test_the_direct_method_by_hand() -> None:
    """Even decisions are told that arm 1 earns 2, odd ones 0, so 1. Promises less 1 are 1, −1, 1, −1; each of
    arm 1's rewards speaks for two decisions and missed its prediction by 2 and −2: error² = 4/3 · 20/16."""
    found = direct_method(FOUR, always(FOUR, 1), ANY)
    assert found.value == pytest.approx(1)
    assert found.influence == pytest.approx([1, 3, -3, -1])
    assert found.standard_error**2 == pytest.approx(4 / 3 * 20 / 16)
    assert (found.effective_samples, found.max_weight) == pytest.approx((2, 2))


def test_doubly_robust_by_hand() -> None:
    """Promises 2, 0, 2, 0 and weighted misses 0, 2·2, 4·−2, 0 sum to 0. Of the fit, the even fold leaves 1 −
    (4 − 1) = −2 for decision 1, whose miss is 2: influences 2, 0, −6, 0, error² = 4/3 · 40/16."""
    found = doubly_robust(FOUR, always(FOUR, 1), ANY)
    assert found.value == pytest.approx(0)
    assert found.influence == pytest.approx([2, 0, -6, 0])
    assert found.standard_error**2 == pytest.approx(4 / 3 * 40 / 16)


def test_what_was_logged_by_hand() -> None:
    """The mean 1.5 with error² = 4/3 · 5/16; of two units whose deviations sum to 1 and −1, 2 · 2/16."""
    found = logged(FOUR, ANY)
    assert found.value == 1.5
    assert found.standard_error**2 == pytest.approx(4 / 3 * 5 / 16)
    by_unit = logged(replace(FOUR, clusters=np.array([5, 6, 6, 5])), ANY)
    assert by_unit.standard_error**2 == pytest.approx(2 * 2 / 16)
    assert (by_unit.units, by_unit.effective_samples) == (2, 2)


def test_clipping_by_hand() -> None:
    """At 3 it meets one decision of four and takes 1 of 6 of the weight; SNIPS moves to 4/5."""
    found = snips(FOUR, always(FOUR, 1), replace(ANY, clip=3))
    assert found.value == pytest.approx(4 / 5)
    assert (found.clipped_share, found.clipped_weight) == pytest.approx((1 / 4, 1 / 6))
    assert (found.max_weight, found.effective_samples) == pytest.approx((3, 25 / 13))


def test_a_difference_by_hand() -> None:
    """IPS 1 less logged 1.5; influences −1, 3, −1, −1 less −½, ½, −1½, 1½: error² = 4/3 · 13/16."""
    found = difference(ips(FOUR, always(FOUR, 1), ANY), logged(FOUR, ANY))
    assert (found.candidate, found.baseline) == (Method.IPS, Method.LOGGED)
    assert found.value == -0.5
    assert found.standard_error**2 == pytest.approx(4 / 3 * 13 / 16)


@settings(max_examples=30)
@given(seeds)
def test_who_chooses_as_was_logged_earns_what_was_logged(seed: int) -> None:
    """With the log's own propensities IPS and SNIPS are the plain mean, with its error, and differ from it by
    nothing, for sure."""
    log = drawn(seed)
    assert log.features is not None
    found = evaluate(log, propensities_of(log.features))
    for method in (Method.IPS, Method.SNIPS):
        one, apart = found.estimates[method], found.differences[method]
        assert one.value == pytest.approx(found.logged.value)
        assert one.standard_error == pytest.approx(found.logged.standard_error)
        assert one.effective_samples == pytest.approx(log.n)
        assert (apart.value, apart.standard_error) == pytest.approx((0, 0), abs=1e-12)


@settings(max_examples=30)
@given(seeds)
def test_the_order_of_the_log_changes_nothing(seed: int) -> None:
    """Given clusters, which tell the folds; each decision may be its own."""
    log = drawn(seed)
    order = np.random.default_rng(seed).permutation(log.n)
    before, after = evaluate(log, candidate(log)), evaluate(rows(log, order), candidate(log)[order])
    assert figures(after) == pytest.approx(figures(before), rel=1e-9, abs=1e-12)
    for one, other in zip(before.arms, after.arms, strict=True):
        assert astuple(other) == pytest.approx(astuple(one), abs=1e-12)


@settings(max_examples=30)
@given(seeds)
def test_decisions_logged_twice_are_no_more_evidence(seed: int) -> None:
    """With clusters that say so, every figure stays; without them, errors shrink by √2 as if there were."""
    log = drawn(seed)
    twice = rows(log, np.repeat(np.arange(log.n), 2))
    before, after = evaluate(log, candidate(log)), evaluate(twice, candidate(twice))
    assert figures(after) == pytest.approx(figures(before), rel=1e-9, abs=1e-12)
    for method, one in before.estimates.items():
        assert after.estimates[method].effective_samples == pytest.approx(one.effective_samples)
    fooled = ips(replace(twice, clusters=None), candidate(twice))
    assert fooled.standard_error == pytest.approx(
        before.estimates[Method.IPS].standard_error / 2**0.5, rel=0.01
    )


@settings(max_examples=30)
@given(seed=seeds, shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_a_shift_and_a_scale_of_rewards_go_through(seed: int, shift: float, scale: float) -> None:
    """Values follow a·r + b and errors a, of all but IPS, which counts b once per weight."""
    log = drawn(seed)
    moved = replace(log, rewards=scale * log.rewards + shift)
    for estimator in (snips, direct_method, doubly_robust):
        before, after = (estimator(one, candidate(log), Terms()) for one in (log, moved))
        assert after.value == pytest.approx(scale * before.value + shift, rel=1e-9, abs=1e-9)
        assert after.standard_error == pytest.approx(scale * before.standard_error, rel=1e-6)
    before, after = (ips(one, candidate(log)) for one in (log, moved))
    expected = scale * before.value + shift * before.mean_weight
    assert after.value == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30)
@given(seeds)
def test_negated_rewards_mirror_every_answer(seed: int) -> None:
    """A metric of which less is better is judged by its negative."""
    log = drawn(seed)
    before, after = (
        evaluate(one, candidate(log)) for one in (log, replace(log, rewards=np.negative(log.rewards)))
    )
    for method in before.estimates:
        for one, other in (
            (before.estimates[method], after.estimates[method]),
            (before.differences[method], after.differences[method]),
        ):
            assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low))


@settings(max_examples=30)
@given(seed=seeds, factor=st.floats(0.01, 100))
def test_snips_cares_for_no_factor_of_the_weights(seed: int, factor: float) -> None:
    """Nor do its error and its effective samples."""
    log = drawn(seed)
    of = log.of_chosen(candidate(log)) / log.propensities
    before, after = (_snips(_weigh(log, times * of, Terms())) for times in (1.0, factor))
    assert after.value == pytest.approx(before.value)
    assert after.standard_error == pytest.approx(before.standard_error)
    assert after.effective_samples == pytest.approx(before.effective_samples)


@settings(max_examples=30)
@given(seeds)
def test_the_names_of_arms_mean_nothing(seed: int) -> None:
    """Renumbered arms give the same answers."""
    log, names = drawn(seed), np.random.default_rng(seed).permutation(3)
    renamed = replace(log, arms=names[log.arms])
    found = evaluate(renamed, candidate(log)[:, np.argsort(names)])
    assert figures(found) == pytest.approx(figures(evaluate(log, candidate(log))))


@settings(max_examples=30)
@given(seed=seeds, clip=st.floats(1, 4))
def test_clipping_buys_effective_samples_with_reward(seed: int, clip: float) -> None:
    """No weight exceeds it, effective samples grow, and of positive rewards IPS counts less; above the
    greatest weight it does nothing."""
    log = drawn(seed)
    log = replace(log, rewards=np.abs(log.rewards))
    free = ips(log, candidate(log))
    cut = ips(log, candidate(log), Terms(clip=clip))
    assert cut.max_weight <= clip
    assert cut.effective_samples >= free.effective_samples - 1e-9
    assert cut.value <= free.value
    assert (cut.clipped_share > 0) == (free.max_weight > clip)
    assert ips(log, candidate(log), Terms(clip=11)).value == free.value


@settings(max_examples=30)
@given(seeds)
def test_a_candidate_does_not_differ_from_itself(seed: int) -> None:
    """And the difference of two is the negative of theirs."""
    log = drawn(seed)
    one, other = doubly_robust(log, candidate(log)), doubly_robust(log, uniform(log))
    itself = difference(one, one)
    assert (itself.value, itself.standard_error, itself.low, itself.high) == (0, 0, 0, 0)
    there, back = difference(one, other), difference(other, one)
    assert (there.value, there.low, there.standard_error) == (-back.value, -back.high, back.standard_error)


def test_pairing_pays() -> None:
    """The error of a paired difference is below that of two logs of their own."""
    log = drawn(3, 4_000)
    one, other = doubly_robust(log, candidate(log)), logged(log)
    assert difference(one, other).standard_error < 0.8 * np.hypot(one.standard_error, other.standard_error)


def test_students_interval_is_the_longer_by_its_degrees_of_freedom() -> None:
    """Same value and error; at 3 df, 3.182 errors instead of 1.960."""
    found = ips(FOUR, always(FOUR, 1), replace(ANY, tails=Tails.STUDENT))
    assert (found.value, found.standard_error) == pytest.approx((1, 1))
    assert found.high - 1 == pytest.approx(3.182446)
    wide = ips(FOUR, always(FOUR, 1), replace(ANY, level=0.99))
    assert wide.high - 1 == pytest.approx(2.575829)


def test_an_evaluation_is_all_of_it_at_once() -> None:
    """Each method as it is alone, and its difference from what was logged; its terms go with it."""
    log, terms = drawn(4), Terms(level=0.9, clip=5, folds=3, ridge=2)
    found = evaluate(log, candidate(log), terms)
    alone = [estimator(log, candidate(log), terms) for estimator in ESTIMATORS]
    assert list(found.estimates.values()) == alone
    assert found.logged == logged(log, terms)
    assert [one.method for one in alone] == list(Method)[1:]
    assert found.differences == {one.method: difference(one, found.logged) for one in alone}
    assert {one.terms for one in alone} == {terms}
    assert isinstance(found.differences[Method.IPS], Difference)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, evaluate])
def test_refusals_that_concern_every_method(estimator: Callable[[Log, Array], object]) -> None:
    """No data, an arm that was never logged, too few effective samples, rewards that are all equal, and a
    target that is none."""
    log = drawn(5)
    empty, flat = rows(log, np.zeros(0, dtype=np.intp)), replace(log, rewards=np.zeros(log.n))
    unknown = replace(log, n_arms=4)
    for case, target, reason in (
        (empty, uniform(empty), "no_data"),
        (unknown, always(unknown, 3), "no_support"),
        (drawn(6, 40), candidate(drawn(6, 40)), "too_few_effective_samples"),
        (flat, candidate(flat), "no_spread"),
    ):
        with pytest.raises(CannotJudge) as refused:
            estimator(case, target)
        assert refused.value.reason == reason
    with pytest.raises(BadSpec, match=r"target\[0\] must sum to 1"):
        estimator(log, candidate(log) / 2)


@pytest.mark.parametrize("estimator", [*WEIGHTED, evaluate])
def test_wrong_propensities_concern_whoever_reads_them(estimator: Callable[[Log, Array], object]) -> None:
    """They are refused to all but the direct method."""
    log = drawn(7)
    wrong = replace(log, propensities=log.propensities / 2)
    with pytest.raises(CannotJudge) as refused:
        estimator(wrong, candidate(log))
    assert refused.value.reason == "propensities_do_not_add_up"
    assert direct_method(wrong, candidate(log)) == direct_method(log, candidate(log))


def test_too_few_effective_samples_are_told_by_number() -> None:
    """What is needed, what is there, and of how many."""
    with pytest.raises(CannotJudge) as refused:
        ips(FOUR, always(FOUR, 1))
    assert str(refused.value) == "50 effective samples are needed, the weights leave 1.8 of 4"


def test_estimates_of_two_logs_are_not_subtracted() -> None:
    """There is nothing to pair."""
    with pytest.raises(
        BadSpec, match="baseline must be judged on the log of the candidate, got another of 4"
    ):
        difference(ips(FOUR, always(FOUR, 1), ANY), logged(replace(FOUR), ANY))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("level", 1.0, "level must be in [0.5, 0.999999], got 1"),
        ("clip", 0.5, "clip must be in [1, 1000000000], got 0.5"),
        ("folds", 1, "folds must be in [2, 100], got 1"),
        ("ridge", 0.0, "ridge must be in [1e-09, 1000000000], got 0"),
        ("min_effective_samples", 0, "min_effective_samples must be in [1, 1e+50], got 0"),
        ("max_unsupported", 1.5, "max_unsupported must be in [0, 1], got 1.5"),
        ("max_unsupported", float("nan"), "max_unsupported must be in [0, 1], got nan"),
    ],
)
def test_terms_that_cannot_be_are_refused(field: str, value: Any, message: str) -> None:
    """By field, bound and value."""
    with pytest.raises(BadSpec) as refusal:
        replace(Terms(), **{field: value})
    assert str(refusal.value) == message


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_said_of_a_log_without_oddities(seed: int) -> None:
    """Twenty right logs, twenty evaluations without warnings."""
    log = drawn(seed, 1_000)
    assert evaluate(log, candidate(log)).warnings == ()


def test_warnings_say_what_is_odd() -> None:
    """A clip that bites; a few decisions that decide; a reward model that misses what the weights see;
    propensities that do not balance what the reward model sees."""
    log = drawn(8, 4_000)
    assert log.features is not None
    (clipped,) = evaluate(log, candidate(log), Terms(clip=2.5)).warnings
    assert clipped.startswith("clipping at 2.5 met ")
    assert clipped.endswith(" of all weight, which biases what uses weights")
    one_large = replace(log, rewards=np.where(np.arange(log.n) == 7, 500, log.rewards))
    assert any(
        "normal interval may be too short" in said for said in evaluate(one_large, uniform(log)).warnings
    )
    curved = replace(log, rewards=log.rewards + 2 * (log.features[np.arange(log.n), log.arms] > 0.5))
    (missed,) = evaluate(curved, candidate(log)).warnings
    assert missed.startswith("direct_method says ")
    assert missed.endswith("the reward model misses something")
    averaged = replace(log, propensities=(np.bincount(log.arms) / log.n)[log.arms])
    (doubted,) = evaluate(averaged, uniform(log)).warnings
    assert doubted.startswith("ips says ")
    assert doubted.endswith("so propensities are in doubt")


def test_what_is_surely_there_and_does_not_matter_is_not_said() -> None:
    """Of 100,000 decisions a reward model is known, by ten standard errors, to be off by a seventieth of the
    rewards' standard deviation: nobody decides otherwise by that. Off by a twentieth, it is said."""
    log = drawn(9, 100_000)
    assert log.features is not None
    bump = log.features[np.arange(log.n), log.arms] > 0.5
    slightly, plainly = (replace(log, rewards=log.rewards + size * bump) for size in (0.3, 2))
    found = evaluate(slightly, candidate(log))
    apart = difference(found.estimates[Method.DIRECT], found.estimates[Method.DOUBLY_ROBUST])
    assert abs(apart.value) > 2 * APART * apart.standard_error
    assert 0.01 < abs(apart.value) / np.std(slightly.rewards) < MATERIAL
    assert found.warnings == ()
    (missed,) = evaluate(plainly, candidate(log)).warnings
    assert missed.endswith("the reward model misses something")


def test_of_rare_rewards_a_tenth_of_the_value_matters() -> None:
    """Where a click is one in two thousand, half of the value is a hundredth of the clicks' deviation."""
    random = np.random.default_rng(10)
    bits = random.integers(0, 2, (500_000, 2))
    arms = random.integers(0, 2, len(bits))
    wanted = bits[:, 0] ^ bits[:, 1]
    rewards = (random.random(len(bits)) < np.where(arms == wanted, 6e-4, 1e-4)).astype(np.float64)
    log = Log(arms, rewards, np.full(len(bits), 0.5), 2, bits.astype(np.float64))
    (missed,) = evaluate(log, np.eye(2)[wanted]).warnings
    assert missed.endswith("the reward model misses something")


def test_rewards_and_weights_of_any_size_are_judged() -> None:
    """Nothing overflows at the bounds that a log allows."""
    random = np.random.default_rng(9)
    chances = np.tile([1 - 1e-3, 1e-3], (100_000, 1))
    arms = draw(random, chances)
    log = Log(arms, random.choice([-1e50, 1e50], arms.size), of_rows(chances, arms), 2)
    found = evaluate(log, uniform(log))
    assert all(np.isfinite(figure) for figure in figures(found))
