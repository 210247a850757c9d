"""What a route looks like on the wire and in a file. Unknown fields are refused, nothing is repaired."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    ValidationInfo,
)
from pydantic import field_validator as _field_validator
from pydantic import model_validator as _model_validator

from app.control import examples
from app.durations import parse_duration
from policies.metrics import Metric
from policies.spec import Advance, Approval, Guardrail, Policy
from policies.types import Aggregate, Better, Kind, Missing
from routing.features import FeatureType, Outside
from routing.types import TOTAL_BP, Ejection, HealthCheck, Upstream

_POLICY, _GUARDRAIL, _UPSTREAM = Policy(), Guardrail(), Upstream()
_EJECTION, _HEALTH_CHECK = Ejection(), HealthCheck(path="/")
_ROUNDING = 1e-9
_BANDIT_FIELDS = ("reward", "floor", "cap", "discount", "warm_up", "apprentice")
_METRIC = Metric(name="", kind=Kind.BINARY)


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must hold something besides spaces")
    return text


def _whole_basis_points(share: float) -> float:
    if not 0 < share <= 1 or abs(share * TOTAL_BP - round(share * TOTAL_BP)) > _ROUNDING:
        raise ValueError(f"must be a share in (0, 1] of whole basis points (0.0001), got {share}")
    return share


def _instant(value: object) -> datetime:
    try:
        return datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from None


def _like(example: examples.Example) -> ConfigDict:
    """The settings of a body that is described by an example."""
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [example]})


Duration = Annotated[
    str, AfterValidator(_duration), Field(description="A number with ms, s, m, h or d.", examples=["24h"])
]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$"), AfterValidator(_said)]
Instant = Annotated[
    datetime,
    PlainValidator(_instant, json_schema_input_type=datetime),
    Field(description="RFC 3339.", examples=["2026-01-31T12:00:00Z"]),
]
Share = Annotated[StrictInt, Field(gt=0, lt=TOTAL_BP)]
Sample = Annotated[
    Number,
    AfterValidator(_whole_basis_points),
    Field(
        description="How much of the traffic a shadow arm is sent a copy of; by default all.", examples=[0.1]
    ),
]


class Document(BaseModel):
    """A part of what is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MatchDocument(Document):
    """Which requests belong to the route."""

    path_prefix: str | None = None
    host: str | None = None


class SourceDocument(Document):
    """Where something is read in a request: exactly one of these. `json` is a JSON pointer (RFC 6901)."""

    header: Text | None = None
    json_pointer: Text | None = Field(default=None, alias="json")
    cookie: Text | None = None
    query: Text | None = None

    @_model_validator(mode="after")
    def _exactly_one(self) -> SourceDocument:
        named = [name for name, value in self.model_dump(by_alias=True).items() if value is not None]
        if len(named) != 1:
            raise ValueError(f"must name exactly one of header, json, cookie, query, got {named or 'none'}")
        return self


class StickinessDocument(Document):
    """Which arm a unit gets when it comes again: that of its hash, or the first that it got.

    By hash, units move with the split, as few as can be. One that keeps its first arm has it for `keep`, as
    long as the arm has a share and nobody else is promoted.
    """

    mode: Literal["hash", "first_arm"] = "hash"
    keep: Duration | None = Field(default=None, description="By default 90d, in mode first_arm.")

    @_model_validator(mode="after")
    def _fits_its_mode(self) -> StickinessDocument:
        if self.mode == "hash" and self.keep is not None:
            raise ValueError(f"must leave out keep in mode hash, got {self.keep!r}")
        return self


class FeatureDocument(Document):
    """A feature of the context, which overrides may look at, and by which a bandit chooses."""

    name: str = Field(examples=["country"])
    source: SourceDocument = Field(alias="from")
    type: FeatureType
    values: list[str] = Field(default=[], description="A categorical's values; any other counts as other.")
    min: Number | None = Field(default=None, description="A numeric's least value.")
    max: Number | None = Field(default=None, description="A numeric's greatest value.")
    outside: Outside = Field(
        default=Outside.CLIP, description="A number outside the range is its nearest bound, or missing."
    )
    buckets: StrictInt | None = Field(
        default=None, description="Into how many a text's words, or an id, are hashed; by default 16, and 32."
    )
    default: StrictBool | Number | str | None = Field(
        default=None, description="What stands in for a missing value; by default that it is missing counts."
    )

    @_model_validator(mode="after")
    def _numeric_has_a_range(self) -> FeatureDocument:
        if self.type is FeatureType.NUMERIC and (self.min is None or self.max is None):
            raise ValueError("must name min and max for a numeric feature")
        return self


class SecretReference(Document):
    """The name of an environment variable of the gateway, which holds the value."""

    env: Text


class TlsDocument(Document):
    """How an https arm is verified and what it is shown: paths of PEM files on the gateway's machine."""

    ca: Text | None = Field(default=None, description="Whom to trust; by default the system's authorities.")
    certificate: Text | None = Field(default=None, description="A client certificate, with its chain.")
    key: Text | None = Field(default=None, description="Its key, unless that is in the same file.")
    server_name: Text | None = Field(default=None, description="The name to verify; by default the URL's.")


