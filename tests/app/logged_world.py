"""A route whose arms earn what is known, and its log: as rows of a database, and as lines of a file.

Users come from DE or FR. `new` converts more of those from DE and fewer of those from FR than `old` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

from app.clock import now_ms
from app.control.documents import document_of, plain
from app.db import recorders
from app.db.decisions import insert_decisions, write_outcomes
from app.db.routes import StoredRoute
from app.db.session import Database
from app.events.types import DecisionEvent, OutcomeEvent
from policies.metrics import Metric
from policies.spec import RouteSpec
from policies.types import Aggregate, Better, Kind
from routing.claims import Claims, decision_id
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind, Value
from routing.types import TOTAL_BP, Reason
from tests.app.db.stage import HOUR_MS, START_MS, route_spec

RATES = {("old", "DE"): 0.2, ("old", "FR"): 0.4, ("new", "DE"): 0.5, ("new", "FR"): 0.1}
FROM_DE = 0.6

CONTEXT = (
    Feature(
        name="country",
        source=Source(kind=SourceKind.HEADER, name="X-Country"),
        type=FeatureType.CATEGORICAL,
        values=("DE", "FR"),
    ),
    Feature(
        name="hour",
        source=Source(kind=SourceKind.HEADER, name="X-Hour"),
        type=FeatureType.NUMERIC,
        maximum=23.0,
    ),
)
METRICS = (
    Metric("conversion", Kind.BINARY, window_ms=HOUR_MS),
    Metric("revenue", Kind.CONTINUOUS, window_ms=HOUR_MS, aggregate=Aggregate.SUM),
    Metric("cost", Kind.CONTINUOUS, Better.LOWER, window_ms=HOUR_MS),
)
SPEC: RouteSpec = replace(route_spec(metrics=METRICS), context=CONTEXT)

EVEN: Mapping[str, int] = {"DE": 5_000, "FR": 5_000}
"""The share of `new`, in basis points, by country."""


def value(new: Mapping[str, float]) -> float:
    """How many convert where users from each country get `new` with this probability."""
    of = {"DE": FROM_DE, "FR": 1 - FROM_DE}
    return sum(
        of[country] * (new[country] * RATES["new", country] + (1 - new[country]) * RATES["old", country])
        for country in of
    )


@dataclass(frozen=True, slots=True)
class Visit:
    """One decision, and what came of it. The outcomes are metric → value."""

    claims: Claims
    arm: str
    context: Mapping[str, Value] | None
    outcomes: Mapping[str, float]
    first_at_ms: int | None = None


def visits(
    arm_ids: Mapping[str, int],
    n: int = 2_000,
    seed: int = 1,
    *,
    share: Mapping[str, int] = EVEN,
    units: int | None = None,
    every_ms: int = 1_000,
    reason: Reason = Reason.SPLIT,
    route_id: int = 1,
    first: int = 0,
) -> list[Visit]:
    """A log, oldest first, a visit every so often from START_MS on. Of so many units; None: each its own.

    Visits are numbered from `first` on, whatever their route: no two of a database may have one number.
    """
    random = np.random.default_rng(seed)
    found: list[Visit] = []
    for number in range(first, first + n):
        country = "DE" if random.random() < FROM_DE else "FR"
        is_new = random.random() < share[country] / TOTAL_BP
        arm = "new" if is_new else "old"
        converted = random.random() < RATES[arm, country]
        claims = Claims(
            route_id=route_id,
            arm_id=arm_ids[arm],
            unit_hash=int(random.integers(units)) if units else number,
            has_unit=units is not None,
            reason=reason,
            propensity_bp=share[country] if is_new else TOTAL_BP - share[country],
            epoch=1,
            snapshot=1,
            at_ms=START_MS + number * every_ms,
            nonce=number,
        )
        outcomes = {"conversion": 1.0, "revenue": float(random.integers(1, 9))} if converted else {}
        found.append(Visit(claims, arm, {"country": country, "hour": float(number % 24)}, outcomes))
    return found


async def record(
    database: Database, route: StoredRoute, log: Sequence[Visit], through_ms: int | None = None
) -> None:
    """Write a log as the recorder does, up to now; outcomes come a second after their decision."""
    version = Encoder(route.spec.context).version if route.spec.context else 0
    decisions = [
        DecisionEvent(
            decision=visit.claims,
            served_arm_id=visit.claims.arm_id,
            status=200,
            error=False,
            latency_ms=8.0,
            schema=version,
            context=visit.context,
            first_at_ms=visit.first_at_ms,
        )
        for visit in log
    ]
    outcomes = [
        (_outcome(visit, metric, value), f"spool:{number:016d}")
        for number, visit in enumerate(log)
        for metric, value in visit.outcomes.items()
    ]
    async with database.transaction() as connection:
        await insert_decisions(connection, decisions, [])
        await write_outcomes(connection, outcomes)
        await recorders.note(connection, "a" * 32, now_ms(), through_ms or now_ms())


def lines(log: Sequence[Visit]) -> Iterator[dict[str, object]]:
    """A log as events of a file: decisions, each followed by its outcomes."""
    for visit in log:
        claims, decision = visit.claims, decision_id(visit.claims)
        line: dict[str, object] = {
            "type": "decision",
            "id": decision,
            "arm": visit.arm,
            "propensity": claims.propensity_bp / TOTAL_BP,
            "at": time_of(claims.at_ms),
            "reason": claims.reason.value,
        }
        if claims.has_unit:
            line["unit"] = f"{claims.unit_hash:016x}"
        if visit.context is not None:
            line["context"] = visit.context
        if visit.first_at_ms is not None:
            line["first_at"] = time_of(visit.first_at_ms)
        yield line
        for metric, value in visit.outcomes.items():
            at = time_of(claims.at_ms + 1_000)
            yield {"type": "outcome", "decision": decision, "metric": metric, "value": value, "at": at}


def write_files(folder: Path, spec: RouteSpec, log: Sequence[Visit]) -> tuple[str, str]:
    """The file that declares the route, and the one with the events."""
    route, events = folder / "route.yaml", folder / "events.ndjson"
    route.write_text(yaml.safe_dump(plain(document_of(spec))))
    events.write_text("".join(json.dumps(line) + "\n" for line in lines(log)))
    return str(route), str(events)


def time_of(at_ms: int) -> str:
    """Unix milliseconds as a line has them."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _outcome(visit: Visit, metric: str, value: float) -> OutcomeEvent:
    at_ms = visit.claims.at_ms + 1_000
    return OutcomeEvent(
        decision=visit.claims, metric=metric, value=value, at_ms=at_ms, received_at_ms=at_ms, key=""
    )
