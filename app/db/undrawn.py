"""How many decisions of a route were not drawn, so that its log says nothing of other choices by them?"""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.decision_log import Span
from app.db.routes import StoredRoute
from app.db.tables import decisions
from app.decision_logs import DRAWN


async def count_undrawn(connection: AsyncConnection, route: StoredRoute, span: Span) -> int:
    """Those of a span, all of them, whose arm was certain, or was asked for."""
    query = select(func.count()).where(
        decisions.c.route_id == route.id,
        decisions.c.at_ms >= span.from_ms,
        decisions.c.at_ms <= span.to_ms,
        decisions.c.reason.not_in([reason.value for reason in DRAWN]),
    )
    return int((await connection.execute(query)).scalar_one())
