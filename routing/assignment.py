"""Which arm answers this request, why, and with what probability? Never fails: in doubt, the champion.

Precedence: kill switch, forced arm, override, first arm, split. The first arm is one that a unit keeps; the
split is by weights, or by a bandit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from routing.bandit import BanditTerms
from routing.bucketing import bucket, unit_hash
from routing.claims import id_of
from routing.conditions import Subject
from routing.context import Encoder
from routing.errors import BadModel, RoutingError
from routing.features import Value
from routing.first_arm import FirstArm
from routing.learning import bandit_of
from routing.overrides import Rules
from routing.rules import Override
from routing.thompson import Bandit
from routing.types import DRAWN, SALT_BYTES, SERVING, TOTAL_BP, Arm, Choice, Reason, Route, certain

_NO_CONTEXT = np.ones(1)


class Assignment(Choice, frozen=True, gc=False):
    """A choice for one unit, or for a request of its own. `override_id`: of the override that pinned it.

    `considered_bp`: with which probability a bandit that is an apprentice would have chosen the arm. `first`:
    where the unit keeps the arm of an earlier decision; reason and probabilities are of that one.
    """

    unit_hash: int
    has_unit: bool
    override_id: int | None = None
    considered_bp: int | None = None
    first: FirstArm | None = None


class Asked:
    """A unit, or a request of its own, for which an arm is to be chosen.

    `at_ms` (Unix ms) and `nonce` (64 random bits) make the decision's id, which draws the arm where a bandit
    chooses. `entropy` are 64 more, which draw it by weights where there is no unit. `forced` is the name of
    the arm that the caller asked for. `subject` is what overrides look at; without one, none holds.
    `first` is the arm that the unit got first, where that is kept and known.
    """

    __slots__ = ("at_ms", "context", "entropy", "first", "forced", "nonce", "subject", "unit")

    def __init__(
        self,
        unit: str | None,
        entropy: int,
        forced: str | None = None,
        at_ms: int = 0,
        nonce: int = 0,
        subject: Subject | None = None,
        context: Mapping[str, Value] | None = None,
        first: FirstArm | None = None,
    ) -> None:
        self.first = first
        self.unit = unit
        self.entropy = entropy
        self.forced = forced
        self.at_ms = at_ms
        self.nonce = nonce
        self.subject = subject
        self.context = context


class Plan:
    """How one route chooses arms, worked out once per snapshot. `encoder` is None without a context.

    From the plan `before` it takes over what is costly to work out and has not changed: rules, and bandit.
    `fault` says why the route's bandit cannot choose; then the champion answers what is not pinned.
    `is_plain`: weights divide all that is not forced, so neither context nor subject is asked for.
    `keepable` are the ids of the arms that a unit may keep; none where it does not, or there is no choice.
    """

    __slots__ = (
        "_choices",
        "_ends",
        "_is_killed",
        "_salt",
        "_serving",
        "bandit",
        "encoder",
        "fault",
        "is_plain",
        "keepable",
        "pinning",
        "route",
        "rules",
    )

    def __init__(self, route: Route, before: Plan | None = None) -> None:
        self.route = route
        self._serving = {arm.id: arm for arm in route.arms if arm.role in SERVING}
        pinning = tuple(override for override in route.overrides if override.arm_id in self._serving)
        self.pinning: tuple[Override, ...] = pinning
        is_same = before is not None and before.pinning == pinning
        self.rules: Rules | None = before.rules if before is not None and is_same else _rules(pinning)
        self.encoder = Encoder(route.context) if route.context else None
        has_rules = self.rules is not None or self.encoder is not None or route.bandit is not None
        self.is_plain = not has_rules and route.first_arm_ms is None
        self._is_killed = route.kill_switch
        self._salt = route.salt
        self._ends = route.ends
        self._choices = route.choices
        self.bandit: Bandit | None = None
        self.fault: str | None = None
        if route.bandit is not None and before is not None and self._learnt_the_same(before):
            self.bandit, self.fault = before.bandit, before.fault
        elif route.bandit is not None:
            try:
                self.bandit = self._bandit(route.bandit)
            except (RoutingError, ValueError, ArithmeticError) as error:
                self.fault = str(error)
        self.keepable = self._keepable()

    def assign(self, asked: Asked) -> Assignment:
        """The arm, by the first of these that applies: kill switch, forced arm, override, first arm, split.

        A forced arm that is unknown, not allowed, or serves nobody is ignored, as is an override of such an
        arm. Anything wrong in the split, or with the bandit, ends in the champion with reason DEFAULT.

        Raises:
            BadModel: the bandit cannot make anything of the context.
        """
        route, unit = self.route, asked.unit
        hash64 = asked.entropy if unit is None else unit_hash(self._salt, unit)
        if self._is_killed:
            return _assignment(certain(route.champion, Reason.KILL_SWITCH), hash64, asked)
        if asked.forced is not None and (arm := self._forced(asked.forced)) is not None:
            return _assignment(certain(arm, Reason.FORCED), hash64, asked)
        if self.is_plain:
            return _assignment(self._choices[bisect_right(self._ends, bucket(hash64))], hash64, asked)
        if self.rules is not None and (override := self._override(self.rules, asked)) is not None:
            pinned = certain(self._serving[override.arm_id], Reason.OVERRIDE)
            return _assignment(pinned, hash64, asked, override.id)
        if asked.first is not None and self.keeps(asked.first):
            return self._kept(asked.first, hash64, asked)
        if route.bandit is not None:
            return self._learnt(route.bandit.is_apprentice, hash64, asked)
        return _assignment(self._choices[bisect_right(self._ends, self.bucket_of(asked))], hash64, asked)

    def bucket_of(self, asked: Asked) -> int:
        """In which basis-point bucket, 0 to 9,999, a unit falls, or a request of its own.

        A unit that does not keep its first arm any more is drawn for by a hash that has nothing to do with
        the one before: else all who had one arm would go to the same other one, and be compared with new
        units.
        """
        unit, first = asked.unit, asked.first
        if unit is None:
            return bucket(asked.entropy)
        if first is not None and self.keepable:
            return bucket(unit_hash(f"{first.epoch}:{first.arm_id}:{self._salt}"[:SALT_BYTES], unit))
        return bucket(unit_hash(self._salt, unit))

    def keeps(self, first: FirstArm) -> bool:
        """Whether a unit keeps the arm that it got first.

        It does while the arm has a share, unless another one was promoted since: then it is drawn for anew.
        """
        return first.arm_id in self.keepable and self.route.champion.id in (first.champion_id, first.arm_id)

    def first_of(self, assignment: Assignment, at_ms: int) -> FirstArm | None:
        """What a unit is to keep of an assignment at `at_ms` (Unix ms), if that was drawn for it just now."""
        reason = assignment.reason
        if not (reason in DRAWN and assignment.has_unit and self.keepable) or assignment.first is not None:
            return None
        route, shares = self.route, dict(assignment.probabilities)
        return FirstArm(assignment.arm.id, route.champion.id, reason, route.epoch, at_ms, shares)

    def _keepable(self) -> frozenset[int]:
        route = self.route
        if route.first_arm_ms is None:
            return frozenset()
        ids = [arm_id for arm_id in route.probabilities if arm_id in self._serving]
        if route.bandit is not None:
            ids = [] if self.bandit is None or route.bandit.is_apprentice else list(self.bandit.terms.arm_ids)
        return frozenset(ids) if len(ids) > 1 else frozenset()

    def _kept(self, first: FirstArm, hash64: int, asked: Asked) -> Assignment:
        arm = self._serving[first.arm_id]
        choice = Choice(arm, first.reason, first.propensity_bp, first.probabilities)
        return _assignment(choice, hash64, asked, first=first)

    def _learnt(self, is_apprentice: bool, hash64: int, asked: Asked) -> Assignment:
        """What the bandit chooses, or an apprentice would have."""
        bandit, champion = self.bandit, self.route.champion
        if bandit is None:
            return _assignment(certain(champion, Reason.DEFAULT), hash64, asked)
        x = _NO_CONTEXT if self.encoder is None else self.encoder.encode(asked.context or {})
        shares = bandit.shares(x)
        ids = bandit.terms.arm_ids
        if is_apprentice:
            share = shares[ids.index(champion.id)]
            return _assignment(certain(champion, Reason.STATIC), hash64, asked, considered_bp=share)
        if len(ids) == 1:
            return _assignment(certain(champion, Reason.STATIC), hash64, asked)
        place = _place(shares, bucket(unit_hash(self._salt, id_of(asked.at_ms, asked.nonce))))
        probabilities = {arm_id: share for arm_id, share in zip(ids, shares, strict=True) if share}
        choice = Choice(self._serving[ids[place]], Reason.BANDIT, shares[place], probabilities)
        return _assignment(choice, hash64, asked)

    def _learnt_the_same(self, before: Plan) -> bool:
        """Whether the bandit of another plan is this one's: to check what was learnt is costly."""
        now, then = self.route, before.route
        same_arms = list(self._serving) == list(before._serving)
        return same_arms and now.bandit == then.bandit and now.context == then.context

    def _bandit(self, terms: BanditTerms) -> Bandit:
        version, width = (0, 1) if self.encoder is None else (self.encoder.version, self.encoder.width)
        return bandit_of(terms, list(self._serving), version, width)

    def _forced(self, name: str) -> Arm | None:
        if not self.route.allow_force:
            return None
        return next((arm for arm in self._serving.values() if arm.name == name), None)

    def _override(self, rules: Rules, asked: Asked) -> Override | None:
        if asked.subject is None:
            return None
        return rules.find(asked.subject, asked.at_ms, Draw(asked))


