"""An override, from the wire to what is stored and back. What cannot be is refused, all of it at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from math import isfinite
from typing import Annotated

from pydantic import ConfigDict, Field, PlainValidator, StrictInt

from app.control import examples
from app.control.documents import BadDeclaration
from app.control.presentation import moment
from app.control.schemas import Document, Instant, Text
from app.control.views import View
from app.db.overrides import Matched, Room, StoredOverride, spec_text
from app.db.routes import StoredRoute
from policies.errors import BadSpec
from routing.features import Value
from routing.overrides import problems_of
from routing.patterns import size_of
from routing.rules import TOTAL_SHARE_BP, Condition, Op
from routing.types import SERVING

MOST_OVERRIDES = 2_000
"""How many a route may have at a time."""

MOST_CHARACTERS = 4 * 1024 * 1024
"""How many characters their conditions may take together: every gateway worker holds them in memory, and
works them out anew when one of them changes."""

MOST_BYTES = 512 * 1024
"""How many bytes of JSON one may come to: all of it is written to the timeline when it begins and ends."""

MOST_EXPRESSIONS = 100
"""How many conditions with `matches` a route may have."""

MOST_INSTRUCTIONS = 5_000
"""What they may compile to together: what the worst of them cost a request adds up, to some milliseconds."""

_NEVER = Matched(0, 0, None)
_CONTEXT = "context."


def _scalar(value: object) -> Value:
    if isinstance(value, str | bool):
        return value
    try:
        number = float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise ValueError("must be text, a finite number, true or false")
    return number


Scalar = Annotated[Value, PlainValidator(_scalar, json_schema_input_type=Value)]


class ConditionDocument(Document):
    """What must hold of a request. `attribute`: unit, path, method, header.NAME or context.NAME."""

    attribute: str = Field(examples=["unit"])
    op: Op
    values: list[Scalar] = Field(
        default=[], description="One; several for in and not_in; none, true or false for exists."
    )


class OverrideDocument(Document):
    """Pins the requests for which all conditions hold to an arm; without conditions, all requests."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [examples.OVERRIDE]}
    )

    arm: str = Field(examples=["gbm-v7"])
    when: list[ConditionDocument] = Field(default=[])
    share: StrictInt = Field(
        default=TOTAL_SHARE_BP, description="Of how many of the units, by their hash, in basis points."
    )
    priority: StrictInt = Field(default=100, description="The highest comes first, of equals the oldest.")
    expires_at: Instant | None = Field(default=None, description="It has no effect from then on.")
    reason: Text = Field(examples=["asked for by the customer"])


class OverrideState(StrEnum):
    """Whether an override has an effect."""

    ACTIVE = "active"
    EXPIRED = "expired"
    ARM_NOT_SERVING = "arm_not_serving"


class ConditionView(View):
    """What must hold of a request."""

    attribute: str
    op: Op
    values: list[Value]


class MatchedView(View):
    """How many decisions an override has pinned, counted by whole hours of UTC."""

    last_hour: int = Field(description="In this hour of the clock and the one before.")
    last_day: int = Field(description="In this hour of the clock and the 24 before.")
    last_at: datetime | None = Field(default=None, description="When it last did; null: never.")


class OverrideView(View):
    """An override: whom it pins to which arm, who made it, and whether it has an effect."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [examples.MADE_OVERRIDE]})

    id: int
    arm: str
    when: list[ConditionView]
    share: int
    priority: int
    author: str
    reason: str
    created_at: datetime
    expires_at: datetime | None = None
    state: OverrideState
    matched: MatchedView


class Overrides(View):
    """A route's overrides, in their order of precedence."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [examples.OVERRIDES]})

    overrides: list[OverrideView]


def wanted_of(
    document: OverrideDocument, route: StoredRoute, author: str, expires_at_ms: int | None, now_ms: int
) -> StoredOverride:
    """The override that is asked for, checked; its id is 0 until it is stored.

    Raises:
        BadDeclaration: it cannot be, on this route.
    """
    when = tuple(
        Condition(attribute=condition.attribute, op=condition.op, values=tuple(condition.values))
        for condition in document.when
    )
    found = [BadSpec(*problem) for problem in problems_of(when, document.share, document.priority)]
    found += [*_arm_problems(document.arm, route), *_context_problems(when, route)]
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        bound = f"must be later than now, {moment(now_ms).isoformat()}"
        found.append(BadSpec("expires_at", f"{bound}, got {moment(expires_at_ms).isoformat()}"))
    if found:
        raise BadDeclaration("override", found)
    wanted = StoredOverride(
        id=0,
        arm=document.arm,
        arm_id=route.arm_ids[document.arm],
        when=when,
        share_bp=document.share,
        priority=document.priority,
        expires_at_ms=expires_at_ms,
        author=author,
        reason=document.reason,
        created_at_ms=now_ms,
    )
    _require_small(wanted)
    return wanted


