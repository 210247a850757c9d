"""Claims about one of several workers that is killed: the requests that it had are cut off, and no others."""

from __future__ import annotations

import os
import signal

from tests.app.product import Product, route, until
from tests.faults.load import Load

_CALLERS = 16


async def test_only_requests_in_flight_fail_when_one_of_two_workers_is_killed(product: Product) -> None:
    """Under keep-alive load each caller loses at most the one request it had on the killed worker; nobody
    gets a wrong answer, the callers of the other worker go on, and a new worker takes the place."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve("--workers", "2", routes=[route(old, new)])
    load = Load()
    async with load.on(server, _CALLERS):
        await until(lambda: load.answered > 200)
        [killed, _] = server.workers()
        os.kill(killed, signal.SIGKILL)
        seen = load.answered
        await until(lambda: load.answered > seen + 200)
        await until(lambda: killed not in server.workers() and len(server.workers()) == 2)
        seen = load.answered
        await until(lambda: load.answered > seen + 200)
    assert load.wrong == []
    assert len(load.cut) <= _CALLERS
    assert load.connections <= 2 * _CALLERS
    assert (await server.stop()).code == 0
