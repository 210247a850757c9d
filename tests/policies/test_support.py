"""What the log does not know is refused by name; propensities that cannot be are found out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.decision_log import Log, always, uniform, weights
from policies.errors import CannotJudge
from policies.quadrature import Array
from policies.support import arm_reports, check_support, support_warnings
from tests.policies.logs import candidate, draw, drawn, of_rows

SPLIT = (0.7, 0.2, 0.1)


def split(seed: int = 1, n: int = 4_000, chances: tuple[float, ...] = SPLIT) -> Log:
    """A log of a fixed split."""
    random = np.random.default_rng(seed)
    propensities = np.broadcast_to(np.asarray(chances), (n, len(chances)))
    arms = draw(random, propensities)
    return Log(arms, random.normal(1, 1, n), of_rows(propensities, arms), len(chances))


def check(log: Log, target: Array) -> list[str]:
    """The warnings of a candidate that is judged, by the default terms."""
    arms = arm_reports(log, target)
    check_support(arms, max_unsupported=0.01, min_effective_samples=50)
    return list(support_warnings(arms))


def refusal(log: Log, target: Array) -> tuple[str, str]:
    """Reason and message of a candidate that is not."""
    with pytest.raises(CannotJudge) as refused:
        check(log, target)
    return refused.value.reason, str(refused.value)


def test_an_arm_by_hand() -> None:
    """Arm 1 has decisions 1 and 2, with propensities 1/2 and 1/4. Of an even target it finds ½·(2 + 4)/4 of
    the ½ that is chosen; 6²/20 of its weights are effective."""
    log = Log(np.array([0, 1, 1, 0]), np.zeros(4), np.array([0.5, 0.5, 0.25, 0.8]), 2)
    arm = arm_reports(log, uniform(log))[1]
    assert (arm.arm, arm.decisions, arm.logged_share, arm.target_share) == (1, 2, 0.5, 0.5)
    assert (arm.mean_propensity, arm.max_weight) == (0.375, 2.0)
    assert (arm.found, arm.unsupported) == (1.5, -0.25)
    assert arm.effective_samples == pytest.approx(1.8)
    assert arm.found_error == pytest.approx(np.sqrt(4 / 3 * 11 / 16))
    assert arm.unsupported_error == pytest.approx(arm.found_error / 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_right_log_is_judged_without_a_word(seed: int) -> None:
    """By context or by a fixed split, whatever the candidate."""
    by_context, by_split = drawn(seed, 2_000), split(seed)
    for log, target in (
        (by_context, candidate(by_context)),
        (by_context, always(by_context, 2)),
        (by_split, weights(by_split, [0, 5_000, 5_000])),
    ):
        assert check(log, target) == []


@pytest.mark.parametrize("n", [0, 1])
def test_no_data(n: int) -> None:
    """One decision has no spread; nor have many of one unit."""
    few = split(n=n)
    assert refusal(few, uniform(few)) == (
        "no_data",
        f"2 independent units are needed, got {n} in {n} decisions",
    )
    one_unit = replace(split(n=9), clusters=np.zeros(9, dtype=np.int64))
    assert refusal(one_unit, uniform(one_unit))[1] == "2 independent units are needed, got 1 in 9 decisions"


def test_no_support_of_arms_that_were_never_logged() -> None:
    """Above the stated share they are refused, by name and mass; below it there is a warning."""
    log = replace(split(), n_arms=5)
    assert refusal(log, weights(log, [9_000, 0, 0, 300, 700])) == (
        "no_support",
        "10.00% of the target's choices are of arm 3 and arm 4, never logged",
    )
    assert check(log, weights(log, [9_960, 0, 0, 40, 0])) == [
        "arm 3 was never logged and has 0.40% of the target's choices"
    ]
    assert check(log, weights(log, [10_000, 0, 0, 0, 0])) == []


def test_arms_have_their_names_wherever_they_are_spoken_of() -> None:
    """In refusals, warnings and reports; without names they have their numbers."""
    names = ("old", "arm", "2", "late", "arm-7")
    log = replace(split(), n_arms=5, names=names)
    assert [report.name for report in arm_reports(log, uniform(log))] == [f"arm {name}" for name in names]
    assert refusal(log, weights(log, [9_000, 0, 0, 300, 700])) == (
        "no_support",
        "10.00% of the target's choices are of arm late and arm arm-7, never logged",
    )
    assert check(log, weights(log, [9_960, 0, 0, 40, 0])) == [
        "arm late was never logged and has 0.40% of the target's choices"
    ]
    wrong = replace(split(4, 8_000), names=names[:3])
    wrong = replace(wrong, propensities=wrong.propensities * 0.7)
    assert refusal(wrong, always(wrong, 1))[1].startswith("the mean of 1/propensity of arm old must be 1")


def in_part(seed: int, part: float) -> tuple[Log, Array]:
    """Arm 1 could be chosen, with ½, in that part of the log alone; and what that part is."""
    random = np.random.default_rng(seed)
    there = random.random(4_000) < part
    arms = (there & (random.random(4_000) < 0.5)).astype(np.intp)
    return Log(arms, random.normal(1, 1, 4_000), np.where(there, 0.5, 1.0), 2), there.astype(np.float64)


def test_no_support_where_an_arm_could_not_be_chosen() -> None:
    """In 3 % of the log arm 1 could not be chosen, and the candidate chooses it there: refused, although the
    arm has a thousand decisions. One who chooses it elsewhere is judged."""
    log, there = in_part(2, 0.97)
    reason, message = refusal(log, np.column_stack([there, 1 - there]))
    assert reason == "no_support"
    assert "; at 2." in message
    assert "% of decisions the target chooses it where the log could not" in message
    assert check(log, np.column_stack([1 - there, there])) == []


def test_an_arm_that_came_late_is_no_fault_unless_it_is_wanted_earlier() -> None:
    """Half the log knows it: said of those who do not need more, refused to those who do."""
    log, there = in_part(3, 0.5)
    for target in (always(log, 0), np.column_stack([1 - there, there])):
        (warning,) = check(log, target)
        assert warning.startswith("arm 1 could be chosen at ")
        assert warning.endswith("% of decisions, if its propensities hold")
    reason, message = refusal(log, always(log, 1))
    assert reason == "propensities_do_not_add_up"
    assert message.endswith("chooses it where the log could not, unless its propensities are too high")


@pytest.mark.parametrize("arm", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_propensities_that_do_not_add_up(arm: int, factor: float) -> None:
    """Those of all arms too low or too high by a third: refused to any candidate, with the arm and its
    mean."""
    log = split(4, 8_000)
    wrong = replace(log, propensities=np.minimum(log.propensities * factor, 1))
    reason, message = refusal(wrong, always(log, arm))
    assert reason == "propensities_do_not_add_up"
    assert message.startswith("the mean of 1/propensity of arm ")


def test_a_propensity_that_was_another_arms_is_found_out() -> None:
    """Two arms change places: one is logged too low, which no candidate may overlook."""
    log = split(5)
    swapped = replace(log, propensities=np.asarray(SPLIT)[[0, 2, 1]][log.arms])
    for arm in range(3):
        assert refusal(swapped, always(log, arm))[0] == "propensities_do_not_add_up"


def test_average_propensities_of_a_context_are_found_out_by_who_uses_it() -> None:
    """Shares instead of propensities are right on average: an even candidate is not refused, but one that
    prefers arms where they were likelier is."""
    log = drawn(6, 8_000)
    averaged = replace(log, propensities=(np.bincount(log.arms) / log.n)[log.arms])
    assert check(averaged, uniform(log)) == []
    assert refusal(averaged, candidate(log))[0] == "propensities_do_not_add_up"


@pytest.mark.parametrize(("decisions", "refused"), [(49, False), (60, True)])
def test_arms_of_few_effective_samples_are_not_tested(decisions: int, refused: bool) -> None:
    """Ten decisions of an arm were expected: 49 may be chance or not, 60 are not."""
    arms = (np.arange(20_000) < decisions).astype(np.intp)
    log = Log(arms, np.ones(20_000), np.where(arms == 1, 0.0005, 0.9995), 2)
    if refused:
        assert refusal(log, always(log, 0))[0] == "propensities_do_not_add_up"
    else:
        check(log, always(log, 0))
