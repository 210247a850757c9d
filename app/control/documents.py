"""From the wire to a route's declaration and back. What cannot be is refused, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from pydantic import BaseModel, ValidationError

from app.control.features import feature_document, feature_of, source_document, source_of
from app.control.schemas import (
    ArmDocument,
    DayDocument,
    GuardrailDocument,
    MatchDocument,
    MetricDocument,
    PolicyDocument,
    PredictionDocument,
    RouteDocument,
    SecretReference,
    StickinessDocument,
    TlsDocument,
)
from app.control.splits import bandit_of, split_document, weights_of
from app.control.upstreams import upstream_document, upstream_of
from app.durations import format_duration, parse_duration
from policies.errors import BadSpec
from policies.metrics import Metric
from policies.spec import ArmSpec, Guardrail, Policy, RouteSpec, problems
from routing.types import TOTAL_BP, ArmHeader, Match, Prediction, Role, Tls

_SHOWN_CHARACTERS = 100
_KEEP = "90d"
"""How long a unit keeps its first arm, where nothing else is said."""

_FIXED_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "model_attributes_type": "must be a JSON object, sent with Content-Type: application/json",
}
_Model = TypeVar("_Model", bound=BaseModel)


class BadDeclaration(ValueError):
    """What was declared cannot be. `errors` names each field, its bound and its value."""

    def __init__(self, subject: str, errors: Sequence[BadSpec]) -> None:
        super().__init__(f"{subject}: " + "; ".join(str(error) for error in errors))
        self.errors = tuple(errors)


def parse_route(content: Mapping[str, Any]) -> RouteSpec:
    """A route as read from a file, checked.

    Raises:
        BadDeclaration: an unknown field, a wrong type, or values that cannot be.
    """
    try:
        document = RouteDocument.model_validate(content)
    except ValidationError as error:
        name = content.get("route")
        raise BadDeclaration(f"route {name!r}", field_errors(error.errors())) from error
    return spec_of(document)


def field_errors(errors: Sequence[Any]) -> list[BadSpec]:
    """What pydantic found, as fields with bound and value."""
    return [BadSpec(_field(error["loc"]), _message(error)) for error in errors]


def spec_of(document: RouteDocument) -> RouteSpec:
    """The declaration, checked as a whole.

    Raises:
        BadDeclaration: values that cannot be.
    """
    live = tuple(arm_of(arm) for arm in document.arms)
    spec = RouteSpec(
        name=document.route,
        arms=live,
        weights=weights_of(document.split, live),
        bandit=bandit_of(document.split),
        match=_match_of(document),
        unit=None if document.unit is None else source_of(document.unit),
        first_arm_ms=_first_arm_of(document.stickiness),
        context=tuple(feature_of(feature) for feature in document.context),
        segments=tuple(document.segments),
        metrics=tuple(_metric_of(metric) for metric in document.metrics),
        predictions=tuple(_prediction_of(prediction) for prediction in document.predictions),
        policy=_policy_of(document.policy),
        upstream=upstream_of(document.upstream),
        allow_force=document.allow_force,
    )
    if found := [*problems(spec), *_zone_problems(spec.policy)]:
        raise BadDeclaration(f"route {spec.name!r}", found)
    return spec


def require_sound(spec: RouteSpec) -> None:
    """Refuse what a change would make of a route, if that cannot be.

    Raises:
        BadDeclaration: so it is.
    """
    if found := problems(spec):
        raise BadDeclaration(f"route {spec.name!r}", found)


def arm_of(document: ArmDocument) -> ArmSpec:
    """An arm's declaration, not checked."""
    return ArmSpec(
        name=document.name,
        url=document.url,
        role=Role(document.role),
        labels=dict(document.labels),
        headers=headers_of(document.headers),
        sample_bp=sample_of(document.sample),
        tls=tls_of(document.tls),
    )


def sample_of(share: float | None) -> int:
    """How much of the traffic a shadow arm is sent a copy of, in basis points."""
    return TOTAL_BP if share is None else round(share * TOTAL_BP)


def tls_of(document: TlsDocument | None) -> Tls | None:
    """How an arm is verified; None when nothing is said about it."""
    said = {} if document is None else plain(document)
    return Tls(**said) if said else None


def headers_of(headers: Mapping[str, str | SecretReference]) -> tuple[ArmHeader, ...]:
    """An arm's request headers."""
    return tuple(
        ArmHeader(name=name, value=value) if isinstance(value, str) else ArmHeader(name=name, env=value.env)
        for name, value in headers.items()
    )


