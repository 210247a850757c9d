"""What is an assignment as a feature flag? The OpenFeature Remote Evaluation Protocol, with routes for flags.

A flag's key is a route, its value and its variant are the name of the arm. A flag that is evaluated alone is
a decision, and recorded; of all flags at once none is, as nobody knows yet which of them will be used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from hashlib import blake2b
from types import NoneType
from typing import TYPE_CHECKING, assert_never

import msgspec

from app.gateway.deciding import Asked, Question, decide_for
from app.gateway.endpoints import NO_SNAPSHOT, RETRY
from routing.types import TOTAL_BP, Reason

if TYPE_CHECKING:
    from app.gateway.decisions import Decision
    from app.gateway.snapshots import Routing
    from routing.types import Route

FLAGS_PATH = "/ofrep/v1/evaluate/flags"
KEPT_MS = 24 * 3_600_000
"""How long a bulk answer is kept at most, where no metric of its routes asks for less."""

_TAG = re.compile(rb'"([0-9a-f]{32})-([0-9a-f]{1,12})"')
_KINDS = {NoneType: "null", bool: "boolean", str: "string", list: "array", dict: "object"}
_encode = msgspec.json.Encoder().encode


class ErrorCode(StrEnum):
    """What is wrong with an evaluation, in the words of OpenFeature."""

    PARSE_ERROR = "PARSE_ERROR"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    GENERAL = "GENERAL"


class BadEvaluation(ValueError):
    """A request for an evaluation that cannot be one."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Metadata(msgspec.Struct, frozen=True):
    """What a flag's metadata tell: the decision's token, our own reason, the propensity, the snapshot."""

    decision: str
    reason: Reason
    propensity: float
    snapshot: int


class Evaluation(msgspec.Struct, frozen=True):
    """One evaluated flag."""

    key: str
    value: str
    reason: str
    variant: str
    metadata: Metadata