def require_room(room: Room, wanted: StoredOverride) -> None:
    """Refuse one that is too many.

    Raises:
        BadSpec: the route has as many overrides, or conditions as long, as it may have.
    """
    if room.overrides >= MOST_OVERRIDES:
        bound = f"must be at most {MOST_OVERRIDES} of a route"
        raise BadSpec("overrides", f"{bound}, got {room.overrides + 1}: remove some first")
    if (characters := room.characters + len(spec_text(wanted))) > MOST_CHARACTERS:
        bound = f"must come to at most {MOST_CHARACTERS} characters with those of the route's other overrides"
        raise BadSpec("when", f"{bound}, got {characters}")


def require_few_expressions(others: Iterable[StoredOverride], wanted: StoredOverride) -> None:
    """Refuse one with expressions where the route's overrides have as many, or as large ones, as they may.

    Raises:
        BadSpec: so it is.
    """
    found = expressions_of(wanted)
    if not found:
        return
    every = [*found, *(expression for other in others for expression in expressions_of(other))]
    with_others = "with those of the route's other overrides"
    if (count := len(every)) > MOST_EXPRESSIONS:
        bound = f"must hold at most {MOST_EXPRESSIONS} conditions with matches"
        raise BadSpec("when", f"{bound} {with_others}, got {count}: remove some first")
    if (size := sum(map(size_of, every))) > MOST_INSTRUCTIONS:
        bound = f"must hold expressions of at most {MOST_INSTRUCTIONS} instructions of RE2"
        raise BadSpec("when", f"{bound} {with_others}, got {size}: make them shorter, or remove some")


def expressions_of(override: StoredOverride) -> list[str]:
    """The regular expressions of its conditions."""
    return [str(condition.values[0]) for condition in override.when if condition.op is Op.MATCHES]


def override_view(
    override: StoredOverride, route: StoredRoute, now_ms: int, matched: Matched = _NEVER
) -> OverrideView:
    """An override of a route, as it is now."""
    return OverrideView(
        id=override.id,
        arm=override.arm,
        when=[
            ConditionView(attribute=condition.attribute, op=condition.op, values=list(condition.values))
            for condition in override.when
        ],
        share=override.share_bp,
        priority=override.priority,
        author=override.author,
        reason=override.reason,
        created_at=moment(override.created_at_ms),
        expires_at=None if override.expires_at_ms is None else moment(override.expires_at_ms),
        state=_state(override, route, now_ms),
        matched=_matched_view(matched),
    )


def _require_small(wanted: StoredOverride) -> None:
    if (size := len(spec_text(wanted).encode())) > MOST_BYTES:
        bound = f"must come to at most {MOST_BYTES} bytes as JSON, got {size}"
        raise BadDeclaration("override", [BadSpec("when", bound)])


def _arm_problems(name: str, route: StoredRoute) -> Iterator[BadSpec]:
    serving = [arm.name for arm in route.spec.arms if arm.role in SERVING]
    if name not in serving:
        bound = f"must be an arm of route {route.name!r} that answers callers ({', '.join(serving)})"
        yield BadSpec("arm", f"{bound}, got {name!r}")


def _context_problems(when: tuple[Condition, ...], route: StoredRoute) -> Iterator[BadSpec]:
    declared = [feature.name for feature in route.spec.context]
    for place, condition in enumerate(when):
        name = condition.attribute.removeprefix(_CONTEXT)
        if name != condition.attribute and name and name not in declared:
            bound = (
                f"must name a feature that route {route.name!r} declares ({', '.join(declared) or 'none'})"
            )
            yield BadSpec(f"when.{place}.attribute", f"{bound}, got {condition.attribute!r}")


def _state(override: StoredOverride, route: StoredRoute, now_ms: int) -> OverrideState:
    if override.is_expired(now_ms):
        return OverrideState.EXPIRED
    serving = {route.arm_ids[arm.name] for arm in route.spec.arms if arm.role in SERVING}
    return OverrideState.ACTIVE if override.arm_id in serving else OverrideState.ARM_NOT_SERVING


def _matched_view(matched: Matched) -> MatchedView:
    last = None if matched.last_at_ms is None else moment(matched.last_at_ms)
    return MatchedView(last_hour=matched.last_hour, last_day=matched.last_day, last_at=last)
