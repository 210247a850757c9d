"""What would a gateway read of a request that is only described? Read by the code that gateways run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.control import examples
from app.control.schemas import Document, Instant
from app.gateway.contexts import RequestSubject, Values
from app.gateway.heads import BadMessage, is_token
from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings
from app.gateway.units import place_of, reader_of
from policies.errors import BadSpec
from routing.assignment import Plan
from routing.features import Value

_LIMITS = GatewaySettings()
_Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]


class DryRunDocument(Document):
    """A request, as far as it is to be described. What is left out it does not have.

    Unit and context are read in headers and path, too, where the route declares that they are there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [examples.DRY_RUN]})

    unit: _Text | None = None
    method: _Text | None = Field(default=None, examples=["POST"])
    path: _Text | None = Field(
        default=None, description="With its query, if it has one.", examples=["/r/ad-bidder/score?debug=1"]
    )
    headers: dict[_Text, _Text] = Field(default={})
    context: dict[_Text, Any] = Field(default={}, description="Features by name.")
    force_arm: _Text | None = Field(default=None, description="The arm that `Kingmaker-Force-Arm` names.")
    at: Instant | None = Field(default=None, description="When it would come; by default now.")


@dataclass(frozen=True, slots=True)
class Question:
    """A described request, read: its unit, its context, the arm that it asks for, and what overrides look at.

    `unknown`: features that were named but are not declared.
    """

    unit: str | None
    forced: str | None
    at_ms: int
    context: Values | None
    subject: Described
    unknown: tuple[str, ...] = ()


class Described:
    """A described request, as overrides look at it. `left_open`: attributes that it does not have."""

    def __init__(self, live: RequestSubject, left_open: frozenset[str]) -> None:
        self._live = live
        self._left_open = left_open

    def value(self, attribute: str) -> Value | None:
        """What the request has for an attribute; None: nothing."""
        return None if attribute in self._left_open else self._live.value(attribute)


def question_of(document: DryRunDocument, plan: Plan, at_ms: int) -> Question:
    """What is read of a request on its way to a route.

    Raises:
        BadSpec: no gateway would take such a method, path or headers.
    """
    request = _request_of(document)
    source = plan.route.unit
    unit = document.unit or (None if source is None else reader_of(source)(request))
    context, unknown = _context(document.context, plan, request)
    given = {"method": document.method, "path": document.path}
    left_open = frozenset(name for name, value in given.items() if value is None)
    forced = None if request.forced is None else request.forced.decode("latin-1")
    return Question(
        unit=unit,
        forced=document.force_arm or forced,
        at_ms=at_ms,
        context=context,
        subject=Described(RequestSubject(request, unit, context), left_open),
        unknown=unknown,
    )


def _context(
    named: Mapping[str, object], plan: Plan, request: Request
) -> tuple[Values | None, tuple[str, ...]]:
    encoder = plan.encoder
    if encoder is None:
        return None, tuple(named)
    found = {feature.name: place_of(feature.source)(request) for feature in encoder.features}
    unknown = tuple(name for name in named if name not in found)
    return encoder.read({**found, **named}), unknown


def _request_of(document: DryRunDocument) -> Request:
    method, path = document.method or "GET", document.path or "/"
    lines = [f"{name}: {value}" for name, value in document.headers.items()]
    for name, line in zip(document.headers, lines, strict=True):
        if not is_token(name.encode()) or "\r" in line or "\n" in line:
            raise BadSpec("headers", f"must be names that are tokens, and values of one line, got {line!r}")
    has_host = any(name.lower() == "host" for name in document.headers)
    version = "HTTP/1.1" if has_host else "HTTP/1.0"  # which alone may come without a Host
    _read("method", f"{method} / HTTP/1.0")
    _read("path", f"{method} {path} HTTP/1.0")
    return _read("headers", "\r\n".join([f"{method} {path} {version}", *lines]))


def _read(field: str, head: str) -> Request:
    request = Request()
    try:
        request.read_head(head.encode(), _LIMITS)
    except BadMessage as error:
        raise BadSpec(field, f"must be such as a gateway takes: {error.detail}") from error
    return request
