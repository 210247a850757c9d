"""What the operations of the control plane share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from fastapi import Request

from app.control.places import Places
from app.db.errors import DatabaseError
from app.db.session import Database
from app.publisher import Publisher
from app.stores.first_arms import Store
from routing.errors import RoutingError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """`keyless`: whether calls without a key are let in while no key exists; `places`: where arms may be.

    `first_arms`: where gateways keep the first arms of units; None: nowhere that can be looked at.
    """

    database: Database
    publisher: Publisher
    keyless: bool
    places: Places = field(default_factory=Places)
    first_arms: Store | None = None

    async def publish(self) -> None:
        """Tell the gateways of a change that is committed. If that fails, the jobs do it a moment later."""
        try:
            await self.publisher.publish()
        except (OSError, DatabaseError, RoutingError) as error:
            _log.error("snapshot_not_published", extra={"fields": {"error": repr(error)}})


def context_of(request: Request) -> Context:
    """A dependency: the context of the running app."""
    context: Context = request.app.state.context
    return context
