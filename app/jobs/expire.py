"""What of overrides is over: which have expired, and is it on the timeline; and what is shown no more?

Gateways go by the time, and need not be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from app.db import overrides, rollouts, timeline
from app.db.errors import Conflict, DatabaseError, NotFound
from app.db.overrides import StoredOverride
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection, Database
from app.db.timeline import Entry, Kind
from app.jobs.evaluate import POLICY

MOST_AT_ONCE = 500
"""How many of a route are noted in one transaction; the others wait for the next run."""

MOST_FORGOTTEN = 5_000
"""How many hours of matches are forgotten in one transaction."""


async def expire(database: Database, now_ms: int) -> None:
    """Write each expiry to its route's timeline, once, and end the override.

    A route that somebody else changes at the same time is left to the next run.

    Raises:
        DatabaseError: that of a route where it failed; the others are done.
    """
    broken: DatabaseError | None = None
    async with database.read() as connection:
        names = await overrides.routes_with_expired(connection, now_ms)
    for name in names:
        try:
            async with database.transaction() as connection:
                await _expire_of(connection, await load_route(connection, name), now_ms)
        except (Conflict, NotFound):
            continue
        except DatabaseError as error:
            broken = error
    if broken is not None:
        raise broken


async def forget_matches(database: Database, now_ms: int) -> bool:
    """Forget what overrides have matched in hours that no listing shows; True when there may be more of that.

    Raises:
        DatabaseUnavailable: nothing was forgotten.
    """
    async with database.transaction() as connection:
        return await overrides.forget_matches(connection, now_ms, MOST_FORGOTTEN) == MOST_FORGOTTEN


async def _expire_of(connection: Connection, route: StoredRoute, now_ms: int) -> None:
    expired = await overrides.expired_overrides(connection, route.id, now_ms, MOST_AT_ONCE)
    if not expired:
        return
    await overrides.end_overrides(connection, [override.id for override in expired], now_ms)
    await _note(connection, route, expired, now_ms)


async def _note(
    connection: Connection, route: StoredRoute, expired: Sequence[StoredOverride], now_ms: int
) -> None:
    """One change of the route, with an entry for each."""
    first, *others = [_entry(override) for override in expired]
    saved = await rollouts.save(connection, route, route.rollout, first, now_ms)
    for entry in others:
        await timeline.append(connection, route.id, saved.rollout, saved.version, entry, now_ms)


def _entry(override: StoredOverride) -> Entry:
    expired_at = datetime.fromtimestamp((override.expires_at_ms or 0) / 1000, UTC)
    reason = f"expired at {expired_at.isoformat(timespec='milliseconds').replace('+00:00', 'Z')}"
    return Entry(Kind.OVERRIDE_EXPIRED, POLICY, reason, override.arm, evidence=override)
