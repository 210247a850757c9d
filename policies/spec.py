"""What an operator declares: a route, its arms, its metrics, and the rule by which a challenger is promoted.

Built from the wire by the control plane; `problems` then names everything in it that cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from urllib.parse import SplitResult, urlsplit

from policies.bandits import BanditSpec, bandit_problems
from policies.bounds import duplicates, in_open_unit, in_range
from policies.days import CALENDAR_DAY_MS, MINIMUM_DAY_MS
from policies.errors import BadSpec
from policies.metrics import ERROR, GATEWAY_METRICS, Metric
from policies.types import Aggregate, Kind
from policies.upstreams import HOST, tls_problems, upstream_problems
from routing.addresses import DEFAULT, SOCKET_BYTES, host_refusal, socket_path
from routing.context import problems_of as context_problems
from routing.errors import BadWeights
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.types import TOTAL_BP, ArmHeader, Match, Prediction, Role, Tls, Upstream
from routing.weights import check_weights

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SCHEMES = ("http", "https", "http+unix")
_USER_INFO = re.compile(r"//[^/?#]*@")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_SEPARATOR = r"(?:[/\\]|%2f|%5c)"
_DOT_SEGMENT = re.compile(rf"{_SEPARATOR}(?:\.|%2e){{1,2}}(?:{_SEPARATOR}|;|%3b|$)", re.IGNORECASE)
_ODD_ENCODING = re.compile(
    r"%(?![0-9a-f]{2})|%(2[de]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])", re.IGNORECASE
)
"""What no caller sends: % that encodes nothing, or a letter, digit or one of -._~ that needs no encoding."""
_MAX_PREDICTIONS = 32
_SEGMENT_TYPES = (FeatureType.CATEGORICAL, FeatureType.BOOLEAN)
_OWN_HEADERS = {
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
_WAY_HEADERS = {"baggage", "forwarded", "traceparent", "tracestate", "via", "x-real-ip"}
"""Fields that say where a request has been, as those do whose names begin with `x-forwarded-`."""
_RESERVED_PREFIXES = (
    "/v1/decide",
    "/v1/outcomes",
    "/v1/exposures",
    "/ofrep/v1",
    "/healthz",
    "/readyz",
    "/metrics",
)


class Advance(StrEnum):
    """What a ramp step before the last needs: that the streak goes on, or only health."""

    WINNING = "winning"
    HEALTHY = "healthy"


class Approval(StrEnum):
    """Whether a step that was earned is taken at once or waits for a person."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A binary metric that may veto: a relative worsening beyond the limit rolls back at once."""

    metric: str = ERROR
    max_relative_increase: float = 0.10
    confidence: float = 0.99
    min_events: int = 50


@dataclass(frozen=True, slots=True)
class Policy:
    """The promotion policy, with the defaults of the documentation. Times in ms, shares in basis points."""

    goal: str | None = None
    confidence: float = 0.975
    winning_days: int = 3
    minimum_days: int = 7
    horizon_days: int = 30
    losing_days: int = 1
    losing_confidence: float = 0.99
    max_expected_loss: float = 0.005
    minimum_effect: float = 0.0
    min_samples: int = 100
    min_conversions: int = 100
    guardrails: tuple[Guardrail, ...] = (Guardrail(),)
    ramp_bp: tuple[int, ...] = (TOTAL_BP,)
    advance: Advance = Advance.WINNING
    bake_ms: int = 0
    approval: Approval = Approval.AUTOMATIC
    day_length_ms: int = CALENDAR_DAY_MS
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm as declared. `sample_bp` is how much of the traffic a shadow arm is sent a copy of."""

    name: str
    url: str
    role: Role = Role.CHALLENGER
    labels: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[ArmHeader, ...] = ()
    sample_bp: int = TOTAL_BP
    tls: Tls | None = None

    @property
    def answers(self) -> bool:
        """Whether it can be given traffic: a shadow arm answers nobody, and a retired one is gone."""
        return self.role in (Role.CHAMPION, Role.CHALLENGER)


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """A route as declared. `weights` is arm name → basis points, of arms that answer.

    Where there is a `bandit` it divides the traffic, and the weights are the champion's. `segments` names the
    features by which the route is also looked at value by value. `first_arm_ms`: how long a unit keeps the
    first arm that it got; None: its arm is by its hash alone.
    """

    name: str
    arms: tuple[ArmSpec, ...]
    weights: Mapping[str, int]
    match: Match
    unit: Source | None = None
    context: tuple[Feature, ...] = ()
    segments: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    policy: Policy = field(default_factory=Policy)
    upstream: Upstream = field(default_factory=Upstream)
    allow_force: bool = False
    bandit: BanditSpec | None = None
    first_arm_ms: int | None = None

    def metric(self, name: str) -> Metric | None:
        """The declared metric with this name."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @property
    def goal(self) -> Metric | None:
        """The metric that promotion is judged on: the policy's, or else the first declared."""
        if self.policy.goal is not None:
            return self.metric(self.policy.goal)
        return self.metrics[0] if self.metrics else None

    @property
    def champion(self) -> ArmSpec:
        """The one arm declared champion."""
        return next(arm for arm in self.arms if arm.role is Role.CHAMPION)


