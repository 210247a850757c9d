"""Claims about traces: what a real OTLP receiver gets, which trace it belongs to, and what it never costs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from app.gateway import tracing as tracing_module
from app.gateway.access import AccessRecord
from app.gateway.traceparent import TraceContext, context_of
from app.gateway.tracing import Trace, TracesUnavailable, Tracing
from routing.types import Arm, Role

SECONDS = 20.0
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = PARENT[3:35].decode()
PARENT_ID = PARENT[36:52].decode()
OLD = Arm(id=1, name="old", url="http://user:secret@127.0.0.1:9001/score?key=secret", role=Role.CHAMPION)
NEW = Arm(id=2, name="new", url="https://new.test/v2", role=Role.CHALLENGER)


class Receiver:
    """An OTLP/HTTP receiver; `status` is what it answers, `spans` what it got."""

    def __init__(self) -> None:
        self.status = 200
        self.paths: list[str] = []
        self.got: list[ResourceSpans] = []
        self.hold = threading.Event()
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.hold.wait(SECONDS)
                receiver.paths.append(self.path)
                if receiver.status == 200:
                    receiver.got += ExportTraceServiceRequest.FromString(body).resource_spans
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as it is called
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def spans(self) -> list[Span]:
        return [span for group in self.got for scope in group.scope_spans for span in scope.spans]

    def stop(self) -> None:
        self.hold.set()
        self.server.shutdown()
        self.thread.join(SECONDS)
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector on a free port."""
    receiver = Receiver()
    yield receiver
    receiver.stop()


def started(receiver: Receiver, ratio: float = 1.0) -> Tracing:
    """Traces to the receiver; closed by the test, which then looks at what came."""
    return Tracing(receiver.url, ratio, "w0", Random(7))


def record(trace: Trace, **changes: Any) -> AccessRecord:
    """What there is to tell of one good exchange, which the champion served within a millisecond."""
    told: dict[str, Any] = {
        "ended_at": trace.started_ns / 1e9 + 0.001,
        "seconds": 0.001,
        "route": "bid",
        "arm": "old",
        "assigned": "old",
        "reason": "SPLIT",
        "method": b"POST",
        "path": "/r/bid/score",
        "status": 200,
        "decision": "token",
        "client": "203.0.113.5",
        "peer": "10.0.0.9",
        "host": b"gateway.test:8080",
    }
    return AccessRecord(**{**told, **changes})


def attributes(pairs: Any) -> dict[str, str | int]:
    """Attributes by name."""
    known: list[KeyValue] = list(pairs)
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in known}


def by_kind(receiver: Receiver) -> tuple[Span, list[Span]]:
    """The one server span, and the client spans in the order they began."""
    [server] = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]
    clients = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_CLIENT]
    return server, clients


def test_an_exchange_is_a_server_span_with_a_client_span(receiver: Receiver) -> None:
    """The receiver gets both, named and described by the HTTP conventions, at its usual path."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(OLD).end(200)
    tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert receiver.paths == ["/v1/traces"]
    assert (server.name, client.name) == ("POST bid", "POST")
    assert attributes(server.attributes) == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/r/bid/score",
        "server.address": "gateway.test",
        "server.port": 8080,
        "client.address": "203.0.113.5",
        "network.peer.address": "10.0.0.9",
        "http.response.status_code": 200,
        "kingmaker.route": "bid",
        "kingmaker.arm": "old",
        "kingmaker.assigned_arm": "old",
        "kingmaker.reason": "SPLIT",
        "kingmaker.decision": "token",
    }
    assert attributes(client.attributes) == {
        "http.request.method": "POST",
        "url.full": "http://127.0.0.1:9001/score",
        "server.address": "127.0.0.1",
        "server.port": 9001,
        "http.response.status_code": 200,
        "kingmaker.route": "bid",
        "kingmaker.arm": "old",
    }
    assert server.status.code == client.status.code == Status.STATUS_CODE_UNSET
    assert tracing.dropped == 0


def test_spans_say_whose_they_are(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Service and worker; the service's name is the operator's, where a variable says so."""
    names = []
    for variable in (None, "front"):
        if variable is not None:
            monkeypatch.setenv("OTEL_SERVICE_NAME", variable)
        tracing = started(receiver)
        trace = tracing.begin({}, trusted=False)
        tracing.end(trace, record(trace))
        tracing.close(SECONDS)
        names.append(attributes(receiver.got[-1].resource.attributes))
    assert [name["service.name"] for name in names] == ["kingmaker-gateway", "front"]
    assert names[0]["service.instance.id"] == "w0"
    assert receiver.got[-1].scope_spans[0].scope.name == "kingmaker.gateway"


