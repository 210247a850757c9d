"""Claims about whole rollouts, on short days: the better arm is crowned, the broken one is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import pytest

from tests.app.gateway.stage import Message, Script
from tests.app.product import Caller, Document, Product, Server, answer_of, converted, eventually, route

RATES = {"old": 0.2, "new": 0.6}
_BATCH = 10


@dataclass
class Callers:
    """Two connections that ask, and report outcomes drawn by the arms' rates; `statuses` are all answers'."""

    server: Server
    draws: Random
    statuses: set[int] = field(default_factory=set)
    fallbacks: int = 0
    over: bool = False

    async def run(self) -> None:
        """Ask and report until it is over."""
        async with self.server.caller() as caller:
            while not self.over:
                outcomes: list[Document] = []
                for _ in range(_BATCH):
                    answer = await caller.ask()
                    self._note(answer, outcomes)
                    await asyncio.sleep(0.004)
                assert (await caller.report(outcomes)).status == 202

    def _note(self, answer: Message, outcomes: list[Document]) -> None:
        self.statuses.add(answer.status)
        self.fallbacks += answer["kingmaker-reason"] == "FALLBACK"
        assigned = answer["kingmaker-assigned-arm"] or answer["kingmaker-arm"]
        token = answer["kingmaker-decision"]
        assert assigned is not None
        assert token is not None
        outcomes.append(converted(token, int(self.draws.random() < RATES[assigned])))


@asynccontextmanager
async def _callers(server: Server) -> AsyncIterator[Callers]:
    callers = Callers(server, Random(1))
    async with asyncio.TaskGroup() as running:
        for _ in range(2):
            running.create_task(callers.run())
        try:
            yield callers
        finally:
            callers.over = True


def _policy(**changes: Any) -> Document:
    """A policy that judges days of one second, on little evidence."""
    return {
        "winning_days": 2,
        "minimum_days": 3,
        "horizon_days": 1_000,
        "min_samples": 20,
        "min_conversions": 5,
        "day": {"length": "1s"},
        **changes,
    }


async def _on_trial(product: Product, policy: Document, challenger: Script | None = None) -> Server:
    """A server whose challenger is on trial with half of the traffic; each request is its own unit."""
    old, new = await product.arm("old"), await product.arm("new")
    new.script = challenger or new.script
    quick = {"timeout": "500ms", "connect_timeout": "250ms"}
    metrics = [{"name": "conversion", "kind": "binary", "window": "500ms"}]
    declared = route(old, new, policy=policy, metrics=metrics, upstream=quick)
    del declared["unit"]
    return await product.serve(routes=[declared])


async def _arms(caller: Caller) -> set[str | None]:
    """Which arms answer thirty requests."""
    return {(await caller.ask())["kingmaker-arm"] for _ in range(30)}


def _rollout(server: Server) -> Callable[[], Any]:
    async def read() -> Document:
        return await server.api("GET", "/routes/bid/rollout")

    return read


@pytest.mark.long
async def test_a_better_challenger_is_crowned_by_the_rule(product: Product) -> None:
    """On days of a second, two wins on at least three days promote it: it answers everything from then on,
    and evaluations, timeline and champion say on what evidence."""
    server = await _on_trial(product, _policy())
    async with _callers(server) as callers:
        await eventually(_rollout(server), lambda rollout: rollout["champion"] == "new", 60)
    async with server.caller() as caller:
        await eventually(lambda: _arms(caller), lambda arms: arms == {"new"}, 3)
    assert callers.statuses == {200}
    crowned = (await server.api("GET", "/routes/bid/champion"))["crowned"]
    assert (crowned["kind"], crowned["actor"], crowned["champion"]) == ("promoted", "policy", "new")
    evaluations = (await server.api("GET", "/routes/bid/evaluations"))["evaluations"]
    [promoted] = [found for found in evaluations if found["action"] == "promote"]
    assert promoted["id"] == crowned["evaluation"]
    assert (promoted["verdict"], promoted["streak"]["winning"]) == ("win", 2)
    assert promoted["days"] >= 3
    assert promoted["chance_to_beat"] > promoted["threshold"]
    timeline = (await server.api("GET", "/routes/bid/timeline"))["timeline"]
    assert [entry["kind"] for entry in timeline] == ["promoted", "route_created"]


async def test_a_broken_challenger_is_withdrawn_and_no_caller_sees_an_error(product: Product) -> None:
    """One that fails a third of its requests is rolled back by its guardrail within seconds; the champion
    answered in its place, and answers everything afterwards."""
    numbers = count()

    async def third(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(answer_of("new", 500 if next(numbers) % 3 == 0 else 200))

    server = await _on_trial(product, _policy(day={"length": "10m"}), third)
    async with _callers(server) as callers:
        await eventually(_rollout(server), lambda rollout: rollout["weights"]["new"] == 0, 40)
    assert callers.statuses == {200}
    assert callers.fallbacks > 0
    async with server.caller() as caller:
        await eventually(lambda: _arms(caller), lambda arms: arms == {"old"}, 3)
    timeline = (await server.api("GET", "/routes/bid/timeline"))["timeline"]
    assert [(entry["kind"], entry["actor"]) for entry in timeline] == [
        ("rolled_back", "policy"),
        ("route_created", "file"),
    ]
    [found] = (await server.api("GET", "/routes/bid/evaluations"))["evaluations"]
    assert (found["kind"], found["verdict"], found["action"]) == ("guardrail", "unhealthy", "rollback")
    assert timeline[0]["evaluation"] == found["id"]