def problems(spec: RouteSpec) -> list[BadSpec]:
    """Everything in a declaration that cannot be; empty when it can. Fields are named as on the wire."""
    return [
        *_name_problems("route", spec.name),
        *_match_problems(spec.match),
        *_unit_problems(spec.unit),
        *_stickiness_problems(spec),
        *_context_problems(spec.context),
        *_segments_problems(spec),
        *_arms_problems(spec.arms),
        *_split_problems(spec),
        *_bandit_problems(spec),
        *_metrics_problems(spec.metrics),
        *_predictions_problems(spec.predictions),
        *_policy_problems(spec),
        *upstream_problems(spec.upstream),
    ]


def arm_problems(arm: ArmSpec, where: str) -> list[BadSpec]:
    """Everything in one arm that cannot be; `where` is its field on the wire."""
    return [
        *_name_problems(f"{where}.name", arm.name),
        *_url_problems(f"{where}.url", arm.url),
        *_headers_problems(f"{where}.headers", arm.headers),
        *_sample_problems(f"{where}.sample", arm),
        *(tls_problems(f"{where}.tls", arm.tls, arm.url) if arm.tls is not None else ()),
    ]


def _name_problems(where: str, name: str) -> Iterator[BadSpec]:
    if not NAME.fullmatch(name):
        yield BadSpec(where, f"must match {NAME.pattern}, got {name!r}")


def _match_problems(match: Match) -> Iterator[BadSpec]:
    if match.path_prefix is None and match.host is None:
        yield BadSpec("match", "must name path_prefix, host or both, got neither")
    if match.host is not None and not HOST.fullmatch(match.host):
        yield BadSpec("match.host", f"must be a host name or address without a port, got {match.host!r}")
    prefix = match.path_prefix
    if prefix is None:
        return
    if not _PATH.fullmatch(prefix) or "//" in prefix or _DOT_SEGMENT.search(prefix):
        bound = "must be a path that starts with /, in ASCII, without empty or dot segments"
        yield BadSpec("match.path_prefix", f"{bound}, got {prefix!r}")
    elif (odd := _ODD_ENCODING.search(prefix)) is not None:
        bound = "must percent-encode nothing but what needs it, by two hexadecimal digits"
        yield BadSpec("match.path_prefix", f"{bound}, got {odd.group()!r} in {prefix!r}")
    bare = prefix.rstrip("/")
    if any(bare == reserved or bare.startswith(reserved + "/") for reserved in _RESERVED_PREFIXES):
        reserved = ", ".join(_RESERVED_PREFIXES)
        yield BadSpec("match.path_prefix", f"must not be reserved ({reserved}), got {prefix!r}")


def _unit_problems(unit: Source | None) -> Iterator[BadSpec]:
    if unit is None:
        return
    where = f"unit.{unit.kind.value}"
    if unit.kind is SourceKind.JSON and not _POINTER.fullmatch(unit.name):
        yield BadSpec(where, f"must be a JSON pointer such as /user/id, got {unit.name!r}")
    if unit.kind in (SourceKind.HEADER, SourceKind.COOKIE) and not _TOKEN.fullmatch(unit.name):
        yield BadSpec(where, f"must be the name of a {unit.kind.value}, got {unit.name!r}")


def _context_problems(features: Sequence[Feature]) -> Iterator[BadSpec]:
    for place, message in context_problems(features):
        yield BadSpec(f"context.{place}" if place else "context", message)


def _segments_problems(spec: RouteSpec) -> Iterator[BadSpec]:
    known = [feature.name for feature in spec.context if feature.type in _SEGMENT_TYPES]
    for index, name in enumerate(spec.segments):
        if name not in known:
            bound = f"must be a categorical or boolean feature of the context {known}"
            yield BadSpec(f"segments.{index}", f"{bound}, got {name!r}")
    yield from duplicates("segments", spec.segments)


def _arms_problems(arms: Sequence[ArmSpec]) -> Iterator[BadSpec]:
    for index, arm in enumerate(arms):
        yield from arm_problems(arm, f"arms.{index}")
    champions = [arm.name for arm in arms if arm.role is Role.CHAMPION]
    if len(champions) != 1:
        yield BadSpec("arms", f"must hold exactly one champion, got {len(champions)}: {champions}")
    yield from duplicates("arms", [arm.name for arm in arms])


