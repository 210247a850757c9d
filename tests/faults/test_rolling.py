"""Claims about workers that are replaced under load: who keeps a connection loses nothing."""

from __future__ import annotations

import os
import signal

import pytest

from tests.app.product import Product, Server, route, until
from tests.faults.load import Load


async def _two_workers(product: Product) -> Server:
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve("--workers", "2", routes=[route(old, new)])


async def _restart(server: Server) -> None:
    """Have every worker replaced, and wait until the old ones are gone."""
    before = set(server.workers())
    server.process.send_signal(signal.SIGHUP)
    await until(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 60)


async def test_a_rolling_restart_loses_no_request(product: Product) -> None:
    """Callers who ask all the time, and those who pause between requests, are all answered with 200."""
    server = await _two_workers(product)
    busy, calm = Load(), Load()
    async with busy.on(server, 8), calm.on(server, 8, pause=0.5):
        await until(lambda: busy.answered > 100 and calm.answered > 8)
        await _restart(server)
        seen = busy.answered, calm.answered
        await until(lambda: busy.answered > seen[0] + 100 and calm.answered > seen[1] + 8)
    assert (busy.wrong, busy.cut, calm.wrong, calm.cut) == ([], [], [], [])
    assert busy.connections > 8
    assert '"event":"worker_replaced"' in server.stderr


async def test_killing_a_worker_fails_only_what_it_had_in_hand(product: Product) -> None:
    """With kill -9 of one of two, no caller loses more than the one request that it was waiting for."""
    server = await _two_workers(product)
    load = Load()
    async with load.on(server, 16):
        await until(lambda: load.answered > 200)
        killed = server.workers()[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: len(server.workers()) == 2 and killed not in server.workers())
        seen = load.answered
        await until(lambda: load.answered > seen + 200)
    assert load.wrong == []
    assert len(load.cut) <= 16
    assert load.connections == 16 + len(load.cut)


@pytest.mark.long
async def test_twenty_rolling_restarts_lose_no_request(product: Product) -> None:
    """One after the other under load of busy and calm callers: not one request fails."""
    server = await _two_workers(product)
    busy, calm = Load(), Load()
    async with busy.on(server, 8), calm.on(server, 8, pause=0.3):
        for _ in range(20):
            await _restart(server)
    assert (busy.wrong, busy.cut, calm.wrong, calm.cut) == ([], [], [], [])
    assert busy.answered > 1_000
    assert "Traceback" not in server.stderr
    assert (await server.stop()).code == 0