def test_the_arm_continues_its_own_attempt(receiver: Receiver) -> None:
    """The traceparent that an arm gets names the client span, whose parent is the server span, whose parent
    is the caller's.
    """
    tracing = started(receiver)
    trace = tracing.begin({b"traceparent": PARENT, b"tracestate": b"vendor=1"}, trusted=True)
    attempt = trace.attempt(OLD)
    sent = dict(line.split(b": ") for line in attempt.lines.splitlines())
    told = context_of(sent)
    attempt.end(200)
    tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert told is not None
    assert (told.trace_id, told.span_id, told.sampled, told.state) == (
        int(TRACE_ID, 16),
        int.from_bytes(client.span_id),
        True,
        b"vendor=1",
    )
    assert {span.trace_id.hex() for span in (server, client)} == {TRACE_ID} == {trace.id}
    assert client.parent_span_id == server.span_id
    assert server.parent_span_id.hex() == PARENT_ID
    assert server.trace_state == "vendor=1"


def test_times_are_those_of_the_exchange(receiver: Receiver) -> None:
    """Each span begins and ends when what it tells of did, and an attempt lies within its exchange."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    attempt = trace.attempt(OLD)
    attempt.end(200)
    tracing.end(trace, record(trace, ended_at=trace.started_ns / 1e9 + 5))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert server.start_time_unix_nano == trace.started_ns
    assert abs(server.end_time_unix_nano - trace.started_ns - 5 * 10**9) < 1_000
    assert (client.start_time_unix_nano, client.end_time_unix_nano) == (attempt.started_ns, attempt.ended_ns)
    assert server.start_time_unix_nano <= client.start_time_unix_nano <= client.end_time_unix_nano


def test_a_fallback_is_two_attempts(receiver: Receiver) -> None:
    """The failed one says how, a repeated one how often, and the exchange itself went well."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(NEW).end(None, "cut_off")
    trace.attempt(NEW).end(503)
    trace.attempt(OLD)
    tracing.end(trace, record(trace, assigned="new", reason="FALLBACK", failure="status"))
    tracing.close(SECONDS)
    server, clients = by_kind(receiver)
    told = [attributes(client.attributes) for client in clients]
    assert [one["kingmaker.arm"] for one in told] == ["new", "new", "old"]
    assert [one.get("error.type") for one in told] == ["cut_off", "503", None]
    assert [one.get("http.request.resend_count") for one in told] == [None, 1, None]
    assert [one.get("http.response.status_code") for one in told] == [None, 503, 200]
    assert (told[0]["server.address"], told[0]["server.port"]) == ("new.test", 443)
    assert [client.status.code for client in clients] == [
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert len({span.span_id for span in (server, *clients)}) == 4


def test_a_diverted_request_is_no_error(receiver: Receiver) -> None:
    """The champion has answered well in place of an arm that was not even asked."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(OLD)
    tracing.end(trace, record(trace, assigned="new", reason="FALLBACK", failure="ejected"))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert [span.status.code for span in (server, client)] == [Status.STATUS_CODE_UNSET] * 2
    assert "error.type" not in attributes(client.attributes)


def test_an_answer_that_broke_off_is_an_error(receiver: Receiver) -> None:
    """Of the exchange too, although it had begun with a good status."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(OLD).end(None, "cut_off")
    tracing.end(trace, record(trace, failure="cut_off"))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert [span.status.code for span in (server, client)] == [Status.STATUS_CODE_ERROR] * 2
    assert attributes(server.attributes)["error.type"] == "cut_off"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": 504, "arm": None, "failure": "timeout"}, "timeout"),
        ({"status": 503, "arm": None}, "503"),
        ({"status": 404}, None),
    ],
)
def test_what_fails_is_an_error(receiver: Receiver, changes: dict[str, Any], error: str | None) -> None:
    """A 5xx is the gateway's failure, a 4xx the caller's; an attempt that nobody ended was abandoned."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(OLD)
    tracing.end(trace, record(trace, **changes))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    assert attributes(server.attributes).get("error.type") == error
    assert (server.status.code == Status.STATUS_CODE_ERROR) is (error is not None)
    expected = "abandoned" if changes.get("arm", "old") is None else "404"
    assert attributes(client.attributes)["error.type"] == expected


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [
        (b"a.test", "a.test", None),
        (b"[::1]:81", "::1", 81),
        (b"[::::]", "::::", None),
        (b"a.test:", "a.test:", None),
        (None, None, None),
    ],
)
def test_odd_requests_are_told_as_they_are(
    receiver: Receiver, host: bytes | None, address: str | None, port: int | None
) -> None:
    """Whatever host was asked for, and a method that nobody knows, makes a span, with few different names."""
    tracing = started(receiver)
    trace = tracing.begin({}, trusted=False)
    trace.attempt(OLD).end(200)
    tracing.end(trace, record(trace, host=host, method=b"FROB"))
    tracing.close(SECONDS)
    server, [client] = by_kind(receiver)
    told = attributes(server.attributes)
    assert (told.get("server.address"), told.get("server.port")) == (address, port)
    assert (told["http.request.method"], told["http.request.method_original"]) == ("_OTHER", "FROB")
    assert (server.name, client.name) == ("HTTP bid", "HTTP")


def test_a_stranger_starts_no_trace_of_ours(receiver: Receiver) -> None:
    """Its ids are linked, not continued, its sampling is not obeyed, and its tracestate goes no further."""
    tracing = started(receiver, ratio=1.0)
    trace = tracing.begin({b"traceparent": PARENT[:-1] + b"0", b"tracestate": b"v=1"}, trusted=False)
    attempt = trace.attempt(OLD)
    tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    server, _ = by_kind(receiver)
    assert server.trace_id.hex() == trace.id != TRACE_ID
    assert not server.parent_span_id
    [link] = server.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert b"tracestate" not in attempt.lines


@pytest.mark.parametrize(("flags", "sampled"), [(b"01", True), (b"00", False), (b"03", True), (b"02", False)])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_trusted_caller_decides_about_sampling(
    receiver: Receiver, flags: bytes, sampled: bool, ratio: float
) -> None:
    """Whatever the ratio: its flag is obeyed and passed on, and what is not sampled is not sent."""
    tracing = started(receiver, ratio)
    trace = tracing.begin({b"traceparent": PARENT[:-2] + flags}, trusted=True)
    lines = trace.attempt(OLD).lines
    tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    assert lines.endswith(b"-01\r\n" if sampled else b"-00\r\n")
    assert len(receiver.spans) == (2 if sampled else 0)


def test_other_traces_are_sampled_by_ratio(receiver: Receiver) -> None:
    """About that share of them, and the same ones for everybody who decides by the id of the trace."""
    tracing = started(receiver, ratio=0.25)
    traces = [tracing.begin({}, trusted=False) for _ in range(4_000)]
    tracing.close(SECONDS)
    share = sum(trace.own.sampled for trace in traces) / len(traces)
    assert 0.22 < share < 0.28
    for trace in traces:
        assert trace.own.sampled is ((trace.own.trace_id & (1 << 64) - 1) < 1 << 62)
    assert len({trace.own.trace_id for trace in traces}) == len(traces)


def test_a_receiver_that_refuses_costs_spans_and_nothing_else(receiver: Receiver) -> None:
    """Each span that it did not take is counted."""
    receiver.status = 400
    tracing = started(receiver)
    for _ in range(3):
        trace = tracing.begin({}, trusted=False)
        trace.attempt(OLD)
        tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    assert tracing.dropped == 6


def test_a_receiver_that_hangs_costs_spans_and_nothing_else(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many exchanges wait for it; the spans of more are dropped and counted at once."""
    monkeypatch.setattr(tracing_module, "CAPACITY", 10)
    receiver.hold.clear()
    tracing = started(receiver)
    ended = []
    for _ in range(200):
        trace = tracing.begin({}, trusted=False)
        trace.attempt(OLD)
        tracing.end(trace, record(trace))
        ended.append(trace)
    receiver.hold.set()
    tracing.close(SECONDS)
    assert tracing.dropped >= 2 * (200 - 10 - tracing_module._BATCH)
    assert tracing.dropped + len(receiver.spans) == 2 * len(ended)


