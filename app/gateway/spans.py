"""How is an ended exchange told to OpenTelemetry? As spans by its HTTP conventions, sent by OTLP over HTTP.

Heavy to import, and its packages are an extra: for where traces are on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import version
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from app.gateway.access import AccessRecord
from app.gateway.traceparent import TraceContext
from app.gateway.tracing import AttemptSpan, Trace

EXPORT_SECONDS = 5.0
"""How long the receiver of a batch may take, repeats included."""

_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_OTHER = "_OTHER"


class Spans:
    """Makes spans of exchanges, and sends them to a receiver.

    They are built whole rather than by a tracer: their ids went to the arms, and their times passed, before.
    What is not said here comes from OTEL_* variables, as for any program: name of the service, headers and
    certificates of the exporter.
    """

    def __init__(self, url: str, worker: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS)
        self._resource = _resource(worker)
        self._scope = InstrumentationScope("kingmaker.gateway", version("kingmaker"))

    def send(self, ended: Iterable[tuple[Trace, AccessRecord]]) -> bool:
        """Sends the spans of these exchanges; whether they arrived."""
        spans = [span for trace, record in ended for span in self._of_exchange(trace, record)]
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """Sends nothing any more; what is being sent is not repeated."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # of a library that has types

    def _of_exchange(self, trace: Trace, record: AccessRecord) -> Iterator[ReadableSpan]:
        yield self._server(trace, record)
        for number, attempt in enumerate(trace.attempts):
            earlier = [known for known in trace.attempts[:number] if known.arm is attempt.arm]
            yield self._client(trace, attempt, record, len(earlier))

    def _server(self, trace: Trace, record: AccessRecord) -> ReadableSpan:
        method = _method(record.method)
        serving = (attempt for attempt in trace.attempts if attempt.arm.name == record.arm)
        failed = record.status >= 500 or any(attempt.failure is not None for attempt in serving)
        return ReadableSpan(
            name=f"{'HTTP' if method == _OTHER else method} {record.route}",
            kind=SpanKind.SERVER,
            context=_context(trace.own),
            parent=None if trace.parent is None else _context(trace.parent, is_remote=True),
            links=() if trace.linked is None else (Link(_context(trace.linked, is_remote=True)),),
            attributes=_server_attributes(record, failed),
            status=_status(failed),
            start_time=trace.started_ns,
            end_time=max(trace.started_ns, round(record.ended_at * 1e9)),
            resource=self._resource,
            instrumentation_scope=self._scope,
        )

    def _client(self, trace: Trace, attempt: AttemptSpan, record: AccessRecord, resent: int) -> ReadableSpan:
        method = _method(record.method)
        own = trace.own
        failed = attempt.failure is not None or (attempt.status or 0) >= 400
        return ReadableSpan(
            name="HTTP" if method == _OTHER else method,
            kind=SpanKind.CLIENT,
            context=_context(TraceContext(own.trace_id, attempt.span_id, own.sampled, own.state)),
            parent=_context(own),
            attributes=_client_attributes(attempt, record, resent, failed),
            status=_status(failed),
            start_time=attempt.started_ns,
            end_time=max(attempt.started_ns, attempt.ended_ns),
            resource=self._resource,
            instrumentation_scope=self._scope,
        )


def _server_attributes(record: AccessRecord, failed: bool) -> dict[str, AttributeValue]:
    host, port = _host(record.host or b"")
    known: dict[str, AttributeValue | None] = {
        **_method_attributes(record.method),
        "url.scheme": "http",
        "url.path": record.path,
        "server.address": host,
        "server.port": port,
        "client.address": record.client or None,
        "network.peer.address": record.peer or None,
        "http.response.status_code": record.status or None,
        "error.type": (record.failure or str(record.status)) if failed else None,
        "kingmaker.route": record.route,
        "kingmaker.arm": record.arm,
        "kingmaker.assigned_arm": record.assigned,
        "kingmaker.reason": str(record.reason),
        "kingmaker.decision": record.decision,
    }
    return {name: value for name, value in known.items() if value is not None}


def _client_attributes(
    attempt: AttemptSpan, record: AccessRecord, resent: int, failed: bool
) -> dict[str, AttributeValue]:
    url, host, port = _target(attempt.arm.url)
    known: dict[str, AttributeValue | None] = {
        **_method_attributes(record.method),
        "url.full": url,
        "server.address": host,
        "server.port": port,
        "http.response.status_code": attempt.status or None,
        "http.request.resend_count": resent or None,
        "error.type": (attempt.failure or str(attempt.status)) if failed else None,
        "kingmaker.route": record.route,
        "kingmaker.arm": attempt.arm.name,
    }
    return {name: value for name, value in known.items() if value is not None}


def _method_attributes(method: bytes) -> dict[str, AttributeValue | None]:
    """The method, if it is one that the conventions know: others would be without number."""
    text = method.decode("latin-1")
    known = _method(method)
    return {
        "http.request.method": known,
        "http.request.method_original": text if known == _OTHER else None,
    }


def _method(method: bytes) -> str:
    text = method.decode("latin-1")
    return text if text in _METHODS else _OTHER


def _host(field: bytes) -> tuple[str | None, int | None]:
    """Name and port that a caller asked for, whatever they look like."""
    text = field.decode("latin-1")
    name, _, port = text.rpartition(":")
    if name and port.isdecimal():
        return name.strip("[]"), int(port)
    return text.strip("[]") or None, None


@lru_cache(maxsize=1_024)
def _target(url: str) -> tuple[str, str | None, int]:
    """An arm's URL without user and query, which may hold secrets, its host and its port."""
    parts = urlsplit(url)
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return bare, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _context(context: TraceContext, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=is_remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.state.decode()]),
    )


def _status(failed: bool) -> Status:
    return Status(StatusCode.ERROR if failed else StatusCode.UNSET)


def _resource(worker: str) -> Resource:
    """Whose spans they are."""
    resource = Resource.create({"service.instance.id": worker})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        return resource.merge(Resource({"service.name": "kingmaker-gateway"}))
    return resource