def _url_problems(where: str, url: str) -> Iterator[BadSpec]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        yield BadSpec(where, f"is not a URL ({error}), got {_shown(url)!r}")
        return
    if parts.scheme not in SCHEMES:
        *some, last = SCHEMES
        scheme = parts.scheme or "none"
        bound = f"must have scheme {', '.join(some)} or {last}"
        yield BadSpec(where, f"{bound}, got {scheme!r} in {_shown(url)!r}")
    if parts.username or parts.password or parts.fragment or not _is_plain(url):
        bound = "must be in ASCII, without credentials, a fragment or spaces"
        yield BadSpec(where, f"{bound}, got host {parts.hostname!r}")
    if _DOT_SEGMENT.search(parts.path):
        yield BadSpec(where, f"must have a path without dot segments, got {parts.path!r}")
    if parts.scheme == "http+unix":
        yield from _socket_problems(where, url, parts)
    elif not parts.hostname or port == 0:
        yield BadSpec(where, f"must name a host and a port above 0, got {_shown(url)!r}")
    elif (refusal := host_refusal(parts.hostname)) is not None:
        yield BadSpec(where, refusal)


def _socket_problems(where: str, url: str, parts: SplitResult) -> Iterator[BadSpec]:
    """The path stands in the place of the host, percent-encoded: the path of the request follows it."""
    path = socket_path(parts.netloc)
    if path is None:
        bound = f"must name a Unix socket by its whole path of at most {SOCKET_BYTES} bytes, percent-encoded"
        yield BadSpec(where, f"{bound}, as in http+unix://%2Frun%2Fmodel.sock/score, got {_shown(url)!r}")
    elif (refusal := DEFAULT.socket_refusal(path)) is not None:
        yield BadSpec(where, refusal)


def _shown(url: str) -> str:
    """The URL as a message may repeat it: without credentials."""
    return _USER_INFO.sub("//…@", url)


def _headers_problems(where: str, headers: Sequence[ArmHeader]) -> Iterator[BadSpec]:
    """A literal value may be a secret all the same, so none is repeated."""
    known: dict[str, str] = {}
    for header in headers:
        name = header.name
        key = name.lower().replace("_", "-")  # as some servers read it
        if not _TOKEN.fullmatch(name):
            yield BadSpec(where, f"must be named by field names, got {name!r}")
        if key in _OWN_HEADERS or key in _WAY_HEADERS or key.startswith(("kingmaker-", "x-forwarded-")):
            yield BadSpec(f"{where}.{name}", f"must not be a header that the gateway sets itself, got {key}")
        if (other := known.setdefault(key, name)) is not name:
            bound = "must differ from the others in more than case and _ for -"
            yield BadSpec(f"{where}.{name}", f"{bound}, got {other!r} as well")
        if header.env is not None and not _VARIABLE.fullmatch(header.env):
            yield BadSpec(f"{where}.{name}.env", f"must be the name of a variable, got {header.env!r}")
        if header.value is not None and not _FIELD_VALUE.fullmatch(header.value):
            yield BadSpec(f"{where}.{name}", "must be printable characters on one line")


def _sample_problems(where: str, arm: ArmSpec) -> Iterator[BadSpec]:
    share = arm.sample_bp / TOTAL_BP
    yield from in_range(where, share, 1 / TOTAL_BP, 1)
    if arm.role is not Role.SHADOW and arm.sample_bp != TOTAL_BP:
        yield BadSpec(where, f"must be left out for an arm that is no shadow, got {share} for a {arm.role}")


def _is_plain(url: str) -> bool:
    return all("!" <= character <= "~" for character in url)


def _stickiness_problems(spec: RouteSpec) -> Iterator[BadSpec]:
    if spec.first_arm_ms is None:
        return
    if spec.unit is None:
        bound = "must be hash for a route without a unit: each request is its own, and has no first arm"
        yield BadSpec("stickiness.mode", f"{bound}, got 'first_arm'")
    yield from in_range("stickiness.keep", spec.first_arm_ms, 1_000, 365 * CALENDAR_DAY_MS, " ms")


def _split_problems(spec: RouteSpec) -> Iterator[BadSpec]:
    live = [arm.name for arm in spec.arms if arm.role is not Role.RETIRED]
    for arm in spec.arms:
        if arm.role is Role.SHADOW and arm.name in spec.weights:
            bound = "must be 0 or absent for a shadow arm, which answers nobody"
            yield BadSpec(f"split.weights.{arm.name}", f"{bound}, got {spec.weights[arm.name]}")
    try:
        check_weights(spec.weights, live)
    except BadWeights as error:
        yield BadSpec("split.weights", f"cannot be: {error}")


