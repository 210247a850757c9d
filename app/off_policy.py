"""What would another way of choosing arms have earned? The question, checked, and what evidence answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.candidates import Candidate, Thompson, check_candidate
from app.decision_logs import Evidence, LogBook
from app.targets import target_of
from policies.bandits import BanditSpec
from policies.decision_log import LARGEST
from policies.errors import BadSpec, CannotJudge
from policies.lessons import wait_ms
from policies.off_policy import Evaluation, Terms, evaluate
from policies.rewards import BadExpression, Reward, names_in, parse
from policies.spec import RouteSpec
from policies.support import check_size
from policies.totals import within
from routing.context import Encoder

MOST_DECISIONS = 100_000
"""How many decisions are judged unless another number is asked for, the newest."""

LIMIT_DECISIONS = 500_000
"""The greatest number that may be asked for."""

_MEANINGS = {
    "not_drawn": "one arm had everything, as in STATIC decisions, or somebody asked for one: only decisions "
    "whose arm was drawn, by weights or by a bandit, tell of other choices",
}

MOST_CELLS = 20_000_000
"""Of the squares that the reward models of all folds and arms take: 160 MB."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which candidates are to be judged on a route, by which reward, on which terms.

    Raises:
        BadSpec: the route cannot have a candidate or the reward, or too many folds for its arms and features.
    """

    spec: RouteSpec
    candidates: Sequence[Candidate]
    reward: Reward
    terms: Terms

    def __post_init__(self) -> None:
        for candidate in self.candidates:
            check_candidate(candidate, self.spec)
        _check_reward(self.reward, self.spec)
        _check_folds(self.terms.folds, self.spec)

    @property
    def taught(self) -> Reward | None:
        """What a candidate that is the route's bandit learns from; None without one."""
        asked = any(isinstance(candidate, Thompson) for candidate in self.candidates)
        return self.spec.bandit.reward if asked and self.spec.bandit is not None else None

    @property
    def wait_ms(self) -> int:
        """How long after a decision everything that counts for it is in the log."""
        rewards = (self.reward, self.taught)
        return max(wait_ms(self.spec, BanditSpec(reward)) for reward in rewards if reward is not None)

    def book(self) -> LogBook:
        """Where the decisions that answer it are collected."""
        return LogBook(self.spec, self.reward, self.taught)

    def judge(self, candidate: Candidate, evidence: Evidence) -> Evaluation:
        """What the evidence says of one of the candidates.

        Raises:
            CannotJudge: as `policies.off_policy.evaluate`; `no_bandit`.
        """
        _check_size(evidence)
        target = target_of(candidate, evidence, self.spec, self.terms.folds)
        return evaluate(evidence.log, target, self.terms)


def note_of_more(most: int) -> str:
    """A warning about evidence that is not all there is."""
    return f"there are more decisions: of those asked for, the newest {most} were judged"


def note_of_lag(through_ms: int) -> str:
    """A warning that the record is behind, so that decisions are missing whose windows are over."""
    if not through_ms:
        return "no recorder has said yet up to when everything is recorded, so nothing is known to be mature"
    through = datetime.fromtimestamp(through_ms / 1000, UTC).isoformat(timespec="seconds")
    return f"everything is recorded up to {through} only: what was not mature by then is missing"


def usual_reward(spec: RouteSpec) -> Reward:
    """What is judged by unless something else is asked for: the bandit's reward, else the policy's goal.

    Raises:
        BadSpec: the route has neither.
    """
    if spec.bandit is not None:
        return spec.bandit.reward
    if spec.goal is None:
        raise BadSpec("reward", f"must be named: route {spec.name!r} declares no metric")
    return Reward(spec.goal.name)


def _check_reward(reward: Reward, spec: RouteSpec) -> None:
    metrics = [metric.name for metric in spec.metrics]
    try:
        named = names_in(parse(reward.expression))
    except BadExpression as error:
        raise BadSpec("reward", str(error)) from error
    if not named or named - set(metrics):
        got = min(named - set(metrics)) if named else "none"
        raise BadSpec(
            "reward", f"must name metrics of route {spec.name!r} ({', '.join(metrics)}), got {got!r}"
        )
    within("reward.default", reward.default, -LARGEST, LARGEST)


def _check_size(evidence: Evidence) -> None:
    try:
        check_size(evidence.log)
    except CannotJudge as error:
        left_out = ", ".join(f"{n} {_told(why)}" for why, n in evidence.left_out.items())
        raise CannotJudge(error.reason, f"{error}; left out: {left_out or 'none'}") from error


def _told(why: str) -> str:
    """Why decisions were left out, and what that means, unless the word says it."""
    meaning = _MEANINGS.get(why)
    return why if meaning is None else f"{why} ({meaning})"


def _check_folds(folds: int, spec: RouteSpec) -> None:
    width = Encoder(spec.context).width if spec.context else 1
    most = MOST_CELLS // (width**2 * len(spec.arms))
    if folds > most:
        bound = f"must be at most {most} with {len(spec.arms)} arms and {width} columns of context"
        raise BadSpec("folds", f"{bound}, got {folds}")
