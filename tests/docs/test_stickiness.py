"""The guide to stickiness is true: its route can be declared, its table says who moves."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from app.control.documents import parse_route
from app.gateway.first_arms import KNOWN
from app.gateway.settings import GatewaySettings
from app.stores.first_arms import FILE_NAME
from app.stores.first_arms_redis import PREFIX
from routing.assignment import Asked, Plan
from routing.bandit import BanditTerms, Learned
from routing.first_arm import FirstArm
from routing.types import Arm, Match, Role, Route
from routing.weights import lay_out

PAGE = (Path(__file__).parents[2] / "docs/stickiness.md").read_text()
UNITS = [f"u{number}" for number in range(3_000)]
LEARNT = BanditTerms(learned=Learned(at_ms=0, schema=0))
START = {1: 6_000, 2: 3_000, 3: 1_000}
CHANGES: dict[str, dict[str, Any]] = {
    "a challenger's share rises": {"weights": {1: 4_000, 2: 5_000, 3: 1_000}},
    "a challenger's share falls": {"weights": {1: 7_000, 2: 2_000, 3: 1_000}},
    "another challenger is added": {"weights": {1: 5_000, 2: 3_000, 3: 1_000, 4: 1_000}},
    "a challenger is left without a share, as by a rollback": {"weights": {1: 9_000, 2: 0, 3: 1_000}},
    "a challenger is promoted to 10,000": {"weights": {1: 0, 2: 10_000, 3: 0}, "champion": 2},
    "a [bandit](bandits.md) divides": {"weights": START, "bandit": LEARNT},
}


def divided(
    weights: dict[int, int], champion: int = 1, before: Route | None = None, bandit: BanditTerms | None = None
) -> Route:
    """A route of four arms with these shares."""
    arms = (1, 2, 3, 4)
    return Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/"),
        arms=tuple(
            Arm(
                id=arm,
                name=f"a{arm}",
                url="http://a",
                role=Role.CHAMPION if arm == champion else Role.CHALLENGER,
            )
            for arm in arms
        ),
        shares=lay_out(before.shares if before else (), weights, champion),
        salt="1:1",
        epoch=1,
        bandit=bandit,
        first_arm_ms=1,
    )


def moves(change: dict[str, Any], *, kept: bool) -> tuple[Counter[tuple[int, int]], Counter[int]]:
    """How many users move from which arm to which, and how many each had, in ten thousandths."""
    before = divided(START, bandit=change.get("bandit"))
    after = divided(before=before, **change)
    first: dict[str, FirstArm | None] = {}
    had: dict[str, int] = {}
    for route in (before, after):
        plan = Plan(route if kept else replace(route, first_arm_ms=None))
        now = {}
        for number, unit in enumerate(UNITS):
            at_ms = number + 10_000 * (route is after)
            assignment = plan.assign(Asked(unit, 0, at_ms=at_ms, first=first.get(unit)))
            first[unit] = plan.first_of(assignment, at_ms) or first.get(unit)
            now[unit] = assignment.arm.id
        if route is before:
            had = now
    moved = Counter((had[unit], now[unit]) for unit in UNITS if had[unit] != now[unit])
    return moved, Counter(had.values())


def table() -> dict[str, tuple[str, str]]:
    """The guide's table: what happens, who moves by hash, who moves with the first arm kept."""
    section = PAGE.split("\n## Who moves, and when\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(): (cells[1].strip(), cells[2].strip()) for cells in lines[2:]}


def test_the_table_has_each_change() -> None:
    """None is left out here."""
    assert table().keys() == CHANGES.keys()


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("kept", [False, True])
def test_who_moves_is_as_the_table_says(what: str, kept: bool) -> None:
    """Counted over 3,000 users."""
    moved, had = moves(CHANGES[what], kept=kept)
    total, most = sum(moved.values()), 3 * len(UNITS) / 100
    match table()[what][kept]:
        case "nobody":
            assert total == 0
        case "as many as it rises by, from the champion to it":
            assert moved.keys() == {(1, 2)}
            assert total == pytest.approx(0.2 * len(UNITS), abs=most)
        case "as many as it falls by, from it to the champion":
            assert moved.keys() == {(2, 1)}
            assert total == pytest.approx(0.1 * len(UNITS), abs=most)
        case "as many as its share, from the champion to it":
            assert moved.keys() == {(1, 4)}
            assert total == pytest.approx(0.1 * len(UNITS), abs=most)
        case "all that it had":
            assert {before for before, _ in moved} == {2}
            assert total == had[2]
        case "all that others had":
            assert {after for _, after in moved} == {2}
            assert total == had[1] + had[3]
        case "anybody, at each decision":
            assert total > len(UNITS) / 2
        case other:
            pytest.fail(f"the table says {other!r}")


def test_the_route_of_the_guide_can_be_declared() -> None:
    """With units that keep their arms for ninety days, which is also what is left out."""
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    document = yaml.safe_load(block)
    spec = parse_route(document)
    assert spec.first_arm_ms == 90 * 86_400_000
    del document["stickiness"]["keep"]
    assert parse_route(document).first_arm_ms == spec.first_arm_ms


def test_the_figures_of_the_guide_are_those_of_the_code() -> None:
    """How long is waited, how much is remembered, and where it is kept."""
    assert f"`first_arm_seconds` ({1000 * GatewaySettings().first_arm_seconds:.0f} ms)" in PAGE
    assert f"A worker remembers {KNOWN:,} units" in PAGE
    assert f"`{FILE_NAME}`" in PAGE
    assert f"`{PREFIX}ROUTE:HASH`" in PAGE
