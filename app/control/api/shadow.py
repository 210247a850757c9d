"""How do the answers of shadow arms agree with those that callers got?"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from app.clock import now_ms
from app.control.api.history import unix_ms
from app.control.api.parameters import RouteName, Scope
from app.control.auth import Viewer
from app.control.presentation import moment
from app.control.shadows import ShadowReport, agreement_view
from app.db.routes import arm_names, find_route_id
from app.db.shadows import agreements

router = APIRouter(tags=["history"])

_DAY_MS = 86_400_000

_From = Annotated[
    datetime | None, Query(alias="from", description="RFC 3339; by default a day before the end.")
]
_To = Annotated[datetime | None, Query(description="RFC 3339, included; by default now.")]


@router.get("/routes/{route}/shadow")
async def read_shadow(
    name: RouteName, context: Scope, _: Viewer, first: _From = None, to: _To = None
) -> ShadowReport:
    """How often shadow arms answered, and agreed with the arm that answered the same request's caller."""
    to_ms = max(0, unix_ms("to", to)) if to is not None else now_ms()
    from_ms = max(0, unix_ms("from", first) if first is not None else to_ms - _DAY_MS)
    async with context.database.read() as connection:
        route_id = await find_route_id(connection, name)
        names = await arm_names(connection, route_id)
        found = await agreements(connection, route_id, names, from_ms, to_ms)
    return ShadowReport(
        route=name,
        since=moment(from_ms),
        until=moment(to_ms),
        arms=[agreement_view(names[agreement.arm_id], agreement) for agreement in found],
    )
