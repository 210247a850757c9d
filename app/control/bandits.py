"""What the control plane answers about a route's bandit: what it has learnt, and how it divides traffic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from pydantic import ConfigDict, Field

from app.control.examples import BANDIT
from app.control.presentation import moment
from app.control.views import IntervalView, View
from app.db.bandits import BanditState, remedy
from app.db.learned import serving_ids
from app.db.pending import Waiting
from app.db.routes import StoredRoute
from policies.lessons import Apprentice, Knowledge, Lessons
from routing.bandit import BanditTerms
from routing.errors import RoutingError
from routing.features import Feature, Value
from routing.learning import bandit_of, models_of
from routing.linear_model import ArmModel, Array, Sums

RECENT_CONTEXTS = 1_000
"""Shares are worked out over the contexts of so many decisions, the newest."""

_LEVEL = 0.95
_OTHER = "*"


class BanditMode(StrEnum):
    """Whether the bandit divides the traffic, or learns while the champion answers."""

    LIVE = "live"
    APPRENTICE = "apprentice"


class RewardView(View):
    """What the bandit learns from."""

    expression: str
    default: float = Field(description="The reward of a mature decision without any outcome.")


class PendingView(View):
    """Decisions whose rewards are not mature, or not learnt yet."""

    decisions: int
    first_due: datetime | None = Field(default=None, description="When the first of them is due.")


class CoefficientView(IntervalView):
    """By how much a column of the context raises an arm's expected reward."""

    column: str


class BanditArmView(View):
    """What was learnt of an arm. The prior's share in it is left out of all counts.

    `pulls` and `rewards` count different decisions, so neither bounds the other. `pulls` has those that the
    bandit itself made, mature or not, since weights last divided the traffic; a rebuild leaves it as it is.
    `rewards` has those that it learns from, of weights and of a champion alone as well, also from before the
    bandit.
    """

    arm: str
    pulls: int = Field(
        description="Decisions for which this bandit chose it, since weights last divided the traffic."
    )
    rewards: int = Field(
        description="Mature rewards that it has learnt from, whoever divided the traffic; undiscounted."
    )
    worth: float = Field(
        default=0.0, description="What these are worth by now: one of t days ago counts as discount^t."
    )
    effective_samples: float = Field(
        description="As many rewards of equal worth would say as much: (Σw)²/Σw² of their worths w. "
        "It does not fall by their age, which is the same factor for all."
    )
    warm: bool = Field(description="Whether they are enough; an arm that is not warm has a uniform share.")
    mean_reward: float | None = Field(default=None, description="Discounted.")
    share: float | None = Field(
        default=None, description="Its share now, in basis points: the mean over the newest contexts."
    )
    coefficients: list[CoefficientView]


class SegmentView(View):
    """How traffic with a value of a feature is divided now. Null: missing; `*`: not a declared value."""

    feature: str
    value: bool | str | None = None
    n: int = Field(description="Contexts with the value among the newest.")
    shares: dict[str, float] = Field(description="In basis points, the mean over these contexts.")


class ApprenticeView(View):
    """What an apprentice would have done at decisions that the champion answered, as far as that is known.

    `agreement`: the mean probability with which it would have chosen what was served. `earned`: the sum of
    that probability times the reward, which is what it would have earned there. Where it would have chosen
    otherwise nothing is known, and that counts as 0: for rewards that are not negative this is a lower bound,
    and no estimate. `actual`: the sum of the rewards; `share_of_reward`: earned by actual, null unless that
    is positive. An estimate is what `POST /v1/off-policy-evaluations` gives for the policy `bandit`.
    """

    decisions: int
    agreement: float | None = None
    earned: float
    actual: float
    share_of_reward: float | None = None


class BanditView(View):
    """A route's bandit: its terms, what it has learnt, and how it divides the traffic."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [BANDIT]})

    route: str
    mode: BanditMode
    reward: RewardView
    floor: int
    caps: dict[str, int]
    discount: float
    warm_up: int
    fault: str | None = Field(
        default=None,
        description="Why the champion is to answer instead; null: it is not. While `published_at` is there, "
        "gateways have not heard of it yet.",
    )
    published_at: datetime | None = Field(
        default=None,
        description="When gateways were told of what they choose by, or later. "
        "Null: they know nothing, so the champion answers.",
    )
    learning_since: datetime | None = Field(default=None, description="When it began with nothing.")
    learned_at: datetime | None = None
    pending: PendingView
    unusable: int = Field(
        description="Mature decisions that taught nothing since it began to learn: of an arm that is retired "
        "or a decision that is no longer on record, without the context that the route declares, or with a "
        "reward that has no value or is beyond ± 10¹²."
    )
    arms: list[BanditArmView]
    segments: list[SegmentView]
    apprentice: ApprenticeView | None = Field(default=None, description="Of an apprentice alone.")


@dataclass(frozen=True, slots=True)
class Account:
    """What is stored of a route's bandit, and what gateways are told.

    `known` is nothing where it is of another declaration, or damaged; `damage` says how. `at_ms` is now.
    """

    route: StoredRoute
    lessons: Lessons
    terms: BanditTerms
    state: BanditState | None
    known: Knowledge
    at_ms: int
    damage: str | None
    waiting: Waiting
    pulls: Mapping[int, int]
    contexts: Sequence[Mapping[str, object]]


def bandit_view(account: Account) -> BanditView:
    """A route's bandit."""
    bandit, state, known = account.lessons.bandit, account.state, account.known
    shares, fault = _shares(account)
    means = None if shares is None or not len(shares) else shares.mean(axis=0)
    return BanditView(
        route=account.route.name,
        mode=BanditMode.APPRENTICE if bandit.apprentice else BanditMode.LIVE,
        reward=RewardView(expression=bandit.reward.expression, default=bandit.reward.default),
        floor=bandit.floor_bp,
        caps=dict(bandit.caps),
        discount=bandit.discount,
        warm_up=bandit.warm_up,
        fault=fault,
        published_at=_published_at(account),
        learning_since=moment(state.begun_at_ms) if state is not None else None,
        learned_at=moment(state.learned_at_ms) if state is not None and state.learned_at_ms else None,
        pending=_pending(account.waiting),
        unusable=known.unusable,
        arms=_arms(account, means),
        segments=list(_segments(account, shares)),
        apprentice=_apprentice(known.apprentice) if bandit.apprentice else None,
    )


