"""Which requests are to the gateway itself, and who answers them? Health and metrics are answered here."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from app.gateway.cors import is_preflight, shared_lines
from app.gateway.counters import OPENMETRICS_TYPE, TEXT_TYPE, is_openmetrics, render
from app.gateway.deciding import QUESTION_BYTES, Decide
from app.gateway.endpoints import NO_SNAPSHOT, RETRY, Endpoint, Options, Preflight, Refusal
from app.gateway.ofrep import FLAGS_PATH, EvaluateFlag, EvaluateFlags
from app.gateway.reports import REPORT_BYTES, Exposures, Outcomes

if TYPE_CHECKING:
    from app.gateway.handlers import Handler
    from app.gateway.http1 import ClientConnection
    from app.gateway.requests import Request
    from app.gateway.worker import Worker

__all__ = ["Options", "Refusal", "endpoint"]

_OFREP = "/ofrep/v1/"


class Health(Endpoint):
    """`GET /healthz`: the worker is alive."""

    def respond(self, body: bytes) -> None:
        self.answer(200, b'{"status":"ok"}')


class Readiness(Endpoint):
    """`GET /readyz`: the worker has a snapshot, and takes requests."""

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None or self.worker.parting:
            self.refuse(503, "draining" if routing is not None else NO_SNAPSHOT, RETRY)
        else:
            self.answer(200, b'{"status":"ok","snapshot":%d}' % routing.version)


class Metrics(Endpoint):
    """`GET /metrics`: the figures of all workers."""

    def respond(self, body: bytes) -> None:
        openmetrics = is_openmetrics(self.request.field(b"accept") or b"")
        text = render(self.worker.figures(), openmetrics=openmetrics)
        self.answer(200, text.encode(), OPENMETRICS_TYPE if openmetrics else TEXT_TYPE)


class Place(NamedTuple):
    """What is at a reserved path: methods, who answers them, and the longest body."""

    methods: tuple[bytes, ...]
    kind: type[Endpoint]
    limit_bytes: int


def endpoint(worker: Worker, client: ClientConnection, request: Request) -> Handler | None:
    """The endpoint with a reserved path, or a refusal; None where the path may be a route's."""
    place = _place(request.path)
    if place is None:
        is_ours = request.path.startswith(_OFREP)
        return Refusal(client, 404, f"of OFREP there is POST {FLAGS_PATH}[/ROUTE]") if is_ours else None
    if request.method in place.methods:
        return place.kind(worker, client, request, place.limit_bytes)
    origins = worker.settings.cors_origins if place.kind.is_shared else ()
    if place.kind.is_shared and is_preflight(request):
        return Preflight(client, request, origins)
    allowed = b", ".join(place.methods)
    detail = f"method must be {allowed.decode()}, got {request.method.decode()}"
    lines = b"Allow: %b\r\n" % allowed + shared_lines(origins, request)
    return Refusal(client, 405, detail, lines)


def _place(path: str) -> Place | None:
    """What is at a path; of two kinds of path the end is a route's name."""
    for prefix, place in _NAMED.items():
        if path.startswith(prefix):
            return place
    return _PLACES.get(path)


_READ = (b"GET", b"HEAD")
_POST = (b"POST",)
_NAMED = {
    "/v1/decide/": Place(_POST, Decide, QUESTION_BYTES),
    f"{FLAGS_PATH}/": Place(_POST, EvaluateFlag, QUESTION_BYTES),
}
_PLACES = {
    "/healthz": Place(_READ, Health, QUESTION_BYTES),
    "/readyz": Place(_READ, Readiness, QUESTION_BYTES),
    "/metrics": Place(_READ, Metrics, QUESTION_BYTES),
    "/v1/outcomes": Place(_POST, Outcomes, REPORT_BYTES),
    "/v1/exposures": Place(_POST, Exposures, REPORT_BYTES),
    FLAGS_PATH: Place(_POST, EvaluateFlags, QUESTION_BYTES),
}
