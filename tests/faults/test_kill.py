"""Claims about processes that are killed amid traffic: nothing acknowledged is lost or counted twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from random import Random

import pytest

from tests.app.gateway.stage import ArmServer, Message
from tests.app.product import (
    Caller,
    Product,
    Server,
    answer_of,
    converted,
    counted,
    eventually,
    route,
    units,
    until,
)

_CUT = (ConnectionError, asyncio.IncompleteReadError)


@dataclass
class Traffic:
    """Users who ask and report all the time, over connections that they open again when one is cut.

    Mutable state: which arm each user had, which tokens' outcomes were acknowledged or may have been, what
    went wrong, and whether it is over.
    """

    arms: dict[str, set[str]] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    in_doubt: list[str] = field(default_factory=list)
    wrong: list[Message] = field(default_factory=list)
    cuts: int = 0
    over: bool = False

    async def run(self, server: Server, users: list[str]) -> None:
        """Ask and report until it is over."""
        turns = cycle(users)
        while not self.over:
            try:
                async with server.caller() as caller:
                    while not self.over:
                        await self._once(caller, next(turns))
            except _CUT:
                self.cuts += 1
                await asyncio.sleep(0.02)

    async def _once(self, caller: Caller, user: str) -> None:
        answer = await caller.ask(X_User_Id=user)
        token, arm = answer["kingmaker-decision"], answer["kingmaker-arm"]
        if answer.status != 200 or token is None or arm is None:
            self.wrong.append(answer)
            return
        self.arms.setdefault(user, set()).add(arm)
        self.in_doubt.append(token)
        told = await caller.report([converted(token)])
        self.in_doubt.remove(token)
        if told.status == 202:
            self.acknowledged.append(token)
        else:
            self.wrong.append(told)


@asynccontextmanager
async def _traffic(server: Server, traffic: Traffic) -> AsyncIterator[None]:
    """Traffic of three connections for as long as the block lasts."""
    traffic.over = False
    async with asyncio.TaskGroup() as running:
        for number in range(3):
            running.create_task(traffic.run(server, units(15, f"c{number}-")))
        try:
            yield
        finally:
            traffic.over = True


async def _assert_nothing_is_lost(server: Server, traffic: Traffic) -> None:
    """Every acknowledged outcome counts once; those in doubt once or not at all, also when sent again."""
    every = [*traffic.acknowledged, *traffic.in_doubt]
    async with server.caller() as caller:
        for start in range(0, len(every), 500):
            told = await caller.report([converted(token) for token in every[start : start + 500]])
            assert told.status == 202, told
            assert b'"rejected":[]' in told.body
    await eventually(server.totals, lambda totals: counted(totals).n >= len(every))
    await asyncio.sleep(1.1)
    totals = counted(await server.totals())
    assert (totals.n, totals.total) == (len(every), float(len(every)))
    assert totals.decisions >= len(every)
    assert traffic.wrong == []
    assert {len(arms) for arms in traffic.arms.values()} == {1}


async def _two_arms(product: Product, *flags: str) -> Server:
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve(*flags, routes=[route(old, new)])


async def _kill_and_start_again(product: Product, server: Server, traffic: Traffic, after: float) -> Server:
    """Kill the main process after some seconds of traffic; its workers must end by themselves."""
    async with _traffic(server, traffic):
        await asyncio.sleep(after)
        server.process.kill()
        ports = [url.rpartition(":")[2] for url in (server.gateway, server.control)]
        again = product.start("--gateway-port", ports[0], "--control-port", ports[1])
        await again.ready()
        await until(lambda: not server.left_behind(), 15)
        seen = len(traffic.acknowledged)
        await until(lambda: len(traffic.acknowledged) > seen + 20)
    return again


async def test_killing_the_main_process_loses_nothing(product: Product) -> None:
    """After kill -9 under traffic a new process on the same folder and ports goes on: same arms, same tokens,
    each acknowledged outcome once, and no worker of the dead one stays behind."""
    server = await _two_arms(product)
    traffic = Traffic()
    again = await _kill_and_start_again(product, server, traffic, after=0.8)
    assert traffic.cuts > 0
    assert (again.gateway, again.control) == (server.gateway, server.control)
    await _assert_nothing_is_lost(again, traffic)


async def test_killing_a_worker_loses_nothing(product: Product) -> None:
    """After kill -9 a worker is started again, callers see cut connections at most, and all is counted."""
    server = await _two_arms(product)
    traffic = Traffic()
    async with _traffic(server, traffic):
        await until(lambda: len(traffic.acknowledged) > 20)
        [killed] = server.workers()
        os.kill(killed, signal.SIGKILL)
        await until(lambda: server.workers() not in ([], [killed]))
        seen = len(traffic.acknowledged)
        await until(lambda: len(traffic.acknowledged) > seen + 20)
    assert traffic.cuts > 0
    await _assert_nothing_is_lost(server, traffic)
    assert '"event":"worker_ended"' in server.stderr


async def test_a_successor_shares_the_spool_of_a_worker_that_still_drains(product: Product) -> None:
    """A worker whose parent was killed finishes its slow exchange after the next one has taken over; both
    their events are recorded, and the next one goes on taking outcomes."""
    server = await _two_arms(product)
    go = asyncio.Event()

    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(answer_of("slow"))

    fast = ArmServer.say(answer_of("fast"))
    for arm in product.arms:
        arm.script = slow
    async with server.caller() as caller:
        asking = asyncio.create_task(caller.decide("ann"))
        await until(lambda: any(arm.seen for arm in product.arms))
        server.process.kill()
        again = await product.serve()
        for arm in product.arms:
            arm.script = fast
        assert server.left_behind()
        go.set()
        _, token = await asking
    await until(lambda: not server.left_behind(), 15)
    async with again.caller() as caller:
        _, second = await caller.decide("bob")
        assert (await caller.report([converted(token), converted(second)])).status == 202
    await eventually(again.totals, lambda totals: counted(totals).n == 2)
    assert counted(await again.totals()).decisions == 2


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_whenever_the_main_process_is_killed(product: Product, seed: int) -> None:
    """Three kills in a row, at any moments, with two workers: still nothing is lost or counted twice."""
    moments = Random(seed)
    server = await _two_arms(product, "--workers", "2")
    traffic = Traffic()
    for _ in range(3):
        server = await _kill_and_start_again(product, server, traffic, after=moments.uniform(0.02, 2))
    await _assert_nothing_is_lost(server, traffic)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
async def test_whenever_a_worker_is_killed(product: Product, seed: int) -> None:
    """Five kills of either worker, at any moments: still nothing is lost or counted twice."""
    moments = Random(seed)
    server = await _two_arms(product, "--workers", "2")
    traffic = Traffic()
    async with _traffic(server, traffic):
        for _ in range(5):
            await asyncio.sleep(moments.uniform(0.02, 1))
            await until(lambda: len(server.workers()) == 2)
            os.kill(moments.choice(server.workers()), signal.SIGKILL)
        await until(lambda: len(server.workers()) == 2)
        seen = len(traffic.acknowledged)
        await until(lambda: len(traffic.acknowledged) > seen + 20)
    await _assert_nothing_is_lost(server, traffic)