def test_an_endpoint_may_have_a_path_of_its_own(receiver: Receiver) -> None:
    """It is used as it is; one without a path gets the usual one."""
    tracing = Tracing(receiver.url + "/otlp/in", 1.0, "w0", Random(7))
    trace = tracing.begin({}, trusted=False)
    tracing.end(trace, record(trace))
    tracing.close(SECONDS)
    assert receiver.paths == ["/otlp/in"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for traces without the extra is told what to install, not shown a traceback."""
    monkeypatch.setitem(sys.modules, "app.gateway.spans", None)
    with pytest.raises(TracesUnavailable, match=r"kingmaker\[otel\]"):
        Tracing("http://127.0.0.1:4318", 1.0, "w0", Random(7))


def test_a_worker_without_traces_loads_none_of_it() -> None:
    """The packages of OpenTelemetry are imported by nothing but `spans`, where traces are on."""
    program = "import app.gateway.tracing, app.gateway.__main__, sys; print(*sys.modules)"
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "app" in loaded
    assert not loaded & {"opentelemetry", "google", "requests"}


def test_ids_are_never_zero() -> None:
    """Zero means that there is none."""

    class Zeros(Random):
        def getrandbits(self, k: int) -> int:
            return 0

    assert tracing_module._drawn(Zeros(), 64) == 1
    assert context_of({b"traceparent": TraceContext(1, 1, False, b"").lines[13:-2]}) is not None
