"""What shadow arms answered, each copy once, and how far that agrees with what callers got."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import shadow_answers
from app.events.types import ArmAnswer, ShadowEvent
from routing.claims import decision_id

MOST_COMPARED = 10_000
"""Copies of an arm, the newest ones, whose predictions are compared at once."""

MOST_LABEL_PAIRS = 100
"""Pairs of labels that are told apart for a prediction, the most frequent ones."""

_Predictions = Mapping[str, float | str | None]
_decode = msgspec.json.Decoder(dict[str, float | str | None]).decode


@dataclass(frozen=True, slots=True)
class LabelPair:
    """How often the primary said one thing and the shadow arm the other, which may be the same."""

    primary: str
    shadow: str
    n: int


@dataclass(frozen=True, slots=True)
class PredictionAgreement:
    """How two arms agree on a field. `missing`: answers of which at least one does not name it.

    `mean_absolute_difference` is over numbers, None without any; `labels` are the most frequent pairs of
    labels, and `other_labels` counts the rest.
    """

    n: int
    missing: int
    equal: int
    mean_absolute_difference: float | None
    labels: tuple[LabelPair, ...]
    other_labels: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a shadow arm's answers agree with those that callers got.

    Of `copies`, `answered` came to a whole answer; for `paired` of these the caller had one too, and what
    follows is about those: equal statuses, equal bodies among the `hashed` (both short enough), mean
    latencies in ms. Predictions are those of the newest `compared` pairs.
    """

    arm_id: int
    copies: int
    answered: int
    paired: int
    same_status: int
    hashed: int
    same_body: int
    latency_ms: float | None
    primary_latency_ms: float | None
    compared: int
    predictions: Mapping[str, PredictionAgreement]


async def insert_answers(connection: AsyncConnection, events: Sequence[ShadowEvent]) -> None:
    """Write copies; of one that is already here nothing changes."""
    if not events:
        return
    statement = upsert(connection, shadow_answers)
    identity = ["decision_id", "arm_id"]
    await connection.execute(
        statement.on_conflict_do_nothing(index_elements=identity), [_row(event) for event in events]
    )


async def agreements(
    connection: AsyncConnection, route_id: int, arm_ids: Collection[int], from_ms: int, to_ms: int
) -> list[Agreement]:
    """The agreement of each of these arms that had copies in [from_ms, to_ms], by arm id."""
    table = shadow_answers.c
    asked = (
        table.route_id == route_id,
        table.arm_id.in_(list(arm_ids)),
        table.at_ms >= from_ms,
        table.at_ms <= to_ms,
    )
    query = select(table.arm_id, *_counts()).where(*asked).group_by(table.arm_id).order_by(table.arm_id)
    found = (await connection.execute(query)).mappings().all()
    return [await _agreement(connection, row, asked) for row in found]


def _counts() -> list[ColumnElement[Any]]:
    table = shadow_answers.c
    paired = and_(table.failure.is_(None), table.primary_status.is_not(None))
    hashed = and_(paired, table.body_hash.is_not(None), table.primary_body_hash.is_not(None))
    counted = {
        "answered": table.failure.is_(None),
        "paired": paired,
        "same_status": and_(paired, table.status == table.primary_status),
        "hashed": hashed,
        "same_body": and_(hashed, table.body_hash == table.primary_body_hash),
    }
    return [
        func.count().label("copies"),
        *(func.count(case((what, 1))).label(name) for name, what in counted.items()),
        func.avg(case((paired, table.latency_ms))).label("latency_ms"),
        func.avg(case((paired, table.primary_latency_ms))).label("primary_latency_ms"),
    ]


async def _agreement(
    connection: AsyncConnection, row: RowMapping, asked: Sequence[ColumnElement[bool]]
) -> Agreement:
    table = shadow_answers.c
    query = (
        select(table.primary_predictions, table.predictions)
        .where(*asked, table.arm_id == row["arm_id"])
        .where(table.failure.is_(None), table.primary_status.is_not(None))
        .order_by(table.at_ms.desc())
        .limit(MOST_COMPARED)
    )
    pairs = (await connection.execute(query)).all()
    return Agreement(
        **row,
        compared=len(pairs),
        predictions=await asyncio.to_thread(_compare, [(pair[0], pair[1]) for pair in pairs]),
    )


def _compare(pairs: Iterable[tuple[str, str]]) -> dict[str, PredictionAgreement]:
    """What two arms predicted on the same requests, field by field; each pair holds JSON."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for primary_text, shadow_text in pairs:
        primary, shadow = _decode(primary_text), _decode(shadow_text)
        for name in {**primary, **shadow}:
            tallies[name].add(primary.get(name), shadow.get(name))
    return {name: tallies[name].agreement() for name in sorted(tallies)}


@dataclass(slots=True)
class _Tally:
    """Pairs of one prediction, added up."""

    missing: int = 0
    numbers: int = 0
    equal_numbers: int = 0
    difference: float = 0.0
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, primary: float | str | None, shadow: float | str | None) -> None:
        if isinstance(primary, str) and isinstance(shadow, str):
            self.labels[primary, shadow] += 1
        elif isinstance(primary, float) and isinstance(shadow, float):
            self.numbers += 1
            self.equal_numbers += primary == shadow
            self.difference += abs(primary - shadow)
        else:
            self.missing += 1

    def agreement(self) -> PredictionAgreement:
        labels = sum(self.labels.values())
        ranked = sorted(self.labels.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABEL_PAIRS]
        shown = tuple(LabelPair(primary, shadow, n) for (primary, shadow), n in ranked)
        same = sum(n for (primary, shadow), n in self.labels.items() if primary == shadow)
        return PredictionAgreement(
            n=self.numbers + labels,
            missing=self.missing,
            equal=self.equal_numbers + same,
            mean_absolute_difference=self.difference / self.numbers if self.numbers else None,
            labels=shown,
            other_labels=labels - sum(pair.n for pair in shown),
        )


def _row(event: ShadowEvent) -> dict[str, object]:
    shadow, primary = event.shadow, event.primary
    return {
        "decision_id": decision_id(event.decision),
        "arm_id": shadow.arm_id,
        "route_id": event.decision.route_id,
        "at_ms": event.at_ms,
        "status": shadow.status,
        "failure": shadow.failure,
        "latency_ms": shadow.latency_ms,
        "body_hash": shadow.body_hash,
        "body_bytes": shadow.body_bytes,
        "predictions": _text(shadow),
        "primary_arm_id": primary.arm_id if primary is not None else None,
        "primary_status": primary.status if primary is not None else None,
        "primary_latency_ms": primary.latency_ms if primary is not None else None,
        "primary_body_hash": primary.body_hash if primary is not None else None,
        "primary_body_bytes": primary.body_bytes if primary is not None else None,
        "primary_predictions": _text(primary),
    }


def _text(answer: ArmAnswer | None) -> str:
    return msgspec.json.encode(answer.predictions if answer is not None else {}).decode()
