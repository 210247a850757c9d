"""Claims about the health of all arms: what outlives a snapshot, and who is asked whatever it is."""

from __future__ import annotations

from typing import Any

import pytest

from app.gateway.health import Admission, ArmHealth, Condition, Fleet, may_be_asked
from routing.types import Arm, Ejection, Match, Role, Route, Share, Upstream

YES, NO = Admission.YES, Admission.NO


def fail(health: ArmHealth, times: int, now: float) -> None:
    """Attempts that begin and fail at once."""
    for _ in range(times):
        health.failed(now, now)


def arm(arm_id: int, role: Role = Role.CHALLENGER, url: str = "http://127.0.0.1:1") -> Arm:
    """An arm at a URL."""
    return Arm(id=arm_id, name=f"arm{arm_id}", url=url, role=role)


def route_of(*arms: Arm, **upstream: Any) -> Route:
    """A route whose champion is arm 1."""
    champion = arm(1, Role.CHAMPION)
    return Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=(champion, *arms),
        shares=(Share(arm_id=1, start_bp=0, end_bp=10_000),),
        salt="salt",
        epoch=1,
        upstream=Upstream(**upstream),
    )


def fleet_of(*arms: Arm, **upstream: Any) -> Fleet:
    """A fleet that has adopted one route."""
    fleet = Fleet()
    fleet.adopt((route_of(*arms, **upstream),))
    return fleet


def test_health_outlives_snapshots() -> None:
    """An arm that stays where it is stays as it is, a row of failures included."""
    fleet = fleet_of(arm(2))
    fail(fleet.of(2), 4, 0.0)
    fleet.adopt((route_of(arm(2), arm(3)),))
    fail(fleet.of(2), 1, 1.0)
    fleet.adopt((route_of(arm(2), timeout_ms=9_000),))
    assert fleet.of(2).admit(2.0) is NO
    assert set(fleet.known) == {1, 2}


def test_changed_rules_reach_the_arms() -> None:
    """A snapshot with other rules changes them for arms that stay."""
    fleet = fleet_of(arm(2))
    fail(fleet.of(2), 3, 0.0)
    fleet.adopt((route_of(arm(2), ejection=Ejection(consecutive_failures=4)),))
    fail(fleet.of(2), 1, 0.0)
    assert fleet.of(2).barred


def test_an_arm_that_moved_starts_anew() -> None:
    """What failed was at the other address."""
    fleet = fleet_of(arm(2))
    before = fleet.of(2)
    fail(before, 5, 0.0)
    fleet.adopt((route_of(arm(2, url="http://127.0.0.1:2")),))
    assert fleet.of(2) is not before
    assert fleet.of(2).admit(0.0) is YES


def test_an_arm_that_is_gone_is_forgotten() -> None:
    """It is not kept in memory; a request that still needs it finds it well."""
    fleet = fleet_of(arm(2))
    fail(fleet.of(2), 5, 0.0)
    fleet.adopt((route_of(),))
    assert set(fleet.known) == {1}
    assert fleet.of(2).admit(0.0) is YES
    assert set(fleet.known) == {1}
    assert repr(fleet) == "<Fleet of 1 arms, 0 barred>"


def test_the_champion_is_always_asked() -> None:
    """There is nobody else: it is measured like any arm, and asked whatever comes of it."""
    fleet = fleet_of()
    champion, health = arm(1, Role.CHAMPION), fleet.of(1)
    fail(health, 5, 0.0)
    health.set_well(False, 0.0)
    assert may_be_asked(champion, health, 1.0)
    assert health.condition(1.0) is Condition.FAILING_CHECKS


def test_the_champion_is_found_well_again() -> None:
    """Requests that it is sent anyway serve as its probes, every base time."""
    fleet = fleet_of()
    champion, health = arm(1, Role.CHAMPION), fleet.of(1)
    fail(health, 5, 0.0)
    for now in (10.0, 20.0, 30.0):
        assert may_be_asked(champion, health, now)
        assert health.failed(now, now) is True
    assert may_be_asked(champion, health, 40.0)
    assert may_be_asked(champion, health, 40.0)
    assert health.succeeded(40.0, 40.1) is True
    assert health.condition(40.1) is Condition.WELL


@pytest.mark.parametrize("role", [Role.CHALLENGER, Role.SHADOW])
def test_other_arms_are_asked_while_they_are_admitted(role: Role) -> None:
    """A challenger or a shadow that is ejected is not asked; its probe is."""
    fleet = fleet_of(arm(2, role))
    health = fleet.of(2)
    assert may_be_asked(arm(2, role), health, 0.0)
    fail(health, 5, 0.0)
    assert not may_be_asked(arm(2, role), health, 1.0)
    assert may_be_asked(arm(2, role), health, 10.0)
    assert not may_be_asked(arm(2, role), health, 10.0)


def test_a_role_that_changes_is_minded() -> None:
    """A challenger that was promoted while ejected is asked at once."""
    fleet = fleet_of(arm(2))
    fail(fleet.of(2), 5, 0.0)
    fleet.adopt((route_of(arm(2)),))
    assert not may_be_asked(arm(2), fleet.of(2), 1.0)
    assert may_be_asked(arm(2, Role.CHAMPION), fleet.of(2), 1.0)