def document_of(spec: RouteSpec) -> RouteDocument:
    """The route as a file would declare it, every default written out."""
    return RouteDocument(
        route=spec.name,
        match=MatchDocument(path_prefix=spec.match.path_prefix, host=spec.match.host),
        unit=None if spec.unit is None else source_document(spec.unit),
        stickiness=_stickiness_document(spec.first_arm_ms),
        context=[feature_document(feature) for feature in spec.context],
        segments=list(spec.segments),
        arms=[arm_document(arm) for arm in spec.arms],
        split=split_document(spec.weights, spec.bandit, spec.metrics),
        metrics=[_metric_document(metric) for metric in spec.metrics],
        predictions=[_prediction_document(prediction) for prediction in spec.predictions],
        policy=_policy_document(spec.policy),
        upstream=upstream_document(spec.upstream),
        allow_force=spec.allow_force,
    )


def arm_document(arm: ArmSpec) -> ArmDocument:
    """An arm as a file would declare it."""
    return ArmDocument.model_validate(
        {
            "name": arm.name,
            "url": arm.url,
            "role": arm.role.value,
            "sample": arm.sample_bp / TOTAL_BP if arm.role is Role.SHADOW else None,
            "labels": dict(arm.labels),
            "headers": {
                header.name: header.value if header.env is None else {"env": header.env}
                for header in arm.headers
            },
            "tls": None if arm.tls is None else msgspec.to_builtins(arm.tls),
        }
    )


def plain(document: BaseModel) -> dict[str, Any]:
    """A document as JSON values, without fields that are not set."""
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


def _match_of(document: RouteDocument) -> Match:
    if document.match is None:
        return Match(path_prefix=f"/r/{document.route}")
    prefix, host = document.match.path_prefix, document.match.host
    return Match(
        path_prefix=prefix if prefix is None else prefix.rstrip("/") or prefix[:1],
        host=host if host is None else host.lower(),
    )


def _first_arm_of(document: StickinessDocument) -> int | None:
    return None if document.mode == "hash" else parse_duration(document.keep or _KEEP)


def _stickiness_document(first_arm_ms: int | None) -> StickinessDocument:
    if first_arm_ms is None:
        return StickinessDocument()
    return StickinessDocument(mode="first_arm", keep=format_duration(first_arm_ms))


def _metric_of(document: MetricDocument) -> Metric:
    return Metric(
        name=document.name,
        kind=document.kind,
        better=document.better,
        window_ms=parse_duration(document.window),
        aggregate=document.aggregate,
        missing=document.missing,
    )


def _metric_document(metric: Metric) -> MetricDocument:
    return MetricDocument(
        name=metric.name,
        kind=metric.kind,
        better=metric.better,
        window=format_duration(metric.window_ms),
        aggregate=metric.aggregate,
        missing=metric.missing,
    )


def _prediction_of(document: PredictionDocument) -> Prediction:
    return Prediction(
        name=document.name, pointer=document.source.response, numeric=document.type == "numeric"
    )


def _prediction_document(prediction: Prediction) -> PredictionDocument:
    kind = "numeric" if prediction.numeric else "categorical"
    source = {"response": prediction.pointer}
    return PredictionDocument.model_validate({"name": prediction.name, "from": source, "type": kind})


def _policy_of(document: PolicyDocument) -> Policy:
    return Policy(
        **document.model_dump(exclude={"guardrails", "ramp", "bake", "day"}),
        guardrails=tuple(Guardrail(**guardrail.model_dump()) for guardrail in document.guardrails),
        ramp_bp=tuple(document.ramp),
        bake_ms=parse_duration(document.bake),
        day_length_ms=parse_duration(document.day.length),
        timezone=document.day.timezone,
    )


def _policy_document(policy: Policy) -> PolicyDocument:
    same = PolicyDocument.model_fields.keys() - {"guardrails", "ramp", "bake", "day"}
    return PolicyDocument(
        **{name: getattr(policy, name) for name in same},
        guardrails=[
            GuardrailDocument(**{name: getattr(guardrail, name) for name in GuardrailDocument.model_fields})
            for guardrail in policy.guardrails
        ],
        ramp=list(policy.ramp_bp),
        bake=format_duration(policy.bake_ms) if policy.bake_ms else "0s",
        day=DayDocument(length=format_duration(policy.day_length_ms), timezone=policy.timezone),
    )


def _zone_problems(policy: Policy) -> list[BadSpec]:
    try:
        ZoneInfo(policy.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        bound = "must be a zone of the IANA database such as Europe/Berlin"
        return [BadSpec("policy.day.timezone", f"{bound}, got {policy.timezone!r}")]
    return []


def _field(place: Sequence[object]) -> str:
    """The field's name on the wire; FastAPI puts first where it stood."""
    inside = place[1:] if len(place) > 1 and place[0] in ("body", "query", "path") else place
    return ".".join(str(part) for part in inside) or "body"


def _message(error: Mapping[str, Any]) -> str:
    fixed = _FIXED_MESSAGES.get(error["type"])
    if fixed is not None:
        return fixed
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    value = error.get("input")
    if "got " in text or "headers" in error["loc"] or isinstance(value, dict | list):
        return text
    return f"{text}, got {value!r}"[: len(text) + _SHOWN_CHARACTERS]
