"""Does the log know what the candidate chooses, and can its propensities be believed? Arm by arm.

Only the propensity of the arm that was chosen is logged. Yet the mean of 1/propensity over an arm's own
decisions, and 0 over all others, is expected to be the share of decisions at which it could be chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from policies.decision_log import Log, check_target
from policies.errors import CannotJudge
from policies.quadrature import Array

SURE = 5.0
"""Standard errors beyond which propensities are called wrong, or choices unsupported."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What a log and a candidate make of an arm.

    `name` is what messages call it. `mean_propensity`: over the arm's decisions; None without any.
    `max_weight`: the greatest target over propensity. `found`: the mean of 1/propensity over the arm's
    decisions and 0 over all others, with its standard error; `effective_samples` are those of it.
    `unsupported`: how much more often the candidate chooses the arm than its decisions, so weighted, account
    for, with its standard error.
    """

    arm: int
    name: str
    decisions: int
    logged_share: float
    target_share: float
    mean_propensity: float | None
    max_weight: float
    effective_samples: float
    found: float
    found_error: float
    unsupported: float
    unsupported_error: float

    @property
    def excessive(self) -> bool:
        """Whether its propensities are surely too low, for all decisions or for those the candidate likes."""
        by_all = self.found - 1 > SURE * self.found_error + _ROUNDING
        return by_all or self.unsupported < -SURE * self.unsupported_error - _ROUNDING

    @property
    def scarce(self) -> bool:
        """Whether its propensities are surely too high, or it could not be chosen at every decision."""
        return self.found - 1 < -SURE * self.found_error - _ROUNDING


def arm_reports(log: Log, target: Array) -> tuple[ArmReport, ...]:
    """What log and target say of each arm.

    Raises:
        BadSpec: a target that is not one probability per decision and arm.
        CannotJudge: `no_data`.
    """
    check_target(log, target)
    check_size(log)
    return tuple(_report(log, target[:, arm], arm) for arm in range(log.n_arms))


def check_size(log: Log) -> None:
    """Raise CannotJudge `no_data` for a log without two independent units."""
    if log.n_units < 2:
        raise CannotJudge(
            "no_data", f"2 independent units are needed, got {log.n_units} in {log.n} decisions"
        )


def check_logged_arms(arms: Sequence[ArmReport], max_unsupported: float) -> None:
    """Raise CannotJudge `no_support` where more of the choices are of arms that were never logged."""
    unknown = [arm for arm in arms if not arm.decisions and arm.target_share > 0]
    mass = sum(arm.target_share for arm in unknown)
    if mass > max_unsupported:
        names = " and ".join(arm.name for arm in unknown)
        raise CannotJudge("no_support", f"{mass:.2%} of the target's choices are of {names}, never logged")


def check_support(arms: Sequence[ArmReport], max_unsupported: float, min_effective_samples: float) -> None:
    """Refuse propensities that cannot be, and choices that could not have been logged.

    `found` is never above 1 in expectation, nor `unsupported` below 0. On their other sides they are where
    propensities are too high, or where the arm could not always be chosen: one that came late, say. That
    matters only if the candidate chooses it there. Arms with fewer effective samples are not tested for their
    propensities. What cannot be seen are errors that are balanced over what the candidate chooses.

    Raises:
        CannotJudge: `no_support`, `propensities_do_not_add_up`.
    """
    check_logged_arms(arms, max_unsupported)
    for arm in arms:
        if arm.excessive and arm.effective_samples >= min_effective_samples:
            raise CannotJudge("propensities_do_not_add_up", _too_low(arm))
    for arm in arms:
        if arm.unsupported > max(max_unsupported, SURE * arm.unsupported_error):
            testable = arm.effective_samples >= min_effective_samples
            reason = "propensities_do_not_add_up" if testable and arm.scarce else "no_support"
            raise CannotJudge(reason, _too_high(arm))


def support_warnings(arms: Sequence[ArmReport]) -> Iterator[str]:
    """What is odd about arms without being in the way."""
    for arm in arms:
        if not arm.decisions and arm.target_share > 0:
            yield f"{arm.name} was never logged and has {arm.target_share:.2%} of the target's choices"
        elif arm.decisions and arm.scarce:
            yield f"{arm.name} could be chosen at {arm.found:.2%} of decisions, if its propensities hold"


def _mean(arm: ArmReport) -> str:
    return f"the mean of 1/propensity of {arm.name} must be 1, got {arm.found:.4g} ± {arm.found_error:.2g}"


def _too_low(arm: ArmReport) -> str:
    counted = f"{arm.target_share - arm.unsupported:.2%} of decisions count as the target's for it"
    return f"{_mean(arm)}; {counted}, of {arm.target_share:.2%} that it chooses: its propensities are too low"


def _too_high(arm: ArmReport) -> str:
    lacking = f"at {arm.unsupported:.2%} of decisions the target chooses it where the log could not"
    return f"{_mean(arm)}; {lacking}, unless its propensities are too high"


def _report(log: Log, share: Array, arm: int) -> ArmReport:
    own = log.arms == arm
    inverse = np.where(own, 1 / log.propensities, 0)
    lacking = share - share * inverse
    decisions, chosen = int(np.count_nonzero(own)), float(np.mean(share))
    found, missing = float(np.mean(inverse)), float(np.mean(lacking))
    found_error = _error(log, inverse - found, found, 1)
    missing_error = _error(log, lacking - missing, chosen - missing, chosen)
    return ArmReport(
        arm=arm,
        name=log.name_of(arm),
        decisions=decisions,
        logged_share=decisions / log.n,
        target_share=chosen,
        mean_propensity=float(np.mean(log.propensities[own])) if decisions else None,
        max_weight=float(np.max(share * inverse)),
        effective_samples=log.effective_samples(inverse),
        found=found,
        found_error=found_error,
        unsupported=missing,
        unsupported_error=max(missing_error, found_error * float(np.sqrt(np.mean(share**2)))),
    )


def _error(log: Log, deviations: Array, counted: float, expected: float) -> float:
    """The standard error that as many decisions as were expected would have, where fewer were met.

    Of a count m that is small by chance, √m is too small an error to call its expectation wrong by.
    """
    error = log.spread(deviations)[0]
    return error * sqrt(expected / counted) if 0 < counted < expected else error
