"""What is written down of an exchange: the decision, the figures, and, where wanted, a line and a span."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.events.types import CALLER_LEFT
from app.gateway.access import AccessLog, AccessRecord
from app.gateway.asking import Ask
from app.gateway.decisions import event_of
from app.gateway.tracing import Tracing
from app.gateway.trust import Trust

if TYPE_CHECKING:
    from app.gateway.counters import Counters
    from app.gateway.facts import Facts
    from app.gateway.worker import Events


class Journal:
    """Where a worker's exchanges are written down."""

    def __init__(
        self,
        spool: Events,
        counters: Counters,
        trust: Trust,
        access: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._spool = spool
        self._counters = counters
        self._trust = trust
        self._access = access
        self._tracing = tracing
        self.traces = tracing is not None
        self._is_told = access is not None or tracing is not None

    @property
    def lines_dropped(self) -> int:
        """Lines of the access log that were not written."""
        return 0 if self._access is None else self._access.dropped

    @property
    def spans_dropped(self) -> int:
        """Spans that did not arrive."""
        return 0 if self._tracing is None else self._tracing.dropped

    def begin(self, exchange: Facts) -> None:
        """An exchange begins: it may be part of a trace."""
        if self._tracing is not None:
            request, client = exchange.request, exchange.client
            exchange.trace = self._tracing.begin(request.forwarded, client.trusted)

    def record(self, exchange: Facts, serving: Ask | None, now: float) -> None:
        """An exchange has ended (monotonic seconds); `serving` is what the caller's answer came from."""
        served = None if serving is None else serving.arm.id
        event = event_of(exchange.decision, served, exchange.status, exchange.error, exchange.latency_ms)
        self._spool.append(event)
        seconds = now - exchange.asked_at
        if serving is not None:
            serving.lane.series.observe(exchange.reason, exchange.status, seconds)
        else:
            self._counters.exchange(exchange.route.name, "none", exchange.reason, exchange.status, seconds)
        if self._is_told:
            self._tell(exchange, serving, now)

    def close(self) -> None:
        """Writes what waits. To be called off the loop."""
        if self._access is not None:
            self._access.close()
        if self._tracing is not None:
            self._tracing.close()

    def _tell(self, exchange: Facts, serving: Ask | None, now: float) -> None:
        request, client, trace = exchange.request, exchange.client, exchange.trace
        peer = client.peer.decode()
        record = AccessRecord(
            ended_at=time.time(),
            seconds=now - exchange.asked_at,
            route=exchange.route.name,
            arm=None if serving is None else serving.arm.name,
            assigned=exchange.assigned.name,
            reason=exchange.reason,
            method=request.method,
            path=request.path,
            status=0 if exchange.status == CALLER_LEFT else exchange.status,
            decision=exchange.decision.token,
            client=self._trust.client_address(request.forwarded, peer, client.trusted),
            peer=peer,
            host=request.host,
            bytes_in=request.received,
            bytes_out=exchange.sent_bytes,
            upstream_seconds=None if serving is None else now - max(serving.asked_at, exchange.asked_at),
            failure=exchange.failure,
            trace=None if trace is None else trace.id,
        )
        if self._access is not None:
            self._access.note(record)
        if self._tracing is not None and trace is not None:
            self._tracing.end(trace, record)