def read_question(body: bytes, forced: bytes | None) -> Asked:
    """For whom flags are evaluated.

    `targetingKey` is the unit; without one, or with an empty one, each evaluation is its own. What the body
    holds beside the context is left to later versions of the protocol.

    Raises:
        BadEvaluation: the body is no JSON object, or its context none.
    """
    try:
        document = msgspec.json.decode(body or b"{}")
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise BadEvaluation(ErrorCode.PARSE_ERROR, f"body must be JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadEvaluation(ErrorCode.PARSE_ERROR, f"body must be an object, got {_kind(document)}")
    context = document.get("context")
    context = {} if context is None else context
    if not isinstance(context, dict):
        raise BadEvaluation(ErrorCode.INVALID_CONTEXT, f"context must be an object, got {_kind(context)}")
    unit = context.pop("targetingKey", None)
    if not isinstance(unit, str | None):
        raise BadEvaluation(ErrorCode.INVALID_CONTEXT, f"targetingKey must be a string, got {_kind(unit)}")
    return Asked(unit or None, context, forced)


def basis_of(asked: Asked, version: int) -> bytes:
    """What evaluations depend on besides the state of this worker, the same however the context was written.

    Raises:
        BadEvaluation: the context is too deep.
    """
    try:
        return msgspec.json.encode((version, asked.forced, asked.unit, asked.context), order="sorted")
    except RecursionError as error:
        raise BadEvaluation(ErrorCode.PARSE_ERROR, f"context must be less deep: {error}") from error


def evaluation_of(route: Route, decision: Decision, version: int) -> Evaluation:
    """A decision as an evaluated flag."""
    assignment = decision.assignment
    name, reason = assignment.arm.name, assignment.reason
    propensity = assignment.propensity_bp / TOTAL_BP
    return Evaluation(
        route.name, name, reason_of(reason), name, Metadata(decision.token, reason, propensity, version)
    )


def reason_of(reason: Reason) -> str:
    """A decision's reason in the words of OpenFeature."""
    match reason:
        case Reason.SPLIT | Reason.BANDIT:
            return "SPLIT"
        case Reason.OVERRIDE | Reason.FORCED:
            return "TARGETING_MATCH"
        case Reason.STATIC | Reason.KILL_SWITCH | Reason.FALLBACK | Reason.DEFAULT:
            return "STATIC"
        case _:
            assert_never(reason)


class Flags(Question):
    """Evaluations, whose failures are told as the protocol wants it."""

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None:
            self.refuse(503, NO_SNAPSHOT, RETRY)  # a web provider takes 500 for good, and leaves what it kept
            return
        try:
            self.evaluate(routing, read_question(body, self.request.forced))
        except BadEvaluation as bad:
            self.fail(400, bad.code, str(bad))

    def evaluate(self, routing: Routing, asked: Asked) -> None:
        """Answers for whom it is asked.

        Raises:
            BadEvaluation: it cannot.
        """
        raise NotImplementedError

    def refuse(self, status: int, detail: str, lines: bytes = b"") -> None:
        self.fail(status, ErrorCode.GENERAL, detail, lines)

    def fail(self, status: int, code: ErrorCode, details: str, lines: bytes = b"") -> None:
        """Sends a failure of the protocol."""
        failure = {**self.subject(), "errorCode": code, "errorDetails": details}
        self.answer(status, _encode(failure), lines=lines)

    def subject(self) -> dict[str, str]:
        """What a failure is about."""
        return {}


class EvaluateFlag(Flags):
    """`POST /ofrep/v1/evaluate/flags/{route}`: one flag, whose decision is recorded."""

    call = "flag"

    def evaluate(self, routing: Routing, asked: Asked) -> None:
        name = self.subject()["key"]
        route = routing.table.by_name(name)
        if route is None:
            self.fail(404, ErrorCode.FLAG_NOT_FOUND, f"flag must be a route of the gateway's, got {name!r}")
            return
        done = partial(self._tell, routing, route)
        decide_for(self.worker, routing, route, asked, done, self.give_up)

    def _tell(self, routing: Routing, route: Route, decision: Decision) -> None:
        if not self.is_abandoned:
            answer = _encode(evaluation_of(route, decision, routing.version))
            self.record(decision)
            self.answer(200, answer)

    def subject(self) -> dict[str, str]:
        return {"key": self.request.path.removeprefix(FLAGS_PATH + "/")}


class EvaluateFlags(Flags):
    """`POST /ofrep/v1/evaluate/flags`: all flags, none of which is recorded; 304 for who has the answer."""

    call = "flags"

    def evaluate(self, routing: Routing, asked: Asked) -> None:
        bulk = Bulk(blake2b(basis_of(asked, routing.version), digest_size=16))
        count = len(routing.table.snapshot.routes)
        decided = Decided(count, partial(self._tell, routing, asked, bulk))
        self.in_slices(count, partial(self._collect, routing, asked, decided), decided.arrive)

    def _collect(self, routing: Routing, asked: Asked, decided: Decided, first: int, end: int) -> None:
        if self.is_abandoned or self.worker.routing is not routing:
            return
        for place, route in enumerate(routing.table.snapshot.routes[first:end], first):
            decided.expect()
            decide_for(self.worker, routing, route, asked, partial(decided.put, place), self.give_up)

    def _tell(self, routing: Routing, asked: Asked, bulk: Bulk, decisions: Sequence[Decision | None]) -> None:
        """Answers; where another snapshot has come in between, by that, as all flags are of one."""
        current = self.worker.routing
        if self.is_abandoned:
            return
        if current is not None and current is not routing:
            self.evaluate(current, asked)
            return
        for route, decision in zip(routing.table.snapshot.routes, decisions, strict=True):
            if decision is not None:
                bulk.add(route, decision, routing.version)
        now_ms = time.time_ns() // 1_000_000
        known = bulk.known_tag(self.request.field(b"if-none-match") or b"", now_ms)
        if known is not None:
            self.answer(304, b"", lines=b"ETag: W/%b\r\n" % known)
        else:
            self.answer(200, _encode({"flags": bulk.flags}), lines=b"ETag: W/%b\r\n" % bulk.tag(now_ms))


class Decided:
    """The decisions of all routes, of which some come later; `done` is told of them once, with all."""

    def __init__(self, count: int, done: Callable[[Sequence[Decision | None]], None]) -> None:
        self._decisions: list[Decision | None] = [None] * count
        self._done = done
        self._missing = 1

    def expect(self) -> None:
        """One more will arrive."""
        self._missing += 1

    def put(self, place: int, decision: Decision) -> None:
        """The decision of the route at a place."""
        self._decisions[place] = decision
        self.arrive()

    def arrive(self) -> None:
        """One that was expected is here, or there are no more to be expected."""
        self._missing -= 1
        if self._missing == 0:
            self._done(self._decisions)


@dataclass(slots=True)
class Bulk:
    """The flags evaluated so far, a hash of what their values depend on, and how long they may be kept.

    What is drawn anew for every decision would never be the same: of it, only that it was drawn is hashed.
    """

    hash: blake2b
    flags: list[msgspec.Raw] = field(default_factory=list)
    kept_ms: int = KEPT_MS

    def add(self, route: Route, decision: Decision, version: int) -> None:
        """Adds a route."""
        assignment, reason = decision.assignment, decision.assignment.reason
        has_unit = assignment.has_unit
        is_kept = has_unit and route.first_arm_ms is not None
        is_drawn = (reason is Reason.BANDIT and not is_kept) or (reason is Reason.SPLIT and not has_unit)
        lasting = ("", 0) if is_drawn else (assignment.arm.name, assignment.propensity_bp)
        self.hash.update(_encode((route.name, route.epoch, reason, *lasting)))
        self.flags.append(msgspec.Raw(_encode(evaluation_of(route, decision, version))))
        self.kept_ms = min(self.kept_ms, *(metric.window_ms // 2 for metric in route.metrics), KEPT_MS)

    def tag(self, now_ms: int) -> bytes:
        """The entity tag, but for its mark as a weak one: what the flags depend on, and when this is."""
        return b'"%b-%x"' % (self.hash.hexdigest().encode(), now_ms)

    def known_tag(self, tags: bytes, now_ms: int) -> bytes | None:
        """The tag among a caller's (If-None-Match) whose answer is as good as this one, and not too old."""
        for found in _TAG.finditer(tags):
            is_same = found[1] == self.hash.hexdigest().encode()
            if is_same and 0 <= now_ms - int(found[2], 16) < self.kept_ms:
                return found[0]
        return None


def _kind(value: object) -> str:
    """What JSON calls such a value."""
    return _KINDS.get(type(value), "number")
