"""Up to which moment is everything that gateways have written down in the database?

Each recorder says so of the spools in its folder, and of all together the earliest moment holds. A spool
whose worker has died is read to its end like any other, and one that nobody writes to has nothing more: they
hold nothing back. Spools that cannot be read do, and so does a recorder that is not heard of, for an hour.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import recorders

GONE_MS = 3_600_000
"""A recorder that is not heard of for so long is gone, and whatever its spools still hold comes late."""


class Mark(NamedTuple):
    """Up to when a recorder has everything, and when it was last heard of (Unix ms)."""

    recorder_id: str
    through_ms: int
    heard_at_ms: int


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
    """One whose folder is recorded, and nobody writes to any more, holds nothing back. The last one stays."""
    other = recorders.alias()
    has_others = exists(select(other.c.id).where(other.c.id != recorder_id))
    await connection.execute(delete(recorders).where(recorders.c.id == recorder_id, has_others))


async def slowest(connection: AsyncConnection) -> Mark | None:
    """For whom all others wait; None: nobody has recorded anything yet."""
    query = select(recorders.c.id, recorders.c.through_ms, recorders.c.heard_at_ms)
    row = (await connection.execute(query.order_by(recorders.c.through_ms).limit(1))).first()
    return None if row is None else Mark(*row)


async def recorded_through(connection: AsyncConnection) -> int:
    """All events before this moment are in the database (Unix ms); 0: who knows."""
    mark = await slowest(connection)
    return 0 if mark is None else mark.through_ms
