"""Which trace does a request belong to? W3C Trace Context, level 1: read strictly, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_IDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(rb"00%b|(?!00|ff)[0-9a-f]{2}%b(?:-.*)?" % (_IDS, _IDS))
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER = re.compile((_KEY + r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]").encode())
_MOST_MEMBERS = 32
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """What a traceparent says; `state` is the tracestate that came with it, empty where it had none."""

    trace_id: int
    span_id: int
    sampled: bool
    state: bytes

    @property
    def lines(self) -> bytes:
        """The header lines that say so."""
        flags = _SAMPLED if self.sampled else 0
        line = b"traceparent: 00-%032x-%016x-%02x\r\n" % (self.trace_id, self.span_id, flags)
        return line + b"tracestate: %b\r\n" % self.state if self.state else line


def is_traceparent(value: bytes) -> bool:
    """Whether it names a trace. A later version than 00 does, if it begins as 00 does."""
    return _TRACEPARENT.fullmatch(value) is not None


def context_of(received: Mapping[bytes, bytes]) -> TraceContext | None:
    """The trace that the fields of a request name; None where they name none, or not properly."""
    value = received.get(b"traceparent")
    if value is None or not is_traceparent(value):
        return None
    _, trace_id, span_id, flags = value.split(b"-")[:4]
    sampled = bool(int(flags, 16) & _SAMPLED)
    return TraceContext(int(trace_id, 16), int(span_id, 16), sampled, tracestate_of(received) or b"")


def tracestate_of(received: Mapping[bytes, bytes]) -> bytes | None:
    """The tracestate that came, if it is one."""
    state = received.get(b"tracestate")
    return state if state and _is_state(state) else None


def _is_state(value: bytes) -> bool:
    """Whether it is a tracestate: at most 32 members, each with a key of its own; empty ones do no harm."""
    members = [member.strip(b" \t") for member in value.split(b",") if member.strip(b" \t")]
    keys = {member.partition(b"=")[0] for member in members}
    return len(keys) == len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
