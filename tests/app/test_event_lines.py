"""Lines of events are read whatever their order, and refused by number, field, bound and value."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import event_lines
from app.event_lines import MOST_ERRORS, BadEvents, Decision, Events, read_events
from policies.metrics import Metric, Outcome
from policies.types import Kind
from routing.types import Reason

METRICS = (Metric("conversion", Kind.BINARY), Metric("revenue", Kind.CONTINUOUS))
AT = "2025-01-06T00:00:00Z"
AT_MS = 1_736_121_600_000
FIRST_AT = "2025-01-05T23:59:59Z"

Line = dict[str, Any]


def decision(number: int = 1, **changes: object) -> Line:
    """A decision with its required fields; None leaves one out."""
    plain = {"type": "decision", "id": f"d{number}", "arm": "old", "propensity": 0.5, "at": AT}
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def outcome(number: int = 1, **changes: object) -> Line:
    """A conversion of a decision, at the same time."""
    plain = {"type": "outcome", "decision": f"d{number}", "metric": "conversion", "value": 1, "at": AT}
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def encoded(*lines: Line | bytes) -> bytes:
    """Lines as they stand in a file."""
    return b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)


def read(*lines: Line | bytes) -> Events:
    """What these lines say."""
    return read_events(io.BytesIO(encoded(*lines)), "file", METRICS)


def refused(*lines: Line | bytes) -> list[str]:
    """What is said of each bad line."""
    with pytest.raises(BadEvents) as caught:
        read(*lines)
    return [str(error) for error in caught.value.errors]


def test_a_line_is_a_decision_or_an_outcome() -> None:
    """With all that they may say; what an outcome does not say of its reception is when it happened."""
    found = read(
        decision(unit="u1", context={"country": "DE", "more": [1]}, reason="BANDIT", first_at=FIRST_AT),
        outcome(value=True, at="2025-01-06T01:00:00.0014+01:00"),
        outcome(metric="revenue", value=-3, id="k", received_at="2025-01-06T00:00:02Z"),
    )
    assert found == Events(
        decisions=(
            Decision(
                id="d1",
                arm="old",
                propensity=0.5,
                at_ms=AT_MS,
                unit="u1",
                context={"country": "DE", "more": [1]},
                reason=Reason.BANDIT,
                first_at_ms=AT_MS - 1_000,
            ),
        ),
        outcomes={
            "d1": {
                "conversion": [Outcome(1.0, AT_MS + 1, AT_MS + 1, "000000000002")],
                "revenue": [Outcome(-3.0, AT_MS, AT_MS + 2_000, "000000000003")],
            }
        },
        conflicts=0,
        last_ms=AT_MS + 2_000,
    )


def test_what_may_be_left_out_may_be_null() -> None:
    """A decision without a unit is its own; one without context or reason says nothing of them."""
    null = {"unit": None, "context": None, "reason": None, "first_at": None}
    assert read({**decision(), **null}) == read(decision())
    assert read() == Events(decisions=(), outcomes={}, conflicts=0, last_ms=0)


@given(st.permutations(range(8)))
def test_the_order_of_lines_is_no_matter(order: list[int]) -> None:
    """As long as no two outcomes of one identity were received in the same millisecond."""
    lines = [
        decision(2, at="2025-01-06T00:00:05Z"),
        decision(1),
        decision(3),
        outcome(1),
        outcome(1, value=0, at="2025-01-06T00:00:01Z"),
        outcome(2, metric="revenue", value=7, id="a", at="2025-01-06T00:00:09Z"),
        outcome(2, metric="revenue", value=8, id="b", at="2025-01-06T00:00:09Z"),
        decision(1),
    ]
    found = read(*(lines[place] for place in order))
    assert [each.id for each in found.decisions] == ["d1", "d3", "d2"]
    assert [each.value for each in found.outcomes["d1"]["conversion"]] == [1.0]
    assert sorted(each.value for each in found.outcomes["d2"]["revenue"]) == [7.0, 8.0]
    assert (found.conflicts, found.last_ms) == (1, AT_MS + 9_000)


def test_of_repeats_the_one_received_first_stands() -> None:
    """Then the one on the smaller line; a repeat with the same value is no conflict."""
    late, early = "2025-01-06T00:00:02Z", "2025-01-06T00:00:01Z"
    found = read(decision(), outcome(value=1, received_at=late), outcome(value=0, received_at=early))
    assert [each.value for each in found.outcomes["d1"]["conversion"]] == [0.0]
    assert found.conflicts == 1
    found = read(decision(), outcome(value=1), outcome(value=0), outcome(value=1))
    assert [each.value for each in found.outcomes["d1"]["conversion"]] == [1.0]
    assert found.conflicts == 1
    assert read(decision(), outcome(), outcome()).conflicts == 0


def test_a_decision_may_be_repeated_only_as_it_was() -> None:
    """The same line twice is one decision; another arm under the same id is refused, with both lines."""
    assert len(read(decision(), decision()).decisions) == 1
    (said,) = refused(decision(), decision(2), decision(arm="new"))
    assert said == "line 3: id must be new or repeat line 1 in all, got 'd1'"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "must be a JSON object, and is not JSON: Input data was truncated"),
        (b"{", "must be a JSON object, and is not JSON: Input data was truncated"),
        (b"\xff", "must be a JSON object, and is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b"[1]", "must be a JSON object, got [1]"),
        (b"[" * 100_000, "must be a JSON object, and is not JSON: maximum recursion depth exceeded"),
        (b'{"type": "click"}', "type must be decision or outcome, got 'click'"),
        (b'{"type": ["decision"]}', "type must be decision or outcome, got ['decision']"),
        (b"{}", "type must be decision or outcome, got None"),
        (decision(propensity=None), "propensity is required"),
        (outcome(at=None), "at is required"),
        (
            decision(colour="red"),
            "'colour' is not a known field (arm, at, context, first_at, id, propensity, reason, unit)",
        ),
        (outcome(key="k"), "'key' is not a known field (at, decision, id, metric, received_at, value)"),
        (decision(id=7), "id must be text, got 7"),
        (decision(id=""), "id must be 1 to 256 characters long, got 0"),
        (decision(id="x" * 257), "id must be 1 to 256 characters long, got 257"),
        (decision(arm="Old"), "arm must match [a-z0-9][a-z0-9._-]{0,62}, got 'Old'"),
        (decision(arm=1), "arm must match [a-z0-9][a-z0-9._-]{0,62}, got 1"),
        (decision(propensity=0), "propensity must be in [1e-09, 1], got 0"),
        (decision(propensity=1.5), "propensity must be in [1e-09, 1], got 1.5"),
        (decision(propensity="0.5"), "propensity must be a number, got '0.5'"),
        (decision(propensity=True), "propensity must be a number, got True"),
        (decision(at=0), "at must be a time such as 2026-01-31T12:00:00Z, got 0"),
        (decision(at="now"), "at must be a time such as 2026-01-31T12:00:00Z, got 'now'"),
        (decision(at="2025-01-06T00:00:00"), "at must carry its time zone, as in 2025-01-06T00:00:00Z, got "),
        (decision(at="1969-12-31T23:59:59Z"), "at must be from 1970 to 9999, got '1969-12-31T23:59:59Z'"),
        (decision(at="9999-12-31T23:59:59-01:00"), "at must be from 1970 to 9999, got "),
        (decision(unit=5), "unit must be text, got 5"),
        (decision(context=[]), "context must be a JSON object, got []"),
        (decision(reason="LUCK"), "reason must be one of STATIC, SPLIT, BANDIT, "),
        (decision(reason=1), "reason must be one of STATIC, SPLIT, BANDIT, "),
        (
            decision(first_at="soon"),
            "first_at must be a time such as 2026-01-31T12:00:00Z, got 'soon'",
        ),
        (
            decision(first_at="2025-01-06T00:01:00.001Z"),
            "first_at must not be after at, got '2025-01-06T00:01:00.001Z'",
        ),
        (outcome(decision=1), "decision must be text, got 1"),
        (
            outcome(metric="clicks"),
            "metric must be one that the route declares (conversion, revenue), got 'clicks'",
        ),
        (outcome(metric=None, value=1), "metric is required"),
        (outcome(value=2), "value must be 0, 1, true or false for conversion, got 2"),
        (outcome(value="1"), "value must be 0, 1, true or false for conversion, got '1'"),
        (outcome(metric="revenue", value=True), "value must be a number, got True"),
        (outcome(metric="revenue", value=1e16), "value must be in [-1e+15, 1e+15], got 1e+16"),
        (outcome(metric="revenue", value="x" * 100), "value must be a number, got '" + "x" * 79 + "…"),
        (outcome(id=1), "id must be text, got 1"),
        (
            outcome(received_at="later"),
            "received_at must be a time such as 2026-01-31T12:00:00Z, got 'later'",
        ),
    ],
)
def test_a_line_that_cannot_be_is_refused(line: Line | bytes, said: str) -> None:
    """With its number, the field, the bound and the value."""
    (found,) = refused(decision(99), line, decision(98))
    assert found.startswith(f"line 2: {said}")


def test_an_outcome_belongs_to_a_decision_of_the_file() -> None:
    """Said when all lines are known; clocks may differ by a minute."""
    assert refused(outcome(2), decision()) == ["line 1: decision must be one of the file, got 'd2'"]
    read(outcome(at="2025-01-05T23:59:00Z"), decision())
    assert refused(outcome(at="2025-01-05T23:58:59.999Z"), decision()) == [
        "line 1: at must not be before its decision in line 2, got 60001 ms before"
    ]


def test_a_decision_that_cannot_be_read_is_not_missed_by_its_outcomes() -> None:
    """One error, and not one more for each of its outcomes."""
    assert len(refused(decision(arm="Old"), outcome(), outcome(id="2"))) == 1


def test_errors_are_named_up_to_a_bound() -> None:
    """And counted beyond it."""
    with pytest.raises(BadEvents) as caught:
        read(*[decision(arm="Old")] * (MOST_ERRORS + 5))
    assert (len(caught.value.errors), caught.value.total) == (MOST_ERRORS, MOST_ERRORS + 5)
    lines = str(caught.value).splitlines()
    assert lines[0] == "file: 25 lines cannot be read"
    assert lines[1].startswith("  line 1: arm must match")
    assert lines[-1] == "  and 5 more"
    assert str(BadEvents("file", caught.value.errors[:1], 1)).startswith(
        "file: 1 line cannot be read\n  line 1:"
    )


def test_a_line_that_is_too_long_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is, the next line is read as the next."""
    monkeypatch.setattr(event_lines, "MOST_LINE_BYTES", 200)
    for length in (201, 401, 402, 1_000):
        assert refused(b" " * length, decision(arm="Old"))[0] == (
            "line 1: must be at most 200 bytes long, got more"
        )
        assert refused(b" " * length, decision(arm="Old"))[1].startswith("line 2: arm")
    read(decision(unit="u" * 20))


def test_progress_is_told_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, and all of them at the end."""
    monkeypatch.setattr(event_lines, "_TOLD_EVERY", 2)
    data, told = encoded(*(decision(number) for number in range(5))), list[int]()
    read_events(io.BytesIO(data), "file", METRICS, told.append)
    assert (len(told), sum(told)) == (3, len(data))


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fall_over(data: bytes) -> None:
    """They are events, or refused."""
    with suppress(BadEvents):
        assert read_events(io.BytesIO(data), "file", METRICS).decisions == ()