def _shares(account: Account) -> tuple[Array | None, str | None]:
    """The arms' shares in each of the newest contexts (n, K), or why there are none."""
    ids, lessons = serving_ids(account.route), account.lessons
    if account.damage is not None:
        return None, f"{account.damage}; {remedy(account.route.name)}"
    if account.terms.learned is None:
        return None, "not all that is in the log has been learnt yet"
    try:
        bandit = bandit_of(account.terms, ids, lessons.schema, lessons.width)
        rows = lessons.rows(account.contexts if lessons.encoder is not None else [{}])
        return np.asarray(bandit.shares_many(rows), dtype=np.float64), None
    except (RoutingError, ValueError, ArithmeticError) as error:
        return None, str(error)


def _published_at(account: Account) -> datetime | None:
    """Nothing is told of another declaration, nor before all that was due has been learnt once."""
    state = account.state
    if state is None or not state.published_version or state.meaning != account.lessons.meaning:
        return None
    return moment(state.published_at_ms)


def _pending(waiting: Waiting) -> PendingView:
    first_due = None if waiting.first_due_ms is None else moment(waiting.first_due_ms)
    return PendingView(decisions=waiting.decisions, first_due=first_due)


def _arms(account: Account, means: Array | None) -> list[BanditArmView]:
    route, lessons = account.route, account.lessons
    ids = serving_ids(route)
    sums = {arm_id: account.known.sums.get(arm_id) or Sums.empty(lessons.width) for arm_id in ids}
    models = models_of(sums, lessons.bandit.discount)
    names = {arm_id: name for name, arm_id in route.arm_ids.items()}
    return [
        BanditArmView(
            arm=names[arm_id],
            pulls=account.pulls.get(arm_id, 0),
            rewards=sums[arm_id].n,
            worth=_worth(sums[arm_id], lessons.bandit.discount, account.at_ms),
            effective_samples=sums[arm_id].effective_samples,
            warm=sums[arm_id].n >= lessons.bandit.warm_up,
            mean_reward=sums[arm_id].y / sums[arm_id].weight if sums[arm_id].weight else None,
            share=None if means is None else float(means[place]),
            coefficients=_coefficients(models[arm_id], lessons),
        )
        for place, arm_id in enumerate(ids)
    ]


def _worth(sums: Sums, discount: float, at_ms: int) -> float:
    return sums.decayed(max(at_ms, sums.as_of_ms), discount).weight


def _coefficients(model: ArmModel, lessons: Lessons) -> list[CoefficientView]:
    columns = ("intercept",) if lessons.encoder is None else lessons.encoder.columns
    low, high = model.interval(_LEVEL)
    found = zip(columns, model.mean.tolist(), low.tolist(), high.tolist(), strict=True)
    return [
        CoefficientView(column=column, mean=mean, low=low, high=high) for column, mean, low, high in found
    ]


def _segments(account: Account, shares: Array | None) -> Iterator[SegmentView]:
    encoder, route = account.lessons.encoder, account.route
    if shares is None or encoder is None:
        return
    names = {arm_id: name for name, arm_id in route.arm_ids.items()}
    arms = [names[arm_id] for arm_id in serving_ids(route)]
    contexts = [encoder.read(context) for context in account.contexts]
    features = {feature.name: feature for feature in encoder.features}
    for name in route.spec.segments:
        for value, places in _places(features[name], contexts).items():
            means = dict(zip(arms, shares[places].mean(axis=0).tolist(), strict=True))
            yield SegmentView(feature=name, value=value, n=len(places), shares=means)


def _places(feature: Feature, contexts: Sequence[Mapping[str, Value]]) -> dict[bool | str | None, list[int]]:
    """Which of the contexts have which value: declared ones, in order; others together; none at all."""
    found: dict[bool | str | None, list[int]] = defaultdict(list)
    for place, context in enumerate(contexts):
        found[_segment(feature, context.get(feature.name, feature.default))].append(place)
    order = (*feature.values, _OTHER, False, True, None)
    return {value: found[value] for value in order if value in found}


def _segment(feature: Feature, value: Value | None) -> bool | str | None:
    if value is None or isinstance(value, bool):
        return value
    return str(value) if value in feature.values else _OTHER


def _apprentice(totals: Apprentice) -> ApprenticeView:
    return ApprenticeView(
        decisions=totals.decisions,
        agreement=totals.agreement / totals.decisions if totals.decisions else None,
        earned=totals.earned,
        actual=totals.actual,
        share_of_reward=totals.earned / totals.actual if totals.actual > 0 else None,
    )
