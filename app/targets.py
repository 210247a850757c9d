"""With which probability would a candidate have chosen each arm at each logged decision?

What a candidate learns, it learns for each decision from the folds that this one is not in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
from numpy.typing import NDArray

from app.candidates import Always, Candidate, Learned, Thompson, Uniform, Weights
from app.decision_logs import Evidence
from policies.bandits import BanditSpec
from policies.decision_log import always, weights
from policies.errors import CannotJudge
from policies.lessons import Lessons
from policies.quadrature import Array
from policies.reward_model import greedy, learned, softmax
from policies.spec import RouteSpec
from routing.bandit import BanditTerms
from routing.errors import RoutingError
from routing.learning import bandit_of, learned_of
from routing.linear_model import Sums
from routing.thompson import Bandit
from routing.types import TOTAL_BP


def target_of(candidate: Candidate, evidence: Evidence, spec: RouteSpec, folds: int) -> Array:
    """The candidate's probabilities, of shape (n, K). Arms that answer nobody any more have none.

    Raises:
        CannotJudge: `no_bandit`, where no bandit could have learned from the rewards.
    """
    log, answering = evidence.log, evidence.answering
    match candidate:
        case Always(arm):
            return always(log, evidence.arms.index(arm))
        case Uniform():
            even = _widened(np.full((1, answering), 1 / answering), log.n_arms)
            return np.broadcast_to(even, (log.n, log.n_arms))
        case Weights(shares):
            return weights(log, [shares.get(arm, 0) for arm in evidence.arms])
        case Learned(temperature):
            choose = greedy if temperature is None else partial(softmax, temperature=temperature)
            return learned(log, lambda told: _widened(choose(told[:, :answering]), log.n_arms), folds)
        case Thompson():
            if spec.bandit is None:
                raise CannotJudge("no_bandit", f"weights divide the traffic of route {spec.name!r}")
            try:
                return _thompson(spec, spec.bandit, evidence, folds)
            except (RoutingError, ArithmeticError) as error:
                raise CannotJudge("no_bandit", f"no bandit learns from these rewards: {error}") from error


def _widened(chosen: Array, arms: int) -> Array:
    """With nothing for the arms that come after."""
    return np.pad(chosen, ((0, 0), (0, arms - chosen.shape[1])))


def _thompson(spec: RouteSpec, bandit: BanditSpec, evidence: Evidence, folds: int) -> Array:
    """What the route's bandit would do if it had learned from all folds but a decision's own."""
    lessons = Lessons(bandit, spec.metrics, spec.context)
    log = evidence.log
    rows = np.ones((log.n, 1)) if log.features is None else np.insert(log.features, 0, 1.0, axis=1)
    fold = log.units % folds
    taught = [_taught(lessons, evidence, rows, fold == own) for own in range(folds)]
    target = np.zeros((log.n, log.n_arms))
    for own in range(folds):
        others = taught[:own] + taught[own + 1 :]
        merge = partial(Sums.merge, gamma=bandit.discount)
        sums = [reduce(merge, of_arm) for of_arm in zip(*others, strict=True)]
        shares = _bandit(lessons, evidence, sums).shares_many(rows[fold == own])
        target[fold == own, : evidence.answering] = shares / TOTAL_BP
    return target


def _taught(lessons: Lessons, evidence: Evidence, rows: Array, some: NDArray[np.bool_]) -> list[Sums]:
    """What some of the decisions teach of each arm."""
    log, rewards = evidence.log, evidence.taught
    if rewards is None:
        raise CannotJudge("no_bandit", "no rewards were read for a bandit to learn from")
    empty, some = Sums.empty(lessons.width), some & np.isfinite(rewards)
    return [
        empty.plus_many(rows[own], rewards[own], evidence.at_ms[own], lessons.bandit.discount)
        for own in (some & (log.arms == place) for place in range(evidence.answering))
    ]


def _bandit(lessons: Lessons, evidence: Evidence, sums: Sequence[Sums]) -> Bandit:
    """The bandit that knows these sums of each arm that answers; an arm's id is its place."""
    bandit, arms = lessons.bandit, evidence.arms[: evidence.answering]
    known = {place: each for place, each in enumerate(sums) if each.n}
    at_ms = max((each.as_of_ms for each in sums), default=0)
    terms = BanditTerms(
        floor_bp=bandit.floor_bp,
        caps_bp={place: bandit.caps[arm] for place, arm in enumerate(arms) if arm in bandit.caps},
        warm_up=bandit.warm_up,
        is_binary=lessons.is_binary,
        learned=learned_of(known, bandit.discount, lessons.schema, at_ms),
    )
    return bandit_of(terms, range(len(arms)), lessons.schema, lessons.width)
