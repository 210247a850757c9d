"""What a gateway worker writes down: an event per decision and per outcome, with what the token says."""

from __future__ import annotations

import msgspec

from routing.tokens import Claims

CALLER_LEFT = 499
"""The status of an exchange whose caller left before it had an answer."""


class DecisionEvent(msgspec.Struct, frozen=True, kw_only=True, tag="decision"):
    """One decision, written at the end of its exchange.

    `served_arm_id` is None when nobody answered, or when only the decision was asked for; `status` is what
    the caller got. `error` and `latency_ms` are of the assigned arm's own attempt; None: not measured.
    """

    decision: Claims
    served_arm_id: int | None
    status: int | None
    error: bool | None
    latency_ms: float | None


class OutcomeEvent(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """One accepted value of a metric. Times are Unix ms; `key` tells repeats from further outcomes."""

    decision: Claims
    metric: str
    value: float
    at_ms: int
    received_at_ms: int
    key: str


Event = DecisionEvent | OutcomeEvent

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Event).decode
