"""Which trace is an exchange part of, and who is told? Ids are drawn on the loop; spans leave it, or drop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from typing import Protocol
from urllib.parse import urlsplit

from app.gateway.access import AccessRecord
from app.gateway.backlog import Backlog
from app.gateway.traceparent import TraceContext, context_of
from routing.types import Arm

CAPACITY = 2_048
"""Exchanges whose spans may wait for the collector."""

_BATCH = 64
_GATHER_SECONDS = 0.5
_PATH = "/v1/traces"
_LOW_64 = (1 << 64) - 1


class TracesUnavailable(Exception):
    """Traces are asked for, and the packages that send them are not installed."""


class AttemptSpan:
    """One attempt on an arm, while it is under way. `lines` are the trace headers that the arm is sent."""

    __slots__ = ("arm", "ended_ns", "failure", "lines", "span_id", "started_ns", "status")

    def __init__(self, arm: Arm, span_id: int, lines: bytes) -> None:
        self.arm = arm
        self.span_id = span_id
        self.lines = lines
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self.status: int | None = None
        self.failure: str | None = None

    def end(self, status: int | None, failure: str | None = None) -> None:
        """The attempt has come to this; the first end stands."""
        if not self.ended_ns:
            self.ended_ns, self.status, self.failure = time.time_ns(), status, failure


class Trace:
    """One exchange's part of a trace, while it is under way.

    `parent` is the span that called us, where the caller is trusted to name one; of another caller, the
    span that it named is `linked`.
    """

    __slots__ = ("_draws", "attempts", "linked", "own", "parent", "started_ns")

    def __init__(
        self, own: TraceContext, parent: TraceContext | None, linked: TraceContext | None, draws: Random
    ) -> None:
        self.own = own
        self.parent = parent
        self.linked = linked
        self.attempts: list[AttemptSpan] = []
        self.started_ns = time.time_ns()
        self._draws = draws

    @property
    def id(self) -> str:
        """The id of the trace, as the access log shows it."""
        return f"{self.own.trace_id:032x}"

    def attempt(self, arm: Arm) -> AttemptSpan:
        """Begins an attempt on an arm."""
        own, span_id = self.own, _drawn(self._draws, 64)
        lines = TraceContext(own.trace_id, span_id, own.sampled, own.state).lines
        attempt = AttemptSpan(arm, span_id, lines)
        self.attempts.append(attempt)
        return attempt


class Tracing:
    """The traces of one worker. Who calls decides whether a trace is sampled, if trusted; else `ratio` does.

    `ratio` picks by the trace's id, as every OpenTelemetry SDK does, so all that see a trace agree.

    Raises:
        TracesUnavailable: the packages that send traces are not installed.
    """

    def __init__(self, endpoint: str, ratio: float, worker: str, draws: Random) -> None:
        self._draws = draws
        self._bound = round(ratio * (_LOW_64 + 1))
        self._refused = 0
        self._lost = 0
        self._spans = _spans(endpoint, worker)
        self._backlog: Backlog[tuple[Trace, AccessRecord]] = Backlog(
            "traces", self._send, capacity=CAPACITY, batch=_BATCH, gather_seconds=_GATHER_SECONDS
        )

    @property
    def dropped(self) -> int:
        """How many spans never arrived."""
        return self._refused + self._lost

    def begin(self, received: Mapping[bytes, bytes], trusted: bool) -> Trace:
        """Takes part in the trace that a trusted caller names; else begins one, linked to what was named."""
        named, span_id = context_of(received), _drawn(self._draws, 64)
        if named is not None and trusted:
            own = TraceContext(named.trace_id, span_id, named.sampled, named.state)
            return Trace(own, named, None, self._draws)
        trace_id = _drawn(self._draws, 128)
        own = TraceContext(trace_id, span_id, (trace_id & _LOW_64) < self._bound, b"")
        return Trace(own, None, named, self._draws)

    def end(self, trace: Trace, record: AccessRecord) -> None:
        """The exchange has ended, and this is what there is to tell of it."""
        if not trace.own.sampled:
            return
        for attempt in trace.attempts:
            served = attempt.arm.name == record.arm
            attempt.end(record.status if served else None, None if served else "abandoned")
        if not self._backlog.put((trace, record)):
            self._refused += 1 + len(trace.attempts)

    def close(self, seconds: float = 2.0) -> None:
        """Sends what waits, within this time. To be called off the loop."""
        self._backlog.close(seconds)
        self._spans.close()

    def _send(self, ended: list[tuple[Trace, AccessRecord]]) -> int:
        if self._spans.send(ended):
            return 0
        self._lost += sum(1 + len(trace.attempts) for trace, _ in ended)
        return len(ended)


class _Sender(Protocol):
    """What sends the spans of exchanges; whether they arrived."""

    def send(self, ended: list[tuple[Trace, AccessRecord]]) -> bool: ...
    def close(self) -> None: ...


def _spans(endpoint: str, worker: str) -> _Sender:
    try:
        from app.gateway.spans import Spans  # noqa: PLC0415  # heavy, and its packages are an extra
    except ImportError as error:
        raise TracesUnavailable("traces need further packages: pip install 'kingmaker[otel]'") from error
    has_path = urlsplit(endpoint).path.strip("/")
    return Spans(endpoint if has_path else endpoint.rstrip("/") + _PATH, worker)


def _drawn(draws: Random, bits: int) -> int:
    """A random id, which must not be zero."""
    return draws.getrandbits(bits) or 1
