"""Who decides is as the one table says that the guide to overrides shows, in every combination."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from routing.assignment import Asked, Assignment, Plan
from routing.features import Value
from routing.first_arm import FirstArm
from routing.rules import Condition, Op, Override
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route
from routing.weights import lay_out

GUIDE = (Path(__file__).parents[2] / "docs/overrides.md").read_text()
COLUMNS = (("on", "off"), ("honoured", "ignored", "none"), ("holds", "holds for none"), ("kept", "none"))

ARMS = (
    Arm(id=1, name="champion", url="http://a", role=Role.CHAMPION),
    Arm(id=2, name="asked for", url="http://b", role=Role.CHALLENGER),
    Arm(id=3, name="pinned", url="http://c", role=Role.CHALLENGER),
    Arm(id=4, name="drawn", url="http://d", role=Role.CHALLENGER),
    Arm(id=5, name="kept", url="http://e", role=Role.CHALLENGER),
)
FIRST = FirstArm(5, 1, Reason.BANDIT, 1, 0, {1: 9_000, 5: 1_000})
ANSWERS = {
    "the champion": "champion",
    "the arm that is asked for": "asked for",
    "the override's arm": "pinned",
    "the first arm": "kept",
    "by the split": "drawn",
}
REASONS = {"that of the first decision": FIRST.reason}


class User:
    """A request of which only the user is known."""

    def value(self, attribute: str) -> Value | None:
        """The unit."""
        return "u1" if attribute == "unit" else None


def _table() -> list[list[str]]:
    """The rows under *Who comes first*, cell by cell."""
    section = GUIDE.split("\n## Who comes first\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def _meant(cell: str, values: tuple[str, ...]) -> tuple[str, ...]:
    """What a cell stands for."""
    return values if cell == "any" else tuple(re.split(", ", cell))


def _cases() -> list[tuple[tuple[str, ...], str, str]]:
    """Each combination that the table has, with who answers and why."""
    return [
        (combination, row[4], row[5].strip("`"))
        for row in _table()
        for combination in product(
            *(_meant(cell, values) for cell, values in zip(row, COLUMNS, strict=False))
        )
    ]


def _assigned(switch: str, asked_for: str, override: str, first: str) -> Assignment:
    """What is assigned in a combination. A split that gives all to one arm makes a draw of no account."""
    shares = lay_out((), {1: 1, 2: 0, 3: 0, 4: TOTAL_BP - 2, 5: 1}, 1)
    when = (Condition(attribute="unit", op=Op.EQUALS, values=("u1" if override == "holds" else "u2",)),)
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/"),
        arms=ARMS,
        shares=shares,
        salt="1:1",
        epoch=1,
        overrides=(Override(id=7, arm_id=3, when=when),),
        allow_force=asked_for == "honoured",
        kill_switch=switch == "on",
        first_arm_ms=1,
    )
    forced = None if asked_for == "none" else "asked for"
    kept = FIRST if first == "kept" else None
    return Plan(route).assign(Asked("u1", 0, forced, subject=User(), first=kept))


def test_the_table_has_every_combination_once() -> None:
    """None is left out, and no two rows disagree."""
    assert sorted(combination for combination, _, _ in _cases()) == sorted(product(*COLUMNS))


@pytest.mark.parametrize(("combination", "who", "why"), _cases(), ids=str)
def test_who_decides_is_as_the_table_says(combination: tuple[str, ...], who: str, why: str) -> None:
    """Arm, reason, and the override's id where it was one; what is certain has propensity 1."""
    answer = _assigned(*combination)
    assert (answer.arm.name, answer.reason) == (ANSWERS[who], REASONS.get(why) or Reason(why))
    assert answer.override_id == (7 if answer.reason is Reason.OVERRIDE else None)
    drawn = {Reason.SPLIT: TOTAL_BP - 2, Reason.BANDIT: FIRST.propensity_bp}
    assert answer.propensity_bp == drawn.get(answer.reason, TOTAL_BP)
    assert (answer.first is FIRST) == (answer.reason is Reason.BANDIT)


def test_the_oldest_of_equals_comes_first() -> None:
    """And the highest priority before it, as the guide says below the table."""
    assert (
        "the highest `priority` (0 to 1,000,000, by default 100) comes first, and of equals the oldest"
        in GUIDE
    )
    for priorities, first in (((100, 100), 1), ((100, 101), 2), ((0, 0), 1), ((1, 0), 1)):
        overrides = tuple(
            Override(id=number, arm_id=number, when=(), priority=priority)
            for number, priority in enumerate(priorities, 1)
        )
        route = Route(
            id=1,
            name="bid",
            match=Match(path_prefix="/"),
            arms=ARMS,
            shares=lay_out((), {1: TOTAL_BP}, 1),
            salt="1:1",
            epoch=1,
            overrides=overrides,
        )
        assert Plan(route).assign(Asked(None, 0, subject=User())).override_id == first
