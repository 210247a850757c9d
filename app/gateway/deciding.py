"""Which arm would it be? Asked by who calls the arm itself, or only wants to know which variant to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from app.gateway.contexts import NamedSubject
from app.gateway.decisions import event_of
from app.gateway.endpoints import NO_SNAPSHOT, RETRY, Endpoint
from app.gateway.first_arms import Waiter, Waiting
from app.gateway.replies import JSON
from routing.types import TOTAL_BP

if TYPE_CHECKING:
    from app.gateway.decisions import Decision
    from app.gateway.snapshots import Routing
    from app.gateway.worker import Worker
    from routing.types import Route

QUESTION_BYTES = 1024 * 1024
GONE = "(gone)"
"""Stands for the arms that a unit could have got first, and that are no more."""


Fail = Callable[[], None]


class Asked(msgspec.Struct, frozen=True):
    """For whom an assignment is asked: the unit, features of its context by name, the arm to be forced."""

    unit: str | None
    context: Mapping[str, object]
    forced: bytes | None


def decide_for(
    worker: Worker, routing: Routing, route: Route, asked: Asked, done: Callable[[Decision], None], fail: Fail
) -> None:
    """Tells what is decided for whom it is asked, now or in a moment; recorded nowhere yet.

    `fail` is told where it was to be told in a moment, and that went wrong.
    """
    plan = worker.plan(routing, route)
    encoder = plan.encoder
    context = None if encoder is None else encoder.read(asked.context)
    subject = NamedSubject(asked.unit, context)
    settled = worker.settle(
        routing, plan, asked.unit, asked.forced, context, subject, Waiter(done, fail, inf)
    )
    if not isinstance(settled, Waiting):
        done(settled)


def named(probabilities: Mapping[int, int], names: Mapping[int, str]) -> dict[str, float]:
    """Probabilities by the names of arms; they sum to 1."""
    found: dict[str, int] = {}
    for arm_id, share_bp in probabilities.items():
        name = names.get(arm_id, GONE)
        found[name] = found.get(name, 0) + share_bp
    return {name: share_bp / TOTAL_BP for name, share_bp in found.items()}


class DecideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be sent to decide. `context` is for routes that declare features of it; weights need none."""

    unit: str | None = None
    context: dict[str, Any] = {}


class Question(Endpoint):
    """A question for assignments: pages may ask it, and it is counted, under the name `call`."""

    is_shared = True
    call: ClassVar[str]

    def answer(self, status: int, body: bytes, content_type: bytes = JSON, lines: bytes = b"") -> None:
        counters = self.worker.counters
        counters.add("kingmaker_questions_total", "call", self.call, "code", str(status))
        super().answer(status, body, content_type, lines)

    def give_up(self) -> None:
        """There is no answer: the caller's connection ends."""
        client, self._client = self._client, None
        if client is not None:
            client.abort()

    def record(self, decision: Decision) -> None:
        """Writes down a decision that only was asked for."""
        self.worker.spool.append(event_of(decision))


class Decide(Question):
    """`POST /v1/decide/{route}`: the assignment alone."""

    call = "decide"

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None:
            self.refuse(503, NO_SNAPSHOT, RETRY)
            return
        try:
            wanted = msgspec.json.decode(body or b"{}", type=DecideBody)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            self.refuse(422, f"body is not a decide request: {error}")
            return
        self._decide(routing, Asked(wanted.unit or None, wanted.context, self.request.forced))

    def _decide(self, routing: Routing, asked: Asked) -> None:
        name = self.request.path.removeprefix("/v1/decide/")
        route = routing.table.by_name(name)
        if route is None:
            self.refuse(404, f"route must be one of the gateway's, got {name!r}")
            return
        done = partial(self._tell, routing, route)
        decide_for(self.worker, routing, route, asked, done, self.give_up)

    def _tell(self, routing: Routing, route: Route, decision: Decision) -> None:
        if self.is_abandoned:
            return
        assignment = decision.assignment
        names = {arm.id: arm.name for arm in route.arms}
        answer = {
            "decision": decision.token,
            "route": route.name,
            "arm": assignment.arm.name,
            "url": assignment.arm.url,
            "reason": assignment.reason,
            "propensity": assignment.propensity_bp / TOTAL_BP,
            "probabilities": named(assignment.probabilities, names),
            "snapshot": routing.version,
        }
        self.record(decision)
        self.answer(200, msgspec.json.encode(answer))