def _bandit_problems(spec: RouteSpec) -> Iterator[BadSpec]:
    if spec.bandit is not None:
        answering = [arm.name for arm in spec.arms if arm.answers]
        yield from bandit_problems(spec.bandit, answering, spec.metrics)


def _metrics_problems(metrics: Sequence[Metric]) -> Iterator[BadSpec]:
    for index, metric in enumerate(metrics):
        where = f"metrics.{index}"
        yield from _name_problems(f"{where}.name", metric.name)
        if metric.name in GATEWAY_METRICS:
            yield BadSpec(f"{where}.name", f"must not be one that the gateway supplies, got {metric.name!r}")
        if metric.kind not in (Kind.BINARY, Kind.CONTINUOUS):
            yield BadSpec(f"{where}.kind", f"must be binary or continuous, got {metric.kind.value!r}")
        if metric.kind is Kind.BINARY and metric.aggregate is Aggregate.SUM:
            yield BadSpec(f"{where}.aggregate", "must not be sum for a binary metric, got 'sum'")
        yield from in_range(f"{where}.window", metric.window_ms, 1, 90 * CALENDAR_DAY_MS, " ms")
    yield from duplicates("metrics", [metric.name for metric in metrics])


def _predictions_problems(predictions: Sequence[Prediction]) -> Iterator[BadSpec]:
    for index, prediction in enumerate(predictions):
        where = f"predictions.{index}"
        yield from _name_problems(f"{where}.name", prediction.name)
        if not _POINTER.fullmatch(prediction.pointer):
            bound = "must be a JSON pointer such as /score"
            yield BadSpec(f"{where}.from.response", f"{bound}, got {prediction.pointer!r}")
    if (count := len(predictions)) > _MAX_PREDICTIONS:
        yield BadSpec("predictions", f"must be at most {_MAX_PREDICTIONS}, got {count}")
    yield from duplicates("predictions", [prediction.name for prediction in predictions])


def _policy_problems(spec: RouteSpec) -> Iterator[BadSpec]:
    policy = spec.policy
    known = [metric.name for metric in spec.metrics]
    if policy.goal is not None and policy.goal not in known:
        yield BadSpec("policy.goal", f"must be one of the route's metrics {known}, got {policy.goal!r}")
    for index, guardrail in enumerate(policy.guardrails):
        yield from _guardrail_problems(f"policy.guardrails.{index}", guardrail, spec)
    for name in ("confidence", "losing_confidence"):
        yield from in_open_unit(f"policy.{name}", getattr(policy, name))
    for name in ("winning_days", "minimum_days", "horizon_days", "losing_days", "min_samples"):
        yield from in_range(f"policy.{name}", getattr(policy, name), 1, 10**9)
    yield from in_range("policy.min_conversions", policy.min_conversions, 0, 10**9)
    for name in ("max_expected_loss", "minimum_effect"):
        yield from in_range(f"policy.{name}", getattr(policy, name), 0, 10)
    yield from _day_problems(policy)
    yield from _ramp_problems(policy.ramp_bp)


def _day_problems(policy: Policy) -> Iterator[BadSpec]:
    yield from in_range("policy.bake", policy.bake_ms, 0, 365 * CALENDAR_DAY_MS, " ms")
    yield from in_range("policy.day.length", policy.day_length_ms, MINIMUM_DAY_MS, CALENDAR_DAY_MS, " ms")
    for name in ("minimum_days", "winning_days"):
        if policy.horizon_days < (least := getattr(policy, name)):
            yield BadSpec(
                "policy.horizon_days", f"must be at least {name} {least}, got {policy.horizon_days}"
            )


def _guardrail_problems(where: str, guardrail: Guardrail, spec: RouteSpec) -> Iterator[BadSpec]:
    binary = [ERROR, *(metric.name for metric in spec.metrics if metric.kind is Kind.BINARY)]
    if guardrail.metric not in binary:
        bound = f"must be a binary metric of the route {binary}"
        yield BadSpec(f"{where}.metric", f"{bound}, got {guardrail.metric!r}")
    yield from in_range(f"{where}.max_relative_increase", guardrail.max_relative_increase, 0, 100)
    yield from in_open_unit(f"{where}.confidence", guardrail.confidence)
    yield from in_range(f"{where}.min_events", guardrail.min_events, 1, 10**9)


def _ramp_problems(ramp_bp: Sequence[int]) -> Iterator[BadSpec]:
    rising = all(low < high for low, high in pairwise((0, *ramp_bp)))
    if not rising or not ramp_bp or ramp_bp[-1] != TOTAL_BP:
        yield BadSpec("policy.ramp", f"must rise from above 0 and end at {TOTAL_BP}, got {list(ramp_bp)}")
