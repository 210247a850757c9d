"""When is what clients report safe? It is answered only once what was accepted is on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from app.events.types import Event
from app.gateway import exposures, outcomes
from app.gateway.endpoints import NO_SNAPSHOT, RETRY, Endpoint
from app.gateway.entries import BodyRefused, TooMany, Verdict, parse

if TYPE_CHECKING:
    from app.events.spool import SpoolError
    from app.gateway.http1 import ClientConnection
    from app.gateway.requests import Request
    from app.gateway.snapshots import Routing
    from app.gateway.worker import Worker
    from routing.context import Encoder
    from routing.types import Route

REPORT_BYTES = 8 * 1024 * 1024


class Reports(Endpoint):
    """Reports of one kind: which are accepted, and how they are counted."""

    is_shared = True
    name: ClassVar[str]
    accepted: ClassVar[str]
    rejected: ClassVar[str]

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None:
            self.refuse(503, NO_SNAPSHOT, RETRY)
            return
        try:
            entries = parse(body, self.request.field(b"content-type") or b"", self.name)
        except BodyRefused as error:
            self.refuse(413 if isinstance(error, TooMany) else 422, str(error))
            return
        verdict: Verdict[Any] = Verdict()
        now_ms = time.time_ns() // 1_000_000
        work = partial(self._judge, entries, routing, now_ms, verdict)
        self.in_slices(len(entries), work, partial(self._commit, verdict))

    def _judge(
        self,
        entries: Sequence[object],
        routing: Routing,
        now_ms: int,
        verdict: Verdict[Any],
        first: int,
        end: int,
    ) -> None:
        verdict.judge(entries[first:end], first, lambda entry: self.event_of(entry, routing, now_ms))

    def event_of(self, entry: object, routing: Routing, now_ms: int) -> Event:
        """What to write down of an entry, by the routes of a snapshot, at a moment in Unix ms.

        Raises:
            Rejected: it cannot be.
        """
        raise NotImplementedError

    def _commit(self, verdict: Verdict[Any]) -> None:
        if not verdict.accepted:
            self._report(verdict, None)
            return
        self.worker.spool.commit(verdict.accepted, partial(self._on_committed, verdict))

    def _on_committed(self, verdict: Verdict[Any], error: SpoolError | None) -> None:
        self.worker.loop.call_soon_threadsafe(self._report, verdict, error)

    def _report(self, verdict: Verdict[Any], error: SpoolError | None) -> None:
        if error is not None:
            self.refuse(503, f"{self.name} could not be made durable: {error}", RETRY)
            return
        counters = self.worker.counters
        counters.add(self.accepted, by=len(verdict.accepted))
        for rejection in verdict.rejected:
            counters.add(self.rejected, "code", rejection.code)
        self.answer(202 if verdict.accepted or not verdict.rejected else 422, verdict.document())


class Outcomes(Reports):
    """`POST /v1/outcomes`: what became of decisions."""

    name = "outcomes"
    accepted = "kingmaker_outcomes_accepted_total"
    rejected = "kingmaker_outcomes_rejected_total"

    def event_of(self, entry: object, routing: Routing, now_ms: int) -> Event:
        return outcomes.event_of(entry, routing.table, now_ms)


class Exposures(Reports):
    """`POST /v1/exposures`: which decisions were put to use.

    Mutable state: `_encoders`, what reads the contexts of each route (by its id), worked out once for a body.
    """

    name = "exposures"
    slice_size = 5  # the context of one may take a millisecond to read
    accepted = "kingmaker_exposures_accepted_total"
    rejected = "kingmaker_exposures_rejected_total"

    def __init__(self, worker: Worker, client: ClientConnection, request: Request, limit_bytes: int) -> None:
        super().__init__(worker, client, request, limit_bytes)
        self._encoders: dict[int, Encoder | None] = {}

    def event_of(self, entry: object, routing: Routing, now_ms: int) -> Event:
        return exposures.event_of(entry, routing.table, now_ms, partial(self._encoder, routing))

    def _encoder(self, routing: Routing, route: Route) -> Encoder | None:
        if route.id not in self._encoders:
            self._encoders[route.id] = self.worker.plan(routing, route).encoder
        return self._encoders[route.id]
