"""What a route looks like on the wire and in a file. Unknown fields are refused, nothing is repaired."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt
from pydantic import model_validator as _model_validator

from app.control import examples
from app.durations import parse_duration
from policies.metrics import Metric
from policies.spec import Advance, Approval, Guardrail, Policy
from policies.types import Aggregate, Better, Kind, Missing
from routing.types import TOTAL_BP, Upstream

_POLICY, _GUARDRAIL, _UPSTREAM = Policy(), Guardrail(), Upstream()
_METRIC = Metric(name="", kind=Kind.BINARY)


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _like(example: examples.Example) -> ConfigDict:
    """The settings of a body that is described by an example."""
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [example]})


Duration = Annotated[
    str, AfterValidator(_duration), Field(description="A number with ms, s, m, h or d.", examples=["24h"])
]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]
Share = Annotated[StrictInt, Field(gt=0, lt=TOTAL_BP)]


class Document(BaseModel):
    """A part of what is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MatchDocument(Document):
    """Which requests belong to the route."""

    path_prefix: str | None = None
    host: str | None = None


class UnitDocument(Document):
    """Where the unit of a request is read: exactly one of these. `json` is a JSON pointer (RFC 6901)."""

    header: Text | None = None
    json_pointer: Text | None = Field(default=None, alias="json")
    cookie: Text | None = None
    query: Text | None = None

    @_model_validator(mode="after")
    def _exactly_one(self) -> UnitDocument:
        named = [name for name, value in self.model_dump(by_alias=True).items() if value is not None]
        if len(named) != 1:
            raise ValueError(f"must name exactly one of header, json, cookie, query, got {named or 'none'}")
        return self


class SecretReference(Document):
    """The name of an environment variable of the gateway, which holds the value."""

    env: Text


class ArmDocument(Document):
    """An arm: a model endpoint behind the route. Role and share are initial values."""

    model_config = _like(examples.ARM)

    name: str = Field(examples=["gbm-v7"])
    url: str = Field(examples=["http://127.0.0.1:9002/score"])
    role: Literal["champion", "challenger"] = "challenger"
    labels: dict[str, str] = {}
    headers: dict[str, str | SecretReference] = Field(
        default={}, description="Request headers that the arm is sent; secrets by reference."
    )


class SplitDocument(Document):
    """How unpinned traffic is divided, in basis points; arms that are not named get nothing."""

    mode: Literal["weights"] = "weights"
    weights: dict[str, StrictInt] = Field(examples=[{"logreg-v6": 9000, "gbm-v7": 1000}])


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


class UpstreamDocument(Document):
    """How the arms are called."""

    timeout: Duration = "2s"
    connect_timeout: Duration = "250ms"
    max_connections: StrictInt = _UPSTREAM.max_connections
    fallback: StrictBool = _UPSTREAM.fallback


class RouteDocument(Document):
    """A whole route. `route`, `arms` and `split` are required."""

    model_config = _like(examples.ROUTE)

    route: str = Field(examples=["ad-bidder"])
    match: MatchDocument | None = Field(default=None, description="By default the prefix /r/{route}.")
    unit: UnitDocument | None = Field(default=None, description="By default each request is its own unit.")
    arms: list[ArmDocument]
    split: SplitDocument
    metrics: list[MetricDocument] = []
    policy: PolicyDocument = PolicyDocument()
    upstream: UpstreamDocument = UpstreamDocument()
    allow_force: StrictBool = False


class ArmChange(Document):
    """What may change about an arm; what is absent stays."""

    model_config = _like(examples.ARM_CHANGE)

    url: str | None = None
    labels: dict[str, str] | None = None
    headers: dict[str, str | SecretReference] | None = None


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