class Draw:
    """In which basis-point bucket is somebody under an override's own salt?"""

    __slots__ = ("_asked",)

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def __call__(self, override: Override) -> int:
        """0 to 9,999: by the unit, or for a request of its own by its random bits."""
        asked = self._asked
        unit = asked.unit if asked.unit is not None else f"{asked.entropy:016x}"
        return bucket(unit_hash(f"override:{override.id}", unit))


def default(route: Route, asked: Asked) -> Assignment:
    """What is left when assignment fails: the champion."""
    hash64 = asked.entropy if asked.unit is None else unit_hash(route.salt, asked.unit)
    return _assignment(certain(route.champion, Reason.DEFAULT), hash64, asked)


def _rules(overrides: tuple[Override, ...]) -> Rules | None:
    return Rules(overrides) if overrides else None


def _place(shares: tuple[int, ...], drawn: int) -> int:
    """In whose share a basis-point bucket, 0 to 9,999, falls."""
    end = 0
    for place, share in enumerate(shares):
        end += share
        if drawn < end:
            return place
    raise BadModel(f"shares must sum to {TOTAL_BP}, got {shares}")


def _assignment(
    choice: Choice,
    hash64: int,
    asked: Asked,
    override_id: int | None = None,
    considered_bp: int | None = None,
    first: FirstArm | None = None,
) -> Assignment:
    return Assignment(
        choice.arm,
        choice.reason,
        choice.propensity_bp,
        choice.probabilities,
        hash64,
        asked.unit is not None,
        override_id,
        considered_bp,
        first,
    )