class ArmDocument(Document):
    """An arm: a model endpoint behind the route. Role and share are initial values.

    A shadow arm is sent copies, answers nobody, and stands in no split.
    """

    model_config = _like(examples.ARM)

    name: str = Field(examples=["gbm-v7"])
    url: str = Field(examples=["http://127.0.0.1:9002/score"])
    role: Literal["champion", "challenger", "shadow"] = "challenger"
    sample: Sample | None = None
    labels: dict[str, str] = {}
    headers: dict[str, str | SecretReference] = Field(
        default={}, description="Request headers that the arm is sent; secrets by reference."
    )
    tls: TlsDocument | None = None


class RewardDocument(Document):
    """What a decision is worth: a metric's value, or an expression over several, of which more is better."""

    metric: str | None = Field(default=None, description="Negative where less of it is better.")
    expression: Text | None = Field(default=None, examples=["revenue - 0.5 * cost"])
    default: Number = Field(
        default=0.0, description="Of a decision without an outcome when its attribution window has closed."
    )

    @_model_validator(mode="after")
    def _exactly_one(self) -> RewardDocument:
        if (self.metric is None) is (self.expression is None):
            raise ValueError("must name exactly one of metric and expression")
        return self


class SplitDocument(Document):
    """How unpinned traffic is divided: by weights, or by Thompson sampling among all arms that may answer.

    Shares are basis points; arms that weights do not name get nothing.
    """

    mode: Literal["weights", "thompson"] = "weights"
    weights: dict[str, StrictInt] | None = Field(default=None, examples=[{"logreg-v6": 9000, "gbm-v7": 1000}])
    reward: RewardDocument | None = Field(default=None, description="What a bandit maximises.")
    floor: StrictInt | None = Field(default=None, description="Each arm's least share; by default 100.")
    cap: dict[str, StrictInt] | None = Field(default=None, description="The greatest share of some arms.")
    discount: Number | None = Field(
        default=None, description="What a reward weighs after one more day; by default 1, which forgets none."
    )
    warm_up: StrictInt | None = Field(
        default=None,
        description="An arm with fewer mature rewards has a uniform share; by default 20.",
    )
    apprentice: StrictBool | None = Field(
        default=None, description="The champion answers, while the bandit learns and is compared with it."
    )

    @_field_validator("weights", mode="before")
    @classmethod
    def _weights_are_shares(cls, weights: object, info: ValidationInfo) -> object:
        if weights is None and info.data.get("mode") == "weights":
            raise ValueError("must be shares by arm, got None")
        return weights

    @_model_validator(mode="after")
    def _fits_its_mode(self) -> SplitDocument:
        needed, others = ("weights", _BANDIT_FIELDS) if self.mode == "weights" else ("reward", ("weights",))
        if getattr(self, needed) is None:
            raise ValueError(f"must name {needed} in mode {self.mode}")
        if named := [name for name in others if getattr(self, name) is not None]:
            raise ValueError(f"must leave out {', '.join(named)} in mode {self.mode}")
        return self


class MetricDocument(Document):
    """What is reported about decisions."""

    name: str = Field(examples=["conversion"])
    kind: Kind
    better: Better = _METRIC.better
    window: Duration = "24h"
    aggregate: Aggregate = _METRIC.aggregate
    missing: Missing = Field(
        default=_METRIC.missing,
        description="What a decision without an outcome means: left out (skip), or a value of 0 (zero).",
    )


class PredictionSource(Document):
    """Where in an answer a prediction is read: a JSON pointer (RFC 6901)."""

    response: Text = Field(examples=["/score"])


class PredictionDocument(Document):
    """A field of the arms' JSON answers that is compared and watched."""

    name: str = Field(examples=["score"])
    source: PredictionSource = Field(alias="from")
    type: Literal["numeric", "categorical"]


class GuardrailDocument(Document):
    """A binary metric that may veto."""

    metric: str
    max_relative_increase: Number = _GUARDRAIL.max_relative_increase
    confidence: Number = _GUARDRAIL.confidence
    min_events: StrictInt = _GUARDRAIL.min_events


class DayDocument(Document):
    """How the policy divides time. Lengths below 24 h are for demonstrations and tests."""

    length: Duration = "24h"
    timezone: str = _POLICY.timezone


