"""What divides a route's traffic is told in a few words, and after each change of its timeline."""

from __future__ import annotations

from typing import Any

import pytest

from app.commands.splits import by_bandit, share_of, split_line

BANDIT = {"mode": "thompson", "apprentice": False, "floor": 100, "cap": {}}
WEIGHTS = {"mode": "weights", "weights": {"old": 9_000, "new": 1_000}}


def entry(number: int, kind: str = "override_added", evidence: Any = None) -> dict[str, Any]:
    """A row of a timeline."""
    return {"id": number, "kind": kind, "evidence": evidence}


def difference(field: str, before: Any, after: Any) -> dict[str, Any]:
    """A field that a declaration has changed."""
    return {"field": field, "before": before, "after": after}


TO_BANDIT = [difference("split.mode", "weights", "thompson"), difference("split.apprentice", None, False)]
TO_APPRENTICE = [difference("split.apprentice", False, True)]


@pytest.mark.parametrize(
    ("entries", "now", "found"),
    [
        ([entry(2), entry(1, "route_created")], "thompson", {1, 2}),
        ([entry(2), entry(1, "route_created")], "apprentice", set()),
        ([entry(2), entry(1)], None, set()),
        ([entry(3), entry(2, "split_changed", BANDIT), entry(1)], "thompson", {2, 3}),
        ([entry(3), entry(2, "split_changed", WEIGHTS), entry(1)], "weights", {1}),
        ([entry(3), entry(2, "split_changed", WEIGHTS), entry(1)], None, {1}),
        ([entry(3, "split_changed"), entry(2, "route_changed", TO_BANDIT), entry(1)], None, {2, 3}),
        ([entry(3), entry(2, "route_changed", TO_APPRENTICE), entry(1)], "apprentice", {1}),
        ([entry(2, "route_changed", [difference("arms.new.url", "a", "b")]), entry(1)], "thompson", {1, 2}),
        ([], "thompson", set()),
    ],
)
def test_it_is_known_when_a_bandit_divided(
    entries: list[dict[str, Any]], now: str | None, found: set[int]
) -> None:
    """From what changed it, and from what divides now; elsewhere shares stand as they are."""
    assert by_bandit(entries, now) == found


def test_a_split_is_told_in_a_line() -> None:
    """Shares, or the terms of a bandit."""
    assert split_line(WEIGHTS) == "old 9000, new 1000"
    assert split_line({**BANDIT, "cap": {"new": 500}}) == "thompson, floor 100, cap new 500"
    assert split_line({**BANDIT, "apprentice": True}) == "apprentice, floor 100"


@pytest.mark.parametrize(
    ("split", "share"),
    [(WEIGHTS, 1_000), (BANDIT, "bandit"), ({**BANDIT, "apprentice": True}, 0)],
)
def test_a_challenger_has_a_share_of_weights_alone(split: dict[str, Any], share: object) -> None:
    """A shadow has none of any."""
    assert share_of(split, {"name": "new", "role": "challenger"}) == share
    assert share_of(split, {"name": "dark", "role": "shadow"}) == 0
