"""Is the control plane alive and able to serve, and how do its routes stand, for Prometheus?"""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from app.control.api.parameters import Scope
from app.control.auth import Viewer
from app.control.errors import RESPONSES
from app.control.views import Ready
from app.db import decisions, versions
from app.db.routes import StoredRoute, load_routes

router = APIRouter(tags=["health"])

_FIGURES: dict[int | str, dict[str, object]] = {
    200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **{status: RESPONSES[status] for status in (401, 403, 503)},
}


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: RESPONSES[503]})
async def ready(context: Scope) -> Ready:
    """The database answers; `snapshot` is the version that gateways should route by."""
    async with context.database.read() as connection:
        return Ready(status="ok", snapshot=await versions.current(connection))


@router.get("/metrics", response_class=Response, responses=_FIGURES)
async def figures(context: Scope, _: Viewer) -> Response:
    """Shares, streaks and switches of every route, in the Prometheus text format."""
    async with context.database.read() as connection:
        registry = _registry(
            await load_routes(connection),
            await versions.current(connection),
            await decisions.total_mark(connection),
        )
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _registry(routes: list[StoredRoute], version: int, mark: decisions.SpoolMark) -> CollectorRegistry:
    registry = CollectorRegistry()
    share = Gauge("kingmaker_arm_share_bp", "The arm's share.", ["route", "arm", "role"], registry=registry)
    streak = Gauge("kingmaker_winning_days", "Winning days in a row.", ["route", "arm"], registry=registry)
    killed = Gauge("kingmaker_kill_switch", "1: all to the champion.", ["route"], registry=registry)
    paused = Gauge("kingmaker_suspended", "1: automatic steps are suspended.", ["route"], registry=registry)
    for route in routes:
        for arm in route.spec.arms:
            share.labels(route.name, arm.name, arm.role.value).set(route.rollout.share(arm.name))
        for trial in route.rollout.active_trials:
            streak.labels(route.name, trial.arm).set(trial.streak.winning)
        killed.labels(route.name).set(route.rollout.kill_switch)
        paused.labels(route.name).set(route.rollout.suspended)
    for name, text, value in (
        ("kingmaker_current_snapshot_version", "The version that gateways should route by.", version),
        ("kingmaker_recorded_events", "Events that the database holds.", mark.seq),
        ("kingmaker_conflicting_outcomes", "Repeated outcomes with another value.", mark.conflicts),
        ("kingmaker_unreadable_events", "Events that could not be attributed.", mark.unreadable),
    ):
        Gauge(name, text, registry=registry).set(value)
    return registry
