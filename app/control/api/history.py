"""What was judged, what changed, who was champion when, and what was measured day by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query

from app.clock import now_ms
from app.control.api.parameters import Before, Limit, RouteName, Scope
from app.control.auth import Viewer
from app.control.presentation import champion_view, entry_view, evaluation_view
from app.control.views import ChampionView, DayArm, Evaluations, Metrics, MetricSums, Timeline
from app.db import evaluations, rollups, timeline
from app.db.errors import NotFound
from app.db.routes import arm_names, find_route_id, load_route
from app.db.tables import DECISIONS
from policies.errors import BadSpec
from policies.rollups import Sums

router = APIRouter(tags=["history"])

_PAGE = 100
_LAST_MILLISECOND = time(23, 59, 59, 999_000)
_LAST_MS = 253_402_300_799_999
"""The end of the year 9999 in UTC, which is as far as a time can be written."""

_At = Annotated[datetime | None, Query(description="RFC 3339; by default now.")]
_Challenger = Annotated[str | None, Query(description="Only those of this challenger.")]
_From = Annotated[str | None, Query(alias="from", description="First day: a date, or a time (RFC 3339).")]
_To = Annotated[str | None, Query(description="Last day, included: a date, or a time (RFC 3339).")]


@router.get("/routes/{route}/evaluations")
async def read_evaluations(
    name: RouteName,
    context: Scope,
    _: Viewer,
    limit: Limit = _PAGE,
    before: Before = None,
    challenger: _Challenger = None,
) -> Evaluations:
    """The runs of the policy, newest first: evidence, verdict, streak, action."""
    async with context.database.read() as connection:
        route_id = await find_route_id(connection, name)
        found = await evaluations.latest_evaluations(connection, route_id, limit, before, challenger)
    return Evaluations(
        evaluations=[evaluation_view(evaluation_id, evaluation) for evaluation_id, evaluation in found],
        next=found[-1][0] if len(found) == limit else None,
    )


@router.get("/routes/{route}/timeline")
async def read_timeline(
    name: RouteName, context: Scope, _: Viewer, limit: Limit = _PAGE, before: Before = None
) -> Timeline:
    """Everything that changed the route, newest first: what, who, why, on what evidence."""
    async with context.database.read() as connection:
        route_id = await find_route_id(connection, name)
        found = await timeline.latest(connection, route_id, limit, before)
    return Timeline(
        timeline=[entry_view(entry) for entry in found],
        next=found[-1].id if len(found) == limit else None,
    )


@router.get("/routes/{route}/champion")
async def read_champion(name: RouteName, context: Scope, _: Viewer, at: _At = None) -> ChampionView:
    """Who was champion at a moment, since when, until when, and on what evidence."""
    at_ms = now_ms() if at is None else unix_ms("at", at)
    async with context.database.read() as connection:
        route_id = await find_route_id(connection, name)
        reign = await timeline.champion_at(connection, route_id, at_ms)
    if reign is None:
        raise NotFound(f"route {name!r} had no champion at that time: it did not exist")
    return champion_view(name, at_ms, reign)


@router.get("/routes/{route}/metrics")
async def read_metrics(
    name: RouteName, context: Scope, _: Viewer, first: _From = None, to: _To = None
) -> Metrics:
    """Daily sums by assigned arm, oldest first, at most a thousand days."""
    async with context.database.read() as connection:
        route = await load_route(connection, name)
        zone = ZoneInfo(route.spec.policy.timezone)
        from_ms = _start_ms("from", first, zone) if first is not None else 0
        to_ms = _end_ms("to", to, zone) if to is not None else now_ms()
        found = await rollups.daily_sums(connection, route.id, from_ms, to_ms)
        names = await arm_names(connection, route.id)
    return Metrics(days=_days(found, names))


def _days(found: list[rollups.DailySums], names: dict[int, str]) -> list[DayArm]:
    rows: dict[tuple[int, str, int], list[rollups.DailySums]] = defaultdict(list)
    for sums in found:
        rows[sums.day_start_ms, sums.day, sums.arm_id].append(sums)
    return [
        _day_arm(day, names.get(arm_id, str(arm_id)), parts)
        for (_, day, arm_id), parts in sorted(rows.items())
    ]


def _day_arm(day: str, arm: str, parts: list[rollups.DailySums]) -> DayArm:
    decisions = [part for part in parts if part.metric == DECISIONS]
    return DayArm(
        day=day,
        arm=arm,
        decisions=sum(part.sums.n for part in decisions),
        deciding=sum(part.sums.n for part in decisions if part.deciding),
        metrics=_by_metric(part for part in parts if not part.late),
        late=_by_metric(part for part in parts if part.late),
    )


def _by_metric(parts: Iterable[rollups.DailySums]) -> dict[str, MetricSums]:
    totals: dict[str, Sums] = defaultdict(Sums)
    for part in parts:
        if part.metric != DECISIONS:
            totals[part.metric] += part.sums
    return {name: _metric(sums) for name, sums in sorted(totals.items()) if sums.n}


def _metric(sums: Sums) -> MetricSums:
    return MetricSums(n=sums.n, sum=sums.total, mean=sums.mean)


def _start_ms(field: str, text: str, zone: ZoneInfo) -> int:
    day = _date(text)
    return unix_ms(field, datetime.combine(day, time.min, zone) if day else _instant(field, text))


def _end_ms(field: str, text: str, zone: ZoneInfo) -> int:
    """The last millisecond of a date, or the moment itself: the day that begins by then is included."""
    day = _date(text)
    if day is None:
        return unix_ms(field, _instant(field, text))
    return unix_ms(field, datetime.combine(day, _LAST_MILLISECOND, zone))


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == len("2026-01-31") else None
    except ValueError:
        return None


def _instant(field: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        bound = "must be a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z"
        raise BadSpec(field, f"{bound}, got {text!r}") from error


def unix_ms(field: str, at: datetime) -> int:
    """A time in Unix milliseconds.

    Raises:
        BadSpec: it has no time zone, or is too late to be written.
    """
    if at.tzinfo is None:
        raise BadSpec(field, f"must carry its time zone, as in {at.replace(tzinfo=UTC).isoformat()}")
    if (at_ms := round(at.timestamp() * 1000)) > _LAST_MS:
        raise BadSpec(field, f"must be before the year 10000 in UTC, got {at.isoformat()}")
    return at_ms
