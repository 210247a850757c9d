"""The facts a gateway worker routes by: routes, arms, shares. All frozen, checked when built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property

import msgspec

from routing.bandit import BanditTerms
from routing.errors import BadSnapshot
from routing.features import Feature, Source
from routing.rules import Override

TOTAL_BP = 10_000
"""Traffic shares are integers in basis points: 10,000 bp = 100 %."""

SALT_BYTES = 64
"""The longest salt, which is the longest key of BLAKE2b."""


class Role(StrEnum):
    """What an arm is to its route."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"
    RETIRED = "retired"


SERVING = (Role.CHAMPION, Role.CHALLENGER)
"""The roles of arms that answer callers."""


class Reason(StrEnum):
    """Why an arm was chosen. Every decision carries one."""

    STATIC = "STATIC"
    SPLIT = "SPLIT"
    BANDIT = "BANDIT"
    OVERRIDE = "OVERRIDE"
    FORCED = "FORCED"
    KILL_SWITCH = "KILL_SWITCH"
    FALLBACK = "FALLBACK"
    DEFAULT = "DEFAULT"


DRAWN = (Reason.SPLIT, Reason.BANDIT)
"""The reasons of decisions whose arm was drawn."""


class ArmHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A request header an arm is sent: a literal value, or the name of an environment variable."""

    name: str
    value: str | None = None
    env: str | None = None


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How an https arm is verified and what it is shown: paths of PEM files on the gateway's machine."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A registered model endpoint under a route. `id` is numeric and never reused.

    `sample_bp` is how much of the route's traffic a shadow arm is sent a copy of.
    """

    id: int
    name: str
    url: str
    role: Role
    headers: tuple[ArmHeader, ...] = ()
    sample_bp: int = TOTAL_BP
    tls: Tls | None = None


