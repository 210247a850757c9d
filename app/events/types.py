"""What a gateway worker writes down: an event per decision, outcome and copy, with what the token says.

Written as JSON arrays, the kind of event first: a third of the size of objects. Fields are only ever added,
at the end and with a default, so that what an earlier version has written can be read.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from routing.claims import Claims
from routing.features import Value

CALLER_LEFT = 499
"""The status of an exchange whose caller left before it had an answer."""


class DecisionEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="decision"):
    """One decision, written at the end of its exchange.

    `served_arm_id` is None when nobody answered, or when only the decision was asked for; `status` is what
    the caller got. `error` and `latency_ms` are of the assigned arm's own attempt; None: not measured.
    `context` holds the declared features that were there, read by the version `schema` of their declaration.
    `considered_bp`: with which probability a bandit that is an apprentice would have chosen the arm.
    `first_at_ms`: where the unit keeps the arm of an earlier decision, when that was (Unix ms).
    `confirmed`: it is no worker's own account, but says that the decision of a bulk answer was put to use.
    """

    decision: Claims
    served_arm_id: int | None
    status: int | None
    error: bool | None
    latency_ms: float | None
    override_id: int | None = None
    schema: int = 0
    context: Mapping[str, Value] | None = None
    considered_bp: int | None = None
    first_at_ms: int | None = None
    confirmed: bool = False


class OutcomeEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="outcome"):
    """One accepted value of a metric. Times are Unix ms; `key` tells repeats from further outcomes."""

    decision: Claims
    metric: str
    value: float
    at_ms: int
    received_at_ms: int
    key: str


class ArmAnswer(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What an arm answered. `status` is None when no answer began; `failure` says why there is no whole one.

    `body_hash` is BLAKE2b, 16 bytes, hexadecimal, of the whole body as it was sent; None when there is none,
    or a very long one. `predictions`: the route's declared fields, null where the answer does not name them.
    """

    arm_id: int
    status: int | None
    failure: str | None
    latency_ms: float
    body_hash: str | None
    body_bytes: int
    predictions: dict[str, float | str | None]


class ShadowEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="shadow"):
    """One copy of a request to a shadow arm, written when both answers are known, at `at_ms` (Unix ms).

    `primary` is what the caller got for the same decision; None when no arm answered, or the caller left.
    """

    decision: Claims
    at_ms: int
    shadow: ArmAnswer
    primary: ArmAnswer | None


Event = DecisionEvent | OutcomeEvent | ShadowEvent

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode
