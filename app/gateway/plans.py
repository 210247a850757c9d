"""How does a route assign of which something cannot be read? Without that, and with all the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec.structs import replace

from routing.assignment import Plan
from routing.types import Route


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what was left out of it because of what was wrong; nothing where it is whole."""

    plan: Plan
    left_out: str | None = None
    error: Exception | None = None


def planned(route: Route, before: Plan | None) -> Planned:
    """The plan of a route; whatever is wrong with what an experiment declares, the champion's path stays.

    A bandit that has lost its context cannot choose, and leaves its traffic to the champion.
    """
    try:
        return Planned(Plan(route, before))
    except Exception as error:
        for left_out, rest in _rests(route):
            if (plan := _made(rest)) is not None:
                return Planned(plan, left_out, error)
        raise


def _rests(route: Route) -> Iterator[tuple[str, Route]]:
    """What is left of a route, the most of it first."""
    readable = tuple(each for each in route.overrides if _made(_alone(route, each.id)) is not None)
    ids = [each.id for each in route.overrides if each not in readable]
    without = f"overrides {ids}"
    yield without, replace(route, overrides=readable)
    yield "context", replace(route, context=())
    yield f"context and {without}", replace(route, context=(), overrides=readable)
    yield "context and all overrides", replace(route, context=(), overrides=())
    yield "context, all overrides and bandit", replace(route, context=(), overrides=(), bandit=None)


def _alone(route: Route, override_id: int) -> Route:
    """A route with one override, and nothing else that may be wrong."""
    alone = tuple(each for each in route.overrides if each.id == override_id)
    return replace(route, context=(), overrides=alone, bandit=None)


def _made(route: Route) -> Plan | None:
    try:
        return Plan(route)
    except Exception:  # noqa: BLE001  # it is tried with less
        return None