class Ejection(msgspec.Struct, frozen=True, kw_only=True):
    """When a worker stops asking a challenger that fails, and for how long.

    It is ejected after so many failures in a row, or when so many percent of the requests of the last
    `interval_ms` failed and there were at least `minimum_requests`. Each ejection in a row is longer by
    `base_ms`, up to `longest_ms`.
    """

    consecutive_failures: int = 5
    failure_percent: int = 50
    minimum_requests: int = 20
    interval_ms: int = 10_000
    base_ms: int = 10_000
    longest_ms: int = 300_000


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker asks an arm whether it is well: GET `path`; 2xx within `timeout_ms` is a yes."""

    path: str
    interval_ms: int = 5_000
    timeout_ms: int = 1_000
    failures: int = 3
    successes: int = 2


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """How a route's arms are called. Limits are per arm and worker.

    `max_waiting` requests may wait for one of `max_connections`; more are shed. `retry_percent` bounds what
    retries and hedges may add to the load. `hedge_ms`: after that long without an answer an idempotent
    request is sent once more to the same arm; None: never.
    """

    timeout_ms: int = 2_000
    connect_timeout_ms: int = 250
    max_connections: int = 512
    max_waiting: int = 1_024
    fallback: bool = True
    retry_percent: int = 10
    hedge_ms: int | None = None
    ejection: Ejection = msgspec.field(default_factory=Ejection)
    health_check: HealthCheck | None = None


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """A field of the arms' JSON answers that is compared and watched; `pointer` is an RFC 6901 pointer."""

    name: str
    pointer: str
    numeric: bool


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests belong to a route: a path prefix (at a segment boundary), a host, or both."""

    path_prefix: str | None = None
    host: str | None = None


class MetricRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker must know to accept an outcome of a metric."""

    name: str
    kind: str
    window_ms: int


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A half-open range [start_bp, end_bp) of the 10,000 buckets, answered by one arm."""

    arm_id: int
    start_bp: int
    end_bp: int


class Choice(msgspec.Struct, frozen=True, gc=False):
    """An arm, why it was chosen, how likely that was. `probabilities`: arm id → bp; they sum to 10,000."""

    arm: Arm
    reason: Reason
    propensity_bp: int
    probabilities: Mapping[int, int]


def certain(arm: Arm, reason: Reason) -> Choice:
    """The choice of an arm that could have been no other."""
    return Choice(arm, reason, TOTAL_BP, {arm.id: TOTAL_BP})


class Route(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A public name, the arms behind it, and how unpinned traffic is divided among them.

    What every request asks of it is worked out once, when it is first asked. `first_arm_ms`: how long a unit
    keeps the first arm that it got; None: its arm is by its hash alone.

    Raises:
        BadSnapshot: there is not exactly one champion, the shares do not cover [0, 10,000), or the salt is
            not 1 to 64 bytes of UTF-8.
    """

    id: int
    name: str
    match: Match
    arms: tuple[Arm, ...]
    shares: tuple[Share, ...]
    salt: str
    epoch: int
    unit: Source | None = None
    context: tuple[Feature, ...] = ()
    overrides: tuple[Override, ...] = ()
    bandit: BanditTerms | None = None
    metrics: tuple[MetricRule, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    upstream: Upstream = msgspec.field(default_factory=Upstream)
    allow_force: bool = False
    kill_switch: bool = False
    first_arm_ms: int | None = None

    def __post_init__(self) -> None:
        champions = [arm.name for arm in self.arms if arm.role is Role.CHAMPION]
        if len(champions) != 1:
            raise BadSnapshot(f"route {self.name}: arms must hold exactly one champion, got {champions}")
        if not 1 <= (size := len(self.salt.encode())) <= SALT_BYTES:
            raise BadSnapshot(f"route {self.name}: salt must be 1 to {SALT_BYTES} bytes long, got {size}")
        self._check_shares()

    def _check_shares(self) -> None:
        known = {arm.id for arm in self.arms}
        end = 0
        for share in self.shares:
            if share.arm_id not in known:
                raise BadSnapshot(f"route {self.name}: share of unknown arm id {share.arm_id}")
            if share.start_bp != end or share.end_bp <= share.start_bp:
                raise BadSnapshot(f"route {self.name}: shares must be adjoining, got {share} after {end}")
            end = share.end_bp
        if end != TOTAL_BP:
            raise BadSnapshot(f"route {self.name}: shares must cover {TOTAL_BP} bp, got {end}")

    @cached_property
    def champion(self) -> Arm:
        """The one arm with the role champion."""
        return next(arm for arm in self.arms if arm.role is Role.CHAMPION)

    @cached_property
    def probabilities(self) -> dict[int, int]:
        """Basis points per arm id, of the arms that have any."""
        return probabilities(self.shares)

    @cached_property
    def ends(self) -> list[int]:
        """Where each share ends, in basis points."""
        return [share.end_bp for share in self.shares]

    @cached_property
    def choices(self) -> list[Choice]:
        """What the split chooses in each share: its arm, or the champion where that one serves nobody."""
        arms = {arm.id: arm for arm in self.arms}
        return [self._choice(arms[share.arm_id]) for share in self.shares]

    def arm_named(self, name: str) -> Arm | None:
        """The arm with this name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def _choice(self, arm: Arm) -> Choice:
        if arm.role not in SERVING:
            return certain(self.champion, Reason.DEFAULT)
        if len(self.probabilities) == 1:
            return certain(arm, Reason.STATIC)
        return Choice(arm, Reason.SPLIT, self.probabilities[arm.id], self.probabilities)

    def metric(self, name: str) -> MetricRule | None:
        """The metric with this name, if the route declares it."""
        return next((metric for metric in self.metrics if metric.name == name), None)


def probabilities(shares: Sequence[Share]) -> dict[int, int]:
    """Basis points per arm id, of the arms that have any."""
    totals: dict[int, int] = {}
    for share in shares:
        totals[share.arm_id] = totals.get(share.arm_id, 0) + share.end_bp - share.start_bp
    return totals
