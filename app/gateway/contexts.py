"""What does a request say of the features that its route declares, and what may overrides look at?"""

from __future__ import annotations

from collections.abc import Mapping

from app.gateway.requests import Request
from app.gateway.units import Body, body_of, place_of
from routing.context import Encoder
from routing.features import SourceKind, Value

Values = Mapping[str, Value]
"""Features by name: those that are there, and valid."""

_HEADER = "header."
_CONTEXT = "context."


class ContextReader:
    """Reads the context of a route's requests. `reads_body`: a feature is in it."""

    __slots__ = ("_encoder", "_places", "reads_body")

    def __init__(self, encoder: Encoder, body: Body | None = None) -> None:
        features = encoder.features
        if body is None:
            body = body_of([feature.source for feature in features])
        self._encoder = encoder
        self._places = [(feature.name, place_of(feature.source, body)) for feature in features]
        self.reads_body = any(feature.source.kind is SourceKind.JSON for feature in features)

    def read(self, request: Request) -> Values:
        """The context of a request, whose body is here if it is to be read."""
        return self._encoder.read({name: find(request) for name, find in self._places})


class RequestSubject:
    """A live request, as overrides look at it."""

    __slots__ = ("_context", "_request", "_unit")

    def __init__(self, request: Request, unit: str | None, context: Values | None) -> None:
        self._request = request
        self._unit = unit
        self._context = context

    def value(self, attribute: str) -> Value | None:
        """What the request has for an attribute; None: nothing."""
        if attribute == "unit":
            return self._unit
        if attribute.startswith(_HEADER):
            found = self._request.field(attribute[len(_HEADER) :].encode())
            return None if found is None else found.decode("utf-8", "surrogateescape")
        if attribute.startswith(_CONTEXT):
            return None if self._context is None else self._context.get(attribute[len(_CONTEXT) :])
        if attribute == "path":
            return self._request.path
        return self._request.method.decode() if attribute == "method" else None


class NamedSubject:
    """Somebody for whom only a unit and a context were named: there is no request."""

    __slots__ = ("_context", "_unit")

    def __init__(self, unit: str | None, context: Values | None) -> None:
        self._unit = unit
        self._context = context

    def value(self, attribute: str) -> Value | None:
        """What was named for an attribute; None: nothing."""
        if attribute == "unit":
            return self._unit
        if attribute.startswith(_CONTEXT) and self._context is not None:
            return self._context.get(attribute[len(_CONTEXT) :])
        return None