class PolicyDocument(Document):
    """When a challenger is promoted, and when its traffic is taken away."""

    goal: str | None = Field(default=None, description="A metric's name; by default the first declared.")
    confidence: Number = _POLICY.confidence
    winning_days: StrictInt = _POLICY.winning_days
    minimum_days: StrictInt = _POLICY.minimum_days
    horizon_days: StrictInt = _POLICY.horizon_days
    losing_days: StrictInt = _POLICY.losing_days
    losing_confidence: Number = _POLICY.losing_confidence
    max_expected_loss: Number = _POLICY.max_expected_loss
    minimum_effect: Number = _POLICY.minimum_effect
    min_samples: StrictInt = _POLICY.min_samples
    min_conversions: StrictInt = _POLICY.min_conversions
    guardrails: list[GuardrailDocument] = [GuardrailDocument(metric=_GUARDRAIL.metric)]
    ramp: list[StrictInt] = [TOTAL_BP]
    advance: Advance = _POLICY.advance
    bake: Duration = "0s"
    approval: Approval = _POLICY.approval
    day: DayDocument = DayDocument()


class EjectionDocument(Document):
    """When a gateway worker stops asking a challenger that fails, and for how long.

    After so many failures in a row, or when so many percent of the requests of the last `interval` failed and
    there were at least `minimum_requests`. Each ejection in a row is longer by `base_time`.
    """

    consecutive_failures: StrictInt = _EJECTION.consecutive_failures
    failure_percent: StrictInt = _EJECTION.failure_percent
    minimum_requests: StrictInt = _EJECTION.minimum_requests
    interval: Duration = "10s"
    base_time: Duration = "10s"
    longest_time: Duration = "5m"


class HealthCheckDocument(Document):
    """How a gateway worker asks each arm whether it is well: GET `path`; 2xx in time is a yes."""

    path: Text = Field(examples=["/healthz"])
    interval: Duration = "5s"
    timeout: Duration = "1s"
    failures: StrictInt = Field(
        default=_HEALTH_CHECK.failures, description="So many in a row take an arm out."
    )
    successes: StrictInt = Field(
        default=_HEALTH_CHECK.successes, description="So many in a row bring it back."
    )


class UpstreamDocument(Document):
    """How the arms are called. Limits are per arm and gateway worker."""

    timeout: Duration = "2s"
    connect_timeout: Duration = "250ms"
    max_connections: StrictInt = _UPSTREAM.max_connections
    max_waiting: StrictInt = Field(
        default=_UPSTREAM.max_waiting, description="Requests that wait for a connection; more are shed."
    )
    retry_percent: StrictInt = Field(
        default=_UPSTREAM.retry_percent, description="What retries and hedges may add to the load."
    )
    hedge_after: Duration | None = Field(
        default=None, description="Send an idempotent request once more after that long; by default never."
    )
    ejection: EjectionDocument = EjectionDocument()
    health_check: HealthCheckDocument | None = None
    fallback: StrictBool = _UPSTREAM.fallback


class RouteDocument(Document):
    """A whole route. `route`, `arms` and `split` are required."""

    model_config = _like(examples.ROUTE)

    route: str = Field(examples=["ad-bidder"])
    match: MatchDocument | None = Field(default=None, description="By default the prefix /r/{route}.")
    unit: SourceDocument | None = Field(default=None, description="By default each request is its own unit.")
    stickiness: StickinessDocument = StickinessDocument()
    context: list[FeatureDocument] = []
    segments: list[str] = Field(
        default=[], description="Categorical or boolean features: the route is also looked at value by value."
    )
    arms: list[ArmDocument]
    split: SplitDocument
    metrics: list[MetricDocument] = []
    predictions: list[PredictionDocument] = []
    policy: PolicyDocument = PolicyDocument()
    upstream: UpstreamDocument = UpstreamDocument()
    allow_force: StrictBool = False


class ArmChange(Document):
    """What may change about an arm; what is absent stays. An empty `tls` removes it."""

    model_config = _like(examples.ARM_CHANGE)

    url: str | None = None
    role: Literal["challenger", "shadow"] | None = None
    sample: Sample | None = None
    labels: dict[str, str] | None = None
    headers: dict[str, str | SecretReference] | None = None
    tls: TlsDocument | None = None


class SplitChange(SplitDocument):
    """A new split, and why."""

    model_config = _like(examples.SPLIT)

    reason: Text = "split set"


class Because(Document):
    """Why a person does it."""

    model_config = _like(examples.BECAUSE)

    reason: Text = Field(examples=["approved by the bidding team"])


class ArmAction(Because):
    """An action on a challenger; it need not be named while exactly one is on trial."""

    model_config = _like(examples.ARM_ACTION)

    arm: str | None = Field(default=None, examples=["gbm-v7"])


class StartAction(Because):
    """Puts a challenger on trial, for the first time or again."""

    model_config = _like(examples.START)

    arm: str = Field(examples=["gbm-v7"])
    share: Share = Field(default=1_000, description="Its share in basis points.")


class KillSwitch(Document):
    """Why all traffic goes to the champion."""

    model_config = _like(examples.KILL_SWITCH)

    reason: Text = "kill switch"


class NewKey(Document):
    """A key to be made. Its name is the actor that the timeline shows."""

    model_config = _like(examples.NEW_KEY)

    name: str = Field(examples=["ci"])
    role: Literal["viewer", "ingest", "operator", "admin"]
