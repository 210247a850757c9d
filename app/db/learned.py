"""What are gateways told of a route's bandit: its terms, and what it has learnt, if that can be trusted?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import bandits
from app.db.bandits import BanditState
from app.db.routes import StoredRoute
from policies.bandits import BanditSpec
from policies.lessons import Lessons
from routing.bandit import BanditTerms, Learned
from routing.errors import RoutingError
from routing.learning import learned_of

_UNTRUSTWORTHY = (RoutingError, ValueError, ArithmeticError, LookupError)

_log = logging.getLogger(__name__)


async def load_terms(connection: AsyncConnection, routes: Sequence[StoredRoute]) -> dict[int, BanditTerms]:
    """The terms of those routes that have a bandit, by route id.

    Without what was learnt where that is damaged, which is logged, or of another meaning, or not all of it
    yet: then the champion answers.
    """
    learning = [(route, route.spec.bandit) for route in routes if route.spec.bandit is not None]
    if not learning:
        return {}
    ids = [route.id for route, _ in learning]
    states, rows = await bandits.find_states(connection, ids), await bandits.sums_rows(connection, ids)

    def work_out() -> dict[int, BanditTerms]:
        return {
            route.id: _terms(route, bandit, states.get(route.id), rows.get(route.id, {}))
            for route, bandit in learning
        }

    return await asyncio.to_thread(work_out)


def serving_ids(route: StoredRoute) -> list[int]:
    """The ids of the arms among which a bandit chooses."""
    return [route.arm_ids[arm.name] for arm in route.spec.arms if arm.answers]


def _terms(
    route: StoredRoute, bandit: BanditSpec, state: BanditState | None, rows: Mapping[int, bytes]
) -> BanditTerms:
    is_binary, learned = False, None
    try:
        lessons = Lessons(bandit, route.spec.metrics, route.spec.context)
        is_binary = lessons.is_binary
        learned = _learned(route, lessons, state, rows)
    except _UNTRUSTWORTHY as error:
        _log.error("bandit_not_trusted", extra={"fields": {"route": route.name, "error": str(error)}})
    return BanditTerms(
        floor_bp=bandit.floor_bp,
        caps_bp={route.arm_ids[arm]: cap for arm, cap in bandit.caps.items() if arm in route.arm_ids},
        warm_up=bandit.warm_up,
        is_binary=is_binary,
        is_apprentice=bandit.apprentice,
        learned=learned,
    )


def _learned(
    route: StoredRoute, lessons: Lessons, state: BanditState | None, rows: Mapping[int, bytes]
) -> Learned | None:
    if state is None or not state.caught_up or state.meaning != lessons.meaning:
        return None
    bandits.check(state)
    sums = bandits.sums_of(rows, serving_ids(route), lessons.width)
    return learned_of(sums, lessons.bandit.discount, lessons.schema, state.learned_at_ms)
