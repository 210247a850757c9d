"""Up to which moment is everything that gateways have written down in the database?

Each recorder says so of the spools in its folder, and of all together the earliest moment holds. A spool
whose worker has died is read to its end like any other, and one that nobody writes to has nothing more: they
hold nothing back. Spools that cannot be read do, and so does a recorder that is not heard of, for a day.
"""

from __future__ import annotations

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import recorders
from policies.days import CALENDAR_DAY_MS

GONE_MS = CALENDAR_DAY_MS
"""A recorder that is not heard of for so long is gone, and whatever its spools still hold comes late."""


async def note(
    connection: AsyncConnection, recorder_id: str, now_ms: int, through_ms: int | None = None
) -> None:
    """Note that a recorder is at work, and up to when it has recorded everything; None: as far as before.

    Of a new one nothing is known, so it is noted before it records anything. Who is gone is forgotten.
    """
    news = {"heard_at_ms": now_ms} | ({} if through_ms is None else {"through_ms": through_ms})
    statement = upsert(connection, recorders).values({"id": recorder_id, "through_ms": 0, **news})
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=news))
    await connection.execute(delete(recorders).where(recorders.c.heard_at_ms < now_ms - GONE_MS))


async def forget(connection: AsyncConnection, recorder_id: str) -> None:
    """One whose folder is recorded, and nobody writes to any more, holds nothing back."""
    await connection.execute(delete(recorders).where(recorders.c.id == recorder_id))


async def recorded_through(connection: AsyncConnection) -> int:
    """All events before this moment are in the database (Unix ms); 0: who knows."""
    earliest = func.coalesce(func.min(recorders.c.through_ms), 0)
    return int((await connection.execute(select(earliest))).scalar_one())
